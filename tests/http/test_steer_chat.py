"""POST /api/steer-chat: both answers beside /v1/chat/completions, the shape that Neuronpedia's client reads, streams, refusals."""
import json

import pytest

from test_openai_chat import HELLO, answer, apply, chats  # noqa: F401 (a fixture)

OTHER = [{"role": "user", "content": "A letter came"}]
FEATURES = [{"modelId": "m0", "layer": "1-res-relu", "index": 3, "strength": 4.0}]
BODY = {"defaultChatMessages": HELLO, "steeredChatMessages": OTHER, "modelId": "m0", "features": FEATURES, "temperature": 0,
        "n_tokens": 16, "freq_penalty": 0, "seed": 16, "strength_multiplier": 1.5, "steer_special_tokens": True}


def steer_chat(daemon, status=200, **changes):
    reply = daemon.post("/api/steer-chat/", {**BODY, **changes})
    assert reply.status_code == status, reply.text
    return reply.json()


@pytest.mark.parametrize("changes", [
    {}, {"temperature": 0.8}, {"steer_special_tokens": False}, {"steer_method": "ORTHOGONAL_DECOMP"}, {"freq_penalty": 1},
    {"edits": [{"op": "mean", "point": "blocks.1.hook_attn_out"}]}])
def test_both_answers(chats, changes):  # noqa: F811
    body = {**BODY, **changes}
    got = steer_chat(chats, **changes)
    ask = {"max_tokens": 16, "temperature": body["temperature"], "seed": 16, "frequency_penalty": body["freq_penalty"]}
    steering = {"features": FEATURES, "strength_multiplier": 1.5, "steer_special_tokens": body["steer_special_tokens"],
                "method": body.get("steer_method", "SIMPLE_ADDITIVE"), "edits": body.get("edits", [])}
    for side, messages, more in (("DEFAULT", HELLO, {}), ("STEERED", OTHER, {"steering": steering})):
        want = answer(chats, messages=messages, **ask, **more)["choices"][0]["message"]["content"]
        assert got[side]["raw"] == apply(chats, "m0", messages).json()["prompt"] + want
        turns = [{"content": m["content"], "role": m["role"]} for m in messages]
        assert got[side]["chatTemplate"] == turns + [{"content": want.strip(), "role": "assistant"}]
        assert got[side]["logprobs"] is None
    assert got["id"] and got["shareUrl"] is None and got["limit"] is None
    assert got["settings"] == {"temperature": body["temperature"], "n_tokens": 16, "freq_penalty": body["freq_penalty"], "seed": 16,
                               "strength_multiplier": 1.5, "steer_special_tokens": body["steer_special_tokens"],
                               "steer_method": body.get("steer_method", "SIMPLE_ADDITIVE")}
    plain = answer(chats, messages=OTHER, **ask)["choices"][0]["message"]["content"]
    assert not got["STEERED"]["raw"].endswith(plain)


def test_nothing_to_steer_with(chats):  # noqa: F811
    got = steer_chat(chats, features=[], steeredChatMessages=HELLO)
    assert got["STEERED"] == got["DEFAULT"]


def test_log_probabilities(chats):  # noqa: F811
    got = steer_chat(chats, n_logprobs=2)
    want = answer(chats, max_tokens=16, temperature=0, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert [t["logprob"] for t in got["DEFAULT"]["logprobs"]] == [t["logprob"] for t in want]
    assert all(len(t["topLogprobs"]) == 2 for side in ("STEERED", "DEFAULT") for t in got[side]["logprobs"])


def test_streams_grow_to_the_whole(chats):  # noqa: F811
    whole = steer_chat(chats)
    reply = chats.post("/api/steer-chat", {**BODY, "stream": True})
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    frames = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line]
    for one, more in zip(frames, frames[1:]):
        assert all(more[side]["raw"].startswith(one[side]["raw"]) for side in ("STEERED", "DEFAULT"))
        assert one["id"] is None
    assert {**frames[-1], "id": whole["id"]} == whole


@pytest.mark.parametrize("field, words, changes", [
    ("defaultChatMessages", ["required"], {"defaultChatMessages": None}),
    ("steeredChatMessages", [], {"steeredChatMessages": []}),
    ("steeredChatMessages[0].role", ["'developer'"], {"steeredChatMessages": [{"role": "tool", "content": "x"}]}),
    ("defaultChatMessages", ["messages[2]", "nothing to answer"], {"defaultChatMessages": HELLO + [{"role": "model", "content": "x"}]}),
    ("features[0].strength", ["required"], {"features": [{"layer": "1-res-relu", "index": 3}]}),
    ("features[0].modelId", ["'m1'"], {"features": [{**FEATURES[0], "modelId": "m1"}]}),
    ("isAssistantAxis", ["not served"], {"isAssistantAxis": True}),
    ("steeredChatMessages", ["no chat template"], {"modelId": "plain", "features": []}),
    ("n_tokens", ["1 to 256"], {"n_tokens": 0}),
    ("defaultChatMessages", ["tokens", "no room"], {"defaultChatMessages": [{"role": "user", "content": "x " * 400}]}),
])
def test_refusals(chats, field, words, changes):  # noqa: F811
    error = steer_chat(chats, 400, **changes)
    assert error["field"] == field and error["error"] == error["message"], error
    assert all(word in error["message"] for word in words), error


def test_what_is_not_there(chats):  # noqa: F811
    assert steer_chat(chats, 404, features=[{**FEATURES[0], "layer": "1-res-rel"}])["field"] == "features[0].layer"
    assert steer_chat(chats, 404, modelId="m99")["field"] == "modelId"
