"""Training over HTTP and from the command line: a dictionary that is made beside what is served, lands where the settings say, is loaded and
answers; the command line makes the same bytes."""
import os
import time

import numpy as np
import pytest

from conftest import MODEL, VECTORS, events_of, run_steerd
from tensors import read_tensors

FOLDER = VECTORS / MODEL
SMALL = {"modelId": MODEL, "point": "resid_pre.1", "corpus": str(FOLDER / "corpus.txt"), "lines": True, "features": 96, "k": 8, "batch": 64,
         "steps": 300, "buffer": 1024, "seed": 3}
FLAGS = ["--corpus", SMALL["corpus"], "--lines", "--features", "96", "--k", "8", "--batch", "64", "--steps", "300", "--buffer", "1024", "--seed", "3",
         "--model", f"{MODEL}={FOLDER / 'model'}"]
JOB_SECONDS = 300  # a sanitizer build on a busy machine is slow


@pytest.fixture
def trained(start_daemon, tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    return folder, start_daemon(models={MODEL: FOLDER / "model"}, store=str(tmp_path / "s.sqlite"), source_folders=str(folder))


def start(daemon, **more):
    return daemon.post("/v1/jobs", {"kind": "train", **SMALL, **more})


def wait(daemon, number):
    end = time.monotonic() + JOB_SECONDS
    while (job := daemon.get(f"/v1/jobs/{number}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return job


def test_a_dictionary_is_trained_loaded_and_asked(trained, tmp_path):
    folder, daemon = trained
    first = start(daemon, out="mine")
    assert first.status_code == 200, first.text
    job = wait(daemon, first.json()["id"])
    assert job["state"] == "done", job
    result = job["result"]
    assert (job["done"], job["total"], job["unit"]) == (300, 300, "steps")
    assert result["path"] == "mine" and result["layer"] == 1 and result["features"] == 96 and result["tokens"] == 300 * 64
    assert 0 < result["explainedVariance"] < 1 and 0 < result["l0"] <= 8 and result["heldOutTokens"] > 50
    assert sorted(os.listdir(folder / "mine")) == ["cfg.json", "sae_weights.safetensors"]
    # The same dictionary, by its numbers: the k largest of p, which steerd serves in units of decoder rows of length 1.
    assert daemon.post("/v1/sources", {"modelId": MODEL, "source": "1-mine", "path": "mine"}).status_code == 201
    weights = read_tensors(folder / "mine" / "sae_weights.safetensors")
    text = "The ferry left at six."
    run = daemon.post("/v1/lab/run", {"modelId": MODEL, "text": text, "points": ["blocks.1.hook_resid_pre"]})
    answer = daemon.post("/activations", {"modelId": MODEL, "text": text, "source": "1-mine"})
    assert run.status_code == 200 and answer.status_code == 200, (run.text, answer.text)
    assert np.allclose(np.linalg.norm(weights["W_dec"], axis=1), 1, atol=1e-5)  # float32
    x = np.array(run.json()["activations"]["blocks.1.hook_resid_pre"])
    p = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    for row, want in zip(answer.json()["results"], p[1:], strict=True):  # without BOS
        for feature in row["topFeatures"]:
            assert feature["activationValue"] == pytest.approx(want[feature["featureIndex"]], rel=1e-3, abs=1e-4)  # float32 sums of 48 terms
        assert row["topFeatures"][0]["featureIndex"] == np.argmax(want)
    # And from the command line: the same bytes.
    status, out, err = run_steerd("train", MODEL, "resid_pre.1", "--out", str(tmp_path / "again"), *FLAGS, seconds=JOB_SECONDS)
    assert status == 0, err
    assert "over " in out and "--source " in out and f"{MODEL}/1-topk={tmp_path / 'again'}" in out
    assert "loss" in err and "L0" in err and "explained" in err
    name = "sae_weights.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (folder / "mine" / name).read_bytes()


def test_cancelled_it_goes_on_and_tells_how_it_does(trained):
    folder, daemon = trained
    number = start(daemon, out="long", steps=100000).json()["id"]
    end = time.monotonic() + JOB_SECONDS
    while not (job := daemon.get(f"/v1/jobs/{number}").json()).get("training"):
        assert time.monotonic() < end and job["state"] in ("queued", "running"), job
        time.sleep(0.01)
    now = job["training"]
    assert set(now) == {"loss", "mse", "sparsity", "aux", "l0", "explainedVariance", "dead", "features", "tokens"}
    assert now["features"] == 96 and now["l0"] <= 8 and now["loss"] == pytest.approx(now["mse"] + now["sparsity"] + now["aux"])
    assert daemon.client.request("DELETE", f"/v1/jobs/{number}").status_code == 200
    job = wait(daemon, number)
    assert job["state"] == "cancelled" and job["resumable"] and 0 < job["done"] < 100000
    assert os.listdir(folder / "long") == ["training"]
    assert daemon.post(f"/v1/jobs/{number}/resume", {}).status_code == 200
    while daemon.get(f"/v1/jobs/{number}").json()["done"] <= job["done"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    daemon.client.request("DELETE", f"/v1/jobs/{number}")
    events = list(events_of(daemon.get(f"/v1/jobs/{number}/events").text))
    assert events[-1]["state"] == "cancelled"


def test_streams_go_on_beside_it(trained):
    _, daemon = trained
    number = start(daemon, out="beside", steps=100000, features=2000).json()["id"]
    while not daemon.get(f"/v1/jobs/{number}").json().get("training"):
        time.sleep(0.01)
    reply = daemon.post("/v1/completions", {"model": MODEL, "prompt": "The ferry", "max_tokens": 20})
    assert reply.status_code == 200, reply.text
    assert daemon.get(f"/v1/jobs/{number}").json()["state"] == "running"
    daemon.client.request("DELETE", f"/v1/jobs/{number}")
    assert wait(daemon, number)["state"] == "cancelled"


def test_refusals(trained, daemon):
    folder, mine = trained
    (folder / "other").mkdir()
    (folder / "other" / "letter.txt").write_text("mine")
    for change, status, field in (({"out": "../up"}, 400, "out"), ({"out": "/tmp/x"}, 400, "out"), ({"out": "other"}, 409, "out"),
                                  ({"out": "a", "k": 97}, 400, "k"), ({"out": "a", "point": "resid_pre.9"}, 400, None),
                                  ({"out": "a", "corpus": "/none"}, 404, "corpus"), ({"out": "a", "architecture": "gated"}, 400, "architecture"),
                                  ({"out": "a", "steps": 0}, 400, "steps"), ({"out": "a", "expansion": 2}, 400, "expansion"),
                                  ({"out": "a", "nTop": 2}, 400, "nTop"), ({"out": "a", "source": "1-x"}, 400, "source"),
                                  ({"out": "a", "buffer": 3}, 400, "buffer"), ({"out": "a", "rate": 0}, 400, "rate"),
                                  ({"out": "a", "l1": 1}, 400, "l1"), ({"out": "a", "l1WarmUp": 0}, 400, "l1WarmUp"),
                                  ({"out": "a", "architecture": "relu"}, 400, "k"), ({"out": "a", "warmUp": 301}, 400, "warmUp"),
                                  ({"out": "a", "architecture": "batchtopk", "l1": 1}, 400, "l1")):
        reply = start(mine, **change)
        assert reply.status_code == status, (change, reply.text)
        assert field is None or reply.json()["field"] == field, (change, reply.text)
    relu = {name: value for name, value in SMALL.items() if name != "k"} | {"kind": "train", "architecture": "relu", "out": "a"}
    for name in ("aux", "deadAfter"):
        reply = mine.post("/v1/jobs", {**relu, name: 1})
        assert reply.status_code == 400 and reply.json()["field"] == name, reply.text
        assert reply.json()["error"].startswith(f"{name} is an option of topk and batchtopk, not of relu"), reply.text
    assert sorted(os.listdir(folder)) == ["other"]
    reply = start(daemon, out="a")  # no folder is set there
    assert reply.status_code == 501 and "source_folders" in reply.json()["error"]


def test_refusals_of_the_command_line(tmp_path):
    out = ["--out", str(tmp_path / "o")]
    missing = ["--model", "nothing=/there/is/no/such/model"]  # refused before it is looked for
    for flags, text in ((["--kind", "topkk"], "did you mean 'topk'"), (["--k", "97"], "--k is 97, but there are only 96 features"),
                        (["--expansion", "2"], "--expansion and features say the same"), (["--tokns", "5"], "did you mean '--tokens'"),
                        (["--rate", "fast"], "--rate: 'fast' is not a number"), (["--lr", "0"], "--lr: '0' is not a number"),
                        (["--l1", "1"], "--l1 is an option of relu, not of topk"), (["--l1-warm-up=1"], "--l1-warm-up is an option of relu"),
                        (["--kind", "relu"], "--k is an option of topk and batchtopk"), (["--warm-up", "301"], "--warm-up is 301, but"),
                        (["--corpus", "/none"], "--corpus '/none' is not a file")):
        status, _, err = run_steerd("train", MODEL, "resid_pre.1", *out, *FLAGS, *missing, *flags)
        assert status != 0 and text in err, (flags, err)
    status, _, err = run_steerd("train", MODEL, "resid_pre.1", *out, *FLAGS, "--context", "161")  # what the model has is the model's
    assert status != 0 and "--context is 161, allowed are 8 to 160" in err, err
    status, _, err = run_steerd("train", MODEL, "resid_pre.1", *FLAGS)
    assert status != 0 and "--out FOLDER" in err
    status, _, err = run_steerd("train", MODEL, *FLAGS, *out)
    assert status != 0 and "MODEL, POINT" in err
    assert not (tmp_path / "o").exists()
