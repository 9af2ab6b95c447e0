"""What is promised of edits and taps, over HTTP, alone and while other requests with edits of their own share every step."""
import contextlib
import threading

import numpy as np
import pytest

from conftest import MODEL, VECTORS, Session
from test_lab_run import TEXT, post
from twin import Dictionary, Twin

FOLDER = VECTORS / MODEL
SOURCES = {"1-res-relu": "blocks.1.hook_resid_pre", "0-mlp-topk": "blocks.0.hook_mlp_out",
           "2-res-jump": "blocks.2.hook_resid_post", "2-res-center": "blocks.1.hook_resid_post"}
ASK = {"text": TEXT, "topK": 6, "loss": True, "points": ["resid_post.2", "z.1"]}
VECTOR = np.random.default_rng(2).normal(size=48).round(3).tolist()

# What others do meanwhile: every kind of edit, hot, cold and derived points, splices, scores, rows of other runs, generation.
OTHERS = [
    ("/v1/lab/run", {**ASK, "edits": [{"op": "add", "point": "resid_pre.1", "vector": VECTOR, "strength": 40}]}),
    ("/v1/lab/run", {**ASK, "points": ["blocks.*"], "edits": [{"op": "zero", "point": "resid_mid.0"}]}),
    ("/v1/lab/run", {**ASK, "edits": [{"op": "splice", "source": "1-res-relu", "includeError": False}]}),
    ("/v1/lab/run", {**ASK, "edits": [{"op": "clamp", "source": "2-res-jump", "index": 4, "value": 60}]}),
    ("/v1/lab/next", {"text": TEXT[:20], "edits": [{"op": "set", "point": "z.1", "value": 30, "heads": [0, 2]}]}),
    ("/v1/lab/next", {"text": TEXT, "edits": [{"op": "knockout", "point": "attn_scores.1", "keys": [0, 1]}]}),
    ("/v1/lab/next", {"text": TEXT, "edits": [{"op": "patch", "point": "mlp_pre.0", "from": {"text": "x" + TEXT[1:]}, "positions": [1, 2]}]}),
    ("/v1/lab/next", {"text": TEXT, "edits": [{"op": "scale", "point": "result.2", "value": -9}, {"op": "mean", "point": "attn_out.0"}]}),
    ("/api/steer", {"prompt": TEXT, "n_tokens": 20, "features": [], "edits": [{"op": "add", "source": "1-res-relu", "index": 3, "strength": 90}]}),
    ("/api/steer", {"prompt": TEXT[:9], "n_tokens": 30, "features": [], "edits": [{"op": "clamp", "source": "0-mlp-topk", "index": 3, "value": 90}]}),
]


@contextlib.contextmanager
def company(daemon):
    """Eight clients that never rest; they must all be served well."""
    stop, failed, served = threading.Event(), [], [0] * 8

    def client(n):
        session = Session(daemon.url)
        while not stop.is_set():
            path, body = OTHERS[(n + served[n]) % len(OTHERS)]
            reply = session.post(path, json=body)
            if reply.status_code != 200:
                failed.append(reply.text)
            served[n] += 1
    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed and min(served) > 0, (failed[:1], served)


@pytest.fixture(params=["alone", "in company"])
def busy(request, daemon):
    with company(daemon) if request.param == "in company" else contextlib.nullcontext():
        yield request.param == "in company"


@pytest.fixture(scope="module")
def plain(daemon):
    """Answers without edits, from a daemon at rest."""
    return post(daemon, "/v1/lab/run", ASK)


@pytest.fixture(scope="module")
def active():
    """Activations of each dictionary over the text, by the twin in NumPy."""
    def encode(ids):
        points, _ = Twin(FOLDER / "model").run(ids)
        return {source: Dictionary(FOLDER / "sources" / source).encode(points[point]) for source, point in SOURCES.items()}
    return encode


def times(busy):
    return range(2 if busy else 1)


def test_an_empty_list_is_no_list(daemon, plain, busy):
    for _ in times(busy):
        assert post(daemon, "/v1/lab/run", {**ASK, "edits": []}) == post(daemon, "/v1/lab/run", ASK) == plain
        steered = post(daemon, "/api/steer", {"prompt": TEXT, "n_tokens": 8, "temperature": 0, "features": [], "edits": []})
        assert steered["STEERED"] == steered["DEFAULT"]


def test_a_splice_with_its_error_gives_the_same_bits(daemon, plain, busy):
    for _ in times(busy):
        for source in SOURCES:
            assert post(daemon, "/v1/lab/run", {**ASK, "edits": [{"op": "splice", "source": source}]}) == plain, source
    edits = [{"op": "splice", "source": source} for source in SOURCES]
    assert post(daemon, "/v1/lab/run", {**ASK, "edits": edits}) == plain


def test_a_feature_that_never_fires_is_no_loss(daemon, plain, active, busy):
    acts = active(plain["ids"])
    for _ in times(busy):
        for source in SOURCES:
            silent = int(np.flatnonzero(acts[source].max(0) == 0)[0])
            assert post(daemon, "/v1/lab/run", {**ASK, "edits": [{"op": "ablate", "source": source, "index": silent}]}) == plain, source
            got = post(daemon, "/v1/lab/ablate", {"text": TEXT, "source": source, "features": [silent]})
            assert got["after"] == got["before"]
            steer = {"prompt": TEXT, "n_tokens": 1, "temperature": 0, "features": [], "n_logprobs": 4}
            reply = post(daemon, "/api/steer", {**steer, "edits": [{"op": "ablate", "source": source, "index": silent, "positions": "prompt"}]})
            assert reply["steeredLogProbs"] == reply["defaultLogProbs"]
    loud = int(acts["1-res-relu"].sum(0).argmax())
    assert post(daemon, "/v1/lab/run", {**ASK, "edits": [{"op": "ablate", "source": "1-res-relu", "index": loud}]}) != plain


def test_patching_everything_gives_exactly_one(daemon, busy):
    ids = post(daemon, "/v1/lab/run", ASK)["ids"]
    other = [*ids[:5], (ids[5] + 40) % 500, *ids[6:]]
    body = {"clean": {"tokens": ids}, "corrupted": {"tokens": other}, "answers": [" the", " a"]}
    for _ in times(busy):
        for point in ("resid_pre", "resid_mid", "resid_post"):
            got = post(daemon, "/v1/lab/patch", {**body, "axes": "layer", "point": point})
            assert got["matrix"] == [[1.0]] * 3  # all that follows is made of these rows
        edit = {"op": "patch", "point": "resid_post.2", "from": {"tokens": ids}}
        assert post(daemon, "/v1/lab/next", {"tokens": other, "edits": [edit]})["after"]["top"] == \
            post(daemon, "/v1/lab/next", {"tokens": ids})["before"]["top"]


def test_a_tap_changes_no_bit(daemon, plain, busy):
    for points in (["blocks.*"], ["*"], ["resid_post.2", "z.1", "pattern.*", "attn_scores.*", "result.*", "hook_embed", "ln_final.*"]):
        for _ in times(busy):
            got = post(daemon, "/v1/lab/run", {**ASK, "points": points})
            taken = got.pop("activations")
            assert got == {k: v for k, v in plain.items() if k != "activations"}
            assert all(taken[name] == rows for name, rows in plain["activations"].items() if name in taken)


def test_different_edits_share_steps(daemon, start_daemon):
    """Company is company: with eight clients a step holds rows of several requests, so that they take fewer than one after the other."""
    other = start_daemon()

    def count():
        lines = dict(line.split() for line in other.get("/metrics").text.splitlines() if line.startswith("steerd_") and "{" not in line)
        return float(lines["steerd_steps_total"]), float(lines["steerd_http_requests_total"])

    begin = count()
    for path, body in OTHERS:
        post(other, path, body)
    end = count()
    alone = (end[0] - begin[0]) / len(OTHERS)
    begin = count()
    with company(other):
        for _ in range(20):
            assert post(other, "/v1/lab/run", ASK) == post(daemon, "/v1/lab/run", ASK)
    end = count()
    steps, requests = end[0] - begin[0], end[1] - begin[1]
    # Clients that are slower than the server (Python, two processors) seldom meet: a third to a fifth less was seen. Never meeting is 1.
    assert steps / requests < 0.93 * alone, (steps, requests, alone)
