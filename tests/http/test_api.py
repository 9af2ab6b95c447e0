"""The shape of every endpoint, asked of the real daemon over HTTP."""

import json
import os
import re

import pytest
import requests

from conftest import breaches

TIMEOUT = 30  # seconds: far beyond what the tiny model needs, short enough to fail a hang


def post(daemon, path, body, **more):
    return requests.post(daemon.url + path, json=body, timeout=TIMEOUT, **more)


def get(daemon, path, **more):
    return requests.get(daemon.url + path, timeout=TIMEOUT, **more)


def expect_error(reply, status, code, field=None):
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"].startswith("application/json")
    body = reply.json()
    assert body["error"] == body["message"]
    assert body["code"] == code
    assert body.get("field") == field
    return body["error"]


@pytest.fixture
def model(daemon):
    models = get(daemon, "/models").json()["models"]
    with_sources = [m for m in models if m["sources"]]
    assert with_sources, "the daemon under test serves no source"
    return with_sources[0]


@pytest.fixture
def source(model):
    by_id = {s["id"]: s for s in model["sources"]}
    return by_id.get("1-res-relu", model["sources"][0])


# ---- steer -----------------------------------------------------------------------------------------------

STEER_KEYS = {"STEERED", "DEFAULT", "steeredLogProbs", "defaultLogProbs", "id", "shareUrl", "limit"}


def notebook_payload(model, source):
    """What notebooks send to Neuronpedia, key by key."""
    return {
        "prompt": "In the middle of the universe is the galactic",
        "modelId": model["id"],
        "features": [{"modelId": model["id"], "layer": source["id"], "index": 7, "strength": 8}],
        "temperature": 0.2,
        "n_tokens": 2,
        "freq_penalty": 1,
        "seed": 57,
        "strength_multiplier": 4,
    }


@pytest.mark.parametrize("path", ["/steer", "/steer/", "/api/steer", "/api/steer/"])
def test_steer_as_notebooks_do(daemon, model, source, path):
    payload = notebook_payload(model, source)
    reply = post(daemon, path, payload)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert set(body) == STEER_KEYS
    assert body["STEERED"].startswith(payload["prompt"])
    assert body["DEFAULT"].startswith(payload["prompt"])
    assert body["shareUrl"] is None and body["limit"] is None
    assert body["id"] == reply.headers["X-Request-Id"]
    assert post(daemon, path, payload).json()["STEERED"] == body["STEERED"], "same seed, same text"


def test_steer_with_curl_defaults(daemon):
    # curl -d sends no JSON content type
    reply = requests.post(daemon.url + "/steer", data='{"prompt": "Hello", "features": [], "n_tokens": 3}',
                          headers={"Content-Type": "application/x-www-form-urlencoded"}, timeout=TIMEOUT)
    assert reply.status_code == 200, reply.text
    assert reply.json()["STEERED"] == reply.json()["DEFAULT"]


def test_steer_with_edits_alone(daemon, source):
    edit = {"op": "clamp", "source": source["id"], "index": 7, "value": 30}
    alone = post(daemon, "/steer", {"prompt": "Hello", "n_tokens": 6, "edits": [edit]})
    assert alone.status_code == 200, alone.text
    both = post(daemon, "/steer", {"prompt": "Hello", "n_tokens": 6, "edits": [edit], "features": []})
    assert alone.json()["STEERED"] == both.json()["STEERED"]
    nothing = post(daemon, "/steer", {"prompt": "Hello"})
    expect_error(nothing, 400, "argument", "features")
    assert "'features' or 'edits' is required" in nothing.json()["error"]
    assert post(daemon, "/steer", {"prompt": "Hello", "edits": [], "n_tokens": 1}).status_code == 200, "[] says: nothing"
    spec = daemon.get("/openapi.json").json()
    schema = spec["paths"]["/steer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["prompt"] and schema["anyOf"] == [{"required": ["features"]}, {"required": ["edits"]}]
    assert "required unless <code>edits</code>" in daemon.get("/docs").text


def test_steer_logprobs(daemon, model, source):
    payload = dict(notebook_payload(model, source), n_logprobs=3, types=["STEERED"], include_prompt=False)
    body = post(daemon, "/steer", payload).json()
    assert body["DEFAULT"] is None and body["defaultLogProbs"] is None
    assert not body["STEERED"].startswith(payload["prompt"])
    for row in body["steeredLogProbs"]:
        assert set(row) == {"token", "logprob", "topLogprobs"}
        assert row["logprob"] <= 0 and len(row["topLogprobs"]) == 3


def read_events(reply):
    for block in reply.content.decode().split("\n\n"):
        if block:
            assert block.startswith("data: "), block
            yield json.loads(block[6:])


def test_steer_stream(daemon, model, source):
    payload = dict(notebook_payload(model, source), stream=True, n_tokens=12)
    reply = post(daemon, "/steer", payload, stream=True)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    events = list(read_events(reply))
    assert all(set(event) == STEER_KEYS for event in events)
    assert all(event["id"] is None for event in events[:-1]) and events[-1]["id"]
    for before, after in zip(events, events[1:]):
        for key in ("STEERED", "DEFAULT"):
            assert after[key].startswith(before[key])
    whole = post(daemon, "/steer", dict(payload, stream=False)).json()
    assert (events[-1]["STEERED"], events[-1]["DEFAULT"]) == (whole["STEERED"], whole["DEFAULT"])


@pytest.mark.parametrize("change, field", [
    ({"prompt": ""}, "prompt"), ({"prompt": 3}, "prompt"), ({"prompt": None}, "prompt"),
    ({"temperature": "hot"}, "temperature"), ({"temperature": -1}, "temperature"),
    ({"n_tokens": 0}, "n_tokens"), ({"n_tokens": 1.5}, "n_tokens"), ({"n_tokens": 10**9}, "n_tokens"),
    ({"seed": 10**9}, "seed"), ({"strength_multiplier": 11}, "strength_multiplier"),
    ({"steer_method": "PUSH"}, "steer_method"), ({"features": {}}, "features"),
    ({"features": [{"layer": "1-res-relu", "index": -1, "strength": 1}]}, "features[0].index"),
    ({"features": [{"layer": "1-res-relu", "index": 1}]}, "features[0].strength"),
])
def test_steer_refuses(daemon, model, source, change, field):
    text = expect_error(post(daemon, "/steer", {**notebook_payload(model, source), **change}), 400, "argument", field)
    assert f"'{field}'" in text


def test_steer_not_found(daemon, model, source):
    payload = notebook_payload(model, source)
    expect_error(post(daemon, "/steer", dict(payload, modelId="nobody")), 404, "not_found", "modelId")
    feature = dict(payload["features"][0], layer="99-res-nobody")
    expect_error(post(daemon, "/steer", dict(payload, features=[feature])), 404, "not_found", "features[0].layer")
    feature = dict(payload["features"][0], index=10**9)
    expect_error(post(daemon, "/steer", dict(payload, features=[feature])), 404, "not_found", "features[0].index")
    feature = dict(payload["features"][0], layer=99)  # neurons of a layer that is not there
    expect_error(post(daemon, "/steer", dict(payload, features=[feature])), 404, "not_found", "features[0].layer")


# ---- activations -----------------------------------------------------------------------------------------

TEXT = "Hello there, you"


def check_one(one, model, source, index):
    assert len(one["tokens"]) == len(one["values"]) > 0
    assert one["maxValue"] == max(one["values"]) == one["values"][one["maxValueTokenIndex"]]
    assert one["minValue"] == min(one["values"])
    assert (one["modelId"], one["layer"], one["index"]) == (model["id"], source["id"], str(index))


@pytest.mark.parametrize("index", [7, "7"])
def test_one_feature(daemon, model, source, index):
    feature = {"modelId": model["id"], "layer": source["id"], "index": index}
    neuron = {"modelId": model["id"], "source": source["id"], "index": index}
    a = post(daemon, "/api/activation/new", {"feature": feature, "customText": TEXT}).json()
    b = post(daemon, "/api/activation/new", {"neuron": neuron, "customText": [TEXT, "you"]}).json()
    c = post(daemon, "/activations", {**neuron, "text": TEXT}).json()
    check_one(a, model, source, index)
    assert a["values"] == b[0]["values"] == c["values"]
    check_one(b[1], model, source, index)


def test_top_by_token(daemon, model, source):
    body = {"modelId": model["id"], "source": source["id"], "text": TEXT, "numResults": 4}
    one = post(daemon, "/api/search-topk-by-token/", body).json()
    assert set(one) == {"source", "results"} and one["source"] == source["id"]
    for i, row in enumerate(one["results"]):
        assert set(row) == {"position", "token", "isSpecial", "topFeatures"}
        assert row["position"] == i + 1 and not row["isSpecial"]
        values = [f["activationValue"] for f in row["topFeatures"]]
        assert len(values) <= 4 and values == sorted(values, reverse=True) and all(v > 0 for v in values)
    many = post(daemon, "/activations", dict(body, text=[TEXT, "you"])).json()
    assert len(many["results"]) == 2 and many["results"][0] == one


def test_all_that_fire(daemon, model, source):
    """Every feature that fires, turned: its values are those of one feature asked for alone, and none is missing."""
    where = {"modelId": model["id"], "source": source["id"]}
    one = post(daemon, "/api/activation/source", {**where, "customText": TEXT}).json()
    assert set(one) == {"results"} and len(one["results"]) == 1
    got = one["results"][0]
    dense = {index: [0.0] * len(got["tokens"]) for index in got["activeFeatures"]}
    for index, pairs in got["activeFeatures"].items():
        assert pairs == sorted(pairs) and len({at for at, _ in pairs}) == len(pairs) > 0
        for at, value in pairs:
            dense[index][at] = value
    assert list(dense) == sorted(dense, key=int) and dense
    tops = post(daemon, "/api/search-topk-by-token", {**where, "text": TEXT, "numResults": 20}).json()["results"]
    for row in tops:
        for feature in row["topFeatures"]:
            assert dense[str(feature["featureIndex"])][row["position"]] == feature["activationValue"]
    for row in tops:  # and nothing beside, where the twenty strongest are not all there is
        firing = sum(values[row["position"]] > 0 for values in dense.values())
        assert len(row["topFeatures"]) == min(20, firing)
    many = post(daemon, "/api/activation/source", {**where, "customText": [TEXT, "you"], "ignoreBos": True}).json()["results"]
    shifted = {index: [[at - 1, value] for at, value in pairs if at] for index, pairs in got["activeFeatures"].items()}
    assert len(many) == 2 and many[0]["tokens"] == got["tokens"][1:]
    assert many[0]["activeFeatures"] == {index: pairs for index, pairs in shifted.items() if pairs}
    expect_error(post(daemon, "/api/activation/source", {**where, "source": "none", "customText": TEXT}), 404, "not_found", "source")


def test_one_source_set(daemon, model, source):
    got = get(daemon, f"/api/source-set/{model['id']}/{source['set']}").json()
    assert (got["modelId"], got["name"], got["description"], got["urls"]) == (model["id"], source["set"], None, [])
    assert source["id"] in [one["id"] for one in got["sources"]] and {one["setName"] for one in got["sources"]} == {source["set"]}
    expect_error(get(daemon, f"/api/source-set/{model['id']}/none"), 404, "not_found", "name")
    expect_error(get(daemon, f"/api/source-set/none/{source['set']}"), 404, "not_found", "modelId")


def test_top_over_text(daemon, model, source):
    body = {"modelId": model["id"], "sourceSet": source["set"], "text": TEXT, "selectedLayers": [source["id"]],
            "sortIndexes": [], "ignoreBos": True, "densityThreshold": -1, "numResults": 6}
    one = post(daemon, "/api/search-all/", body).json()
    assert set(one) == {"tokens", "result", "sortIndexes"}
    assert 0 < len(one["result"]) <= 6
    peaks = [row["maxValue"] for row in one["result"]]
    assert peaks == sorted(peaks, reverse=True)
    for row in one["result"]:
        assert row["layer"] == source["id"] and isinstance(row["index"], str)
        assert len(row["values"]) == len(one["tokens"])
        assert row["values"][row["maxValueIndex"]] == row["maxValue"] > 0
    many = post(daemon, "/activations", dict(body, text=[TEXT])).json()
    assert many["results"][0]["result"] == one["result"]
    first = one["result"][0]
    again = post(daemon, "/activations", {"modelId": model["id"], "source": first["layer"], "index": first["index"],
                                          "text": TEXT, "ignoreBos": True}).json()
    if "STEERD_TEST_CUDA" in os.environ:  # one feature alone is multiplied on the host, in another order: a few 2^-24 of a sum
        assert again["values"] == pytest.approx(first["values"], rel=2e-6)
    else:
        assert again["values"] == first["values"]


def test_activations_refuse(daemon, model, source):
    both = {"text": TEXT, "modelId": model["id"], "source": source["id"], "sourceSet": source["set"]}
    expect_error(post(daemon, "/activations", both), 400, "argument", "sourceSet")
    expect_error(post(daemon, "/activations", {"text": TEXT, "modelId": model["id"]}), 400, "argument", "source")
    expect_error(post(daemon, "/activations", {"text": [], "source": source["id"]}), 400, "argument", "text")
    expect_error(post(daemon, "/api/search-all", {"text": TEXT, "modelId": model["id"], "sourceSet": "nobody"}), 404,
                 "not_found", "sourceSet")


# ---- tokens and models -----------------------------------------------------------------------------------


def test_tokenize(daemon, model):
    plain = post(daemon, "/api/tokenize", {"prompt": TEXT, "modelId": model["id"], "prependBos": False}).json()
    assert set(plain) == {"tokens", "tokenStrings", "prependBos"}
    assert "".join(plain["tokenStrings"]) == TEXT
    inference = post(daemon, "/v1/tokenize", {"text": TEXT, "model": model["id"], "prependBos": False}).json()
    assert inference == plain


def test_models(daemon, model, source):
    listed = {m["id"]: m for m in post(daemon, "/api/model/list", {}).json()}
    one = post(daemon, "/api/model/get", {"id": model["id"]}).json()
    assert listed[model["id"]] == one
    sets = {s["name"]: s for s in one["sourceSets"]}
    assert source["id"] in [s["id"] for s in sets[source["set"]]["sources"]]
    expect_error(post(daemon, "/api/model/get", {"id": "nobody"}), 404, "not_found", "modelId")


# ---- operations and pages --------------------------------------------------------------------------------


def test_operations(daemon):
    assert get(daemon, "/health").json() == {"status": "healthy"}
    assert get(daemon, "/ready").json() == {"status": "ready"}
    assert {"name", "version", "commit"} <= set(get(daemon, "/version").json())
    assert requests.head(daemon.url + "/health", timeout=TIMEOUT).status_code == 200


def test_metrics(daemon):
    reply = get(daemon, "/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    known, last = set(), {}
    for line in reply.text.splitlines():
        if line.startswith("# TYPE "):
            known.add(line.split()[2])
        elif not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            base = name.split("{")[0]
            for ending in ("_bucket", "_sum", "_count"):
                if base.endswith(ending) and base[: -len(ending)] in known:
                    base = base[: -len(ending)]
            assert base in known, line
            last[name] = float(value)
    assert last["steerd_ready"] == 1


def test_openapi_tells_every_route(daemon):
    spec = get(daemon, "/openapi.json").json()
    assert spec["openapi"].startswith("3.1")
    ids = [op["operationId"] for path in spec["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids)), "operation ids are unique"
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            if "501" not in operation["responses"] or "{" in path:
                continue
            reply = requests.request(method, daemon.url + path, json={}, timeout=TIMEOUT)
            assert reply.status_code == 501, (method, path, reply.status_code)


def test_openapi_tells_what_is_answered(daemon):
    """Schemas of replies; that replies are so is looked at with every request of these tests (conftest.py)."""
    spec = get(daemon, "/openapi.json").json()
    steered = spec["paths"]["/steer"]["post"]["responses"]["200"]["content"]
    assert set(steered) == {"application/json", "text/event-stream"}
    assert steered["application/json"]["schema"] == {"$ref": "#/components/schemas/Steered"}
    shape = spec["components"]["schemas"]["Steered"]
    assert set(shape["properties"]) == set(shape["required"]) == STEER_KEYS and shape["additionalProperties"] is False
    assert spec["paths"]["/v1/sources"]["post"]["responses"].keys() == {"201", "default"}
    docs = get(daemon, "/docs").text
    assert "{STEERED: text?, DEFAULT: text?" in docs and '<a href="#Steered">Steered</a>' in docs
    ids = re.findall(r' id="([^"]+)"', docs)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]+)"', docs)) <= set(ids), "every link leads somewhere"
    right = {"STEERED": "a", "DEFAULT": None, "steeredLogProbs": None, "defaultLogProbs": None, "id": "1", "shareUrl": None, "limit": None}
    assert breaches(shape, right, spec) == []
    assert breaches(shape, {**right, "STEERED": 1}, spec) == [".STEERED: 1 is not string or null"]
    assert breaches(shape, {**right, "more": 1}, spec) == [": nobody has told of 'more' (api/shapes.c)"]
    assert breaches(shape, {name: right[name] for name in list(right)[1:]}, spec) == [": 'STEERED' is missing"]


def test_the_page_of_calls_leads_to_its_parts(daemon):
    docs = get(daemon, "/docs").text
    heads, links = re.findall(r'<h2 id="([^"]+)"', docs), re.findall(r'href="#([^"]+)"', docs)
    assert links[:len(heads)] == heads and len(heads) == docs.count("<h2") == 6


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages(daemon, path):
    reply = get(daemon, path)
    assert reply.status_code == 200 and reply.headers["Content-Type"].startswith("text/html")
    assert "<script>" not in reply.text and "style=" not in reply.text
    assert get(daemon, "/static/docs.css").headers["Content-Type"].startswith("text/css")


# ---- every route -----------------------------------------------------------------------------------------


def test_wrong_paths_and_methods(daemon):
    expect_error(get(daemon, "/nothing"), 404, "not_found")
    reply = get(daemon, "/activations")
    expect_error(reply, 405, "method")
    assert reply.headers["Allow"] == "POST"
    reply = get(daemon, "/v1/chat/completions")
    assert reply.status_code == 405 and reply.headers["Allow"] == "POST"
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body, words", [
    (b"", "'prompt' is required"), (b"[]", "must be a JSON object"), (b"{", "not valid JSON at line 1"),
    (b'{"prompt": "a", "prompt": "b"}', "duplicate"), (b'{"prompt": "a\\u0000"}', "\\u0000"),
    (b'{"prompt": "\xff"}', "UTF-8"), (b'{"x": ' + b"[" * 5000, "deeper than"), (b'{"x": NaN}', "not valid JSON"),
])
def test_bad_bodies(daemon, body, words):
    reply = requests.post(daemon.url + "/steer", data=body, timeout=TIMEOUT)
    assert reply.status_code == 400, reply.text
    assert words in reply.json()["error"]


def test_pages_must_send_json(daemon):
    headers = {"Origin": "http://localhost:3000", "Content-Type": "text/plain"}
    reply = requests.post(daemon.url + "/api/tokenize", data='{"prompt": "a"}', headers=headers, timeout=TIMEOUT)
    expect_error(reply, 415, "content_type")
    headers["Content-Type"] = "application/json"
    reply = requests.post(daemon.url + "/api/tokenize", data='{"prompt": "a"}', headers=headers, timeout=TIMEOUT)
    assert reply.status_code == 200, reply.text
