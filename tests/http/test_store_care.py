"""A store beside a running daemon: exported, looked through and copied while the daemon has it and goes on writing."""
import filecmp
import os
import pathlib
import sqlite3
import threading

import pytest

from conftest import MODEL, run_steerd

SOURCE = "1-res-relu"


@pytest.fixture
def daemon(start_daemon, tmp_path):
    """One whose store, which outlives it, has statistics and explanations of a source."""
    one = start_daemon(store=tmp_path / "kept.sqlite")
    one.store = str(tmp_path / "kept.sqlite")
    corpus = pathlib.Path(one.folder) / "lines.txt"
    corpus.write_text("the ship is at sea\nthe the the\n")
    job = one.post("/v1/jobs", json={"kind": "stats", "modelId": MODEL, "source": SOURCE, "corpus": str(corpus), "lines": True})
    with one.client.get(f"/v1/jobs/{job.json()['id']}/events", stream=True) as events:
        assert '"state":"done"' in events.text
    explain(one, 3, "of the first moment")
    return one


def explain(daemon, index, text):
    reply = daemon.post("/api/explanation/new", json={"modelId": MODEL, "layer": SOURCE, "index": str(index), "description": text})
    assert reply.status_code == 200, reply.text


def export(store, out):
    status, _, says = run_steerd("export", MODEL, SOURCE, "--store", str(store), "--out", str(out))
    assert status == 0, says
    return {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}


def same(one, other):
    return one.keys() == other.keys() and all(filecmp.cmp(one[name], other[name], shallow=False) for name in one)


def test_an_export_is_the_same_beside_a_daemon_and_without(daemon, tmp_path):
    beside = export(daemon.store, tmp_path / "beside")
    assert daemon.get("/health").status_code == 200
    daemon.finish()
    assert same(beside, export(daemon.store, tmp_path / "alone"))
    assert any(name.startswith("explanations/") for name in beside)


def test_a_daemon_goes_on_meanwhile(daemon, tmp_path):
    """Whatever it writes: an export is of one moment, a check finds nothing, and no request fails."""
    stop, odd = threading.Event(), []

    def write():
        for i in range(10**6):
            if stop.is_set():
                return
            try:
                explain(daemon, i % 96, f"text {i}")
            except AssertionError as bad:
                odd.append(str(bad))
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(3):
            export(daemon.store, tmp_path / str(i))
            status, says, error = run_steerd("store", "check", daemon.store)
            assert status == 0 and "sound: every page and index" in says, says + error
            status, _, error = run_steerd("store", "backup", daemon.store, "--out", str(tmp_path / f"{i}.sqlite"))
            assert status == 0, error
    finally:
        stop.set()
        writer.join()
    assert not odd, odd
    daemon.finish()  # which must still end in order, and cleanly
    assert not os.path.exists(daemon.store + "-wal")


def test_a_backup_serves(daemon, start_daemon, tmp_path):
    copy = tmp_path / "copy.sqlite"
    status, _, says = run_steerd("store", "backup", daemon.store, f"--out={copy}")
    assert status == 0 and str(copy) in says, says
    assert oct(copy.stat().st_mode)[-3:] == "600" and sorted(p.name for p in tmp_path.glob("copy*")) == ["copy.sqlite"]
    explain(daemon, 3, "of a later moment")
    other = start_daemon(store=copy)
    texts = [row["description"] for row in other.get(f"/api/feature/{MODEL}/{SOURCE}/3").json()["explanations"]]
    assert "of the first moment" in texts and "of a later moment" not in texts
    status, _, says = run_steerd("store", "backup", daemon.store, "--out", str(copy))
    assert status == 2 and "is there already" in says, says


def test_a_check_tells_what_is_there_and_what_is_damaged(daemon, tmp_path):
    status, says, _ = run_steerd("store", "check", "--store", daemon.store)
    assert status == 0 and [line.split()[1] for line in says.splitlines() if line.split()[0] == "features"] == ["96"], says
    with sqlite3.connect(daemon.store, timeout=10) as foreign:
        foreign.execute("UPDATE explanations SET description = 'another text' WHERE description = 'of the first moment'")
    foreign.close()
    status, says, error = run_steerd("store", "check", daemon.store)
    assert status == 1 and "(1 damaged)" in says and "damaged: explanations " in says, says
    assert "1 of " in error and "restore the file from a copy" in error, error


def test_a_damaged_page_is_found(daemon, tmp_path):
    daemon.finish()
    data = bytearray(pathlib.Path(daemon.store).read_bytes())
    page = len(data) // 8192 // 2 * 8192
    data[page:page + 16] = b"\xff" * 16
    spoilt = tmp_path / "spoilt.sqlite"
    spoilt.write_bytes(data)
    status, _, error = run_steerd("store", "check", str(spoilt))
    assert status == 1 and str(spoilt) in error and "damaged" in error, error
    assert spoilt.read_bytes() == data and not list(tmp_path.glob("spoilt.sqlite-*"))


@pytest.mark.parametrize("arguments, says", [
    ([], "'check' or 'backup'"),
    (["mend", "x"], "found 'mend'"),
    (["backup", "x"], "--out COPY"),
    (["check", "x", "--out", "y"], "leave out --out"),
    (["check"], "needs FILE"),
    (["check", "x", "--full"], "unknown"),
])
def test_what_a_command_cannot_be(arguments, says):
    status, out, error = run_steerd("store", *arguments)
    assert status == 2 and says in error and out == "", error


@pytest.mark.parametrize("verb", [["check"], ["backup", "--out", "copy"]])
def test_a_file_that_is_no_store(tmp_path, verb):
    text = tmp_path / "text.sqlite"
    text.write_text("not a database " * 20)
    for file, says in ((text, "not a steerd store"), (tmp_path / "none", "No such file"), (tmp_path, "not a regular file")):
        status, _, error = run_steerd("store", verb[0], str(file), *verb[1:])
        assert status == 1 and says in error and str(file) in error, error
    assert [p.name for p in tmp_path.iterdir()] == ["text.sqlite"]
