"""OpenAI's routes with plain requests: texts beside /api/steer, numbers beside the NumPy twin, streams beside whole
replies, and what is refused. test_openai_client.py asks the same with the official client."""
import concurrent.futures
import json
import random
import time

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from test_server import in_flight, post_bytes, raw, wait_for
from twin import Twin, log_softmax

FOLDER = VECTORS / MODEL
EXPECTED = json.loads((FOLDER / "expected.json").read_text())["prompts"]
PROMPTS = [p["text"] for p in EXPECTED]
BOS = 511
LOGPROB = 2e-4  # two logits of decision 18's tolerance: the token's and the sum's


@pytest.fixture(scope="module")
def twin():
    return Twin(FOLDER / "model")


def complete(daemon, status=200, path="/v1/completions", **body):
    reply = daemon.post(path, body)
    assert reply.status_code == status, reply.text
    return reply.json()


def texts(daemon, **body):
    return [c["text"] for c in complete(daemon, **body)["choices"]]


def events(reply):
    """The data of each event; the last is [DONE]."""
    lines = [line for line in reply.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]", reply.text[-300:]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines[:-1]]


def streamed(daemon, path="/v1/completions", **body):
    """(chunks, choices put together again)."""
    reply = daemon.post(path, {**body, "stream": True})
    assert reply.status_code == 200, reply.text
    chunks, choices = events(reply), {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            whole = choices.setdefault(choice["index"], {"text": "", "finish_reason": None, "logprobs": {}})
            assert whole["finish_reason"] is None, "a chunk behind the last one of its choice"
            whole["text"] += choice["text"]
            whole["finish_reason"] = choice["finish_reason"]
            for key, values in (choice["logprobs"] or {}).items():
                whole["logprobs"].setdefault(key, []).extend(values)
    return chunks, [choices[i] for i in sorted(choices)]


def steer(daemon, prompt, **body):
    reply = daemon.post("/api/steer", {"prompt": prompt, "features": [], "include_prompt": False, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def refused(daemon, status, param, *words, path="/v1/completions", **body):
    error = complete(daemon, status, path, **body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["param"] == param, error
    for word in words:
        assert word in error["message"], error
    return error["message"]


# ---- models -----------------------------------------------------------------------------------------------


def test_routes_that_are_not_served_are_missed_in_openais_shape(daemon):
    """Their client shows the text of no other shape."""
    for path in ("/v1/embeddings", "/v1/responses", "/v1/files", "/chat/completions", "/completions"):
        reply = daemon.post(path, {})
        error = reply.json()["error"]
        assert reply.status_code == 404 and "base URL" in error["message"] and error["code"] == "not_found", reply.text


def test_models(daemon):
    listed = daemon.get("/v1/models").json()
    assert listed["object"] == "list" and [m["id"] for m in listed["data"]] == [MODEL]
    one = daemon.get(f"/v1/models/{MODEL}").json()
    assert one["object"] == "model" and one["owned_by"] and abs(one["created"] - time.time()) < 3600
    for name in ("tiny-gpt3", "openai-community/tiny-gpt2"):
        reply = daemon.get(f"/v1/models/{name}")
        assert reply.status_code == 404 and reply.json()["error"]["param"] == "model"
        assert MODEL in reply.json()["error"]["message"]
    assert "did you mean" in refused(daemon, 404, "model", MODEL, prompt="x", model="tiny-gpt3")


# ---- the same texts as /api/steer -------------------------------------------------------------------------


@pytest.mark.parametrize("i", range(len(PROMPTS)))
def test_greedy_text_is_pytorchs(daemon, i):
    reply = complete(daemon, prompt=PROMPTS[i], max_tokens=24, temperature=0)
    assert reply["choices"][0]["text"] == EXPECTED[i]["greedy_text"]
    assert reply["choices"][0]["text"] == steer(daemon, PROMPTS[i], n_tokens=24, temperature=0)["DEFAULT"]
    assert reply["object"] == "text_completion" and reply["model"] == MODEL and reply["id"].startswith("cmpl-")
    assert reply["usage"] == {"prompt_tokens": len(EXPECTED[i]["ids"]), "completion_tokens": 24,
                              "total_tokens": len(EXPECTED[i]["ids"]) + 24}
    assert reply["choices"][0]["finish_reason"] == "length"


STEERED = [
    {"features": [{"source": "1-res-relu", "index": 3, "strength": 4.0}, {"source": "1-res-relu", "index": 17, "strength": -2.5}]},
    {"features": [{"source": "0-mlp-topk", "index": "11", "strength": 8}], "method": "ORTHOGONAL_DECOMP"},
    {"features": [{"layer": "2-res-jump", "index": 5, "strength": 9.0}], "method": "PROJECTION_CAP", "strength_multiplier": 0.5},
    {"edits": [{"op": "zero", "point": "blocks.1.hook_mlp_out"}]},
    {"edits": [{"op": "mean", "point": "blocks.1.hook_attn_out", "from": {"text": "A ship came near"}}]},
    {"features": [{"source": "1-res-relu", "index": 3, "strength": 4.0}], "steer_special_tokens": False,
     "edits": [{"op": "clamp", "source": "1-res-relu", "index": 40, "value": 2}]},
]


@pytest.mark.parametrize("steering", STEERED)
@pytest.mark.parametrize("temperature", [0, 0.9])
def test_steered_text_is_the_one_of_steer(daemon, steering, temperature):
    body = {key: value for key, value in steering.items() if key != "method"}
    want = steer(daemon, PROMPTS[0], n_tokens=20, temperature=temperature, seed=8, **body,
                 steer_method=steering.get("method", "SIMPLE_ADDITIVE"))["STEERED"]
    got = texts(daemon, prompt=PROMPTS[0], max_tokens=20, temperature=temperature, seed=8, steering=steering)
    assert got == [want]
    assert want != steer(daemon, PROMPTS[0], n_tokens=20, temperature=temperature, seed=8)["DEFAULT"]


@pytest.mark.parametrize("method, op", [("SIMPLE_ADDITIVE", "add"), ("ORTHOGONAL_DECOMP", "project"), ("PROJECTION_CAP", "cap")])
def test_a_vector_is_the_edit_of_its_method(daemon, method, op):
    vector = {"point": "blocks.1.hook_resid_pre", "vector": [((7 * i) % 11 - 5) / 3 for i in range(48)]}
    want = steer(daemon, PROMPTS[1], n_tokens=20, temperature=0, edits=[{"op": op, "strength": 3, **vector}])["STEERED"]
    body = {"prompt": PROMPTS[1], "max_tokens": 20, "temperature": 0}
    assert texts(daemon, **body, steering={"vectors": [{**vector, "strength": 3}], "method": method}) == [want]
    assert texts(daemon, **body, steering={"vectors": [{**vector, "strength": 1.5}], "method": method, "strength_multiplier": 2}) == [want]


# ---- prompts ----------------------------------------------------------------------------------------------


def test_prompts_in_every_form_give_the_same(daemon):
    body = {"max_tokens": 12, "temperature": 0}
    want = [p["greedy_text"] for p in EXPECTED]
    ids = [p["ids"] for p in EXPECTED]
    alone = [texts(daemon, prompt=p, **body)[0] for p in PROMPTS]
    assert all(w.startswith(a) for a, w in zip(alone, want))
    assert texts(daemon, prompt=PROMPTS, **body) == alone
    assert texts(daemon, prompt=ids, **body) == alone
    assert texts(daemon, prompt=ids[0], **body) == alone[:1]
    assert texts(daemon, prompt="", **body) == texts(daemon, prompt=[BOS], **body)


def test_more_choices_than_run_at_once(start_daemon):
    """They run in turn, and each is the text it is alone."""
    one = start_daemon(max_sessions=3)
    body = {"max_tokens": 10, "temperature": 1, "seed": 5}
    alone = {p: texts(one, prompt=p, n=2, **body) for p in PROMPTS}
    got = texts(one, prompt=PROMPTS * 3, n=2, **body)
    assert got == [t for p in PROMPTS * 3 for t in alone[p]]
    steering = {"features": [{"source": "1-res-relu", "index": 3, "strength": 4.0}]}
    want = texts(one, prompt=PROMPTS[0], n=1, steering=steering, **body)
    assert texts(one, prompt=[PROMPTS[0]] * 9, steering=steering, **body) == want * 9


def test_choices_of_one_seed(daemon):
    body = {"prompt": PROMPTS[0], "max_tokens": 16, "temperature": 1}
    four = texts(daemon, n=4, seed=3, **body)
    assert len(set(four)) == 4
    assert four == texts(daemon, n=4, seed=3, **body)
    assert four[:2] == texts(daemon, n=2, seed=3, **body)
    assert four[0] == steer(daemon, PROMPTS[0], n_tokens=16, temperature=1, seed=3)["DEFAULT"]
    assert four != texts(daemon, n=4, seed=4, **body)
    assert texts(daemon, n=1, **body) != texts(daemon, n=1, **body)  # without a seed: one in 512**16 or so


def test_a_seed_holds_under_load(daemon):
    steering = {"features": [{"source": "1-res-relu", "index": 3, "strength": 4.0}]}
    asked = [{"prompt": PROMPTS[i % len(PROMPTS)], "n": 1 + i % 3, "seed": i % 5, "max_tokens": 12, "temperature": 0.8,
              "top_p": 0.95, "presence_penalty": 0.5, **({"steering": steering} if i % 2 else {})} for i in range(40)]
    alone = [texts(daemon, **a) for a in asked]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda a: texts(daemon, **a), asked)) == alone


# ---- log-probabilities ------------------------------------------------------------------------------------


def token_ids(daemon, text):
    return daemon.post("/v1/tokenize", {"text": text, "prependBos": False}).json()["tokens"]


@pytest.mark.parametrize("i", range(len(PROMPTS)))
def test_logprobs_are_the_models_own(daemon, twin, i):
    """Of the greedy text, which PyTorch recorded: every number beside the twin's, penalties and bias or not."""
    case = EXPECTED[i]
    ids = case["ids"] + case["greedy_ids"]
    want = log_softmax(twin.run(ids)[1])[len(case["ids"]) - 1:-1]
    choice = complete(daemon, prompt=PROMPTS[i], max_tokens=24, temperature=0, logprobs=4)["choices"][0]
    got = choice["logprobs"]
    assert len(got["tokens"]) == len(got["token_logprobs"]) == len(got["top_logprobs"]) == len(got["text_offset"]) == 24
    assert np.abs(np.array(got["token_logprobs"]) - want[range(24), case["greedy_ids"]]).max() < LOGPROB
    for row, tops in zip(want, got["top_logprobs"]):
        best = np.sort(row)[::-1][:4]
        values = sorted(tops.values(), reverse=True)
        assert len(values) <= 4 and np.abs(np.array(values) - best[:len(values)]).max() < LOGPROB
    shown = [t for t in got["tokens"] if not t.startswith("bytes:")]
    assert all(t in choice["text"] for t in shown)
    for token, offset in zip(got["tokens"], got["text_offset"]):
        if not token.startswith("bytes:"):
            assert choice["text"][offset:offset + len(token)] == token


def test_logprobs_equal_those_of_next(daemon):
    choice = complete(daemon, prompt=PROMPTS[0], max_tokens=1, temperature=0, logprobs=5)["choices"][0]
    top = daemon.post("/v1/lab/next", {"text": PROMPTS[0], "topK": 5}).json()["before"]["top"]
    assert choice["logprobs"]["token_logprobs"] == [top[0]["logprob"]]
    assert choice["logprobs"]["top_logprobs"] == [{t["token"]: t["logprob"] for t in top}]
    chosen = complete(daemon, prompt=PROMPTS[0], max_tokens=1, temperature=0, logprobs=0,
                      logit_bias={str(top[4]["id"]): 100})["choices"][0]
    assert chosen["logprobs"]["token_logprobs"] == [top[4]["logprob"]]
    assert chosen["logprobs"]["top_logprobs"] == [{top[4]["token"]: top[4]["logprob"]}]


@pytest.mark.parametrize("steering", [None, STEERED[0]])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_echo_judges_the_prompt(daemon, twin, max_tokens, steering):
    case = EXPECTED[1]
    ids = case["ids"]
    body = {"max_tokens": max_tokens, "temperature": 0, "echo": True, "logprobs": 2, **({"steering": steering} if steering else {})}
    choice = complete(daemon, prompt=PROMPTS[1], **body)["choices"][0]
    got = choice["logprobs"]
    assert choice["text"].startswith(PROMPTS[1]) and len(got["tokens"]) == len(ids) + max_tokens
    assert got["token_logprobs"][0] is None and got["top_logprobs"][0] is None
    assert got["text_offset"][:2] == [0, 0]  # BOS shows nothing
    edits = [{"op": "add", "source": f["source"], "index": f["index"], "strength": f["strength"]}
             for f in (steering or {}).get("features", [])]
    losses = daemon.post("/v1/lab/run", {"tokens": ids, "loss": True, "edits": edits}).json()["tokenLosses"]
    assert np.abs(np.array(got["token_logprobs"][1:len(ids)]) + np.array(losses)).max() < 1e-6  # printed float32 beside float32
    if not steering:
        want = log_softmax(twin.run(ids)[1])
        assert np.abs(np.array(got["token_logprobs"][1:len(ids)]) - want[range(len(ids) - 1), ids[1:]]).max() < LOGPROB
    for token, offset in list(zip(got["tokens"], got["text_offset"]))[1:]:
        if not token.startswith("bytes:"):
            assert choice["text"][offset:offset + len(token)] == token
    by_ids = complete(daemon, prompt=[ids], **body)["choices"][0]
    assert by_ids == choice


def test_echo_without_logprobs_and_streamed(daemon):
    body = {"prompt": [PROMPTS[0], PROMPTS[2]], "max_tokens": 6, "temperature": 0, "echo": True, "n": 2}
    whole = complete(daemon, **body)["choices"]
    assert [c["text"].startswith(PROMPTS[0 if c["index"] < 2 else 2]) for c in whole] == [True] * 4
    for more in ({}, {"logprobs": 1}):
        want = complete(daemon, **body, **more)["choices"]
        got = streamed(daemon, **body, **more)[1]
        assert [c["text"] for c in got] == [c["text"] for c in want] == [c["text"] for c in whole]
        assert [c["logprobs"] or None for c in got] == [c["logprobs"] for c in want]


# ---- penalties and biases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency, presence, bias", [
    (0.7, 0, {}), (0, 1.1, {}), (-0.4, 0.9, {"84": -3}), (1.5, -1.2, {"5": 2.5, "380": -100}), (0, 0, {"17": 4})])
def test_penalties_and_bias_by_the_formula(daemon, twin, frequency, presence, bias):
    """logit - count * frequency - (count > 0) * presence + bias, over generated tokens, greedily."""
    ids, count, added = list(EXPECTED[0]["ids"]), np.zeros(512), np.zeros(512)
    for token, value in bias.items():
        added[int(token)] = value
    want, leads = [], []
    for _ in range(20):
        logits = twin.run(ids)[1][-1] - count * frequency - (count > 0) * presence + added
        order = np.argsort(logits)[::-1]
        leads.append(logits[order[0]] - logits[order[1]])
        want.append(int(order[0]))
        ids.append(want[-1])
        count[want[-1]] += 1
    clear = next((i for i, lead in enumerate(leads) if lead < 1e-3), 20)  # behind a tie the two may part
    assert clear > 5
    body = {"prompt": PROMPTS[0], "max_tokens": clear, "temperature": 0, "frequency_penalty": frequency,
            "presence_penalty": presence, "logit_bias": bias}
    got = complete(daemon, **body, logprobs=0)["choices"][0]["logprobs"]["tokens"]
    echoed = complete(daemon, prompt=[[BOS] + want[:clear]], max_tokens=0, echo=True, logprobs=0)["choices"][0]
    assert got == echoed["logprobs"]["tokens"][1:]
    assert texts(daemon, **body) == [echoed["text"]]


def test_filters_hold(daemon):
    body = {"prompt": PROMPTS[0], "max_tokens": 12, "seed": 1, "temperature": 1.5}
    greedy = texts(daemon, prompt=PROMPTS[0], max_tokens=12, temperature=0)
    for one in ({"top_k": 1}, {"top_p": 0}, {"min_p": 1}):
        assert texts(daemon, **body, **one) == greedy
    assert texts(daemon, **body, top_k=-1) == texts(daemon, **body) != greedy
    assert texts(daemon, **body, min_p=0.3) != texts(daemon, **body)


# ---- stop strings -----------------------------------------------------------------------------------------


def cut(text, stops):
    """Where the text ends: in front of the string that is complete first, the longest of those."""
    for end in range(1, len(text) + 1):
        found = [s for s in stops if text[:end].endswith(s)]
        if found:
            return text[:end - len(max(found, key=len))], "stop"
    return text, "length"


@pytest.mark.parametrize("i", range(len(PROMPTS)))
def test_stop_strings_cut_exactly(daemon, i):
    whole = EXPECTED[i]["greedy_text"]
    body = {"prompt": PROMPTS[i], "max_tokens": 24, "temperature": 0}
    picks = [whole[a:a + n] for a, n in ((0, 1), (1, 3), (3, 5), (7, 2), (len(whole) // 2, 7), (len(whole) - 3, 3)) if whole[a:a + n]]
    cases = [[p] for p in picks] + [picks[:4], ["zz never zz", picks[2]], [picks[3][:1] + "\u2620", picks[4]], [whole]]
    for stops in cases:
        stops = [s for s in stops if "\ufffd" not in s]
        if not stops:
            continue
        want, reason = cut(whole, stops)
        choice = complete(daemon, **body, stop=stops if len(stops) > 1 else stops[0], logprobs=0)["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (want, reason), stops
        offsets = choice["logprobs"]["text_offset"]
        assert all(o < len(want) for o in offsets) if reason == "stop" else len(offsets) == 24
        chunks, got = streamed(daemon, **body, stop=stops, logprobs=0)
        assert (got[0]["text"], got[0]["finish_reason"]) == (want, reason), stops
        assert got[0]["logprobs"].get("tokens", []) == choice["logprobs"]["tokens"]


def test_no_stop_strings(daemon):
    assert texts(daemon, prompt=PROMPTS[0], max_tokens=24, temperature=0, stop=[]) == [EXPECTED[0]["greedy_text"]]


def test_a_stop_string_ends_the_work(daemon):
    """Tokens behind it are never made: they are counted."""
    first = EXPECTED[0]["greedy_text"][:2]
    reply = complete(daemon, prompt=PROMPTS[0], max_tokens=24, temperature=0, stop=first)
    assert reply["usage"]["completion_tokens"] <= 2 and reply["choices"][0]["text"] == ""


# ---- streams ----------------------------------------------------------------------------------------------


def test_a_stream_is_the_whole_reply_in_pieces(daemon):
    body = {"prompt": PROMPTS, "n": 2, "max_tokens": 16, "temperature": 0.8, "seed": 2, "logprobs": 2}
    want = complete(daemon, **body)
    chunks, got = streamed(daemon, **body, stream_options={"include_usage": True})
    assert [(c["text"], c["finish_reason"], c["logprobs"]) for c in got] == \
        [(c["text"], c["finish_reason"], c["logprobs"]) for c in want["choices"]]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == want["usage"]
    assert all(c["usage"] is None for c in chunks[:-1])
    assert len({c["id"] for c in chunks}) == 1 and {c["object"] for c in chunks} == {"text_completion"}
    assert all("usage" not in c for c in streamed(daemon, **body)[0])


def test_who_hangs_up_frees_the_engine(start_daemon):
    one = start_daemon()
    for n in (1, 5, 40):
        body = {"prompt": PROMPTS[0], "max_tokens": 150, "n": n, "stream": True}
        sockets = [raw(one, post_bytes("/v1/completions", body)) for _ in range(4)]
        time.sleep(0.03)
        for s in sockets:
            s.close()
        wait_for(lambda: in_flight(one) == 0, what="nothing queued or running after the clients left")
    assert complete(one, prompt="x", max_tokens=2)


def test_many_streams_at_once(daemon):
    body = {"max_tokens": 20, "temperature": 0.7, "seed": 4}
    want = {p: texts(daemon, prompt=p, **body)[0] for p in PROMPTS}
    asked = PROMPTS * 8
    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        got = list(pool.map(lambda p: streamed(daemon, prompt=p, **body)[1][0]["text"], asked))
    assert got == [want[p] for p in asked]


# ---- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("param, words, body", [
    ("prompt", ["required"], {}),
    ("prompt", ["found 5"], {"prompt": 5}),
    ("prompt", ["an object"], {"prompt": {"text": "x"}}),
    ("prompt", [], {"prompt": []}),
    ("prompt[1]", ["found 5"], {"prompt": ["x", 5]}),
    ("prompt[1]", ["the string"], {"prompt": [5, "x"]}),
    ("prompt[0][0]", ["the string"], {"prompt": [["x"]]}),
    ("prompt[1]", ["it has no tokens"], {"prompt": [[1], []]}),
    ("prompt[1][0]", ["0 to 511"], {"prompt": [[1], [512]]}),
    ("prompt[0]", [], {"prompt": [-1]}),
    ("prompt[0]", [], {"prompt": [1.5]}),
    ("prompt", ["found 300"], {"prompt": ["x"] * 300}),
    ("prompt", ["context"], {"prompt": "x " * 400}),
    ("prompt", ["161 tokens"], {"prompt": [1] * 161}),
    ("max_tokens", ["0 to 256"], {"prompt": "x", "max_tokens": 1e9}),
    ("max_tokens", [], {"prompt": "x", "max_tokens": -1}),
    ("max_tokens", [], {"prompt": "x", "max_tokens": "5"}),
    ("temperature", ["0 to 2"], {"prompt": "x", "temperature": 2.5}),
    ("temperature", [], {"prompt": "x", "temperature": True}),
    ("top_p", [], {"prompt": "x", "top_p": 1.1}),
    ("min_p", [], {"prompt": "x", "min_p": -0.1}),
    ("top_k", [], {"prompt": "x", "top_k": -2}),
    ("n", ["1 to 128"], {"prompt": "x", "n": 129}),
    ("n", [], {"prompt": "x", "n": 0}),
    ("n", ["lower n or max_tokens"], {"prompt": ["x"] * 256, "n": 128, "max_tokens": 100}),
    ("best_of", ["'n'"], {"prompt": "x", "n": 1, "best_of": 3}),
    ("best_of", ["'n'"], {"prompt": "x", "n": 3, "best_of": 1}),
    ("logprobs", ["0 to 20"], {"prompt": "x", "logprobs": 21}),
    ("logprobs", [], {"prompt": "x", "logprobs": True}),
    ("seed", [], {"prompt": "x", "seed": 1.5}),
    ("stop", ["up to 4", "found 5"], {"prompt": "x", "stop": ["a", "b", "c", "d", "e"]}),
    ("stop", ["1000"], {"prompt": "x", "stop": ["a"] * 1000}),
    ("stop", ["empty"], {"prompt": "x", "stop": ""}),
    ("stop[1]", ["must be a string of 1 to 256 characters"], {"prompt": "x", "stop": ["a", 3]}),
    ("stop", ["up to 4 strings"], {"prompt": "x", "stop": 5}),
    ("stop", ["up to 4 strings", "300"], {"prompt": "x", "stop": "a" * 300}),
    ("frequency_penalty", [], {"prompt": "x", "frequency_penalty": 3}),
    ("presence_penalty", [], {"prompt": "x", "presence_penalty": "1"}),
    ("logit_bias", [], {"prompt": "x", "logit_bias": [1]}),
    ('logit_bias["a"]', ["50256"], {"prompt": "x", "logit_bias": {"a": 1}}),
    ('logit_bias["5"]', ["-100 to 100, found 101"], {"prompt": "x", "logit_bias": {"5": 101}}),
    ('logit_bias["5"]', ["found null"], {"prompt": "x", "logit_bias": {"5": None}}),
    ("prompt", ["at least 1 integer", "found an array of 0"], {"prompt": []}),
    ("logit_bias", ["0 to 511"], {"prompt": "x", "logit_bias": {"512": 1}}),
    ("logit_bias", ["twice"], {"prompt": "x", "logit_bias": {"5": 1, "05": 1}}),
    ("logit_bias", ["1001"], {"prompt": "x", "logit_bias": {str(i): 1 for i in range(1001)}}),
    ("suffix", ["not served"], {"prompt": "x", "suffix": "y"}),
    ("tools", ["no tools"], {"prompt": "x", "tools": [{"type": "function"}]}),
    ("functions", ["not served"], {"prompt": "x", "functions": []}),
    ("response_format.type", ["'text'"], {"prompt": "x", "response_format": {"type": "json_object"}}),
    ("stream", [], {"prompt": "x", "stream": "yes"}),
    ("stream_options", [], {"prompt": "x", "stream_options": 1}),
    ("steering", [], {"prompt": "x", "steering": []}),
    ("steering.featurs", ["did you mean 'features'"], {"prompt": "x", "steering": {"featurs": []}}),
    ("steering.features[0].strengt", ["strength"], {"prompt": "x", "steering": {"features": [
        {"source": "1-res-relu", "index": 1, "strengt": 1}]}}),
    ("steering.features[0].strength", ["required"], {"prompt": "x", "steering": {"features": [{"source": "1-res-relu", "index": 1}]}}),
    ("steering.method", ["SIMPLE_ADDITIVE"], {"prompt": "x", "steering": {"method": "add"}}),
    ("steering.vectors[0].vector", ["48"], {"prompt": "x", "steering": {"vectors": [
        {"point": "blocks.1.hook_resid_pre", "vector": [1, 2]}]}}),
    ("steering.vectors[0].point", [], {"prompt": "x", "steering": {"vectors": [{"point": "nowhere", "vector": [1]}]}}),
    ("steering.edits[0].op", [], {"prompt": "x", "steering": {"edits": [{"op": "explode"}]}}),
])
def test_refusals(daemon, param, words, body):
    refused(daemon, 400, param, *words, **body)


def test_refusals_of_steering_that_is_not_there(daemon):
    def one(**feature):
        return {"prompt": "x", "steering": {"features": [{"source": "1-res-relu", "index": 1, "strength": 1, **feature}]}}
    refused(daemon, 404, "steering.features[0].source", "1-res-relu", **one(source="1-res-rel"))
    refused(daemon, 404, "steering.features[0].index", "0 to 95", **one(index=96))


def test_broken_bodies_and_methods_have_openais_shape(daemon):
    for path in ("/v1/completions", "/v1/models/none/of/these"):
        reply = daemon.client.post(path, data="{")
        assert reply.status_code in (400, 404) and set(reply.json()["error"]) == {"message", "type", "param", "code"}
    reply = daemon.get("/v1/completions")
    assert reply.status_code == 405 and reply.json()["error"]["code"] == "method"


def test_unknown_fields_are_ignored(daemon):
    body = {"prompt": PROMPTS[0], "max_tokens": 4, "temperature": 0}
    assert texts(daemon, **body, user="me", metadata={"a": 1}, service_tier="auto", stop=None, n=None, logit_bias=None, suffix=None) == \
        texts(daemon, **body)


STRANGE = [None, True, False, 0, 1, -1, 2, 3.5, 1e308, -1e308, 10 ** 30, "", "x", "5", "\u0000", "\ud7ff\U0010ffff", [], [[]], {}, [None], ["x"], [1],
           [[1, 2]], [[1], ["x"]], [1, "x"], {"a": 1}, {"5": 1}, {"5": "x"}, [{}], "a" * 300, ["a"] * 5, [0.5], {"features": [{}]},
           {"features": [{"source": "1-res-relu", "index": 3, "strength": 1e6}]}, {"features": [{"source": 1, "index": 3, "strength": 1}]},
           {"vectors": [{"point": "blocks.0.hook_resid_pre", "vector": [1e39] * 48}]}, {"edits": [{"op": "zero", "point": "resid_pre.1"}]},
           {"include_usage": True}, {"include_usage": 1}]
FIELDS = ["model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "logit_bias",
          "seed", "stop", "n", "stream", "stream_options", "steering", "echo", "logprobs", "best_of", "suffix", "nothing"]


@pytest.mark.parametrize("seed", range(4))
def test_strange_bodies_are_answered_in_words(daemon, seed):
    """Each field with values of every kind, several at once: 200, or an error that names a field; and the engine goes on."""
    rng = random.Random(seed)
    want = texts(daemon, prompt=PROMPTS[0], max_tokens=4, temperature=0)
    for _ in range(150):
        body = {"prompt": "A ship", "max_tokens": 3}
        for field in rng.sample(FIELDS, rng.choice([1, 1, 2, 4])):
            body[field] = rng.choice(STRANGE)
        reply = daemon.client.post("/v1/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        assert reply.status_code in (200, 400, 404, 501), (body, reply.text)
        if reply.status_code != 200:
            error = reply.json()["error"]
            assert error["message"] and (error["param"] or "body" in error["message"] or "\\u0000" in error["message"]), (body, error)
        elif reply.headers["Content-Type"].startswith("text/event-stream"):
            events(reply)
    assert texts(daemon, prompt=PROMPTS[0], max_tokens=4, temperature=0) == want
