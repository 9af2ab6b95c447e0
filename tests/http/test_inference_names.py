"""Names of the inference server's replies: camelCase as its web app reads them, snake_case for who writes so, or is the Python client of
the time when they were so (neuronpedia-inference-client 1.10.1; what it reads is listed here, so that it need not be there)."""
import re

import pytest
import requests

from conftest import MODEL
from test_inference import PROMPTS, SOURCE
from test_inference_steer import BODY
from test_openai_chat import HELLO, chats  # noqa: F401 (a fixture)

SDK = {"User-Agent": "OpenAPI-Generator/1.0.0/python"}
KEPT = {"activeFeatures", "hookName"}
FEATURE = {"model": MODEL, "source": SOURCE, "index": 7}
# Path, a request of one-word names, what the client reads of the reply (its models' fields that it requires).
CALLS = [
    ("/v1/activation/single", {"prompt": PROMPTS[0], **FEATURE},
     {"activation", "tokens", "tokens_is_special", "values", "max_value", "max_value_index"}),
    ("/v1/activation/single-batch", {"prompts": [PROMPTS[0]], **FEATURE}, {"results", "activation", "tokens_is_special", "max_value_index"}),
    ("/v1/activation/all", {"prompt": PROMPTS[0], "sourceSet": "res-relu"},
     {"activations", "tokens", "source", "index", "sum_values", "max_value", "max_value_index", "dfa_values"}),
    ("/v1/activation/topk-by-token", {"prompt": PROMPTS[0], "source": SOURCE},
     {"results", "tokens", "token_position", "token", "is_special", "top_features", "feature_index", "activation_value"}),
    ("/v1/activation/source", {"prompts": [PROMPTS[0]], "source": SOURCE}, {"results", "tokens", "activeFeatures"}),
    ("/v1/activation/raw", {"prompts": [PROMPTS[0]]}, {"hook_point", "token_strings", "token_ids", "token_indices"}),
    ("/v1/activation/attention", {"prompt": PROMPTS[0], "layer": 0, "head": 0}, {"seq_len", "attention_indices", "max_activation"}),
    ("/v1/util/sae-vector", FEATURE, {"vector", "hookName", "encoder_vector"}),
    ("/v1/util/sae-topk-by-decoder-cossim", {"source": SOURCE, "feature": FEATURE},
     {"feature", "topk_decoder_cossim_features", "cosine_similarity"}),
    ("/v1/tokenize", {"text": "so"}, {"tokens", "token_strings", "prepend_bos"}),
    ("/v1/steer/completion", {**BODY, "nLogprobs": 1}, {"outputs", "type", "output", "logprobs", "top_logprobs"}),
]


def to_snake(name):
    return re.sub("[A-Z]", lambda c: "_" + c.group().lower(), name)


def in_snake_case(value):
    if isinstance(value, list):
        return [in_snake_case(item) for item in value]
    if isinstance(value, dict):
        return {name if name in KEPT else to_snake(name): in_snake_case(item) for name, item in value.items()}
    return value


def names_of(value):
    if isinstance(value, list):
        return set().union(*map(names_of, value))
    return set(value).union(*map(names_of, value.values())) if isinstance(value, dict) else set()


def send(daemon, path, body, headers=None):
    """Past the specification, which tells of camelCase: a stream is not looked at."""
    reply = requests.post(daemon.url + path, json=body, headers=headers, stream=True, timeout=30)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("path, body, read", CALLS, ids=[path for path, _, _ in CALLS])
def test_names_are_those_of_the_client(daemon, path, body, read):
    camel = daemon.post(path, body).json()
    assert not any("_" in name for name in names_of(camel))
    snake = send(daemon, path, body, SDK)
    assert snake == in_snake_case(camel) and read <= names_of(snake)
    assert send(daemon, path, {to_snake(name): value for name, value in body.items()}) == (
        snake if any(to_snake(name) != name for name in body) else camel)


def test_chats(chats):  # noqa: F811
    body = {**BODY, "prompt": HELLO, "model": "m0", "features": [], "isAssistantAxis": False, "steerSpecialTokens": True, "nLogprobs": 1}
    camel = chats.post("/v1/steer/completion-chat", body).json()
    snake = send(chats, "/v1/steer/completion-chat", body, SDK)
    assert snake == in_snake_case(camel)
    assert {"outputs", "input", "chat_template", "raw", "type", "logprobs", "top_logprobs"} <= names_of(snake)


def test_others_keep_their_names(daemon):
    """Neuronpedia's web API has one spelling, whoever asks."""
    body = {"feature": {"layer": SOURCE, "index": 7}, "custom_text": PROMPTS[0]}
    assert "maxValue" in daemon.post("/api/activation/new", body, headers=SDK).json()
    assert "activeFeatures" in daemon.post("/api/activation/source", {"source": SOURCE, "custom_text": PROMPTS[0]}, headers=SDK).json()["results"][0]
