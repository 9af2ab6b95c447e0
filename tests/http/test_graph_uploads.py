"""Graphs that were made elsewhere, brought in Neuronpedia's three steps: a place, the file, the check. What is in the file is nobody's promise, so most of this is
what must not get in."""
import copy
import gzip
import json

import pytest
import requests

from conftest import MODEL, VECTORS, Daemon

# What circuit-tracer writes, in its own words and names (its nodes have neither source nor index, its errors are called 0_LAYER_POSITION).
GRAPH = {
    "metadata": {"slug": "Made.elsewhere-1", "scan": MODEL, "transcoder_list": [], "prompt_tokens": ["<bos>", "The", " ship"], "prompt": "The ship",
                 "node_threshold": 0.8, "schema_version": 1, "info": {"neuronpedia_source_set": "somebody/tc-16k"}},
    "qParams": {"pinnedIds": [], "supernodes": [["a", "1_7_2"]], "linkType": "both", "clickedId": "", "sg_pos": ""},
    "nodes": [
        {"node_id": "1_7_2", "feature": 52, "layer": "1", "ctx_idx": 2, "feature_type": "cross layer transcoder", "token_prob": 0.0,
         "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": "1_7-0", "clerp": "", "influence": 0.5, "activation": 2.5},
        {"node_id": "0_1_2", "feature": -1, "layer": "1", "ctx_idx": 2, "feature_type": "mlp reconstruction error", "token_prob": 0.0,
         "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": "1_2-0", "clerp": "", "influence": 0.7, "activation": None},
        {"node_id": "E_5_2", "feature": 2, "layer": "E", "ctx_idx": 2, "feature_type": "embedding", "token_prob": 0.0, "is_target_logit": False,
         "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": "E_5-2", "clerp": "", "influence": 0.9, "activation": None},
        {"node_id": "4_9_2", "feature": 9, "layer": "4", "ctx_idx": 2, "feature_type": "logit", "token_prob": 0.75, "is_target_logit": True, "run_idx": 0,
         "reverse_ctx_idx": 0, "jsNodeId": "L_9-2", "clerp": "Output \" sailed\" (p=0.750)", "influence": 1.0, "activation": None}],
    "links": [{"source": "E_5_2", "target": "1_7_2", "weight": 1.5}, {"source": "1_7_2", "target": "4_9_2", "weight": -0.25}]}


@pytest.fixture
def daemon(start_daemon, tmp_path):
    return start_daemon(["--model", f"{MODEL}={VECTORS / MODEL / 'model'}"], store=str(tmp_path / "store.sqlite"))


def place(daemon, length, **more):
    return daemon.post("/api/graph/signed-put", {"filename": "g.json", "contentLength": length, "contentType": "application/json", **more})


def bring(daemon, body, packed=True):
    """The reply to the last step."""
    body = gzip.compress(body) if packed else body
    made = place(daemon, len(body)).json()
    put = requests.put(made["url"], data=body, headers={"Content-Encoding": "gzip"} if packed else {}, timeout=30)
    assert put.status_code == 200, put.text
    return daemon.post("/api/graph/save-to-db", {"putRequestId": made["putRequestId"]})


def bring_graph(daemon, graph, packed=True):
    return bring(daemon, json.dumps(graph).encode(), packed)


@pytest.mark.parametrize("packed", [True, False])
def test_three_steps(daemon, packed):
    saved = bring_graph(daemon, GRAPH, packed)
    assert saved.status_code == 200 and saved.json()["message"] == "Graph saved to database"
    row = daemon.get(f"/api/graph/{MODEL}/Made.elsewhere-1").json()
    assert saved.json()["url"] == row["pageUrl"] and requests.get(row["pageUrl"], timeout=30).status_code == 200
    assert (row["prompt"], row["promptTokens"], row["sourceSetName"]) == ("The ship", ["<bos>", "The", " ship"], "tc-16k")
    assert (row["numNodes"], row["numLinks"]) == (4, 2)
    assert requests.get(row["url"], timeout=30).json() == GRAPH  # byte by byte what was brought
    assert bring_graph(daemon, GRAPH, packed).status_code == 200  # a notebook that is run again
    assert len(daemon.post("/api/graph/list-owned").json()) == 1
    other = copy.deepcopy(GRAPH)
    other["metadata"]["prompt"] = "Another ship"
    refused = bring_graph(daemon, other)
    assert refused.status_code == 409 and "Made.elsewhere-1" in refused.json()["message"]
    assert daemon.post("/api/graph/delete", {"modelId": MODEL, "slug": "Made.elsewhere-1"}).status_code == 200
    assert bring_graph(daemon, other).status_code == 200


def test_a_graph_made_here_comes_back(start_daemon, tmp_path):
    clt = VECTORS / "dict-clt"
    sources = [flag for layer in range(3) for flag in ("--source", f"{MODEL}/{layer}-relu={clt / 'relu'}")]
    daemon = start_daemon(["--model", f"{MODEL}={VECTORS / MODEL / 'model'}", *sources], store=str(tmp_path / "store.sqlite"))
    graph = daemon.post("/v1/lab/graph", {"text": "One night a ship came near", "slug": "there-and-back"}).json()
    assert bring_graph(daemon, graph).status_code == 200
    assert daemon.get(f"/v1/graphs/{MODEL}/there-and-back").json() == graph


def with_change(path, value):
    graph = copy.deepcopy(GRAPH)
    at = graph
    for part in path[:-1]:
        at = at[part]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return graph


@pytest.mark.parametrize("path, value, field, words", [
    (["metadata"], ..., "metadata", "is missing"),
    (["nodes"], ..., "nodes", "is missing"),
    (["metadata"], "x", "metadata", "must be an object"),
    (["nodes"], {}, "nodes", "must be an array"),
    (["links"], 3, "links", "must be an array"),
    (["qParams"], [], "qParams", "must be an object"),
    (["metadata", "slug"], "../../x", "metadata.slug", "letters, digits"),
    (["metadata", "slug"], "..", "metadata.slug", "letters, digits"),
    (["metadata", "slug"], "a b", "metadata.slug", "letters, digits"),
    (["metadata", "slug"], "é", "metadata.slug", "letters, digits"),
    (["metadata", "slug"], "", "metadata.slug", "letters, digits"),
    (["metadata", "slug"], "x" * 129, "metadata.slug", "128"),
    (["metadata", "slug"], ..., "metadata.slug", "is missing"),
    (["metadata", "scan"], "no-such-model", "metadata.scan", "no-such-model"),
    (["metadata", "scan"], 3, "metadata.scan", "must be a string, found an integer"),
    (["metadata", "prompt_tokens"], [], "metadata.prompt_tokens", "1 to 8192"),
    (["metadata", "prompt_tokens"], ["a"] * 8193, "metadata.prompt_tokens", "1 to 8192"),
    (["metadata", "prompt_tokens"], ["a", 1], "metadata.prompt_tokens", "an array of strings"),
    (["qParams", "supernodes"], [["a"], [1]], "qParams.supernodes", "an array of arrays of strings"),
    (["nodes", 1], 5, "nodes[1]", "must be an object"),
    (["nodes", 2, "clerp"], ..., "nodes[2].clerp", "is missing"),
    (["nodes", 0, "ctx_idx"], 3, "nodes[0].ctx_idx", "3 tokens"),
    (["nodes", 0, "ctx_idx"], -1, "nodes[0].ctx_idx", "is -1"),
    (["nodes", 0, "ctx_idx"], 1.5, "nodes[0].ctx_idx", "an integer"),
    (["nodes", 0, "layer"], "100000000", "nodes[0].layer", "0 to 4096"),
    (["nodes", 0, "layer"], -1, "nodes[0].layer", "0 to 4096"),
    (["nodes", 0, "layer"], "<script>", "nodes[0].layer", "0 to 4096"),
    (["nodes", 0, "layer"], ["1"], "nodes[0].layer", "a string or an integer"),
    (["nodes", 0, "influence"], "0.5", "nodes[0].influence", "a number"),
    (["links", 1, "weight"], None, "links[1].weight", "a number"),
    (["links", 0, "target"], ..., "links[0].target", "is missing"),
])
def test_what_is_no_graph(daemon, path, value, field, words):
    reply = bring_graph(daemon, with_change(path, value))
    assert reply.status_code in (400, 404), reply.text
    assert reply.json()["field"] == field, reply.text
    assert words in reply.json()["message"]
    assert daemon.post("/api/graph/list-owned").json() == []


def test_what_viewers_need_not_have(daemon):
    """Null and missing members that Neuronpedia's schema leaves open, and members that nobody knows."""
    graph = copy.deepcopy(GRAPH)
    graph["nodes"][0] = {"node_id": "1_7_2", "feature": None, "layer": 1, "ctx_idx": 2, "feature_type": "lorsa", "jsNodeId": "x", "clerp": "", "influence": None,
                         "own": {"deep": [1, [2]]}}
    graph["qParams"] = {}
    graph["qk_only_nodes"] = {"a": {"node_id": "a"}}
    assert bring_graph(daemon, graph).status_code == 200


KEY = "a key of sixteen letters".replace(" ", "-")
GOOD = json.dumps(GRAPH).encode()


@pytest.mark.parametrize("body, packed, words", [
    (b"{", False, "graph"), (b"[]", False, "object"), (b"null", False, "object"), (b"\xff\xfe", False, "UTF-8"),
    (GOOD[:-1], False, "graph"), (GOOD + b"{}", False, "graph"),
    (GOOD.replace(b'"links"', b'"nodes"'), False, "twice"),
    (GOOD.replace(b'"weight": 1.5', b'"weight": 1e999'), False, "links[0]"),
    (GOOD.replace(b'"weight": 1.5', b'"weight": NaN'), False, "graph"),
    (b"[" * 100000, False, "levels"),
    (gzip.compress(GOOD)[:-9], False, "cut off"),
    (gzip.compress(GOOD)[:40] + b"\0" * 40 + gzip.compress(GOOD)[80:], False, "damaged"),
    (gzip.compress(GOOD) + b"x", False, "behind the end"),
    (b"\0" * (65 << 20), True, "64 MiB"),  # 64 KiB of gzip
], ids=["open", "array", "null", "no-utf8", "cut", "more", "twice", "overflow", "nan", "deep", "gzip-cut", "gzip-damaged", "gzip-more", "bomb"])
def test_what_is_no_file(daemon, body, packed, words):
    reply = bring(daemon, body, packed)
    assert reply.status_code == 400 and words in reply.json()["message"], reply.text
    assert daemon.get("/health").status_code == 200


def test_steps_out_of_order(daemon):
    made = place(daemon, 5).json()
    early = daemon.post("/api/graph/save-to-db", {"putRequestId": made["putRequestId"]})
    assert early.status_code == 409 and "PUT" in early.json()["message"]
    short = requests.put(made["url"], data=b"1234", timeout=30)
    assert short.status_code == 400 and "4 bytes came, and 5 were announced" in short.json()["message"]
    assert requests.put(made["url"][:-1] + "_", data=b"12345", timeout=30).status_code == 404
    assert daemon.post("/api/graph/save-to-db", {"putRequestId": "none"}).status_code == 404
    assert requests.post(made["url"], data=b"12345", timeout=30).status_code == 405
    assert bring_graph(daemon, GRAPH).status_code == 200
    assert daemon.post("/api/graph/save-to-db", {"putRequestId": made["putRequestId"]}).status_code == 409  # the other place is untouched


def test_places_are_few_and_the_first_goes(daemon):
    first = place(daemon, 5).json()
    for _ in range(16):
        last = place(daemon, 5).json()
    assert requests.put(first["url"], data=b"12345", timeout=30).status_code == 404
    assert requests.put(last["url"], data=b"12345", timeout=30).status_code == 200


def test_what_a_place_is_refused_for(daemon, start_daemon):
    assert place(daemon, 5, filename="g.zip").json()["field"] == "filename"
    assert place(daemon, 0).json()["field"] == "contentLength"
    large = place(daemon, 1 << 29)
    assert large.status_code == 400 and "max_batch_body" in large.json()["message"]
    none = start_daemon(["--model", f"{MODEL}={VECTORS / MODEL / 'model'}"], store="")
    assert place(none, 5).status_code == 501


def test_an_address_is_a_key_and_no_other_route_unpacks(start_daemon, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(KEY + "\n")
    keys.chmod(0o600)
    daemon = start_daemon(["--model", f"{MODEL}={VECTORS / MODEL / 'model'}", "--keys", str(keys)], store=str(tmp_path / "store.sqlite"))
    assert place(daemon, 5).status_code == 401
    made = requests.post(daemon.url + "/api/graph/signed-put", json={"filename": "g.json", "contentLength": 5}, headers={"X-Api-Key": KEY}, timeout=30).json()
    assert requests.put(made["url"], data=b"12345", timeout=30).status_code == 200
    assert daemon.post("/api/graph/save-to-db", {"putRequestId": made["putRequestId"]}).status_code == 401
    packed = requests.post(daemon.url + "/api/tokenize", data=gzip.compress(b"{}"), timeout=30, headers={"Content-Encoding": "gzip", "X-Api-Key": KEY})
    assert packed.status_code == 415 and "Content-Encoding" in packed.json()["message"]


def test_published_client(tmp_path):
    neuronpedia = pytest.importorskip("neuronpedia", reason="skip: the package 'neuronpedia' is not installed for this interpreter")
    from neuronpedia.requests.base_request import NPRequest
    from neuronpedia.requests.graph_request import GraphRequest
    daemon = Daemon(["--model", f"{MODEL}={VECTORS / MODEL / 'model'}"], store=str(tmp_path / "store.sqlite"))
    before, NPRequest.BASE_URL = NPRequest.BASE_URL, daemon.url + "/api"
    try:
        with neuronpedia.api_key("none"):
            made = GraphRequest().upload(json.dumps(GRAPH))
            assert (made.model_id, made.slug, made.prompt) == (MODEL, "Made.elsewhere-1", "The ship")
            assert requests.get(made.json_url, timeout=30).json() == GRAPH
            GraphRequest().delete(made)
    finally:
        NPRequest.BASE_URL = before
        daemon.finish()
