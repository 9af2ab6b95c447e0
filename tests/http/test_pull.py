"""`steerd pull`: models and dictionaries from a hub into the cache, against a hub of our own."""
import hashlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from conftest import ROOT, binary, run_steerd
from hub import COMMIT, Hub, git_hash

MODEL = ROOT / "tests" / "vectors" / "tiny-gpt2" / "model"
SOURCE = ROOT / "tests" / "vectors" / "tiny-gpt2" / "sources" / "1-res-relu"
GPT2, SAES = "openai-community/gpt2", "jbloom/GPT2-Small-SAEs-Reformatted"
LAYER = "blocks.1.hook_resid_pre"

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="the program curl is not there")


def read(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def hub():
    """GPT-2's repository with files that no model needs, and two dictionaries; contents are the tiny model's."""
    model = {name: data for name, data in read(MODEL).items() if name in ("config.json", "model.safetensors", "tokenizer.json")}
    other = {"README.md": b"# GPT-2", "pytorch_model.bin": b"x" * 5000, "onnx/model.onnx": b"x" * 5000, ".gitattributes": b"*",
             "64.tflite": b"x" * 3000, "generation_config.json": b"{}"}
    saes = {f"{layer}/{name}": data + end for layer, end in ((LAYER, b""), ("blocks.10.hook_resid_pre", b" ")) for name, data in read(SOURCE).items()}
    hub = Hub({GPT2: {**model, **other}, SAES: saes})
    yield hub
    hub.close()


@pytest.fixture
def place(hub, tmp_path):
    """The environment of a user whose cache is empty."""
    clean = {name: "" for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "all_proxy")}
    return {**clean, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}


def pull(place, *arguments, **more):
    return run_steerd("pull", *arguments, environment={**place, **more})


def folder_of(place, repository):
    return ROOT / place["HF_HOME"] / "hub" / ("models--" + repository.replace("/", "--"))


def snapshot(place, repository):
    """{path: content} of the snapshot that the revision main is noted as."""
    folder = folder_of(place, repository)
    top = folder / "snapshots" / (folder / "refs" / "main").read_text()
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


# ---- what comes, and that it is served ----


def test_a_model_comes_by_name_and_is_served_by_it(hub, place, start_daemon):
    status, out, err = pull(place, "gpt2")
    assert status == 0, err
    assert "4 files of openai-community/gpt2" in out and "serve it: steerd serve --model gpt2\n" in out
    assert snapshot(place, GPT2) == {name: hub.files[GPT2][name] for name in
                                     ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")}
    assert sorted(hub.fetched()) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    daemon = start_daemon(["--model", "gpt2"], environment=place)
    assert "model gpt2-small: gpt2" in daemon.log()


def test_a_dictionary_comes_by_either_name_and_is_served(hub, place, start_daemon):
    status, out, err = pull(place, "gpt2-small/1-res-jb")
    assert status == 0, err
    assert "steerd serve --model gpt2-small --source gpt2-small/1-res-jb" in out and "steerd pull gpt2-small" in out
    assert snapshot(place, SAES) == {f"{LAYER}/{name}": data for name, data in read(SOURCE).items()}
    daemon = start_daemon(["--model", f"gpt2-small={MODEL}", "--source", "gpt2-small/1-res-jb"], environment=place)
    assert "1-res-jb: relu at blocks.1.hook_resid_pre, 96 features" in daemon.log()
    seen = len(hub.fetched())
    for name in ("gpt2-small-res-jb/blocks.1.hook_resid_pre", "gpt2/1-res-jb"):
        status, out, err = pull(place, name)
        assert status == 0 and "(0.0 kB fetched)" in out and len(hub.fetched()) == seen, out + err


def test_the_cache_is_as_the_tools_of_hugging_face_have_it(hub, place):
    assert pull(place, "gpt2")[0] == 0
    folder, files = folder_of(place, GPT2), hub.files[GPT2]
    blobs = {path.name: path.read_bytes() for path in (folder / "blobs").iterdir()}
    assert blobs == {hashlib.sha256(files["model.safetensors"]).hexdigest(): files["model.safetensors"],
                     hashlib.sha256(files["tokenizer.json"]).hexdigest(): files["tokenizer.json"],
                     git_hash(files["config.json"]): files["config.json"],
                     git_hash(files["generation_config.json"]): files["generation_config.json"]}
    assert (folder / "refs" / "main").read_text() == COMMIT
    link = os.readlink(folder / "snapshots" / COMMIT / "config.json")
    assert link == "../../blobs/" + git_hash(files["config.json"])
    assert pull(place, "gpt2-small/1-res-jb")[0] == 0
    link = os.readlink(folder_of(place, SAES) / "snapshots" / COMMIT / LAYER / "cfg.json")
    assert link.startswith("../../../blobs/")


def test_a_list_fetches_nothing(hub, place):
    status, out, err = pull(place, "gpt2", "--list")
    assert status == 0 and "model.safetensors\n" in out and "README" not in out, out + err
    assert hub.fetched() == [] and not (ROOT / place["HF_HOME"] / "hub").exists()
    assert pull(place, "gpt2")[0] == 0
    status, out, _ = pull(place, "gpt2", "--list")
    assert status == 0 and out.count("  (there)\n") == 4


def test_shards_come_with_their_index(hub, place):
    shards = {f"model-0000{i}-of-00002.safetensors": b"s" * (2000 + i) for i in (1, 2)}
    hub.files["a/b"] = {"config.json": b"{}", "tokenizer.model": b"t", "model.safetensors.index.json": b"{}", **shards,
                        "consolidated.safetensors": b"c" * 3000, "original/model-1.safetensors": b"o" * 3000}
    status, _, err = pull(place, "a/b")
    assert status == 0, err
    assert sorted(snapshot(place, "a/b")) == ["config.json", *sorted(shards), "model.safetensors.index.json", "tokenizer.model"]


def test_a_folder_and_a_file_of_any_repository(hub, place):
    hub.files["a/b"] = {"trainer_0/ae.pt": b"1", "trainer_0/config.json": b"{}", "trainer_1/ae.pt": b"2", "config.yaml": b"y", "big.json": b"j" * (2 << 20),
                        "layer_0.safetensors": b"0" * 2000, "layer_1.safetensors": b"1" * 2000}
    status, out, err = pull(place, "a/b/trainer_0")
    assert status == 0 and "steerd inspect '" in out, err
    assert sorted(snapshot(place, "a/b")) == ["trainer_0/ae.pt", "trainer_0/config.json"]
    assert pull(place, "a/b/layer_1.safetensors")[0] == 0
    assert sorted(snapshot(place, "a/b")) == ["config.yaml", "layer_1.safetensors", "trainer_0/ae.pt", "trainer_0/config.json"]


def test_the_tokenizer_of_another_repository_comes_along(hub, place):
    hub.files["a/toy"] = {"config.json": b'{"tokenizer_name": "a/digits"}', "model_final.pth": b"w" * 2000, "model_100.pth": b"w" * 1999}
    hub.files["a/digits"] = {"tokenizer.json": b"{}", "model.safetensors": b"w" * 2000}
    status, _, err = pull(place, "a/toy")
    assert status == 0, err
    assert sorted(snapshot(place, "a/toy")) == ["config.json", "model_final.pth"] and list(snapshot(place, "a/digits")) == ["tokenizer.json"]


def test_a_tokenizer_alone_comes_too(hub, place):
    hub.files["a/digits"] = {"tokenizer.json": b"{}", "README.md": b"r"}
    assert pull(place, "a/digits")[0] == 0 and list(snapshot(place, "a/digits")) == ["tokenizer.json"]


def test_a_revision_is_noted_under_its_name(hub, place):
    hub.revisions.add("step/3000")
    status, _, err = pull(place, "gpt2@step/3000")
    assert status == 0, err
    assert (folder_of(place, GPT2) / "refs" / "step" / "3000").read_text() == COMMIT
    assert not (folder_of(place, GPT2) / "refs" / "main").exists()
    assert pull(place, f"gpt2@{COMMIT}")[0] == 0 and not (folder_of(place, GPT2) / "refs" / COMMIT).exists()


def test_a_new_commit_keeps_what_an_older_one_brought(hub, place):
    assert pull(place, "gpt2-small/1-res-jb")[0] == 0
    hub.commit = "f" * 40
    hub.files[SAES]["blocks.10.hook_resid_pre/cfg.json"] += b" "
    assert pull(place, "gpt2-small/10-res-jb")[0] == 0
    there = snapshot(place, SAES)
    assert len(there) == 2 * len(read(SOURCE)) and f"{LAYER}/cfg.json" in there
    assert all(data == hub.files[SAES][name] for name, data in there.items())


# ---- on the way ----


def test_the_token_goes_to_the_hub_and_not_where_it_sends_us(hub, place):
    hub.token = "hf_secret"
    status, _, err = pull(place, "gpt2", HF_TOKEN="hf_secret")
    assert status == 0, err
    told = {host: {token for h, _, _, token in hub.requests if h == host} for host in ("front", "store")}
    assert told == {"front": {"Bearer hf_secret"}, "store": {None}}


def test_the_token_that_a_login_kept_is_found(hub, place, tmp_path):
    hub.token = "hf_kept"
    (tmp_path / "token").write_text("hf_kept\n")
    assert pull(place, "gpt2")[0] == 0


def test_a_connection_that_breaks_off_is_made_again(hub, place):
    size = len(hub.files[GPT2]["model.safetensors"])
    hub.cut["model.safetensors"] = size // 2

    def mend(_):
        hub.cut.clear()
    hub.hold = mend
    status, _, err = pull(place, "gpt2")
    assert status == 0, err
    ranges = [asked for host, path, asked, _ in hub.requests if host == "store" and "model.safetensors" in path]
    assert ranges == [None, f"bytes={size // 2}-"]
    assert snapshot(place, GPT2)["model.safetensors"] == hub.files[GPT2]["model.safetensors"]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_begun_goes_on_where_it_ended(hub, place, ranges):
    """With a server that sends parts, and one that knows only the whole."""
    data = hub.files[GPT2]["model.safetensors"]
    partial = folder_of(place, GPT2) / "blobs" / (hashlib.sha256(data).hexdigest() + ".incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data[:777])
    hub.ranges = ranges
    status, out, err = pull(place, "gpt2")
    assert status == 0, err
    assert snapshot(place, GPT2)["model.safetensors"] == data and not partial.exists()
    asked = [asked for host, path, asked, _ in hub.requests if host == "store" and "model.safetensors" in path]
    assert asked == (["bytes=777-"] if ranges else ["bytes=777-", None])


def test_an_interrupt_keeps_what_came(hub, place):
    hub.files[GPT2]["model.safetensors"] = random.Random(1).randbytes(1 << 20)
    hub.cut["model.safetensors"] = 600000
    held, go = threading.Event(), threading.Event()
    hub.hold = lambda _: (held.set(), go.wait(20))
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("STEERD_")}, **place}
    process = subprocess.Popen([binary(), "pull", "gpt2"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert held.wait(20)
        partial = next((folder_of(place, GPT2) / "blobs").glob("*.incomplete"))
        deadline = time.monotonic() + 20
        while partial.stat().st_size < 600000 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        go.set()
        process.kill()
        process.wait()
    assert process.returncode == 1 and "the same command goes on" in err, err
    assert partial.stat().st_size == 600000 and not (folder_of(place, GPT2) / "refs" / "main").exists()
    hub.hold, hub.cut = None, {}
    assert pull(place, "gpt2")[0] == 0
    assert ("store", "bytes=600000-") in [(host, asked) for host, _, asked, _ in hub.requests]


def test_two_at_once_bring_each_file_once(hub, place):
    entered, go = threading.Event(), threading.Event()
    hub.hold = lambda _: (entered.set(), go.wait(20))
    results = []
    threads = [threading.Thread(target=lambda: results.append(pull(place, "gpt2"))) for _ in range(2)]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()
    time.sleep(0.5)  # long enough to arrive at the lock; if it is not there yet the test is weaker, not wrong
    go.set()
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in results] == [0, 0], results
    assert sorted(hub.fetched()) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]


# ---- what is refused ----


def test_a_file_that_is_another_is_not_kept(hub, place):
    hub.told["model.safetensors"] = {"lfs": {"sha256": "0" * 64, "size": len(hub.files[GPT2]["model.safetensors"]), "pointerSize": 134}}
    status, _, err = pull(place, "gpt2")
    assert status == 1 and "'model.safetensors' is not what the hub tells of: its SHA-256 is" in err, err
    assert not list((folder_of(place, GPT2) / "blobs").glob("0000*")) and not (folder_of(place, GPT2) / "snapshots").exists()


def test_a_file_of_another_size_is_not_kept(hub, place):
    hub.told["config.json"] = {"size": 7}
    status, _, err = pull(place, "gpt2")
    assert status == 1 and "'config.json' came with" in err and "tells of 7" in err, err


@pytest.mark.parametrize("name, words", [
    ("gpt2-smal", ["did you mean 'gpt2-small'?"]),
    ("a/nothing", ["has no 'a/nothing' at the revision 'main' (404)"]),
    ("gpt2@v9", ["at the revision 'v9'"]),
    ("gpt2@../x", ["'../x' is not the name of a branch"]),
    (f"{SAES}", ["is no model of a form that is read", f"'{LAYER}'", "FOLDER brings a folder of it"]),
    (f"{SAES}/blocks.99", ["has no 'blocks.99'", f"'{LAYER}'"]),
    ("../../etc", ["is no name of a model"]),
    ("gpt2 small", ["is no name of a model"]),
])
def test_names_that_lead_nowhere(hub, place, name, words):
    status, _, err = pull(place, name)
    assert status in (1, 2) and len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err


def test_who_is_not_let_in_is_told_what_to_do(hub, place):
    hub.token = "hf_secret"
    status, _, err = pull(place, "gpt2")
    assert status == 1 and "accept its terms at" in err and "set HF_TOKEN" in err and "does not do" not in err, err
    status, _, err = pull(place, "gpt2", HF_TOKEN="hf_other")
    assert status == 1 and "(the one that is set does not do)" in err and "hf_other" not in err, err
    hub.token = None
    hub.fail["model.safetensors"] = 403
    status, _, err = pull(place, "gpt2")
    assert status == 1 and "(403)" in err and not list((folder_of(place, GPT2) / "snapshots").glob("*")), err


@pytest.mark.parametrize("variables, words", [
    ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ({"HF_ENDPOINT": "ftp://hub"}, "HF_ENDPOINT: 'ftp://hub' is not"),
    ({"HF_ENDPOINT": "http://127.0.0.1:1"}, "cannot fetch 'http://127.0.0.1:1/api/models/openai-community/gpt2"),
    ({"HF_TOKEN": "a\nurl = file:///etc/passwd"}, "(HF_TOKEN) is not plain text"),
    ({"HF_HUB_CACHE": "/proc/cache"}, "cannot make the folder '/proc/cache"),
    ({"PATH": "/nowhere"}, "apt-get install curl"),
])
def test_surroundings_that_will_not_do(place, variables, words):
    status, _, err = pull(place, "gpt2", **variables)
    assert status in (1, 2) and words in err and len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize("row", [
    {"rfilename": "../../../x"}, {"rfilename": "/etc/x"}, {"rfilename": "a//b"}, {"rfilename": "a/./b"}, {"rfilename": ""}, {"rfilename": "a\nb"},
    {"rfilename": "a\\b"}, {"rfilename": "x" * 600}, {"rfilename": 7}, {"blobId": "../x"}, {"blobId": None}, {"blobId": "A" * 40},
    {"size": -1}, {"size": "9"}, {"lfs": {"sha256": "12", "size": 1}}, {"lfs": {"sha256": "../" * 21 + "x", "size": 1}},
])
def test_a_listing_with_a_hostile_row_is_refused(hub, place, row):
    hub.told["config.json"] = row
    status, _, err = pull(place, "gpt2")
    assert status == 1 and "the listing has" in err and hub.fetched() == [], err


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"sha": "main", "siblings": []}', b'{"sha": "%s"}' % COMMIT.encode(),
                                  b'{"sha": "../../%s", "siblings": []}' % COMMIT[6:].encode(), b"[" * 100000])
def test_a_listing_that_is_none_is_refused(hub, place, text):
    hub.listing = text
    status, _, err = pull(place, "gpt2")
    assert status == 1 and "listing" in err and len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize("arguments, words", [
    ([], "pull needs a PLACE"), (["gpt2", "x"], "pull takes one PLACE; found 'gpt2' and 'x'"), (["gpt2", "--lst"], "unknown flag '--lst'; pull takes --list, --labels, --statistics, and settings"),
])
def test_arguments_that_will_not_do(place, arguments, words):
    status, _, err = pull(place, *arguments)
    assert status == 2 and words in err, err
