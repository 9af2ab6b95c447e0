"""Finished replies that the daemon keeps: never older than the last write that was answered, the same bytes as a fresh
one, bounded, and shared by all who ask."""
import re
import sqlite3
import threading
import time

import pytest

from conftest import MODEL, VECTORS, Session, model_options, run_steerd
from test_features import read_events

SOURCE = "1-res-relu"
FEATURE = f"/api/feature/{MODEL}/{SOURCE}/"
SEEN_SECONDS = 5  # a foreign program's write is looked for once a second; the rest is for a busy machine


@pytest.fixture
def daemon(start_daemon):
    return start_daemon()


def hits(daemon):
    return int(re.search(r"^steerd_kept_hits_total (\d+)$", daemon.get("/metrics").text, re.M).group(1))


def settle(daemon, path):
    """Asks until the reply is one that was kept: the first request computes and stores what the dictionary alone tells."""
    for _ in range(5):
        before = hits(daemon)
        reply = daemon.get(path)
        if hits(daemon) == before + 1:
            return reply
    pytest.fail(f"{path} is never kept")


def explain(daemon, index, text):
    reply = daemon.post("/api/explanation/new", json={"modelId": MODEL, "layer": SOURCE, "index": str(index), "description": text})
    assert reply.status_code == 200, reply.text
    return reply.json()["id"]


def texts(reply):
    return [row["description"] for row in reply.json()["explanations"]]


def test_same_reply_with_its_own_id(daemon):
    fresh = daemon.get(FEATURE + "3")
    kept = settle(daemon, FEATURE + "3")
    other = daemon.get(FEATURE + "3", headers={"X-Request-Id": "mine"})
    assert fresh.content == kept.content == other.content and kept.status_code == 200
    assert other.headers["X-Request-Id"] == "mine" and other.headers.get("Content-Length") == kept.headers["Content-Length"]
    assert len({one.headers["X-Request-Id"] for one in (fresh, kept, other)}) == 3
    drop = ("X-Request-Id", "Date")
    plain = [sorted((k, v) for k, v in one.headers.items() if k not in drop) for one in (fresh, kept, other)]
    assert plain[0] == plain[1] == plain[2]


def test_forms_of_one_reply(daemon):
    """gzip and not, with an origin and without, HEAD: in any order, each its own headers."""
    settle(daemon, FEATURE + "3")
    origin = {"Origin": "http://localhost:3000"}
    for _ in range(2):
        plain = daemon.get(FEATURE + "3", headers={"Accept-Encoding": "identity"})
        packed = daemon.get(FEATURE + "3", headers={"Accept-Encoding": "gzip"})
        page = daemon.get(FEATURE + "3", headers={"Accept-Encoding": "gzip", **origin})
        head = daemon.client.head(FEATURE + "3", headers={"Accept-Encoding": "identity"})
        assert plain.content == packed.content == page.content
        assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
        assert "Access-Control-Allow-Origin" not in packed.headers
        assert page.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        assert head.headers["Content-Length"] == plain.headers["Content-Length"] and head.content == b""


def test_other_targets_are_other_replies(daemon):
    whole = settle(daemon, FEATURE + "3").json()
    assert settle(daemon, FEATURE + "4").json()["index"] == "4"
    assert daemon.get(FEATURE + "3?maxActivations=1").json()["index"] == whole["index"] == "3"
    assert daemon.get(FEATURE + "3?maxActivations=no").status_code == 400
    assert daemon.get(FEATURE + "96").status_code == 404
    assert daemon.get(FEATURE + "96").status_code == 404


def test_keys_are_asked_for_first(start_daemon, tmp_path):
    (tmp_path / "keys").write_text("a-key-of-sixteen-letters\n")
    daemon = start_daemon(keys=str(tmp_path / "keys"))
    key = {"X-Api-Key": "a-key-of-sixteen-letters"}
    for _ in range(3):
        assert daemon.get(FEATURE + "3", headers=key).status_code == 200
    assert daemon.get(FEATURE + "3").status_code == 401


def test_never_older_than_an_answered_write(daemon):
    """One writes and reads, three others keep the reply warm all the while."""
    target, stop, odd = FEATURE + "7", threading.Event(), []

    def read():
        session = Session(daemon.url)
        while not stop.is_set():
            if session.get(target).status_code != 200:
                odd.append("a reader was refused")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for one in readers:
        one.start()
    try:
        for i in range(40):
            number = explain(daemon, 7, f"text {i}")
            assert f"text {i}" in texts(daemon.get(target)), i
            assert daemon.get(f"/api/explanation/{number}").json()["description"] == f"text {i}"
            assert daemon.post(f"/api/explanation/{number}/delete").status_code == 200
            assert f"text {i}" not in texts(daemon.get(target)), i
            assert daemon.get(f"/api/explanation/{number}").status_code == 404, i
    finally:
        stop.set()
        for one in readers:
            one.join()
    assert not odd and hits(daemon) > 0


def test_statistics_show_when_their_job_is_done(daemon, tmp_path):
    corpus = tmp_path / "lines.txt"
    corpus.write_text("the ship is at sea\nthe the the\n")
    lists = [f"/v1/lab/dictionaries/{MODEL}/{SOURCE}" + end for end in ("", "/density", "/features?limit=5")]
    assert [settle(daemon, path).json().get("nTokens") for path in lists[1:2]] == [None]
    assert settle(daemon, FEATURE + "3").json()["conventions"]["corpus"] is None
    before = {path: settle(daemon, path).content for path in lists}
    job = daemon.post("/v1/jobs", json={"kind": "stats", "modelId": MODEL, "source": SOURCE, "corpus": str(corpus), "lines": True})
    assert list(read_events(daemon, job.json()["id"]))[-1]["state"] == "done"
    assert daemon.get(FEATURE + "3").json()["conventions"]["corpus"] is not None
    assert daemon.get(lists[1]).json()["nTokens"] > 0
    assert all(daemon.get(path).content != before[path] for path in lists)


def test_other_programs(daemon):
    """Another steerd is kept out; what a foreign program writes past the lock is seen soon."""
    number = explain(daemon, 9, "written by a person")
    settle(daemon, FEATURE + "9")
    store = daemon.folder / "store.sqlite"
    status, _, says = run_steerd("import", str(daemon.folder), "--store", str(store))
    assert status == 1 and "in use by process" in says, says
    with sqlite3.connect(store, timeout=10) as foreign:
        foreign.execute("DELETE FROM explanations WHERE feature = (SELECT feature FROM explanations WHERE description = ?)",
                        ("written by a person",))
    foreign.close()
    end = time.monotonic() + SEEN_SECONDS
    while "written by a person" in texts(daemon.get(FEATURE + "9")):
        assert time.monotonic() < end, "a foreign write is never seen"
        time.sleep(0.05)
    assert number


def test_bounded_and_off(start_daemon):
    small = start_daemon(reply_cache=1 << 20)
    for i in range(96):
        for most in range(1, 9):
            assert small.get(f"{FEATURE}{i}?maxActivations={most}").status_code == 200
    kept = int(re.search(r"^steerd_kept_bytes (\d+)$", small.get("/metrics").text, re.M).group(1))
    assert 1 << 19 < kept <= 1 << 20
    off = start_daemon(reply_cache=0)
    first = off.get(FEATURE + "3")
    assert all(off.get(FEATURE + "3").content == first.content for _ in range(3)) and hits(off) == 0


def test_without_a_store(start_daemon):
    daemon = start_daemon(store="")
    assert settle(daemon, FEATURE + "3").json()["index"] == "3"


def test_sources_that_come_and_go(daemon):
    relu = VECTORS / MODEL / "sources" / SOURCE
    before = settle(daemon, FEATURE + "3").content
    assert daemon.client.delete(f"/v1/sources/{MODEL}/{SOURCE}").status_code == 200
    assert daemon.get(FEATURE + "3").status_code == 404
    other = VECTORS / MODEL / "sources" / "1-res-old"
    assert daemon.post("/v1/sources", {"source": SOURCE, "path": str(other)}).status_code == 201
    assert daemon.get(FEATURE + "3").content != before, "another dictionary has the name now"
    assert daemon.client.delete(f"/v1/sources/{MODEL}/{SOURCE}").status_code == 200
    assert daemon.post("/v1/sources", {"source": SOURCE, "path": str(relu)}).status_code == 201
    assert settle(daemon, FEATURE + "3").json()["index"] == "3"


def test_a_kept_reply_is_a_use_of_its_source(daemon):
    def used():
        return next(row["lastUsedAt"] for row in daemon.get("/v1/sources").json()["sources"] if row["source"] == SOURCE)

    settle(daemon, FEATURE + "5")
    time.sleep(1.1)  # within a second the daemon's own write is seen once more, as a foreigner's would be
    settle(daemon, FEATURE + "5")
    before = used()
    time.sleep(1.1)  # the clock of uses counts seconds
    hit = hits(daemon)
    daemon.get(FEATURE + "5")
    assert hits(daemon) == hit + 1 and used() > before
