#!/usr/bin/env python3
"""Records the frequencies and factors of rotary positions for every scaling that is served, as transformers computes them,
and the cosines and sines of a few positions: rope.json."""
import json
import os

import torch
import transformers as t
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

HERE = os.path.dirname(os.path.abspath(__file__))
POSITIONS = [0, 1, 77, 500]
BASE = dict(model_type="llama", vocab_size=10, hidden_size=48, intermediate_size=10, num_hidden_layers=1, num_attention_heads=3,
            max_position_embeddings=4096)
SCALINGS = {
    "plain": {},
    "theta": {"rope_theta": 123456.0},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.5}},
    "dynamic, within the context": {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "llama3, as Llama 3.1": {"rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}},
    "llama3, in rope_parameters": {"rope_parameters": {
        "rope_theta": 1000.0, "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 2.0, "high_freq_factor": 5.0,
        "original_max_position_embeddings": 300}},
    "yarn, as Qwen 2.5": {"rope_theta": 1000000.0, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
    "yarn, every key": {"rope_parameters": {
        "rope_theta": 5000.0, "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512, "beta_fast": 20.0,
        "beta_slow": 2.0, "mscale": 0.8, "mscale_all_dim": 0.5, "truncate": False}},
    "yarn, factor given": {"rope_parameters": {
        "rope_theta": 5000.0, "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512, "attention_factor": 1.25}},
}
LONG = dict(model_type="phi3", vocab_size=10, hidden_size=48, intermediate_size=10, num_hidden_layers=1, num_attention_heads=3,
            num_key_value_heads=3, max_position_embeddings=4096, original_max_position_embeddings=1024, rope_theta=10000.0,
            rope_scaling={"type": "longrope", "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [9.0] * 8})


def record(what, config, kind, module):
    rope = module(kind(**{key: value for key, value in config.items() if key != "model_type"}))
    cos, sin = rope(torch.zeros(1, 1, 1), torch.tensor([POSITIONS]))
    half = cos.shape[-1] // 2
    rows = torch.cat([cos[0, :, :half], sin[0, :, :half]], 1).double()
    return {"what": what, "config": config, "factor": float(rope.attention_scaling),
            "frequency": [float(x) for x in rope.inv_freq], "rows": [[round(float(x), 9) for x in row] for row in rows]}


def main():
    all_of_them = [record(what, {**BASE, **more}, t.LlamaConfig, LlamaRotaryEmbedding) for what, more in SCALINGS.items()]
    all_of_them.append(record("longrope, short factors", LONG, t.Phi3Config, Phi3RotaryEmbedding))
    with open(os.path.join(HERE, "rope.json"), "w", encoding="utf-8") as file:
        json.dump({"positions": POSITIONS, "cases": all_of_them}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    t.logging.set_verbosity_error()
    main()
