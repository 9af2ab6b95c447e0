"""Training over HTTP and from the command line: a dictionary that is made beside what is served, lands where the settings say, is loaded and
answers; the command line makes the same bytes."""
import os
import signal
import subprocess
import time

import numpy as np
import pytest

from conftest import MODEL, VECTORS, binary, events_of, run_steerd
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
    return daemon.post("/v1/jobs", {name: value for name, value in {"kind": "train", **SMALL, **more}.items() if value is not None})


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


IN_OUT = ("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out")


def of_rows(weights, x):
    """What a transcoder makes of rows: its activations, and the rows of its other point."""
    codes = x @ weights["W_enc"] + weights["b_enc"]
    codes *= codes > weights["threshold"]
    return codes, codes @ weights["W_dec"] + weights["b_dec"]


def test_a_transcoder_reads_one_point_and_makes_another(trained, tmp_path):
    folder, daemon = trained
    job = wait(daemon, start(daemon, out="tc", architecture="batchtopk", steps=600, point=IN_OUT[0], to=IN_OUT[1]).json()["id"])
    assert job["state"] == "done" and job["parameters"]["to"] == IN_OUT[1], job
    assert 0.5 < job["result"]["explainedVariance"] < 1, job  # a mean explains 0; measured 0.71
    weights = read_tensors(folder / "tc" / "sae_weights.safetensors")
    assert daemon.post("/v1/sources", {"modelId": MODEL, "source": "1-tc", "path": "tc"}).status_code == 201
    told = run_steerd("inspect", str(folder / "tc"))[1]
    assert "jumprelu transcoder of 96 features" in told and all(name in told for name in IN_OUT), told
    text = "The ferry left at six."
    run = daemon.post("/v1/lab/run", {"modelId": MODEL, "text": text, "points": list(IN_OUT)}).json()
    x, y = (np.array(run["activations"][name]) for name in IN_OUT)
    codes, made = of_rows(weights, x)
    answer = daemon.post("/activations", {"modelId": MODEL, "text": text, "source": "1-tc"})
    for row, want in zip(answer.json()["results"], codes[1:], strict=True):  # without BOS
        for feature in row["topFeatures"]:
            assert feature["activationValue"] == pytest.approx(want[feature["featureIndex"]], rel=1e-3, abs=1e-4)  # float32 sums of 48 terms
    # What it makes is nearer to what the MLP makes than the mean is, and a splice puts exactly that there.
    assert ((made - y)[1:] ** 2).sum() < ((y[1:] - y[1:].mean(0)) ** 2).sum()
    spliced = daemon.post("/v1/lab/run", {"modelId": MODEL, "text": text, "points": [IN_OUT[1]], "edits": [{"op": "splice", "source": "1-tc", "includeError": False}]}).json()
    assert np.allclose(np.array(spliced["activations"][IN_OUT[1]])[1:], made[1:], rtol=1e-3, atol=1e-4)  # as above, 96 terms
    flags = [*FLAGS[:-2], "--steps", "600", "--model", FLAGS[-1]]
    status, out, err = run_steerd("train", MODEL, IN_OUT[0], "--to", IN_OUT[1], "--kind", "batchtopk", "--out", str(tmp_path / "again"), *flags, seconds=JOB_SECONDS)
    assert status == 0 and f"of {IN_OUT[0]} to {IN_OUT[1]}" in out, (out, err)
    name = "sae_weights.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (folder / "tc" / name).read_bytes()


def test_trained_transcoders_make_a_graph(trained):
    """One for each layer's MLP. What they do not explain is in the graph's errors: with hardly a step of training that is nearly all."""
    _, daemon = trained
    replaced = {}
    for name, steps in (("raw", 1), ("good", 600)):
        for layer in range(3):
            job = wait(daemon, start(daemon, out=f"{name}{layer}", steps=steps, rate=1e-6 if steps == 1 else 2e-3, point=f"blocks.{layer}.ln2.hook_normalized",
                                     to=f"blocks.{layer}.hook_mlp_out").json()["id"])
            assert job["state"] == "done", job
            assert daemon.post("/v1/sources", {"modelId": MODEL, "source": f"{layer}-{name}", "path": f"{name}{layer}"}).status_code == 201
        graph = daemon.post("/v1/lab/graph", {"modelId": MODEL, "text": "The ferry left at six.", "sourceSet": name})
        assert graph.status_code == 200, graph.text
        replaced[name] = graph.json()["metadata"]["scores"]["replacement"]
    assert replaced["raw"] + 0.2 < replaced["good"] <= 1, replaced


@pytest.mark.parametrize("point, to, words", [
    ("blocks.1.hook_resid_pre", "resid_pre.1", "the point that is read: leave it out"),
    ("blocks.1.hook_mlp_out", "blocks.1.ln2.hook_normalized", "comes before 'blocks.1.hook_mlp_out'"),
    ("resid_pre.2", "mlp_out.1", "comes before"),
    ("resid_pre.1", "pattern.1", "grows with the text"),
    ("resid_pre.1", "blocks.1.ln2.hook_scale", "are not served"),
    ("resid_pre.1", "mlp_out.99", "layer 99"),
    ("resid_pre.1", "mlp_oot.1", "mlp_out"),
])
def test_refusals_of_what_is_made(trained, point, to, words):
    _, daemon = trained
    refused = start(daemon, out="no", point=point, to=to)
    assert refused.status_code == 400 and refused.json()["field"] == "to" and words in refused.json()["error"], refused.text


def test_what_is_made_is_gone_on_with(trained):
    folder, daemon = trained
    begun = {"out": "tc", "steps": 100000, "point": IN_OUT[0]}
    number = start(daemon, **begun, to=IN_OUT[1]).json()["id"]
    has_begun(daemon, number)
    assert cancel(daemon, number)["resumable"]
    for other, is_now in ((None, "none"), ("resid_post.1", "blocks.1.hook_resid_post")):
        refused = start(daemon, **begun, to=other)
        assert refused.status_code == 409 and refused.json()["field"] == "to", refused.text
        assert f"begun with '{IN_OUT[1]}'" in refused.json()["error"] and is_now in refused.json()["error"]
    assert post_jobs(daemon, number, "/resume").status_code == 200
    has_begun(daemon, number)
    assert cancel(daemon, number)["resumable"]


def test_jumprelu(trained, tmp_path):
    folder, daemon = trained
    jump = {"architecture": "jumprelu", "k": None, "l0Loss": "quadratic", "targetL0": 6, "bandwidth": 0.5, "threshold": 0.1, "steToInput": True, "preAct": 0.01}
    job = wait(daemon, start(daemon, out="jump", **jump).json()["id"])
    assert job["state"] == "done" and 0 < job["result"]["explainedVariance"] < 1, job
    weights = read_tensors(folder / "jump" / "sae_weights.safetensors")
    assert len(set(weights["threshold"])) > 48 and weights["threshold"].min() >= 0  # each feature has learned its own
    assert daemon.post("/v1/sources", {"modelId": MODEL, "source": "1-jump", "path": "jump"}).status_code == 201
    text = "The ferry left at six."
    run = daemon.post("/v1/lab/run", {"modelId": MODEL, "text": text, "points": ["blocks.1.hook_resid_pre"]})
    answer = daemon.post("/activations", {"modelId": MODEL, "text": text, "source": "1-jump"})
    x = np.array(run.json()["activations"]["blocks.1.hook_resid_pre"])
    p = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    p *= p > weights["threshold"]
    for row, want in zip(answer.json()["results"], p[1:], strict=True):  # without BOS
        for feature in row["topFeatures"]:
            assert feature["activationValue"] == pytest.approx(want[feature["featureIndex"]], rel=1e-3, abs=1e-4)  # float32 sums of 48 terms
    flags = [flag for flag in FLAGS if flag not in ("--k", "8")]
    status, out, err = run_steerd("train", MODEL, "resid_pre.1", "--out", str(tmp_path / "again"), *flags, "--kind", "jumprelu", "--l0-loss", "quadratic",
                                  "--target-l0", "6", "--bandwidth", "0.5", "--threshold", "0.1", "--ste-to-input", "--pre-act", "0.01", seconds=JOB_SECONDS)
    assert status == 0, err
    name = "sae_weights.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (folder / "jump" / name).read_bytes()
    status, out, err = run_steerd("eval", MODEL, "1-jump", "--corpus", SMALL["corpus"], "--lines", "--model", f"{MODEL}={FOLDER / 'model'}",
                                  "--source", f"{MODEL}/1-jump={tmp_path / 'again'}", seconds=JOB_SECONDS)
    assert status == 0 and "L0" in out, (out, err)


def test_jumprelu_tells_what_it_takes_and_goes_on_with_that(trained):
    folder, daemon = trained
    plain = {"out": "jump", "architecture": "jumprelu", "k": None, "steps": 100000, "steToInput": True}
    job = start(daemon, **plain).json()
    told, number = job["parameters"], job["id"]
    assert (told["k"], told["aux"], told["l1"], told["deadAfter"], told["l0"], told["l0WarmUp"]) == (None, None, None, 1000, 1, 5000)
    assert (told["l0Loss"], told["targetL0"], told["tanhScale"], told["steToInput"]) == ("step", None, None, True)
    assert (told["threshold"], told["bandwidth"], told["preAct"]) == (0.01, 0.05, 0)
    has_begun(daemon, number)
    assert cancel(daemon, number)["resumable"]
    for change, name, was in (({"steToInput": False}, "steToInput", "steToInput is false, but"), ({"l0Loss": "tanh"}, "l0Loss", "begun with 'step'"),
                              ({"bandwidth": 0.5}, "bandwidth", "begun with 0.05")):
        refused = start(daemon, **plain | change)
        assert refused.status_code == 409 and refused.json()["field"] == name and was in refused.json()["error"], refused.text
    assert post_jobs(daemon, number, "/resume").status_code == 200  # with what is told, nothing of which its own kind refuses
    has_begun(daemon, number)
    assert cancel(daemon, number)["resumable"]
    losses = {"tanh": ("tanhScale", 4), "quadratic": ("targetL0", 12)}
    for loss, (name, value) in losses.items():
        job = start(daemon, **plain | {"out": loss, "l0Loss": loss}).json()
        assert (job["parameters"]["l0Loss"], job["parameters"][name]) == (loss, value), job
        cancel(daemon, job["id"])
        job = start(daemon, **plain | {"out": loss, name: value}).json()  # its option alone says which
        assert (job["parameters"]["l0Loss"], job["parameters"][name]) == (loss, value), job
        cancel(daemon, job["id"])


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


def post_jobs(daemon, number, word=""):
    return daemon.post(f"/v1/jobs/{number}{word}", {})


def cancel(daemon, number):
    assert daemon.client.request("DELETE", f"/v1/jobs/{number}").status_code == 200
    return wait(daemon, number)


def has_begun(daemon, number):
    end = time.monotonic() + JOB_SECONDS
    while not (job := daemon.get(f"/v1/jobs/{number}").json()).get("training"):
        assert time.monotonic() < end and job["state"] in ("queued", "running"), job
        time.sleep(0.01)
    return job


def test_one_job_trains_into_a_folder(trained):
    folder, daemon = trained
    number = start(daemon, out="one", steps=100000).json()["id"]
    has_begun(daemon, number)
    refused = start(daemon, out="one", steps=100000)
    assert refused.status_code == 409 and refused.json()["field"] == "out", refused.text
    assert refused.json()["error"] == f"job {number} is running and trains into 'one' too: wait for it, cancel it, or name another folder"
    queued = start(daemon, out="two")
    assert queued.status_code == 200 and queued.json()["unit"] == "steps", queued.text
    assert start(daemon, out="two", seed=4).json()["field"] == "out"  # queued is enough
    running = post_jobs(daemon, number, "/resume")
    assert running.status_code == 409 and running.json()["error"] == f"job {number} is running: there is nothing to resume"
    other = queued.json()["id"]
    assert cancel(daemon, other)["resumable"]
    third = start(daemon, out="two").json()["id"]  # the name is free again, ...
    refused = post_jobs(daemon, other, "/resume")
    assert refused.status_code == 409 and f"job {third} is queued" in refused.json()["error"]  # ... and taken again
    assert cancel(daemon, number)["resumable"]
    assert wait(daemon, third)["state"] == "done"
    done = post_jobs(daemon, third, "/resume")
    assert done.status_code == 409 and "is done: start a new one" in done.json()["error"]
    assert len(daemon.get("/v1/jobs").json()["jobs"]) == 3  # what was refused is none
    # The first one's state: gone on from by the same settings alone.
    refused = start(daemon, out="one", steps=100000, rate=0.5)
    assert refused.status_code == 409 and refused.json()["field"] == "rate", refused.text
    assert "rate is 0.5, but the training in" in refused.json()["error"] and "was begun with 0.002" in refused.json()["error"]
    # Nor do the command line and a job meet there.
    post_jobs(daemon, number, "/resume")
    has_begun(daemon, number)
    flags = [*FLAGS, "--steps", "100000"]
    status, _, err = run_steerd("train", MODEL, "resid_pre.1", "--out", str(folder / "one"), *flags)
    assert status != 0 and f"is being trained into the folder '{folder / 'one'}' already" in err, err
    cancel(daemon, number)
    process = subprocess.Popen([binary(), "train", MODEL, "resid_pre.1", "--out", str(folder / "one"), *flags], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.find("loss") >= 0:
            break
    refused = post_jobs(daemon, number, "/resume")
    assert refused.status_code == 409 and "is being trained into the folder" in refused.json()["error"], refused.text
    assert start(daemon, out="one", steps=100000).status_code == 409
    process.send_signal(signal.SIGINT)
    assert "is kept in" in process.communicate(timeout=JOB_SECONDS)[1]
    assert process.returncode != 0
    assert daemon.get(f"/v1/jobs/{number}").json()["resumable"]


def test_a_job_tells_what_it_takes(trained):
    _, daemon = trained
    told = start(daemon, out="told", steps=100000).json()["parameters"]
    assert told == {"modelId": MODEL, "point": "resid_pre.1", "to": None, "corpus": SMALL["corpus"], "lines": True, "maxTokens": 0, "out": "told",
                    "architecture": "topk", "features": 96, "expansion": None, "k": 8, "batch": 64, "steps": 100000, "tokens": None, "context": 128,
                    "buffer": 1024, "seed": 3, "rate": pytest.approx(2e-3), "l1": None, "l1WarmUp": None, "aux": 1, "deadAfter": 1000,
                    "warmUp": 1000, "decay": 20000, "checkpoint": None, "l0": None, "l0WarmUp": None, "l0Loss": None, "targetL0": None, "tanhScale": None,
                    "threshold": None, "bandwidth": None, "preAct": None, "steToInput": None}
    plain = {"kind": "train", "modelId": MODEL, "point": "resid_pre.1", "corpus": SMALL["corpus"], "architecture": "relu", "out": "plain", "batch": 64}
    job = daemon.post("/v1/jobs", {**plain, "tokens": 6401, "expansion": 2, "checkpoint": 1.5}).json()
    told = job["parameters"]
    assert (told["features"], told["expansion"], told["steps"], told["tokens"], told["checkpoint"]) == (96, None, 101, None, 1.5)
    assert told["seed"] == 0  # as anybody would write it who wants the same again
    assert (told["k"], told["aux"], told["deadAfter"], told["l1"], told["l1WarmUp"], told["rate"]) == (None, None, None, 5, 5, 3e-4)
    number = daemon.post("/v1/jobs", {**plain, "out": "text", "warmUp": 3}).json()["id"]
    told = daemon.get(f"/v1/jobs/{number}").json()["parameters"]  # the steps are the text's, and what follows from them
    assert (told["features"], told["steps"], told["warmUp"], told["decay"], told["l1WarmUp"]) == (384, None, 3, None, None)
    cancel(daemon, 1)
    job = wait(daemon, job["id"])
    assert (job["state"], job["total"]) == ("done", 101), job
    cancel(daemon, number)


def test_what_can_only_fail_again_is_not_resumable(trained, tmp_path):
    folder, daemon = trained
    number = start(daemon, out="harmed", steps=100000).json()["id"]
    has_begun(daemon, number)
    assert cancel(daemon, number)["resumable"]
    state = folder / "harmed" / "training"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    assert post_jobs(daemon, number, "/resume").status_code == 200
    job = wait(daemon, number)
    assert job["state"] == "failed" and not job["resumable"], job
    assert job["error"].startswith(f"'{state}': this training's state is damaged and nothing goes on from it: remove that file"), job
    assert post_jobs(daemon, number, "/resume").status_code == 409
    short = tmp_path / "short.txt"
    short.write_text("Too short.\n" * 3)
    job = wait(daemon, start(daemon, out="short", corpus=str(short)).json()["id"])
    assert job["state"] == "failed" and "less than a batch of 64" in job["error"] and not job["resumable"], job
    assert "it would fail again on the same" in job["notResumable"] and not (folder / "short").exists()


def test_a_pipe_in_the_place_of_a_state_is_refused(tmp_path):
    """Opening it would wait for somebody who writes, and no signal would end that."""
    (tmp_path / "made").mkdir()
    os.mkfifo(tmp_path / "made" / "training")
    status, out, err = run_steerd("train", MODEL, "resid_pre.1", "--corpus", SMALL["corpus"], "--steps", "2", "--batch", "8", "--k", "2", "--features", "16",
                                  "--model", f"{MODEL}={VECTORS / MODEL / 'model'}", "--out", str(tmp_path / "made"))
    assert status == 1 and f"'{tmp_path / 'made' / 'training'}' is not a regular file" in err, (status, out, err)


KILLED_STEPS = 1200  # a second and more: a state every 0.02 s comes long before the end


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def wait_for(path, process):
    end = time.monotonic() + JOB_SECONDS
    while not path.exists():
        assert time.monotonic() < end and process.poll() is None, path
        time.sleep(0.005)


def wait_for_newer(path, before, process):
    end = time.monotonic() + JOB_SECONDS
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.005)


def test_killed_behind_a_checkpoint_it_goes_on_from_there(tmp_path):
    """The command line: killed once a state is there that was kept while it trained, and once more behind a newer one."""
    flags = [*FLAGS, "--steps", str(KILLED_STEPS), "--checkpoint", "0.02"]
    name = "sae_weights.safetensors"
    status, _, err = run_steerd("train", MODEL, "resid_pre.1", "--out", str(tmp_path / "whole"), *flags, seconds=JOB_SECONDS)
    assert status == 0, err
    out = tmp_path / "broken"
    command = [binary(), "train", MODEL, "resid_pre.1", "--out", str(out), *flags]
    first = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(out / "training", first)
    killed(first)
    assert os.listdir(out) == ["training"] or sorted(os.listdir(out)) == ["training", "training.part"]
    before = (out / "training").stat().st_mtime_ns
    second = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_newer(out / "training", before, second)
    killed(second)
    status, _, err = run_steerd("train", MODEL, "resid_pre.1", "--out", str(out), *flags, seconds=JOB_SECONDS)
    assert status == 0, err
    begun = [int(line.split("training: ")[1].split(" of ")[0]) for line in err.splitlines() if "training: " in line]
    assert 0 < begun[0] < KILLED_STEPS, err  # it did not begin anew
    assert sorted(os.listdir(out)) == ["cfg.json", name]
    assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_daemon_that_was_killed_goes_on_with_its_job(start_daemon, tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    options = {"models": {MODEL: FOLDER / "model"}, "store": str(tmp_path / "s.sqlite"), "source_folders": str(folder)}
    first = start_daemon(**options)
    number = start(first, out="broken", steps=KILLED_STEPS, checkpoint=0.02).json()["id"]
    state = folder / "broken" / "training"
    wait_for(state, first.process)
    wait_for_newer(state, state.stat().st_mtime_ns, first.process)  # by then the job knows of the one before
    first.kill()
    first.close()
    second = start_daemon(**options)
    assert 0 < second.get(f"/v1/jobs/{number}").json()["done"] <= KILLED_STEPS  # not from the beginning
    job = wait(second, number)
    assert job["state"] == "done", job
    whole = wait(second, start(second, out="whole", steps=KILLED_STEPS).json()["id"])
    assert whole["state"] == "done"
    name = "sae_weights.safetensors"
    assert (folder / "broken" / name).read_bytes() == (folder / "whole" / name).read_bytes()


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
                                  ({"out": "a", "architecture": "batchtopk", "l1": 1}, 400, "l1"), ({"out": "a", "l0": 1}, 400, "l0"),
                                  ({"out": "a", "architecture": "jumprelu"}, 400, "k"), ({"out": "a", "l0Loss": "tanh"}, 400, "l0Loss"),
                                  ({"out": "a", "architecture": "jumprelu", "k": None, "l0Loss": "step", "targetL0": 3}, 400, "targetL0")):
        reply = start(mine, **change)
        assert reply.status_code == status, (change, reply.text)
        assert field is None or reply.json()["field"] == field, (change, reply.text)
    relu = {name: value for name, value in SMALL.items() if name != "k"} | {"kind": "train", "architecture": "relu", "out": "a"}
    for name in ("aux", "deadAfter"):
        reply = mine.post("/v1/jobs", {**relu, name: 1})
        assert reply.status_code == 400 and reply.json()["field"] == name, reply.text
        assert reply.json()["error"].startswith(f"{name} is an option of topk"), reply.text
    assert sorted(os.listdir(folder)) == ["other"]
    reply = start(daemon, out="a")  # no folder is set there
    assert reply.status_code == 501 and "source_folders" in reply.json()["error"]


def test_what_can_be_trained_is_told(trained, daemon, start_daemon, tmp_path):
    _, mine = trained
    told = mine.get("/v1/lab/training").json()
    assert told["refused"] is None and set(told["architectures"]) >= {"relu", "topk", "batchtopk"}
    options = {one["name"]: one for one in told["options"]}
    assert options["k"]["architectures"] == ["topk", "batchtopk"] and (options["k"]["type"], options["k"]["minimum"]) == ("integer", 1)
    assert (options["rate"]["type"], options["rate"]["minimum"]) == ("number", 1e-9)
    fields = mine.get("/openapi.json").json()["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert told["architectures"] == fields["architecture"]["enum"]
    for name, one in options.items():  # it is what POST /v1/jobs takes
        assert (one["type"], one["minimum"], one["maximum"]) == tuple(fields[name][word] for word in ("type", "minimum", "maximum")), name
        assert fields[name]["description"] == f"train: {one['text']}"
    assert "names one" in daemon.get("/v1/lab/training").json()["refused"]  # no folder is set there
    late = start_daemon(models={MODEL: FOLDER / "model"}, store=str(tmp_path / "late.sqlite"), source_folders=str(tmp_path / "not-there"))
    refused = late.get("/v1/lab/training").json()["refused"]
    assert "is not there: make it, then start the server again" in refused
    reply = start(late, out="a")
    assert reply.status_code == 501 and reply.json()["error"] == refused


def test_stopped_it_says_how_to_go_on(tmp_path):
    command = [binary(), "train", MODEL, "resid_pre.1", "--out", str(tmp_path / "o"), *FLAGS, "--steps", "100000"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines = iter(process.stderr.readline, "")
    assert any("loss" in line for line in lines)  # a step has been made
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=JOB_SECONDS)[1]
    assert process.returncode != 0 and f" is kept in '{tmp_path / 'o'}': the same command goes on from there" in err, err
    assert not [line for line in err.splitlines() if "0.0/s" in line or "? left" in line]  # nothing is told that nobody knows


def test_refusals_of_the_command_line(tmp_path):
    out = ["--out", str(tmp_path / "o")]
    missing = ["--model", "nothing=/there/is/no/such/model"]  # refused before it is looked for
    for flags, text in ((["--kind", "topkk"], "did you mean 'topk'"), (["--k", "97"], "--k is 97, but there are only 96 features"),
                        (["--expansion", "2"], "--expansion and features say the same"), (["--tokns", "5"], "did you mean '--tokens'"),
                        (["--rate", "fast"], "--rate: 'fast' is not a number"), (["--lr", "0"], "--lr: '0' is not a number"),
                        (["--k", "1.5"], "--k: '1.5' is not a whole number from 1 to 16777216"),
                        (["--l1", "1"], "--l1 is an option of relu, not of topk"), (["--l1-warm-up=1"], "--l1-warm-up is an option of relu"),
                        (["--kind", "relu"], "--k is an option of topk and batchtopk"), (["--warm-up", "301"], "--warm-up is 301, but"),
                        (["--corpus", "/none"], "--corpus '/none' is not a file")):
        status, _, err = run_steerd("train", MODEL, "resid_pre.1", *out, *FLAGS, *missing, *flags)
        assert status != 0 and text in err, (flags, err)
    status, _, err = run_steerd("train", MODEL, "resid_pre.1", *out, *FLAGS, "--context", "161")  # what the model has is the model's
    assert status != 0 and "--context is 161, allowed are 8 to 160" in err, err
    assert not (tmp_path / "o").exists()
    early = subprocess.Popen([binary(), "train", MODEL, "resid_pre.1", *out, *FLAGS, "--steps", "100000"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    early.stderr.readline()  # "reading the text"
    early.send_signal(signal.SIGINT)
    err = early.communicate(timeout=JOB_SECONDS)[1]
    assert early.returncode != 0 and ("before the first step: there was nothing to keep" in err) == (not (tmp_path / "o").exists()), err
    assert ("is kept in" in err) == (tmp_path / "o" / "training").exists(), err  # a machine that is slow to send signals has made steps
    if (tmp_path / "o").exists():
        (tmp_path / "o" / "training").unlink()
        (tmp_path / "o").rmdir()
    status, _, err = run_steerd("train", MODEL, "resid_pre.1", *FLAGS)
    assert status != 0 and "--out FOLDER" in err
    status, _, err = run_steerd("train", MODEL, *FLAGS, *out)
    assert status != 0 and "MODEL, POINT" in err
    assert not (tmp_path / "o").exists()


def test_help_asks_for_no_more_than_is_needed(tmp_path):
    """What stands in brackets may be left out: the demo is there without a word about models."""
    text, out = tmp_path / "text.txt", tmp_path / "o"
    text.write_text("The ferry left at six and nobody was on it.\n" * 60)
    for verb, needed in (("train", ["demo", "resid_pre.2", "--out", str(out), "--steps", "2", "--batch", "64", "--features", "64"]),
                         ("stats", ["demo", "2-res-demo", "--store", str(tmp_path / "s.sqlite")]), ("eval", ["demo", "2-res-demo"])):
        usage = run_steerd("help", verb)[1].splitlines()[0]
        assert "[--model [ID=]PLACE]" in usage and " --model" not in usage.replace(" [--model", ""), usage
        assert verb == "train" or "[--source MODEL/SOURCE=PLACE]" in usage
        assert " --corpus FILE" in usage
        status, _, err = run_steerd(verb, *needed, "--corpus", str(text))
        assert status == 0, err
