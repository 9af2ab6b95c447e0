"""Dictionaries by name: `--source tiny/...=RELEASE/ID` and Neuronpedia's names, out of a Hugging Face cache."""
import json
import os

import pytest

from conftest import ROOT, run_steerd

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = ROOT / "tests" / "vectors" / "tiny-gpt2" / "model"
SOURCE = ROOT / "tests" / "vectors" / "tiny-gpt2" / "sources" / "1-res-relu"


@pytest.fixture
def cache(tmp_path):
    """The first residual dictionary of gpt2-small, as huggingface_hub lays it out; its content is a small one."""
    repository = tmp_path / "hub" / "models--jbloom--GPT2-Small-SAEs-Reformatted"
    folder = repository / "snapshots" / COMMIT / "blocks.1.hook_resid_pre"
    folder.mkdir(parents=True)
    for name in ("blobs", "refs"):
        (repository / name).mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for name in ("cfg.json", "sae_weights.safetensors"):
        (repository / "blobs" / name.encode().hex()).write_bytes((SOURCE / name).read_bytes())
        os.symlink(f"../../../blobs/{name.encode().hex()}", folder / name)
    return {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": ""}


@pytest.mark.parametrize("model, source", [
    ("gpt2-small", "gpt2-small/1-res-jb"),
    ("gpt2", "gpt2/1-res-jb"),
    ("gpt2-small", "gpt2-small/1-res-jb=gpt2-small-res-jb/blocks.1.hook_resid_pre"),
])
def test_published_names_are_found_in_the_cache(cache, start_daemon, model, source):
    daemon = start_daemon(["--model", f"{model}={MODEL}", "--source", source], environment=cache)
    reply = daemon.post("/api/steer", {"modelId": "gpt2-small", "prompt": "The", "temperature": 0, "n_tokens": 2, "freq_penalty": 0, "seed": 1,
                                       "strength_multiplier": 1, "features": [{"modelId": "gpt2-small", "layer": "1-res-jb", "index": 3, "strength": 4}]})
    assert reply.status_code == 200, reply.text
    assert "1-res-jb: relu at blocks.1.hook_resid_pre, 96 features" in daemon.log()


@pytest.mark.parametrize("source, words", [
    ("gpt2-small/2-res-jb", ["'blocks.2.hook_resid_pre' in 'jbloom/GPT2-Small-SAEs-Reformatted'", "does not have it", "steerd pull gpt2-small/2-res-jb"]),
    ("gpt2-small/7-mlp-tm=gpt2-small-mlp-tm/blocks.7.hook_mlp_out", ["is not in the Hugging Face cache", "steerd pull gpt2-small-mlp-tm/blocks.7.hook_mlp_out"]),
    ("gpt2-small/1-rez-jb", ["neither a file or folder here nor a published name", "did you mean 'gpt2-small/1-res-jb'?"]),
    ("gpt2-small/1-x=gpt2-small-res-jb/../../x", ["unknown dictionary"]),
    ("gpt2-small/1-x=/nowhere/at/all", ["'/nowhere/at/all' does not exist"]),
])
def test_what_is_not_there_is_said_with_its_remedy(cache, source, words):
    status, _, err = run_steerd("serve", "--listen", "127.0.0.1:0", "--model", f"gpt2-small={MODEL}", "--source", source, environment=cache)
    assert status == 1, err
    for word in words:
        assert word in err


def test_a_link_out_of_the_cache_is_refused(cache, tmp_path):
    folder = tmp_path / "hub" / "models--jbloom--GPT2-Small-SAEs-Reformatted" / "snapshots" / COMMIT / "blocks.1.hook_resid_pre"
    (tmp_path / "outside").write_bytes((SOURCE / "sae_weights.safetensors").read_bytes())
    (folder / "sae_weights.safetensors").unlink()
    os.symlink(tmp_path / "outside", folder / "sae_weights.safetensors")
    status, _, err = run_steerd("serve", "--listen", "127.0.0.1:0", "--model", f"gpt2-small={MODEL}", "--source", "gpt2-small/1-res-jb",
                                environment=cache)
    assert status == 2 and "sae_weights.safetensors' lies outside the folders" in err, err


def test_inspect_tells_what_a_dictionary_is_taken_for(cache):
    status, out, err = run_steerd("inspect", "gpt2-small/1-res-jb", environment=cache)
    assert status == 0, err
    for words in ("relu of 96 features", "saelens", "blocks.1.hook_resid_pre, 48 wide", "hook_name = blocks.1.hook_resid_pre",
                  "W_enc is 'W_enc' [48, 96] F32", "b_dec is subtracted from the input"):
        assert words in out
    sample = ROOT / "tests" / "vectors" / "dict-formats" / "gemma-scope-2-270m-pt" / "transcoder" / "layer_1_width_16k_l0_small_affine"
    status, out, err = run_steerd("inspect", str(sample), "--json")
    told = json.loads(out)
    assert told["dictionary"]["kind"] == "jumprelu skip transcoder of 32 features, F32"
    assert told["dictionary"]["reads"] == "blocks.1.mlp.hook_in, 16 wide"
    assert "skip is 'affine_skip_connection' [16, 16] F32" in told["tensors"]
    status, _, err = run_steerd("inspect", str(sample.parent.parent.parent / "dictionary_learning" / "dl-topk" / "trainer_0" / "nothing"))
    assert status == 1 and "nothing" in err
    status, _, err = run_steerd("inspect", "gpt2-small-mlp-tm/blocks.7.hook_mlp_out", environment=cache)
    assert status == 1 and "steerd pull gpt2-small-mlp-tm/blocks.7.hook_mlp_out" in err, err


def test_inspect_of_an_ini_tells_of_its_dictionaries_too(tmp_path):
    weights = ROOT / "tests" / "vectors" / "dict-formats" / "plain"
    (tmp_path / "both.ini").write_text(f"[model]\nfamily = workshop\nweights = {tmp_path}/none.pth\n"
                                       f"[source 1-tied]\nweights = {weights}/tied.pth\nkind = topk\nk = 3\ntied = yes\n"
                                       "point = blocks.1.mlp.hook_pre\napply_b_dec_to_input = no\n"
                                       "w_enc = encoder.weight transposed\nb_enc = none\nb_dec = none\n"
                                       "[source 1-gone]\nweights = /nowhere.npz\nkind = relu\npoint = blocks.0.hook_resid_pre\n")
    text = (tmp_path / "both.ini").read_text()
    (tmp_path / "sources.ini").write_text(text[text.index("[source 1-tied]"):])
    status, out, err = run_steerd("inspect", str(tmp_path / "sources.ini"), "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["source 1-tied"]["kind"].startswith("topk of ")
    assert told["source 1-tied"]["reads"].startswith("blocks.1.mlp.hook_pre")
    assert "k = 3" in told["fields of 1-tied"] and told["tensors of 1-tied"] and told["steps of 1-tied"]
    assert "/nowhere.npz" in told["source 1-gone"]["error"]
    assert "model" not in told
    status, _, err = run_steerd("inspect", str(tmp_path / "both.ini"))
    assert status == 1 and "[model]" in err, err  # a model that cannot be read is an error, as before


# ---- in a running daemon ----

NEW = {"modelId": "gpt2-small", "source": "1-res-jb"}


@pytest.fixture
def empty(cache, start_daemon):
    return start_daemon(["--model", f"gpt2-small={MODEL}"], environment=cache)


@pytest.mark.parametrize("body", [
    NEW,
    {**NEW, "modelId": "gpt2"},
    {**NEW, "source": "1-mine", "path": "gpt2-small/1-res-jb"},
    {**NEW, "source": "1-mine", "path": "gpt2-small-res-jb/blocks.1.hook_resid_pre"},
])
def test_a_name_is_loaded_from_the_cache(empty, body):
    reply = empty.post("/v1/sources", body)
    assert reply.status_code == 201, reply.text
    assert reply.json()["features"] == 96 and reply.json()["modelId"] == "gpt2-small"


@pytest.mark.parametrize("path, words", [
    ("gpt2-small/1-rez-jb", ["did you mean 'gpt2-small/1-res-jb'?"]),
    ("gpt2-small-rez-jb/blocks.1.hook_resid_pre", ["did you mean the release 'gpt2-small-res-jb'?"]),
    ("gpt2-small/2-res-jb", ["does not have it", "steerd pull gpt2-small/2-res-jb"]),
    ("gpt2-small-mlp-tm/blocks.7.hook_mlp_out", ["is not in the Hugging Face cache", "steerd pull gpt2-small-mlp-tm/blocks.7.hook_mlp_out"]),
    ("gpt2-small-res-jb/../../x", ["in none of the folders"]),
])
def test_names_that_lead_nowhere(empty, path, words):
    reply = empty.post("/v1/sources", {**NEW, "source": "1-x", "path": path})
    assert reply.status_code == (400 if ".." in path else 404) and reply.json()["field"] == "path", reply.text
    for word in words:
        assert word in reply.json()["error"]


def test_paths_do_not_lead_into_the_cache(empty, cache, tmp_path):
    """Nor does a name lead out of it."""
    folder = tmp_path / "hub" / "models--jbloom--GPT2-Small-SAEs-Reformatted" / "snapshots" / COMMIT / "blocks.1.hook_resid_pre"
    reply = empty.post("/v1/sources", {**NEW, "path": str(folder)})
    assert reply.status_code == 400 and "in none of the folders" in reply.json()["error"]
    (tmp_path / "outside").write_bytes((SOURCE / "sae_weights.safetensors").read_bytes())
    (folder / "sae_weights.safetensors").unlink()
    os.symlink(tmp_path / "outside", folder / "sae_weights.safetensors")
    reply = empty.post("/v1/sources", NEW)
    assert reply.status_code == 400 and "lies outside the folders" in reply.json()["error"], reply.text
    assert reply.json()["field"] == "path"


def test_a_name_in_an_allowed_folder(cache, start_daemon, tmp_path):
    """Before the cache; links may not lead out of the folders here either."""
    for inside, layer in (("jbloom/GPT2-Small-SAEs-Reformatted", 0), ("GPT2-Small-SAEs-Reformatted", 2)):
        folder = tmp_path / "saes" / inside / f"blocks.{layer}.hook_resid_pre"
        folder.mkdir(parents=True)
        for name in ("cfg.json", "sae_weights.safetensors"):
            text = (SOURCE / name).read_bytes()
            (folder / name).write_bytes(text.replace(b"blocks.1.", f"blocks.{layer}.".encode()) if name == "cfg.json" else text)
    daemon = start_daemon(["--model", f"gpt2-small={MODEL}"], environment=cache, source_folders=str(tmp_path / "saes"))
    for layer in (0, 2):
        reply = daemon.post("/v1/sources", {"modelId": "gpt2-small", "source": f"{layer}-res-jb"})
        assert reply.status_code == 201, reply.text
        assert reply.json()["point"] == f"blocks.{layer}.hook_resid_pre"
    weights = tmp_path / "saes" / "GPT2-Small-SAEs-Reformatted" / "blocks.2.hook_resid_pre" / "sae_weights.safetensors"
    os.rename(weights, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", weights)
    reply = daemon.post("/v1/sources", {"modelId": "gpt2-small", "source": "2-again", "path": "gpt2-small/2-res-jb"})
    assert reply.status_code == 400 and "lies outside the folders" in reply.json()["error"], reply.text


def test_without_a_table_no_name_is_known(cache, start_daemon):
    daemon = start_daemon(["--model", f"gpt2-small={MODEL}"], environment=cache, releases="")
    reply = daemon.post("/v1/sources", NEW)
    assert reply.status_code == 404 and "unknown dictionary" in reply.json()["error"], reply.text
