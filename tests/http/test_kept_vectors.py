"""Kept vectors where features are asked for: the page and the row that the answer of vector/new names, values over texts, and labels that
go as a whole. What a vector promotes is compared with its product with the unembedding, in NumPy."""
import json

import numpy as np
import pytest

from conftest import MODEL, VECTORS
from tensors import read_tensors

WIDTH = 48
SOURCE = "1-res-relu"
TEXT = "the ship is at sea"


def direction(k):
    return [((5 * c + k) % 11 - 5) / 3 for c in range(WIDTH)]


def ask(daemon, path, body, status=200):
    reply = daemon.post(path, body)
    assert reply.status_code == status, reply.text
    return reply.json()


def keep(daemon, k=0, layer=1, hook="hook_resid_post", **more):
    body = {"modelId": MODEL, "layerNumber": layer, "hookType": hook, "vector": direction(k), **more}
    return ask(daemon, "/api/vector/new", body)


@pytest.fixture
def kept(daemon):
    made = keep(daemon, 3, vectorLabel="a <b> label", vectorDefaultSteerStrength=2.5)
    yield made
    ask(daemon, "/api/vector/delete", {key: made["vector"][key] for key in ("modelId", "source", "index")})


def row_of(daemon, vector, status=200):
    reply = daemon.get(f"/api/feature/{vector['modelId']}/{vector['source']}/{vector['index']}")
    assert reply.status_code == status, reply.text
    return reply.json()


def test_the_address_leads_somewhere(daemon, kept):
    path = "/" + kept["url"].split("/", 3)[3]
    page = daemon.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 200 and "<html" in page.text
    for wrong in (path[:-1], path + "0", path.rsplit("/", 1)[0] + "/x", path.replace("resid-post", "resid-pre")):
        got = daemon.get(wrong, headers={"Accept": "application/json"})
        assert got.status_code == 404 and "there is no vector" in got.json()["error"], wrong
        assert daemon.get(wrong, headers={"Accept": "text/html"}).status_code == 404


def test_row_of_a_vector(daemon, kept):
    vector = kept["vector"]
    row = row_of(daemon, vector)
    assert (row["modelId"], row["layer"], row["index"]) == (MODEL, "1-neuronpedia-resid-post", vector["index"])
    assert row["hasVector"] is True and row["vectorLabel"] == "a <b> label" and row["vectorDefaultSteerStrength"] == 2.5
    assert row["hookName"] == "blocks.1.hook_resid_post" and row["createdAt"] == vector["createdAt"]
    assert row["vector"] == vector["values"] == pytest.approx(direction(3), rel=1e-7)  # to the nearest float32
    assert row["decoder_norm"] == pytest.approx(np.linalg.norm(direction(3)), rel=1e-6)
    assert row["sourceSet"]["name"] == row["sourceSetName"] == "neuronpedia-resid-post"
    assert row["activations"] == row["explanations"] == [] and row["maxActApprox"] is None
    # A sum of 48 products of float32 near 1: some 48 * 2^-24 of it.
    weights = read_tensors(VECTORS / MODEL / "model" / "model.safetensors")
    embedding = next(weights[name] for name in weights if name.endswith("wte.weight"))
    vocabulary = sum(row["logits_hist_data_bar_heights"])  # rows behind the tokenizer's last token do not count
    logits = np.sort(embedding[:int(vocabulary)].astype(np.float64) @ np.array(direction(3)))
    assert row["pos_values"] == pytest.approx(logits[::-1][:10], rel=1e-5, abs=1e-5)
    assert row["neg_values"] == pytest.approx(logits[:10], rel=1e-5, abs=1e-5)
    assert len(row["pos_str"]) == 10 and all(isinstance(token, str) for token in row["pos_str"])
    feature = daemon.get(f"/api/feature/{MODEL}/{SOURCE}/3").json()
    assert set(row) == set(feature) and feature["hasVector"] is False and feature["vector"] == []


def test_vectors_among_features(daemon, kept):
    place = {key: kept["vector"][key] for key in ("modelId", "index")}
    asked = [{"modelId": MODEL, "layer": SOURCE, "index": 3}, {**place, "layer": "1-neuronpedia-resid-post"},
             {**place, "layer": "2-neuronpedia-resid-post"}, {**place, "layer": "1-neuronpedia-resid-post", "modelId": "nothing"}]
    rows = ask(daemon, "/api/features", asked)
    assert [row["hasVector"] for row in rows] == [False, True] and rows[1]["vectorLabel"] == "a <b> label"


def test_values_of_a_vector(daemon, kept):
    """As the inference server's route has them, which is compared with PyTorch elsewhere."""
    feature = {"modelId": MODEL, "layer": "1-neuronpedia-resid-post", "index": kept["vector"]["index"]}
    want = ask(daemon, "/v1/activation/single", {"prompt": TEXT, "vector": direction(3), "hook": "blocks.1.hook_resid_post"})
    got = ask(daemon, "/api/activation/new", {"feature": feature, "customText": TEXT})
    assert got["tokens"] == want["tokens"] and got["values"] == want["activation"]["values"]
    assert got["maxValue"] == max(got["values"]) == got["values"][got["maxValueTokenIndex"]] and got["minValue"] == min(got["values"])
    assert (got["modelId"], got["layer"], got["index"]) == (MODEL, "1-neuronpedia-resid-post", feature["index"])
    feature_keys = set(ask(daemon, "/api/activation/new", {"feature": {"layer": SOURCE, "index": 3}, "customText": TEXT}))
    assert set(got) == feature_keys
    for body in ({"customText": ["so", TEXT]}, {"customText": [TEXT]}):
        several = ask(daemon, "/api/activation/new", {"feature": feature, **body})
        assert len(several) == len(body["customText"]) and several[-1]["values"] == pytest.approx(got["values"], rel=1e-5, abs=1e-5)
    without = ask(daemon, "/activations", {"text": TEXT, "source": feature["layer"], "index": feature["index"], "ignoreBos": True})
    special = want["tokensIsSpecial"][0]
    assert without["values"] == got["values"][special:] and without["tokens"] == got["tokens"][special:]
    assert without["maxValue"] == max(without["values"]) == without["values"][without["maxValueTokenIndex"]]
    missing = ask(daemon, "/api/activation/new", {"feature": {**feature, "index": 5}, "customText": TEXT}, 404)
    assert missing["field"] == "feature.layer" and "there is no vector 5" in missing["error"]
    long = ask(daemon, "/api/activation/new", {"feature": feature, "customText": ["so", "ship " * 500]}, 400)
    assert long["field"] == "customText[1]"


def test_a_feature_is_a_vector_too(daemon):
    row = ask(daemon, "/v1/util/sae-vector", {"source": SOURCE, "index": 7})
    got = ask(daemon, "/api/vector/get", {"modelId": MODEL, "source": SOURCE, "index": "7"})["vector"]
    assert got["vector"] == row["vector"] and got["hookName"] == row["hookName"]
    assert (got["vectorLabel"], got["vectorDefaultSteerStrength"], got["createdAt"]) == ("", 10, None)
    assert ask(daemon, "/api/vector/get", {"modelId": MODEL, "source": SOURCE, "index": 96}, 404)["field"] == "index"
    assert ask(daemon, "/api/vector/get", {"modelId": MODEL, "source": "9-no", "index": 0}, 404)["field"] == "source"


def test_a_label_goes_as_a_whole(daemon, kept):
    made = [keep(daemon, k, layer, vectorLabel="of two")["vector"] for k, layer in ((1, 1), (2, 2))]
    assert row_of(daemon, made[0])["vectorLabel"] == "of two"  # asked twice: what is kept of replies must go too
    delete = {"modelId": MODEL, "vectorLabel": "of two"}
    for body, field, words in (({**delete, "index": made[0]["index"]}, "vectorLabel", "in place of"), ({"modelId": MODEL}, "source", "required"),
                               ({"modelId": MODEL, "source": made[0]["source"]}, "index", "required")):
        refused = ask(daemon, "/api/vector/delete", body, 400)
        assert refused["field"] == field and words in refused["error"], refused
    assert len(labelled(daemon, "of two")) == 2
    assert ask(daemon, "/api/vector/delete", delete) == {"message": "Success"}
    assert labelled(daemon, "of two") == [] and len(labelled(daemon, "a <b> label")) == 1
    for one in made:
        row_of(daemon, one, 404)
    gone = ask(daemon, "/api/vector/delete", delete, 404)
    assert gone["field"] == "vectorLabel" and "'of two'" in gone["error"]


def labelled(daemon, label):
    rows = ask(daemon, "/api/vector/list-owned", {"modelId": MODEL, "values": False})["vectors"]
    assert all(row["vector"] == [] for row in rows)
    return [row for row in rows if row["vectorLabel"] == label]


def test_lists_with_and_without_numbers(daemon, kept):
    rows = ask(daemon, "/api/vector/list-owned", {})["vectors"]
    mine = next(row for row in rows if row["index"] == kept["vector"]["index"])
    assert mine["vector"] == kept["vector"]["values"]
    short = ask(daemon, "/api/vector/list-owned", {"values": False})["vectors"]
    assert [{**row, "vector": []} for row in rows] == short and len(json.dumps(short)) < len(json.dumps(rows))
