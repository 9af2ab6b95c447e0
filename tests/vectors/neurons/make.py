#!/usr/bin/env python3
"""Records what neurons do in the tiny models of every family, through transformers' and TransformerLens' own code, in float64.

usage: make.py      (writes expected.safetensors beside this script; nothing is drawn)

For each NAME of tests/vectors/families, and tiny-gpt2; LAYER and NEURONS below:

    NAME/ids                  the prompt, as recorded with the model
    NAME/promotes             [neuron, token] rows of W_out through the unembedding: no final norm; where a norm stands behind the
                              MLP, times its gain
    NAME/clamp, NAME/scale    [token] logits of the last position when the neuron NEURONS[0] is CLAMPED, or scaled by SCALED, at every
                              position
    NAME/add                  the same when ADDED is added to NEURONS[1] and NEURONS[2] at every position
    tiny-gpt2?process/promotes   W_out and W_U of HookedTransformer.from_pretrained's processing, written out

What neurons are at every position is recorded with the families (blocks.L.mlp.hook_post)."""
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDERS = os.path.join(HERE, "..", "families")
sys.path[:0] = [FOLDERS, os.path.join(HERE, "..", "points")]
import make_family_points as family_points  # noqa: E402
from families import FAMILIES  # noqa: E402
from make import submodule  # noqa: E402

LAYER, NEURONS = 1, (3, 17, 29)
CLAMPED, SCALED, ADDED = 2.5, -1.5, 0.75
CHANGES = {"clamp": lambda x: put(x, (0,), lambda a: torch.full_like(a, CLAMPED)), "scale": lambda x: put(x, (0,), lambda a: a * SCALED),
           "add": lambda x: put(x, (1, 2), lambda a: a + ADDED)}


def put(x, which, change):
    x = x.clone()
    for i in which:
        x[..., NEURONS[i]] = change(x[..., NEURONS[i]])
    return x


def w_out(module):
    """[neuron, d_model]"""
    return module.weight if isinstance(module, transformers.pytorch_utils.Conv1D) else module.weight.T


def promotes(model, rows, name):
    if name == "opt-350m":  # narrows what it unembeds
        rows = rows @ model.model.decoder.project_out.weight.T
    return rows @ model.get_output_embeddings().weight.T


@torch.no_grad()
def of_transformers(name, model, blocks, sites, ids):
    block = submodule(model, blocks)[LAYER]
    down = submodule(block, sites["mlp.hook_post"][0])
    rows = w_out(down)[list(NEURONS)]
    if hasattr(block, "post_feedforward_layernorm"):
        rows = rows * (1 + block.post_feedforward_layernorm.weight)  # Gemma keeps gains less one
    out = {"ids": ids.int(), "promotes": promotes(model, rows, name)}
    for key, change in CHANGES.items():
        hook = down.register_forward_pre_hook(lambda _m, args: (change(args[0]),))
        out[key] = model(ids[None].long(), use_cache=False).logits[0, -1]
        hook.remove()
    return out


@torch.no_grad()
def toy(name, ids):
    cell = dict(zip(FAMILIES[name]["make"].__code__.co_freevars, (c.cell_contents for c in FAMILIES[name]["make"].__closure__)))
    model = family_points.lens_model(n_layers=2, d_model=30, d_head=7, n_heads=4, n_ctx=48, d_vocab=97, **cell["config"])
    published = os.path.join(FOLDERS, name, "gelu_2l_final.pth")
    state = torch.load(published) if os.path.exists(published) else load_file(os.path.join(FOLDERS, name, "model.safetensors"))
    model.load_state_dict({key: value.double() if value.is_floating_point() else value for key, value in state.items()}, strict=False)
    out = {"ids": ids.int(), "promotes": model.blocks[LAYER].mlp.W_out[list(NEURONS)] @ model.unembed.W_U}
    for key, change in CHANGES.items():
        hooks = [(f"blocks.{LAYER}.mlp.hook_post", lambda value, hook: change(value))]
        out[key] = model.run_with_hooks(ids[None].long(), fwd_hooks=hooks)[0, -1]
    return out


@torch.no_grad()
def processed_gpt2(model):
    rows = w_out(model.transformer.h[LAYER].mlp.c_proj)
    rows = rows - rows.mean(1, keepdim=True)                            # what is written has mean zero
    w_u = model.lm_head.weight.T * model.transformer.ln_f.weight[:, None]  # the final norm's gain
    w_u = w_u - w_u.mean(0, keepdim=True)                               # which takes the mean away
    return rows[list(NEURONS)] @ (w_u - w_u.mean(1, keepdim=True))      # logits have mean zero


def main():
    out = {}

    def keep(name, found):
        out.update({f"{name}/{key}": value.float().contiguous() if value.is_floating_point() else value.contiguous() for key, value in found.items()})
    for name, family in FAMILIES.items():
        if name in ("gemma3-multimodal", "toy-attn-only", "toy-shortformer"):  # the same weights as gemma3; no MLP
            continue
        ids = load_file(os.path.join(FOLDERS, name, "expected.safetensors"))["ids"]
        keep(name, toy(name, ids) if "make" in family else
             of_transformers(name, family_points.load(name), family["blocks"], family["sites"], ids))
    folder = os.path.join(HERE, "..", "tiny-gpt2")
    tiny = transformers.GPT2LMHeadModel.from_pretrained(os.path.join(folder, "model"), dtype=torch.float64, attn_implementation="eager").eval()
    keep("tiny-gpt2", of_transformers("tiny-gpt2", tiny, "transformer.h", FAMILIES["gpt2-crfm"]["sites"],
                                      load_file(os.path.join(folder, "expected.safetensors"))["p1/ids"]))
    keep("tiny-gpt2?process", {"promotes": processed_gpt2(tiny)})
    path = os.path.join(HERE, "expected.safetensors")
    save_file(out, path)
    print(f"{len(out)} tensors, {os.path.getsize(path) // 1024} KiB")


if __name__ == "__main__":
    main()
