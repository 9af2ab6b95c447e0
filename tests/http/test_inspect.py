"""`steerd inspect`: what a newcomer reads, and what a program does."""
import json
import os
import pathlib
import shutil

import pytest

from conftest import ROOT, VECTORS, run_steerd

TINY = str(ROOT / "tests" / "vectors" / "tiny-gpt2" / "model")
DATA = pathlib.Path(os.environ.get("STEERD_DATA", ROOT.parent / "shared" / "data"))
FILES = ROOT / "tests" / "vectors" / "tensor_files"


def test_text_has_every_section_in_order():
    status, out, err = run_steerd("inspect", TINY, "--threads", "1")
    assert status == 0 and err == ""
    sections = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert sections == ["model", "architecture", "transformations", "sizes", "tokenizer", "points", "memory", "precision"]
    assert "bf16: relative error of logits" in out


def test_json_is_the_same_for_a_program():
    status, out, _ = run_steerd("inspect", "--json", "--quick", TINY)
    facts = json.loads(out)
    assert status == 0 and "precision" not in facts
    assert facts["architecture"]["layers"] == 3 and facts["model"]["parameters"] == 98544
    assert any("Conv1D" in line for line in facts["transformations"])


@pytest.mark.parametrize("place, kind", [
    ("villes", "characters of a text file"),
    ("llama2c", "BPE of characters with byte fallback (SentencePiece's)"),
])
def test_the_kind_of_the_tokenizer(place, kind):
    where = {"villes": ROOT / "config" / "models" / "villes.ini", "llama2c": DATA / "models" / "stories260K" / "stories260K.bin"}
    if not (DATA / "models").is_dir():
        pytest.skip(f"skip: {place} (set STEERD_DATA)")
    status, out, err = run_steerd("inspect", "--json", "--quick", str(where[place]), environment={"STEERD_DATA": str(DATA)})
    assert status == 0, err
    assert json.loads(out)["tokenizer"]["kind"] == kind


def test_an_ini_without_its_data_names_the_variable():
    status, out, err = run_steerd("inspect", str(ROOT / "config" / "models" / "villes.ini"), environment={"STEERD_DATA": "/nowhere"})
    assert status == 1 and out == ""
    assert "starts at the folder in STEERD_DATA, which is '/nowhere'" in err and len(err.strip().splitlines()) == 1


def test_a_file_of_tensors():
    status, out, _ = run_steerd("inspect", str(FILES / "kinds.safetensors"), "--json")
    assert status == 0 and json.loads(out)["tensors"]["float32"] == "[2] F32, 8 bytes"


@pytest.mark.parametrize("arguments, status, words", [
    ([], 2, ["inspect needs a PLACE"]),
    (["/nowhere"], 1, ["'/nowhere': no such file or folder"]),
    ([TINY, "--colour", "x"], 2, ["unknown flag '--colour'"]),
    ([TINY, "more"], 2, ["'more'"]),
    ([str(FILES / "objects.npz")], 1, ["Python objects"]),
])
def test_refusals_are_one_line(arguments, status, words):
    got, out, err = run_steerd("inspect", *arguments)
    assert got == status and out == "" and len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


def test_an_ini_with_a_model_and_a_dictionary():
    data = os.environ.get("STEERD_DATA", str(ROOT / ".." / "shared" / "data"))
    if not os.path.isdir(os.path.join(data, "models", "villes")):
        pytest.skip("skip: inspect of the villes ini (set STEERD_DATA)")
    status, out, err = run_steerd("inspect", "--json", "--quick", str(ROOT / "config" / "models" / "villes.ini"), environment={"STEERD_DATA": data})
    facts = json.loads(out)
    assert status == 0, err
    assert facts["model"] and facts["source 0-res-ws"]["kind"] == "relu of 128 features, F32"
    assert "W_enc is 'W_enc' [32, 128] F32" in facts["tensors of 0-res-ws"]


@pytest.mark.parametrize("field, value, words", [
    ("hook_layer", 2**40, "0 to 9999"), ("hook_layer", -1, "0 to 9999"), ("hook_layer", "1", "the number of a layer"),
    ("hook_name", ["blocks.1.hook_resid_pre"], "expected a string"), ("hook_name", 7, "expected a string"),
    ("dtype", 32, "expected a string"), ("d_in", 49, "[48, 96] F32, expected [49, 96]"), ("d_sae", 97, "[48, 96] F32, expected [48, 97]"), ("d_sae", "96", "expected an integer"),
    ("d_in", float("nan"), "cfg.json"), ("d_in", float("inf"), "cfg.json"), ("context_size", -5, "1 or more")])
def test_odd_values_of_cfg_json_are_refused(tmp_path, field, value, words):
    folder = tmp_path / "odd"
    shutil.copytree(VECTORS / "tiny-gpt2" / "sources" / "1-res-relu", folder)
    cfg = json.loads((folder / "cfg.json").read_text())
    for as_files_of_the_field in ({"hook_layer": None, "dtype": None}, {"dtype": "torch.float32", "hook_layer": 1}):
        (folder / "cfg.json").write_text(json.dumps(cfg | as_files_of_the_field))
        assert run_steerd("inspect", str(folder))[0] == 0
    cfg.get("metadata", {}).pop(field, None)  # where newer files say it, and what is said there goes first
    (folder / "cfg.json").write_text(json.dumps(cfg | {field: value}))
    status, out, err = run_steerd("inspect", str(folder))
    assert status == 1 and words in err and str(folder) in err, (out, err)
    assert field in err or "W_enc" in err or value != value or value == float("inf"), err  # those two are not JSON


POINT = "blocks.1.hook_resid_pre"


@pytest.mark.parametrize("outside, inside, words", [
    ({"hook_layer": 2}, {}, ("'hook_layer' is 2", POINT)), ({"hook_point_layer": 0}, {}, ("'hook_point_layer' is 0", POINT)), ({}, {"hook_layer": 0}, ("'hook_layer' is 0",)),
    ({"hook_name_out": POINT, "hook_layer_out": 2}, {}, ("'hook_layer_out' is 2",)),
    ({"d_in": 48}, {"d_in": 47}, ("'d_in' inside 'metadata'",)), ({"hook_name": POINT}, {"hook_name": "blocks.0.hook_resid_pre"}, ("'hook_name' inside 'metadata'",)),
    ({"activation_fn_kwargs": {"k": 1}}, {"activation_fn_kwargs": {"k": 2}}, ("'activation_fn_kwargs' inside",)), ({"prepend_bos": True}, {"prepend_bos": False}, ("'prepend_bos' inside",)),
    ({"hook_layer": 1}, {"hook_layer": 1}, None), ({"hook_name": POINT}, {"hook_name": POINT}, None), ({"context_size": 128}, {"context_size": 128.0}, ("expected an integer",)),
    ({"seed": 1}, {"seed": 2}, None), ({"hook_layer": None}, {"hook_layer": 1}, None)])
def test_fields_that_disagree_are_refused(tmp_path, outside, inside, words):
    """What is said twice and differently: nobody can know which of the two the weights were made with."""
    folder = tmp_path / "odd"
    shutil.copytree(VECTORS / "tiny-gpt2" / "sources" / "1-res-relu", folder)
    cfg = json.loads((folder / "cfg.json").read_text())
    metadata = {k: v for k, v in cfg.get("metadata", {}).items() if k not in {**outside, **inside}} | inside
    metadata.setdefault("hook_name", POINT) if "hook_name" not in cfg | outside else None
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in cfg.items() if k not in inside} | outside | {"metadata": metadata}))
    status, out, err = run_steerd("inspect", str(folder))
    if words is None:
        assert status == 0, err
    else:
        assert status == 1 and str(folder / "cfg.json") in err and all(word in err for word in words), (out, err)
