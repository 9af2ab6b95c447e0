"""The inference server's routes on real models: villes with its published dictionary, whose <SOS> counts, and stories260K, a Llama whose
heads share keys and values. Numbers beside the other routes', whose own tests hold them against independent ones."""
import os
import pathlib

import numpy as np
import pytest

from conftest import ROOT
from test_inference import ask

DATA = pathlib.Path(os.environ.get("STEERD_DATA", ROOT.parent / "shared" / "data"))
VILLES, STORIES = DATA / "models" / "villes", DATA / "models" / "stories260K" / "hf"
INI = ROOT / "config" / "models" / "villes.ini"
TEXT = "Once upon a time, there was a little girl"
needs_villes = pytest.mark.skipif(not VILLES.is_dir(), reason="skip: the inference server's routes on villes (set STEERD_DATA)")
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason="skip: the inference server's routes on stories260K (set STEERD_DATA)")


@pytest.fixture(scope="module")
def villes():
    from conftest import Daemon
    one = Daemon(["--model", f"villes={INI}", "--source", f"villes/0-res-ws={INI}"])
    yield one
    one.finish()


@pytest.fixture(scope="module")
def stories():
    from conftest import Daemon
    one = Daemon(["--model", f"stories={STORIES}"])
    yield one
    one.finish()


@needs_villes
def test_activations(villes):
    single = ask(villes, "/v1/activation/single", {"prompt": "paris", "source": "0-res-ws", "index": "3"})
    assert single["tokens"] == list("paris") and len(single["activation"]["values"]) == 5
    body = {"prompt": "paris", "sourceSet": "res-ws", "numResults": 128}
    shown = ask(villes, "/v1/activation/all", {**body, "ignoreBos": False})
    hidden = ask(villes, "/v1/activation/all", {**body, "ignoreBos": True})
    values = {row["index"]: row["values"] for row in shown["activations"]}
    assert len(values) == 128 and any(row[0] > 0 for row in values.values())
    for row in hidden["activations"]:
        assert row["values"][0] == 0 and row["values"][1:] == values[row["index"]][1:]
    found = ask(villes, "/api/search-all", {"text": "paris", "sourceSet": "res-ws"})["result"]
    assert [row["values"] for row in found[:9]] == [row["values"] for row in shown["activations"][:9]]
    by_token = ask(villes, "/v1/activation/topk-by-token", {"prompt": "paris", "source": "0-res-ws", "topK": 4, "ignoreBos": False})
    assert len(by_token["results"]) == 6 and by_token["results"][0]["isSpecial"]
    for row in by_token["results"]:
        top = row["topFeatures"][0]
        assert values[top["featureIndex"]][row["tokenPosition"]] == top["activationValue"]
    fires = ask(villes, "/v1/activation/source", {"prompts": ["paris"], "source": "0-res-ws"})["results"][0]["activeFeatures"]
    assert fires == {str(f): [[t, v] for t, v in enumerate(row) if t and v > 0] for f, row in sorted(values.items()) if any(v > 0 for v in row[1:])}


@needs_villes
def test_steering(villes):
    features = [{"source": "0-res-ws", "index": 29, "strength": 6}]
    got = ask(villes, "/v1/steer/completion", {"prompt": "par", "features": features, "nCompletionTokens": 8, "temperature": 0})["outputs"]
    want = ask(villes, "/api/steer", {"prompt": "par", "features": [{"layer": "0-res-ws", "index": 29, "strength": 6}],
                                     "n_tokens": 8, "temperature": 0, "include_prompt": False})
    assert got == [{"output": want["STEERED"], "type": "STEERED"}, {"output": want["DEFAULT"], "type": "DEFAULT"}]


@needs_villes
def test_vectors(villes):
    row = ask(villes, "/v1/util/sae-vector", {"source": "0-res-ws", "index": 29})
    assert np.linalg.norm(row["vector"]) == pytest.approx(1, abs=1e-6) and len(row["encoderVector"]) == 32
    near = ask(villes, "/v1/util/sae-topk-by-decoder-cossim", {"source": "0-res-ws", "vector": row["vector"], "numResults": 11})
    feature = villes.get("/api/feature/villes/0-res-ws/29").json()
    assert [n["feature"]["index"] for n in near["topkDecoderCossimFeatures"]] == [29] + feature["topkCosSimIndices"]


@needs_stories
def test_rows_and_patterns(stories):
    raw = ask(stories, "/v1/activation/raw", {"prompts": [TEXT, "The end"], "layers": [4]})["results"]
    run = ask(stories, "/v1/lab/run", {"text": [TEXT, "The end"], "points": ["resid_post.4"], "positions": [-1]})["results"]
    assert [r["activations"][0]["values"] for r in raw] == [r["activations"]["blocks.4.hook_resid_post"] for r in run]
    pattern = np.array(ask(stories, "/v1/lab/run", {"text": TEXT, "points": ["pattern.3"], "heads": [7]})["activations"]["blocks.3.attn.hook_pattern"])[:, 0]
    got = ask(stories, "/v1/activation/attention", {"prompt": TEXT, "layer": 3, "head": 7})
    n = got["seqLen"]
    assert n == len(pattern) and got["attentionValues"] == [pattern[i // n, i % n] for i in got["attentionIndices"]]
    assert got["maxActivation"] == pattern[1:, 1:].max()
    assert all(sum(i // n == q for i in got["attentionIndices"]) == min(8, (row >= 0.005).sum()) for q, row in enumerate(pattern))


@needs_stories
def test_lens(stories):
    got = ask(stories, "/v1/lens/prompt", {"prompt": TEXT, "numCompletionTokens": 20, "temperature": 0, "topN": 1, "layers": [1],
                                           "filterNonWordTokens": False, "stream": False})
    want = ask(stories, "/v1/steer/completion", {"prompt": TEXT, "types": ["DEFAULT"], "nCompletionTokens": 20, "temperature": 0})
    assert got["done"]["completion"] == want["outputs"][0]["output"]
    last = [token["results"][0]["top_tokens"][1][0] for token in got["tokens"]]
    start = got["done"]["prompt_len"]
    assert last[start - 1:-1] == [token["token"] for token in got["tokens"][start:]]
    words = ask(stories, "/v1/lens/prompt", {"prompt": TEXT, "topN": 5, "stream": False})
    shown = {name for token in words["tokens"] for layer in token["results"][0]["top_tokens"][:-1] for name in layer}
    assert shown and all(all(c.isalnum() or c in "'-\u2019" for c in name.strip()) for name in shown)
