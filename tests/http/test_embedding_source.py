"""A dictionary of Gemma's embedding (tests/vectors/dict-embed) over HTTP: activations, edits and steering at hook_embed, beside
what transformers gave."""
import json
import shutil

import numpy as np
import pytest

from conftest import VECTORS
from tensors import read_tensors

HERE = VECTORS / "dict-embed"
SOURCE = "e-gemmascope-res-4k"
FOLDER = HERE / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6"


@pytest.fixture(scope="module")
def said():
    return json.loads((HERE / "expected.json").read_text())


@pytest.fixture(scope="module")
def recorded():
    return {name: tensor.astype(np.float64) for name, tensor in read_tensors(HERE / "expected.safetensors").items()}


@pytest.fixture
def daemon(start_daemon, tmp_path):
    shutil.copytree(VECTORS / "families" / "gemma2", tmp_path / "gemma-2-2b")
    shutil.copy(HERE / "tokenizer.json", tmp_path / "gemma-2-2b")
    return start_daemon(["--model", f"gemma-2-2b={tmp_path / 'gemma-2-2b'}", "--source", f"gemma-2-2b/{SOURCE}={FOLDER}"])


def agrees(got, want):
    # decision 18: 1e-4 of the larger of 1 and the root mean square
    assert np.abs(np.asarray(got) - want).max() <= 1e-4 * max(1, np.sqrt((want ** 2).mean()))


def test_activations(daemon, said, recorded):
    reply = daemon.post("/activations", {"source": SOURCE, "text": said["text"], "index": said["feature"]})
    assert reply.status_code == 200, reply.text
    agrees(reply.json()["values"], recorded["features"][1:, said["feature"]])  # BOS is not counted


@pytest.mark.parametrize("name, edits", [
    ("raw", []),
    ("raw", [{"op": "splice"}]),
    ("spliced", [{"op": "splice", "includeError": False, "special": False}]),
    ("ablated", [{"op": "ablate"}]),
])
def test_edits_of_the_embedding(daemon, said, recorded, name, edits):
    edits = [{"source": SOURCE, **({"index": said["feature"]} if e["op"] == "ablate" else {}), **e} for e in edits]
    reply = daemon.post("/v1/lab/run", {"tokens": said["ids"], "edits": edits, "topK": 20})
    assert reply.status_code == 200, reply.text
    logits = recorded["logits_" + name]
    for row, top in zip(logits, reply.json()["top"]):
        order = np.argsort(-row)[:20]
        agrees([t["logit"] for t in top], row[order])


def test_steering(daemon, said):
    body = {"modelId": "gemma-2-2b", "prompt": said["text"], "temperature": 0, "n_tokens": len(said["raw"]), "freq_penalty": 0, "seed": 1,
            "strength_multiplier": 1, "features": [{"modelId": "gemma-2-2b", "layer": SOURCE, "index": said["feature"],
                                                    "strength": said["strength"]}]}
    reply = daemon.post("/api/steer", body)
    assert reply.status_code == 200, reply.text
    pieces = {i: t for t, i in json.loads((HERE / "tokenizer.json").read_text())["model"]["vocab"].items()}

    def text(ids):
        return "".join(pieces[i] for i in ids).replace("\u2581", " ")

    assert reply.json()["DEFAULT"].endswith(text(said["raw"])), (reply.json(), text(said["raw"]))
    assert reply.json()["STEERED"].endswith(text(said["steered"])), (reply.json(), text(said["steered"]))


def test_a_feature_page_has_its_logits(daemon, said):
    reply = daemon.get(f"/api/feature/gemma-2-2b/{SOURCE}/{said['feature']}")
    assert reply.status_code == 200, reply.text
    assert reply.json()["pos_str"] and reply.json()["neg_str"]
