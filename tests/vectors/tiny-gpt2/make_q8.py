"""What the model answers with its matrices kept in 8 bits (`?q8`), from PyTorch in float64, into q8.safetensors:

    python3 make_q8.py       (in this folder; torch, transformers, safetensors, numpy)

    p{n}/logits       [T, 512] of the first two prompts of expected.safetensors
    weights, kept     [5, 70] f32: what 350 numbers become, among them zeros, one that is far larger than its neighbours, one that f16
                      has no scale for, and some that no f16 scale is small enough for
"""
import os

import numpy as np
import torch
from q8 import keep_model, kept
from safetensors.numpy import load_file, save_file
from transformers import GPT2LMHeadModel

here = os.path.dirname(os.path.abspath(__file__))
model = GPT2LMHeadModel.from_pretrained(os.path.join(here, "model"), dtype=torch.float32, attn_implementation="eager")
keep_model(model)
model = model.double().eval()
recorded = load_file(os.path.join(here, "expected.safetensors"))
out = {}
for n in range(2):
    ids = torch.from_numpy(recorded[f"p{n}/ids"].astype(np.int64))[None]
    with torch.no_grad():
        out[f"p{n}/logits"] = model(ids).logits[0].float().numpy()
weights = np.random.default_rng(8).standard_normal((5, 70)).astype(np.float32)
weights[1, 32:64] = 0
weights[2, 5] = 300
weights[3, 40] = 1e7
weights[4, 64:] = np.float32(1e-7) * weights[4, 64:]
out["weights"] = weights
with np.errstate(over="ignore"):
    largest = weights.copy()
    largest[3, 40] = 65504 * 127  # the largest number of the largest scale
    out["kept"] = kept(largest)
save_file(out, os.path.join(here, "q8.safetensors"))
