"""Models by name: `--model gpt2` finds a repository in a Hugging Face cache, and requests may use any of its names."""
import os

import pytest

from conftest import ROOT, run_steerd

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL_FOLDER = ROOT / "tests" / "vectors" / "tiny-gpt2" / "model"


@pytest.fixture
def cache(tmp_path):
    """A cache as huggingface_hub lays it out: snapshots are links into blobs."""
    repository = tmp_path / "hub" / "models--openai-community--gpt2"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for folder in ("blobs", "refs"):
        (repository / folder).mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (repository / "blobs" / name.encode().hex()).write_bytes((MODEL_FOLDER / name).read_bytes())
        os.symlink(f"../../blobs/{name.encode().hex()}", snapshot / name)
    return {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": ""}


def test_a_name_is_found_in_the_cache_and_every_name_is_answered(cache, start_daemon):
    daemon = start_daemon(["--model", "gpt2"], environment=cache)
    for name in ("gpt2", "gpt2-small", "openai-community/gpt2"):
        reply = daemon.post("/api/steer", {"modelId": name, "prompt": "The", "features": [], "temperature": 0, "n_tokens": 2,
                                           "freq_penalty": 0, "seed": 1, "strength_multiplier": 1})
        assert reply.status_code == 200, reply.text
    assert "model gpt2-small: gpt2" in daemon.log()


@pytest.mark.parametrize("name, words", [
    ("gpt2-medium", ["'openai-community/gpt2-medium'", "hub'", "'openai-community/gpt2'", "steerd pull openai-community/gpt2-medium"]),
    ("gpt2-smal", ["did you mean 'gpt2-small'?"]),
    ("gpt2@v9", ["no revision 'v9'"]),
])
def test_what_is_not_there_is_said_with_its_remedy(cache, name, words):
    status, _, err = run_steerd("serve", "--listen", "127.0.0.1:0", "--model", name, environment=cache)
    *before, refusal = err.strip().splitlines()
    assert status == 1 and refusal.startswith("steerd: ") and all(" info " in line for line in before), err
    for word in words:
        assert word in refusal
