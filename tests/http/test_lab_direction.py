"""POST /v1/lab/direction beside numpy on the rows that /v1/lab/run gives: differences of means, principal directions (SVD), and how well
they tell the texts apart. Then steering with what was kept."""
import numpy as np
import pytest

from conftest import MODEL

POSITIVE = ["the ship is at sea", "a storm on the sea", "the sea is far away"]
NEGATIVE = ["the middle of the universe", "a house in the town", "one day in the town"]
POINTS = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]


def ask(daemon, status=200, **more):
    reply = daemon.post("/v1/lab/direction", {"modelId": MODEL, "positive": POSITIVE, "negative": NEGATIVE, **more})
    assert reply.status_code == status, reply.text
    return reply.json()


def rows(daemon, texts, point, row, first=1):
    """float64 [texts, width] of what the daemon runs; `first`: behind BOS."""
    runs = daemon.post("/v1/lab/run", {"modelId": MODEL, "text": texts, "points": [point]}).json()["results"]
    values = [np.array(run["activations"][point], np.float64) for run in runs]
    values = [v.reshape(len(v), -1) for v in values]  # heads side by side
    return np.array([v[-1] if row == "last" else v[first:].mean(0) for v in values])


def expected(positive, negative, method):
    if method == "mean":
        return positive.mean(0) - negative.mean(0)
    differences = positive - negative
    unit = np.linalg.svd(differences, full_matrices=False)[2][0]
    return unit * (differences @ unit).mean()  # its sign is decided by the mean


@pytest.mark.parametrize("row", ["last", "mean"])
@pytest.mark.parametrize("method", ["mean", "pca"])
def test_beside_numpy(daemon, method, row):
    got = ask(daemon, method=method, row=row, points=POINTS + ["z.1"])
    assert (got["model"], got["positive"], got["negative"], got["method"], got["row"], got["kept"]) == (MODEL, 3, 3, method, row, None)
    assert [d["point"] for d in got["directions"]] == [POINTS[0], "blocks.1.attn.hook_z", *POINTS[1:]]  # in the order of the pass
    for d in got["directions"]:
        positive, negative = (rows(daemon, texts, d["point"], row) for texts in (POSITIVE, NEGATIVE))
        want = expected(positive, negative, method)
        # Rows come as f32, a mean of them is one rounding of the reply's; the SVD's vector is as exact as doubles are.
        scale = max(1, np.sqrt((want ** 2).mean()))
        assert np.abs(np.array(d["vector"]) - want).max() <= 1e-5 * scale, d["point"]
        unit = want / np.linalg.norm(want)
        above = [(a > b) + (a == b) / 2 for a in positive @ unit for b in negative @ unit]
        assert d["length"] == pytest.approx(np.linalg.norm(want), rel=1e-5)
        assert d["separation"] == pytest.approx(np.mean(above), abs=1e-12)
        assert d["positiveMean"] == pytest.approx((positive @ unit).mean(), rel=1e-4, abs=1e-4)  # projections of near-orthogonal rows
        assert d["negativeMean"] == pytest.approx((negative @ unit).mean(), rel=1e-4, abs=1e-4)
        assert d["rowLength"] == pytest.approx(np.linalg.norm(np.r_[positive, negative], axis=1).mean(), rel=1e-5)


def test_kept_directions_steer(daemon):
    got = ask(daemon, vectorLabel="of the sea", vectors=False)
    assert all("vector" not in d for d in got["directions"]) and got["kept"]["label"] == "of the sea"
    assert [f["layer"] for f in got["kept"]["features"]] == [f"{n}-neuronpedia-resid-post" for n in range(3)]
    shown = ask(daemon)["directions"]  # all residuals behind layers, where points are left out
    assert [d["point"] for d in shown] == POINTS
    body = {"prompt": "the ship", "max_tokens": 12, "temperature": 0}
    texts = [daemon.post("/v1/completions", {**body, "steering": {"vectors": vectors}}).json()["choices"][0]["text"] for vectors in (
        [{"label": "of the sea", "strength": 2}], [{"point": d["point"], "vector": d["vector"], "strength": 2} for d in shown], [])]
    assert texts[0] == texts[1] != texts[2]
    again = ask(daemon, 409, vectorLabel="of the sea")
    assert (again["code"], again["field"]) == ("conflict", "vectorLabel")


def test_groups_of_different_sizes(daemon):
    got = ask(daemon, positive="the ship", negative=NEGATIVE, points=["resid_mid.1"])["directions"][0]
    want = rows(daemon, ["the ship"], "blocks.1.hook_resid_mid", "last")[0] - rows(daemon, NEGATIVE, "blocks.1.hook_resid_mid", "last").mean(0)
    assert np.abs(np.array(got["vector"]) - want).max() <= 1e-5 * max(1, np.sqrt((want ** 2).mean()))
    assert ask(daemon, 400, positive="the ship", method="pca")["field"] == "negative"


def test_texts_that_do_not_differ(daemon):
    same = ask(daemon, negative=POSITIVE, method="pca")["directions"]
    assert all(d["length"] == 0 and d["separation"] == 0.5 and not any(d["vector"]) for d in same)
    assert ask(daemon, 400, negative=POSITIVE, vectorLabel="nothing")["field"] == "points"


@pytest.mark.parametrize("change, field, text", [
    ({"points": ["pattern.1"]}, "points[0]", "as long as their text"),
    ({"points": ["resid_post.1", "z.1"], "vectorLabel": "x"}, "points[1]", "hook_resid_pre and hook_resid_post only"),
    ({"points": ["nowhere"]}, "points[0]", "unknown point"),
    ({"positive": []}, "positive", "1 to 256"),
    ({"negative": ["a", ""]}, "negative[1]", "empty"),
    ({"negative": ["the ship " * 100]}, "negative[0]", "160"),
    ({"method": "median"}, "method", "pca"),
    ({"row": "first"}, "row", "last"),
    ({"vectorLabels": "x"}, "vectorLabels", "did you mean 'vectorLabel'")])
def test_refusals(daemon, change, field, text):
    refused = ask(daemon, 400, **change)
    assert refused["field"] == field and text in refused["error"], refused


def test_nothing_is_kept_without_a_store(start_daemon):
    daemon = start_daemon(store="")
    assert ask(daemon, 501, vectorLabel="x")["code"] == "unsupported"
    assert ask(daemon)["kept"] is None
