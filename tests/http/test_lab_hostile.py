"""Requests of /v1/lab made of valid and invalid parts at random, by seed: every answer is a result or an error that names its
field; never a 500, never a crash."""
import random

import pytest

ODD = [None, True, False, 0, -1, 3, 99, 1e9, -1e300, 0.5, "", "x", " the", "resid_pre.1", "z.*", "*", "all", "generated", "1-res-relu",
       "0-mlp-topk", "splice", "max", "batch", [], {}, [0], [-1], [[1]], [[0.5] * 48], [0.5] * 48, "é" * 10, "layer-head",
       [511, 3, 4], [[511, 3], [511, 5]]]
POINTS = ["resid_pre.1", "z.0", "mlp_out.0", "resid_post.2", "q.1", "v.0", "hook_embed", "blocks.1.hook_q_input",
          "blocks.0.attn.hook_result", "pattern.1", "attn_scores.0", "blocks.1.ln2.hook_scale", "ln_final.hook_normalized",
          "unembed.hook_out", "blocks.2.mlp.hook_pre", "blocks.1.hook_mlp_in", "blocks.7.hook_resid_pre", "nothing"]
SOURCES = ["1-res-relu", "0-mlp-topk", "2-res-jump", "2-res-center", "2-res-jum"]
OPS = ["add", "clamp", "splice", "patch", "mean", "zero", "set", "scale", "ablate", "project", "cap"]
EDIT_FIELDS = ["op", "point", "source", "index", "vector", "strength", "value", "unit", "heads", "positions", "special",
               "includeError", "features", "rows", "over", "from"]
TEXT = "The ship turned toward the"
VERBS = {
    "run": ({"text": TEXT, "points": ["z.0"], "loss": True}, ["edits", "stopAtLayer", "positions", "heads", "topK", "sparse", "points"]),
    "next": ({"text": TEXT}, ["edits", "tokens", "topK", "answers", "loss"]),
    "ablate": ({"text": TEXT, "heads": [{"layer": 0, "head": 1}]}, ["heads", "mode", "positions", "special", "answers"]),
    "compare": ({"source": "1-res-relu", "text": ["a", "the ship"]}, ["source", "text", "positions", "numResults"]),
    "patch": ({"clean": {"tokens": [511, 3, 4, 5]}, "corrupted": {"tokens": [511, 9, 4, 5]}, "answers": [" the", " a"]},
              ["point", "axes", "metric", "answers", "layers", "positions", "clean"]),
    "heads": ({"batch": 2, "length": 5}, ["seed", "batch", "length", "loss"]),
    "lens": ({"text": TEXT}, ["edits", "layers", "positions", "topK", "answers"]),
    "components": ({"text": TEXT, "answers": [" the"]}, ["edits", "position", "answers", "heads"]),
}


def make_edit(draw, nested=False):
    edit = {"op": draw.choice(OPS)}
    if draw.random() < 0.6:
        edit["point"] = draw.choice(POINTS)
    else:
        edit.update(source=draw.choice(SOURCES), index=draw.choice([0, 5, 95, 96]))
    if edit["op"] in ("scale", "clamp"):
        edit["value"] = draw.choice([0, 1, -5, 1e6])
    if edit["op"] in ("add", "set", "project", "cap") and "point" in edit:
        edit["vector"] = [0.1] * draw.choice([48, 128, 12, 512, 1])
    if edit["op"] == "patch" and not nested:
        edit["from"] = {"text": TEXT, "edits": [make_edit(draw, True)] if draw.random() < 0.3 else []}
        edit["positions"] = draw.choice([[0], [1, 2], [-1], "all"])
    if draw.random() < 0.25:
        edit[draw.choice(EDIT_FIELDS)] = draw.choice(ODD)
    return edit


def make_request(draw):
    verb = draw.choice(list(VERBS))
    base, fields = VERBS[verb]
    body = dict(base)
    if "edits" in fields and draw.random() < 0.8:
        body["edits"] = [make_edit(draw) for _ in range(draw.randint(1, 3))]
    if draw.random() < 0.3:
        body[draw.choice(fields)] = draw.choice(ODD + POINTS)
    accept = draw.choice(["application/json", "application/x-npy", "application/vnd.safetensors"])
    return verb, body, {"Accept": accept}


@pytest.mark.parametrize("seed", range(4))
def test_anything_is_answered(daemon, seed):
    draw = random.Random(seed)
    counts = {}
    for _ in range(150):
        verb, body, headers = make_request(draw)
        reply = daemon.post(f"/v1/lab/{verb}", body, headers=headers)
        counts[reply.status_code] = counts.get(reply.status_code, 0) + 1
        assert reply.status_code in (200, 400, 404, 501), (verb, body, reply.text)
        assert reply.status_code == 200 or reply.json()["field"], (verb, body, reply.text)
    assert counts[200] > 20 and counts[400] > 20
    assert daemon.alive()


@pytest.mark.parametrize("verb, body", [
    ("run", {"text": TEXT, "points": ["z.0"]}), ("lens", {"text": TEXT}),
    ("patch", {"clean": {"text": TEXT}, "corrupted": {"text": TEXT}, "answers": ["a", "b"], "metric": "logprob"})])
def test_positions_named_again_and_again(daemon, verb, body):
    """A list of a few bytes each must not become a run of the model each."""
    reply = daemon.post(f"/v1/lab/{verb}", {**body, "positions": [0] * 5000})
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (400, "limit", "positions"), reply.text
    assert "names 5000 tokens" in reply.json()["error"]
