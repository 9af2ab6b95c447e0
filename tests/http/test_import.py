"""Statistics as Neuronpedia's dataset batches: those that come with a dictionary are loaded at the first start, and the command
line takes them out of a store and into another."""
import gzip
import json
import os
import pathlib
import shutil

import pytest

from conftest import ROOT, run_steerd

DEMO = ROOT / "config" / "demo"
SOURCE = "2-res-demo"
PARTS = ("features", "activations", "explanations")
BATCH = pathlib.Path("features", "batch-0.jsonl.gz")


@pytest.fixture
def folder(tmp_path):
    """A copy of the demo, free to be spoilt."""
    return pathlib.Path(shutil.copytree(DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("training")))


def served(folder):
    return {"models": {"demo": folder}, "sources": {f"demo/{SOURCE}": folder / "sources" / SOURCE}}


def statistics(folder):
    return folder / "sources" / SOURCE / "statistics"


def lines_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_first_start_loads_what_came_along(start_daemon, folder, tmp_path):
    store = tmp_path / "store.sqlite"
    daemon = start_daemon(**served(folder), store=store)
    assert daemon.log().count("from its folder") == 1
    dump = {int(line["index"]): line for line in lines_of(statistics(folder) / BATCH)}
    about = json.loads((statistics(folder) / "source.jsonl").read_text())
    examples = [line for line in lines_of(statistics(folder) / "activations" / "batch-0.jsonl.gz") if line["index"] == "100"]
    got = daemon.get(f"/api/feature/demo/{SOURCE}/100").json()
    for name in ("frac_nonzero", "maxActApprox", "mean", "n_fired", "pos_str", "pos_values", "topkCosSimIndices",
                 "freq_hist_data_bar_heights", "logits_hist_data_bar_values"):
        assert got[name] == dump[100][name], name
    assert got["n_tokens"] == about["n_tokens"] and got["conventions"]["corpusHash"] == about["conventions"]["corpusHash"]
    # Equal maxima keep the order they were put in.
    examples.sort(key=lambda line: -line["maxValue"])
    assert [line["tokens"] for line in got["activations"]] == [line["tokens"] for line in examples]
    assert [line["values"] for line in got["activations"]] == [line["values"] for line in examples]
    assert got["explanations"][0]["origin"] == "automatic"
    found = daemon.post("/api/explanation/search", {"modelId": "demo", "layers": [SOURCE], "query": "fires on"}).json()
    assert found["results"]
    daemon.finish()

    again = start_daemon(**served(folder), store=store)
    assert "from its folder" not in again.log()
    assert len(again.get(f"/api/feature/demo/{SOURCE}/100").json()["activations"]) == len(examples)


def spoil_cut(folder):
    path = statistics(folder) / BATCH
    path.write_bytes(path.read_bytes()[:-100])
    return "features/batch-0.jsonl.gz"


def spoil_line(folder):
    path = statistics(folder) / "features" / "batch-0.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"index":"4"', b'"index":"999999"')
    path.write_bytes(gzip.compress(b"".join(lines)))
    return "line 5"


def spoil_identity(folder):
    path = statistics(folder) / "source.jsonl"
    path.write_text(path.read_text().replace("256 x 2048", "256 x 4096"))
    return "another dictionary"


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_line, spoil_identity])
def test_spoilt_statistics_are_a_warning(start_daemon, folder, tmp_path, spoil):
    says = spoil(folder)
    daemon = start_daemon(**served(folder), store=tmp_path / "store.sqlite")
    warnings = [line for line in daemon.log().splitlines() if "are not loaded" in line]
    assert len(warnings) == 1 and says in warnings[0], daemon.log()
    feature = daemon.get(f"/api/feature/demo/{SOURCE}/100").json()
    assert feature["n_tokens"] is None and feature["pos_str"]  # the dictionary alone still answers
    daemon.finish()

    # Mended, the next start loads them.
    shutil.rmtree(statistics(folder))
    shutil.copytree(statistics(DEMO), statistics(folder))
    mended = start_daemon(**served(folder), store=tmp_path / "store.sqlite")
    assert mended.get(f"/api/feature/demo/{SOURCE}/100").json()["n_tokens"] > 0


def without_ids(path):
    """An explanation's id is the store's: it says how many sources that one knew first."""
    return [{key: value for key, value in line.items() if key != "id"} for line in lines_of(path)]


def test_command_line_round_trip(start_daemon, folder, tmp_path):
    first, second = tmp_path / "first.sqlite", tmp_path / "second.sqlite"
    for store, source in ((first, statistics(folder)), (second, tmp_path / "out")):
        status, _, log = run_steerd("import", str(source), "--store", str(store))
        assert status == 0 and "2048 features" in log, log
        status, _, log = run_steerd("export", "demo", SOURCE, "--store", str(store), "--out", str(tmp_path / "out") + "2" * (store == second))
        assert status == 0, log
    for path in sorted(statistics(folder).rglob("*.gz")):
        name = path.relative_to(statistics(folder))
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes(), name
        assert without_ids(tmp_path / "out" / name) == without_ids(path), name

    # A store that was filled before any dictionary was opened keeps what it has when one is.
    shutil.rmtree(statistics(folder))
    daemon = start_daemon(**served(folder), store=second)
    assert daemon.get(f"/api/feature/demo/{SOURCE}/100").json()["n_tokens"] > 0


def test_command_line_refusals(folder, tmp_path):
    store = ["--store", str(tmp_path / "store.sqlite")]
    for status, words, *arguments in (
            (2, "needs FOLDER", "import", *store),
            (2, "needs --store", "import", str(statistics(folder))),
            (2, "MODEL/SOURCE", "import", str(statistics(folder)), "--as", "demo", *store),
            (1, "not a folder", "import", str(tmp_path / "none"), *store),
            (1, "holds no batches", "import", str(tmp_path), *store),
            (2, "needs MODEL, SOURCE and --out", "export", "demo", SOURCE, *store),
            (1, "knows no source 'demo/none'", "export", "demo", "none", "--out", str(tmp_path / "x"), *store),
            (2, "--digits", "export", "demo", SOURCE, "--digits", "1", "--out", str(tmp_path / "x"), *store)):
        got, _, log = run_steerd(*arguments)
        assert got == status and words in log and len(log.splitlines()) == 1, (arguments, got, log)
    assert not os.path.exists(tmp_path / "x")
    for verb in ("import", "export"):
        status, out, _ = run_steerd("help", verb)
        assert status == 0 and f"steerd {verb}" in out
