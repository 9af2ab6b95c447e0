"""Feature statistics of villes, made by the command line and read over HTTP, against tests/vectors/villes/statistics.*,
which an independent twin counted over the same text; and against themselves, after being killed and resumed."""
import json
import os
import random
import re
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from conftest import binary, run_steerd
from tensors import read_tensors

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.abspath(os.environ.get("STEERD_DATA", os.path.join(ROOT, "..", "shared", "data")))
VECTORS = os.path.join(ROOT, "tests", "vectors", "villes")
INI = os.path.join(ROOT, "config", "models", "villes.ini")
CORPUS = os.path.join(DATA, "models", "villes", "villes.txt")
SERVED = {"models": {"villes": INI}, "sources": {"villes/0-res-ws": INI}}
N_FEATURES = 128
BARS, INTERVALS, LOGIT_BARS, LIST = 64, 8, 50, 10
STATS_SECONDS = 600  # a sanitizer build on a busy machine is slow
KILLS = 5
ROUNDED = 1e-6  # relative; recorded and served numbers were each rounded to float32 once

pytestmark = pytest.mark.skipif(not os.path.isfile(CORPUS), reason="skip: statistics of villes (set STEERD_DATA)")


def stats_arguments(store):
    return ["stats", "villes", "0-res-ws", "--corpus", CORPUS, "--lines", "--store", str(store), "--model", f"villes={INI}",
            "--source", f"villes/0-res-ws={INI}"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with the statistics of all of villes.txt, what the run printed, and how long it took."""
    store = tmp_path_factory.mktemp("statistics") / "store.sqlite"
    start = time.monotonic()
    status, out, log = run_steerd(*stats_arguments(store), environment={"STEERD_DATA": DATA}, seconds=STATS_SECONDS)
    seconds = time.monotonic() - start
    assert status == 0, log
    return {"store": store, "out": out, "log": log, "seconds": seconds}


@pytest.fixture
def daemon(start_daemon, made):
    return start_daemon(**SERVED, store=made["store"])


def read_features(daemon):
    replies = [daemon.get(f"/api/feature/villes/0-res-ws/{i}") for i in range(N_FEATURES)]
    for reply in replies:
        assert reply.status_code == 200, reply.text
    return replies


class Twin:
    """The recorded figures of one feature, and what the slacks leave open (tests/vectors/counting.py)."""

    def __init__(self, tensors, feature):
        self.tensors, self.feature = tensors, feature

    def __getitem__(self, name):
        return self.tensors[name][self.feature]

    def rows(self, part, row=None):
        """Candidates of a part as dictionaries, in the recorded order."""
        row = self.feature if row is None else row
        first, end = self.tensors[f"{part}/first"][row:row + 2]
        names = [name.split("/")[1] for name in self.tensors if name.startswith(part + "/") and not name.endswith("/first")]
        return [{name: self.tensors[f"{part}/{name}"][i] for name in names} for i in range(first, end)]


@pytest.fixture(scope="module")
def text():
    """The documents and the token strings, as the text defines them."""
    with open(CORPUS, encoding="utf-8", newline="") as file:
        names = file.read().split("\n")
    return names, ["<PAD>", "<SOS>", "<EOS>"] + sorted(set("".join(names)))


@pytest.fixture(scope="module")
def recorded():
    with open(os.path.join(VECTORS, "statistics.json"), encoding="utf-8") as file:
        tensors = read_tensors(os.path.join(VECTORS, "statistics.safetensors"))
        wide = {name: values.astype(float if values.dtype.kind == "f" else int) for name, values in tensors.items()}
        return json.load(file), wide


@pytest.fixture
def features(daemon, recorded):
    return [(reply.json(), Twin(recorded[1], i)) for i, reply in enumerate(read_features(daemon))]


def near(got, row):
    return abs(got - row["value"]) <= row["slack"] + ROUNDED * abs(row["value"])


def may_replace(row, other):
    """Whether a candidate may stand where another is recorded: the same, or tied as near as the slacks. Exact ties have an
    order."""
    return row == other or (row["same"] != other["same"] and abs(row["value"] - other["value"]) <= row["slack"] + other["slack"])


def check_bars(got, bars, rise, fall):
    """From each edge upwards, as many as recorded but for those that may cross it."""
    off = np.cumsum(np.asarray(got, int)[::-1])[::-1] - np.cumsum(bars[::-1])[::-1]
    assert (off <= rise).all() and (off >= -fall).all(), off


def test_progress_is_told(made):
    assert "\r" not in made["out"]  # the bar is not part of the output
    assert re.search(r"\d", made["log"])


def test_rates_and_maxima(features, recorded):
    n_tokens = recorded[0]["n_tokens"]
    for got, want in features:
        assert (got["modelId"], got["layer"], got["index"]) == ("villes", "0-res-ws", str(want.feature))
        count = got["frac_nonzero"] * n_tokens
        assert abs(count - round(count)) < .05  # a share of all positions, <SOS> among them; float32 is off by 0.03 at most
        assert want["n_fired"] - want["fall"][0] <= round(count) <= want["n_fired"] + want["rise"][0]
        assert want["max_low"] * (1 - ROUNDED) <= got["maxActApprox"] <= want["max_high"] * (1 + ROUNDED)


def test_activation_histograms(features):
    for got, want in features:
        heights, centres = got["freq_hist_data_bar_heights"], got["freq_hist_data_bar_values"]
        width = want["range"] / BARS
        assert len(heights) == len(centres) == int(got["maxActApprox"] / width) + 1
        assert centres == pytest.approx([(b + .5) * width for b in range(len(centres))], rel=ROUNDED)
        check_bars(heights + [0] * (BARS - len(heights)), want["bars"], want["rise"], want["fall"])


def check_shape(row, text):
    """What holds for every example: a whole name (the longest is shorter than a window), <SOS> first."""
    tokens, values = row["tokens"], row["values"]
    assert tokens[0] == text[1][1] and len(tokens) == len(values)
    assert row["maxValue"] == max(values) and row["maxValueTokenIndex"] == values.index(max(values))
    assert row["minValue"] == min(values)
    return "".join(tokens[1:]), row["qualifyingTokenIndex"]


def test_top_examples(features, text):
    names = text[0]
    for got, want in features:
        rows = [row for row in got["activations"] if row["binMin"] == -1]
        most = [row["maxValue"] for row in got["activations"]]
        assert most == sorted(most, reverse=True)  # Neuronpedia's order; the intervals' stand between
        candidates = want.rows("top")
        seen = set()  # the likeliest position of each document
        places = [c for c in candidates if c["sure"] and not (c["document"] in seen or seen.add(c["document"]))]
        assert len(rows) >= min(LIST, len(places))
        for row, place in zip(rows, places):
            name, at = check_shape(row, text)
            fits = [c for c in candidates if (names[c["document"]], c["position"]) == (name, at) and may_replace(c, place)]
            assert fits, (want.feature, name, at, names[place["document"]], place["position"])
            assert at == row["maxValueTokenIndex"] and near(row["values"][at], fits[0])
            assert (row["binContains"], row["binMax"]) == (None, got["maxActApprox"])
        assert not rows or rows[0]["maxValue"] == got["maxActApprox"]
        found = [row["maxValue"] for row in rows]
        assert found == sorted(found, reverse=True)


def test_values_around_the_first_example(features, text):
    names, compared = text[0], 0
    for got, want in features:
        for window in want.rows("window"):
            first = got["activations"][0]
            if (names[window["document"]], window["position"]) != ("".join(first["tokens"][1:]), first["qualifyingTokenIndex"]):
                continue  # another one, tied as near as the slacks
            n = window["length"]
            at = slice(window["start"], window["start"] + n)
            assert first["tokens"][at] == [text[1][token] for token in window["tokens"][:n]]
            off = np.abs(np.array(first["values"][at]) - window["values"][:n])
            assert (off <= window["slacks"][:n] + ROUNDED * window["values"][:n]).all(), (want.feature, off)
            compared += 1
    assert compared >= N_FEATURES - 2


def test_interval_examples(features, recorded, text):
    names, n_tokens = text[0], recorded[0]["n_tokens"]
    for got, want in features:
        width = want["range"] / INTERVALS
        rows = [row for row in got["activations"] if row["binMin"] != -1]
        intervals = [round(row["binMin"] / width) for row in rows]
        edges = {name: np.append(want[name], 0)[::BARS // INTERVALS] for name in ("rise", "fall")}
        counts = want["bars"].reshape(INTERVALS, -1).sum(1)
        for i in range(INTERVALS):
            candidates = want.rows("interval", want.feature * INTERVALS + i)
            mine = [row for row, interval in zip(rows, intervals) if interval == i]
            room = sum(not c["sure"] for c in candidates)
            assert min(2, len(candidates) - room) <= len(mine) <= min(2, len(candidates)), (want.feature, i)
            least, most = counts[i] - edges["fall"][i] - edges["rise"][i + 1], counts[i] + edges["rise"][i] + edges["fall"][i + 1]
            for row in mine:
                name, at = check_shape(row, text)
                fits = [c for c in candidates if (names[c["document"]], c["position"]) == (name, at)]
                assert fits and near(row["values"][at], fits[0]), (want.feature, i, name, at)
                assert (row["binMin"], row["binMax"]) == pytest.approx((i * width, (i + 1) * width), rel=ROUNDED)
                assert row["binMin"] <= row["values"][at] <= row["binMax"]
                assert least - .05 <= row["binContains"] * n_tokens <= most + .05


def check_list(names, values, candidates, name_of, sign, what):
    assert len(names) == len(values) == LIST, what
    for name, value, place in zip(names, values, candidates):
        fits = [c for c in candidates if name_of(c["id"]) == name and may_replace(c, place)]
        assert fits and near(value, fits[0]), (what, name, value, name_of(place["id"]), place["value"])
    assert values == sorted(values, reverse=sign > 0), what


def test_logits(features, text):
    for got, want in features:
        check_list(got["pos_str"], got["pos_values"], want.rows("logits_top"), text[1].__getitem__, 1, want.feature)
        check_list(got["neg_str"], got["neg_values"], want.rows("logits_bottom"), text[1].__getitem__, -1, want.feature)
        low, high = want["logits_range"]
        width = (high - low) / LOGIT_BARS
        heights, centres = got["logits_hist_data_bar_heights"], got["logits_hist_data_bar_values"]
        assert sum(heights) == len(text[1])
        # Both ends may be off by the slack of a logit, 1e-6.
        assert centres == pytest.approx([low + (b + .5) * width for b in range(LOGIT_BARS)], abs=2e-6)
        check_bars(heights, want["logits_bars"], want["logits_rise"], want["logits_fall"])


def test_neighbours(features):
    for got, want in features:
        check_list(got["topkCosSimIndices"], got["topkCosSimValues"], want.rows("neighbours"), int, 1, want.feature)


def test_density(daemon, features, recorded):
    reply = daemon.get("/v1/lab/dictionaries/villes/0-res-ws/density")
    assert reply.status_code == 200, reply.text
    density = reply.json()
    assert density["nTokens"] == recorded[0]["n_tokens"]
    # All rates at once travel as float32.
    assert [np.float32(rate) for rate in density["rates"]] == [np.float32(got["frac_nonzero"]) for got, _ in features]
    shares = {row["below"]: row["share"] for row in density["shares"]}
    want = {float(limit): count / N_FEATURES for limit, count in recorded[0]["features_below_rate"].items()}
    assert sorted(shares) == sorted(want) == [.0001, .001, .01, .1]
    for limit, share in want.items():  # no feature fires as rarely as its limit but for a near tie
        assert shares[limit] == pytest.approx(share, abs=1e-6), limit


def test_the_tutorials_export(daemon):
    # https://www.neuronpedia.org is this daemon; the rest is the tutorial's cell.
    response = daemon.get("/api/explanation/export?modelId=villes&saeId=0-res-ws", headers={"Content-Type": "application/json"})
    data = response.json()
    explanations_df = pd.DataFrame(data)
    explanations_df.rename(columns={"index": "feature"}, inplace=True)
    explanations_df["description"] = explanations_df["description"].apply(lambda x: x.lower())
    word = explanations_df.description.values[0].split()[0]
    chosen = explanations_df.loc[explanations_df.description.str.contains(word, regex=False)]
    html = "https://neuronpedia.org/{}/{}/{}?embed=true".format("villes", "0-res-ws", chosen.feature.values[0])
    assert html.split("/")[-1].split("?")[0] in map(str, range(N_FEATURES))

    assert list(explanations_df.columns) == ["modelId", "layer", "feature", "description", "explanationModelName", "typeName"]
    assert set(explanations_df.feature) == set(map(str, range(N_FEATURES)))  # every feature fires in this text
    assert set(explanations_df.typeName) == {"steerd-auto"} and set(explanations_df.explanationModelName) == {"rules-1"}
    assert (explanations_df.description.str.len() > 0).all()


def undated(daemon):
    """All features as they were sent, without the dates of the run and the ids of its explanations: on a busy machine the
    last runs may find their work done and count anew, and ids are never given twice."""
    return [re.sub(rb'"(createdAt|updatedAt|madeAt|id)":"[^"]*"', rb'"\1":""', reply.content) for reply in read_features(daemon)]


def kill_and_resume(store, whole_seconds):
    """Starts the run, kills it at a random moment, and again; then lets it end. How often it was killed."""
    moments, killed = random.Random(17), 0
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("STEERD_")}, "STEERD_DATA": DATA}
    for _ in range(KILLS):
        process = subprocess.Popen([binary(), *stats_arguments(store)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=environment)
        try:
            _, log = process.communicate(timeout=moments.uniform(.01, .25) * whole_seconds)
            assert process.returncode == 0, log.decode()  # it was done already
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
    status, _, log = run_steerd(*stats_arguments(store), environment={"STEERD_DATA": DATA}, seconds=STATS_SECONDS)
    assert status == 0, log
    return killed


def test_killed_and_resumed_gives_the_same_bytes(made, start_daemon, tmp_path):
    store = tmp_path / "store.sqlite"
    assert kill_and_resume(store, made["seconds"]) >= KILLS - 2  # the last ones may find it done
    whole = undated(start_daemon(**SERVED, store=made["store"]))
    resumed = undated(start_daemon(**SERVED, store=store))
    for i in range(N_FEATURES):
        assert resumed[i] == whole[i], f"feature {i}"
