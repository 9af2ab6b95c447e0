"""Neuronpedia's published client for its web API against the daemon, with nothing changed but its base URL. Where the test's
interpreter lacks the package, these are skipped by name: python3 -m venv V; V/bin/pip install neuronpedia pytest requests;
V/bin/pytest tests/http/test_neuronpedia_client.py. test_uploads.py and test_lists.py send the same bodies without it."""
import pytest
import requests

from conftest import MODEL, Daemon, model_options

neuronpedia = pytest.importorskip("neuronpedia", reason="skip: the package 'neuronpedia' is not installed for this interpreter")
from neuronpedia.np_activation import Activation  # noqa: E402
from neuronpedia.np_explanation import Explanation  # noqa: E402
from neuronpedia.np_feature import Feature, Logit  # noqa: E402
from neuronpedia.np_list import NPList, NPListItem  # noqa: E402
from neuronpedia.np_model import Model  # noqa: E402
from neuronpedia.np_source_set import SourceSet  # noqa: E402
from neuronpedia.requests.activation_request import ActivationRequest  # noqa: E402
from neuronpedia.requests.base_request import NPRequest  # noqa: E402

TOKENS = ["The", " cat", " sat"]
PLACE = {"modelId": "pup-model-3", "source": "1-puppyscope"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    daemon = Daemon(model_options(), store=str(tmp_path_factory.mktemp("client") / "store.sqlite"))
    before, NPRequest.BASE_URL = NPRequest.BASE_URL, daemon.url + "/api"
    with neuronpedia.api_key("none"):
        yield daemon
    NPRequest.BASE_URL = before
    daemon.finish()


@pytest.fixture(scope="module")
def source(world):
    model = Model.new("pup-model-3", 3, "Pup", "https://pups.example")
    assert (model.id, model.layers, model.display_name, model.url) == ("pup-model-3", 3, "Pup", "https://pups.example")
    made = SourceSet.new("puppyscope", "pup-model-3", "Residual", "https://pups.example/set")
    assert made.description == "Residual" and made.url == "https://pups.example/set" and len(made.sources) == 3
    assert SourceSet.get("pup-model-3", "puppyscope") == made
    one = made.get_source_for_layer_number(1)
    features = [Feature(index=i, density=i / 100, top_logits=[Logit(" dog", 1.5)], bottom_logits=None,
                        explanations=[Explanation(index=i, text=f"animal {i}", method="np", explainer_model="gpt", **PLACE)],
                        activations=[Activation(index=i, tokens=TOKENS, values=[0.0, i + 0.5, 0.25], quantileMin=0.0, quantileMax=2.0,
                                                quantileFraction=0.5, **PLACE)], **PLACE) for i in (3, 4)]
    assert one.upload_batch(features)["message"] == "2 features created."
    assert one.upload_batch([Feature(index=5, **PLACE)])["message"] == "1 features created."  # nothing but a number
    return one


def test_features(source):
    got = Feature.get("pup-model-3", source.id, 3)
    assert (got.modelId, got.source, int(got.index), got.density) == ("pup-model-3", source.id, 3, 0.03)
    assert got.explanations[0].text == "animal 3" and got.explanations[0].method == "np" and got.explanations[0].explainer_model == "gpt"
    example = got.activations[0]
    assert example.tokens == TOKENS and example.values == [0, 3.5, 0.25]
    assert (example.quantileMin, example.quantileMax, example.quantileFraction) == (0, 2, 0.5)


def test_activations(source):
    rows = [Activation(index=4, tokens=TOKENS, values=[0.0, v, 0.0], **PLACE) for v in (8.5, 9.5)]
    assert ActivationRequest().upload_batch("pup-model-3", source.id, "4", rows)["message"] == "2 activations created."
    assert [row.values[1] for row in Feature.get("pup-model-3", source.id, 4).activations] == [9.5, 8.5, 4.5]


def test_lists(world, source):
    made = NPList.new("Animals", "about")
    made.add_items([NPListItem("pup-model-3", source.id, "3", "first"), NPListItem(MODEL, "1-res-relu", "7")])
    assert [(one.source, one.index) for one in made.items] == [(source.id, "3"), ("1-res-relu", "7")]
    read = NPList.get(made.id)
    assert read.name == "Animals" and read.description == "about" and [one.index for one in read.items] == ["3", "7"]
    assert made.id in [one.id for one in NPList.get_owned()]


def test_refusals_are_told(world, source):
    with pytest.raises(requests.exceptions.HTTPError, match="already"):
        Model.new("pup-model-3", 3)
    with pytest.raises(requests.exceptions.HTTPError, match=r"features\[0\]\.density"):
        source.upload_batch([Feature(index=8, density=7.0, **PLACE)])
