"""Maps of features: POST /api/umap, jobs of kind map, and maps that travel with a source's batches. That neighbours stay together is
tests/unit/test_map.c's; here it is the whole way from a dictionary's file, beside NumPy."""
import gzip
import json
import math
import time

import numpy as np
import pytest

from conftest import MODEL, VECTORS, Daemon, model_options, run_steerd
from tensors import read_tensors, write_tensors

SOURCE = "1-res-relu"
ROW = ["modelId", "layer", "index", "description", "umap_cluster", "umap_log_feature_sparsity", "umap_x", "umap_y"]
JOB_SECONDS = 300  # a sanitizer build on a busy machine is slow


@pytest.fixture
def own():
    """A daemon of its own: what it keeps is looked at."""
    one = Daemon(model_options())
    yield one
    one.finish()


def dictionary(folder, rows, layer=1):
    """A ReLU dictionary with these decoder rows."""
    folder.mkdir(parents=True)
    rows = np.asarray(rows, np.float32)
    n, d = rows.shape
    write_tensors(folder / "sae_weights.safetensors", {"W_enc": rows.T.copy(), "b_enc": np.zeros(n, np.float32), "W_dec": rows,
                                                       "b_dec": np.zeros(d, np.float32)})
    about = json.loads((VECTORS / MODEL / "sources" / SOURCE / "cfg.json").read_text())
    about |= {"d_in": d, "d_sae": n}
    about["metadata"] |= {"hook_name": f"blocks.{layer}.hook_resid_pre", "neuronpedia_id": None}
    (folder / "cfg.json").write_text(json.dumps(about))
    return folder


def ask(daemon, layers, status=200, **more):
    reply = daemon.post("/api/umap", {"modelId": MODEL, "layers": layers, **more})
    assert reply.status_code == status, reply.text
    return reply.json()


def run_job(daemon, **body):
    job = daemon.post("/v1/jobs", {"kind": "map", "modelId": MODEL, **body})
    assert job.status_code == 200, job.text
    end = time.monotonic() + JOB_SECONDS
    while True:
        state = daemon.get(f"/v1/jobs/{job.json()['id']}").json()
        if state["state"] not in ("queued", "running"):
            return state
        assert time.monotonic() < end, state
        time.sleep(0.05)


def test_rows(own):
    daemon = own
    neurons = "0"
    reply = ask(daemon, [SOURCE, neurons, SOURCE])
    assert list(reply) == [SOURCE, neurons]
    for source, n in ((SOURCE, 96), (neurons, len(reply[neurons]))):
        rows = reply[source]
        assert [row["index"] for row in rows] == [str(i) for i in range(n)]
        for row in rows:
            assert list(row) == ROW and (row["modelId"], row["layer"], row["description"]) == (MODEL, source, "")
            assert isinstance(row["umap_cluster"], int) and row["umap_cluster"] >= -1 and row["umap_log_feature_sparsity"] is None
            assert all(math.isfinite(row[name]) for name in ("umap_x", "umap_y"))
    assert ask(daemon, [SOURCE])[SOURCE] == reply[SOURCE]  # kept
    feature = daemon.get(f"/api/feature/{MODEL}/{SOURCE}/5").json()
    assert {name: feature[name] for name in ROW[4:]} == {name: reply[SOURCE][5][name] for name in ROW[4:]}


def test_explanations_and_sparsity(own):
    daemon = own
    for said in ("the first", "the second"):
        assert daemon.post("/api/explanation/new", {"modelId": MODEL, "layer": SOURCE, "index": 3, "description": said}).status_code == 200
    rows = ask(daemon, [SOURCE])[SOURCE]
    assert len(rows) == 97
    assert {row["description"] for row in rows if row["index"] == "3"} == {"the first", "the second"}
    done = daemon.post("/v1/jobs", {"kind": "stats", "source": SOURCE, "corpus": str(VECTORS / MODEL / "corpus.txt"), "lines": True}).json()
    end = time.monotonic() + JOB_SECONDS
    while daemon.get(f"/v1/jobs/{done['id']}").json()["state"] in ("queued", "running"):
        assert time.monotonic() < end
        time.sleep(0.05)
    for row in ask(daemon, [SOURCE])[SOURCE]:
        rate = daemon.get(f"/api/feature/{MODEL}/{SOURCE}/{row['index']}").json()["frac_nonzero"]
        assert row["umap_log_feature_sparsity"] == pytest.approx(math.log10(rate) if rate else -10, abs=1e-12)


def test_directions_become_neighbours(tmp_path):
    """Planted groups, rows of zeros, equal rows: straight from a file."""
    rng = np.random.default_rng(3)
    rows = np.repeat(rng.normal(size=(6, 48)), 20, axis=0) + 0.2 * rng.normal(size=(120, 48))
    rows[7], rows[31] = 0, rows[30]
    folder = dictionary(tmp_path / "1-planted", rows)
    daemon = Daemon(["--model", f"{MODEL}={VECTORS / MODEL / 'model'}", "--source", f"{MODEL}/1-planted={folder}"])
    got = ask(daemon, ["1-planted"])["1-planted"]
    daemon.finish()
    assert got[7]["umap_x"] is None and got[7]["umap_y"] is None and got[7]["umap_cluster"] == -1
    live = [i for i in range(120) if i != 7]
    clusters = np.array([got[i]["umap_cluster"] for i in live])
    places = np.array([[got[i]["umap_x"], got[i]["umap_y"]] for i in live])
    group = np.array(live) // 20
    for g in range(6):
        assert len(set(clusters[group == g])) == 1
    assert len(set(clusters)) == 6
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.diag([np.inf] * len(live))
    assert (group[apart.argmin(1)] == group).all()


def test_small_ones(tmp_path):
    options = ["--model", f"{MODEL}={VECTORS / MODEL / 'model'}"]
    for n in (1, 2, 5):
        rows = np.random.default_rng(n).normal(size=(n, 48))
        options += ["--source", f"{MODEL}/1-few{n}={dictionary(tmp_path / f'1-few{n}', rows)}"]
    options += ["--source", f"{MODEL}/1-zero={dictionary(tmp_path / '1-zero', np.zeros((3, 48)))}"]
    daemon = Daemon(options)
    reply = ask(daemon, ["1-few1", "1-few2", "1-few5", "1-zero"])
    daemon.finish()
    assert [len(rows) for rows in reply.values()] == [1, 2, 5, 3]
    assert all(row["umap_x"] is None for row in reply["1-zero"])
    assert all(math.isfinite(row["umap_x"]) for name in ("1-few1", "1-few2", "1-few5") for row in reply[name])


def test_large_ones_are_a_job(tmp_path):
    rows = np.random.default_rng(1).normal(size=(4100, 48))
    folder = dictionary(tmp_path / "1-large", rows)
    daemon = Daemon(["--model", f"{MODEL}={VECTORS / MODEL / 'model'}", "--source", f"{MODEL}/1-large={folder}"])
    error = ask(daemon, ["1-large"], 404)
    assert error["field"] == "layers[0]" and "4100 features" in error["error"] and "/v1/jobs" in error["error"]
    job = daemon.post("/v1/jobs", {"kind": "map", "modelId": MODEL, "source": "1-large"}).json()
    assert daemon.client.delete(f"/v1/jobs/{job['id']}").status_code == 200
    end = time.monotonic() + JOB_SECONDS
    while daemon.get(f"/v1/jobs/{job['id']}").json()["state"] in ("queued", "running"):
        assert time.monotonic() < end
        time.sleep(0.05)
    state = daemon.get(f"/v1/jobs/{job['id']}").json()
    if state["state"] == "cancelled":  # it may have been quicker
        assert state["resumable"]
        ask(daemon, ["1-large"], 404)
        assert daemon.post(f"/v1/jobs/{job['id']}/resume", {}).status_code == 200
        while daemon.get(f"/v1/jobs/{job['id']}").json()["state"] in ("queued", "running"):
            assert time.monotonic() < end
            time.sleep(0.05)
    assert daemon.get(f"/v1/jobs/{job['id']}").json()["state"] == "done"
    assert len(ask(daemon, ["1-large"])["1-large"]) == 4100
    daemon.finish()


def test_the_job(own):
    daemon = own
    first = ask(daemon, [SOURCE])[SOURCE]
    reply = daemon.post("/v1/jobs", {"kind": "map", "source": SOURCE})
    assert reply.status_code == 409 and reply.json()["field"] == "replace"
    assert run_job(daemon, source=SOURCE, replace=True)["state"] == "done"
    assert ask(daemon, [SOURCE])[SOURCE] == first  # seed 0 either way
    assert run_job(daemon, source=SOURCE, replace=True, seed=5)["state"] == "done"
    assert ask(daemon, [SOURCE])[SOURCE] != first


@pytest.mark.parametrize("body, field", [({"corpus": "x"}, "corpus"), ({"seed": -1}, "seed"), ({"source": "nope"}, "source"), ({"nTop": 3}, "nTop"),
                                         ({"source": None}, "source")])
def test_job_refusals(daemon, body, field):
    reply = daemon.post("/v1/jobs", {k: v for k, v in {"kind": "map", "source": SOURCE, **body}.items() if v is not None})
    assert reply.status_code in (400, 404) and reply.json()["field"] == field, reply.text


@pytest.mark.parametrize("layers, field", [([], "layers"), (["nope"], "layers[0]"), ([SOURCE, "9"], "layers[1]"), ([SOURCE] * 200, "layers"),
                                           (SOURCE, "layers")])
def test_refusals(daemon, layers, field):
    reply = daemon.post("/api/umap", {"modelId": MODEL, "layers": layers})
    assert reply.status_code in (400, 404) and reply.json()["field"] == field, reply.text


def test_without_a_store():
    daemon = Daemon(model_options(), store="")
    rows = ask(daemon, [SOURCE])[SOURCE]
    assert len(rows) == 96 and all(math.isfinite(row["umap_x"]) for row in rows)
    reply = daemon.post("/v1/jobs", {"kind": "map", "source": SOURCE})
    assert reply.status_code == 501 and "store" in reply.json()["error"]
    daemon.finish()


def test_batches_carry_maps(tmp_path):
    """Out of one store, into another; an imported map is not computed over."""
    store, folder, other = tmp_path / "a.sqlite", tmp_path / "out", tmp_path / "b.sqlite"
    daemon = Daemon(model_options(), store=store)
    made = ask(daemon, [SOURCE])[SOURCE]
    daemon.finish()
    assert run_steerd("export", MODEL, SOURCE, "--out", folder, "--store", store)[0] == 0
    path = folder / "features" / "batch-0.jsonl.gz"
    lines = [json.loads(line) for line in gzip.open(path, "rt")]
    assert [line["umap_x"] for line in lines] == [row["umap_x"] for row in made]
    for line in lines:
        line |= {"umap_x": line["umap_x"] + 100, "umap_log_feature_sparsity": -4.5, "umap_cluster": 77}
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    assert run_steerd("import", folder, "--store", other)[0] == 0
    daemon = Daemon(model_options(), store=other)
    rows = ask(daemon, [SOURCE])[SOURCE]
    assert [(row["umap_x"], row["umap_y"]) for row in rows] == [(row["umap_x"] + 100, row["umap_y"]) for row in made]
    assert {(row["umap_cluster"], row["umap_log_feature_sparsity"]) for row in rows} == {(77, -4.5)}
    feature = daemon.get(f"/api/feature/{MODEL}/{SOURCE}/5").json()
    assert (feature["umap_cluster"], feature["umap_log_feature_sparsity"]) == (77, -4.5)
    daemon.finish()
    # The store alone, as batches of upstream arrive there: they do not say of which dictionary they are.
    (folder / "source.jsonl").unlink()
    alone = tmp_path / "c.sqlite"
    assert run_steerd("import", folder, "--store", alone)[0] == 0
    daemon = Daemon(store=alone)
    assert ask(daemon, [SOURCE])[SOURCE] == rows
    daemon.finish()


def test_the_command(tmp_path):
    """`steerd map` puts into the store what the job does, number for number."""
    store = tmp_path / "a.sqlite"
    command = ["map", MODEL, SOURCE, "--store", store, *model_options()]
    status, out, err = run_steerd(*command, "--seed", "5")
    assert status == 0 and not out and "finding neighbours" in err and err.endswith(f"done: the map of {MODEL}/{SOURCE} is in {store}\n"), err
    daemon = Daemon(model_options(), store=store)
    made = ask(daemon, [SOURCE])[SOURCE]
    assert run_job(daemon, source=SOURCE, seed=5, replace=True)["state"] == "done"
    assert ask(daemon, [SOURCE])[SOURCE] == made
    status, _, err = run_steerd(*command, "--replace")
    assert status == 1 and "/v1/jobs" in err and '"kind": "map"' in err, err  # the daemon has the store
    daemon.finish()
    status, _, err = run_steerd(*command)
    assert status == 1 and err == f"steerd: {store} has a map of {MODEL}/{SOURCE} already; with --replace a new one takes its place\n", err
    assert run_steerd(*command, "--replace")[0] == 0
    daemon = Daemon(model_options(), store=store)
    assert ask(daemon, [SOURCE])[SOURCE] != made
    daemon.finish()


@pytest.mark.parametrize("flags, words", [
    ([], "map needs --store FILE"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number of 0 or more"),
    (["--sed=1"], "did you mean '--seed'?"),
    (["--corpus", "x"], "unknown flag '--corpus'; steerd help map lists them"),
    (["--lines"], "unknown flag '--lines'; steerd help map lists them"),
    (["--replace=yes"], "--replace takes no value, found 'yes'"),
])
def test_flags_of_the_command(flags, words):
    status, out, err = run_steerd("map", "demo", "2-res-demo", *flags)
    assert status == 2 and words in err and len(err.splitlines()) == 1 and not out, err
    assert "map needs MODEL and SOURCE;" in run_steerd("map", "demo")[2]
