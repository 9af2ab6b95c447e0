"""A server whose model computes on a CUDA device: the emulated one of tests/cuda_host, so no GPU is needed (`make emulated`)."""
import pathlib
import subprocess

import pytest

from conftest import MODEL, Daemon, binary, model_options

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


@needs_library
def test_a_lost_device_fails_requests_and_ends_the_server(tmp_path):
    broken = tmp_path / "broken"
    daemon = on_device(STEERD_EMULATED_LOSS=str(broken))
    assert daemon.get("/version").json()["backend"] == "cuda:1"
    assert daemon.post("/steer", STEER).status_code == 200
    broken.touch()
    reply = daemon.post("/steer", STEER)
    assert reply.status_code == 503
    assert reply.json()["code"] == "device"
    assert "must be started again" in reply.json()["message"]
    assert daemon.wait(10) == 1  # not 0: its supervisor starts it again
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
