"""Memory for keys and values: a model whose context is larger than the memory there is serves what fits, and says so."""
import json
import re
import resource
import shutil

import pytest
import requests

from conftest import VECTORS, binary

CONTEXT = 1 << 20  # positions; the tiny model keeps 417 bytes for each, which makes 417 MiB


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """The Llama of tests/vectors with a long context, and a token for each of 97 characters."""
    folder = tmp_path_factory.mktemp("long")
    shutil.copy(VECTORS / "families" / "llama" / "model.safetensors", folder)
    config = json.loads((VECTORS / "families" / "llama" / "config.json").read_text())
    config.update(max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=None)
    (folder / "config.json").write_text(json.dumps(config))
    characters = [chr(code) for code in range(33, 127)] + ["\u0120", "\u010a", "\u00a1"]  # blank and newline as GPT-2 writes them
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(characters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def steer(daemon, n_characters):
    body = {"prompt": "a" * n_characters, "features": [], "n_tokens": 4}
    return requests.post(daemon.url + "/steer", json=body, timeout=60)


def kv_bytes(daemon):
    return int(re.search(r"^steerd_kv_bytes (\d+)$", daemon.get("/metrics").text, re.M)[1])


def test_a_pool_smaller_than_the_context(start_daemon, long_model):
    daemon = start_daemon(models={"long": long_model}, kv_mib=1)
    assert kv_bytes(daemon) <= 1 << 20
    assert re.search(r"1 MiB for keys and values hold \d+ tokens of all texts together, the context is 1048576", daemon.log())
    assert steer(daemon, 1000).status_code == 200
    refused = steer(daemon, 3000)
    assert refused.status_code == 400 and refused.json()["code"] == "limit" and "kv_mib" in refused.json()["error"]
    assert steer(daemon, 1000).status_code == 200


@pytest.mark.skipif("asan" in binary() or "tsan" in binary(), reason="skip: limited address space (a sanitizer maps terabytes)")
def test_a_limited_address_space(start_daemon, long_model):
    """ulimit -v: the daemon takes a part of what is left and starts, where all of a context could not be had."""
    free = start_daemon(models={"long": long_model})
    assert kv_bytes(free) >= 400 << 20
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (600 << 20, hard))  # of the child; nothing is mapped here meanwhile
    try:
        tight = start_daemon(models={"long": long_model})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert 1 << 20 < kv_bytes(tight) < 300 << 20  # half of what is left
    assert "kv_mib sets it" in tight.log() and "kv_mib sets it" not in free.log()
    assert steer(tight, 1000).status_code == 200
