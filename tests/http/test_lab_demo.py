"""The laboratory on the demo: splices of its transcoder beside NumPy, and edits in units of the stored maximum."""
import json
import pathlib
import socket
import struct
import time

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


def test_a_feature_is_put_to_the_mean_of_its_statistics(demo):
    """over: corpus without texts: the mean over all counted positions, those included where the feature is silent."""
    source, index = "2-res-demo", 1890
    model = demo.get("/models").json()["models"][0]["id"]
    stored = demo.get(f"/feature/{model}/{source}/{index}").json()
    mean = stored["mean"] * stored["n_fired"] / stored["n_tokens"]
    assert 0 < mean < stored["mean"] < stored["maxActApprox"]
    losses = lambda *edits: demo.post("/v1/lab/run", {"text": TEXT, "loss": True, "edits": list(edits)}).json()["tokenLosses"]
    feature = {"source": source, "index": index}
    put = losses({"op": "mean", **feature, "over": "corpus"})
    agrees(put, losses({"op": "clamp", **feature, "value": mean}))
    assert put not in (losses(), losses({"op": "ablate", **feature}))


LONG = [{"text": [TEXT * 5] * 20, "points": ["blocks.*"], "loss": True},
        {"text": [TEXT * 5] * 20, "loss": True, "edits": [{"op": "mean", "point": "z.3", "texts": [TEXT * 4] * 20}]}]


@pytest.mark.parametrize("verb, tasks, body", [
    ("heads", 1, {"batch": 1000, "length": 100}), ("run", 1, LONG[0]), ("run", 2, LONG[1]),
    ("lens", 2, {"text": [TEXT * 4] * 20, "topK": 20}),
    ("patch", 2, {"clean": {"text": TEXT * 4}, "corrupted": {"text": TEXT.replace("girl", "boy") * 4}, "answers": ["girl", "boy"]}),
])
def test_a_client_that_leaves_stops_its_work(demo, verb, tasks, body):
    """Requests of many seconds end within a step or a slice once nobody waits for them. tasks: what the engine is given in turn
    when nobody leaves; between two of them the next is not handed over, and nothing is there to be cancelled."""
    count = lambda: {k.removeprefix("steerd_"): float(v) for k, v in (line.split() for line in demo.get("/metrics").text.splitlines()
                                                                      if line.startswith(("steerd_engine_", "steerd_s")))}
    raw, before = json.dumps(body).encode(), count()
    with socket.create_connection(("127.0.0.1", demo.port)) as s:
        s.sendall(b"POST /v1/lab/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (verb.encode(), len(raw)) + raw)
        time.sleep(0.1)
    end, now, last = time.monotonic() + 10, count(), None  # far beyond a step on a busy machine
    while (now != last or now["sessions_running"]) and time.monotonic() < end:  # one step may take longer than a look
        time.sleep(0.3)
        last, now = now, count()
    change = {k: now[k] - before[k] for k in now}
    assert now["sessions_running"] == 0 and change["steps_total"] > 0 and now == last, (now, last)
    assert change["engine_done_total"] < tasks and change["engine_failed_total"] == 0, change
    assert demo.post("/v1/lab/run", {"text": TEXT, "loss": True}).status_code == 200
