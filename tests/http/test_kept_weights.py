"""`--model ID=PLACE?q8`: weights in fewer bits; the same model in several types side by side."""
import json

import pytest

from conftest import VECTORS, Daemon, run_steerd

TINY = VECTORS / "tiny-gpt2"
MODEL = TINY / "model"
TYPES = {"F32": "", "BF16": "?bf16", "F16": "?f16", "Q8": "?q8"}
TEXT = "The library was open, and so were the books."


@pytest.fixture(scope="module")
def served():
    places = {kept.lower(): f"{MODEL}{word}" for kept, word in TYPES.items()} | {"both": f"{MODEL}?process+bf16"}
    one = Daemon([flag for name, place in places.items() for flag in ("--model", f"{name}={place}")])
    yield one
    one.finish()


def logprobs(daemon, model):
    reply = daemon.post("/v1/completions", {"model": model, "prompt": TEXT, "max_tokens": 1, "logprobs": 5, "temperature": 0}).json()
    return reply["choices"][0]["logprobs"]["token_logprobs"][0], reply["system_fingerprint"]


def test_models_say_what_is_in_memory(served):
    models = {model["id"]: model for model in served.get("/models").json()["models"]}
    assert {name: model["kept"] for name, model in models.items()} == {"f32": "F32", "bf16": "BF16", "f16": "F16", "q8": "Q8", "both": "BF16"}
    assert all(model["dtype"] == "F32" for model in models.values()) and models["both"]["processed"]
    # Of 98,544 weights 7,680 are positions, f32 in each; rows of 48 take blocks of 64.
    assert models["q8"]["bytes"] < 0.75 * models["bf16"]["bytes"] and models["bf16"]["bytes"] < 0.6 * models["f32"]["bytes"]
    assert "MiB in memory as Q8" in served.log()


def test_answers_differ_a_little_and_name_the_type(served):
    found = {kept: logprobs(served, kept.lower()) for kept in TYPES}
    assert len({value for value, _ in found.values()}) == len(TYPES)
    # The logits of this model are off by 8 % of their spread, 2.2, in q8, the coarsest (tests/vectors/tiny-gpt2/make_precision.py): one of
    # them by less than four times that.
    assert all(abs(value - found["F32"][0]) < 4 * 0.08 * 2.2 for value, _ in found.values())
    assert all(fingerprint.endswith(f"-{kept}") for kept, (_, fingerprint) in found.items())


def test_steering_works_on_each(served):
    for kept in TYPES:
        plain, steered = [served.post("/v1/lab/run", {"modelId": kept.lower(), "text": TEXT, "loss": True, "edits": edits}).json()
                          for edits in ([], [{"op": "add", "point": "resid_pre.1", "vector": list(range(48)), "strength": 3}])]
        assert abs(plain["loss"] - steered["loss"]) > 0.01, (kept, plain, steered)


def test_inspect_says_it():
    status, out, err = run_steerd("inspect", "--json", f"{MODEL}?process+q8")
    facts = json.loads(out)
    assert status == 0 and err == ""
    assert facts["model"]["kept as"] == "Q8" and facts["model"]["dtype"] == "F32" and facts["model"]["processed"].startswith("yes")


@pytest.mark.parametrize("word", ["?q4", "?", "?q8+q8", "?q8+bf16", "?process+", "?process+process", "?+q8", "?Q8", "?q8 "])
def test_what_is_not_known_is_refused(word):
    status, out, err = run_steerd("inspect", f"{MODEL}{word}")
    assert status == 2 and out == "" and f"'{word}' is not known" in err and "?process+bf16" in err
