"""Bare layer numbers: the neurons of a layer's MLP as a source, on every route that takes one. Against the NumPy twin of tiny-gpt2, and
for edits in models of other families against PyTorch (tests/vectors/neurons)."""
import json
import re
import shutil

import numpy as np
import pytest

from conftest import MODEL, VECTORS, Daemon, model_options, run_steerd
from tensors import read_tensors
from twin import Twin, agrees

TEXT = "One night a ship came near the rocks, late in the year"
LAYER, WIDTH, D_MLP = 1, 48, 128
POINT, OUT = "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"
LINES = ["the ship is at sea", "in the middle", "", "galactic centre", "the the the", "so it goes, and so it went", "one two three four"]


@pytest.fixture(scope="module")
def twin():
    return Twin(VECTORS / MODEL / "model")


@pytest.fixture(scope="module")
def recorded():
    return read_tensors(VECTORS / "neurons" / "expected.safetensors")


def post(daemon, path, body, status=200):
    reply = daemon.post(path, body)
    assert reply.status_code == status, reply.text
    return reply.json()


def get(daemon, path, status=200):
    reply = daemon.get(path)
    assert reply.status_code == status, reply.text
    return reply.json()


def ids_of(daemon, text=TEXT):
    return post(daemon, "/v1/lab/run", {"text": text, "points": ["resid_pre.0"]})["ids"]


@pytest.fixture(scope="module")
def acts(daemon, twin):
    """[position, neuron] of TEXT, BOS included."""
    return twin.run(ids_of(daemon))[0][POINT]


# ---- activations ----------------------------------------------------------------------------------------


def test_one_neuron_over_a_text(daemon, acts):
    neuron = {"modelId": MODEL, "source": LAYER, "index": "17"}  # a number or a text, as clients have it
    for path, body in (("/api/activation/new", {"feature": neuron, "customText": TEXT}),
                       ("/api/activation/new", {"neuron": {**neuron, "source": "1"}, "customText": TEXT}),
                       ("/activations", {**neuron, "text": TEXT})):
        got = post(daemon, path, body)
        agrees(got["values"], acts[1:, 17])
        assert min(got["values"]) < 0 and got["layer"] == "1" and got["index"] == "17"  # raw, below zero too
        assert got["maxValue"] == max(got["values"]) and got["minValue"] == min(got["values"])


def test_the_strongest_at_each_token(daemon, acts):
    for path in ("/activations", "/api/search-topk-by-token"):
        got = post(daemon, path, {"modelId": MODEL, "source": "1", "text": TEXT, "numResults": 6})
        for row in got["results"]:
            there = acts[row["position"]]
            assert [f["featureIndex"] for f in row["topFeatures"]] == list(np.argsort(-there, kind="stable")[:6])
            agrees([f["activationValue"] for f in row["topFeatures"]], np.sort(there)[::-1][:6])


def test_only_what_fires_is_listed(daemon, twin, acts):
    """More are asked for than are above zero."""
    there = twin.run(ids_of(daemon, "a"))[0][POINT][1:].max(0)
    body = {"modelId": MODEL, "text": "a", "sourceSet": "neurons", "selectedLayers": ["1"], "sortIndexes": [], "numResults": 100}
    got = post(daemon, "/api/search-all", {**body, "ignoreBos": True})["result"]
    assert 10 < len(got) == (there > 0).sum() < 100 and all(r["maxValue"] > 0 for r in got)
    every = post(daemon, "/v1/activation/topk-by-token", {"model": MODEL, "prompt": TEXT, "source": "1", "topK": 128, "ignoreBos": True})
    for row in every["results"]:  # the inference server shows as many as are asked for, silent ones too
        there = acts[row["tokenPosition"]]
        values = [f["activationValue"] for f in row["topFeatures"]]
        assert len(values) == D_MLP and values == sorted(values, reverse=True)
        agrees(values, np.sort(there)[::-1])


def test_the_set_of_all_layers(daemon, twin):
    points = twin.run(ids_of(daemon))[0]
    body = {"modelId": MODEL, "text": TEXT, "sourceSet": "neurons", "selectedLayers": [], "sortIndexes": [], "numResults": 12, "ignoreBos": True}
    largest = sorted(((-points[f"blocks.{l}.mlp.hook_post"][1:, i].max(), l, i) for l in range(3) for i in range(D_MLP)))[:12]
    got = post(daemon, "/api/search-all", body)["result"]
    assert [(int(r["layer"]), int(r["index"])) for r in got] == [(l, i) for _, l, i in largest]
    for row, (_, layer, index) in zip(got, largest):
        agrees(row["values"], points[f"blocks.{layer}.mlp.hook_post"][1:, index])
    assert {r["layer"] for r in post(daemon, "/api/search-all", {**body, "selectedLayers": ["2"]})["result"]} == {"2"}
    post(daemon, "/api/search-all", {**body, "selectedLayers": ["3"]}, 404)
    # Sums over positions count what is below zero.
    summed = post(daemon, "/api/search-all", {**body, "selectedLayers": ["1"], "sortIndexes": [1, 4], "numResults": 3})["result"]
    sums = points[POINT][1:][[1, 4]].sum(0)
    assert [int(r["index"]) for r in summed] == list(np.argsort(-sums, kind="stable")[:3])
    assert "'neurons'" in post(daemon, "/api/search-all", {**body, "sourceSet": "nothing"}, 404)["error"]
    row = get(daemon, f"/api/source-set/{MODEL}/neurons")
    assert [s["id"] for s in row["sources"]] == ["0", "1", "2"] and row["sources"][1]["hookName"] == POINT


def test_the_inference_server(daemon, acts):
    told = get(daemon, "/v1/capabilities")
    assert told["endpoints"]["neurons"] is True and "neurons" not in told["sae_sets"]
    body = {"model": MODEL, "prompt": TEXT}
    got = post(daemon, "/v1/activation/single", {**body, "source": "1", "index": "17"})["activation"]
    agrees(got["values"], acts[1:, 17])
    rows = post(daemon, "/v1/activation/all", {**body, "sourceSet": "neurons", "selectedSources": ["1"], "sortByTokenIndexes": [],
                                               "ignoreBos": True, "numResults": 3})["activations"]
    assert [(r["source"], r["index"]) for r in rows] == [("1", int(i)) for i in np.argsort(-acts[1:].max(0), kind="stable")[:3]]
    active = post(daemon, "/v1/activation/source", {"model": MODEL, "prompts": [TEXT], "source": "1"})["results"][0]["activeFeatures"]
    fired = {str(i): [t for t in range(1, len(acts)) if acts[t, i] > 0] for i in range(D_MLP) if (acts[1:, i] > 0).any()}
    assert {i: [int(t) for t, _ in pairs] for i, pairs in active.items()} == fired


def test_compare(daemon, twin):
    texts = [TEXT, "The ship turned"]
    rows = [twin.run(ids_of(daemon, t))[0][POINT][-1] for t in texts]
    got = post(daemon, "/v1/lab/compare", {"modelId": MODEL, "source": 1, "text": texts, "numResults": 5})["features"]
    difference = rows[1] - rows[0]
    assert [f["index"] for f in got] == list(np.argsort(-np.abs(difference), kind="stable")[:5])
    agrees([f["difference"] for f in got], np.sort(np.abs(difference))[::-1][:5] * np.sign([f["difference"] for f in got]))


# ---- what a neuron writes -------------------------------------------------------------------------------


def logits_of(twin, index):
    return twin.w["h.1.mlp.c_proj.weight"][index] @ twin.w["wte.weight"].T


def check_page(daemon, twin, path, stored):
    row = get(daemon, path)
    logits = logits_of(twin, 17)
    agrees(row["pos_values"], np.sort(logits)[::-1][:10])
    agrees(row["neg_values"], np.sort(logits)[:10])
    w = twin.w["h.1.mlp.c_proj.weight"]
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    cosines = unit @ unit[17]
    cosines[17] = -2
    assert row["topkCosSimIndices"] == list(np.argsort(-cosines, kind="stable")[:10])
    agrees(row["topkCosSimValues"], np.sort(cosines)[::-1][:10])
    assert (row["modelId"], row["layer"], row["index"], row["sourceSetName"]) == (MODEL, "1", "17", "neurons")
    assert row["hookName"] == POINT and row["decoder_norm"] == 1 and (row["n_tokens"] is not None) == stored
    return row


@pytest.mark.parametrize("path", [f"/api/feature/{MODEL}/1/17", f"/feature/{MODEL}/1/17"])
def test_the_page_of_a_neuron(daemon, twin, path):
    assert check_page(daemon, twin, path, False) == check_page(daemon, twin, path, False)  # from the store the second time


def test_without_a_store(start_daemon, twin):
    one = start_daemon(store="")
    check_page(one, twin, f"/api/feature/{MODEL}/1/17", False)
    assert post(one, "/api/features", [{"modelId": MODEL, "layer": "1", "index": 17}])[0]["index"] == "17"
    assert post(one, "/activations", {"modelId": MODEL, "source": "1", "text": TEXT})["results"]
    assert post(one, "/api/features-offset", {"modelId": MODEL, "layer": "1", "offset": 0}) == []


def test_vectors_and_neighbours(daemon, twin):
    got = post(daemon, "/v1/util/sae-vector", {"model": MODEL, "source": "1", "index": 17})
    agrees(got["vector"], twin.w["h.1.mlp.c_proj.weight"][17])
    assert got["hookName"] == OUT and got["encoderHookName"] == POINT
    assert got["encoderVector"] == [float(i == 17) for i in range(D_MLP)]
    rows = post(daemon, "/api/cossim", {"modelId": MODEL, "source": "1", "index": 17, "numResults": 3})["topkDecoderCossimFeatures"]
    assert rows[0]["feature"] == {"model": MODEL, "source": "1", "index": 17} and rows[0]["cosineSimilarity"] == pytest.approx(1, abs=1e-6)
    # Rows of W_out and of dictionaries of the stream are as wide: what a neuron writes is looked for among features, and back.
    for source, target in (("1", "1-res-relu"), ("1-res-relu", "2")):
        rows = post(daemon, "/api/cossim", {"modelId": MODEL, "source": source, "index": 17, "targetSourceId": target, "numResults": 3})
        assert [r["feature"]["source"] for r in rows["topkDecoderCossimFeatures"]] == [target] * 3


def test_the_dictionary_of_a_layer(daemon):
    path = f"/v1/lab/dictionaries/{MODEL}/1"
    row = get(daemon, path)
    assert (row["kind"], row["set"], row["features"], row["width"]) == ("neurons", "neurons", D_MLP, D_MLP)
    assert (row["point"], row["pointOut"], row["folded"], row["promotes"], row["selfTest"]) == (POINT, OUT, False, True, None)
    stats = get(daemon, path + "/logit-stats?order=kurtosis&descending=true&limit=3")
    assert stats["total"] == D_MLP and len(stats["rows"]) == 3
    found = post(daemon, path + "/enrichment", {"builtin": ["starts_with_space"], "topK": 4})
    assert len(found["sets"][0]["top"]) == 4
    scored = post(daemon, path + "/token-set-score", {"words": ["ship"], "text": [TEXT, "The ship turned"], "topK": 5})["features"]
    assert len(scored) == 5 and all(f["meanOn"] > 0 for f in scored)  # means over where a neuron fires


def test_logit_stats(daemon, twin):
    rows = get(daemon, f"/v1/lab/dictionaries/{MODEL}/1/logit-stats?limit=128")["rows"]
    logits = np.array([logits_of(twin, i) for i in range(D_MLP)])
    agrees([r["mean"] for r in rows], logits.mean(1))
    agrees([r["std"] for r in rows], logits.std(1))


# ---- statistics -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A daemon with the statistics of layer 1."""
    corpus = tmp_path_factory.mktemp("corpus") / "lines.txt"
    corpus.write_text("\n".join(LINES))
    one = Daemon(model_options())
    job = post(one, "/v1/jobs", {"kind": "stats", "modelId": MODEL, "source": 1, "corpus": str(corpus), "lines": True, "nTop": 4, "window": 8})
    events = [json.loads(line[6:]) for line in one.get(f"/v1/jobs/{job['id']}/events").text.splitlines() if line.startswith("data: ")]
    assert events[-1]["state"] == "done", events[-1]
    yield one, corpus
    one.finish()


def document_values(daemon, twin):
    """{document: [position, neuron]}, BOS left out."""
    return {d: twin.run(ids_of(daemon, line))[0][POINT][1:] for d, line in enumerate(LINES) if line}


def test_statistics(counted, twin):
    daemon = counted[0]
    values = document_values(daemon, twin)
    every = np.concatenate(list(values.values()))
    row = check_page(daemon, twin, f"/api/feature/{MODEL}/1/17", True)
    assert row["n_tokens"] == len(every) and row["n_fired"] == (every[:, 17] > 0).sum()
    assert row["frac_nonzero"] == pytest.approx((every[:, 17] > 0).mean(), abs=1e-6)  # float32
    agrees([row["maxActApprox"], row["mean"]], [every[:, 17].max(), every[every[:, 17] > 0, 17].mean()])
    assert sum(row["freq_hist_data_bar_heights"]) == row["n_fired"]
    top = [a for a in row["activations"] if a["binMin"] == -1]
    assert len(top) == min(4, sum((v[:, 17] > 0).any() for v in values.values()))
    below = 0
    for example in row["activations"]:
        assert max(example["values"]) == pytest.approx(example["maxValue"])
        assert any(np.allclose(v[at:at + len(example["values"]), 17], example["values"], atol=1e-4)  # decision 18
                   for v in values.values() for at in range(len(v) - len(example["values"]) + 1)), example
        below += sum(v < 0 for v in example["values"])
    assert below  # what is shown beside the token that fires is raw
    density = get(daemon, f"/v1/lab/dictionaries/{MODEL}/1/density")
    agrees(density["rates"], (every > 0).mean(0))
    silent = [i for i in range(D_MLP) if not (every[:, i] > 0).any()]
    for i in silent[:2]:
        assert get(daemon, f"/api/feature/{MODEL}/1/{i}")["activations"] == []


def test_lists_of_neurons(counted):
    daemon = counted[0]
    page = post(daemon, "/api/features-offset", {"modelId": MODEL, "layer": "1", "offset": 0})
    assert len(page) == 25 and all(r["maxActApprox"] > 0 and r["layer"] == "1" for r in page)
    rows = get(daemon, f"/v1/lab/dictionaries/{MODEL}/1/features?order=rate&descending=true&limit=5")
    assert rows["total"] == D_MLP and len(rows["features"]) == 5
    assert get(daemon, f"/v1/lab/dictionaries/{MODEL}/1/random")["index"] is not None
    some = post(daemon, "/api/features", [{"modelId": MODEL, "layer": "1", "index": i} for i in (3, 4)])
    assert [r["index"] for r in some] == ["3", "4"] and all(r["sourceSetName"] == "neurons" for r in some)
    few = post(daemon, "/api/search-topk-by-token", {"modelId": MODEL, "source": "1", "text": TEXT, "numResults": 20, "densityThreshold": 0.3})
    rates = get(daemon, f"/v1/lab/dictionaries/{MODEL}/1/density")["rates"]
    assert all(rates[f["featureIndex"]] <= 0.3 for r in few["results"] for f in r["topFeatures"])


def test_explanations(counted):
    daemon = counted[0]
    made = post(daemon, "/api/explanation/new", {"modelId": MODEL, "layer": "1", "index": "17", "description": "harbours of the north"})
    for path, body in (("search", {"modelId": MODEL, "layers": ["1"]}), ("search-model", {"modelId": MODEL}),
                       ("search-release", {"releaseName": "neurons"}), ("search-all", {})):
        found = post(daemon, f"/api/explanation/{path}", {**body, "query": "harbours"})["results"]
        assert [(r["layer"], r["index"]) for r in found] == [("1", "17")], path
    rows = get(daemon, f"/api/explanation/export?modelId={MODEL}&saeId=1")
    assert len(rows) >= D_MLP and made["id"]


def test_export_and_import(counted, tmp_path, start_daemon):
    daemon, _ = counted
    store, folder = daemon.folder / "store.sqlite", tmp_path / "batches"
    copy = tmp_path / "copy.sqlite"
    import sqlite3
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    status, _, err = run_steerd("export", MODEL, "1", "--out", str(folder), "--store", str(copy))
    assert status == 0, err
    fresh = tmp_path / "fresh.sqlite"
    status, _, err = run_steerd("import", str(folder), "--store", str(fresh))
    assert status == 0, err
    other = start_daemon(store=str(fresh))
    want, got = (get(one, f"/api/feature/{MODEL}/1/17") for one in (daemon, other))
    for name in ("frac_nonzero", "maxActApprox", "pos_str", "pos_values", "topkCosSimIndices", "n_fired"):
        assert got[name] == want[name]
    assert [a["values"] for a in got["activations"]] == [a["values"] for a in want["activations"]]


def test_the_command_counts_neurons(counted, tmp_path, start_daemon):
    daemon, corpus = counted
    store = tmp_path / "made.sqlite"
    status, _, err = run_steerd("stats", MODEL, "1", "--corpus", str(corpus), "--lines", "--top", "4", "--window", "8", "--store", str(store),
                                "--model", f"{MODEL}={VECTORS / MODEL / 'model'}")
    assert status == 0, err
    other = start_daemon(store=str(store))
    want, got = (get(one, f"/api/feature/{MODEL}/1/17") for one in (daemon, other))
    assert len(got["activations"]) == len(want["activations"])
    for a, b in zip(got["activations"], want["activations"]):
        agrees(a["values"], b["values"])  # the command may have run on another backend
    assert got["frac_nonzero"] == want["frac_nonzero"]


# ---- edits ----------------------------------------------------------------------------------------------


def last_logits(daemon, ids, edits, model=MODEL):
    got = post(daemon, "/v1/lab/run", {"modelId": model, "tokens": ids, "points": ["unembed.hook_out"], "positions": [-1], "edits": edits})
    return np.array(got["activations"]["unembed.hook_out"])[0]


def test_edits_against_the_twin(daemon, twin):
    ids = ids_of(daemon)

    def expect(change):
        def edit(rows):
            change(rows)
            return rows
        return twin.run(ids, {POINT: edit})[1][-1]

    def at(i, f):
        def change(rows):
            rows[:, i] = f(rows[:, i])
        return change

    both = {"op": "splice", "source": "1", "features": [{"index": 3, "op": "clamp", "value": 2}, {"index": 5, "op": "scale", "value": -1},
                                                        {"index": 9, "op": "ablate"}]}

    def three(rows):
        rows[:, 3], rows[:, 5], rows[:, 9] = 2, -rows[:, 5], 0
    cases = [({"op": "clamp", "source": "1", "index": 17, "value": 3}, at(17, lambda x: 3)),
             ({"op": "clamp", "source": 1, "index": 17, "value": -3, "includeError": False}, at(17, lambda x: -3)),
             ({"op": "ablate", "source": "1", "index": 17}, at(17, lambda x: 0)),
             ({"op": "scale", "source": "1", "index": 17, "value": 4}, at(17, lambda x: 4 * x)),
             ({"op": "mean", "source": "1", "index": 17}, at(17, np.mean)),
             ({"op": "add", "source": "1", "index": 17, "strength": 2.5}, at(17, lambda x: x + 2.5)),
             ({"op": "project", "source": "1", "index": 17, "strength": 0.25}, at(17, lambda x: x * 0.25)),
             ({"op": "cap", "source": "1", "index": 17, "strength": -0.1}, at(17, lambda x: np.minimum(x, -0.1))),
             (both, three),
             ({"op": "splice", "source": "1"}, lambda rows: None)]
    for edit, change in cases:
        agrees(last_logits(daemon, ids, [edit]), expect(change))
    plain, clamped = (last_logits(daemon, ids, e) for e in ([], [cases[0][0]]))
    assert np.abs(plain - clamped).max() > 0.05  # the tolerance is far below what the edit does
    # A tap behind the edit sees it, and its neighbours as they were.
    body = {"tokens": ids, "points": [POINT], "edits": [cases[0][0]]}
    seen = np.array(post(daemon, "/v1/lab/run", body)["activations"][POINT])
    bare = np.array(post(daemon, "/v1/lab/run", {**body, "edits": []})["activations"][POINT])
    assert (seen[:, 17] == 3).all() and (np.delete(seen, 17, 1) == np.delete(bare, 17, 1)).all()


def test_a_table_of_what_ablation_does(daemon, twin):
    got = post(daemon, "/v1/lab/ablate", {"modelId": MODEL, "text": TEXT, "source": "1", "features": [17, 3], "answers": [" the"], "topK": 3})

    def gone(rows):
        rows[:, [3, 17]] = 0
        return rows
    logits = twin.run(got["ids"], {POINT: gone})[1][-1]
    agrees([r["logit"] for r in got["after"]["top"]] if "top" in got["after"] else [r["logit"] for r in got["after"]["rows"]],
           np.sort(logits)[::-1][:3])
    means = post(daemon, "/v1/lab/ablate", {"modelId": MODEL, "text": TEXT, "source": "1", "features": [17], "mode": "mean", "topK": 3})
    assert means["after"] != means["before"]


def test_attribution(daemon, twin):
    ids = ids_of(daemon)
    body = {"tokens": ids, "sources": ["1"], "topK": D_MLP, "answers": [" the", " a"], "positions": [-1, 3]}
    got = post(daemon, "/v1/lab/attribute", body)["sources"][0]
    points = post(daemon, "/v1/lab/attribute", {"tokens": ids, "points": [POINT], "answers": [" the", " a"], "gradients": True})
    gradients, acts = np.array(points["gradients"][POINT]), twin.run(ids)[0][POINT]
    assert got["point"] == POINT
    for place in got["positions"]:
        want = gradients[place["position"]] * acts[place["position"]]
        shares = np.zeros(D_MLP)  # those that are not 0
        for f in place["top"]:
            shares[f["index"]] = f["attribution"]
        assert len(place["top"]) > D_MLP - 5
        agrees(shares, want)
        assert place["error"] == 0 and place["bias"] == pytest.approx(0, abs=1e-5)  # sums in another order
        agrees([place["total"], place["features"]], [want.sum()] * 2)


def test_attribution_names_layers_by_numbers(daemon):
    body = {"text": TEXT, "topK": 3, "answers": [" the", " a"]}
    texts = post(daemon, "/v1/lab/attribute", {**body, "sources": ["0", "1"]})
    assert [row["source"] for row in texts["sources"]] == ["0", "1"]
    for sources in ([0, 1], [0.0, "1"]):
        assert post(daemon, "/v1/lab/attribute", {**body, "sources": sources}) == texts
    assert post(daemon, "/v1/lab/attribute", {**body, "source": 1})["sources"] == texts["sources"][1:]
    assert post(daemon, "/v1/lab/attribute", {**body, "sources": [0, 3]}, 404)["error"].endswith("has the layers 0 to 2")
    assert post(daemon, "/v1/lab/attribute", {**body, "sources": [0, -1]}, 400)["field"] == "sources[1]"


def test_steering(daemon, twin):
    """What a strength is: so much more activation; and what the methods of projection mean for one column."""
    ask = {"modelId": MODEL, "prompt": TEXT, "n_tokens": 8, "temperature": 0, "seed": 1, "strength_multiplier": 1, "steer_special_tokens": True}
    feature = {"modelId": MODEL, "layer": "1", "index": 17, "strength": 6}
    for method, edit in (("SIMPLE_ADDITIVE", {"op": "add", "source": "1", "index": 17, "strength": 6}),
                         ("ORTHOGONAL_DECOMP", {"op": "project", "source": "1", "index": 17, "strength": 6}),
                         ("PROJECTION_CAP", {"op": "cap", "source": "1", "index": 17, "strength": 6})):
        steered = post(daemon, "/api/steer", {**ask, "features": [feature], "steer_method": method})
        edited = post(daemon, "/api/steer", {**ask, "features": [], "edits": [edit]})
        assert steered["STEERED"] == edited["STEERED"] and steered["DEFAULT"] == edited["DEFAULT"], method
    strong = post(daemon, "/api/steer", {**ask, "features": [{**feature, "layer": 1, "strength": 60}]})
    ids = strong_ids = post(daemon, "/v1/lab/run", {"text": TEXT, "points": ["resid_pre.0"]})["ids"]
    for _ in range(8):
        def more(rows):
            rows[:, 17] += 60
            return rows
        ids = ids + [int(twin.run(ids, {POINT: more})[1][-1].argmax())]
    assert strong["STEERED"] != strong["DEFAULT"] and len(ids) == len(strong_ids) + 8
    told = post(daemon, "/v1/lab/run", {"tokens": ids, "points": ["resid_pre.0"]})["tokens"]
    assert strong["STEERED"].endswith("".join(told[len(strong_ids):]))


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Tiny models of other families: gated, with norms behind the MLP, side by side with attention, narrow embeddings. They have no
    tokenizer: 97 characters are theirs."""
    folder, models = tmp_path_factory.mktemp("families"), {}
    for name in ("llama", "gemma2", "gemma3", "gpt_neox", "gptj", "phi", "opt-350m", "qwen3", "gpt_neo"):
        shutil.copytree(VECTORS / "families" / name, folder / name)
        (folder / name / "vocab.json").write_text(json.dumps({**{chr(33 + i): i for i in range(94)}, "\u0120": 94, "\u010a": 95, "<|endoftext|>": 96}))
        (folder / name / "merges.txt").write_text("#version: 0.2\n")
        models[name] = folder / name
    one = Daemon([flag for name, path in models.items() for flag in ("--model", f"{name}={path}")])
    yield one, models
    one.finish()


def test_edits_in_models_of_every_kind(families, recorded):
    """make.py: LAYER, NEURONS, CLAMPED, SCALED, ADDED."""
    one, models = families
    edits = {"clamp": [{"op": "clamp", "source": "1", "index": 3, "value": 2.5}], "scale": [{"op": "scale", "source": "1", "index": 3, "value": -1.5}],
             "add": [{"op": "add", "source": "1", "index": i, "strength": 0.75} for i in (17, 29)]}
    for name in models:
        ids, cap = recorded[f"{name}/ids"].tolist(), 4.0 if name == "gemma2" else 0  # its final_logit_softcapping, behind the point
        plain = last_logits(one, ids, [], name)
        for key, edit in edits.items():
            got, want = last_logits(one, ids, edit, name), recorded[f"{name}/{key}"]
            assert np.abs(got - plain).max() > 1e-3, (name, key)
            agrees(cap * np.tanh(got / cap) if cap else got, want)


def test_pages_in_models_of_every_kind(families, recorded):
    one, models = families
    for name in models:
        for k, index in enumerate((3, 17, 29)):
            row = get(one, f"/api/feature/{name}/1/{index}")
            agrees(row["pos_values"], np.sort(recorded[f"{name}/promotes"][k])[::-1][:10])
        neurons = next(m for m in get(one, "/models")["models"] if m["id"] == name)["neurons"]
        assert get(one, f"/v1/lab/dictionaries/{name}/1")["features"] == neurons["perLayer"]


# ---- refusals and lists ---------------------------------------------------------------------------------


def test_what_is_no_neuron(daemon):
    for path, words in ((f"/api/feature/{MODEL}/3/1", "the layers 0 to 2"), (f"/api/feature/{MODEL}/01/1", "the MLP neurons of that layer are '1'"),
                        (f"/api/feature/{MODEL}/00/1", "are '0'"), (f"/api/feature/{MODEL}/07/1", "the layers 0 to 2"),
                        (f"/api/feature/{MODEL}/99999999999999999999/1", "the layers 0 to 2"), (f"/api/feature/{MODEL}/1/128", "from 0 to 127")):
        reply = get(daemon, path, 404)
        assert words in reply["error"], reply
    for name in ("-1", "2-mlp", "mlp"):  # what people write who mean neurons
        for path, body in (("/activations", {"text": "a", "source": name, "index": 1}), ("/v1/lab/attribute", {"text": "a", "sources": [name]}),
                           ("/v1/jobs", {"kind": "stats", "source": name, "corpus": __file__})):
            assert "'0' to '2' are the neurons of its layers" in post(daemon, path, {"modelId": MODEL, **body}, 404)["error"], (name, path)
    edit = {"op": "clamp", "source": "7", "index": 0, "value": 1}
    assert post(daemon, "/v1/lab/run", {"text": TEXT, "topK": 1, "edits": [edit]}, 404)["field"] == "edits[0].source"
    assert post(daemon, "/api/steer", {"prompt": "a", "features": [{"layer": 4, "index": 0, "strength": 1}]}, 404)["field"] == "features[0].layer"
    refused = post(daemon, "/v1/lab/run", {"text": TEXT, "topK": 1, "edits": [{"op": "mean", "source": "1", "index": 0, "over": "corpus"}]}, 400)
    assert refused["field"] == "edits[0].texts"
    refused = post(daemon, "/v1/jobs", {"kind": "eval", "modelId": MODEL, "source": "1", "corpus": __file__}, 400)
    assert refused["field"] == "source" and "nothing to evaluate" in refused["error"]
    refused = daemon.client.delete(f"/v1/sources/{MODEL}/1")
    assert refused.status_code == 400 and "come with the model" in refused.json()["error"]
    refused = post(daemon, "/v1/sources", {"modelId": MODEL, "source": "1", "path": "x"}, 400)
    assert "come with the model" in refused["error"]
    for name in ("2-neurons", "neurons", "2-neurons__mine"):  # the set is the model's own
        refused = post(daemon, "/v1/sources", {"modelId": MODEL, "source": name, "path": str(VECTORS / "tiny-gpt2" / "sources" / "1-res-relu")}, 400)
        assert refused["field"] == "source" and "neurons of the model itself" in refused["error"], refused


def test_lists_stay_as_they_were(daemon):
    """Neurons are everywhere, so lists of what is loaded leave them out."""
    get(daemon, f"/api/feature/{MODEL}/2/1")
    row = next(m for m in get(daemon, "/models")["models"] if m["id"] == MODEL)
    assert row["neurons"] == {"set": "neurons", "layers": 3, "perLayer": D_MLP}
    assert not any(re.fullmatch(r"\d+", s["id"]) for s in row["sources"])
    assert not any(re.fullmatch(r"\d+", s["source"]) for s in get(daemon, "/v1/sources")["sources"])
    assert "neurons" not in [s["name"] for s in post(daemon, "/api/model/get", {"modelId": MODEL})["sourceSets"]]


def test_without_an_mlp(tmp_path, start_daemon):
    folder = tmp_path / "attn"
    shutil.copytree(VECTORS / "families" / "toy-attn-only", folder)
    (folder / "vocab.json").write_text(json.dumps({**{chr(33 + i): i for i in range(94)}, "\u0120": 94, "\u010a": 95, "<|endoftext|>": 96}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    one = start_daemon(models={"attn": folder})
    assert "has no MLP" in get(one, "/api/feature/attn/0/1", 404)["error"]
    assert "neurons" not in get(one, "/api/feature/attn/mlp/1", 404)["error"]
    assert get(one, "/models")["models"][0]["neurons"] is None
    assert get(one, "/v1/capabilities")["endpoints"]["neurons"] is False
    assert "none" in post(one, "/api/search-all", {"modelId": "attn", "text": "a", "sourceSet": "neurons"}, 404)["error"]
