#!/usr/bin/env python3
"""Records what the demo's dictionaries see in one sentence, from PyTorch and transformers: the independent reference of
tests/http/test_demo.py. usage: make.py (from the root of the tree; made with torch 2.15, transformers 5.23)

All dictionaries are TopK: the k largest x W_enc + b_enc of a position, of these the positive ones, times the length of the
decoder row (docs/decisions.md 14). The SAE reads the residual stream less b_dec, a transcoder the second norm before its gain."""
import json
import pathlib

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parents[2] / "config" / "demo"
TEXT = "The princess walked in the dark forest"
SHOWN = 5


def points(model, ids):
    """The residual stream before layer 2 and the normalised inputs of the MLPs: what the dictionaries read."""
    resid, normalized = {}, []
    model.transformer.h[2].register_forward_pre_hook(lambda _, given: resid.update(rows=given[0]))

    def keep_normalized(norm, given, _):
        centred = given[0] - given[0].mean(-1, keepdim=True)
        normalized.append((centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + norm.eps))[0])

    for block in model.transformer.h:
        block.ln_2.register_forward_hook(keep_normalized)
    with torch.no_grad():
        model(torch.tensor([ids]))
    return resid["rows"][0], normalized


def strongest(folder, rows, subtract):
    config = json.loads((folder / "cfg.json").read_text())
    weights = {name: value.float() for name, value in load_file(folder / "sae_weights.safetensors").items()}
    x = rows - weights["b_dec"] if subtract else rows
    values, indices = (x @ weights["W_enc"] + weights["b_enc"]).topk(config["k"], dim=-1)
    values = values.clamp(min=0) * weights["W_dec"].norm(dim=1)[indices]
    order = values.argsort(dim=-1, descending=True)[:, :SHOWN]
    return [[[int(indices[r, c]), float(values[r, c])] for c in order[r]] for r in range(1, len(rows))]


def main():
    model = GPT2LMHeadModel.from_pretrained(DEMO, dtype=torch.float32).eval()
    ids = [model.config.bos_token_id] + Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    resid, normalized = points(model, ids)
    sources = DEMO / "sources"
    out = {"text": TEXT, "2-res-demo": strongest(sources / "2-res-demo", resid, True)}
    for layer, rows in enumerate(normalized):
        out[f"{layer}-tc-demo"] = strongest(sources / f"{layer}-tc-demo", rows, False)
    (HERE / "strongest.json").write_text(json.dumps(out) + "\n")


main()
