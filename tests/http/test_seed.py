"""The steering request of the SAE tutorial, field by field, against a model of gpt2-small's shape (12 layers, but narrow
and random) and a dictionary of its size (24,576 features), registered under the names the tutorial uses."""
import copy
import os
import subprocess
import sys

import pandas as pd
import pytest
import requests

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TIMEOUT = 60  # seconds; a sanitizer build on a busy machine is slow
FEATURE = 6770
PAYLOAD = {
    "prompt": "In the middle of the universe is the galactic",
    "modelId": "gpt2-small",
    "features": [{"modelId": "gpt2-small", "layer": "7-res-jb", "index": FEATURE, "strength": 8}],
    "temperature": 0.2,
    "n_tokens": 2,
    "freq_penalty": 1,
    "seed": 44,  # the tutorial draws it from 0 to 99
    "strength_multiplier": 4,
}


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("gpt2-small-shaped"))
    subprocess.run([sys.executable, os.path.join(ROOT, "tests", "tools", "make_gpt2_small_shaped.py"), "--out", folder,
                    "--width", "48", "--heads", "4", "--dictionary", "24576,7,7-res-jb"], check=True, timeout=TIMEOUT)
    return folder


@pytest.fixture
def daemon(start_daemon, small_folder):
    return start_daemon(models={"gpt2-small": small_folder},
                        sources={"gpt2-small/7-res-jb": os.path.join(small_folder, "sources", "7-res-jb")})


def changed(**fields):
    """The payload with other fields; strength and index are those of its one feature."""
    payload = copy.deepcopy(PAYLOAD)
    for name, value in fields.items():
        (payload["features"][0] if name in payload["features"][0] else payload)[name] = value
    return payload


def post(daemon, path, payload):
    response = requests.post(daemon.url + path, json=payload, headers={"Content-Type": "application/json"},
                             timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    return response.json()


def texts(reply):
    return reply["STEERED"].encode(), reply["DEFAULT"].encode()


def test_the_literal_payload_is_answered(daemon):
    reply = post(daemon, "/api/steer", PAYLOAD)
    assert {"STEERED", "DEFAULT", "id", "shareUrl", "limit"} <= set(reply)
    for text in (reply["STEERED"], reply["DEFAULT"]):
        assert text.startswith(PAYLOAD["prompt"]) and len(text) > len(PAYLOAD["prompt"])
        assert "<|endoftext|>" not in text
    assert reply["STEERED"] != reply["DEFAULT"]  # their first tokens agree with a probability of 3e-7 with these weights
    assert isinstance(reply["id"], str) and reply["id"]
    assert reply["shareUrl"] is None  # share links are made only when asked for


def test_the_same_seed_gives_the_same_bytes(daemon):
    longer = changed(n_tokens=12, temperature=1)
    first = texts(post(daemon, "/api/steer", longer))
    assert texts(post(daemon, "/api/steer", longer)) == first
    others = {texts(post(daemon, "/api/steer", {**longer, "seed": seed})) for seed in range(4)}
    assert len(others) > 1  # at temperature 1, 12 tokens of a spread-out model do not come out alike four times


def test_steering_changes_the_text_and_nothing_else_does(daemon):
    # 320 times a unit vector is some ten times the length of this model's residual: what follows is the feature's.
    loud = post(daemon, "/api/steer", changed(strength=80, temperature=0, n_tokens=4))
    quiet = post(daemon, "/api/steer", changed(strength=0, temperature=0, n_tokens=4))
    assert loud["STEERED"] != loud["DEFAULT"]
    assert quiet["STEERED"] == quiet["DEFAULT"] == loud["DEFAULT"]


def test_what_clients_send_in_other_ways(daemon):
    want = texts(post(daemon, "/api/steer", PAYLOAD))
    assert texts(post(daemon, "/api/steer/", PAYLOAD)) == want  # the Python client ends its paths so
    assert texts(post(daemon, "/steer", PAYLOAD)) == want
    assert texts(post(daemon, "/api/steer", changed(index=str(FEATURE)))) == want
    assert texts(post(daemon, "/api/steer", changed(strength=8.0, strength_multiplier=4.0, seed=44.0))) == want
    assert texts(post(daemon, "/api/steer", {**PAYLOAD, "somethingNew": {"a": 1}})) == want


@pytest.mark.parametrize("fields, code, word", [
    ({"index": 24576}, 404, "24576"),
    ({"layer": "7-res-jx"}, 404, "7-res-jx"),
    ({"modelId": "gpt9"}, 404, "gpt9"),
    ({"n_tokens": 0}, 400, "n_tokens"),
    ({"temperature": "warm"}, 400, "temperature"),
])
def test_a_wrong_field_is_named(daemon, fields, code, word):
    payload = changed(**fields)
    if "modelId" in fields:
        payload["modelId"] = fields["modelId"]
    response = requests.post(daemon.url + "/api/steer", json=payload, timeout=TIMEOUT)
    assert response.status_code == code
    assert word in response.json()["message"]


def test_activations_become_a_data_frame(daemon):
    prompt = PAYLOAD["prompt"]
    reply = post(daemon, "/activations", {"modelId": "gpt2-small", "source": "7-res-jb", "text": prompt, "numResults": 5})
    frame = pd.json_normalize(reply["results"], "topFeatures", ["position", "token"])
    assert {"featureIndex", "activationValue", "position", "token"} <= set(frame.columns)
    assert len(frame) > 0 and (frame["activationValue"] > 0).all()
    assert (frame.groupby("position").size() <= 5).all()
    assert frame["featureIndex"].astype(int).between(0, 24575).all()
    best = frame.sort_values("activationValue", ascending=False).iloc[0]

    one = post(daemon, "/activations", {"modelId": "gpt2-small", "source": "7-res-jb", "index": str(best["featureIndex"]),
                                        "text": prompt})
    table = pd.DataFrame({"token": one["tokens"], "value": one["values"]})
    assert "".join(table["token"]) == prompt  # a synthetic vocabulary has one token a byte, and BOS is left out
    assert table["value"].max() == pytest.approx(one["maxValue"], abs=0)
    # The same feature, once out of a whole encode and once on its own: sums may run in another order.
    assert one["maxValue"] == pytest.approx(best["activationValue"], rel=1e-5)
