"""A store that cannot be written: requests say so with 507, reads go on, jobs fail with the reason and can go on afterwards."""
import resource
import time

import pytest

from conftest import MODEL, model_options, run_steerd

VECTOR = {"modelId": MODEL, "layerNumber": 1, "hookType": "resid-pre", "vector": [0.5] * 48}


def limit(daemon, bytes_):
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))


def ended(daemon, job):
    end = time.monotonic() + 60
    while job["state"] in ("queued", "running") and time.monotonic() < end:
        time.sleep(0.05)
        job = daemon.get(f"/v1/jobs/{job['id']}").json()
    return job


def refused(reply, *words):
    assert reply.status_code == 507 and reply.json()["code"] == "storage", reply.text
    assert all(word in reply.json()["error"] for word in ("store.sqlite", *words)), reply.text


def test_a_full_store_is_told(start_daemon, tmp_path):
    """RLIMIT_FSIZE stands for the disk: to SQLite both are a write that fails."""
    (tmp_path / "corpus").write_text("The ship turned toward the harbour.\n" * 400)
    one = start_daemon(source_folders=tmp_path)
    assert one.post("/api/vector/new", VECTOR).status_code == 200
    body = {"modelId": MODEL, "kind": "train", "point": "resid_pre.1", "corpus": str(tmp_path / "corpus"), "lines": True,
            "steps": 300, "batch": 64, "k": 2, "features": 64, "out": "made"}
    job = one.post("/v1/jobs", body).json()
    while one.get(f"/v1/jobs/{job['id']}").json()["state"] == "queued":
        time.sleep(0.01)
    limit(one, 4096)
    refused(one.post("/api/vector/new", VECTOR), "ulimit -f")
    refused(one.post("/v1/jobs", {**body, "out": "other"}), "ulimit -f")
    listed = one.get("/v1/jobs")
    assert listed.status_code == 200 and len(listed.json()["jobs"]) == 1
    job = ended(one, job)
    assert job["state"] == "failed" and ("ulimit -f" in job["error"] or "File too large" in job["error"]), job
    limit(one, resource.RLIM_INFINITY)
    resumed = one.post(f"/v1/jobs/{job['id']}/resume")
    assert resumed.status_code in (200, 202), resumed.text
    assert ended(one, job | {"state": "queued"})["state"] == "done"
    assert one.post("/api/vector/new", VECTOR).status_code == 200


def test_a_store_that_goes_is_told(start_daemon):
    """A deleted file takes writes and loses them: they are refused, once in the log, until it is back."""
    one = start_daemon()
    assert one.post("/api/vector/new", VECTOR).status_code == 200 and "steerd_store_writable 1" in one.get("/metrics").text
    place = one.folder / "store.sqlite"
    place.rename(one.folder / "away")
    assert "steerd_store_writable 0" in one.get("/metrics").text
    for _ in range(3):
        refused(one.post("/api/vector/new", VECTOR), "put the file back")
    assert one.log().count("nothing more is kept") == 1
    listed = one.post("/api/vector/list-owned", {})
    assert listed.status_code == 200, listed.text
    (one.folder / "away").rename(place)
    assert one.post("/api/vector/new", VECTOR).status_code == 200 and "steerd_store_writable 1" in one.get("/metrics").text


@pytest.mark.parametrize("damage", ["header", "pages"])
def test_a_damaged_store_is_refused_or_set_aside(start_daemon, tmp_path, damage):
    place = tmp_path / "store.sqlite"
    one = start_daemon(store=str(place))
    assert one.post("/api/vector/new", VECTOR).status_code == 200
    one.finish()
    data = bytearray(place.read_bytes())
    if damage == "header":  # its name stays: a file that says it is another's is never touched
        data[16:24] = b"\xff" * 8
    else:
        for page in range(2, len(data) // 8192):
            data[page * 8192:page * 8192 + 200] = b"\xa5" * 200
    place.write_bytes(data)
    status, _, err = run_steerd("serve", *model_options(), "--listen", "127.0.0.1:0", "--store", str(place))
    assert status not in (0, 2) and "--set-aside" in err and str(place) in err, err
    assert place.read_bytes() == data and not list(tmp_path.glob("*.corrupt-*"))
    two = start_daemon(store=str(place), set_aside="yes")
    assert two.post("/api/vector/list-owned", {}).json()["vectors"] == []
    assert two.post("/api/vector/new", VECTOR).status_code == 200
    aside = [path for path in tmp_path.glob("store.sqlite.corrupt-*") if not path.name.endswith("-wal")]
    assert len(aside) == 1 and aside[0].read_bytes() == data
    assert "a damaged store was set aside" in two.log()
