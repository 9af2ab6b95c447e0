"""What was read is not read again: a chat's turns, the same prompt with other features, and the setting that switches it off."""
import re

import pytest

from conftest import Daemon

STORY = "Once upon a time there was a little girl named Lily. She loved to play in the park with her friends. " * 7
FEATURE = {"layer": "2-res-demo", "index": 1890}


@pytest.fixture(scope="module")
def remembering():
    daemon = Daemon()
    yield daemon
    daemon.finish()


@pytest.fixture(scope="module")
def forgetful():
    daemon = Daemon(prefix_cache="no")
    yield daemon
    daemon.finish()


def count(daemon, name):
    return int(re.search(rf"^steerd_{name}_tokens_total (\d+)$", daemon.get("/metrics").text, re.M)[1])


def asked(daemon, path, body):
    """The answer, and how many tokens of it were read, and how many remembered."""
    before = count(daemon, "prompt"), count(daemon, "spared")
    reply = daemon.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json(), count(daemon, "prompt") - before[0], count(daemon, "spared") - before[1]


def without_names(reply):
    return {k: v for k, v in reply.items() if k not in ("id", "created", "usage")} | {"usage": reply.get("usage")}


def test_steering_a_prompt_again(remembering, forgetful):
    def steer(daemon, strength):
        body = {"prompt": STORY, "n_tokens": 30, "temperature": 0.5, "seed": 4, "features": [{**FEATURE, "strength": strength}]}
        return asked(daemon, "/steer", body)

    tokens = len(remembering.post("/api/tokenize", json={"modelId": "demo", "text": STORY}).json()["tokens"])
    assert tokens > 128
    blocks = (tokens - 1) // 64 * 64
    first, read, spared = steer(remembering, 22)
    assert (read, spared) == (tokens, 0)  # the steered text's rows go along with the plain one's
    again, read, spared = steer(remembering, 22)
    assert (read, spared) == (tokens - blocks, blocks)
    other, read, spared = steer(remembering, 15)  # the plain text is remembered, the steered one is another
    assert (read, spared) == (2 * tokens - blocks, blocks)
    for reply, strength in ((first, 22), (again, 22), (other, 15)):
        never, _, spared = steer(forgetful, strength)
        assert spared == 0 and {k: reply[k] for k in ("STEERED", "DEFAULT")} == {k: never[k] for k in ("STEERED", "DEFAULT")}
    assert first["STEERED"] != first["DEFAULT"] and other["STEERED"] != first["STEERED"]


def test_a_text_that_goes_on(remembering, forgetful):
    """As a chat's next turn: what was generated is the beginning of the next prompt."""
    start = "Tom and his dog went to the river. " * 8
    body = {"model": "demo", "prompt": start, "max_tokens": 60, "temperature": 0, "seed": 1}
    first, read, spared = asked(remembering, "/v1/completions", body)
    assert spared == 0
    text = start + first["choices"][0]["text"] + " And then"
    second, read, spared = asked(remembering, "/v1/completions", {**body, "prompt": text, "max_tokens": 8})
    assert spared == (first["usage"]["total_tokens"] - 1) // 64 * 64 and read == second["usage"]["prompt_tokens"] - spared
    never, _, spared = asked(forgetful, "/v1/completions", {**body, "prompt": text, "max_tokens": 8})
    assert spared == 0 and without_names(never) == without_names(second)
