"""Explained variance and L0 of a JumpReLU transcoder from a Gemma Scope `params.npz` between two sites of a Gemma-2-shaped model: by one
command and by one request, beside NumPy over the rows of the two points."""
import json
import shutil
import time

import numpy as np
import pytest

from conftest import VECTORS, run_steerd

LETTERS = "abcdefghijklmnopqrstuvwxyz ,.'"
TEXT = ("the quick brown fox jumps over the lazy dog. some of them, it is said, never slept before noon, and the others did not "
        "mind. a door stood open, and behind it somebody sang of ships and of the sea.")
D, FEATURES, LAYER = 24, 64, 1


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("gemma")
    model = root / "gemma-2-tiny"
    shutil.copytree(VECTORS / "families" / "gemma2", model)
    vocab = {"<pad>": 0, "<eos>": 1, "<bos>": 2, **{letter: 3 + i for i, letter in enumerate(LETTERS)}}
    special = [{"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
               for t, i in vocab.items() if i < 3]
    (model / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": None,
                                                      "post_processor": None, "decoder": None,
                                                      "model": {"type": "BPE", "vocab": vocab, "merges": []}}))
    (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": True}))
    folder = root / "gemma-scope-2b-pt-transcoders" / f"layer_{LAYER}" / "width_16k" / "average_l0_12"
    folder.mkdir(parents=True)
    random = np.random.default_rng(4)
    weights = {"W_enc": random.normal(size=(D, FEATURES)), "W_dec": random.normal(size=(FEATURES, D)) / 8,
               "b_enc": random.normal(size=FEATURES), "b_dec": random.normal(size=D) / 4, "threshold": random.uniform(1, 4, FEATURES)}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    np.savez(folder / "params.npz", **weights)
    (root / "text.txt").write_text(TEXT)
    return {"model": model, "source": folder, "text": root / "text.txt", "weights": weights}


def test_one_command_and_one_request(world, start_daemon, tmp_path):
    status, out, err = run_steerd("eval", "gemma", f"{LAYER}-tc", "--corpus", str(world["text"]), "--model", f"gemma={world['model']}",
                                  "--source", f"gemma/{LAYER}-tc={world['source']}")
    assert status == 0, err
    daemon = start_daemon(models={"gemma": world["model"]}, sources={f"gemma/{LAYER}-tc": world["source"]})
    job = daemon.post("/v1/jobs", {"kind": "eval", "source": f"{LAYER}-tc", "corpus": str(world["text"])})
    assert job.status_code == 200, job.text
    end = time.monotonic() + 60
    while (state := daemon.get(f"/v1/jobs/{job.json()['id']}").json())["state"] in ("queued", "running") and time.monotonic() < end:
        time.sleep(0.02)
    assert state["state"] == "done", state
    [found] = daemon.get(f"/v1/lab/dictionaries/gemma/{LAYER}-tc").json()["evaluations"]
    for name, digits in (("l0", ".5g"), ("explainedVariance", ".6f"), ("mse", ".6g")):
        assert format(found[name], digits) in out, (name, out)

    # The text is cut at the context, each piece behind a BOS, which is not counted.
    x, y, context = [], [], 96
    sites = [f"blocks.{LAYER}.ln2.hook_normalized", f"blocks.{LAYER}.hook_mlp_out"]
    for at in range(0, len(TEXT), context - 1):
        run = daemon.post("/v1/lab/run", {"text": TEXT[at:at + context - 1], "points": sites}).json()
        assert run["ids"][0] == 2
        for rows, site in ((x, sites[0]), (y, sites[1])):
            rows.append(np.array(run["activations"][site], np.float64)[1:])
    x, y, w = np.concatenate(x), np.concatenate(y), {name: value.astype(np.float64) for name, value in world["weights"].items()}
    sums = x @ w["W_enc"] + w["b_enc"]
    acts = np.where(sums > w["threshold"], sums, 0)
    error = acts @ w["W_dec"] + w["b_dec"] - y
    assert found["tokens"] == len(x) == len(TEXT)
    assert found["l0"] == pytest.approx((acts > 0).sum(1).mean(), abs=2 / len(x))  # one or two may sit at a threshold in float32
    assert found["mse"] == pytest.approx((error ** 2).sum(1).mean(), rel=1e-3)
    assert found["explainedVariance"] == pytest.approx(1 - (error ** 2).sum() / ((y - y.mean(0)) ** 2).sum(), abs=1e-3 * (1 + abs(found["explainedVariance"])))
