"""POST /v1/lab/run and /v1/lab/next beside their twin in NumPy, and what is promised of edits everywhere."""
import io
import json

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from tensors import load_safetensors
from twin import Dictionary, Twin, agrees, log_softmax

FOLDER = VECTORS / MODEL
TEXT = "One night a ship came near the rocks, late in the year"
HOT = ["hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out",
       "hook_resid_post"]


@pytest.fixture(scope="module")
def twin():
    return Twin(FOLDER / "model")


@pytest.fixture(scope="module")
def dictionaries():
    return {p.name: Dictionary(p) for p in (FOLDER / "sources").iterdir()
            if p.is_dir() and p.name not in ("1-res-old", "2-res-bf16")}


def post(daemon, path, body, status=200, **more):
    reply = daemon.post(path, body, **more)
    assert reply.status_code == status, reply.text
    return reply if more else reply.json()


def run(daemon, **body):
    return post(daemon, "/v1/lab/run", body)


def refused(daemon, path, body, field, *words, status=400):
    reply = post(daemon, path, body, status)
    assert reply.get("field") == field, reply
    for word in words:
        assert word in reply["error"], reply["error"]


# ---- the twin itself ------------------------------------------------------------------------------------


def test_the_twin_gives_what_pytorch_recorded(twin):
    from tensors import read_tensors
    recorded = read_tensors(FOLDER / "expected.safetensors")
    points, logits = twin.run(recorded["p1/ids"])
    agrees(logits, recorded["p1/logits"])
    for layer in range(3):
        for point in HOT:
            agrees(points[f"blocks.{layer}.{point}"], recorded[f"p1/blocks.{layer}.{point}"])


# ---- run ------------------------------------------------------------------------------------------------


def test_every_point_and_the_losses_agree(daemon, twin):
    got = run(daemon, text=TEXT, points=["blocks.*"], topK=3, loss=True)
    points, logits = twin.run(got["ids"])
    assert set(got["activations"]) >= {f"blocks.{i}.{p}" for i in range(3) for p in HOT}
    for layer in range(3):
        for point in HOT:
            name = f"blocks.{layer}.{point}"
            agrees(np.array(got["activations"][name]).reshape(len(got["ids"]), -1), points[name])
    losses = twin.losses(got["ids"], logits)
    agrees(got["tokenLosses"], losses)
    assert got["loss"] == pytest.approx(losses.mean(), abs=1e-4)  # decision 18
    for row, top in zip(logits, got["top"]):
        assert [t["id"] for t in top] == list(np.argsort(-row, kind="stable")[:3])
        agrees([t["logit"] for t in top], np.sort(row)[::-1][:3])
        agrees([t["logprob"] for t in top], np.sort(log_softmax(row))[::-1][:3])
    assert np.array(got["activations"]["blocks.1.attn.hook_z"]).shape == (len(got["ids"]), 4, 12)


def test_cold_and_derived_points_fit_together(daemon):
    """What must hold between points, whoever computed them; their values against TransformerLens are a unit test's."""
    texts = [TEXT, "The ship turned"]
    body = {"text": texts, "points": ["attn.1", "value.1", "z.1", "result.1", "attn_out.1", "mlp_in.2", "ln_final.*", "lm_head",
                                      "attn_logits.0"]}
    results = run(daemon, **body)["results"]
    for got in results:
        at = {name: np.array(value, np.float32) for name, value in got["activations"].items()}
        n, places = len(got["ids"]), max(len(r["ids"]) for r in results)
        pattern = at["blocks.1.attn.hook_pattern"]
        assert pattern.shape == (n, 4, places) and at["unembed.hook_out"].shape == (n, 512)
        assert np.allclose(pattern.sum(-1), 1, atol=1e-5)  # weights in float32
        for q in range(n):
            assert (pattern[q, :, q + 1:] == 0).all() and np.isnan(at["blocks.0.attn.hook_attn_scores"][q, :, q + 1:]).all()
        value = at["blocks.1.attn.hook_v"]
        agrees(np.einsum("qhk,khe->qhe", pattern[:, :, :n], value), at["blocks.1.attn.hook_z"])
        bias = at["blocks.1.hook_attn_out"] - at["blocks.1.attn.hook_result"].sum(1)
        agrees(bias, np.broadcast_to(bias[:1], bias.shape))
        assert at["ln_final.hook_scale"].shape == (n, 1) and at["blocks.2.mlp.hook_in"].shape == (n, 48)
    one_head = run(daemon, text=TEXT, points=["pattern.1"], heads=[3])["activations"]["blocks.1.attn.hook_pattern"]
    whole = results[0]["activations"]["blocks.1.attn.hook_pattern"]
    assert [row[0] for row in one_head] == [row[3][:len(one_head[0][0])] for row in whole]


def test_edits_of_cold_points(daemon):
    plain = run(daemon, text=TEXT, points=["z.1", "result.1", "attn_out.1"])["activations"]
    edits = [{"op": "zero", "point": "blocks.1.attn.hook_result", "heads": [2]}]
    edited = run(daemon, text=TEXT, points=["result.1", "attn_out.1"], edits=edits)["activations"]
    gone = np.array(plain["blocks.1.attn.hook_result"])[:, 2]
    agrees(np.array(edited["blocks.1.hook_attn_out"]), np.array(plain["blocks.1.hook_attn_out"]) - gone)
    assert (np.array(edited["blocks.1.attn.hook_result"])[:, 2] == 0).all()
    refused(daemon, "/v1/lab/run", {"text": TEXT, "points": ["rot_q.1"]}, "points[0]", "its positions are not rotary", "/docs/points")


def test_npy_and_safetensors_hold_the_same_numbers(daemon):
    body = {"text": TEXT, "points": ["blocks.1.attn.hook_z"], "positions": [0, -1, 3], "heads": [2, 0]}
    plain = np.array(run(daemon, **body)["activations"]["blocks.1.attn.hook_z"], np.float32)
    reply = post(daemon, "/v1/lab/run", body, headers={"Accept": "application/x-npy"})
    assert reply.headers["Content-Type"] == "application/x-npy"
    array = np.load(io.BytesIO(reply.content))
    assert array.shape == (3, 2, 12) and (array == plain).all()
    whole = np.array(run(daemon, text=TEXT, points=["blocks.1.attn.hook_z"])["activations"]["blocks.1.attn.hook_z"], np.float32)
    assert (array == whole[[0, -1, 3]][:, [2, 0]]).all()
    body = {"text": [TEXT, "The ship turned"], "points": ["resid_post.2", "z.0"]}
    reply = post(daemon, "/v1/lab/run", body, headers={"Accept": "application/vnd.safetensors"})
    arrays = load_safetensors(reply.content)
    assert sorted(arrays) == ["0/blocks.0.attn.hook_z", "0/blocks.2.hook_resid_post", "1/blocks.0.attn.hook_z",
                              "1/blocks.2.hook_resid_post"]
    many = run(daemon, **body)["results"]
    for name, array in arrays.items():
        text, point = name.split("/")
        assert (array == np.array(many[int(text)]["activations"][point], np.float32)).all()
    body["text"] = ["The ship turned", "The ship turned"]
    arrays = load_safetensors(post(daemon, "/v1/lab/run", body, headers={"Accept": "application/vnd.safetensors"}).content)
    assert arrays["blocks.2.hook_resid_post"].shape == (2, 6, 48)


def test_stop_at_layer(daemon, twin):
    got = run(daemon, text=TEXT, stopAtLayer=-1)
    points, _ = twin.run(got["ids"])
    assert list(got["activations"]) == ["residual"]
    agrees(got["activations"]["residual"], points["blocks.2.hook_resid_pre"])
    refused(daemon, "/v1/lab/run", {"text": TEXT, "stopAtLayer": 1, "points": ["resid_mid.1"]}, "stopAtLayer", "layer 1")
    refused(daemon, "/v1/lab/run", {"text": TEXT, "stopAtLayer": 7}, "stopAtLayer", "3 layers")


def test_many_texts_run_as_each_alone_and_more_than_run_at_once(daemon):
    texts = [TEXT[:n] for n in range(5, 45)]
    many = run(daemon, text=texts, points=["resid_post.2"], loss=True, positions=[-1])["results"]
    for i in (0, 17, 39):
        assert run(daemon, text=texts[i], points=["resid_post.2"], loss=True, positions=[-1]) == many[i]


def test_a_tap_changes_no_bit(daemon):
    bare = run(daemon, text=TEXT, topK=5, loss=True)
    tapped = run(daemon, text=TEXT, topK=5, loss=True, points=["blocks.*"])
    del tapped["activations"], bare["activations"]
    assert bare == tapped


def test_tokens_are_taken_as_they_are(daemon):
    ids = run(daemon, text=TEXT, loss=True)["ids"]
    assert ids[0] == 511  # BOS
    assert run(daemon, tokens=ids, loss=True) == run(daemon, text=TEXT, loss=True)
    assert [r["ids"] for r in run(daemon, tokens=[ids, ids[1:]], loss=True)["results"]] == [ids, ids[1:]]
    assert run(daemon, text=TEXT, prependBos=False, loss=True)["ids"] == ids[1:]


def test_run_refuses_what_it_cannot_give(daemon):
    path = "/v1/lab/run"
    refused(daemon, path, {"text": TEXT}, "points", "nothing is asked for")
    refused(daemon, path, {"points": ["z.0"]}, "text", "required")
    refused(daemon, path, {"text": TEXT, "tokens": [1], "loss": True}, "text")
    refused(daemon, path, {"tokens": [1, 512], "loss": True}, "tokens[1]", "tokens 0 to 511")
    refused(daemon, path, {"text": TEXT, "points": ["blocks.9.hook_resid_pre"]}, "points[0]", "0 to 2")
    refused(daemon, path, {"text": TEXT, "points": ["hook_resid*"]}, "points[0]", "no point")
    refused(daemon, path, {"text": TEXT, "points": ["resid_pre.0"], "heads": [0]}, "heads", "no heads")
    refused(daemon, path, {"text": TEXT, "points": ["z.0"], "heads": [4]}, "heads[0]", "0 to 3")
    refused(daemon, path, {"text": TEXT, "loss": True, "positions": [99]}, "positions[0]", "tokens 0 to")
    refused(daemon, path, {"text": TEXT, "los": True}, "los", "loss")
    reply = post(daemon, path, {"text": TEXT, "points": ["z.*"[:1] + ".0", "z.1"]}, 400, headers={"Accept": "application/x-npy"})
    assert reply.json()["field"] == "points"


# ---- edits ----------------------------------------------------------------------------------------------

rng = np.random.default_rng(7)
VECTOR = rng.normal(size=48).round(3).tolist()
HEAD = rng.normal(size=12).round(3).tolist()


def unit(v):
    return np.array(v) / np.linalg.norm(v)


def only(positions, edit):
    def apply(h):
        h[positions] = edit(h[positions])
        return h
    return apply


def columns(part, edit):
    def apply(h):
        h[:, part] = edit(h[:, part])
        return h
    return apply


EDITS = {
    "add": ({"op": "add", "point": "resid_mid.1", "vector": VECTOR, "strength": 1.5},
            "blocks.1.hook_resid_mid", lambda h: h + 1.5 * np.array(VECTOR)),
    "add at positions": ({"op": "add", "point": "resid_pre.1", "vector": VECTOR, "positions": [2, -1]},
                         "blocks.1.hook_resid_pre", only([2, -1], lambda h: h + np.array(VECTOR))),
    "add to a head": ({"op": "add", "point": "z.1", "vector": HEAD, "heads": [2]},
                      "blocks.1.attn.hook_z", columns(slice(24, 36), lambda h: h + np.array(HEAD))),
    "project": ({"op": "project", "point": "attn_out.0", "vector": VECTOR, "strength": 3},
                "blocks.0.hook_attn_out", lambda h: h + 2 * (h @ unit(VECTOR))[:, None] * unit(VECTOR)),
    "cap": ({"op": "cap", "point": "resid_post.0", "vector": VECTOR, "strength": 0.1}, "blocks.0.hook_resid_post",
            lambda h: h + (np.minimum(h @ unit(VECTOR), 0.1) - h @ unit(VECTOR))[:, None] * unit(VECTOR)),
    "set": ({"op": "set", "point": "mlp_out.1", "vector": VECTOR, "special": False},
            "blocks.1.hook_mlp_out", only(slice(1, None), lambda h: 0 * h + np.array(VECTOR))),
    "scale": ({"op": "scale", "point": "mlp_act.0", "value": 0.5}, "blocks.0.mlp.hook_post", lambda h: 0.5 * h),
    "zero heads": ({"op": "zero", "point": "z.0", "heads": [0, 1, 3]}, "blocks.0.attn.hook_z",
                   lambda h: columns(slice(36, 48), lambda x: 0 * x)(columns(slice(0, 24), lambda x: 0 * x)(h))),
    "scale the final norm": ({"op": "scale", "point": "ln_final.hook_normalized", "value": 0.5, "positions": [3, 4, -2]},
                             "ln_final.hook_normalized", only([3, 4, -2], lambda h: 0.5 * h)),
    "scale the logits": ({"op": "scale", "point": "unembed.hook_out", "value": 0.5}, "unembed.hook_out", lambda h: 0.5 * h),
    "mean": ({"op": "mean", "point": "attn_out.1"}, "blocks.1.hook_attn_out",
             lambda h: np.broadcast_to(h.mean(0), h.shape).copy()),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_agree(daemon, twin, name):
    edit, point, function = EDITS[name]
    got = run(daemon, text=TEXT, edits=[edit], points=["resid_post.2"], loss=True)
    points, logits = twin.run(got["ids"], {point: function})
    agrees(got["activations"]["blocks.2.hook_resid_post"], points["blocks.2.hook_resid_post"])
    agrees(got["tokenLosses"], twin.losses(got["ids"], logits))


def setting(index, value):
    def change(a):
        a[:, index] = value
        return a
    return change


def scaling(index, factor):
    def change(a):
        a[:, index] *= factor
        return a
    return change


SOURCES = {"1-res-relu": "blocks.1.hook_resid_pre", "0-mlp-topk": "blocks.0.hook_mlp_out",
           "2-res-jump": "blocks.2.hook_resid_post", "2-res-center": "blocks.1.hook_resid_post"}


@pytest.mark.parametrize("error", [True, False])
@pytest.mark.parametrize("source", SOURCES)
def test_feature_edits_and_splices_agree(daemon, twin, dictionaries, source, error):
    dictionary, point = dictionaries[source], SOURCES[source]
    ids = run(daemon, text=TEXT, loss=True)["ids"]
    clean, _ = twin.run(ids)
    busiest = int(dictionary.encode(clean[point]).sum(0).argmax())
    base = {"source": source, "includeError": error}
    cases = [({"op": "clamp", "index": busiest, "value": 2.5}, setting(busiest, 2.5)),
             ({"op": "ablate", "index": busiest}, setting(busiest, 0)),
             ({"op": "scale", "index": busiest, "value": 3}, scaling(busiest, 3)),
             ({"op": "splice"}, lambda a: a),
             ({"op": "splice", "features": [{"index": busiest}, {"index": 5, "op": "clamp", "value": 1.25}]},
              lambda a: setting(5, 1.25)(setting(busiest, 0)(a)))]
    for edit, change in cases:
        got = run(daemon, text=TEXT, edits=[{**edit, **base}], points=["resid_post.2"], loss=True)
        points, logits = twin.run(ids, {point: dictionary.splice(change, error)})
        agrees(got["activations"]["blocks.2.hook_resid_post"], points["blocks.2.hook_resid_post"])
        agrees(got["tokenLosses"], twin.losses(ids, logits))


def test_plain_edits_and_splices_at_one_point_keep_their_order(daemon, twin, dictionaries):
    dictionary, point = dictionaries["1-res-relu"], "blocks.1.hook_resid_pre"
    add = {"op": "add", "point": point, "vector": VECTOR}
    splice = {"op": "splice", "source": "1-res-relu", "includeError": False}
    scale = {"op": "scale", "point": point, "value": 0.5}
    spliced = dictionary.splice(error=False)
    for edits, function in [([add, splice, scale], lambda h: 0.5 * spliced(h + np.array(VECTOR))),
                            ([scale, splice, add], lambda h: spliced(0.5 * h) + np.array(VECTOR)),
                            ([splice, splice], lambda h: spliced(spliced(h)))]:
        got = run(daemon, text=TEXT, edits=edits, points=[point, "resid_post.2"])
        points, _ = twin.run(got["ids"], {point: function})
        agrees(got["activations"][point], points[point])
        agrees(got["activations"]["blocks.2.hook_resid_post"], points["blocks.2.hook_resid_post"])


def test_patch_from_another_run(daemon, twin):
    other = "In the morning there was a letter under the door"
    ids, from_ids = (run(daemon, text=t, loss=True)["ids"] for t in (TEXT, other))
    source, _ = twin.run(from_ids, {"blocks.0.hook_mlp_out": lambda h: h * 0})
    point = "blocks.1.hook_resid_mid"

    def patched(h):
        h[[4, 2]] = source[point][[1, 7]][::-1]  # selected positions in their order: 2 from 1, 4 from 7
        return h

    edit = {"op": "patch", "point": point, "positions": [4, 2],
            "from": {"text": other, "positions": [1, 7], "edits": [{"op": "zero", "point": "mlp_out.0"}]}}
    got = run(daemon, text=TEXT, edits=[edit], loss=True)
    agrees(got["tokenLosses"], twin.losses(ids, twin.run(ids, {point: patched})[1]))
    rows = {"op": "patch", "point": "z.1", "heads": [1], "positions": [0, 3], "rows": [HEAD, HEAD[::-1]]}
    got = run(daemon, text=TEXT, edits=[rows], loss=True)

    def put(h):
        h[0, 12:24], h[3, 12:24] = HEAD, HEAD[::-1]
        return h
    agrees(got["tokenLosses"], twin.losses(ids, twin.run(ids, {"blocks.1.attn.hook_z": put})[1]))


def test_means(daemon, twin, dictionaries):
    texts = [TEXT, "The ship turned"]
    results = run(daemon, text=texts, edits=[{"op": "mean", "point": "z.1", "heads": [1], "over": "batch"}], loss=True)["results"]
    ids = [r["ids"] for r in results]
    clean = [twin.run(i)[0] for i in ids]
    mean = np.concatenate([c["blocks.1.attn.hook_z"] for c in clean]).mean(0)

    def put(h):
        h[:, 12:24] = mean[12:24]
        return h
    for i, result in zip(ids, results):
        agrees(result["tokenLosses"], twin.losses(i, twin.run(i, {"blocks.1.attn.hook_z": put})[1]))
    got = run(daemon, text=TEXT, edits=[{"op": "mean", "source": "0-mlp-topk", "index": 3}], loss=True)
    dictionary, point = dictionaries["0-mlp-topk"], "blocks.0.hook_mlp_out"
    value = dictionary.encode(clean[0][point])[:, 3].mean()
    edit = dictionary.splice(setting(3, value))
    agrees(got["tokenLosses"], twin.losses(ids[0], twin.run(ids[0], {point: edit})[1]))


# ---- promises -------------------------------------------------------------------------------------------


def same(daemon, edits):
    body = {"text": TEXT, "topK": 8, "loss": True, "points": ["resid_post.2"]}
    return run(daemon, **body) == run(daemon, **body, edits=edits)


def test_edits_that_do_nothing_change_no_bit(daemon, dictionaries, twin):
    ids = run(daemon, text=TEXT, loss=True)["ids"]
    assert same(daemon, [])
    for source, point in SOURCES.items():
        active = dictionaries[source].encode(twin.run(ids)[0][point]).max(0)
        silent = int(np.flatnonzero(active == 0)[0])
        assert same(daemon, [{"op": "splice", "source": source}])
        assert same(daemon, [{"op": "ablate", "source": source, "index": silent}])
        assert not same(daemon, [{"op": "ablate", "source": source, "index": int(active.argmax())}])
    assert not same(daemon, [{"op": "splice", "source": "1-res-relu", "includeError": False}])
    assert same(daemon, [{"op": "patch", "point": "resid_mid.1", "from": {"text": TEXT}}])


def test_rows_without_a_splice_keep_their_bits_beside_one(daemon):
    splice = {"op": "splice", "source": "1-res-relu", "includeError": False, "positions": [-1]}
    got = run(daemon, text=TEXT, edits=[splice], points=["blocks.*"])["activations"]
    bare = run(daemon, text=TEXT, points=["blocks.*"])["activations"]
    for name, rows in got.items():
        assert rows[:-1] == bare[name][:-1], name
    assert got["blocks.1.hook_resid_pre"][-1] != bare["blocks.1.hook_resid_pre"][-1]


def test_different_edits_of_different_requests_run_side_by_side(daemon):
    from concurrent.futures import ThreadPoolExecutor
    lists = [[], [EDITS["add"][0]], [EDITS["scale"][0]], [{"op": "splice", "source": "0-mlp-topk", "includeError": False}],
             [{"op": "clamp", "source": "2-res-jump", "index": 4, "value": 6}], [EDITS["mean"][0]]]
    ask = lambda edits: run(daemon, text=TEXT, topK=4, loss=True, edits=edits)
    alone = [ask(edits) for edits in lists]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, lists * 4))
    assert together == alone * 4


def test_steer_takes_the_same_edits(daemon):
    base = {"prompt": TEXT, "n_tokens": 16, "temperature": 0, "features": []}
    plain = post(daemon, "/api/steer", base)
    assert post(daemon, "/api/steer", {**base, "edits": []})["STEERED"] == plain["DEFAULT"]
    add = {"op": "add", "source": "1-res-relu", "index": 3, "strength": 30}
    steered = post(daemon, "/api/steer", {**base, "edits": [add]})
    feature = {"modelId": MODEL, "layer": "1-res-relu", "index": 3, "strength": 30}
    assert steered["STEERED"] == post(daemon, "/api/steer", {**base, "features": [feature]})["STEERED"] != plain["DEFAULT"]
    assert steered["DEFAULT"] == plain["DEFAULT"]
    late = post(daemon, "/api/steer", {**base, "edits": [{**add, "strength": 60, "positions": "generated"}]})
    assert late["STEERED"] not in (plain["DEFAULT"], steered["STEERED"])
    clamp = {"op": "clamp", "source": "0-mlp-topk", "index": 3, "value": 30}
    assert post(daemon, "/api/steer", {**base, "edits": [clamp]})["STEERED"] != plain["DEFAULT"]
    refused(daemon, "/api/steer", {**base, "edits": [{**add, "idx": 3}]}, "edits[0].idx", "index")


def test_steer_runs_first_what_its_edits_take_from(daemon):
    """The rows and means of other runs are values like any: given by hand they make the same text."""
    base = {"prompt": TEXT, "n_tokens": 12, "temperature": 0, "features": [], "types": ["STEERED"]}
    steered = lambda *edits: post(daemon, "/api/steer", {**base, "edits": list(edits)})["STEERED"]
    other = "The ship turned towards the rocks and was lost in the ni"
    rows = run(daemon, text=TEXT, points=["resid_mid.1", "z.0"])["activations"]
    taken = run(daemon, text=other, points=["resid_mid.1"])["activations"]["blocks.1.hook_resid_mid"]
    mean = np.array(rows["blocks.1.hook_resid_mid"], np.float32).astype(float).mean(0).astype(np.float32).tolist()
    point = {"point": "resid_mid.1"}
    for positions in ("all", "prompt", "generated", [2, -1]):
        got = steered({"op": "mean", **point, "positions": positions})
        assert got == steered({"op": "set", **point, "vector": mean, "positions": positions}), positions
    n = len(rows["blocks.1.hook_resid_mid"])
    assert len(taken) >= n
    got = steered({"op": "patch", **point, "positions": "prompt", "from": {"text": other}})
    assert got == steered({"op": "patch", **point, "positions": "prompt", "rows": taken[:n]}) != steered()
    got = steered({"op": "patch", **point, "positions": [1, 3], "from": {"text": other, "positions": [-1, 2]}})
    assert got == steered({"op": "patch", **point, "positions": [1, 3], "rows": [taken[-1], taken[2]]})
    edit = {"op": "mean", "source": "0-mlp-topk", "index": 3, "from": {"text": other}}
    assert steered(edit) == steered({**edit, "op": "mean"})
    refused(daemon, "/api/steer", {**base, "edits": [{"op": "patch", **point, "from": {"text": "The"}}]}, "edits[0].from",
            "from.positions")


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_rows_of_a_longer_run_go_on_into_what_is_generated(daemon, positions):
    """What greedy steering writes is what the laboratory expects at each token of that text, with the same rows at the same places."""
    ids = run(daemon, text="One night a", loss=True)["ids"]
    other = run(daemon, text=TEXT, loss=True)["ids"][:13]
    edit = {"op": "patch", "point": "resid_mid.1", "from": {"tokens": other}}
    ask = {"prompt": "One night a", "n_tokens": 14, "temperature": 0, "features": [], "types": ["STEERED"]}
    text = post(daemon, "/api/steer", {**ask, "edits": [{**edit, "positions": positions}]})["STEERED"]
    written = run(daemon, text=text, loss=True)["ids"]
    assert written[:len(ids)] == ids and len(ids) < len(other) < len(written)
    # Rows end where the other run does; the last token that was written was never read.
    places = list(range(0 if positions == "all" else len(ids), len(other)))
    top = run(daemon, tokens=written, topK=1, edits=[{**edit, "positions": places}])["top"]
    assert [t[0]["id"] for t in top[len(ids) - 1:-1]] == written[len(ids):]
    assert text != post(daemon, "/api/steer", ask)["STEERED"]


def test_completions_take_the_same_edits(daemon):
    """Means and rows of other runs, for several prompts and choices at once."""
    prompts, other = [TEXT, TEXT[:20]], "The ship turned towards the rocks and was lost in the ni"
    edits = [{"op": "mean", "point": "z.1", "heads": [1], "texts": [other, TEXT]},
             {"op": "patch", "point": "resid_mid.1", "positions": [1, 3], "from": {"text": other}},
             {"op": "mean", "point": "attn_out.2"}]
    body = {"model": MODEL, "max_tokens": 12, "temperature": 0}
    got = post(daemon, "/v1/completions", {**body, "prompt": prompts, "n": 2, "steering": {"edits": edits}})
    ask = {"n_tokens": 12, "temperature": 0, "features": [], "types": ["STEERED"], "include_prompt": False, "edits": edits}
    want = [post(daemon, "/api/steer", {**ask, "prompt": prompt})["STEERED"] for prompt in prompts]
    assert [choice["text"] for choice in got["choices"]] == [want[0], want[0], want[1], want[1]]
    reply = daemon.post("/v1/completions", {**body, "prompt": TEXT, "steering": {"edits": [{"op": "zero", "point": "pattern.1"}]}})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "steering.edits[0].positions", reply.text
    assert 'say positions: "prompt"' in reply.json()["error"]["message"]


def test_patches_of_what_is_generated_say_what_is_missing(daemon):
    base = {"prompt": TEXT, "n_tokens": 8, "temperature": 0, "features": [], "types": ["STEERED"]}
    patch = {"op": "patch", "point": "resid_mid.1", "positions": "generated"}
    rows = np.random.default_rng(1).normal(size=(3, 48)).round(3).tolist()
    steered = lambda *edits: post(daemon, "/api/steer", {**base, "edits": list(edits)})["STEERED"]
    assert steered({**patch, "rows": rows}) not in (steered(), steered({**patch, "rows": rows[:1]}))
    refused(daemon, "/api/steer", {**base, "edits": [{**patch, "from": {"text": "The"}}]}, "edits[0].from", "no row for what is")
    refused(daemon, "/v1/lab/next", {"text": TEXT, "edits": [{**patch, "rows": rows}]}, "edits[0].positions", "nothing is generated")
    refused(daemon, "/api/steer", {**base, "edits": [{**patch, "rows": [[0] * 48] * 160}]}, "edits[0].rows", "context")
    mean = {"op": "mean", "point": "z.1", "texts": [TEXT], "perPosition": True, "positions": "generated"}
    refused(daemon, "/api/steer", {**base, "edits": [mean]}, "edits[0].positions", "perPosition")


@pytest.mark.parametrize("edit, field, word", [
    ({"op": "ad"}, "edits[0].op", "'add'"),
    ({"op": "add"}, "edits[0].point", "needed"),
    ({"op": "add", "point": "resid_pre.1"}, "edits[0].vector", "needed"),
    ({"op": "add", "point": "resid_pre.1", "vector": [1, 2]}, "edits[0].vector", "expected 48"),
    ({"op": "add", "point": "z.1", "heads": [1], "vector": VECTOR}, "edits[0].vector", "expected 12"),
    ({"op": "add", "point": "resid_pre.1", "heads": [1], "vector": VECTOR}, "edits[0].heads", "no heads"),
    ({"op": "add", "point": "z.1", "heads": [1, 1], "vector": HEAD}, "edits[0].heads", "twice"),
    ({"op": "add", "point": "resid_pre.3", "vector": VECTOR}, "edits[0].point", "0 to 2"),
    ({"op": "project", "point": "resid_pre.1", "vector": [0] * 48, "strength": 2}, "edits[0].vector", "direction"),
    ({"op": "zero"}, "edits[0].point", "required"),
    ({"op": "zero", "point": "z.0", "value": 3}, "edits[0].value", "no meaning"),
    ({"op": "clamp", "source": "1-res-relu", "index": 3}, "edits[0].value", "required"),
    ({"op": "clamp", "source": "1-res-relu", "value": 3}, "edits[0].index", "number"),
    ({"op": "clamp", "source": "1-res-relu", "index": 96, "value": 3}, "edits[0].index", "0 to 95"),
    ({"op": "clamp", "source": "1-res-rel", "index": 6, "value": 3}, "edits[0].source", "1-res-relu"),
    ({"op": "clamp", "source": "1-res-relu", "index": 3, "value": 1, "unit": "max"}, "edits[0].unit", "statistics"),
    ({"op": "clamp", "source": "1-res-relu", "index": 3, "value": 1e9}, "edits[0].value", "1000000"),
    ({"op": "splice", "source": "1-res-relu", "features": [{"index": 3, "op": "clamp"}]}, "edits[0].features[0].value", "required"),
    ({"op": "zero", "point": "z.0", "positions": "some"}, "edits[0].positions", "'generated'"),
    ({"op": "zero", "point": "z.0", "positions": [1, 77]}, "edits[0].positions", "77"),
    ({"op": "patch", "point": "z.0"}, "edits[0].from", "one of them"),
    ({"op": "patch", "point": "resid_pre.0", "rows": [VECTOR]}, "edits[0].rows", "1 rows"),
    ({"op": "patch", "point": "resid_pre.0", "rows": [[1, 2], [1]]}, "edits[0].rows[1]", "2 as in the first"),
    ({"op": "patch", "point": "resid_pre.0", "from": {"text": "The"}}, "edits[0].from", "from.positions"),
    ({"op": "patch", "point": "resid_pre.0", "from": {}}, "edits[0].from.text", "required"),
    ({"op": "patch", "point": "resid_pre.0", "positions": [0], "from": {"text": "The", "positions": [5]}},
     "edits[0].from.positions", "tokens 0 to"),
    ({"op": "patch", "point": "resid_pre.0", "from": {"text": TEXT, "edits": [{"op": "mean", "point": "z.0"}]}},
     "edits[0].from.edits[0].op", "further run"),
])
def test_edits_that_are_wrong_name_their_field(daemon, edit, field, word):
    refused(daemon, "/v1/lab/next", {"text": TEXT, "edits": [edit]}, field, word,
            status=404 if word in ("0 to 95", "1-res-relu") else 400)


# ---- next -----------------------------------------------------------------------------------------------


def test_next_agrees(daemon, twin):
    edit, point, function = EDITS["scale"]
    got = post(daemon, "/v1/lab/next", {"text": TEXT, "topK": 5, "answers": [" the", "a"], "edits": [edit], "loss": True})
    for side, edits in (("before", {}), ("after", {point: function})):
        logits = twin.run(got["ids"], edits)[1]
        last = logits[-1]
        order = list(np.argsort(-last, kind="stable"))
        assert [t["id"] for t in got[side]["top"]] == order[:5]
        assert [t["rank"] for t in got[side]["top"]] == list(range(5))
        for answer in got[side]["answers"]:
            assert answer["rank"] == order.index(answer["id"])
            assert answer["logprob"] == pytest.approx(log_softmax(last)[answer["id"]], abs=1e-4)  # decision 18
            assert answer["probability"] == pytest.approx(np.exp(answer["logprob"]), rel=1e-5)
        assert got[side]["loss"] == pytest.approx(twin.losses(got["ids"], logits).mean(), abs=1e-4)
    assert [a["token"] for a in got["before"]["answers"]] == [" the", " a"]
    plain = post(daemon, "/v1/lab/next", {"text": TEXT, "topK": 5, "answers": " the"})
    assert plain["after"] is None and plain["before"]["top"] == got["before"]["top"] and plain["before"]["loss"] is None
    refused(daemon, "/v1/lab/next", {"text": TEXT, "answers": [" the", "zebra"]}, "answers[1]", "must be one token")


def raw(daemon, path, body):
    reply = daemon.post(path, body)
    assert reply.status_code == 200, reply.text
    return reply.text


# Each text of an array is answered as it is alone: the same bytes. The edits are such as look at nothing but their own text.
@pytest.mark.parametrize("path, fields", [
    ("/v1/lab/next", {"topK": 5, "answers": [" the"], "loss": True}),
    ("/v1/lab/next", {"topK": 3, "edits": [EDITS["scale"][0]], "loss": True}),
    ("/v1/lab/next", {"topK": 1000, "edits": [{"op": "mean", "point": "z.1", "heads": [2]}]}),
    ("/v1/lab/ablate", {"heads": [{"layer": 0, "head": 2}, {"layer": 1, "head": 0}], "answers": [" the"]}),
    ("/v1/lab/ablate", {"heads": [{"layer": 0, "head": 1}], "mode": "mean", "texts": [TEXT, "A ship"]}),
    ("/v1/lab/ablate", {"source": "1-res-relu", "features": [3, 5], "includeError": False, "topK": 2})])
def test_a_list_of_texts_is_answered_text_by_text(daemon, path, fields):
    texts = [TEXT, "A ship", "One night in the year a ship came"]
    alone = [raw(daemon, path, {"text": text, **fields}) for text in texts]
    assert raw(daemon, path, {"text": texts, **fields}) == '{"results":[' + ",".join(alone) + "]}"
    assert raw(daemon, path, {"text": texts[:1], **fields}) == '{"results":[' + alone[0] + "]}"
    ids = [json.loads(one)["ids"] for one in alone]
    assert raw(daemon, path, {"tokens": ids, **fields}) == '{"results":[' + ",".join(alone) + "]}"
    assert raw(daemon, path, {"tokens": ids[1], **fields}) == alone[1]


def test_lists_of_texts_have_bounds(daemon):
    edits = [EDITS["scale"][0]]
    refused(daemon, "/v1/lab/next", {"text": ["a"] * 256, "topK": 1000, "edits": edits}, "topK", "512 tables of 512 rows")
    assert len(post(daemon, "/v1/lab/next", {"text": ["a"] * 256, "topK": 1000})["results"]) == 256
    for path, fields in (("/v1/lab/next", {}), ("/v1/lab/ablate", {"heads": [{"layer": 0, "head": 1}]})):
        refused(daemon, path, {"text": ["a"] * 257, **fields}, "text", "1 to 256 texts, found 257")
        refused(daemon, path, {"text": [], **fields}, "text", "1 to 256 texts, found 0")
        refused(daemon, path, {"tokens": [[1], [2, 512]], **fields}, "tokens[1][1]", "0 to 511")
        refused(daemon, path, {"tokens": [[1], []], **fields}, "tokens[1]", "found an array of 0")
        refused(daemon, path, fields, "text", "required")


def test_a_mean_over_the_batch_is_over_the_texts_of_the_request(daemon):
    texts = [TEXT, "A ship"]
    edit = {"op": "mean", "point": "resid_pre.1", "over": "batch"}
    both = post(daemon, "/v1/lab/next", {"text": texts, "edits": [edit], "topK": 3})["results"]
    for text, got in zip(texts, both):
        corpus = {**edit, "over": "corpus", "texts": texts}
        assert got == post(daemon, "/v1/lab/next", {"text": text, "edits": [corpus], "topK": 3})
