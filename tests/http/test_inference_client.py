"""Neuronpedia's published client for its inference server against the daemon, with nothing changed but its base URL. Where the test's
interpreter lacks the package, these are skipped by name: python3 -m venv V; V/bin/pip install neuronpedia-inference-client pytest
requests numpy; V/bin/pytest tests/http/test_inference_client.py"""
import re

import pytest

from conftest import MODEL
from test_inference import PROMPTS, SOURCE, ask
from test_openai_chat import HELLO, chats  # noqa: F401 (a fixture)

client = pytest.importorskip("neuronpedia_inference_client",
                             reason="skip: the package 'neuronpedia-inference-client' is not installed for this interpreter")
FEATURE = {"model": MODEL, "source": SOURCE}
STEER = {"model": MODEL, "steer_method": "SIMPLE_ADDITIVE", "normalize_steering": False, "types": ["STEERED", "DEFAULT"],
         "features": [{**FEATURE, "index": 3, "strength": 4.0}], "n_completion_tokens": 8, "temperature": 0, "strength_multiplier": 1,
         "freq_penalty": 0, "seed": 16, "n_logprobs": 2}


def api_of(daemon):
    configuration = client.Configuration(host=daemon.url + "/v1")
    configuration.api_key["SimpleSecretAuth"] = "none"
    return client.DefaultApi(client.ApiClient(configuration))


@pytest.fixture(scope="module")
def api(daemon):
    return api_of(daemon)


def test_single(daemon, api):
    got = api.activation_single_post(client.ActivationSinglePostRequest(prompt=PROMPTS[0], index="7", **FEATURE))
    want = ask(daemon, "/v1/activation/single", {"prompt": PROMPTS[0], "index": "7", **FEATURE})
    assert got.activation.values == want["activation"]["values"] and got.activation.max_value_index == want["activation"]["maxValueIndex"]
    assert got.tokens == want["tokens"] and got.tokens_is_special == want["tokensIsSpecial"] and got.activation.dfa_values is None
    both = api.activation_single_batch_post(client.ActivationSingleBatchPostRequest(prompts=PROMPTS[:2], index="7", **FEATURE))
    assert both.results[0].activation.values == got.activation.values and len(both.results) == 2
    vector = client.ActivationSinglePostRequest(prompt=PROMPTS[0], model=MODEL, vector=[1.0] * 48, hook="blocks.0.hook_resid_post")
    assert len(api.activation_single_post(vector).activation.values) == len(got.tokens)


def test_all(daemon, api):
    rows = {"model": MODEL, "source_set": "res-relu", "selected_sources": [], "sort_by_token_indexes": [2], "ignore_bos": True}
    got = api.activation_all_post(client.ActivationAllPostRequest(prompt=PROMPTS[0], num_results=4, **rows))
    want = ask(daemon, "/api/search-all", {"text": PROMPTS[0], "sourceSet": "res-relu", "sortIndexes": [1], "numResults": 4})["result"]
    assert [str(row.index) for row in got.activations] == [row["index"] for row in want]
    assert [row.source for row in got.activations] == [SOURCE] * 4 and got.activations[0].sum_values == got.activations[0].values[2]
    both = api.activation_all_batch_post(client.ActivationAllBatchPostRequest(prompts=PROMPTS[:2], **rows))
    assert len(both.results[1].activations) == 25


def test_by_token(api):
    one = api.activation_topk_by_token_post(client.ActivationTopkByTokenPostRequest(prompt=PROMPTS[0], ignore_bos=True, **FEATURE))
    assert [row.token_position for row in one.results] == [1, 2, 3, 4, 5] and len(one.results[0].top_features) == 5
    both = api.activation_topk_by_token_batch_post(
        client.ActivationTopkByTokenBatchPostRequest(prompts=PROMPTS[:2], top_k=2, ignore_bos=False, **FEATURE))
    assert both.results[0].results[0].is_special and both.results[0].results[1].top_features == one.results[0].top_features[:2]
    fires = api.activation_source_post(client.ActivationSourcePostRequest(prompts=PROMPTS[:1], **FEATURE)).results[0].active_features
    top = one.results[0].top_features[0]
    assert [1, top.activation_value] in fires[str(top.feature_index)]


def test_steer(daemon, api, chats):  # noqa: F811
    got = api.steer_completion_post(client.SteerCompletionRequest.from_dict({**STEER, "prompt": PROMPTS[0]}))
    camel = {re.sub("_(.)", lambda c: c.group(1).upper(), name): value for name, value in STEER.items()}
    want = ask(daemon, "/v1/steer/completion", {"prompt": PROMPTS[0], **camel})["outputs"]
    assert [(o.type.value, o.output) for o in got.outputs] == [(o["type"], o["output"]) for o in want]
    assert len(got.outputs[0].logprobs[0].top_logprobs) == 2
    body = {**STEER, "prompt": HELLO, "model": "m0", "steer_special_tokens": True, "features": []}
    chat = api_of(chats).steer_completion_chat_post(client.SteerCompletionChatPostRequest.from_dict(body))
    assert [o.chat_template[-1].role for o in chat.outputs] == ["assistant"] * 2 and chat.outputs[0].raw.startswith(chat.input.raw)


def test_the_rest(api):
    assert api.tokenize_post(client.TokenizePostRequest(model=MODEL, text="so", prepend_bos=True)).token_strings[0] == "<|endoftext|>"
    vector = api.util_sae_vector_post(client.UtilSaeVectorPostRequest(index=3, **FEATURE))
    assert vector.hook_name == "blocks.1.hook_resid_pre"
    near = api.util_sae_topk_by_decoder_cossim_post(
        client.UtilSaeTopkByDecoderCossimPostRequest(vector=vector.vector, num_results=2, **FEATURE)).topk_decoder_cossim_features
    assert near[0].feature.index == 3 and near[0].cosine_similarity == pytest.approx(1)
    with pytest.raises(client.exceptions.NotFoundException):
        api.util_sae_vector_post(client.UtilSaeVectorPostRequest(index=960, **FEATURE))
