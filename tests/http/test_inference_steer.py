"""POST /v1/steer/completion and completion-chat: beside the recorded greedy texts (PyTorch in float64, tests/vectors/tiny-gpt2), beside
/api/steer and /api/steer-chat, every field, streams, refusals."""
import json
import time

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from tensors import read_tensors
from test_inference import PROMPTS, SOURCE, ask, refused
from test_openai_chat import HELLO, apply, chats  # noqa: F401 (a fixture)

PATH, CHAT = "/v1/steer/completion", "/v1/steer/completion-chat"
STEERED = json.loads((VECTORS / MODEL / "expected-sources.json").read_text())["steered"]
FEATURES = [{"model": MODEL, "source": SOURCE, "index": 3, "strength": 4.0}, {"model": MODEL, "source": SOURCE, "index": 17, "strength": -2.5}]
# What the web app sends, key by key.
BODY = {"prompt": PROMPTS[0], "model": MODEL, "steerMethod": "SIMPLE_ADDITIVE", "normalizeSteering": False, "types": ["STEERED", "DEFAULT"],
        "features": FEATURES, "nCompletionTokens": 24, "temperature": 0, "strengthMultiplier": 1, "freqPenalty": 0, "seed": 16,
        "stream": False, "nLogprobs": 0}


def complete(daemon, **changes):
    return ask(daemon, PATH, {**BODY, **changes})["outputs"]


def rows_of(*features):
    """Decoder rows of the source, at length 1."""
    weights = read_tensors(VECTORS / MODEL / "sources" / SOURCE / "sae_weights.safetensors")["W_dec"].astype(np.float64)
    return [(weights[f] / np.linalg.norm(weights[f])) for f in features]


def recorded(method, prompt=0):
    return next(c["greedy_text"] for c in STEERED[method]["continuations"] if c["prompt"] == prompt)


def test_recorded_texts(daemon):
    plain = json.loads((VECTORS / MODEL / "expected.json").read_text())["prompts"][0]["greedy_text"]
    assert complete(daemon) == [{"output": recorded("simple_additive"), "type": "STEERED"}, {"output": plain, "type": "DEFAULT"}]
    orthogonal = [{**FEATURES[0], "strength": 4}]
    assert complete(daemon, steerMethod="ORTHOGONAL_DECOMP", features=orthogonal, types=["STEERED"]) == [
        {"output": recorded("orthogonal_decomp"), "type": "STEERED"}]
    # Half the strengths, twice as much of them.
    halved = [{**f, "strength": f["strength"] / 2} for f in FEATURES]
    assert complete(daemon, features=halved, strengthMultiplier=2)[0]["output"] == recorded("simple_additive")


def test_types_are_told_as_they_are_asked_for(daemon):
    both = complete(daemon)
    assert complete(daemon, types=["DEFAULT", "STEERED"]) == both[::-1]
    assert complete(daemon, types=None) == both
    assert complete(daemon, types=["DEFAULT"]) == both[1:]
    assert complete(daemon, types=["DEFAULT", "DEFAULT", "STEERED", "DEFAULT"]) == both[::-1]
    assert complete(daemon, types=["DEFAULT"], features=None) == both[1:]
    assert [o["output"] for o in complete(daemon, features=[])] == [both[1]["output"]] * 2


@pytest.mark.parametrize("method, cap", [("SIMPLE_ADDITIVE", None), ("ORTHOGONAL_DECOMP", None), ("PROJECTION_CAP", 0.5)])
def test_vectors_steer_as_features_do(daemon, method, cap):
    features = [{**FEATURES[0], "strength": cap or 4.0}]
    want = complete(daemon, features=features, steerMethod=method, types=["STEERED"])
    [row] = rows_of(3)
    vector = {"steeringVector": row.tolist(), "strength": features[0]["strength"], "hook": "blocks.1.hook_resid_pre"}
    assert complete(daemon, features=None, vectors=[vector], steerMethod=method, types=["STEERED"]) == want
    assert want != complete(daemon, types=["DEFAULT"])
    # Of another length: brought to 1 first, or what it is.
    long = {**vector, "steering_vector": (7 * row).tolist()}
    del long["steeringVector"]
    assert complete(daemon, features=None, vectors=[long], steerMethod=method, types=["STEERED"], normalizeSteering=True) == want
    if method == "SIMPLE_ADDITIVE":
        seventh = {**long, "strength": vector["strength"] / 7}
        assert complete(daemon, features=None, vectors=[seventh], types=["STEERED"]) == want
    nothing = {"steeringVector": [0] * 48, "strength": 3, "hook": "resid_post.0"}
    plain = complete(daemon, types=["DEFAULT"])[0]["output"]
    for normalize in (False, True):
        assert complete(daemon, features=None, vectors=[nothing], normalizeSteering=normalize)[0]["output"] == plain


def test_a_feature_at_length_one(start_daemon, tmp_path):
    """normalizeSteering on a source whose rows are not folded to length 1."""
    ini = tmp_path / "raw.ini"
    folder = VECTORS / MODEL / "sources" / SOURCE
    ini.write_text(f"[source 1-res-raw]\nweights = {folder / 'sae_weights.safetensors'}\nkind = relu\npoint = blocks.1.hook_resid_pre\nfold = no\n")
    daemon = start_daemon(models={MODEL: VECTORS / MODEL / "model"}, sources={f"{MODEL}/1-res-raw": ini, f"{MODEL}/{SOURCE}": folder})
    raw = [{**f, "source": "1-res-raw"} for f in FEATURES]
    assert complete(daemon, features=raw, normalizeSteering=True)[0]["output"] == recorded("simple_additive")
    assert complete(daemon, features=raw)[0]["output"] != recorded("simple_additive")


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.8, "seed": 3.7}, {"temperature": 1, "freqPenalty": 1.5}, {"steerMethod": "ORTHOGONAL_DECOMP"}])
def test_beside_api_steer(daemon, changes):
    got = complete(daemon, **changes)
    body = {**BODY, **changes, "features": [{"layer": f["source"], "index": str(f["index"]), "strength": f["strength"]} for f in FEATURES],
            "n_tokens": 24, "include_prompt": False}
    want = ask(daemon, "/api/steer", {k: v for k, v in body.items() if k not in ("nCompletionTokens", "nLogprobs")})
    assert got == [{"output": want["STEERED"], "type": "STEERED"}, {"output": want["DEFAULT"], "type": "DEFAULT"}]


def test_log_probabilities(daemon):
    got = complete(daemon, nLogprobs=3)
    features = [{"layer": f["source"], "index": f["index"], "strength": f["strength"]} for f in FEATURES]
    want = ask(daemon, "/api/steer", {"prompt": PROMPTS[0], "features": features, "temperature": 0, "n_tokens": 24, "nLogprobs": 3})
    assert [o["logprobs"] for o in got] == [want["steeredLogProbs"], want["defaultLogProbs"]]
    assert "".join(t["token"] for t in got[1]["logprobs"]) == got[1]["output"]
    assert all(len(t["topLogprobs"]) == 3 and t["topLogprobs"][0]["token"] == t["token"] for o in got for t in o["logprobs"])
    assert all("logprobs" not in o for o in complete(daemon))


def frames_of(reply):
    assert reply.status_code == 200 and reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    events = reply.text.split("\n\n")
    assert events[-1] == "" and all(event.startswith("data: ") for event in events[:-1])
    return [json.loads(event[6:]) for event in events[:-1]]


def grow(texts):
    return all(more.startswith(one) for one, more in zip(texts, texts[1:]))


def test_streams_grow_to_the_whole(daemon):
    for changes in ({}, {"types": ["DEFAULT"]}, {"nLogprobs": 2}):
        frames = frames_of(daemon.post(PATH, {**BODY, **changes, "stream": True}))
        assert frames[-1] == {"outputs": complete(daemon, **changes)}  # no end marker
        for i in range(len(frames[-1]["outputs"])):
            assert grow([frame["outputs"][i]["output"] for frame in frames])


@pytest.mark.parametrize("path", [PATH, CHAT])
def test_streams_come_as_they_grow(chats, path):  # noqa: F811
    """A reader who is slower than the model gets fewer events; not one time after the other."""
    body = {**CHAT_BODY, "nCompletionTokens": 100, "stream": True, **({} if path == CHAT else {"prompt": "The ship"})}
    assert any(len(frames_of(chats.post(path, body))) > 2 for _ in range(20))


def test_who_hangs_up_stops_the_work(daemon):
    reply = daemon.post(PATH, {**BODY, "prompt": "The", "nCompletionTokens": 150, "stream": True}, stream=True)
    next(reply.iter_content(64))
    reply.close()
    for _ in range(100):
        if daemon.get("/v1/steer/health").json()["stats"]["running_requests"] == 0:
            return
        time.sleep(0.05)
    pytest.fail("the text goes on that nobody reads")


def test_refusals(daemon):
    vector = {"steeringVector": [1] * 48, "strength": 1, "hook": "resid_pre.1"}
    for change, status, field in [({"vectors": [vector]}, 400, "vectors"), ({"features": None}, 400, "features"),
                                  ({"features": [{**FEATURES[0], "index": 96}]}, 404, "features[0].index"),
                                  ({"features": [{**FEATURES[0], "source": "9-no"}]}, 404, "features[0].source"),
                                  ({"features": [{**FEATURES[0], "source": 3}]}, 404, "features[0].source"),
                                  ({"types": []}, 400, "types"), ({"types": ["OTHER"]}, 400, "types[0]"), ({"temperature": -1}, 400, "temperature"),
                                  ({"nCompletionTokens": 0}, 400, "nCompletionTokens"), ({"nLogprobs": 11}, 400, "nLogprobs"),
                                  ({"steerMethod": "OTHER"}, 400, "steerMethod"), ({"prompt": "ship " * 500}, 400, "prompt"),
                                  ({"features": None, "vectors": [{**vector, "hook": "resid_pre.9"}]}, 400, "vectors[0].hook"),
                                  ({"features": None, "vectors": [{**vector, "steeringVector": [1]}]}, 400, "vectors[0].steeringVector"),
                                  ({"model": "other"}, 404, "model")]:
        refused(daemon, PATH, {**BODY, **change}, status, field)
    assert complete(daemon, prompt="", types=["DEFAULT"])[0]["output"]  # BOS alone
    # A prompt that nearly fills the context is continued as far as there is room (160 positions).
    long = "the " * 154
    assert len(ask(daemon, "/v1/tokenize", {"text": long, "prependBos": True})["tokens"]) < 160
    assert complete(daemon, prompt=long, nCompletionTokens=100, types=["DEFAULT"])


# ---- chats ----------------------------------------------------------------------------------------------

CHAT_BODY = {**BODY, "prompt": HELLO, "model": "m0", "features": [{**f, "model": "m0"} for f in FEATURES], "nCompletionTokens": 16,
             "steerSpecialTokens": True, "isAssistantAxis": False}


def answer(daemon, **changes):
    return ask(daemon, CHAT, {**CHAT_BODY, **changes})


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.8}, {"steerSpecialTokens": False}, {"nLogprobs": 2}])
def test_chats_beside_api_steer_chat(chats, changes):  # noqa: F811
    got = answer(chats, **changes)
    body = {"defaultChatMessages": HELLO, "steeredChatMessages": HELLO, "modelId": "m0", "n_tokens": 16, "seed": 16, "temperature": 0,
            "strengthMultiplier": 1, "freqPenalty": 0, "steerSpecialTokens": True,
            "features": [{"layer": f["source"], "index": f["index"], "strength": f["strength"]} for f in FEATURES], **changes}
    want = ask(chats, "/api/steer-chat", body)
    assert [o["type"] for o in got["outputs"]] == ["STEERED", "DEFAULT"]
    for output in got["outputs"]:
        side = want[output.pop("type")]
        assert output == {k: v for k, v in side.items() if v is not None}
    turns = [{"content": m["content"], "role": m["role"]} for m in HELLO]
    assert got["input"] == {"raw": apply(chats, "m0", HELLO).json()["prompt"], "chatTemplate": turns}
    assert got["outputs"][0]["raw"] != got["outputs"][1]["raw"]
    assert answer(chats, **changes, types=["DEFAULT"])["outputs"][0]["raw"] == got["outputs"][1]["raw"]


def test_chats_stream(chats):  # noqa: F811
    frames = frames_of(chats.post(CHAT, {**CHAT_BODY, "stream": True}))
    assert frames[-1] == answer(chats)
    assert all(frame["input"] == frames[0]["input"] for frame in frames)
    for i in range(2):
        assert grow([frame["outputs"][i]["raw"] for frame in frames])


def test_chats_refused(chats):  # noqa: F811
    refused(chats, CHAT, {**CHAT_BODY, "model": "plain", "features": []}, 400, "prompt", "chat template")
    refused(chats, CHAT, {**CHAT_BODY, "isAssistantAxis": True}, 400, "isAssistantAxis")
    refused(chats, CHAT, {**CHAT_BODY, "prompt": []}, 400, "prompt")
    refused(chats, CHAT, {**CHAT_BODY, "prompt": "Hello"}, 400, "prompt")
    refused(chats, CHAT, {**CHAT_BODY, "prompt": [{"role": "user", "content": "ship " * 500}]}, 400, "prompt", "160")
    told = chats.get("/v1/capabilities?model=m0").json()["endpoints"]
    assert told["steer_completion_chat"] and not chats.get("/v1/capabilities?model=plain").json()["endpoints"]["steer_completion_chat"]
