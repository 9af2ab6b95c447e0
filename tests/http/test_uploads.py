"""Models and source sets that are registered by name, features and activations that are uploaded to them, and everything that reads
them from the store. The bodies are those that Neuronpedia's Python client (neuronpedia 1.2.1) sends; test_neuronpedia_client.py
uses the client itself."""
import concurrent.futures
import json
import socket
import subprocess
import time

import pytest

from conftest import MODEL, Daemon, binary, model_options

TOKENS = ["The", " cat", " sat"]


def post(daemon, path, body, status=200):
    reply = daemon.post(path, body)
    assert reply.status_code == status, (path, reply.status_code, reply.text[:500])
    return reply.json()


def get(daemon, path, status=200):
    reply = daemon.get(path)
    assert reply.status_code == status, (path, reply.status_code, reply.text[:500])
    return reply.json()


def refused(daemon, path, body, status, field, words=""):
    told = post(daemon, path, body, status)
    assert told.get("field") == field and words in told["error"], told
    return told


def activation(values=(0.0, 2.5, 0.5), tokens=None, **more):
    return {"tokens": tokens or TOKENS, "values": list(values), "quantileMax": None, "quantileMin": None, "quantileFraction": None, **more}


def feature(index, **more):
    """As the client writes one: every member is there."""
    return {"index": index, "density": 0.01, "activations": [activation((0.0, 2.5 + index, 0.5))],
            "explanations": [{"text": f"animal number {index}", "methodName": "oai_token-act-pair", "modelName": "gpt-4"}],
            "topLogits": [{"token": " dog", "value": 1.5}, {"token": " mouse", "value": 1.25}],
            "bottomLogits": [{"token": " tax", "value": -1.5}], **more}


def batch(model, source, features, **more):
    return {"modelId": model, "source": source, "features": features, **more}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    daemon = Daemon(model_options(), store=str(tmp_path_factory.mktemp("uploads") / "store.sqlite"))
    yield daemon
    daemon.finish()


@pytest.fixture(scope="module")
def model(world):
    told = post(world, "/api/model/new", {"id": "pup-model-3", "layers": 3, "displayName": None, "url": "https://pups.example/3"})
    assert told["id"] == "pup-model-3" and told["layers"] == 3 and told["website"] == "https://pups.example/3"
    assert told["displayName"] == "pup-model-3" and told["inferenceEnabled"] is False and told["dimension"] is None
    made = post(world, "/api/source-set/new", {"name": "puppyscope-res-16k", "modelId": "pup-model-3", "description": "Residual - 16k", "url": None})
    assert [row["id"] for row in made["sources"]] == [f"{layer}-puppyscope-res-16k" for layer in range(3)]
    assert made["name"] == "puppyscope-res-16k" and made["description"] == "Residual - 16k" and made["urls"] == []
    assert all(row["modelId"] == "pup-model-3" and row["setName"] == "puppyscope-res-16k" for row in made["sources"])
    return "pup-model-3"


@pytest.fixture(scope="module")
def source(world, model):
    """A source with an uploaded batch of three features."""
    told = post(world, "/api/feature/upload-batch", batch(model, "1-puppyscope-res-16k", [feature(0), feature(7), feature(4095)]))
    assert told == {"message": "3 features created.", "created": 3, "existing": []}
    return "1-puppyscope-res-16k"


# ---- what was registered and uploaded is read as everything else --------------------------------------------


def test_sets_and_models(world, model, source):
    one = get(world, f"/api/source-set/{model}/puppyscope-res-16k")
    assert one["description"] == "Residual - 16k" and len(one["sources"]) == 3
    whole = post(world, "/api/model/get", {"id": model})
    assert [row["name"] for row in whole["sourceSets"]] == ["puppyscope-res-16k"]
    assert model in [row["id"] for row in post(world, "/api/model/list", {})]
    stored = {row["id"]: row for row in get(world, "/models")["stored"]}[model]
    assert stored["loaded"] is False and stored["layers"] == 3
    row = {row["id"]: row for row in stored["sources"]}[source]
    assert (row["features"], row["indices"], row["folded"]) == (3, 4096, None)  # what was uploaded, and behind its last
    assert model not in [row["id"] for row in get(world, "/models")["models"]]


def test_feature(world, model, source):
    for path in (f"/api/feature/{model}/{source}/7", f"/feature/{model}/{source}/7"):
        told = get(world, path)
        assert (told["modelId"], told["layer"], told["index"]) == (model, source, "7")
        assert told["frac_nonzero"] == 0.01 and told["maxActApprox"] == 9.5 and told["decoder_norm"] is None
        assert told["pos_str"] == [" dog", " mouse"] and told["pos_values"] == [1.5, 1.25] and told["neg_str"] == [" tax"]
        example, meaning = told["activations"][0], told["explanations"][0]
        assert example["tokens"] == TOKENS and example["values"] == [0, 9.5, 0.5] and example["maxValueTokenIndex"] == 1
        assert example["binMin"] is None and example["binContains"] is None
        assert meaning["description"] == "animal number 7" and meaning["typeName"] == "oai_token-act-pair"
        assert meaning["explanationModelName"] == "gpt-4" and meaning["origin"] == "imported"
        assert get(world, path) == told  # from memory, which must not hold what lived only as long as the first request
        assert told["conventions"]["folded"] is None and told["conventions"]["bosCounted"] is None  # nobody has said
    for path in (f"/api/feature/{model}/{source}/5", f"/feature/{model}/{source}/5"):
        assert "3 features were uploaded" in get(world, path, 404)["error"]
    assert world.get(f"/{model}/{source}/5", headers={"Accept": "text/html"}).status_code == 404
    assert post(world, "/api/features", [{"modelId": model, "layer": source, "index": i} for i in (5, 7)])[0]["index"] == "7"
    refused(world, "/api/activation/get", {"modelId": model, "source": source, "index": "5"}, 404, "index")
    refused(world, "/api/explanation/new", {"modelId": model, "layer": source, "index": 5, "description": "x"}, 404, "index")
    refused(world, "/api/list/new-with-features", {"name": "x", "features": [{"modelId": model, "layer": source, "index": 5}]}, 404, "features[0].index")
    get(world, f"/api/feature/{model}/{source}/4096", 404)
    get(world, f"/api/feature/{model}/{source}/x", 404)
    assert "has no features yet" in get(world, f"/api/feature/{model}/0-puppyscope-res-16k/0", 404)["error"]


def test_lists_of_features(world, model, source):
    rows = post(world, "/api/features", [{"modelId": model, "layer": source, "index": 7}, {"modelId": model, "layer": "9-none", "index": 0}])
    assert [row["index"] for row in rows] == ["7"]
    assert [row["index"] for row in post(world, "/api/features-offset", {"modelId": model, "layer": source, "offset": 0})] == ["0", "7", "4095"]
    assert post(world, "/api/activation/get", {"modelId": model, "source": source, "index": "0"})[0]["values"] == [0, 2.5, 0.5]
    told = get(world, f"/v1/lab/dictionaries/{model}/{source}")
    assert told["features"] == 3 and told["kind"] is None and told["selfTest"] is None and told["provenance"]["identity"] is None
    assert told["statistics"]["featuresWithStatistics"] == 3 and told["statistics"]["conventions"]["folded"] is None
    assert get(world, f"/v1/lab/dictionaries/{model}/{source}/density?rates=false")["featuresWithStatistics"] == 3
    listed = get(world, f"/v1/lab/dictionaries/{model}/{source}/features?order=max&descending=true")
    assert [row["index"] for row in listed["features"]] == [4095, 7, 0] and listed["features"][0]["description"] == "animal number 4095"
    assert get(world, f"/v1/lab/dictionaries/{model}/{source}/random")["index"] in (0, 7, 4095)


def test_explanations(world, model, source):
    assert len(get(world, f"/api/explanation/export?modelId={model}&saeId={source}")) == 3
    assert get(world, f"/explanations?modelId={model}&q=animal")[0]["layer"] == source
    found = post(world, "/api/explanation/search", {"modelId": model, "layers": [source], "query": "animal"})
    assert found["resultsCount"] == 3
    assert post(world, "/api/explanation/search-model", {"modelId": model, "query": "animal"})["resultsCount"] == 3
    assert post(world, "/api/explanation/search-release", {"releaseName": "puppyscope-res-16k", "query": "animal"})["resultsCount"] == 3
    one = post(world, "/api/explanation/new", {"modelId": model, "layer": source, "index": 4095, "description": "a very large one"})
    assert get(world, f"/api/feature/{model}/{source}/4095")["explanations"][0]["description"] == "a very large one"
    post(world, f"/api/explanation/{one['id']}/delete", {})


def test_pages(world, model, source):
    for path in (f"/{model}", f"/{model}/{source}", f"/{model}/{source}/7"):
        assert world.get(path, headers={"Accept": "text/html"}).status_code == 200, path
    for path in (f"/{model}/none", f"/{model}/{source}/4096"):
        assert world.get(path, headers={"Accept": "text/html"}).status_code == 404, path


def test_export(world, model, source, tmp_path):
    """What the program exports of a copy of the store imports into another as the same feature."""
    daemon = Daemon(model_options())
    try:
        post(daemon, "/api/model/new", {"id": model, "layers": 3})
        post(daemon, "/api/source-set/new", {"name": "mine", "modelId": model})
        post(daemon, "/api/feature/upload-batch", batch(model, "1-mine", [feature(3)]))
        told = get(daemon, f"/api/feature/{model}/1-mine/3")
        store = daemon.folder / "store.sqlite"
        daemon.signal()
        assert daemon.wait() == 0
        copy, out = str(tmp_path / "other.sqlite"), str(tmp_path / "out")
        subprocess.run([binary(), "export", model, "1-mine", "--out", out, "--store", str(store)], check=True, capture_output=True)
        subprocess.run([binary(), "import", out, "--store", copy], check=True, capture_output=True)
    finally:
        daemon.close()
    again = Daemon(model_options(), store=copy)
    try:
        read = get(again, f"/api/feature/{model}/1-mine/3")
        for row in (told, read):
            row.pop("explanations"), row.pop("createdAt"), row.pop("model")
            row["activations"][0].pop("createdAt")
        assert read == told
    finally:
        again.finish()


# ---- what cannot be done ------------------------------------------------------------------------------------


def test_nothing_is_computed(world, model, source):
    feature_of = {"modelId": model, "layer": source, "index": 7, "strength": 4}
    words = "known from the store alone"
    refused(world, "/api/steer", {"prompt": "Hello", "modelId": model, "features": [feature_of]}, 404, "modelId", words)
    refused(world, "/api/activation/new", {"feature": {**feature_of, "index": "7"}, "customText": "Hello"}, 404, "modelId", words)
    refused(world, "/api/search-all", {"text": "Hello", "modelId": model, "sourceSet": "puppyscope-res-16k"}, 404, "modelId", words)
    refused(world, "/api/search-topk-by-token", {"text": "Hello", "modelId": model, "source": source}, 404, "modelId", words)
    refused(world, "/api/tokenize", {"prompt": "Hello", "modelId": model}, 404, "modelId", words)
    refused(world, "/v1/lab/run", {"text": "Hello", "modelId": model}, 404, "modelId", words)
    refused(world, "/v1/jobs", {"kind": "stats", "modelId": model, "source": source, "corpus": "/x"}, 404, "modelId", words)
    refused(world, "/api/cossim", {"modelId": model, "source": source, "index": 7}, 404, "modelId", words)
    assert words in post(world, "/v1/completions", {"model": model, "prompt": "x"}, 404)["error"]["message"]


def test_a_set_of_a_loaded_model(world):
    """Its sources stand beside those that have dictionaries; nothing is computed with them."""
    made = post(world, "/api/source-set/new", {"name": "beside", "modelId": MODEL})
    assert len(made["sources"]) > 0
    post(world, "/api/feature/upload-batch", batch(MODEL, "0-beside", [feature(2)]))
    assert get(world, f"/api/feature/{MODEL}/0-beside/2")["explanations"][0]["description"] == "animal number 2"
    names = [row["name"] for row in post(world, "/api/model/get", {"id": MODEL})["sourceSets"]]
    assert "beside" in names and "res-relu" in names
    words = "known from the store alone"
    steer = {"prompt": "Hello", "modelId": MODEL, "features": [{"layer": "0-beside", "index": 2, "strength": 1}]}
    refused(world, "/api/steer", steer, 404, "features[0].layer", words)
    assert {row["id"]: row["loaded"] for row in get(world, "/models")["stored"]}[MODEL] is True


@pytest.mark.parametrize("body, status, field, words", [
    ({"id": "x", "layers": 3}, 400, "id", "2 to 64"), ({"id": "a" * 65, "layers": 3}, 400, "id", "2 to 64"),
    ({"id": "../etc", "layers": 3}, 400, "id", "letter or digit"), ({"id": "a/b", "layers": 3}, 400, "id", "letters"),
    ({"id": "a\u0001b", "layers": 3}, 400, "id", "letters"), ({"id": "a b", "layers": 3}, 400, "id", "letters"),
    ({"id": "x'; DROP TABLE models;--", "layers": 3}, 400, "id", "letters"), ({"id": "-ab", "layers": 3}, 400, "id", "both ends"),
    ({"id": "caf\u00e9", "layers": 3}, 400, "id", "letters"), ({"id": "steer", "layers": 3}, 400, "id", "path of this server"),
    ({"id": "api", "layers": 3}, 400, "id", "path of this server"), ({"id": "v1", "layers": 3}, 400, "id", "path of this server"),
    ({"layers": 3}, 400, "id", "required"), ({"id": "fine"}, 400, "layers", "required"),
    ({"id": "fine", "layers": 0}, 400, "layers", "1 to 256"), ({"id": "fine", "layers": 1e9}, 400, "layers", "1 to 256"),
    ({"id": "fine", "layers": "3"}, 400, "layers", "integer"), ({"id": MODEL, "layers": 3}, 409, "id", "already"),
])
def test_models_that_cannot_be(world, body, status, field, words):
    refused(world, "/api/model/new", body, status, field, words)


def test_twice_is_refused(world, model):
    refused(world, "/api/model/new", {"id": model, "layers": 5}, 409, "id", "already")
    refused(world, "/api/source-set/new", {"name": "puppyscope-res-16k", "modelId": model}, 409, "name", "already")
    refused(world, "/api/source-set/new", {"name": "res-relu", "modelId": MODEL}, 409, "name", "already")
    for owner in (MODEL, model):
        refused(world, "/api/source-set/new", {"name": "neurons", "modelId": owner}, 409, "name", "own neurons")
    assert post(world, "/api/model/get", {"id": model})["layers"] == 3


@pytest.mark.parametrize("body, status, field", [
    ({"name": "a__b"}, 400, "name"), ({"name": "a/b"}, 400, "name"), ({"name": ""}, 400, "name"), ({"name": "-a"}, 400, "name"),
    ({"name": "fine", "modelId": "nobody"}, 404, "modelId"), ({"name": "fine", "modelId": 3}, 400, "modelId"), ({}, 400, "name"),
])
def test_sets_that_cannot_be(world, model, body, status, field):
    refused(world, "/api/source-set/new", {"modelId": model, **body}, status, field)


BAD_FEATURES = [
    ({"index": -1}, 400, "features[1].index"), ({"index": 1 << 20}, 400, "features[1].index"),
    ({"index": 4294967296}, 400, "features[1].index"), ({"index": "x"}, 400, "features[1].index"),
    ({"index": 1.5}, 400, "features[1].index"), ({"index": None}, 400, "features[1].index"),
    ({"index": 20}, 400, "features[1].index"),  # as the first of the batch
    ({"density": 1.5}, 400, "features[1].density"), ({"density": -1}, 400, "features[1].density"),
    ({"density": "much"}, 400, "features[1].density"),
    ({"activations": [activation([1, 2])]}, 400, "features[1].activations[0].values"),
    ({"activations": [activation([])]}, 400, "features[1].activations[0].values"),
    ({"activations": [activation(), activation(tokens=["a"], values=["b"])]}, 400, "features[1].activations[1].values[0]"),
    ({"activations": [activation([1, 1e39, 2])]}, 400, "features[1].activations[0].values[1]"),
    ({"activations": [activation([1, None, 2])]}, 400, "features[1].activations[0].values[1]"),
    ({"activations": [activation(tokens=["a", 2, "c"])]}, 400, "features[1].activations[0].tokens[1]"),
    ({"activations": [activation(tokens=["t" * 2000, "b", "c"])]}, 400, "features[1].activations[0].tokens[0]"),
    ({"activations": [activation([1.0] * 1025, ["a"] * 1025)]}, 400, "features[1].activations[0].tokens"),
    ({"activations": [activation(quantileFraction=2)]}, 400, "features[1].activations[0].quantileFraction"),
    ({"activations": [activation(quantileMin=1e300)]}, 400, "features[1].activations[0].quantileMin"),
    ({"activations": {"tokens": []}}, 400, "features[1].activations"), ({"activations": ["x"]}, 400, "features[1].activations[0]"),
    ({"activations": [activation()] * 513}, 400, "features[1].activations"),
    ({"topLogits": [{"token": " a", "value": 1e39}]}, 400, "features[1].topLogits[0].value"),
    ({"topLogits": [{"token": " a"}]}, 400, "features[1].topLogits[0].value"),
    ({"bottomLogits": [{"value": 1}]}, 400, "features[1].bottomLogits[0].token"),
    ({"explanations": [{"text": ""}]}, 400, "features[1].explanations[0].text"),
    ({"explanations": [{"text": "x" * 5000}]}, 400, "features[1].explanations[0].text"),
    ({"explanations": [{"text": "x"}] * 17}, 400, "features[1].explanations"),
]


def test_a_set_of_nobody_says_who_there_is(world, model):
    told = refused(world, "/api/source-set/new", {"name": "fine", "modelId": "nobody"}, 404, "modelId", f"registered: '{model}'")
    assert "loaded: '" in told["error"] and told["error"].endswith("POST /api/model/new registers one"), told
    refused(world, "/api/feature/upload-batch", batch("nobody", "1-mine", [feature(1)]), 404, "modelId", f"registered: '{model}'")


@pytest.mark.parametrize("bad, status, field", BAD_FEATURES)
def test_one_bad_row_and_nothing_is_stored(world, model, bad, status, field):
    body = batch(model, "2-puppyscope-res-16k", [feature(20), {**feature(21), **bad}])
    refused(world, "/api/feature/upload-batch", body, status, field)
    assert get(world, f"/v1/lab/dictionaries/{model}/2-puppyscope-res-16k")["statistics"]["featuresWithStatistics"] == 0


@pytest.mark.parametrize("change, status, field", [
    ({"modelId": "nobody"}, 404, "modelId"), ({"source": "7-none"}, 404, "source"), ({"source": "3"}, 404, "source"),
    ({"features": []}, 400, "features"), ({"features": [feature(i) for i in range(129)]}, 400, "features"),
    ({"features": "x"}, 400, "features"), ({"source": "1-puppyscope-res-16k' OR 1=1"}, 404, "source"), ({"source": "a/../b"}, 404, "source"),
])
def test_bad_batches(world, model, change, status, field):
    refused(world, "/api/feature/upload-batch", {**batch(model, "2-puppyscope-res-16k", [feature(1)]), **change}, status, field)


def test_not_json(world):
    for text in ('{"features": [{"index": NaN}]}', '{"features": [{"index": 1e999}]}', "[" * 100, '{"features": [' * 60):
        reply = world.client.post("/api/feature/upload-batch", data=text)
        assert reply.status_code == 400, reply.text


# ---- never twice, never mixed -------------------------------------------------------------------------------


def test_a_feature_is_uploaded_once(world, model, source):
    before = get(world, f"/api/feature/{model}/{source}/0")
    changed = feature(0, density=0.5, explanations=[{"text": "something else"}])
    told = post(world, "/api/feature/upload-batch", batch(model, source, [changed, feature(11)]))
    assert told["created"] == 1 and told["existing"] == [0]
    assert get(world, f"/api/feature/{model}/{source}/0") == before
    assert get(world, f"/api/feature/{model}/{source}/11")["frac_nonzero"] == 0.01


def test_activations(world, model):
    source = "0-puppyscope-res-16k"
    row = {"modelId": model, "source": source, "index": "31", "activations": [{"tokens": TOKENS, "values": [0, 1.5, 0.25]}]}
    assert post(world, "/api/activation/upload-batch", row) == {"message": "1 activations created.", "created": 1, "existing": 0}
    assert post(world, "/api/activation/upload-batch", row)["existing"] == 1
    more = {**row, "activations": row["activations"] + [{"tokens": TOKENS, "values": [0, 3.5, 0.25]}] * 2}
    told = post(world, "/api/activation/upload-batch", more)
    assert (told["created"], told["existing"]) == (1, 2)
    read = get(world, f"/api/feature/{model}/{source}/31")
    assert read["maxActApprox"] == 3.5 and [one["maxValue"] for one in read["activations"]] == [3.5, 1.5] and read["frac_nonzero"] is None
    refused(world, "/api/activation/upload-batch", {**row, "index": 1 << 20}, 400, "index")
    refused(world, "/api/activation/upload-batch", {**row, "activations": [{"tokens": ["a"], "values": [1, 2]}]}, 400, "activations[0].values")
    full = {**row, "index": 32, "activations": [{"tokens": ["a"], "values": [i]} for i in range(512)]}
    for n in range(8):
        post(world, "/api/activation/upload-batch", {**full, "activations": [{"tokens": ["a"], "values": [512 * n + i]} for i in range(512)]})
    told = post(world, "/api/activation/upload-batch", {**row, "index": 32}, 400)
    assert told["code"] == "limit" and "4096" in told["error"]


def test_a_dictionary_keeps_its_own(world):
    """What was counted with another dictionary does not come among what belongs to one that is loaded."""
    place = f"{MODEL}/1-res-relu"
    refused(world, "/api/feature/upload-batch", batch(MODEL, "1-res-relu", [feature(3)]), 409, "identity", "source-set/new")
    refused(world, "/api/feature/upload-batch", batch(MODEL, "1-res-relu", [feature(3)], identity="something #0123"), 409, "identity",
            "another dictionary")
    identity = get(world, f"/v1/lab/dictionaries/{place}")["provenance"]["identity"]
    told = post(world, "/api/feature/upload-batch", batch(MODEL, "1-res-relu", [feature(3)], identity=identity))
    assert told["created"] == 1
    read = get(world, f"/api/feature/{place}/3")
    assert read["explanations"][0]["description"] == "animal number 3" and read["maxActApprox"] == 5.5
    refused(world, "/api/feature/upload-batch", batch(MODEL, "1-res-relu", [feature(100000)], identity=identity), 404, "features[0].index")
    row = {"modelId": MODEL, "source": "1-res-relu", "index": 3, "activations": [{"tokens": ["x"], "values": [9]}]}
    refused(world, "/api/activation/upload-batch", row, 409, "identity")
    assert post(world, "/api/activation/upload-batch", {**row, "identity": identity})["created"] == 1


def test_statistics_of_a_job_stay(world, tmp_path):
    """A job's figures are of every position of a text; an upload changes none of them."""
    text = tmp_path / "text.txt"
    text.write_text("The little girl sat on the mat and was very happy.\n" * 20)
    job = post(world, "/v1/jobs", {"kind": "stats", "modelId": MODEL, "source": "2-res-jump", "corpus": str(text), "lines": True})
    world.get(f"/v1/jobs/{job['id']}/events", timeout=120)
    place = f"{MODEL}/2-res-jump"
    listed = get(world, f"/v1/lab/dictionaries/{place}/features?order=max&descending=true&limit=1")["features"][0]
    identity = get(world, f"/v1/lab/dictionaries/{place}")["provenance"]["identity"]
    told = post(world, "/api/feature/upload-batch", batch(MODEL, "2-res-jump", [feature(listed["index"])], identity=identity))
    assert told["existing"] == [listed["index"]]
    row = {"modelId": MODEL, "source": "2-res-jump", "index": listed["index"], "activations": [{"tokens": ["x"], "values": [1e6]}]}
    assert post(world, "/api/activation/upload-batch", {**row, "identity": identity})["created"] == 1
    after = get(world, f"/v1/lab/dictionaries/{place}/features?order=max&descending=true&limit=1")["features"][0]
    assert after == listed


def test_a_dictionary_that_is_loaded_under_an_uploaded_name(tmp_path):
    """It takes the uploads over where they may be its own, and does not where it has fewer features than were uploaded."""
    folder = next(option for option in model_options() if option.startswith(f"{MODEL}/1-res-relu=")).split("=", 1)[1]
    store = str(tmp_path / "store.sqlite")
    only_model = model_options()[:2]
    daemon = Daemon(only_model, store=store)
    try:
        for name in ("few", "many"):
            post(daemon, "/api/source-set/new", {"name": name, "modelId": MODEL})
        post(daemon, "/api/feature/upload-batch", batch(MODEL, "1-few", [feature(3)]))
        post(daemon, "/api/feature/upload-batch", batch(MODEL, "1-many", [feature(3), feature(100000)]))
    finally:
        daemon.finish()
    daemon = Daemon(only_model + ["--source", f"{MODEL}/1-few={folder}", "--source", f"{MODEL}/1-many={folder}"], store=store)
    try:
        assert get(daemon, f"/api/feature/{MODEL}/1-few/3")["maxActApprox"] == 5.5
        assert get(daemon, f"/api/feature/{MODEL}/1-many/3")["maxActApprox"] is None
        assert "another dictionary than the store knows" in daemon.log()
    finally:
        daemon.finish()


# ---- sizes --------------------------------------------------------------------------------------------------


def test_a_whole_batch(world, model):
    """128 features with 45 examples of 64 tokens, as SAEDashboard makes them: more than an ordinary body may have."""
    post(world, "/api/source-set/new", {"name": "large", "modelId": model})
    tokens = [f" t{i}" for i in range(64)]
    features = [feature(i, activations=[activation([i + k / 64 + t / 8192 for t in range(64)], tokens) for k in range(45)]) for i in range(128)]
    body = batch(model, "0-large", features)
    assert len(json.dumps(body)) > 4 << 20
    assert post(world, "/api/feature/upload-batch", body)["created"] == 128
    assert len(get(world, f"/api/feature/{model}/0-large/127")["activations"]) == 45


def test_bodies_that_are_too_large(world, model):
    filler = {**batch(model, "0-large", [feature(1)]), "junk": "x" * (16 << 20)}
    reply = world.post("/api/feature/upload-batch", filler)
    assert reply.status_code == 413 and "max_batch_body" in reply.text
    reply = world.post("/api/model/new", {"id": "fine", "layers": 2, "junk": "x" * (2 << 20)})
    assert reply.status_code == 413 and "'max_body'" in reply.text


def test_many_at_once(world, model):
    """Each is whole, whoever comes first; a server that reads enough large ones says so."""
    post(world, "/api/source-set/new", {"name": "crowd", "modelId": model})

    def upload(n):
        return world.post("/api/feature/upload-batch", batch(model, "0-crowd", [feature(i, density=(n + 1) / 100) for i in range(20)]))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(upload, range(16)))
    assert all(reply.status_code == 200 for reply in replies)
    assert sorted(reply.json()["created"] for reply in replies) == [0] * 15 + [20]
    read = post(world, "/api/features", [{"modelId": model, "layer": "0-crowd", "index": i} for i in range(20)])
    assert len({row["frac_nonzero"] for row in read}) == 1 and all(len(row["explanations"]) == 1 for row in read)


def test_few_large_bodies_are_read_at_a_time(world, model):
    """Where four that have outgrown max_body are under way, one more is told to come back, and ordinary requests are served."""
    post(world, "/api/source-set/new", {"name": "few", "modelId": model})
    begun, body = [], {**batch(model, "0-few", [feature(1)]), "junk": "x" * 1200000}

    def begin():
        """One that stays under way; it may be refused itself, where the question below came before it."""
        begun.append(socket.create_connection(("127.0.0.1", world.port), 20))
        begun[-1].sendall(b"POST /api/feature/upload-batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3000000\r\n\r\n{" + b" " * 1200000)

    try:
        for _ in range(3):
            begin()
        for _ in range(40):
            begin()
            time.sleep(0.1)
            if (reply := world.post("/api/feature/upload-batch", body)).status_code == 503:
                break
        assert reply.status_code == 503 and reply.json()["code"] == "busy" and reply.headers["Retry-After"], reply.text
        assert post(world, "/api/feature/upload-batch", batch(model, "0-few", [feature(2)]))["created"] == 1
    finally:
        for one in begun:
            one.close()
    end = time.monotonic() + 20
    while (reply := world.post("/api/feature/upload-batch", body)).status_code == 503 and time.monotonic() < end:
        time.sleep(0.05)
    assert reply.status_code == 200, reply.text


def test_limits_of_registration(tmp_path):
    daemon = Daemon(model_options()[:2], store=str(tmp_path / "store.sqlite"))
    try:
        status = 200
        for i in range(600):
            reply = daemon.post("/api/model/new", {"id": f"model-{i}", "layers": 256})
            if reply.status_code != 200:
                break
        assert reply.status_code == 400 and reply.json()["code"] == "limit" and i == 511, (i, reply.text)
        made = 0
        while (reply := daemon.post("/api/source-set/new", {"name": f"set-{made}", "modelId": f"model-{made // 200}"})).status_code == 200:
            made += 1
        assert reply.json()["code"] == "limit" and made == 8192 // 256, (made, reply.text)
        assert len(get(daemon, "/models")["stored"]) == 511
    finally:
        daemon.finish()


# ---- no store -----------------------------------------------------------------------------------------------


def test_without_a_store():
    daemon = Daemon(model_options()[:2], store="")
    try:
        row = {"tokens": ["a"], "values": [1]}
        for path, body in (("/api/model/new", {"id": "fine", "layers": 2}), ("/api/source-set/new", {"name": "fine", "modelId": MODEL}),
                           ("/api/feature/upload-batch", batch(MODEL, "1-x", [feature(1)])),
                           ("/api/activation/upload-batch", {"modelId": MODEL, "source": "1-x", "index": 1, "activations": [row]})):
            told = post(daemon, path, body, 501)
            assert "needs a store" in told["error"] and told["code"] == "unsupported"
        assert get(daemon, "/models")["stored"] == []
    finally:
        daemon.finish()
