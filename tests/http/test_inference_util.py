"""POST /v1/util/...: vectors of features and their neighbours beside the dictionary's own file, done here in NumPy."""
import io

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from tensors import load_safetensors, read_tensors
from test_inference import SOURCE, ask, refused

WEIGHTS = {k: v.astype(np.float64) for k, v in read_tensors(VECTORS / MODEL / "sources" / SOURCE / "sae_weights.safetensors").items()}
NORMS = np.linalg.norm(WEIGHTS["W_dec"], axis=1)
NEAR = "/v1/util/sae-topk-by-decoder-cossim"
CLOSE = dict(rel=1e-5, abs=1e-6)  # products of float32 rows of 48


def neighbours(row, most):
    cosines = WEIGHTS["W_dec"] @ row / (NORMS * np.linalg.norm(row))
    order = np.argsort(-cosines, kind="stable")[:most]
    return order.tolist(), cosines[order].tolist()


@pytest.mark.parametrize("index", [0, 7, 95])
def test_vectors_of_a_feature(daemon, index):
    got = ask(daemon, "/v1/util/sae-vector", {"model": MODEL, "source": SOURCE, "index": index})
    assert got["hookName"] == got["encoderHookName"] == "blocks.1.hook_resid_pre"
    assert got["vector"] == pytest.approx((WEIGHTS["W_dec"][index] / NORMS[index]).tolist(), **CLOSE)
    assert got["encoderVector"] == pytest.approx((WEIGHTS["W_enc"][:, index] * NORMS[index]).tolist(), **CLOSE)
    assert ask(daemon, "/v1/util/sae-vector", {"source": SOURCE, "index": str(index)}) == got
    body = {"source": SOURCE, "index": index}
    npy = daemon.post("/v1/util/sae-vector", body, headers={"Accept": "application/x-npy"})
    assert npy.headers["Content-Type"] == "application/x-npy" and np.load(io.BytesIO(npy.content)).tolist() == np.float32(got["vector"]).tolist()
    both = load_safetensors(daemon.post("/v1/util/sae-vector", body, headers={"Accept": "application/vnd.safetensors"}).content)
    assert {name: array.tolist() for name, array in both.items()} == {name: np.float32(got[name]).tolist() for name in ("vector", "encoderVector")}
    refused(daemon, "/v1/util/sae-vector", {"source": SOURCE, "index": 96}, 404, "index", "0 to 95")
    refused(daemon, "/v1/util/sae-vector", {"source": SOURCE, "index": -1}, 400, "index")
    refused(daemon, "/v1/util/sae-vector", {"source": "9-no", "index": 1}, 404, "source")


def test_vectors_of_a_transcoder(start_daemon):
    folder = VECTORS / "dict-points" / "1-tc"
    daemon = start_daemon(models={MODEL: VECTORS / MODEL / "model"}, sources={f"{MODEL}/1-tc": folder})
    got = ask(daemon, "/v1/util/sae-vector", {"source": "1-tc", "index": 5})
    assert (got["hookName"], got["encoderHookName"]) == ("blocks.1.hook_mlp_out", "blocks.1.ln2.hook_normalized")
    row = read_tensors(folder / "sae_weights.safetensors")["W_dec"][5].astype(np.float64)
    assert got["vector"] == pytest.approx((row / np.linalg.norm(row)).tolist(), **CLOSE)


def test_neighbours(daemon):
    body = {"model": MODEL, "source": SOURCE, "feature": {"model": MODEL, "source": SOURCE, "index": 7}, "numResults": 12}
    got = ask(daemon, NEAR, body)
    assert got["feature"] == {"model": MODEL, "source": SOURCE, "index": 7}
    order, cosines = neighbours(WEIGHTS["W_dec"][7], 12)
    rows = got["topkDecoderCossimFeatures"]
    assert [row["feature"] for row in rows] == [{"model": MODEL, "source": SOURCE, "index": f} for f in order]
    assert [row["cosineSimilarity"] for row in rows] == pytest.approx(cosines, **CLOSE)
    assert order[0] == 7 and rows[0]["cosineSimilarity"] == pytest.approx(1)
    assert ask(daemon, "/api/cossim", {"source": SOURCE, "index": 7, "numResults": 12}) == got
    assert len(ask(daemon, NEAR, {**body, "numResults": 5000})["topkDecoderCossimFeatures"]) == 96
    vector = np.cos(np.arange(48))
    got = ask(daemon, NEAR, {**body, "feature": None, "vector": vector.tolist()})
    order, cosines = neighbours(vector, 12)
    assert got["feature"] is None and [row["feature"]["index"] for row in got["topkDecoderCossimFeatures"]] == order
    assert [row["cosineSimilarity"] for row in got["topkDecoderCossimFeatures"]] == pytest.approx(cosines, **CLOSE)
    # A feature of another source is sought by its own row.
    other = ask(daemon, NEAR, {**body, "feature": {"source": "2-res-jump", "index": 7}, "numResults": 3})
    row = read_tensors(VECTORS / MODEL / "sources" / "2-res-jump" / "sae_weights.safetensors")["W_dec"][7].astype(np.float64)
    assert [r["feature"]["index"] for r in other["topkDecoderCossimFeatures"]] == neighbours(row, 3)[0]


def test_neighbours_refused(daemon):
    body = {"model": MODEL, "source": SOURCE, "feature": {"model": MODEL, "source": SOURCE, "index": 7}, "numResults": 3}
    for change, status, field in [({"vector": [1]}, 400, "vector"), ({"feature": None}, 400, "feature"), ({"source": "9-no"}, 404, "source"),
                                  ({"feature": None, "vector": [1, 2]}, 400, "vector"), ({"numResults": 0}, 400, "numResults"),
                                  ({"feature": {"source": SOURCE, "index": 96}}, 404, "feature.index"),
                                  ({"feature": {"source": "9-no", "index": 9}}, 404, "feature.source")]:
        refused(daemon, NEAR, {**body, **change}, status, field)


@pytest.mark.parametrize("path", ["/v1/util/similarity-matrix-pred", "/api/similarity-matrix-pred"])
def test_nothing_predicts(daemon, path):
    body = {"modelId": MODEL, "sourceId": SOURCE, "index": 3, "text": "so it goes"}
    refused(daemon, path, body, 400, "sourceId", "not temporal", "relu")
    refused(daemon, path, {**body, "sourceId": "9-no"}, 404, "sourceId")
    refused(daemon, path, {**body, "index": 96}, 404, "index")
    refused(daemon, path, {**body, "text": None}, 400, "text")
