"""POST /v1/lens/prompt and /api/lens/prompt: beside PyTorch's recorded logits, beside /v1/lab/lens, its rule for words done here with
Python's Unicode tables, every frame, refusals."""
import json
import threading
import time
import unicodedata

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from test_inference import PROMPTS, ROWS, ask, refused
from test_openai_chat import HELLO, apply, chats  # noqa: F401 (a fixture)

PATH = "/v1/lens/prompt"
HEAD = ["position", "token", "id", "is_generated", "is_char_continuation"]
TAIL = ["message_index", "role", "channel", "section"]


def lines(daemon, path=PATH, **body):
    reply = daemon.post(path, body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "application/x-ndjson; charset=utf-8" and reply.text.endswith("\n")
    return [json.loads(line) for line in reply.text.splitlines()]


def whole(daemon, path=PATH, **body):
    return ask(daemon, path, {**body, "stream": False})


def cells_of(token):
    [result] = token["results"]
    assert list(result) == ["type", "top_tokens", "top_probs"] and result["type"] == "LOGIT_LENS"
    return result["top_tokens"], result["top_probs"]


def table_of(daemon, text, k, **more):
    """What /v1/lab/lens tells: [layer][position] of its tables, layer counted as there."""
    lens = ask(daemon, "/v1/lab/lens", {"text": text, "topK": k, **more})
    return lens, {layer["layer"]: {cell["position"]: cell["top"] for cell in layer["positions"]} for layer in lens["layers"]}


def test_every_frame(daemon):
    frames = lines(daemon, prompt=PROMPTS[0], model=MODEL, type=["LOGIT_LENS", "LOGIT_LENS"], topN=4, layers=[1, 0, 1], temperature=0.5,
                   numCompletionTokens=3)
    meta, prompt, tokens, done = frames[0], frames[1], frames[2:-1], frames[-1]
    assert meta == {"kind": "meta", "model": MODEL, "types": ["LOGIT_LENS"], "layers_by_type": {"LOGIT_LENS": [0, 1, 2]}, "top_n": 4,
                    "prompt_len": 6, "num_completion_tokens": 3, "temperature": 0.5, "prepend_bos": True, "reuse_len": 0}
    assert list(prompt) == ["kind", "tokens"] and prompt["kind"] == "prompt"
    assert [list(token) for token in prompt["tokens"]] == [HEAD + TAIL] * 6
    assert [token["id"] for token in prompt["tokens"]] == ROWS["p0/ids"].tolist()
    assert [list(token) for token in tokens] == [["kind"] + HEAD + ["results"] + TAIL] * 9
    assert [token["position"] for token in tokens] == list(range(9))
    assert [token["is_generated"] for token in tokens] == [False] * 6 + [True] * 3
    for shown, token in zip(prompt["tokens"], tokens):
        assert shown == {name: token[name] for name in HEAD + TAIL}
        assert all(token[name] is None for name in TAIL)
    assert done == {"kind": "done", "seq_len": 9, "prompt_len": 6, "vocab_size": 512, "completion": "".join(t["token"] for t in tokens[6:])}
    for token in tokens:
        names, probs = cells_of(token)
        assert len(names) == len(probs) == 3 and all(len(row) == 4 for row in names + probs)
        assert all(row == sorted(row, reverse=True) for row in probs[:2])
    body = {"prompt": PROMPTS[0], "topN": 4, "temperature": 0.5, "numCompletionTokens": 3}
    assert whole(daemon, **body) == {"meta": meta, "tokens": tokens, "done": done}  # all layers are three


def test_beside_recorded_logits(daemon):
    """The last layer is the model itself; every token of the vocabulary, softmax in float64."""
    logits = ROWS["p0/logits"].astype(np.float64)
    want = np.exp(logits - logits.max(1, keepdims=True))
    want /= want.sum(1, keepdims=True)
    got = whole(daemon, prompt=PROMPTS[0], layers=[2], topN=512, filterNonWordTokens=False)
    assert got["meta"]["layers_by_type"] == {"LOGIT_LENS": [2]}
    for position, token in enumerate(got["tokens"]):
        names, probs = cells_of(token)
        # float32 against float64: logits are 1e-4 off at most, so probabilities that share (docs of the vectors)
        assert probs[0] == pytest.approx(np.sort(want[position])[::-1].tolist(), rel=2e-4, abs=1e-7)


@pytest.mark.parametrize("prompt", [0, 1])
def test_beside_the_laboratory(daemon, prompt):
    lens, table = table_of(daemon, PROMPTS[prompt], 5)
    got = whole(daemon, prompt=PROMPTS[prompt], topN=5, filterNonWordTokens=False)
    assert [token["id"] for token in got["tokens"]] == lens["ids"]
    for position, token in enumerate(got["tokens"]):
        names, probs = cells_of(token)
        for layer in range(3):  # behind layer l is after l + 1 layers
            assert names[layer] == [row["token"] for row in table[layer + 1][position]]
            assert probs[layer] == pytest.approx([row["probability"] for row in table[layer + 1][position]], rel=1e-6)


def is_word(token):
    stripped = token.strip()
    if not stripped or "<|" in stripped or (stripped.startswith("<") and stripped.endswith(">")):
        return False
    inside = range(1, len(stripped) - 1)
    return all(unicodedata.category(c)[0] in "LN" or (i in inside and c in "'-\u2019") for i, c in enumerate(stripped))


def test_words_alone(daemon):
    """What is no word is passed over, but for the model's own likeliest token; probabilities stay those of all tokens."""
    _, table = table_of(daemon, PROMPTS[1], 512, positions=list(range(0, 70, 2)))
    got = whole(daemon, prompt=PROMPTS[1], topN=6)
    kept = 0
    for position, token in list(enumerate(got["tokens"]))[::2]:
        names, probs = cells_of(token)
        for layer in range(3):
            rows = table[layer + 1][position]
            want = [row for i, row in enumerate(rows) if is_word(row["token"]) or (layer == 2 and i == 0)][:6]
            assert names[layer] == [row["token"] for row in want]
            assert probs[layer] == pytest.approx([row["probability"] for row in want], rel=1e-5)
            kept += layer == 2 and not is_word(rows[0]["token"])
    assert kept > 0
    # More than there are: as many as there are.
    every = whole(daemon, prompt=PROMPTS[1], topN=512, layers=[2])["tokens"][4]
    words = [row["token"] for i, row in enumerate(table[3][4]) if is_word(row["token"]) or i == 0]
    assert cells_of(every)[0] == [words] and len(words) < 512


def test_what_the_model_writes(daemon):
    for temperature, seed in ((0, 42), (0.9, 5)):
        got = whole(daemon, prompt=PROMPTS[0], numCompletionTokens=12, temperature=temperature, seed=seed, topN=1, filterNonWordTokens=False)
        want = ask(daemon, "/v1/steer/completion", {"prompt": PROMPTS[0], "types": ["DEFAULT"], "n_completion_tokens": 12,
                                                    "temperature": temperature, "seed": seed})["outputs"][0]["output"]
        assert got["done"]["completion"] == want
    # Each cell is that of the whole text read at once; greedy tokens are the last layer's likeliest.
    got = whole(daemon, prompt=PROMPTS[0], numCompletionTokens=12, temperature=0, topN=3, filterNonWordTokens=False)
    again = whole(daemon, inputTokenIds=[token["id"] for token in got["tokens"]], topN=3, filterNonWordTokens=False)
    for one, other in zip(got["tokens"], again["tokens"]):
        assert one["results"][0]["top_tokens"] == other["results"][0]["top_tokens"] and not other["is_generated"]
    for token, behind in zip(got["tokens"][5:], got["tokens"][6:]):
        assert cells_of(token)[0][2][0] == behind["token"]
    assert got["done"]["prompt_len"] == 6 and again["done"]["prompt_len"] == 18 and again["done"]["completion"] == ""
    # As far as the context goes (160).
    full = whole(daemon, inputTokenIds=None, prompt="the " * 154, numCompletionTokens=100, temperature=0, topN=1, layers=[2])
    assert full["done"]["seq_len"] == 160 and full["meta"]["num_completion_tokens"] == 100


def test_characters_of_several_tokens(daemon):
    """One that several tokens make up stands at each of them; text is made of those that continue nothing."""
    frames = lines(daemon, prompt=PROMPTS[1], topN=1, layers=[2])
    tokens = frames[1]["tokens"]
    assert "".join(t["token"] for t in tokens[1:] if not t["is_char_continuation"]) == PROMPTS[1]
    ship = [t for t in tokens if t["token"] == "🚢"]
    assert [t["is_char_continuation"] for t in ship] == [False, True, True, True]
    half = whole(daemon, inputTokenIds=[ship[0]["id"], ship[1]["id"]], topN=1)["tokens"]  # never completed
    assert [t["token"] for t in half] == ["\ufffd"] * 2 and not any(t["is_char_continuation"] for t in half)


def test_what_is_known_is_not_told_again(daemon):
    ids = ROWS["p0/ids"].tolist()
    body = {"prompt": PROMPTS[0], "topN": 2, "numCompletionTokens": 2, "temperature": 0}
    got = whole(daemon, **body)
    for cached, known in ((ids[:4], 4), (ids[:3] + [9] + ids[4:], 3), (ids + [1, 2, 3], 6), ([7], 0)):
        frames = lines(daemon, **body, cachedTokenIds=cached)
        assert frames[0]["reuse_len"] == known and frames[2:-1] == got["tokens"][known:]
        assert len(frames[1]["tokens"]) == 6  # the prompt is shown whole


def test_other_beginnings(daemon):
    body = {"prompt": PROMPTS[0], "topN": 1}
    got = whole(daemon, **body, prependBos=False)
    assert [t["id"] for t in got["tokens"]] == ROWS["p0/ids"].tolist()[1:] and got["meta"]["prepend_bos"] is False
    assert [t["id"] for t in whole(daemon, **body, maxSeqLen=4)["tokens"]] == ROWS["p0/ids"].tolist()[:4]
    assert whole(daemon, **body, maxSeqLen=400) == whole(daemon, **body)
    assert whole(daemon, prompt="ship " * 500, topN=1, maxSeqLen=160)["done"]["seq_len"] == 160
    web = whole(daemon, path="/api/lens/prompt", modelId=MODEL, prompt=PROMPTS[0], layers=[0])
    assert (web["meta"]["top_n"], web["meta"]["num_completion_tokens"], web["meta"]["temperature"]) == (8, 128, 0)
    assert web["done"]["seq_len"] == 134


def test_chats(chats):  # noqa: F811
    got = whole(chats, model="m0", chat=HELLO, topN=1, numCompletionTokens=5, temperature=0, enableThinking=True)
    assert [t["id"] for t in got["tokens"]][:got["done"]["prompt_len"]] == apply(chats, "m0", HELLO).json()["tokens"]
    refused(chats, PATH, {"model": "plain", "chat": HELLO}, 400, "chat", "chat template")
    refused(chats, PATH, {"model": "m0", "chat": HELLO, "prompt": "so"}, 400, "chat", "both")


def test_refusals(daemon):
    body = {"prompt": PROMPTS[0]}
    for change, status, field in [({"type": ["JACOBIAN_LENS"]}, 400, "type[0]"), ({"type": ["LOGIT_LENS", "JACOBIAN_LENS"]}, 400, "type[1]"),
                                  ({"type": []}, 400, "type"), ({"prompt": None}, 400, "prompt"), ({"chat": []}, 200, None),
                                  ({"layers": [3]}, 400, "layers[0]"), ({"temperature": -1}, 400, "temperature"),
                                  ({"numCompletionTokens": -1}, 400, "numCompletionTokens"), ({"topN": 0}, 400, "topN"),
                                  ({"steerTokens": [{"token": " so", "type": "LOGIT_LENS"}]}, 400, "steerTokens"), ({"steerTokens": []}, 200, None),
                                  ({"prompt": "ship " * 500}, 400, "prompt"), ({"inputTokenIds": [1] * 161}, 400, "inputTokenIds"),
                                  ({"inputTokenIds": [512]}, 400, "inputTokenIds[0]"), ({"model": "other"}, 404, "model")]:
        if status == 200:
            lines(daemon, **body, **change)
        else:
            refused(daemon, PATH, {**body, **change}, status, field)


def test_who_does_not_wait(start_daemon):
    """failIfBusy: 429 while others run, an answer when nobody does."""
    daemon = start_daemon(models={MODEL: VECTORS / MODEL / "model"}, max_sessions=2)
    lines(daemon, prompt="so", failIfBusy=True)
    done = threading.Event()

    def keep_busy():
        while not done.is_set():
            daemon.post("/v1/completions", {"prompt": ["The", "so", "it", "goes"], "max_tokens": 100, "temperature": 1})

    runners = [threading.Thread(target=keep_busy) for _ in range(3)]
    for runner in runners:
        runner.start()
    try:
        statuses, end = set(), time.monotonic() + 30
        while 429 not in statuses and time.monotonic() < end:
            statuses.add(daemon.post(PATH, {"prompt": "so", "failIfBusy": True}).status_code)
    finally:
        done.set()
        for runner in runners:
            runner.join()
    assert 429 in statuses and statuses <= {200, 429}
