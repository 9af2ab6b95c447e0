"""What a dictionary's rows do to the logits, all features at once, beside NumPy: moments, token-set enrichment, and features that
prefer some words of a text."""
import math
import sqlite3

import numpy as np
import pytest

from conftest import MODEL, VECTORS, Daemon, model_options
from tensors import read_tensors

SOURCE = "1-res-relu"
BASE = f"/v1/lab/dictionaries/{MODEL}/{SOURCE}"
TEXT = ["the ship is at sea", "one two three four, the ship and the sea"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A daemon of its own: what it keeps is looked at."""
    one = Daemon(model_options())
    yield one
    one.finish()


@pytest.fixture(scope="module")
def logits():
    """[features, vocabulary]: decoder rows brought to length 1, by the unembedding."""
    wte = read_tensors(VECTORS / MODEL / "model" / "model.safetensors")["transformer.wte.weight"].astype(np.float64)
    decoder = read_tensors(VECTORS / MODEL / "sources" / SOURCE / "sae_weights.safetensors")["W_dec"].astype(np.float64)
    return decoder / np.linalg.norm(decoder, axis=1, keepdims=True) @ wte.T


def ask(daemon, verb, body, status=200):
    reply = daemon.post(f"{BASE}/{verb}", body)
    assert reply.status_code == status, reply.text
    return reply.json()


def stats(daemon, **query):
    reply = daemon.get(f"{BASE}/logit-stats", params=query)
    assert reply.status_code == 200, reply.text
    return reply


def moments(x):
    d = x - x.mean(1, keepdims=True)
    std = np.sqrt((d ** 2).mean(1))
    z = d / std[:, None]
    return {"mean": x.mean(1), "std": std, "skewness": (z ** 3).mean(1), "kurtosis": (z ** 4).mean(1)}


def test_moments(own, logits):
    want = moments(logits)
    rows = stats(own, limit=100000).json()["rows"]
    assert [row["index"] for row in rows] == list(range(len(want["mean"])))
    for name, values in want.items():
        # Rows and products are float32: 2^-24 for each of 32 terms of a logit, and cubes and fourth powers of what is left.
        np.testing.assert_allclose([row[name] for row in rows], values, rtol=2e-5, atol=2e-6, err_msg=name)


def kept(path):
    """How many features of each source have moments in a store."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        return dict(store.execute("SELECT s.name, count(*) FROM feature_moments f JOIN sources s ON s.id = f.id >> 32 GROUP BY s.name"))


def busy(daemon):
    return [line for line in daemon.get("/metrics").text.splitlines() if line.startswith("steerd_busy_seconds_total")][0]


def test_moments_are_kept(tmp_path):
    """Computed once, or with a source's statistics; a daemon that starts with the store has the same bits."""
    (tmp_path / "lines.txt").write_text("the ship is at sea\n")
    store, answers = tmp_path / "store.sqlite", []
    for _ in range(2):
        daemon = Daemon(model_options(), store=str(store))
        answers += [stats(daemon, limit=1000).content]
        before = busy(daemon)
        answers += [stats(daemon, limit=1000).content]
        assert busy(daemon) == before  # nobody had anything to compute
        daemon.finish()
        assert kept(store) == {SOURCE: 96}
    assert len(set(answers)) == 1
    daemon = Daemon(model_options(), store=str(store))
    job = daemon.post("/v1/jobs", {"kind": "stats", "modelId": MODEL, "source": "2-res-jump", "corpus": str(tmp_path / "lines.txt")})
    with daemon.get(f"/v1/jobs/{job.json()['id']}/events", stream=True) as events:
        assert '"done"' in list(events.iter_lines())[-2].decode()
    daemon.finish()
    assert kept(store) == {SOURCE: 96, "2-res-jump": 96}


def test_order_pages_and_limits(own):
    rows = stats(own, limit=100000).json()["rows"]
    for order in ("mean", "std", "skewness", "kurtosis"):
        for descending in (False, True):
            got = stats(own, order=order, descending=str(descending).lower(), limit=7, offset=2)
            want = sorted(rows, key=lambda row: (-row[order] if descending else row[order], row["index"]))
            assert got.json()["rows"] == want[2:9]
            assert got.headers["X-Total-Count"] == str(len(rows)) and 'rel="next"' in got.headers["Link"]
    least, most = sorted(row["skewness"] for row in rows)[40], sorted(row["kurtosis"] for row in rows)[70]
    want = [row for row in rows if row["skewness"] >= least and row["kurtosis"] <= most]
    got = stats(own, minSkewness=repr(least), maxKurtosis=repr(most), limit=1000).json()
    assert got["rows"] == want and got["total"] == len(want) and 0 < len(want) < len(rows)
    assert stats(own, minStd=1e9).json()["rows"] == []
    reply = own.get(f"{BASE}/logit-stats", params={"minSkewness": "much"})
    assert reply.status_code == 400 and reply.json()["field"] == "minSkewness"


def enriched(row, members):
    """The definition, token by token."""
    order = np.argsort(-row, kind="stable")
    steps = np.where(np.isin(order, members), 1 / len(members), -1 / (len(row) - len(members)))
    walk = np.cumsum(steps)
    return walk[np.abs(walk).argmax()]


def test_enrichment(own, logits):
    rows = logits
    vocabulary = rows.shape[1]
    sets = {"few": [3, 5, 7], "many": list(range(0, vocabulary, 2)), "one": [vocabulary - 1]}
    body = {"sets": [{"name": name, "ids": ids} for name, ids in sets.items()], "scores": True, "topK": 5}
    got = ask(own, "enrichment", body)
    assert got["vocabulary"] == vocabulary and got["features"] == len(rows)
    for one in got["sets"]:
        want = np.array([enriched(row, sets[one["name"]]) for row in rows])
        assert one["tokens"] == len(sets[one["name"]])
        # Where float32 sorts two tokens the other way round than float64, the walk differs by one step.
        np.testing.assert_allclose(one["scores"], np.abs(want), atol=1e-5)
        best = np.argsort(-np.abs(np.float32(one["scores"])), kind="stable")[:5]
        assert [top["index"] for top in one["top"]] == best.tolist()
        for top in one["top"]:
            assert top["score"] == pytest.approx(one["scores"][top["index"]], abs=1e-7)
            assert top["enrichment"] == pytest.approx(-math.log1p(-top["score"]), rel=1e-6)
            assert top["end"] == ("top" if want[top["index"]] > 0 else "bottom")


def test_one_end(own):
    every = ask(own, "enrichment", {"builtin": ["a"], "topK": 1000})["sets"][0]["top"]
    for end in ("top", "bottom"):
        got = ask(own, "enrichment", {"builtin": ["a"], "topK": 1000, "end": end})["sets"][0]["top"]
        assert got == [one for one in every if one["end"] == end] and 0 < len(got) < len(every)


def test_listed_features(own):
    every = ask(own, "enrichment", {"builtin": ["all"], "scores": True})
    some = ask(own, "enrichment", {"builtin": ["all"], "scores": True, "features": [7, 2, 30]})
    for whole, part in zip(every["sets"], some["sets"]):
        assert part["scores"] == [whole["scores"][i] for i in (7, 2, 30)]
        assert {top["index"] for top in part["top"]} <= {7, 2, 30}


def test_words_are_tokens(own):
    words = ["ship", " sea"]
    ids = [i for word in words for i in own.post("/v1/tokenize", {"text": " " + word.strip(), "prependBos": False}).json()["tokens"]]
    bare = own.post("/v1/tokenize", {"text": "ship", "prependBos": False}).json()["tokens"]
    body = {"sets": [{"name": "w", "words": words}, {"name": "i", "ids": ids}, {"name": "b", "words": ["ship"], "prependSpace": False},
                     {"name": "c", "ids": bare}], "scores": True}
    got = ask(own, "enrichment", body)["sets"]
    assert got[0]["scores"] == got[1]["scores"] and got[2]["scores"] == got[3]["scores"]
    assert got[0]["tokens"] == len(set(ids)) and got[0]["scores"] != got[2]["scores"]


@pytest.mark.parametrize("body, field, words", [
    ({}, "sets", "builtin"),
    ({"builtin": ["digits"]}, "builtin[0]", "starts_with_space"),
    ({"builtin": ["a", "all"]}, "builtin", "comes twice"),
    ({"sets": [{"name": "x"}]}, "sets[0]", "no token"),
    ({"sets": [{"name": "x", "ids": [1]}, {"name": "x", "ids": [2]}]}, "sets[1].name", "comes twice"),
    ({"sets": [{"name": "x", "ids": [1, 10 ** 9]}]}, "sets[0].ids[1]", "0 to"),
    ({"builtin": ["a"], "features": [0, 10 ** 6]}, "features", "features[1]"),
    ({"builtin": ["all"], "sets": [{"name": f"s{i}", "ids": [i]} for i in range(22)]}, "sets[21].name", "more than 64"),
    ({"builtin": ["a"], "features": [0] * 100000, "scores": True, "sets": [{"name": f"s{i}", "ids": [i]} for i in range(50)]}, "scores", "4000000"),
])
def test_enrichment_refuses(own, body, field, words):
    answer = ask(own, "enrichment", body, 400)
    assert answer["field"] == field and words in answer["message"], answer


# ---- features that prefer words ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """The same dictionary, but said to have been trained on BOS too."""
    path = tmp_path_factory.mktemp("described") / "1-res-bos.ini"
    path.write_text(f"[source 1-res-bos]\nweights = {VECTORS / MODEL / 'sources' / SOURCE / 'sae_weights.safetensors'}\nkind = relu\n"
                    "point = blocks.1.hook_resid_pre\nbos_counts = true\n")
    one = Daemon([*model_options(), "--source", f"{MODEL}/1-res-bos={path}"])
    yield one
    one.finish()


@pytest.mark.parametrize("source, bos", [(SOURCE, False), ("1-res-bos", True)])
def test_token_score(counting, source, bos):
    """Beside what /api/activation/source tells of every feature at every token."""
    own = counting
    tokens, values = [], {}
    for text in TEXT:
        reply = own.post("/api/activation/source", {"modelId": MODEL, "source": source, "customText": text})
        assert reply.status_code == 200, reply.text
        one = reply.json()["results"][0]
        for index, pairs in one["activeFeatures"].items():
            for position, value in pairs:
                values.setdefault(int(index), []).append((len(tokens) + position, value))
        tokens += one["tokens"]
    words = [[" ship"], [" s", "e", "a"]]  # as the tokenizer cuts them
    wanted = {i + k for word in words for i in range(len(tokens)) if tokens[i:i + len(word)] == word for k in range(len(word))}
    assert len(wanted) == 8
    reply = own.post(f"/v1/lab/dictionaries/{MODEL}/{source}/token-set-score", {"text": TEXT, "words": ["ship", "sea", "xylophone"], "topK": 1000})
    assert reply.status_code == 200, reply.text
    got = reply.json()
    n_bos = tokens.count("<|endoftext|>")
    assert got["positions"] == {"on": 8, "elsewhere": len(tokens) - 8 - (0 if bos else n_bos)} and n_bos == 2
    rows = {row["index"]: row for row in got["features"]}
    for index, pairs in values.items():
        on, off = [v for i, v in pairs if i in wanted], [v for i, v in pairs if i not in wanted]
        assert (index in rows) == bool(on)
        if not on:
            continue
        row = rows[index]
        assert (row["firedOn"], row["firedElsewhere"]) == (len(on), len(off))
        assert row["meanOn"] == pytest.approx(np.mean(on), rel=1e-6)
        assert row["score"] == (pytest.approx(np.mean(on) / np.mean(off), rel=1e-6) if off else None)
    scores = [row["score"] for row in got["features"] if row["score"] is not None]
    assert scores == sorted(scores, reverse=True) and got["missing"] == ["xylophone"]
    alone = [row["meanOn"] for row in got["features"] if row["score"] is None]
    assert alone == sorted(alone, reverse=True) and [row["score"] for row in got["features"]][:len(alone)] == [None] * len(alone)


@pytest.mark.parametrize("body, field, words", [
    ({"text": "the ship"}, "words", "give words"),
    ({"text": "the ship", "words": ["sea"]}, "words", "no text has"),
    ({"text": "the ship", "ids": [10 ** 9]}, "ids[0]", "0 to"),
    ({"words": ["sea"]}, "text", "required"),
])
def test_token_score_refuses(own, body, field, words):
    answer = ask(own, "token-set-score", body, 400)
    assert answer["field"] == field and words in answer["message"], answer
