"""Files of directions over HTTP (tests/vectors/control-vectors, which gguf, numpy and safetensors wrote): kept under a label, steered with
by that label, and given back as a GGUF control vector."""
import struct

import numpy as np
import pytest

from conftest import MODEL, VECTORS

FILES = VECTORS / "control-vectors"
PROMPT = {"prompt": "the ship", "max_tokens": 16, "temperature": 0}


def direction(layer):
    """As make_control_vectors.py makes them."""
    return [((7 * c + layer) % 13 - 6) / 4 for c in range(48)]


def upload(daemon, name, label, status=200, **more):
    data = (FILES / name).read_bytes() if isinstance(name, str) else name
    reply = daemon.client.post("/api/vector/upload", params={"modelId": MODEL, "vectorLabel": label, **more.pop("params", {})}, data=data, **more)
    assert reply.status_code == status, reply.text
    return reply.json()


def completion(daemon, status=200, **steering):
    reply = daemon.post("/v1/completions", {**PROMPT, "steering": steering})
    assert reply.status_code == status, reply.text
    return reply.json()["choices"][0]["text"] if status == 200 else reply.json()["error"]


def download(daemon, label):
    return daemon.get("/api/vector/download", params={"modelId": MODEL, "vectorLabel": label})


@pytest.mark.parametrize("name, points", [
    ("layers.gguf", {"blocks.1.hook_resid_post": 1, "blocks.2.hook_resid_post": 2}),
    ("half.gguf", {"blocks.1.hook_resid_post": 1, "blocks.2.hook_resid_post": 2}),
    ("named.safetensors", {"blocks.1.hook_resid_pre": 1, "blocks.2.hook_resid_post": 2}),
    ("named.npz", {"blocks.1.hook_resid_pre": 1, "blocks.2.hook_resid_post": 2})])
def test_a_file_steers_as_its_vectors_do(daemon, name, points):
    kept = upload(daemon, name, f"of {name}", params={"vectorDefaultSteerStrength": 1.5})
    assert kept["format"] == name.rsplit(".", 1)[1] and kept["modelHint"] == ("gpt2" if name == "layers.gguf" else None)
    assert {row["hookName"] for row in kept["vectors"]} == set(points)
    for row in kept["vectors"]:
        got = daemon.post("/api/vector/get", {"modelId": MODEL, "source": row["source"], "index": row["index"]}).json()["vector"]
        assert got["vector"] == direction(points[row["hookName"]]) and got["vectorLabel"] == f"of {name}"
        assert got["vectorDefaultSteerStrength"] == 1.5
        assert row["length"] == pytest.approx(np.linalg.norm(got["vector"]), rel=1e-6)  # one rounding to f32
    by_label = completion(daemon, vectors=[{"label": f"of {name}", "strength": 3}])
    given = [{"point": point, "vector": direction(layer), "strength": 3} for point, layer in points.items()]
    assert by_label == completion(daemon, vectors=given) != completion(daemon)
    assert by_label != completion(daemon, vectors=given[:1])  # or one of them alone would do
    # What the reply tells to steer with is what /steer takes; 1.5 twice is 3.
    steered = daemon.post("/steer", {"prompt": "the ship", "modelId": MODEL, "features": kept["features"], "n_tokens": 16, "temperature": 0,
                                     "strength_multiplier": 2, "types": ["STEERED"]}).json()
    assert steered["STEERED"] == "the ship" + by_label


def test_download_is_a_gguf_file(daemon):
    upload(daemon, "layers.gguf", "there")
    reply = download(daemon, "there")
    assert reply.status_code == 200 and reply.headers["Content-Type"] == "application/octet-stream"
    assert "control_vector.gguf" in reply.headers["Content-Disposition"]
    assert reply.content.startswith(b"GGUF" + struct.pack("<IQQ", 3, 2, 3))  # version 3, two tensors, three facts
    for layer in (1, 2):
        assert np.float32(direction(layer)).tobytes() in reply.content
    back = upload(daemon, reply.content, "and back")
    assert back["modelHint"] == "gpt2" and [row["hookName"] for row in back["vectors"]] == ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
    assert completion(daemon, vectors=[{"label": "and back", "strength": 3}]) == completion(daemon, vectors=[{"label": "there", "strength": 3}])
    # resid_pre of layer 1 is behind layer 0, where llama.cpp adds nothing.
    upload(daemon, "named.npz", "too early")
    refused = download(daemon, "too early")
    assert refused.status_code == 400 and "behind layer 1" in refused.json()["error"]


def test_refusals(daemon):
    upload(daemon, "layers.gguf", "once")
    again = upload(daemon, "layers.gguf", "once", 409)
    assert (again["code"], again["field"]) == ("conflict", "vectorLabel") and "2 vectors labelled 'once'" in again["error"]
    for body, text in ((b"", "0 bytes"), (b'{"vector": [1]}', "begin like none of these"),
                       ((FILES / "layers.gguf").read_bytes()[:-4], "direction.2"), (b"GGUF" + struct.pack("<IQQ", 1, 1, 1), "version 1")):
        refused = upload(daemon, body, "never", 400)
        assert refused["field"] == "body" and text in refused["error"], refused
    assert download(daemon, "never").status_code == 404  # nothing was kept of them
    missing = daemon.client.post("/api/vector/upload", params={"modelId": MODEL}, data=b"x")
    assert missing.status_code == 400 and missing.json()["field"] == "vectorLabel"
    # A page may not send a file without asking first (the type is none of a form's).
    page = {"Origin": daemon.url, "Content-Type": "text/plain"}
    assert upload(daemon, "layers.gguf", "of a page", 415, headers=page)["code"] == "content_type"
    upload(daemon, "layers.gguf", "of a page", headers={**page, "Content-Type": "application/octet-stream"})
    error = completion(daemon, 404, vectors=[{"label": "none"}])
    assert error["param"] == "steering.vectors[0].label" and "no vectors labelled 'none'" in error["message"]
    assert completion(daemon, 400, vectors=[{"label": "once", "point": "resid_pre.1"}])["param"] == "steering.vectors[0].label"
    assert completion(daemon, 400, vectors=[{"point": "resid_pre.1"}])["param"] == "steering.vectors[0].vector"
    assert completion(daemon, 400, vectors=[{"strength": 1}])["param"] == "steering.vectors[0].point"
    many = completion(daemon, 400, vectors=[{"label": "once"}] * 129)
    assert many["param"] == "steering.vectors" and "256" in many["message"]


def test_without_a_store(start_daemon):
    daemon = start_daemon(store="")
    assert upload(daemon, "layers.gguf", "nowhere", 501)["code"] == "unsupported"
    assert completion(daemon, 501, vectors=[{"label": "nowhere"}])["code"] == "unsupported"
