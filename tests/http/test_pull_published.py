"""`steerd pull --labels` and `--statistics`: what Neuronpedia publishes of a dictionary's features, against a bucket of our own, into a
store, and to who asks."""
import contextlib
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest

from bucket import Bucket
from conftest import ROOT, binary, run_steerd

MODEL = ROOT / "tests" / "vectors" / "tiny-gpt2" / "model"
SOURCE = ROOT / "tests" / "vectors" / "tiny-gpt2" / "sources" / "1-res-relu"
TOP = "v1/gpt2-small/1-res-jb/"

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="the program curl is not there")


def packed(rows):
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def explanation(index, text, **more):
    """A row as the bucket has it: the columns of Neuronpedia's table, an embedding as a text among them."""
    return {"id": f"clx{index:022d}", "modelId": "gpt2-small", "layer": "1-res-jb", "index": str(index), "description": text,
            "authorId": "clkht01d40000jv08hvalcvly", "triggeredByUserId": None, "notes": None, "scoreV1": 0, "scoreV2": None,
            "embedding": json.dumps([0.25] * 256), "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini",
            "umap_x": 0, "umap_y": 0, "umap_cluster": 0, "umap_log_feature_sparsity": 0,
            "createdAt": "2024-07-01T12:00:00.000Z", "updatedAt": "2024-07-01T12:00:00.000Z", **more}


def feature(index):
    return {"modelId": "gpt2-small", "layer": "1-res-jb", "index": str(index), "maxActApprox": 3.5, "frac_nonzero": 0.25,
            "pos_str": ["a"], "pos_values": [1.5], "neg_str": ["b"], "neg_values": [-1.5]}


@pytest.fixture
def bucket():
    bucket = Bucket({
        TOP + "explanations/batch-0.jsonl.gz": packed([explanation(0, "references to the Bible"), explanation(1, "numbers")]),
        TOP + "explanations/batch-1.jsonl.gz": packed([explanation(2, "names of cities")]),
        TOP + "features/batch-0.jsonl.gz": packed([feature(0), feature(1)]),
        TOP + "activations/batch-0.jsonl.gz": packed([{"modelId": "gpt2-small", "layer": "1-res-jb", "index": "0", "tokens": ["a", "b"],
                                                       "values": [0, 3.5], "maxValue": 3.5, "maxValueTokenIndex": 1, "minValue": 0}]),
        TOP + "release.jsonl": b"{}\n", TOP + "jlens/fit.safetensors": b"x" * 100, TOP + "explanations/notes.txt": b"x" * 50,
        "v1/gpt2-small/2-res-jb/explanations/batch-0.jsonl.gz": packed([explanation(0, "of another", layer="2-res-jb")]),
        "v1/gpt2-small/3-att-kk/features/batch-0.jsonl.gz": packed([feature(0)]),
    })
    yield bucket
    bucket.close()


@pytest.fixture
def place(bucket, tmp_path):
    clean = {name: "" for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "http_proxy", "https_proxy", "all_proxy")}
    return {**clean, "NEURONPEDIA_DATASETS": bucket.url, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}


def pull(place, *arguments, **more):
    return run_steerd("pull", *arguments, environment={**place, **more})


def folder_of(place, name="gpt2-small/1-res-jb"):
    return ROOT / place["HOME"] / ".cache" / "steerd" / "published" / name


def there(place):
    folder = folder_of(place)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


LABELS = ["explanations/batch-0.jsonl.gz", "explanations/batch-1.jsonl.gz"]


def test_labels_come_and_a_notebook_reads_them(bucket, place, tmp_path, start_daemon):
    status, out, err = pull(place, "gpt2/1-res-jb", "--labels", HF_TOKEN="hf_secret")
    assert status == 0, err
    assert there(place) == {name: bucket.files[TOP + name] for name in LABELS}
    assert "2 files of gpt2-small/1-res-jb, " in out and f"steerd import '{folder_of(place)}' --store FILE" in out
    assert all(authorization is None for _, _, authorization in bucket.requests), "the hub's token went to another host"
    store = tmp_path / "s.db"
    status, out, err = run_steerd("import", str(folder_of(place)), "--store", str(store))
    assert status == 0 and "3 explanations" in err, err
    with contextlib.closing(sqlite3.connect(store)) as db:
        assert db.execute("SELECT model, name FROM sources").fetchall() == [("gpt2-small", "1-res-jb")], "the demo's are nobody's wish"
    daemon = start_daemon(["--model", f"gpt2-small={MODEL}", "--source", f"gpt2-small/1-res-jb={SOURCE}"], store=store)
    rows = daemon.get("/api/explanation/export?modelId=gpt2-small&saeId=1-res-jb").json()
    assert [(row["index"], row["description"]) for row in rows] == [("0", "references to the Bible"), ("1", "numbers"), ("2", "names of cities")]
    found = daemon.post("/api/explanation/search", {"modelId": "gpt2-small", "layers": ["1-res-jb"], "query": "bible"}).json()
    assert [row["index"] for row in found["results"]] == ["0"]


def test_statistics_come_with_labels(bucket, place, tmp_path):
    status, out, err = pull(place, "gpt2-small/1-res-jb", "--statistics")
    assert status == 0, err
    assert sorted(there(place)) == ["activations/batch-0.jsonl.gz", *LABELS, "features/batch-0.jsonl.gz"]
    status, _, err = run_steerd("import", str(folder_of(place)), "--store", str(tmp_path / "s.db"))
    assert status == 0 and "2 features, 1 examples and 3 explanations" in err, err


def test_a_release_answers_to_its_own_name_for_it(bucket, place):
    status, out, err = pull(place, "gpt2-small-res-jb/blocks.1.hook_resid_pre", "--labels", "--list")
    assert status == 0, err
    assert "2 files of gpt2-small/1-res-jb, " in out and "  explanations/batch-1.jsonl.gz" in out
    assert not bucket.fetched() and not folder_of(place).exists()


def test_what_is_there_is_not_fetched_again_and_what_is_gone_goes(bucket, place):
    assert pull(place, "gpt2-small/1-res-jb", "--statistics")[0] == 0
    before = len(bucket.fetched())
    status, out, err = pull(place, "gpt2-small/1-res-jb", "--labels")
    assert status == 0 and len(bucket.fetched()) == before and "(0.0 kB fetched)" in out, err
    del bucket.files[TOP + LABELS[1]]
    bucket.files[TOP + LABELS[0]] = packed([explanation(5, "all of it in one batch now")])
    assert pull(place, "gpt2-small/1-res-jb", "--labels")[0] == 0
    assert sorted(there(place)) == ["activations/batch-0.jsonl.gz", LABELS[0], "features/batch-0.jsonl.gz"]
    assert there(place)[LABELS[0]] == bucket.files[TOP + LABELS[0]]


def test_a_listing_comes_in_pages(bucket, place):
    bucket.page = 2
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--statistics")
    assert status == 0, err
    assert len([path for path, _, _ in bucket.requests if "?" in path]) == 4 and len(there(place)) == 4


def test_what_broke_off_goes_on_where_it_ended(bucket, place):
    bucket.cut[TOP + LABELS[0]] = 100
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--labels")
    assert status == 0, err
    assert there(place)[LABELS[0]] == bucket.files[TOP + LABELS[0]]
    assert "bytes=100-" in [asked for _, asked, _ in bucket.requests]


def test_the_beginning_of_another_version_is_not_its_beginning(bucket, place):
    """A batch that is published anew while half of the older one is there: its tag is another, so it comes whole."""
    key = TOP + LABELS[0]
    bucket.cut[key] = 100
    bucket.hold = lambda handler: bucket.fail.update({key: 403})
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--labels")
    assert status != 0 and [len(data) for data in there(place).values()] == [100], err
    bucket.fail, bucket.hold = {}, None
    bucket.files[key] = bytes(len(bucket.files[key]))
    assert pull(place, "gpt2-small/1-res-jb", "--labels")[0] == 0
    assert there(place) == {name: bucket.files[TOP + name] for name in LABELS}, "the leftover is swept, too"


def test_an_interrupt_keeps_what_came(bucket, place):
    reached = threading.Event()
    bucket.cut[TOP + LABELS[1]] = 100

    def hold(handler):
        if handler.path.endswith("batch-1.jsonl.gz"):
            reached.set()
            threading.Event().wait(20)
    bucket.hold = hold
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STEERD_")}
    process = subprocess.Popen([binary(), "pull", "gpt2-small/1-res-jb", "--labels"], stderr=subprocess.PIPE, text=True, env={**clean, **place})
    assert reached.wait(20)
    process.send_signal(signal.SIGINT)
    assert "what has come is kept" in process.communicate(timeout=20)[1] and process.returncode != 0
    names = sorted(there(place))
    assert names[0] == LABELS[0] and names[1].startswith(LABELS[1]) and names[1].endswith(".incomplete")
    bucket.hold = None
    assert pull(place, "gpt2-small/1-res-jb", "--labels")[0] == 0
    assert sorted(there(place)) == LABELS


def test_two_at_once_bring_each_file_once(bucket, place):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STEERD_")}
    ones = [subprocess.Popen([binary(), "pull", "gpt2-small/1-res-jb", "--statistics"], stdout=subprocess.DEVNULL, env={**clean, **place}) for _ in range(3)]
    assert [one.wait(30) for one in ones] == [0, 0, 0]
    assert sorted(bucket.fetched()) == ["/" + TOP + name for name in sorted(there(place))]


# ---- what is refused ----


@pytest.mark.parametrize("name, flag, words", [
    ("gpt2-small/1-res-kb", "--labels", "of gpt2-small there are 3 sources, such as '1-res-jb'"),
    ("gpt3/1-res-jb", "--labels", "nothing is published of 'gpt3/1-res-jb': there is nothing of that model"),
    ("gpt2-small/3-att-kk", "--labels", "no labels of 'gpt2-small/3-att-kk' are published; --statistics brings"),
    ("gpt2-small", "--labels", "'gpt2-small' is no MODEL/SOURCE"),
    ("../../etc/1-res-jb", "--labels", "is no MODEL/SOURCE"),
    ("gpt2-small/..", "--labels", "is no MODEL/SOURCE"),
])
def test_names_that_lead_nowhere(bucket, place, name, flag, words):
    status, _, err = pull(place, name, flag)
    assert status != 0 and words in err, err
    assert not bucket.fetched()


def test_flags_that_exclude_each_other(bucket, place):
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--labels", "--statistics")
    assert status != 0 and "the latter brings both" in err and not bucket.requests


@pytest.mark.parametrize("variables, words", [
    ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set: nothing is fetched"),
    ({"NEURONPEDIA_DATASETS": "ftp://x"}, "NEURONPEDIA_DATASETS: 'ftp://x' is not https://HOST or http://HOST"),
    ({"NEURONPEDIA_DATASETS": "http://127.0.0.1:9"}, "cannot fetch 'http://127.0.0.1:9/"),
    ({"HOME": ""}, "neither XDG_CACHE_HOME nor HOME is set"),
])
def test_surroundings_that_will_not_do(bucket, place, variables, words):
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--labels", **variables)
    assert status != 0 and words in err and not bucket.fetched()


def test_a_file_that_changes_its_size_under_way_is_not_kept(bucket, place):
    bucket.listing = bucket.tell("list-type=2&prefix=" + TOP)
    bucket.files[TOP + LABELS[0]] += b"more"
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--labels")
    assert status != 0 and "where the listing tells of" in err and there(place) == {}


def test_a_server_that_fails_is_told_of(bucket, place):
    bucket.fail[TOP + LABELS[0]] = 403
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--labels")
    assert status != 0 and "answered with status 403" in err


@pytest.mark.parametrize("text", [b"", b"<html>hello</html>", b"<ListBucketResult><Contents><Key>", b"\0" * 200])
def test_a_listing_that_is_none_is_refused(bucket, place, text):
    bucket.listing = text
    status, _, err = pull(place, "gpt2-small/1-res-jb", "--labels")
    assert status != 0 and "no listing of a bucket" in err, err


@pytest.mark.parametrize("key", ["explanations/../../../../x", "explanations/batch-0.jsonl.gz/../../x", "explanations//batch-1.jsonl",
                                 "explanations/batch-.jsonl.gz", "explanations/batch-1.jsonl.gz\nx", "/etc/passwd"])
def test_names_of_files_do_not_lead_out_of_the_folder(bucket, place, key):
    bucket.files[TOP + key] = b"hostile"
    assert pull(place, "gpt2-small/1-res-jb", "--labels")[0] == 0
    assert sorted(there(place)) == LABELS
