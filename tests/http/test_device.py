"""A server whose model computes on a CUDA device: the emulated one of tests/cuda_host, so no GPU is needed (`make emulated`)."""
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from conftest import MODEL, VECTORS, Daemon, binary, model_options
from tensors import read_tensors, write_tensors

LIBRARY = pathlib.Path(binary()).parent / "emulated" / "steerd-cuda-emulated.so"
STEER = {"modelId": MODEL, "prompt": "The town", "features": [], "types": ["DEFAULT"], "n_tokens": 6, "temperature": 0, "seed": 3}

needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason=f"skip: {LIBRARY} (make emulated)")


def on_device(**environment):
    return Daemon(model_options(), environment={"STEERD_CUDA_LIBRARY": str(LIBRARY), **environment}, device="cuda:1")


@needs_library
def test_the_same_answers_as_on_the_processor():
    answers = []
    for daemon in (on_device(), Daemon(model_options(), device="cpu")):
        feature = {"modelId": MODEL, "layer": "1-res-relu", "index": 3, "strength": 4}
        steered = daemon.post("/steer", {**STEER, "types": ["STEERED", "DEFAULT"], "features": [feature]})
        found = daemon.post("/activations", {"modelId": MODEL, "layer": "1-res-relu", "index": "3", "text": "The town"})
        answers.append((steered.json(), found.json()))
        daemon.finish()
    for word in ("STEERED", "DEFAULT"):
        assert answers[0][0][word] == answers[1][0][word]
    assert answers[0][1]["values"] == pytest.approx(answers[1][1]["values"], abs=1e-4)


# Every way of drawing that a request can ask for: alone, and several texts from one prompt.
DRAWS = [
    {"temperature": 0, "logprobs": 5},
    {"temperature": 0, "frequency_penalty": 1.5, "presence_penalty": 0.5, "logprobs": 0},
    {"temperature": 1, "seed": 7},
    {"temperature": 1, "seed": 7, "top_p": 0.7, "n": 3, "logprobs": 2},
    {"temperature": 1.3, "seed": 8, "min_p": 0.05, "logit_bias": {"40": 3, "41": -100}, "n": 2},
    {"temperature": 0.8, "seed": 9, "top_p": 0.9, "presence_penalty": -1, "logit_bias": {"7": 5}, "logprobs": 3},
]


@needs_library
def test_the_same_draws_as_on_the_processor():
    answers = []
    for daemon in (on_device(), Daemon(model_options(), device="cpu")):
        bodies = [{"model": MODEL, "prompt": "The town", "max_tokens": 12, **draw} for draw in DRAWS]
        answers.append([daemon.post("/v1/completions", body).json()["choices"] for body in bodies])
        daemon.finish()
    for draw, ours, theirs in zip(DRAWS, *answers):
        assert [c["text"] for c in ours] == [c["text"] for c in theirs], draw
        for a, b in zip(ours, theirs):
            assert bool(a["logprobs"]) == ("logprobs" in draw)
            if "logprobs" not in draw:
                continue
            assert a["logprobs"]["tokens"] == b["logprobs"]["tokens"]
            # the logits themselves differ by what a GPU's order of sums may change
            assert a["logprobs"]["token_logprobs"] == pytest.approx(b["logprobs"]["token_logprobs"], abs=1e-4)
            tops = zip(a["logprobs"]["top_logprobs"] or [], b["logprobs"]["top_logprobs"] or [])
            assert all(list(x) == list(y) for x, y in tops), draw


# Edits that ask what was in front of them, what a source carries, heads, another text.
GRADIENTS = [
    {"text": "The town by the sea", "points": ["resid_pre.*", "z.*", "blocks.*.mlp.hook_pre"], "gradients": True, "answers": [" the", " a"],
     "edits": [{"op": "scale", "source": "1-res-relu", "index": 3, "value": 2}, {"op": "cap", "point": "resid_mid.1", "vector": [1] * 48, "strength": 0.1}]},
    {"text": "The town by the sea", "sources": ["1-res-relu"], "topK": 100},
    {"tokens": list(range(5, 45)), "against": {"tokens": list(range(45, 5, -1))}, "points": ["q.*", "resid_post.*"], "answers": [" the", " a"]},
]


def gradients_of(daemon, bodies):
    answers = []
    for body in bodies:
        reply = daemon.post("/v1/lab/attribute", body)
        assert reply.status_code == 200, reply.text
        answers.append(reply.json())
    daemon.finish()
    return answers


def numbers(value):
    """All numbers of a reply, one behind the other, but for those of features, which go by size, and how many there are: one that hardly
    fires may not."""
    if isinstance(value, dict):
        return [n for key, part in sorted(value.items()) if key not in ("top", "active", "ids", "tokens") for n in numbers(part)]
    if isinstance(value, list):
        return [n for part in value for n in numbers(part)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def agree(ours, theirs, part):
    """To a part of the largest."""
    ours, theirs = np.array(numbers(ours)), np.array(numbers(theirs))
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= part * np.abs(theirs).max(), (np.abs(ours - theirs).max(), np.abs(theirs).max())


@needs_library
def test_the_same_gradients_as_on_the_processor():
    ours, theirs = (gradients_of(daemon, GRADIENTS) for daemon in (on_device(), Daemon(model_options(), device="cpu")))
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys()
        for key in ("value", "attributions", "normalized", "gradients", "sources"):
            if numbers(b.get(key)):
                agree(a[key], b[key], 1e-4)
    tops = [{f["index"]: f for f in answer[1]["sources"][0]["top"]} for answer in (ours, theirs)]
    for index, feature in tops[1].items():
        if feature["activation"] > 1e-3:
            assert tops[0][index]["attribution"] == pytest.approx(feature["attribution"], abs=1e-3)


@needs_library
def test_gradients_of_a_model_in_16_bits(tmp_path):
    """Forty rows: x of products is rounded to bf16 on the way there, by 2^-9 of each term of a dozen products one behind the other; nothing is
    on the way back. With weights as large as the tiny model's own that much in the weights changes its patterns altogether."""
    folder = shutil.copytree(VECTORS / MODEL / "model", tmp_path / "model")
    tensors = {name: t * 0.3 if t.ndim == 2 else t for name, t in read_tensors(folder / "model.safetensors").items()}
    write_tensors(folder / "model.safetensors", tensors, "BF16")
    options = ["--model", f"{MODEL}={folder}"]
    device = Daemon(options, environment={"STEERD_CUDA_LIBRARY": str(LIBRARY)}, device="cuda:1")
    body = {"tokens": list(range(5, 45)), "points": ["resid_post.*", "v.*"], "gradients": True, "answers": [" the", " a"]}
    (ours,), (theirs,) = (gradients_of(daemon, [body]) for daemon in (device, Daemon(options, device="cpu")))
    for name, gradient in theirs["gradients"].items():
        agree(ours["gradients"][name], gradient, 0.03)


@needs_library
@pytest.mark.parametrize("path, body", [("/steer", STEER), ("/v1/lab/attribute", GRADIENTS[1])])
def test_a_lost_device_fails_requests_and_ends_the_server(tmp_path, path, body):
    broken = tmp_path / "broken"
    daemon = on_device(STEERD_EMULATED_LOSS=str(broken))
    assert daemon.get("/version").json()["backend"] == "cuda:1"
    assert daemon.post(path, body).status_code == 200
    broken.touch()
    reply = daemon.post(path, body)
    assert reply.status_code == 503
    assert reply.json()["code"] == "device"
    assert "must be started again" in reply.json()["message"]
    assert daemon.wait(10) == 1  # not 0: its supervisor starts it again
    assert "the compute device has failed" in daemon.log()
    daemon.close()


@needs_library
def test_a_device_that_hangs_hangs_nobody(tmp_path):
    """No call that waits for the device returns any more, and freeing its memory is one."""
    hung = tmp_path / "hung"
    daemon = on_device(STEERD_EMULATED_HANG=str(hung), STEERD_CUDA_WAIT="2")
    assert daemon.post("/steer", STEER).status_code == 200
    hung.touch()
    reply = daemon.post("/steer", STEER)
    assert reply.status_code == 503 and reply.json()["code"] == "device"
    assert "CUDA device 1 has not answered for 2 s" in reply.json()["message"]
    assert daemon.wait(20) == 1
    assert "the compute device has failed" in daemon.log()
    daemon.close()


def run(*arguments, environment=None):
    command = [binary(), "serve", "--listen", "127.0.0.1:0", *model_options(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin", **(environment or {})})


def test_a_device_that_is_not_there():
    ended = run("--device", "cuda", environment={"STEERD_CUDA_LIBRARY": "/nowhere/steerd-cuda.so"})
    assert ended.returncode != 0 and "device 'cuda' ('auto' and 'cpu' do without): " in ended.stderr and "could not be opened" in ended.stderr
    ended = run("--device", "abacus")
    assert ended.returncode != 0 and "known: auto, cpu, cuda:N" in ended.stderr
    if LIBRARY.exists():
        ended = run("--device", "cuda:7", environment={"STEERD_CUDA_LIBRARY": str(LIBRARY)})
        assert ended.returncode != 0 and "CUDA device 7 does not exist, there are 2" in ended.stderr


def test_auto_says_what_it_found():
    daemon = Daemon(model_options(), environment={"STEERD_CUDA_LIBRARY": "/nowhere/steerd-cuda.so"})
    assert daemon.get("/version").json()["backend"].startswith("cpu")
    assert "no CUDA device is used: steerd-cuda.so could not be opened" in daemon.log()
    daemon.finish()
