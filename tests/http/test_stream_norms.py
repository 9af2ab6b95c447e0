"""A model that norms the residual stream itself and widens its embedding (OPT 350m), over HTTP."""
import json
import shutil

import pytest

from conftest import VECTORS, run_steerd

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny random one with a tokenizer of 97 characters."""
    folder = tmp_path_factory.mktemp("opt") / "model"
    shutil.copytree(VECTORS / "families" / "opt-350m", folder)
    (folder / "vocab.json").write_text(json.dumps({**{chr(33 + i): i for i in range(94)}, "\u0120": 94, "\u010a": 95, "<|endoftext|>": 96}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def test_what_can_be_asked(start_daemon, folder):
    one = start_daemon(models={"opt": folder})
    ask = {"tokens": [5, 7, 9, 11], "points": ["blocks.*.hook_resid_pre", "blocks.*.hook_resid_post", "blocks.*.hook_resid_mid"]}
    reply = one.post("/v1/lab/run", ask)
    assert reply.status_code == 200, reply.text
    seen = reply.json()["activations"]
    assert len(seen) == 9
    for layer in range(2):  # the stream goes on as it is shown
        assert seen[f"blocks.{layer}.hook_resid_post"] == seen[f"blocks.{layer + 1}.hook_resid_pre"]
    # An edit of the stream is made once, behind its norm: 1 more in every column is 1 more at the point.
    edited = one.post("/v1/lab/run", {**ask, "edits": [{"op": "add", "point": "resid_mid.1", "value": 1, "strength": 1}]}).json()["activations"]
    for plain, more in zip(seen["blocks.1.hook_resid_mid"], edited["blocks.1.hook_resid_mid"]):
        assert [b - a for a, b in zip(plain, more)] == pytest.approx([1] * len(plain), abs=1e-5)
    assert edited["blocks.0.hook_resid_post"] == seen["blocks.0.hook_resid_post"]
    assert edited["blocks.1.hook_resid_post"] != seen["blocks.1.hook_resid_post"]
    refused = one.post("/v1/lab/components", {"tokens": [5, 7, 9, 11], "answers": ["a"]})
    assert refused.status_code == 400 and "norms the residual stream" in refused.json()["error"]
    refused = one.post("/v1/lab/run", {**ask, "points": ["blocks.0.ln1.hook_scale"]})
    assert refused.status_code == 400 and "its norms are of the residual stream" in refused.json()["error"]


def test_inspect(folder):
    status, out, _ = run_steerd("inspect", str(folder))
    assert status == 0
    assert "LayerNorm of the residual stream, behind each addition; none at the end" in out
    assert "embed_tokens.weight: multiplied with project_in.weight" in out and "project_out.weight" in out
    sizes = {line.split()[0]: line for line in out.splitlines() if "parameters" in line}
    for part in ("embedding", "unembedding"):  # 97 rows of 36 in f32, in panels of 16 rows; stored are 97 of 20
        assert f"{112 * 36 * 4 / 1024:.1f} KiB in memory, {97 * 20} parameters" in sizes[part]
