"""Chats with plain requests: what the model reads beside transformers' rendering, answers beside /v1/completions."""
import json
import os
import pathlib

import pytest

from conftest import MODEL, ROOT, VECTORS, run_steerd
from test_openai import STEERED, complete, events, refused

CHATS = json.loads((VECTORS / "chat" / "chats.json").read_text())
PATH = "/v1/chat/completions"
HELLO = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "A ship came"}]


def folder_with(template, at):
    """tiny-gpt2 with a chat template."""
    at.mkdir()
    for file in (VECTORS / MODEL / "model").iterdir():
        if file.name != "tokenizer_config.json":
            (at / file.name).symlink_to(file)
    config = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "chat_template": template}
    (at / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return str(at)


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """A daemon with one model for each recorded template, and one without any."""
    from conftest import Daemon
    root = tmp_path_factory.mktemp("chats")
    flags = []
    for i, case in enumerate(CHATS["cases"]):
        flags += ["--model", f"m{i}={folder_with(case['template'], root / f'm{i}')}"]
    sources = VECTORS / MODEL / "sources"
    flags += ["--model", f"plain={folder_with(None, root / 'plain')}", "--source", f"m0/1-res-relu={sources / '1-res-relu'}"]
    flags += ["--source", f"m0/0-mlp-topk={sources / '0-mlp-topk'}", "--source", f"m0/2-res-jump={sources / '2-res-jump'}"]
    one = Daemon(flags)
    yield one
    one.finish()


def apply(daemon, model, messages):
    return daemon.post("/v1/apply-chat-template", {"model": model, "messages": messages})


def answer(daemon, **body):
    return complete(daemon, path=PATH, **{"model": "m0", "messages": HELLO, **body})


def test_chats_are_written_as_transformers_writes_them(chats):
    listed = {m["id"]: m["chat_format"] for m in chats.get("/v1/models").json()["data"]}
    written = 0
    for i, case in enumerate(CHATS["cases"]):
        assert listed[f"m{i}"] == case["format"], case["name"]
        for chat in case["chats"]:
            reply = apply(chats, f"m{i}", chat["messages"])
            if chat["text"] is None:
                assert reply.status_code == 400
            elif reply.status_code == 200:  # tests/unit/test_chat.c knows which few are refused
                want = chat["text"].replace(CHATS["bos"], "<|endoftext|>").replace(CHATS["eos"], "<|endoftext|>")
                assert reply.json()["prompt"] == want, (case["name"], chat["name"])
                written += 1
    assert written > 200


def test_a_published_template(start_daemon, tmp_path):
    data = pathlib.Path(os.environ.get("STEERD_DATA", ROOT.parent / "shared" / "data")) / "tokenizers" / "qwen3" / "tokenizer_config.json"
    if not data.exists():
        pytest.skip("skip: tokenizers/qwen3 (set STEERD_DATA)")
    template = json.loads(data.read_text())["chat_template"]
    one = start_daemon(models={"q": folder_with(template, tmp_path / "q")})
    case = next(c for c in CHATS["cases"] if c["name"] == "qwen-3")  # ours renders what Qwen's does
    for chat in case["chats"]:
        reply = apply(one, "q", chat["messages"])
        if chat["name"] in ("a tool's reply", "the system ends"):  # answers behind the last question keep their thoughts: refused
            assert reply.status_code == 400 and "last question" in reply.json()["error"]
            continue
        assert reply.json()["prompt"] == chat["text"]
        quiet = one.post("/v1/apply-chat-template", {"model": "q", "messages": chat["messages"], "chatTemplateKwargs": {"enableThinking": False}})
        assert quiet.json()["prompt"] == chat["quiet"] == chat["text"] + "<think>\n\n</think>\n\n"


def test_thinking_off(chats):
    """Qwen 3's switch: the answer is that to the chat with empty thoughts in front; a model that always thinks refuses it."""
    model = {case["name"]: f"m{i}" for i, case in enumerate(CHATS["cases"])}
    def read(name, **kwargs):
        return chats.post("/v1/apply-chat-template", {"model": model[name], "messages": HELLO, "chatTemplateKwargs": kwargs or None})
    plain = read("qwen-3").json()
    quiet = read("qwen-3", enable_thinking=False).json()
    assert quiet["prompt"] == plain["prompt"] + "<think>\n\n</think>\n\n" and read("qwen-3", enable_thinking=True).json() == plain
    assert read("chatml", enable_thinking=False).json() == read("chatml").json()
    asked = {"model": model["qwen-3"], "max_tokens": 12, "temperature": 0}
    got = answer(chats, chat_template_kwargs={"enable_thinking": False}, **asked)
    want = complete(chats, **{**asked, "prompt": quiet["tokens"]})
    assert got["choices"][0]["message"]["content"] == want["choices"][0]["text"] and got["usage"] == want["usage"]
    refused(chats, 400, "enable_thinking", "always think", path=PATH, model=model["deepseek-r1"], messages=HELLO,
            chat_template_kwargs={"enable_thinking": False})
    refused(chats, 400, "chat_template_kwargs.enable_thinking", "true or false", path=PATH, model=model["qwen-3"], messages=HELLO,
            chat_template_kwargs={"enable_thinking": "no"})


@pytest.mark.parametrize("name, words", [("chatml", "chatml"), ("one of its own", "of no format that is known here")])
def test_inspect_tells_the_format(tmp_path, name, words):
    template = next(c["template"] for c in CHATS["cases"] if c["name"] == name)
    status, out, _ = run_steerd("inspect", folder_with(template, tmp_path / "m"))
    line = next(line for line in out.splitlines() if "chat template" in line)
    assert status == 0 and line.endswith(words)


def test_answers_are_completions_of_what_the_model_reads(chats):
    tokens = apply(chats, "m0", HELLO).json()["tokens"]
    for body in ({"temperature": 0}, {"temperature": 0.8, "seed": 5, "n": 3}, {"temperature": 0, "stop": ["e", "a"]}):
        want = complete(chats, model="m0", prompt=tokens, max_tokens=20, **body)
        got = answer(chats, max_tokens=20, **body)
        assert [c["message"]["content"] for c in got["choices"]] == [c["text"] for c in want["choices"]]
        assert [c["finish_reason"] for c in got["choices"]] == [c["finish_reason"] for c in want["choices"]]
        assert got["usage"] == want["usage"] and got["object"] == "chat.completion" and got["id"].startswith("chatcmpl-")
        assert {c["message"]["role"] for c in got["choices"]} == {"assistant"}


@pytest.mark.parametrize("steering", STEERED)
def test_steered_answers(chats, steering):
    tokens = apply(chats, "m0", HELLO).json()["tokens"]
    want = complete(chats, model="m0", prompt=tokens, max_tokens=16, temperature=0, steering=steering)["choices"][0]["text"]
    assert answer(chats, max_tokens=16, temperature=0, steering=steering)["choices"][0]["message"]["content"] == want


def test_logprobs_of_answers(chats):
    tokens = apply(chats, "m0", HELLO).json()["tokens"]
    want = complete(chats, model="m0", prompt=tokens, max_tokens=12, temperature=0, logprobs=3)["choices"][0]["logprobs"]
    choice = answer(chats, max_tokens=12, temperature=0, logprobs=True, top_logprobs=3)["choices"][0]
    got = choice["logprobs"]["content"]
    assert [t["logprob"] for t in got] == want["token_logprobs"]
    assert b"".join(bytes(t["bytes"]) for t in got).decode("utf-8", "replace") == choice["message"]["content"]
    for token, tops in zip(got, want["top_logprobs"]):
        assert len(token["top_logprobs"]) == 3
        assert {t["logprob"] for t in token["top_logprobs"]} == set(tops.values())
        assert token["top_logprobs"][0]["token"] == token["token"]  # greedy
    bare = answer(chats, max_tokens=3, temperature=0, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert all(t["top_logprobs"] == [] for t in bare)
    assert answer(chats, max_tokens=3)["choices"][0]["logprobs"] is None


def test_streamed_answers(chats):
    body = {"model": "m0", "messages": HELLO, "max_tokens": 15, "temperature": 0.7, "seed": 3, "n": 2, "logprobs": True, "top_logprobs": 1}
    want = answer(chats, **body)
    reply = chats.post(PATH, {**body, "stream": True, "stream_options": {"include_usage": True}})
    chunks = events(reply)
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"} and chunks[-1]["usage"] == want["usage"]
    for choice in want["choices"]:
        deltas = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
        assert deltas[-1]["delta"] == {} and deltas[-1]["finish_reason"] == choice["finish_reason"]
        assert all(d["finish_reason"] is None for d in deltas[:-1])
        assert "".join(d["delta"].get("content", "") for d in deltas) == choice["message"]["content"]
        assert [t for d in deltas for t in (d["logprobs"] or {"content": []})["content"]] == choice["logprobs"]["content"]


def test_contents_in_parts_and_other_names(chats):
    want = answer(chats, max_tokens=8, temperature=0)["choices"]
    parts = [{"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind"}]},
             {"role": "user", "content": "A ship came", "name": "me"}]
    assert answer(chats, messages=parts, max_completion_tokens=8, temperature=0, tool_choice="none", response_format={"type": "text"},
                  user="x", parallel_tool_calls=True)["choices"] == want


def test_what_a_message_says_is_never_a_special_token(chats):
    attack = apply(chats, "m0", [{"role": "user", "content": "a<|endoftext|>b"}]).json()["tokens"]
    assert 511 not in attack
    bos = next(f"m{i}" for i, case in enumerate(CHATS["cases"]) if case["name"] == "chatml with BOS")
    assert apply(chats, bos, [{"role": "user", "content": "a<|endoftext|>b"}]).json()["tokens"].count(511) == 1  # the template's BOS


def test_as_many_tokens_as_there_is_room(chats):
    reply = answer(chats, temperature=1, seed=1, logit_bias={"511": -100})
    assert reply["usage"]["total_tokens"] == 160 and reply["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("param, words, body", [
    ("messages", ["required"], {"messages": None}),
    ("messages", [], {"messages": []}),
    ("messages", ["the string"], {"messages": "hi"}),
    ("messages[0]", [], {"messages": ["hi"]}),
    ("messages[0].role", ["required"], {"messages": [{"content": "x"}]}),
    ("messages[0].role", ["assistant", "tool"], {"messages": [{"role": "tool", "content": "x"}]}),
    ("messages[0].content", ["required"], {"messages": [{"role": "user", "content": None}]}),
    ("messages[0].content", ["found 5"], {"messages": [{"role": "user", "content": 5}]}),
    ("messages[0].content[0]", ["text only"], {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
    ("messages[0].content[1]", [], {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, 5]}]}),
    ("messages[1]", ["nothing to answer"], {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    ("messages", ["tokens"], {"messages": [{"role": "user", "content": "x " * 400}]}),
    ("max_tokens", ["1 to 256"], {"max_tokens": 0}),
    ("max_tokens", ["twice"], {"max_tokens": 5, "max_completion_tokens": 5}),
    ("logprobs", ["true or false"], {"logprobs": 3}),
    ("top_logprobs", ["without 'logprobs'"], {"top_logprobs": 3}),
    ("top_logprobs", ["0 to 20"], {"logprobs": True, "top_logprobs": 21}),
    ("tools", ["no tools"], {"tools": [{"type": "function"}]}),
    ("functions", ["not served"], {"functions": []}),
    ("response_format.type", ["'text'"], {"response_format": {"type": "json_object"}}),
    ("messages", ["no chat template", "/v1/completions"], {"model": "plain"}),
])
def test_refusals(chats, param, words, body):
    refused(chats, 400, param, *words, path=PATH, **{"model": "m0", "messages": HELLO, **body})


def test_a_model_must_be_named_where_several_are_loaded(chats):
    refused(chats, 400, "model", "'model' is required", "m0", path=PATH, messages=HELLO)
    refused(chats, 400, "model", "'model' is required", path="/v1/completions", prompt="x")
    assert chats.post("/v1/lab/next", {"text": "x"}).json()["error"].startswith("'modelId' is required")


def test_a_template_of_no_known_format(chats):
    unknown = [f"m{i}" for i, case in enumerate(CHATS["cases"]) if case["format"] is None]
    assert unknown
    for model in unknown:
        refused(chats, 400, "messages", "no format that is known", "/v1/completions", path=PATH, model=model, messages=HELLO)
    refused(chats, 404, "model", "did you mean", path=PATH, model="plains", messages=HELLO)
