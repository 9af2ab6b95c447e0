"""Features over HTTP: statistics are made by the daemon over a small text, and every field of /feature is compared with
what the daemon's own activations say, or with its documented shape."""
import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import requests

from conftest import MODEL, VECTORS, Daemon, model_options
from tensors import read_tensors

TIMEOUT = 60  # seconds: a sanitizer build on a busy machine is slow
SOURCE = "1-res-relu"
LINES = ["the ship is at sea", "a <b> in the middle", "", "galactic centre", "the the the", "so it goes, and so it went",
         "one two three four", "a ship and a <b>", "middle of the universe", "it is what it is"]
# Sums of float32 over at most 48 terms may run in another order when texts are read together or alone.
# One feature is worked out on the host: as a whole encode does on a processor, within docs/decisions.md 18 of it on a device.
CLOSE = dict(rel=1e-4, abs=1e-5) if "STEERD_TEST_CUDA" in os.environ else dict(rel=1e-5, abs=1e-6)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(LINES) + "\n")  # 10 newlines: 11 documents, two of them empty
    return path


@pytest.fixture(scope="module")
def daemon(corpus):
    """A daemon of its own, whose store holds the statistics of one source."""
    one = Daemon(model_options())
    job = start_job(one, corpus)
    events = list(read_events(one, job["id"]))
    assert events[-1]["state"] == "done", events[-1]
    yield one
    one.finish()


def start_job(daemon, corpus, **fields):
    body = {"kind": "stats", "modelId": MODEL, "source": SOURCE, "corpus": str(corpus), "lines": True, **fields}
    reply = requests.post(daemon.url + "/v1/jobs", json=body, timeout=TIMEOUT)
    assert reply.status_code == 200, reply.text
    return reply.json()


def read_events(daemon, job):
    with requests.get(f"{daemon.url}/v1/jobs/{job}/events", stream=True, timeout=TIMEOUT) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        for line in reply.iter_lines(chunk_size=1):
            if line:
                assert line.startswith(b"data: "), line
                yield json.loads(line[6:])


def get(daemon, path, **more):
    return requests.get(daemon.url + path, timeout=TIMEOUT, **more)


def post(daemon, path, body, status=200):
    reply = requests.post(daemon.url + path, json=body, timeout=TIMEOUT)
    assert reply.status_code == status, reply.text
    return reply.json()


@pytest.fixture(scope="module")
def busiest(daemon):
    """The five features that fire most often."""
    rows = get(daemon, f"/v1/lab/dictionaries/{MODEL}/{SOURCE}/features?order=rate&descending=true&limit=5").json()
    assert rows["total"] == 96 and len(rows["features"]) == 5
    rates = [row["rate"] for row in rows["features"]]
    assert rates == sorted(rates, reverse=True) and rates[0] > 0
    return [row["index"] for row in rows["features"]]


def values_of(daemon, index):
    """The feature's values at the counted positions of every line that has any: [(document, tokens, values)]."""
    texts = [(i, line) for i, line in enumerate(LINES) if line]
    found = []
    for i, line in texts:
        one = post(daemon, "/activations", {"modelId": MODEL, "source": SOURCE, "index": index, "text": line})
        found.append((i, one["tokens"], one["values"]))
    return found


# ---- one feature -----------------------------------------------------------------------------------------

NUMBER = (int, float)
PLACE = {"modelId": MODEL, "layer": SOURCE}
FEATURE_FIELDS = {
    "modelId": str, "layer": str, "index": str, "sourceSetName": str, "creatorId": None, "createdAt": str,
    "maxActApprox": NUMBER, "frac_nonzero": NUMBER, "hasVector": bool, "vector": list, "vectorLabel": None,
    "vectorDefaultSteerStrength": NUMBER, "hookName": str, "topkCosSimIndices": list, "topkCosSimValues": list,
    "neuron_alignment_indices": list, "neuron_alignment_values": list, "neuron_alignment_l1": list,
    "correlated_neurons_indices": list, "correlated_neurons_pearson": list, "correlated_neurons_l1": list,
    "correlated_features_indices": list, "correlated_features_pearson": list, "correlated_features_l1": list,
    "neg_str": list, "neg_values": list, "pos_str": list, "pos_values": list, "freq_hist_data_bar_heights": list,
    "freq_hist_data_bar_values": list, "logits_hist_data_bar_heights": list, "logits_hist_data_bar_values": list,
    "decoder_weights_dist": list, "umap_cluster": None, "umap_log_feature_sparsity": None, "umap_x": None, "umap_y": None,
    "activations": list, "explanations": list, "model": dict, "source": dict, "sourceSet": dict, "creator": None,
    "lists": list, "comments": list,
    # steerd's own
    "n_tokens": int, "n_fired": int, "mean": NUMBER, "decoder_norm": NUMBER, "conventions": dict,
}
ACTIVATION_FIELDS = {
    "id": str, "modelId": str, "layer": str, "source": str, "index": str, "tokens": list, "values": list,
    "maxValue": NUMBER, "maxValueTokenIndex": int, "minValue": NUMBER, "dfaValues": list, "dfaTargetIndex": None,
    "dfaMaxValue": None, "zQIndices": list, "zKIndices": list, "zValues": list, "lossValues": list,
    "logitContributions": None, "binMin": NUMBER, "binMax": NUMBER, "binContains": (int, float, type(None)), "qualifyingTokenIndex": int,
    "dataIndex": str, "dataSource": str, "creatorId": None, "createdAt": str, "document": int, "position": int,
}
EXPLANATION_FIELDS = {
    "id": str, "modelId": str, "layer": str, "source": str, "index": str, "description": str,
    "explanationModelName": str, "typeName": str, "score": None, "scores": list, "origin": str, "authorId": None,
    "notes": None, "triggeredByUser": None, "createdAt": str,
}


def check_fields(row, fields):
    assert set(row) == set(fields)
    for name, kind in fields.items():
        value = row[name]
        good = value is None if kind is None else isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        assert good, (name, value)


def test_every_field(daemon, busiest):
    reply = get(daemon, f"/api/feature/{MODEL}/{SOURCE}/{busiest[0]}")
    assert reply.status_code == 200, reply.text
    feature = reply.json()
    check_fields(feature, FEATURE_FIELDS)
    assert (feature["modelId"], feature["layer"], feature["index"]) == (MODEL, SOURCE, str(busiest[0]))
    assert feature["sourceSetName"] == feature["sourceSet"]["name"] == feature["source"]["setName"] == "res-relu"
    assert feature["source"]["id"] == SOURCE and feature["model"]["id"] == MODEL
    assert feature["hookName"] == "blocks.1.hook_resid_pre"
    assert feature["vector"] == [] and feature["hasVector"] is False
    assert len(feature["activations"]) > 0 and len(feature["explanations"]) > 0
    for row in feature["activations"]:
        check_fields(row, ACTIVATION_FIELDS)
        assert {name: row[name] for name in PLACE} == PLACE and row["source"] == SOURCE
        assert row["index"] == feature["index"] and len(row["tokens"]) == len(row["values"])
    for row in feature["explanations"]:
        check_fields(row, EXPLANATION_FIELDS)
        assert {name: row[name] for name in PLACE} == PLACE and row["index"] == feature["index"]
    conventions = feature["conventions"]
    assert set(conventions) == {"folded", "bosCounted", "lines", "context", "documents", "logits", "corpus", "corpusHash",
                                "madeAt"}
    assert conventions["lines"] is True and conventions["bosCounted"] is False and conventions["folded"] is True
    assert conventions["documents"] == 11
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", conventions["madeAt"])
    assert get(daemon, f"/feature/{MODEL}/{SOURCE}/{busiest[0]}").content == reply.content


def test_numbers_follow_from_activations(daemon, busiest):
    for index in busiest:
        feature = get(daemon, f"/feature/{MODEL}/{SOURCE}/{index}").json()
        lines = values_of(daemon, index)
        counted = [value for _, _, values in lines for value in values]
        fired = [value for value in counted if value > 0]
        assert feature["n_tokens"] == len(counted)
        assert feature["n_fired"] == len(fired)
        assert feature["frac_nonzero"] == len(fired) / len(counted)
        assert feature["mean"] == pytest.approx(sum(fired) / len(fired), **CLOSE)
        assert feature["maxActApprox"] == pytest.approx(max(counted), **CLOSE)
        assert feature["activations"][0]["maxValue"] == feature["maxActApprox"]
        check_examples(feature, {document: (tokens, values) for document, tokens, values in lines})


def check_examples(feature, lines):
    """Every line is shorter than a window, so that an example is its whole line."""
    peaks = [row["maxValue"] for row in feature["activations"]]
    assert peaks == sorted(peaks, reverse=True)
    top = [row for row in feature["activations"] if row["binMin"] == -1]
    firing = {document for document, (_, values) in lines.items() if max(values) > 0}
    assert {row["document"] for row in top} == firing if len(firing) <= 20 else len(top) == 20
    for row in feature["activations"]:
        tokens, values = lines[row["document"]]
        assert row["tokens"] == tokens and row["values"] == pytest.approx(values, **CLOSE)
        assert row["maxValue"] == max(row["values"]) and row["minValue"] == min(row["values"])
        assert row["maxValueTokenIndex"] == row["values"].index(row["maxValue"])
        assert row["dataIndex"] == str(row["document"])
        at = row["values"][row["qualifyingTokenIndex"]]
        if row["binMin"] == -1:
            assert row["binContains"] is None and row["binMax"] == feature["maxActApprox"] and at == row["maxValue"]
        else:
            assert row["binMin"] <= at <= row["binMax"] and 0 < row["binContains"] <= 1


def test_charts(daemon, busiest):
    for index in busiest:
        feature = get(daemon, f"/feature/{MODEL}/{SOURCE}/{index}").json()
        heights, places = feature["freq_hist_data_bar_heights"], feature["freq_hist_data_bar_values"]
        assert len(heights) == len(places) <= 64 and sum(heights) == feature["n_fired"]
        assert places == sorted(places)
        assert len(feature["pos_str"]) == len(feature["pos_values"]) == 10
        assert len(feature["neg_str"]) == len(feature["neg_values"]) == 10
        assert feature["pos_values"] == sorted(feature["pos_values"], reverse=True)
        assert feature["neg_values"] == sorted(feature["neg_values"])
        bars = feature["logits_hist_data_bar_heights"]
        assert len(bars) == len(feature["logits_hist_data_bar_values"]) == 50
        vocabulary = get(daemon, "/models").json()["models"][0]["vocabulary"]
        assert sum(bars) == vocabulary
        assert len(feature["topkCosSimIndices"]) == len(feature["topkCosSimValues"]) == 10
        assert index not in feature["topkCosSimIndices"]
        near = post(daemon, "/api/cossim", {"modelId": MODEL, "source": SOURCE, "index": str(index),
                                            "targetModelId": MODEL, "targetSourceId": SOURCE, "numResults": 11})
        rows = near["topkDecoderCossimFeatures"]
        assert rows[0]["feature"]["index"] == index and rows[0]["cosineSimilarity"] == pytest.approx(1, abs=1e-6)
        assert [row["feature"]["index"] for row in rows[1:]] == feature["topkCosSimIndices"]


def test_what_the_python_client_reads(daemon, busiest):
    """The keys Feature.get takes from a reply; a missing one is a KeyError there, a share outside of 0 to 1 a ValueError."""
    feature = get(daemon, f"/api/feature/{MODEL}/{SOURCE}/{busiest[0]}").json()
    [feature[key] for key in ("modelId", "layer", "index", "frac_nonzero")]
    for row in feature["explanations"]:
        [row[key] for key in ("modelId", "source", "index", "description", "typeName", "explanationModelName")]
    for row in feature["activations"]:
        [row[key] for key in ("modelId", "source", "index", "tokens", "values", "binMin", "binMax", "binContains")]
        assert row["binContains"] is None or 0 <= row["binContains"] <= 1


def test_a_feature_without_statistics(daemon):
    feature = get(daemon, f"/feature/{MODEL}/2-res-jump/5").json()
    assert set(feature) == set(FEATURE_FIELDS)
    for name in ("maxActApprox", "frac_nonzero", "n_tokens", "n_fired", "mean", "createdAt"):
        assert feature[name] is None, name
    assert feature["activations"] == feature["explanations"] == feature["freq_hist_data_bar_heights"] == []
    assert feature["decoder_norm"] > 0
    assert len(feature["pos_str"]) == len(feature["topkCosSimIndices"]) == 10, "the dictionary alone tells these"


@pytest.mark.parametrize("path, field", [
    (f"{MODEL}/{SOURCE}/96", "index"), (f"{MODEL}/{SOURCE}/x", "index"), (f"{MODEL}/9-none/1", "source"),
    (f"nobody/{SOURCE}/1", "modelId")])
def test_no_such_feature(daemon, path, field):
    reply = get(daemon, "/feature/" + path)
    assert reply.status_code == 404 and reply.json()["field"] == field


def test_several_features(daemon, busiest):
    asked = [{"modelId": MODEL, "layer": SOURCE, "index": index, "maxActsToReturn": 1} for index in busiest]
    asked.insert(1, {"modelId": MODEL, "layer": SOURCE, "index": 4096})
    rows = post(daemon, "/api/features", asked)
    assert [int(row["index"]) for row in rows] == busiest
    assert all(len(row["activations"]) == 1 for row in rows)
    page = post(daemon, "/api/features-offset", {"modelId": MODEL, "layer": SOURCE, "offset": 3})
    indices = [int(row["index"]) for row in page]
    assert indices == sorted(indices) and len(indices) <= 25
    assert all(row["maxActApprox"] > 0 for row in page)
    stored = post(daemon, "/api/activation/get", {"modelId": MODEL, "source": SOURCE, "index": str(busiest[0])})
    assert stored == get(daemon, f"/feature/{MODEL}/{SOURCE}/{busiest[0]}").json()["activations"]


# ---- explanations ----------------------------------------------------------------------------------------


def test_the_export_becomes_a_data_frame(daemon):
    # The cell of the seeds' notebooks: a list of rows, an index that is a string, a description that is never null.
    url = f"{daemon.url}/api/explanation/export?modelId={MODEL}&saeId={SOURCE}"
    data = requests.get(url, headers={"Content-Type": "application/json"}, timeout=TIMEOUT).json()
    frame = pd.DataFrame(data)
    frame.rename(columns={"index": "feature"}, inplace=True)
    frame["feature"] = frame["feature"].astype(int)
    frame["description"] = frame["description"].apply(lambda text: text.lower())
    assert list(frame.columns) == ["modelId", "layer", "feature", "description", "explanationModelName", "typeName"]
    assert len(frame) > 0 and frame["feature"].is_monotonic_increasing
    assert (frame["typeName"] == "steerd-auto").all()
    assert frame["feature"].between(0, 95).all()


def test_pages_of_the_export(daemon):
    path = f"/explanations?modelId={MODEL}&saeId={SOURCE}"
    whole = get(daemon, path)
    assert int(whole.headers["X-Total-Count"]) == len(whole.json())
    rows, reply = [], get(daemon, path + "&limit=40")
    while True:
        rows += reply.json()
        if "next" not in reply.links:
            break
        reply = requests.get(reply.links["next"]["url"], timeout=TIMEOUT)
    assert rows == whole.json()


def test_search_finds_what_was_written(daemon):
    text = "words about quokkas and wombats"
    made = post(daemon, "/api/explanation/new", {"modelId": MODEL, "layer": SOURCE, "index": "4", "description": text,
                                                 "explanationModelName": "a person"})
    assert made["origin"] == "manual"
    try:
        feature = get(daemon, f"/feature/{MODEL}/{SOURCE}/4").json()
        assert feature["explanations"][0]["description"] == text, "what people write comes first"
        for path, body in (("search", {"modelId": MODEL, "layers": [SOURCE]}), ("search-model", {"modelId": MODEL}),
                           ("search-release", {"releaseName": "res-relu"}), ("search-all", {})):
            found = post(daemon, "/api/explanation/" + path, {"query": "wombat", **body})
            assert found["resultsCount"] == 1 and found["hasMore"] is False and "nextOffset" not in found
            row = found["results"][0]
            assert (row["description"], row["index"], row["layer"]) == (text, "4", SOURCE)
        assert get(daemon, "/explanations?q=quok").json()[0]["description"] == text
        assert get(daemon, f"/api/explanation/{made['id']}").json() == made
    finally:
        assert post(daemon, f"/api/explanation/{made['id']}/delete", {}) == {"message": "Success"}
    assert get(daemon, "/explanations?q=quok").json() == []


@pytest.mark.parametrize("text", [" ", "\n\t ", "\u3000"])
def test_an_explanation_says_something(daemon, text):
    refused = post(daemon, "/api/explanation/new", {"modelId": MODEL, "layer": SOURCE, "index": "4", "description": text}, 400)
    assert refused["field"] == "description" and "white space" in refused["error"]


def test_empty_answers_without_a_store_say_why(daemon, start_daemon):
    bare = start_daemon(store="")
    assert "no store:" in bare.log()
    for path in ("/explanations", "/explanations?q=quok", f"/feature/{MODEL}/{SOURCE}/3",
                 f"/v1/lab/dictionaries/{MODEL}/{SOURCE}/features", "/v1/jobs"):
        said = bare.get(path).headers.get("X-Store", "")
        assert said.startswith("none") and "--store FILE" in said, path
        assert "X-Store" not in get(daemon, path).headers
    assert "X-Store" not in bare.get("/models").headers


def label_of(feature):
    """What a search tells of a feature, from all that is told of it where it is asked for alone."""
    said = [{key: one[key] for key in ("modelId", "layer", "index", "description", "explanationModelName", "typeName")}
            for one in feature["explanations"][:1]]
    return {**{key: feature[key] for key in ("modelId", "layer", "index", "maxActApprox", "frac_nonzero")}, "explanations": said}


def test_searches_tell_what_features_mean(daemon):
    whole = {}

    def label(index):
        if index not in whole:
            whole[index] = label_of(get(daemon, f"/feature/{MODEL}/{SOURCE}/{index}").json())
        return whole[index]

    body = {"text": LINES[0], "sourceSet": "res-relu", "selectedLayers": [SOURCE], "sortIndexes": [], "numResults": 10}
    over = post(daemon, "/api/search-all", body)["result"]
    assert len(over) == 10
    for row in over:
        assert row["neuron"] == label(int(row["index"])) and "dfaValues" not in row
    assert post(daemon, "/activations", body)["result"] == over
    tokens = post(daemon, "/api/search-topk-by-token", {"text": LINES[0], "source": SOURCE, "numResults": 5})["results"]
    for row in tokens:
        for one in row["topFeatures"]:
            assert one["feature"] == label(one["featureIndex"])
    # An explanation that somebody writes is there at once, and comes first.
    first = tokens[0]["topFeatures"][0]["featureIndex"]
    made = post(daemon, "/api/explanation/new", {"modelId": MODEL, "layer": SOURCE, "index": first, "description": "the first one"})
    try:
        again = post(daemon, "/api/search-topk-by-token", {"text": LINES[0], "source": SOURCE, "numResults": 5})["results"]
        assert again[0]["topFeatures"][0]["feature"]["explanations"][0]["description"] == "the first one"
    finally:
        post(daemon, f"/api/explanation/{made['id']}/delete", {})
    # Several texts: as upstream, without.
    for path, more in (("/api/search-all", body), ("/api/search-topk-by-token", {"source": SOURCE})):
        several = post(daemon, path, {**more, "text": [LINES[0], LINES[1]]})["results"]
        assert len(several) == 2 and not re.search(r'"(neuron|feature)":', json.dumps(several))


def test_nothing_is_told_of_what_nobody_knows(daemon):
    body = {"text": LINES[0], "sourceSet": "res-jump", "sortIndexes": []}
    rows = post(daemon, "/api/search-all", body)["result"]
    assert rows and all("neuron" not in row for row in rows)
    tokens = post(daemon, "/api/search-topk-by-token", {"text": LINES[0], "source": "2-res-jump"})["results"]
    assert all("feature" not in one for row in tokens for one in row["topFeatures"])


def test_dense_features_are_passed_over(daemon):
    """densityThreshold leaves out what fires more often, before the best are chosen."""
    rates = get(daemon, f"/v1/lab/dictionaries/{MODEL}/{SOURCE}/density").json()["rates"]
    most = sorted(rates)[60]  # inclusive: a feature with just this rate is shown

    def over_text(**more):
        rows = post(daemon, "/activations", {"text": LINES[0], "sourceSet": "res-relu", "selectedLayers": [SOURCE], **more})["result"]
        return [int(row["index"]) for row in rows]

    def by_token(**more):
        body = {"text": LINES[0], "source": SOURCE, "numResults": 20, **more}
        return [[top["featureIndex"] for top in row["topFeatures"]] for row in post(daemon, "/api/search-topk-by-token", body)["results"]]

    every = over_text(numResults=100)
    rare = [index for index in every if rates[index] <= most]
    assert len(rare) >= 10 and rare != every[:len(rare)]
    assert over_text(numResults=100, densityThreshold=most) == rare
    assert over_text(numResults=5, densityThreshold=most) == rare[:5]
    for off in (-1, 0, 1):
        assert over_text(numResults=100, densityThreshold=off) == every
    everywhere, sparse = by_token(), by_token(densityThreshold=most)
    assert any(rates[index] > most for row in everywhere for index in row)
    for whole, kept in zip(everywhere, sparse):
        seen = [index for index in whole if rates[index] <= most]
        assert kept[:len(seen)] == seen and all(rates[index] <= most for index in kept)


# ---- the dictionary as a whole ---------------------------------------------------------------------------


def test_density(daemon):
    base = f"/v1/lab/dictionaries/{MODEL}/{SOURCE}"
    density = get(daemon, base + "/density").json()
    rates = density["rates"]
    assert density["features"] == density["featuresWithStatistics"] == len(rates) == 96
    for row in density["shares"]:
        assert row["features"] == sum(rate < row["below"] for rate in rates)
        assert row["share"] == row["features"] / 96
    assert density["dead"] == sum(rate == 0 for rate in rates)
    assert sum(density["log10Histogram"]["counts"]) == 96 - density["dead"]
    about = get(daemon, base).json()
    assert about["statistics"]["nTokens"] == density["nTokens"] > 0
    assert about["kind"] == "relu" and about["features"] == 96
    any_one = get(daemon, base + "/random").json()["index"]
    assert rates[any_one] > 0


# ---- jobs ------------------------------------------------------------------------------------------------


def test_a_job_is_cancelled_and_resumed(daemon, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text("the middle of the universe is far away\n" * 50000)
    job = start_job(daemon, text, source="2-res-jump", nTop=1)
    deleted = requests.delete(f"{daemon.url}/v1/jobs/{job['id']}", timeout=TIMEOUT)
    assert deleted.status_code == 200
    assert list(read_events(daemon, job["id"]))[-1]["state"] == "cancelled"
    resumed = post(daemon, f"/v1/jobs/{job['id']}/resume", {})
    assert resumed["state"] in ("queued", "running")
    requests.delete(f"{daemon.url}/v1/jobs/{job['id']}", timeout=TIMEOUT)
    assert list(read_events(daemon, job["id"]))[-1]["state"] == "cancelled"
    listed = get(daemon, "/v1/jobs").json()["jobs"]
    assert [row["id"] for row in listed] == sorted((row["id"] for row in listed), reverse=True)


@pytest.mark.parametrize("job", ["0", "9999", "x", "-1"])
def test_jobs_that_are_not_there(daemon, job):
    """Job 0 in particular, which is what an idle runner has."""
    place = f"{daemon.url}/v1/jobs/{job}"
    for reply in (requests.get(place, timeout=TIMEOUT), requests.delete(place, timeout=TIMEOUT),
                  requests.post(place + "/resume", timeout=TIMEOUT), requests.get(place + "/events", timeout=TIMEOUT)):
        assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (404, "not_found", "id"), reply.text


def test_a_job_that_can_only_fail_again_is_not_resumed(daemon, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the middle of the universe is far away\n" * 50000)
    job = start_job(daemon, text, source="2-res-jump", nTop=1)
    assert not job["resumable"] and job["notResumable"] in ("it is queued", "it is running")
    requests.delete(f"{daemon.url}/v1/jobs/{job['id']}", timeout=TIMEOUT)
    ended = list(read_events(daemon, job["id"]))[-1]
    assert ended["resumable"] and ended["notResumable"] is None
    text.unlink()
    refused = post(daemon, f"/v1/jobs/{job['id']}/resume", {}, 409)
    assert refused["code"] == "conflict" and "is not a file that can be read" in refused["error"]
    assert get(daemon, f"/v1/jobs/{job['id']}").json()["notResumable"] in refused["error"]


def test_jobs_refuse(daemon, corpus):
    body = {"kind": "stats", "modelId": MODEL, "source": SOURCE, "corpus": str(corpus)}
    assert "did you mean 'nTop'" in post(daemon, "/v1/jobs", {**body, "nTopp": 3}, 400)["error"]
    assert post(daemon, "/v1/jobs", {**body, "corpus": "/nowhere.txt"}, 404)["field"] == "corpus"
    assert post(daemon, "/v1/jobs", {**body, "source": "9-none"}, 404)["field"] == "source"
    for kind, others in (("stats", {"ends": False}), ("eval", {"nTop": 3, "nQuantile": 1, "window": 16, "logits": True, "neighbours": False, "explain": True})):
        for name, value in others.items():
            refused = post(daemon, "/v1/jobs", {**body, "kind": kind, name: value}, 400)
            assert refused["field"] == name and "has a meaning with kind" in refused["error"]


def test_the_daemon_stops_while_a_job_is_watched(start_daemon, tmp_path):
    one = start_daemon()
    text = tmp_path / "long.txt"
    text.write_text("the middle of the universe is far away\n" * 200000)
    job = start_job(one, text)
    events = read_events(one, job["id"])
    assert next(events)["state"] in ("queued", "running")
    one.signal()
    for event in events:  # the stream ends by itself: nobody waits for the job
        assert event["state"] in ("queued", "running")
    one.wait(20)


# ---- vectors and shares ----------------------------------------------------------------------------------


def test_vectors(daemon):
    width = get(daemon, "/models").json()["models"][0]["width"]
    made = post(daemon, "/api/vector/new", {"modelId": MODEL, "layerNumber": 2, "hookType": "hook_resid_post",
                                            "vector": [0.5] * width, "vectorDefaultSteerStrength": 20,
                                            "vectorLabel": "half"})
    vector = made["vector"]
    assert made["message"] == "Success" and vector["source"] == "2-neuronpedia-resid-post"
    assert re.fullmatch(r"\d{8,9}", vector["index"])
    place = {"modelId": MODEL, "source": vector["source"], "index": vector["index"]}
    got = post(daemon, "/api/vector/get", place)["vector"]
    assert got["vector"] == [0.5] * width and got["vectorLabel"] == "half" and got["layer"] == vector["source"]
    owned = post(daemon, "/api/vector/list-owned", {})["vectors"]
    assert vector["index"] in [row["index"] for row in owned]
    assert post(daemon, "/api/vector/delete", place) == {"message": "Success"}
    post(daemon, "/api/vector/get", place, 404)


@pytest.mark.parametrize("method, op", [("SIMPLE_ADDITIVE", "add"), ("ORTHOGONAL_DECOMP", "project"), ("PROJECTION_CAP", "cap")])
def test_kept_vectors_steer(daemon, method, op):
    width = get(daemon, "/models").json()["models"][0]["width"]
    values = [((5 * i) % 13 - 6) / 4 for i in range(width)]
    vector = post(daemon, "/api/vector/new", {"modelId": MODEL, "layerNumber": 1, "hookType": "resid-pre", "vector": values})["vector"]
    feature = {"modelId": MODEL, "layer": vector["source"], "index": vector["index"], "strength": 2}
    body = {"prompt": "the ship", "n_tokens": 16, "temperature": 0, "types": ["STEERED"]}
    want = post(daemon, "/api/steer", {**body, "edits": [
        {"op": op, "point": vector["hookName"], "vector": values, "strength": 3}]})["STEERED"]
    got = post(daemon, "/api/steer", {**body, "features": [feature], "steer_method": method, "strength_multiplier": 1.5})["STEERED"]
    assert got == want != post(daemon, "/api/steer", {**body, "features": []})["STEERED"]
    through = post(daemon, "/v1/completions", {"prompt": "the ship", "max_tokens": 16, "temperature": 0, "steering": {
        "features": [{"source": vector["source"], "index": vector["index"], "strength": 3}], "method": method}})
    assert "the ship" + through["choices"][0]["text"] == want
    post(daemon, "/api/vector/delete", {"modelId": MODEL, "source": vector["source"], "index": vector["index"]})
    error = post(daemon, "/api/steer", {**body, "features": [feature]}, 404)
    assert error["field"] == "features[0].index" and "there is no vector" in error["error"]


def test_share(daemon):
    body = {"prompt": "the ship", "modelId": MODEL, "features": [{"layer": SOURCE, "index": 7, "strength": 3}],
            "n_tokens": 4, "share": True}
    made = post(daemon, "/api/steer", body)
    assert made["shareUrl"] == f"{daemon.url}/steer/{made['id']}"
    loaded = post(daemon, "/api/steer-load", {"steerOutputId": made["id"]})
    assert {key: loaded[key] for key in made} == made
    assert loaded["inputText"] == body["prompt"] and loaded["outputTextIncludesPrompt"] is True
    assert loaded["features"] == [{"modelId": MODEL, "layer": SOURCE, "index": "7", "strength": 3}]
    assert post(daemon, "/api/steer", {**body, "share": False})["shareUrl"] is None


@pytest.mark.parametrize("point, promotes", [("attn.hook_q", False), ("attn.hook_k", False), ("attn.hook_v", False), ("attn.hook_z", True)])
def test_rows_that_reach_no_logit_promote_nothing(start_daemon, tmp_path, point, promotes):
    """Queries, keys and values have the width of the stream here, so only their point tells them from it."""
    folder = tmp_path / "2-here"
    shutil.copytree(VECTORS / "dict-points" / "2-z", folder)
    config = (folder / "cfg.json").read_text()
    assert "attn.hook_z" in config
    (folder / "cfg.json").write_text(config.replace("attn.hook_z", point))
    daemon = start_daemon(models={MODEL: VECTORS / MODEL / "model"}, sources={f"{MODEL}/2-here": folder})
    feature = daemon.get(f"/api/feature/{MODEL}/2-here/3").json()
    told = daemon.get(f"/v1/lab/dictionaries/{MODEL}/2-here").json()
    assert told["promotes"] is promotes and len(feature["topkCosSimIndices"]) == 10
    assert told["statistics"]["conventions"]["logits"] == (None if promotes else "none")
    for name in ("pos_str", "pos_values", "neg_str", "neg_values", "logits_hist_data_bar_heights", "logits_hist_data_bar_values"):
        assert (len(feature[name]) > 0) is promotes, name
    assert daemon.get(f"/api/feature/{MODEL}/2-here/3").json() == feature  # from the store
    # The activations are those of the point: (row - b_dec) W_enc + b_enc, folded by the length of the decoder row.
    text = "the ship is at sea"
    weights = read_tensors(folder / "sae_weights.safetensors")
    run = daemon.post("/v1/lab/run", {"text": text, "points": [f"blocks.2.{point}"]}).json()
    rows = np.array(run["activations"][f"blocks.2.{point}"], np.float32).reshape(len(run["ids"]), -1)
    want = np.maximum((rows - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"], 0) * np.linalg.norm(weights["W_dec"], axis=1)
    fired = int(want[1:].max(0).argmax())
    got = daemon.post("/api/activation/new", {"feature": {"modelId": MODEL, "source": "2-here", "index": fired}, "customText": text}).json()
    assert got["values"][-1] == pytest.approx(float(want[-1, fired]), rel=1e-4, abs=1e-4)  # decision 18
    steer = {"prompt": text, "modelId": MODEL, "features": [{"modelId": MODEL, "layer": "2-here", "index": fired, "strength": 40}],
             "n_tokens": 8, "temperature": 0, "strength_multiplier": 4, "freq_penalty": 0, "seed": 1, "steer_special_tokens": True}
    replies = daemon.post("/api/steer", steer).json()
    # The same vector at all keys moves all scores of a row alike, which softmax does not see.
    assert (replies["STEERED"] != replies["DEFAULT"]) == (point != "attn.hook_k")
