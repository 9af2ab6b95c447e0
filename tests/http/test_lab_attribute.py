"""POST /v1/lab/attribute: gradients beside differences of its twin in NumPy, and what is made of them."""
import io
import json
import re
import socket
import threading
import time

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from test_lab_run import load_safetensors, post, refused, run
from twin import Dictionary, Twin, agrees, log_softmax

FOLDER = VECTORS / MODEL
TEXT = "One night a ship came near the rocks, late in the year"
ANSWERS = [" the", " a"]
PATH = "/v1/lab/attribute"
STEP = 1e-4  # the twin counts in float64: differences are off by its square


@pytest.fixture(scope="module")
def twin():
    return Twin(FOLDER / "model")


@pytest.fixture(scope="module")
def ids(daemon):
    clean = run(daemon, text=TEXT, loss=True)["ids"]
    return [clean, [*clean[:7], (clean[7] + 31) % 500, *clean[8:]]]


def attribute(daemon, **body):
    return post(daemon, PATH, body)


METRICS = {
    "logit": lambda logits, ids, answers: logits[-1, answers[0]],
    "logit-difference": lambda logits, ids, answers: logits[-1, answers[0]] - logits[-1, answers[1]],
    "logprob": lambda logits, ids, answers: log_softmax(logits[-1])[answers[0]],
    "probability": lambda logits, ids, answers: np.exp(log_softmax(logits[-1])[answers[0]]),
    "loss": lambda logits, ids, answers: -log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]].mean(),
}


def slope(twin, ids, name, direction, measure, edits=None):
    """How the twin's number grows along a direction of a point's rows, in front of which `edits` stand."""
    side = [measure(twin.run(ids, {**(edits or {}), name: lambda h, s=s: (edits or {}).get(name, lambda x: x)(h) + s * direction})[1])
            for s in (-STEP, STEP)]
    return (side[1] - side[0]) / (2 * STEP)


def check_slope(twin, ids, got, name, measure, edits=None):
    gradient = np.array(got["gradients"][name]).reshape(len(ids), -1)
    rng = np.random.default_rng(3)
    for _ in range(3):
        direction = rng.normal(size=gradient.shape) / np.sqrt(gradient.size)
        want = slope(twin, ids, name, direction, measure, edits)
        # f32 through three layers there and back, beside the gradient's length
        assert (gradient * direction).sum() == pytest.approx(want, abs=1e-4 * max(1, np.sqrt((gradient ** 2).sum())))


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_of_every_metric_are_slopes_of_the_twin(daemon, twin, ids, metric):
    answers = [] if metric == "loss" else ANSWERS[:1 + (metric == "logit-difference")]
    names = ["blocks.0.hook_resid_pre", "blocks.1.attn.hook_z", "blocks.1.mlp.hook_post", "blocks.2.hook_attn_out"]
    got = attribute(daemon, tokens=ids[0], metric=metric, points=names, gradients=True, **({"answers": answers} if answers else {}))
    numbers = [a["id"] for a in got["answers"]]
    assert got["metric"] == metric and [a["token"] for a in got["answers"]] == answers
    assert got["position"] == (None if metric == "loss" else len(ids[0]) - 1)

    def measure(logits):
        return METRICS[metric](logits, ids[0], numbers)
    assert got["value"] == pytest.approx(measure(twin.run(ids[0])[1]), abs=2e-4)  # decision 18, twice
    for name in names:
        check_slope(twin, ids[0], got, name, measure)


def test_the_metric_goes_by_the_answers(daemon, ids):
    assert attribute(daemon, tokens=ids[0], points=["z.0"])["metric"] == "loss"
    assert attribute(daemon, tokens=ids[0], points=["z.0"], answers=" the")["metric"] == "logit"
    assert attribute(daemon, tokens=ids[0], points=["z.0"], answers=ANSWERS)["metric"] == "logit-difference"


def test_an_earlier_position_has_nothing_behind_it(daemon, ids):
    got = attribute(daemon, tokens=ids[0], points=["resid_pre.1"], answers=ANSWERS, position=5, gradients=True)
    gradient = np.array(got["gradients"]["blocks.1.hook_resid_pre"])
    assert got["position"] == 5 and gradient[:6].any(axis=1).all() and not gradient[6:].any()
    whole = attribute(daemon, tokens=ids[0][:6], points=["resid_pre.1"], answers=ANSWERS, gradients=True)
    assert gradient[:6].tolist() == whole["gradients"]["blocks.1.hook_resid_pre"]


def test_attributions_are_gradients_times_activations(daemon, ids):
    points = ["blocks.*.hook_resid_pre", "q.1", "pos_embed", "ln1.hook_scale", "blocks.2.attn.hook_z"]
    points = [p if p != "ln1.hook_scale" else "blocks.1.ln1.hook_scale" for p in points]
    got = attribute(daemon, tokens=ids[0], points=points, answers=ANSWERS, gradients=True)
    there = run(daemon, tokens=ids[0], points=points)["activations"]
    assert list(got["attributions"]) == list(there) == list(got["gradients"])
    for name, values in got["attributions"].items():
        # products of f32 numbers, summed in double on both sides
        want = (np.array(got["gradients"][name]) * np.array(there[name])).sum(-1)
        np.testing.assert_allclose(values, want, rtol=1e-5, atol=1e-6)
    assert np.array(got["attributions"]["blocks.1.attn.hook_q"]).shape == (len(ids[0]), 4)
    some = attribute(daemon, tokens=ids[0], points=points, answers=ANSWERS, positions=[-1, 2, 2])
    assert some["positions"] == [len(ids[0]) - 1, 2, 2]
    for name, values in some["attributions"].items():
        assert values == [got["attributions"][name][p] for p in some["positions"]]


def test_arrays(daemon, ids):
    body = {"tokens": ids[0], "points": ["blocks.*.attn.hook_z", "resid_pre.2"], "answers": ANSWERS}
    want = attribute(daemon, **body, gradients=True)["gradients"]
    raw = post(daemon, PATH, body, headers={"Accept": "application/vnd.safetensors"})
    got = load_safetensors(raw.content)
    assert list(got) == list(want) and got["blocks.0.attn.hook_z"].shape == (len(ids[0]), 4, 12)
    for name, array in got.items():
        assert np.array_equal(array, np.array(want[name], np.float32))
    one = post(daemon, PATH, {**body, "points": ["resid_pre.2"], "positions": [1, 3]}, headers={"Accept": "application/x-npy"})
    assert np.array_equal(np.load(io.BytesIO(one.content)), np.array(want["blocks.2.hook_resid_pre"], np.float32)[[1, 3]])
    reply = daemon.post(PATH, body, headers={"Accept": "application/x-npy"})
    assert reply.status_code == 400 and reply.json()["field"] == "points"


# ---- another text ---------------------------------------------------------------------------------------


def test_attribution_patching(daemon, ids):
    points = ["blocks.*.hook_resid_pre", "z.1"]
    got = attribute(daemon, tokens=ids[1], against={"tokens": ids[0]}, points=points, answers=ANSWERS)
    alone = attribute(daemon, tokens=ids[1], points=points, answers=ANSWERS, gradients=True)
    here, there = (run(daemon, tokens=i, points=points)["activations"] for i in (ids[1], ids[0]))
    other = attribute(daemon, tokens=ids[0], points=points, answers=ANSWERS)
    assert (got["value"], got["against"]["value"]) == (alone["value"], other["value"])
    assert got["against"]["ids"] == ids[0]
    for name, values in got["attributions"].items():
        want = (np.array(alone["gradients"][name]) * (np.array(here[name]) - np.array(there[name]))).sum(-1)
        np.testing.assert_allclose(values, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got["normalized"][name], np.array(values) / (got["value"] - got["against"]["value"]), rtol=1e-12)
    # only what depends on the changed token differs
    assert not np.any(got["attributions"]["blocks.0.hook_resid_pre"][:7])


def test_attribution_patching_stands_beside_patching(daemon, twin, ids):
    """A step of one hundredth of the way: patching is linear that far, and its normalised matrix is the gradient's."""
    clean, corrupted = ids
    got = attribute(daemon, tokens=corrupted, against={"tokens": clean}, points=["blocks.*.hook_resid_pre"], answers=ANSWERS)
    exact = post(daemon, "/v1/lab/patch", {"clean": {"tokens": clean}, "corrupted": {"tokens": corrupted}, "answers": ANSWERS})
    answers = [a["id"] for a in got["answers"]]
    far = got["against"]["value"] - got["value"]
    there, _ = twin.run(clean)
    for layer in range(3):
        name = f"blocks.{layer}.hook_resid_pre"
        for position in (7, len(clean) - 1):
            def put(h):
                h[position] += 1e-2 * (there[name][position] - h[position])
                return h
            moved = METRICS["logit-difference"](twin.run(corrupted, {name: put})[1], clean, answers)
            # the square of a hundredth times how far the metric bends on the whole way, over a hundredth
            assert got["normalized"][name][position] == pytest.approx((moved - got["value"]) / far / 1e-2, abs=0.25 / abs(far) + 0.05)
    assert np.array(exact["matrix"]).shape == (3, len(clean))
    # the last layer's stream at the last position is one norm away from the logits: the two agree in sign and size
    assert np.sign(got["normalized"]["blocks.2.hook_resid_pre"][-1]) == np.sign(exact["matrix"][2][-1])


# ---- what is held ---------------------------------------------------------------------------------------


def test_what_is_held_is_constant(daemon, ids):
    body = {"tokens": ids[0], "points": ["blocks.*.hook_resid_pre", "q.2", "k.2", "v.2"], "answers": ANSWERS, "gradients": True}
    free = attribute(daemon, **body)["gradients"]
    held = attribute(daemon, **body, stopGradients=["pattern", "norm"])["gradients"]
    pattern = attribute(daemon, **body, stopGradients="pattern")["gradients"]
    assert np.any(free["blocks.2.attn.hook_q"]) and not np.any(held["blocks.2.attn.hook_q"]) and not np.any(pattern["blocks.2.attn.hook_k"])
    assert pattern["blocks.2.attn.hook_v"] == free["blocks.2.attn.hook_v"] != held["blocks.2.attn.hook_v"]
    # a divisor that follows takes away what goes along the stream: held, moving the last row outwards grows every logit in proportion
    assert held["blocks.0.hook_resid_pre"] != pattern["blocks.0.hook_resid_pre"] != free["blocks.0.hook_resid_pre"]


# ---- edits ----------------------------------------------------------------------------------------------


def test_gradients_go_through_edits(daemon, twin, ids):
    vector = np.linspace(-1, 1, 48)
    unit = vector / np.linalg.norm(vector)
    name = "blocks.1.hook_resid_pre"
    cases = [
        ({"op": "add", "point": name, "vector": vector.tolist(), "strength": 3}, lambda h: h + 3 * vector),
        ({"op": "project", "point": name, "vector": vector.tolist(), "strength": 0.25}, lambda h: h - 0.75 * (h @ unit)[:, None] * unit),
        ({"op": "cap", "point": name, "vector": vector.tolist(), "strength": 0.1},
         lambda h: h + (np.minimum(h @ unit, 0.1) - h @ unit)[:, None] * unit),
        ({"op": "scale", "point": name, "value": 0.5}, lambda h: 0.5 * h),
    ]
    for edit, function in cases:
        got = attribute(daemon, tokens=ids[0], points=["blocks.0.hook_resid_pre", name], answers=ANSWERS, gradients=True, edits=[edit])
        answers = [a["id"] for a in got["answers"]]

        def measure(logits):
            return METRICS["logit-difference"](logits, ids[0], answers)
        assert got["value"] == pytest.approx(measure(twin.run(ids[0], {name: function})[1]), abs=3e-4)
        check_slope(twin, ids[0], got, "blocks.0.hook_resid_pre", measure, {name: function})
        check_slope(twin, ids[0], got, name, measure, {name: function})  # behind the edit, as a tap sees it


def test_gradients_go_through_features(daemon, twin, ids):
    """A clamped feature no longer grows with what it reads; its encoder's direction is taken out where it fires."""
    dictionary = Dictionary(FOLDER / "sources" / "1-res-relu")
    name = "blocks.1.hook_resid_pre"
    acts = dictionary.encode(twin.run(ids[0])[0][name])
    index = int(np.argsort(-(acts > 0.1).sum(0))[0])
    for edit, change in (({"op": "clamp", "value": 2.0}, lambda a: 2.0 + 0 * a), ({"op": "scale", "value": -0.5}, lambda a: -0.5 * a)):
        def put(a):
            a[:, index] = change(a[:, index])
            return a
        function = dictionary.splice(put)
        got = attribute(daemon, tokens=ids[0], points=["blocks.0.hook_resid_mid"], answers=ANSWERS, gradients=True,
                        edits=[{**edit, "source": "1-res-relu", "index": index}])
        answers = [a["id"] for a in got["answers"]]
        check_slope(twin, ids[0], got, "blocks.0.hook_resid_mid", lambda logits: METRICS["logit-difference"](logits, ids[0], answers),
                    {name: function})


# ---- features -------------------------------------------------------------------------------------------


SOURCES = ["1-res-relu", "2-res-jump", "0-mlp-topk", "2-res-center"]


@pytest.mark.parametrize("source", SOURCES)
def test_features_bias_and_error_add_up(daemon, twin, ids, source):
    dictionary = Dictionary(FOLDER / "sources" / source)
    got = attribute(daemon, tokens=ids[0], sources=source, topK=1000, answers=ANSWERS)
    row, = got["sources"]
    name = row["point"]
    points = attribute(daemon, tokens=ids[0], points=[name], answers=ANSWERS, gradients=True)
    gradient, x = np.array(points["gradients"][name], np.float64), twin.run(ids[0])[0][name]
    acts = dictionary.encode(x)
    centred = x - x.mean(-1, keepdims=True) if dictionary.centred else x
    error = centred - dictionary.decode(acts)
    scale = np.abs(gradient * x).sum()  # f32 activations and gradients, of which many cancel
    for at in row["positions"]:
        p = at["position"]
        assert at["total"] == pytest.approx(points["attributions"][name][p], abs=1e-5 * scale)
        assert at["features"] + at["bias"] + at["error"] == pytest.approx(at["total"], abs=1e-9 * scale)
        assert at["error"] == pytest.approx(gradient[p] @ error[p], abs=1e-4 * scale)
        rest = dictionary.w["b_dec"] + (x[p].mean() if dictionary.centred else 0)
        assert at["bias"] == pytest.approx(gradient[p] @ rest, abs=1e-4 * scale)
        fires = set(np.flatnonzero(acts[p] > 1e-3))  # what is near 0 may be on either side of it
        assert at["active"] == len(at["top"]) and fires <= {f["index"] for f in at["top"]}
        sizes = [abs(f["attribution"]) for f in at["top"]]
        assert sizes == sorted(sizes, reverse=True)
        for f in at["top"]:
            assert f["activation"] == pytest.approx(acts[p, f["index"]], abs=2e-4)
            assert f["attribution"] == pytest.approx(acts[p, f["index"]] * (gradient[p] @ dictionary.rows[f["index"]]), abs=1e-4 * scale)
        assert sum(f["attribution"] for f in at["top"]) == pytest.approx(at["features"], abs=1e-9 * scale)
    for part in ("total", "features", "bias", "error"):
        assert row[part] == pytest.approx(sum(at[part] for at in row["positions"]), abs=1e-9 * scale)
    over = {}
    for at in row["positions"]:
        for f in at["top"]:
            over[f["index"]] = over.get(f["index"], 0) + f["attribution"]
    assert {f["index"]: pytest.approx(f["attribution"], abs=1e-9 * scale) for f in row["top"]} == over


def test_every_source_adds_up(daemon, ids):
    """Of all the kinds there are: transcoders, skips, norms by row, single heads."""
    sources = [s["id"] for m in daemon.get("/models").json()["models"] if m["id"] == MODEL for s in m["sources"]]
    got = attribute(daemon, tokens=ids[0], sources=sources, answers=ANSWERS, topK=2)
    assert [row["source"] for row in got["sources"]] == sources
    for row in got["sources"]:
        whole = attribute(daemon, tokens=ids[0], points=[row["point"]], answers=ANSWERS)["attributions"][row["point"]]
        scale = np.abs(whole).sum() + 1
        assert row["total"] == pytest.approx(np.sum(whole), abs=1e-5 * scale)
        assert row["features"] + row["bias"] + row["error"] == pytest.approx(row["total"], abs=1e-9 * scale)


def test_features_against_another_text(daemon, ids):
    body = {"answers": ANSWERS, "sources": ["1-res-relu"], "topK": 1000}
    both = attribute(daemon, tokens=ids[1], against={"tokens": ids[0]}, **body)["sources"][0]
    points = attribute(daemon, tokens=ids[1], against={"tokens": ids[0]}, points=[both["point"]], answers=ANSWERS)
    alone = attribute(daemon, tokens=ids[1], **body)["sources"][0]
    for at, one, total in zip(both["positions"], alone["positions"], points["attributions"][both["point"]]):
        assert at["total"] == pytest.approx(total, abs=1e-4)
        assert at["bias"] == pytest.approx(0, abs=1e-4)  # the same in both
        acts = {f["index"]: f for f in one["top"]}
        for f in at["top"]:
            assert f["activation"] == acts.get(f["index"], {"activation": 0})["activation"]
            if f["index"] in acts and acts[f["index"]]["activation"]:
                each = acts[f["index"]]["attribution"] / acts[f["index"]]["activation"]
                assert f["attribution"] == pytest.approx(each * (f["activation"] - f["against"]), abs=1e-4)


# ---- refusals and company -------------------------------------------------------------------------------


def test_refusals(daemon, ids):
    base = {"tokens": ids[0], "points": ["z.0"], "answers": ANSWERS}
    refused(daemon, PATH, {**base, "points": ["pattern.1"]}, "points[0]", "no gradients at 'pattern.1'", "'q', 'k' and 'v'")
    refused(daemon, PATH, {**base, "points": ["z.0", "result.1"]}, "points[1]", "no gradients at 'result.1'")
    refused(daemon, PATH, {**base, "points": ["final_norm"]}, "points[0]", "behind the last layer")
    refused(daemon, PATH, {**base, "points": ["z.9"]}, "points[0]")
    refused(daemon, PATH, {**base, "points": []}, "points", "nothing is asked for")
    refused(daemon, PATH, {**base, "against": {"tokens": ids[0][:-1]}}, "against", "must have as many")
    refused(daemon, PATH, {**base, "against": {}}, "against.text")
    refused(daemon, PATH, {**base, "metric": "logit"}, "answers", "of one answer, found 2")
    refused(daemon, PATH, {**base, "metric": "loss"}, "answers", "no meaning")
    refused(daemon, PATH, {"tokens": ids[0][:1], "points": ["z.0"]}, "text", "no loss")
    refused(daemon, PATH, {**base, "position": 99}, "position", "the text has tokens")
    refused(daemon, PATH, {**base, "stopGradients": ["mlp"]}, "stopGradients", "'norm' and 'pattern'")
    refused(daemon, PATH, {**base, "sources": ["none"]}, "sources[0]", status=404)
    refused(daemon, PATH, {**base, "edits": [{"op": "splice", "source": "1-res-relu"}]}, "edits", "do not go through splices")
    refused(daemon, PATH, {**base, "edits": [{"op": "knockout", "point": "attn_scores.0", "keys": [0]}]}, "edits", "scores and patterns")
    refused(daemon, PATH, {**base, "more": 1}, "more")


def test_a_pattern_leaves_out_what_has_no_gradient(daemon, ids):
    got = attribute(daemon, tokens=ids[0], points=["blocks.0.*"], answers=ANSWERS)
    assert "blocks.0.attn.hook_q" in got["attributions"] and "blocks.0.attn.hook_pattern" not in got["attributions"]


def test_company_changes_no_bit(daemon, ids):
    """Answers of others are the same while gradients are taken, and gradients are the same beside others."""
    steer = {"model": MODEL, "prompt": TEXT, "max_tokens": 24, "seed": 5, "temperature": 1}
    body = {"tokens": (ids[0] * 12)[:150], "points": ["blocks.*"], "answers": ANSWERS, "positions": [3, -1]}
    alone, text = attribute(daemon, **body), post(daemon, "/v1/completions", steer)["choices"]
    seen = []

    def ask():
        for _ in range(3):
            seen.append(attribute(daemon, **body) == alone)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert post(daemon, "/v1/completions", steer)["choices"] == text
    assert seen == [True] * 6


def busy_seconds(daemon):
    return float(re.search(r"^steerd_busy_seconds_total ([0-9.e+-]+)$", daemon.get("/metrics").text, re.M).group(1))


def test_a_client_that_hangs_up_stops_its_gradients(start_daemon, ids):
    """What clients left behind costs next to nothing: forty of them less than ten of those that are answered."""
    one = start_daemon()
    body = {"tokens": (ids[0] * 12)[:158], "points": ["blocks.*"], "gradients": True, "positions": [0]}
    data = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    begin = busy_seconds(one)
    for _ in range(3):
        attribute(one, **body)
    each = (busy_seconds(one) - begin) / 3
    sockets = [socket.create_connection(("127.0.0.1", one.port), timeout=20) for _ in range(40)]
    begin = busy_seconds(one)
    for s in sockets:
        s.sendall(head + data)
    for s in sockets:
        s.close()
    time.sleep(0.2)
    assert attribute(one, tokens=ids[0], points=["z.0"])["metric"] == "loss"  # behind all of them
    assert busy_seconds(one) - begin < 10 * each
