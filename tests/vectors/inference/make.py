#!/usr/bin/env python3
"""What the inference server's routes tell beside features: an attention pattern, and where features of attention's output come from,
on the tiny GPT-2 of ../tiny-gpt2 and the dictionary ../dict-points/2-z. The model runs in float64 through transformers with eager
attention; the sums are plain torch here. `python make.py`, with torch 2.15 and transformers 5.23.

expected.safetensors, over prompt 1 of ../tiny-gpt2/expected.json (T tokens, BOS first):
  pattern        [T, T]  blocks.1.attn.hook_pattern of head 2
  dfa            [F, T]  for each feature of 2-z, at its strongest position t: sum over heads h of A[h, t, s] (V[s, h] . w[h]), w being
                         its column of W_enc times the norm of its decoder row
  dfa_positions  [F]     t, BOS not among the candidates; the first of equals"""
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file

here = os.path.dirname(os.path.abspath(__file__))
tiny = os.path.join(here, "..", "tiny-gpt2")
sys.path.insert(0, tiny)
from reference import load_model  # noqa: E402

LAYER, HEAD, DFA_LAYER = 1, 2, 2
model = load_model("model")
ids = torch.tensor([json.load(open(os.path.join(tiny, "expected.json")))["prompts"][1]["ids"]])
caught = {}
attn = model.transformer.h[DFA_LAYER].attn
attn.c_attn.register_forward_hook(lambda _m, _a, out: caught.update(qkv=out.detach()[0]))
with torch.no_grad():
    patterns = model(ids, output_attentions=True).attentions
heads, width = model.config.n_head, model.config.n_embd
values = caught["qkv"][:, 2 * width:].reshape(-1, heads, width // heads)

folder = os.path.join(here, "..", "dict-points")
weights = {k: v.double() for k, v in load_file(os.path.join(folder, "2-z", "sae_weights.safetensors")).items()}
features = load_file(os.path.join(folder, "expected.safetensors"))["2-z/features"]
columns = (weights["W_enc"] * weights["W_dec"].norm(dim=1)).T.reshape(-1, heads, width // heads)
positions = features[1:].argmax(0) + 1
dfa = torch.stack([torch.einsum("hs,shd,hd->s", patterns[DFA_LAYER][0][:, t], values, w) for t, w in zip(positions, columns)])
# The shares of all tokens are the feature's product with z: what is left out of a pre-activation is the biases alone.
z = torch.einsum("hts,shd->thd", patterns[DFA_LAYER][0], values)
assert torch.allclose(dfa.sum(1), torch.stack([(z[t] * w).sum() for t, w in zip(positions, columns)]), atol=1e-9)
save_file({"pattern": patterns[LAYER][0, HEAD].float().contiguous(), "dfa": dfa.float().contiguous(),
           "dfa_positions": positions.int()}, os.path.join(here, "expected.safetensors"))
print(dfa.shape, float(dfa.abs().max()), float(features.max()))
