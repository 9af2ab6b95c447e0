"""The laboratory on the demo: splices of its transcoder beside NumPy, and edits in units of the stored maximum."""
import json
import pathlib
import struct

import numpy as np
import pytest
import requests

from conftest import Daemon
from twin import agrees

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "config" / "demo" / "sources" / "2-tc-demo"
TEXT = "Once upon a time, there was a little girl named Lily. She had a big red ball."
IN, OUT = "blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out"


@pytest.fixture(scope="module")
def demo():
    one = Daemon()
    yield one
    one.finish()


@pytest.fixture(scope="module")
def weights():
    """The transcoder's weights; a bfloat16 is the upper half of a float32."""
    raw = (FOLDER / "sae_weights.safetensors").read_bytes()
    at = 8 + struct.unpack("<Q", raw[:8])[0]
    rows = {k: v for k, v in json.loads(raw[8:at]).items() if k != "__metadata__"}
    assert all(row["dtype"] == "BF16" for row in rows.values())
    halves = {name: np.frombuffer(raw[at + row["data_offsets"][0]:at + row["data_offsets"][1]], "<u2").reshape(row["shape"])
              for name, row in rows.items()}
    return {name: (half.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for name, half in halves.items()}


def run(demo, edits=()):
    reply = demo.post("/v1/lab/run", {"text": TEXT, "points": [IN, OUT], "edits": list(edits), "loss": True})
    assert reply.status_code == 200, reply.text
    got = reply.json()
    return np.array(got["activations"][IN]), np.array(got["activations"][OUT]), got


def encode(w, x):
    p = x @ w["W_enc"] + w["b_enc"]
    kept = np.zeros_like(p)
    for row, out in zip(p, kept):
        best = np.argsort(-row, kind="stable")[:24]
        out[best] = np.maximum(row[best], 0)
    return kept


def test_a_transcoder_is_read_at_one_point_and_written_at_another(demo, weights):
    x, y, plain = run(demo)
    acts = encode(weights, x)
    feature = int(acts[1:].sum(0).argmax())
    norm = np.linalg.norm(weights["W_dec"][feature])
    changed = acts.copy()
    changed[:, feature] = 2.5 / norm  # 2.5 in folded units
    for error, want in ((False, changed @ weights["W_dec"] + weights["b_dec"]), (True, y + (changed - acts) @ weights["W_dec"])):
        edit = {"op": "clamp", "source": "2-tc-demo", "index": feature, "value": 2.5, "includeError": error}
        same_x, got, after = run(demo, [edit])
        assert (same_x == x).all()  # the input point is read, not written
        agrees(got, want)
        assert after["loss"] != plain["loss"]
    agrees(run(demo, [{"op": "splice", "source": "2-tc-demo", "includeError": False}])[1], acts @ weights["W_dec"] + weights["b_dec"])
    assert run(demo, [{"op": "splice", "source": "2-tc-demo"}])[2] == plain


def test_values_count_in_the_stored_maximum(demo):
    known = requests.get(demo.url + "/feature/demo/2-res-demo/1890", timeout=60).json()
    edit = {"op": "clamp", "source": "2-res-demo", "index": 1890}
    half = run(demo, [{**edit, "value": 0.5, "unit": "max"}])[2]
    raw = run(demo, [{**edit, "value": 0.5 * known["maxActApprox"]}])[2]
    # The maximum is told as the float32 it is stored as, and its half is exact.
    assert half == raw != run(demo)[2]
    add = {"op": "add", "source": "2-res-demo", "index": 1890}
    assert run(demo, [{**add, "strength": 2, "unit": "max"}])[2] == run(demo, [{**add, "strength": 2 * known["maxActApprox"]}])[2]
