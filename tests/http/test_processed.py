"""`--model ID=PLACE?process`: weights as TransformerLens processes them; the same model raw and processed side by side."""
import json
import math

import pytest

from conftest import VECTORS, run_steerd

TINY = VECTORS / "tiny-gpt2"
MODEL = TINY / "model"
TEXT = "The library was open, and so were the books."


@pytest.fixture
def both(start_daemon):
    centred = str(TINY / "sources" / "2-res-center")
    return start_daemon(models={"raw": MODEL, "folded": f"{MODEL}?process"},
                        sources={"raw/2-res-center": centred, "folded/2-res-center": centred})


def test_models_and_log_say_it(both):
    models = {model["id"]: model for model in both.get("/models").json()["models"]}
    assert [models[name]["processed"] for name in ("raw", "folded")] == [False, True]
    assert models["raw"]["parameters"] == models["folded"]["parameters"]
    assert "model folded: gpt2, processed, 3 layers" in both.log() and "model raw: gpt2, 3 layers" in both.log()


def test_a_dictionary_of_centred_weights_sees_the_same(both):
    """It takes each row's mean away, and a processed row has none: nothing is centred twice to harm."""
    found = [both.post("/activations", {"modelId": model, "source": "2-res-center", "index": index, "text": TEXT}).json()
             for index in range(8) for model in ("raw", "folded")]
    assert any(max(one["values"]) > 0 for one in found)
    for raw, folded in zip(found[::2], found[1::2]):
        # f32 sums of 48 terms, in another order: decision 18's 1e-4
        assert all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) for a, b in zip(raw["values"], folded["values"], strict=True))


def test_inspect_lists_what_was_done():
    status, out, err = run_steerd("inspect", "--json", f"{MODEL}?process")
    facts = json.loads(out)
    assert status == 0 and err == ""
    lines = "\n".join(facts["transformations"])
    for word in ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"):
        assert word in lines
    assert "nothing is folded" not in lines and facts["model"]["processed"].startswith("yes")
    assert facts["sizes"]["unembedding"] > 0 and all(0 <= size < 1 << 24 for size in facts["sizes"].values())


def test_another_option_is_refused():
    status, out, err = run_steerd("inspect", f"{MODEL}?proces")
    assert status == 2 and out == "" and "'?proces'" in err and "?process" in err
