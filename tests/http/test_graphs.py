"""Attribution graphs that are kept: Neuronpedia's routes, across a restart, and with its published client where that is installed. What is in a graph
is tests/http/test_lab_graph.py's."""
import threading

import pytest
import requests

from conftest import MODEL, VECTORS, Daemon

CLT = VECTORS / "dict-clt"
TEXT = "One night a ship came near"
ROW = {"id", "modelId", "slug", "promptTokens", "prompt", "titlePrefix", "sourceSetName", "url", "pageUrl", "numNodes", "numLinks", "userId",
       "isFeatured", "createdAt", "updatedAt"}


def options(*names):
    sources = [flag for name in names for layer in range(3) for flag in ("--source", f"{MODEL}/{layer}-{name}={CLT / name}")]
    return ["--model", f"{MODEL}={VECTORS / MODEL / 'model'}", *sources]


@pytest.fixture
def kept(start_daemon, tmp_path):
    return start_daemon(options("relu"), store=str(tmp_path / "store.sqlite"))


def generate(daemon, **more):
    return daemon.post("/api/graph/generate", {"modelId": MODEL, "prompt": TEXT, **more})


def refused(reply, status, field, *words):
    assert reply.status_code == status, reply.text
    assert reply.json()["field"] == field
    for word in words:
        assert word in reply.json()["message"]


def test_life_of_a_graph(start_daemon, tmp_path):
    store = str(tmp_path / "store.sqlite")
    daemon = start_daemon(options("relu"), store=store)
    made = generate(daemon, slug="ship_1", edgeThreshold=0.98).json()
    assert made["message"] == "Graph saved to database" and made["slug"] == "ship_1"
    row = daemon.get(f"/api/graph/{MODEL}/ship_1").json()
    assert set(row) == ROW and row["sourceSetName"] == "relu" and row["prompt"] == TEXT
    assert (row["numNodes"], row["numLinks"]) == (made["numNodes"], made["numLinks"])
    assert made["s3url"] == row["url"] and made["url"] == row["pageUrl"]
    graph = requests.get(made["s3url"], timeout=30).json()
    assert graph["metadata"]["prompt_tokens"] == row["promptTokens"] and graph["metadata"]["slug"] == "ship_1"
    assert (len(graph["nodes"]), len(graph["links"])) == (made["numNodes"], made["numLinks"])
    fresh = daemon.post("/v1/lab/graph", {"text": TEXT, "slug": "ship_1"}).json()  # the model's only set, the same thresholds
    assert fresh["nodes"] == graph["nodes"] and fresh["links"] == graph["links"]
    daemon.finish()

    daemon = start_daemon(options("relu"), store=store)
    assert [g["slug"] for g in daemon.post("/api/graph/list-owned").json()] == ["ship_1"]
    assert daemon.get(f"/v1/graphs/{MODEL}/ship_1").json() == graph
    assert daemon.post("/api/graph/delete", {"modelId": MODEL, "slug": "ship_1"}).json() == {"message": "Graph deleted successfully"}
    assert daemon.post("/api/graph/list-owned").json() == []
    refused(daemon.get(f"/api/graph/{MODEL}/ship_1"), 404, "slug", "list-owned")
    refused(daemon.get(f"/v1/graphs/{MODEL}/ship_1"), 404, "slug", "list-owned")
    refused(daemon.post("/api/graph/delete", {"modelId": MODEL, "slug": "ship_1"}), 404, "slug")


def test_names(kept):
    first, second = generate(kept).json(), generate(kept).json()
    assert first["slug"].startswith("one-night-a-ship-came-near-") and first["slug"] != second["slug"]
    assert generate(kept, prompt="日本").json()["slug"].isdigit()  # no letter of it may stand in a name
    assert generate(kept, slug="a").status_code == 200
    refused(generate(kept, slug="a"), 409, "slug", "Model + Slug/ID Exists")
    for slug in ["A", "a b", "../x", "a/b", "ä"]:
        refused(generate(kept, slug=slug), 400, "slug", "lower case letters, digits, '-' and '_'")
    refused(generate(kept, slug=""), 400, "slug")


def test_two_of_one_name_at_once(kept):
    """Both pass the first look; the store takes one."""
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(generate(kept, slug="same").status_code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200, 409, 409, 409]


def test_refusals(kept, start_daemon, tmp_path):
    refused(generate(kept, sourceSetName="none"), 404, "sourceSetName", "'relu'")
    refused(generate(kept, modelId="none"), 404, "modelId")
    refused(generate(kept, maxNLogits=0), 400, "maxNLogits")
    refused(generate(kept, nodeThreshold=1.5), 400, "nodeThreshold")
    refused(kept.post("/api/graph/generate", {"modelId": MODEL}), 400, "prompt")
    none = start_daemon(options(), store="")
    assert generate(none).status_code == 501  # without a store
    listed = none.post("/api/graph/list-owned")
    assert listed.json() == [] and listed.headers["X-Store"].startswith("none")
    several = start_daemon(options("relu", "jump"), store=str(tmp_path / "several.sqlite"))
    refused(generate(several), 400, "sourceSetName", "2 sets")
    bare = start_daemon(options(), store=str(tmp_path / "bare.sqlite"))
    refused(generate(bare), 400, "sourceSetName", "no set of transcoders")


def test_explanations_stand_at_their_features(kept):
    graph = kept.post("/v1/lab/graph", {"text": TEXT}).json()
    feature = next(n for n in graph["nodes"] if n["feature_type"] == "cross layer transcoder")
    said = {"modelId": MODEL, "layer": feature["source"], "index": feature["index"], "description": "night and ships"}
    assert kept.post("/api/explanation/new", said).status_code == 200
    clerps = {n["node_id"]: n["clerp"] for n in kept.post("/v1/lab/graph", {"text": TEXT}).json()["nodes"]}
    assert clerps[feature["node_id"]] == "night and ships"
    assert sum(text == "night and ships" for text in clerps.values()) == sum(
        (n.get("source"), n.get("index")) == (feature["source"], feature["index"]) for n in graph["nodes"])


def test_subgraphs(start_daemon, tmp_path):
    store = str(tmp_path / "store.sqlite")
    daemon = start_daemon(options("relu"), store=store)
    where = {"modelId": MODEL, "slug": "ship"}
    for slug in ["ship", "other"]:
        assert generate(daemon, slug=slug).status_code == 200
    choices = {"pinnedIds": ["0_1_2", "E_5_2"], "supernodes": [["sea", "0_1_2"], ["empty"]], "clerps": [["0_1", "a \"ship\""]], "pruningThreshold": 0.8,
               "densityThreshold": None}
    first = daemon.post("/api/graph/subgraph/save", {**where, **choices, "displayName": "mine"}).json()
    bare = {"pinnedIds": [], "supernodes": [], "clerps": [], "pruningThreshold": None, "densityThreshold": 0.99}
    second = daemon.post("/api/graph/subgraph/save", {**where, **bare}).json()
    assert first["success"] and second["success"] and first["subgraphId"] != second["subgraphId"]
    listed = daemon.post("/api/graph/subgraph/list", where).json()["subgraphs"]
    assert [s["id"] for s in listed] == [second["subgraphId"], first["subgraphId"]]  # newest first
    assert {key: listed[1][key] for key in choices} == choices and listed[1]["displayName"] == "mine"
    assert {key: listed[0][key] for key in bare} == bare and listed[0]["displayName"] is None
    assert listed[0]["graphMetadataId"] == daemon.get(f"/api/graph/{MODEL}/ship").json()["id"]
    assert daemon.post("/api/graph/subgraph/list", {**where, "slug": "other"}).json()["subgraphs"] == []
    again = daemon.post("/api/graph/subgraph/save", {**where, **bare, "overwriteId": first["subgraphId"], "displayName": "not looked at"})
    assert again.json() == first
    refused(daemon.post("/api/graph/subgraph/save", {**where, **bare, "slug": "other", "overwriteId": first["subgraphId"]}), 404, "overwriteId", "of this graph")
    daemon.finish()

    daemon = start_daemon(options("relu"), store=store)
    listed = daemon.post("/api/graph/subgraph/list", where).json()["subgraphs"]
    assert listed[1]["displayName"] == "mine" and {key: listed[1][key] for key in bare} == bare
    assert daemon.post("/api/graph/subgraph/delete", {"subgraphId": second["subgraphId"]}).json()["success"]
    refused(daemon.post("/api/graph/subgraph/delete", {"subgraphId": second["subgraphId"]}), 404, "subgraphId", "list")
    assert daemon.post("/api/graph/delete", where).status_code == 200  # takes its subgraphs along
    refused(daemon.post("/api/graph/subgraph/list", where), 404, "slug", "list-owned")
    refused(daemon.post("/api/graph/subgraph/delete", {"subgraphId": first["subgraphId"]}), 404, "subgraphId")


@pytest.mark.parametrize("change, field, words", [
    ({"slug": "none"}, "slug", "no graph 'none'"),
    ({"pinnedIds": None}, "pinnedIds", "required"),
    ({"pinnedIds": [1]}, "pinnedIds[0]", "a string"),
    ({"pinnedIds": ["x"] * 10001}, "pinnedIds", "10000"),
    ({"pinnedIds": ["x" * 257]}, "pinnedIds[0]", "256"),
    ({"supernodes": "x"}, "supernodes", "an array of arrays of strings"),
    ({"supernodes": ["x"]}, "supernodes[0]", "an array of at most 5000 strings"),
    ({"supernodes": [["a"], ["b", 3]]}, "supernodes[1][1]", "a string"),
    ({"clerps": [["a"] * 17]}, "clerps[0]", "at most 16"),
    ({"pruningThreshold": 1.5}, "pruningThreshold", "0 to 1"),
    ({"overwriteId": "x"}, "overwriteId", "integer"),
])
def test_what_is_no_subgraph(kept, change, field, words):
    assert generate(kept, slug="ship").status_code == 200
    body = {"modelId": MODEL, "slug": "ship", "pinnedIds": [], "supernodes": [], "clerps": [], "pruningThreshold": None, "densityThreshold": None, **change}
    reply = kept.post("/api/graph/subgraph/save", body)
    assert reply.status_code in (400, 404) and words in reply.json()["message"], reply.text
    assert reply.json().get("field") == field, reply.text
    assert kept.post("/api/graph/subgraph/list", {"modelId": MODEL, "slug": "ship"}).json()["subgraphs"] == []


def test_subgraphs_are_few(kept):
    assert generate(kept, slug="ship").status_code == 200
    body = {"modelId": MODEL, "slug": "ship", "pinnedIds": [], "supernodes": [], "clerps": []}
    for _ in range(100):
        assert kept.post("/api/graph/subgraph/save", body).status_code == 200
    more = kept.post("/api/graph/subgraph/save", body)
    assert more.status_code == 400 and "may have 100" in more.json()["message"]


def pair(layer, index):
    return (layer + index) * (layer + index + 1) // 2 + index


def test_features_as_viewers_read_them(kept):
    graph = kept.post("/v1/lab/graph", {"text": TEXT}).json()
    node = next(n for n in graph["nodes"] if n["feature_type"] == "cross layer transcoder" and n["layer"] == "1")
    tokens, values = ["A", " ship", "\n"], [0, 2.5, 0.5]
    rows = [{"tokens": tokens, "values": values}, {"tokens": tokens, "values": [0, 0.25, 0], "quantileMin": 0.1, "quantileMax": 0.3, "quantileFraction": 0.5}]
    identity = kept.get(f"/v1/lab/dictionaries/{MODEL}/{node['source']}").json()["provenance"]["identity"]
    put = kept.post("/api/activation/upload-batch", {"modelId": MODEL, "source": node["source"], "index": node["index"], "activations": rows, "identity": identity})
    assert put.status_code == 200, put.text
    known = kept.get(f"/api/feature/{MODEL}/{node['source']}/{node['index']}").json()
    base = f"/v1/graph-features/{MODEL}/{graph['metadata']['feature_details']['neuronpedia_source_set']}"
    told = kept.get(f"{base}/{node['feature']}.json").json()
    assert kept.get(f"{base}/{node['feature']}").json() == told
    assert (told["transcoder_id"], told["index"]) == (node["source"], node["index"])
    assert told["top_logits"] == known["pos_str"] and told["bottom_logits"] == known["neg_str"] and len(told["top_logits"]) > 0
    groups = {group["quantile_name"]: group["examples"] for group in told["examples_quantiles"]}
    assert {name: len(examples) for name, examples in groups.items()} == {"Top activations": 1, "Activations from 0.1 to 0.3": 1}
    assert groups["Top activations"][0] == {"tokens": tokens, "tokens_acts_list": values, "train_token_ind": 1, "is_repeated_datapoint": False}
    assert told["act_max"] == 2.5
    for name, status, words in [(pair(1, 40), 404, "no feature 40"), (pair(3, 0), 404, "3-relu"), ("x", 404, "L + I"), ("1.txt", 404, "L + I"),
                                (2**63, 404, "L + I"), (2**61, 404, "L + I"), (2**61 - 1, 404, "-relu"), ("", 404, "")]:
        reply = kept.get(f"{base}/{name}")
        assert reply.status_code == status and words in reply.json()["message"], reply.text


@pytest.mark.parametrize("layer, index", [(0, 0), (0, 39), (2, 0), (2, 17), (1, 39)])
def test_every_pair_is_read_back(kept, layer, index):
    told = kept.get(f"/v1/graph-features/{MODEL}/relu/{pair(layer, index)}").json()
    assert (told["transcoder_id"], told["index"]) == (f"{layer}-relu", index)


def test_tokenize(kept):
    """The next tokens are those of a graph of the same prompt, and the tokens those that its nodes stand at."""
    graph = kept.post("/v1/lab/graph", {"text": TEXT, "maxLogits": 7, "logitProbability": 0.4, "nodeThreshold": 1, "edgeThreshold": 1}).json()
    logits = [n for n in graph["nodes"] if n["feature_type"] == "logit"]
    reply = kept.post("/api/graph/tokenize", {"modelId": MODEL, "prompt": TEXT, "sourceSetName": "relu", "maxNLogits": 7, "desiredLogitProb": 0.4}).json()
    assert reply["prompt"] == TEXT and reply["input_tokens"] == graph["metadata"]["prompt_tokens"]
    assert [s["token_id"] for s in reply["salient_logits"]] == [n["feature"] for n in logits]
    assert [s["probability"] for s in reply["salient_logits"]] == pytest.approx([n["token_prob"] for n in logits], abs=1e-6)  # one pass each, in f32
    assert reply["total_salient_tokens"] == len(logits) <= 7
    assert reply["cumulative_probability"] == pytest.approx(sum(n["token_prob"] for n in logits), abs=1e-5)
    one = kept.post("/api/graph/tokenize", {"modelId": MODEL, "prompt": TEXT, "desiredLogitProb": 0}).json()
    assert one["total_salient_tokens"] == 1  # as a graph has one at least
    refused(kept.post("/api/graph/tokenize", {"modelId": MODEL}), 400, "prompt")
    refused(kept.post("/api/graph/tokenize", {"modelId": "none", "prompt": TEXT}), 404, "modelId")
    refused(kept.post("/api/graph/tokenize", {"modelId": MODEL, "prompt": TEXT, "maxNLogits": 0}), 400, "maxNLogits")
    refused(kept.post("/api/graph/tokenize", {"modelId": MODEL, "prompt": TEXT, "messages": [{"role": "user", "content": "x"}]}), 400, "messages", "apply-chat-template")


def test_published_client(tmp_path):
    neuronpedia = pytest.importorskip("neuronpedia", reason="skip: the package 'neuronpedia' is not installed for this interpreter")
    from neuronpedia.requests.base_request import NPRequest
    from neuronpedia.requests.graph_request import GraphRequest
    daemon = Daemon(options("relu"), store=str(tmp_path / "store.sqlite"))
    before, NPRequest.BASE_URL = NPRequest.BASE_URL, daemon.url + "/api"
    try:
        with neuronpedia.api_key("none"):
            made = GraphRequest().generate(MODEL, TEXT, "by-client", node_threshold=0.7)
            assert (made.model_id, made.slug, made.prompt) == (MODEL, "by-client", TEXT)
            assert requests.get(made.json_url, timeout=30).json()["metadata"]["node_threshold"] == 0.7
            assert [g.slug for g in GraphRequest().list_owned()] == ["by-client"]
            GraphRequest().delete(made)
            assert GraphRequest().list_owned() == []
    finally:
        NPRequest.BASE_URL = before
        daemon.finish()
