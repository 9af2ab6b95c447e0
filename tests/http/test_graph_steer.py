"""POST /api/steer-logits beside tests/vectors/graph/steer.json: what circuit-tracer's interventions do, in PyTorch."""
import json

import numpy as np
import pytest

from conftest import VECTORS, Daemon
from tensors import read_tensors
from test_lab_run import refused

HERE = VECTORS / "graph"
TINY = VECTORS / "tiny-gpt2"
PATH = "/api/steer-logits"
CASES = json.loads((HERE / "steer.json").read_text())
FEATURES = json.loads((HERE / "expected.json").read_text())
# Probabilities of a float32 pass of three layers beside float64: rounding moves logits by some 1e-5 of their size (decision 18 allows 1e-4), and a
# probability by as much relatively. Features lie at least 2e-4 from where they begin to fire (make.py), so none appears or goes.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def daemon():
    options = ["--model", f"gpt2={TINY / 'model'}"]
    for layer in range(3):
        options += ["--source", f"gpt2/{layer}-tc={HERE / 'gpt2' / f'{layer}-tc'}"]
        for name, path in (("jump", "jump"), ("affine", "clt/width_1k_l0_small_affine")):
            options += ["--source", f"gpt2/{layer}-{name}={VECTORS / 'dict-clt' / path}"]
    one = Daemon(options)
    yield one
    one.finish()


def norms(name):
    """{(layer, index): length of the decoder row}: what is added is told in the units in which activations are served."""
    if name != "gpt2":
        return {}
    values = read_tensors(HERE / "expected.safetensors")["gpt2/norms"]
    return {(layer, index): float(value) for (layer, _, index), value in zip(FEATURES["gpt2"]["features"], values)}


def node(told, lengths):
    delta = told["delta"]
    return {"layer": told["layer"], "index": told["index"], "token_active_position": told["active"], "steer_position": told["position"],
            "steer_generated_tokens": told["position"] is None, "ablate": delta is None,
            "delta": None if delta is None else delta * lengths.get((told["layer"], told["index"]), 1)}


def body(name, nodes, **more):
    lengths = norms(name)
    return {"modelId": "gpt2", "sourceSetName": "tc" if name == "gpt2" else name, "prompt": CASES[name]["prompt"], "temperature": 0, "nTokens": 4, "topK": 5,
            "features": [node(told, lengths) for told in nodes], **more}


@pytest.fixture(scope="module")
def pieces(daemon):
    """Text of each token by its number."""
    found = {}
    for first in range(0, 512, 64):
        text = daemon.post("/v1/lab/run", {"modelId": "gpt2", "tokens": list(range(first, first + 64)), "points": ["resid_pre.0"]}).json()
        found.update({first + i: token for i, token in enumerate(text["tokens"])})
    return found


def compare(rows, told, ids, pieces):
    """All tokens, and what was expected from the prompt's last on."""
    assert [row["token"] for row in rows] == [pieces[i] for i in [*ids, *told["ids"]]]
    assert all(row["top_logits"] == [] for row in rows[:len(ids) - 1])
    for row, top in zip(rows[len(ids) - 1:], told["top"], strict=True):
        assert [one["token"] for one in row["top_logits"]] == [pieces[int(i)] for i in top]
        np.testing.assert_allclose([one["prob"] for one in row["top_logits"]], list(top.values()), rtol=TOLERANCE)


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_texts_and_expectations_are_those_of_the_reference(daemon, pieces, name, which, freeze):
    case = CASES[name]
    one = case["steered"][which]
    got = daemon.post(PATH, body(name, one["nodes"], freezeAttention=freeze)).json()
    assert set(got) == {"DEFAULT_GENERATION", "STEERED_GENERATION", "DEFAULT_LOGITS_BY_TOKEN", "STEERED_LOGITS_BY_TOKEN"}, got
    for key, told in (("DEFAULT", case["default"]), ("STEERED", one["frozen" if freeze else "free"])):
        compare(got[f"{key}_LOGITS_BY_TOKEN"], told, case["ids"], pieces)
        assert got[f"{key}_GENERATION"] == case["prompt"] + "".join(pieces[i] for i in told["ids"])


def test_without_nodes_both_texts_are_the_same(daemon):
    got = daemon.post(PATH, body("gpt2", [])).json()
    assert got["STEERED_GENERATION"] == got["DEFAULT_GENERATION"] and got["STEERED_LOGITS_BY_TOKEN"] == got["DEFAULT_LOGITS_BY_TOKEN"]


def test_one_text_alone_is_the_same_one(daemon):
    nodes = CASES["jump"]["steered"][2]["nodes"]
    both, alone = (daemon.post(PATH, body("jump", nodes, steeredOutputOnly=only)).json() for only in (False, True))
    assert alone == {**both, "DEFAULT_GENERATION": None, "DEFAULT_LOGITS_BY_TOKEN": []}


def test_a_seed_draws_the_same_again(daemon):
    request = body("gpt2", CASES["gpt2"]["steered"][1]["nodes"], temperature=1.5, nTokens=12, topK=0, seed=7)
    first = daemon.post(PATH, request).json()
    assert daemon.post(PATH, request).json() == first and daemon.post(PATH, {**request, "seed": 8}).json() != first
    assert all(row["top_logits"] == [] for row in first["STEERED_LOGITS_BY_TOKEN"])


def test_a_text_that_fills_the_context_ends_there(daemon):
    """Nothing can be expected behind the last place of all."""
    prompt = CASES["gpt2"]["prompt"]
    n = len(daemon.post("/api/graph/tokenize", {"modelId": "gpt2", "prompt": prompt}).json()["input_tokens"])
    rows = daemon.post(PATH, body("gpt2", [], nTokens=256)).json()["DEFAULT_LOGITS_BY_TOKEN"]
    assert n < len(rows) <= 160 and all(len(row["top_logits"]) == 5 for row in rows[n - 1:-1])


GOOD = {"layer": 1, "index": 3, "token_active_position": 2, "steer_position": 2, "delta": 1}


@pytest.mark.parametrize("change, field, words", [
    ({"ablate": True}, "features[0].delta", "becomes 0: leave delta out"),
    ({"delta": None}, "features[0].delta", 'say by how much it is turned, or "ablate": true'),
    ({"steer_position": None}, "features[0].steer_position", 'say which token, or "steer_generated_tokens": true'),
    ({"steer_generated_tokens": True}, "features[0].steer_position", "stands at no position of the prompt"),
    ({"steer_position": 6}, "features[0].steer_position", "there is no token 6, the prompt has tokens 0 to 5"),
    ({"token_active_position": 99}, "features[0].token_active_position", "there is no token 99"),
    ({"layer": 3}, "features[0].layer", "the set 'tc' has no layer 3; its first is 0, its last 2"),
    ({"index": 48}, "features[0].index", "48"),
    ({"index": -1}, "features[0].index", ""),
    ({"delta": 1e9}, "features[0].delta", ""),
    ({"layer": "1-tc"}, "features[0].layer", ""),
])
def test_nodes_that_will_not_do(daemon, change, field, words):
    node_row = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    answer = daemon.post(PATH, {**body("gpt2", []), "features": [node_row]})
    told = answer.json()
    assert answer.status_code in (400, 404) and told["field"] == field and words in told["message"], told


@pytest.mark.parametrize("change, field", [({"prompt": ""}, "prompt"), ({"features": None}, "features"), ({"sourceSetName": "xx"}, "sourceSetName"),
                                           ({"sourceSetName": None}, "sourceSetName"), ({"topK": 11}, "topK"), ({"nTokens": 0}, "nTokens"),
                                           ({"messages": [{"role": "user", "content": "x"}]}, "messages"), ({"prompt": "ship " * 200}, "prompt")])
def test_requests_that_will_not_do(daemon, change, field):
    answer = daemon.post(PATH, {key: value for key, value in {**body("gpt2", []), **change}.items() if value is not None})
    assert answer.status_code in (400, 404) and answer.json()["field"] == field, answer.json()


# ---- what it is made of, for everybody ----


def top(daemon, edits):
    got = daemon.post("/v1/lab/next", {"modelId": "gpt2", "tokens": CASES["gpt2"]["ids"], "edits": edits, "topK": 3}).json()
    return [(row["id"], row["logit"]) for row in got["after" if edits else "before"]["top"]]


def test_a_mean_is_over_the_positions_that_are_named(daemon):
    """One position's mean is the activation there; with `value` added it is a clamp to the sum."""
    active, lengths = FEATURES["gpt2"]["features"], norms("gpt2")
    layer, position, index = active[-1]
    at, length = {"source": f"{layer}-tc", "index": index}, lengths[layer, index]
    values = {tuple(f): float(v) * length for f, v in zip(active, read_tensors(HERE / "expected.safetensors")["gpt2/activations"]) if f[0] == layer and f[2] == index}
    other = next(p for p in range(1, 6) if p != position)
    for places, mean in (([position], values[layer, position, index]),
                         ([other, position - 6, other], (values[layer, position, index] + values.get((layer, other, index), 0)) / 2)):
        clamped = top(daemon, [{"op": "clamp", **at, "value": mean + 2, "positions": [5]}])
        averaged = top(daemon, [{"op": "mean", **at, "value": 2, "positions": [5], "from": {"tokens": CASES["gpt2"]["ids"], "positions": places}}])
        assert [i for i, _ in averaged] == [i for i, _ in clamped] and averaged != top(daemon, [])
        np.testing.assert_allclose([v for _, v in averaged], [v for _, v in clamped], rtol=TOLERANCE)


def test_the_mean_of_a_point_over_positions(daemon):
    ids = CASES["gpt2"]["ids"]
    rows = [daemon.post("/v1/lab/run", {"modelId": "gpt2", "tokens": ids, "points": ["mlp_out.1"], "positions": [p]}).json()["activations"]["blocks.1.hook_mlp_out"]
            for p in (2, 4)]
    mean = np.mean([np.ravel(row) for row in rows], axis=0)
    given = top(daemon, [{"op": "set", "point": "mlp_out.1", "vector": mean.tolist(), "positions": [5]}])
    taken = top(daemon, [{"op": "mean", "point": "mlp_out.1", "positions": [5], "from": {"tokens": ids, "positions": [2, -2]}}])
    assert [i for i, _ in taken] == [i for i, _ in given]
    np.testing.assert_allclose([v for _, v in taken], [v for _, v in given], rtol=TOLERANCE)


@pytest.mark.parametrize("edit, field", [
    ({"op": "mean", "source": "1-tc", "index": 3, "from": {"text": "The ship", "positions": [9]}}, "edits[0].from.positions"),
    ({"op": "mean", "point": "mlp_out.1", "value": 2}, "edits[0].value"),
])
def test_means_that_will_not_do(daemon, edit, field):
    refused(daemon, "/v1/lab/next", {"modelId": "gpt2", "tokens": CASES["gpt2"]["ids"], "edits": [edit]}, field)


@pytest.mark.parametrize("more", [{}, {"n": 3, "temperature": 1}, {"echo": True, "logprobs": 2}, {"max_tokens": 0, "echo": True, "logprobs": 2}])
def test_patterns_of_a_prompt_are_held_while_it_goes_on(daemon, more):
    """A row of the prompt has columns for what comes behind it, too: a text of its own in each of these, and the edit means the same keys."""
    body = {"model": "gpt2", "prompt": CASES["gpt2"]["prompt"], "max_tokens": 7, "temperature": 0, "seed": 3, "logprobs": 2, **more}
    hide = [{"op": "knockout", "point": "attn_scores.1", "positions": "prompt", "keys": [1, 2]}, {"op": "patch", "point": "pattern.2", "positions": [3, 4],
             "from": {"tokens": CASES["gpt2"]["ids"]}}]
    got = daemon.post("/v1/completions", {**body, "steering": {"edits": hide}}).json()
    short = daemon.post("/v1/completions", {**body, "steering": {"edits": hide}, "max_tokens": min(1, body["max_tokens"])}).json()
    logprobs = [choice["logprobs"] for choice in (got["choices"][0], short["choices"][0])]
    n = len(logprobs[1]["token_logprobs"])
    assert logprobs[0]["token_logprobs"][:n] == logprobs[1]["token_logprobs"] and logprobs[0]["top_logprobs"][:n] == logprobs[1]["top_logprobs"]
    plain = daemon.post("/v1/completions", body).json()["choices"][0]["logprobs"]
    assert plain["token_logprobs"] != logprobs[0]["token_logprobs"]


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_patterns_of_what_is_generated_are_not_edited(daemon, positions):
    edit = {"op": "zero", "point": "pattern.1", "positions": positions}
    answer = daemon.post("/api/steer", {"modelId": "gpt2", "prompt": "The ship", "edits": [edit]})
    assert answer.status_code == 400 and answer.json()["field"] == "edits[0].positions" and 'positions: "prompt"' in answer.json()["message"]


@pytest.mark.parametrize("bos", [None, False, True])
def test_positions_are_those_of_the_graph(daemon, bos):
    """Whatever the model's habit is (this one's is to begin without BOS): graphs of a text have BOS in front unless it is refused."""
    given = {"prependBos": bos} if bos is not None else {}
    graph = daemon.post("/v1/lab/graph", {"modelId": "gpt2", "sourceSet": "tc", "text": "One night a ship", **given}).json()["metadata"]["prompt_tokens"]
    assert graph[0].startswith("O" if bos is False else "<|endoftext|>")
    one = {"layer": 0, "index": 3, "token_active_position": len(graph) - 1, "steer_position": len(graph) - 1, "delta": 4}
    body = {"modelId": "gpt2", "sourceSetName": "tc", "prompt": "One night a ship", "nTokens": 1, **given}
    reply = daemon.post(PATH, {**body, "features": [one]}).json()
    assert [row["token"] for row in reply["STEERED_LOGITS_BY_TOKEN"]][:-1] == graph
    assert reply["STEERED_GENERATION"].startswith("One night a ship")
    refused(daemon, PATH, {**body, "features": [{**one, "token_active_position": len(graph)}]}, "features[0].token_active_position")
