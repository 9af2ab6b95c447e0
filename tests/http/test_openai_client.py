"""The official `openai` client against the daemon, with nothing changed but its base URL. Where the test's interpreter lacks the
package, these are skipped by name: python3 -m venv V; V/bin/pip install openai pytest requests numpy; V/bin/pytest tests/http/..."""
import json

import pytest

from conftest import MODEL, VECTORS, Daemon, model_options
from test_openai_chat import CHATS, HELLO, folder_with

openai = pytest.importorskip("openai", reason="skip: the package 'openai' is not installed for this interpreter")

EXPECTED = json.loads((VECTORS / MODEL / "expected.json").read_text())["prompts"][0]
STEERING = {"features": [{"source": "1-res-relu", "index": 3, "strength": 6.0}]}


def client_of(daemon):
    return openai.OpenAI(base_url=daemon.url + "/v1", api_key="none", max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def client(daemon):
    with client_of(daemon) as one:
        yield one


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    template = next(c["template"] for c in CHATS["cases"] if c["name"] == "chatml")
    one = Daemon(["--model", f"chatty={folder_with(template, tmp_path_factory.mktemp('chat') / 'm')}"])
    with client_of(one) as client:
        yield client
    one.finish()


def test_models(client):
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "steerd"


def test_completion(client):
    got = client.completions.create(model=MODEL, prompt=EXPECTED["text"], max_tokens=24, temperature=0, logprobs=2)
    assert got.choices[0].text == EXPECTED["greedy_text"] and got.choices[0].finish_reason == "length"
    assert got.usage.completion_tokens == 24 and len(got.choices[0].logprobs.token_logprobs) == 24


def test_steering_through_extra_body(client):
    ask = {"model": MODEL, "prompt": EXPECTED["text"], "max_tokens": 24, "temperature": 0}
    plain, steered = client.completions.create(**ask), client.completions.create(**ask, extra_body={"steering": STEERING})
    assert plain.choices[0].text == EXPECTED["greedy_text"] != steered.choices[0].text


def test_stream(client):
    ask = {"model": MODEL, "prompt": [EXPECTED["text"], "A"], "max_tokens": 12, "temperature": 0, "n": 2}
    whole, texts, usage = client.completions.create(**ask), {}, None
    for chunk in client.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert [texts[i] for i in range(4)] == [c.text for c in whole.choices] and usage == whole.usage


def test_a_stream_that_is_left(client, daemon):
    for chunk in client.completions.create(model=MODEL, prompt="x", max_tokens=100, stream=True):
        break
    assert client.completions.create(model=MODEL, prompt="x", max_tokens=1).choices


def test_chat(chat):
    ask = {"model": "chatty", "messages": HELLO, "max_tokens": 10, "temperature": 0}
    got = chat.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    assert got.choices[0].message.role == "assistant" and len(got.choices[0].logprobs.content) == 10
    assert len(got.choices[0].logprobs.content[0].top_logprobs) == 2
    deltas = [c.choices[0].delta for c in chat.chat.completions.create(**ask, stream=True)]
    assert deltas[0].role == "assistant" and "".join(d.content or "" for d in deltas) == got.choices[0].message.content
    text = got.choices[0].message.content
    with chat.chat.completions.stream(**ask, stop=text[5:7]) as stream:  # the client's own helper, which puts the pieces together
        assert stream.get_final_completion().choices[0].message.content == text[:text.index(text[5:7])]


@pytest.mark.parametrize("error, words, ask", [
    ("BadRequestError", "'temperature' must be a number from 0 to 2", {"prompt": "x", "temperature": 3}),
    ("BadRequestError", "best_of", {"prompt": "x", "best_of": 2}),
    ("NotFoundError", "did you mean", {"prompt": "x", "model": "tiny-gpt3"}),
    ("NotFoundError", "1-res-relu", {"prompt": "x", "extra_body": {"steering": {"features": [
        {"source": "1-res-rel", "index": 1, "strength": 1}]}}}),
    ("BadRequestError", "did you mean 'features'", {"prompt": "x", "extra_body": {"steering": {"feature": []}}}),
])
def test_errors_are_the_clients_classes_and_can_be_read(client, error, words, ask):
    with pytest.raises(getattr(openai, error)) as caught:
        client.completions.create(**{"model": MODEL, **ask})
    assert words in str(caught.value) and words in caught.value.body["message"]
    assert caught.value.type == "invalid_request_error" and caught.value.param


def test_keys(start_daemon, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret-key-of-a-test\n")
    keys.chmod(0o600)
    one = start_daemon(keys=str(keys))
    with pytest.raises(openai.AuthenticationError) as caught:
        client_of(one).models.list()
    assert "key" in str(caught.value)
    good = openai.OpenAI(base_url=one.url + "/v1", api_key="secret-key-of-a-test", max_retries=0)
    assert good.models.list().data
