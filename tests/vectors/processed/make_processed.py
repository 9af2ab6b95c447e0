#!/usr/bin/env python3
"""Records every point of tiny models whose weights TransformerLens has processed as from_pretrained does by default.

usage: make_processed.py         (writes NAME.safetensors beside this script for each model of MODELS)

The models are those of ../points/make_points.py, loaded with fold_ln, center_writing_weights, center_unembed (not in front of
a soft cap, as from_pretrained decides) and fold_value_biases. TransformerLens processes in float32 and runs in float64.
`direction` and `direction/logits` are a row that is not centred and what W_U makes of it. `probabilities` are of the same
model with its weights as stored."""
import os
import sys

import numpy
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformer_lens.pretrained import weight_conversions

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "points"))
import make_points as points  # noqa: E402

PROCESSED = dict(fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True)
N_IDS = 5


def hooked_gptj(folder, **switches):
    source = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    c = source.config
    return points.hooked(source, weight_conversions.convert_gptj_weights, n_layers=c.n_layer, d_model=c.n_embd,
                         n_heads=c.n_head, d_head=c.n_embd // c.n_head, d_mlp=c.n_inner, n_ctx=c.n_positions,
                         d_vocab=c.vocab_size, act_fn="gelu_new", eps=c.layer_norm_epsilon, normalization_type="LN",
                         positional_embedding_type="rotary", rotary_dim=c.rotary_dim, rotary_adjacent_pairs=True,
                         parallel_attn_mlp=True, **switches)


def hooked_qwen2(folder, **switches):
    """Sliding layers see 6 positions: more than are recorded."""
    return points.llama_like(folder, weight_conversions.convert_qwen2_weights, 3000, **switches)


MODELS = (("tiny-gpt2", points.hooked_gpt2), ("llama", points.hooked_llama), ("gpt_neox", points.hooked_neox),
          ("gptj", hooked_gptj), ("qwen2", hooked_qwen2), ("qwen3", points.hooked_qwen3), ("gemma2", points.hooked_gemma2))


@torch.no_grad()
def record(name, make):
    tiny = name == "tiny-gpt2"
    folder = os.path.join(points.TINY, "model") if tiny else os.path.join(points.FAMILIES, name)
    expected = load_file(os.path.join(points.TINY if tiny else folder, "expected.safetensors"))
    ids = expected["p0/ids" if tiny else "ids"].tolist()[:N_IDS]
    plain = points.run(make(folder), ids)["logits"]
    model = make(folder, processing={**PROCESSED, "center_unembed": name != "gemma2"})
    tensors = points.run(model, ids)
    logits = tensors.pop("logits")
    assert numpy.allclose(torch.tensor(plain).softmax(-1), torch.tensor(logits).softmax(-1), atol=1e-5), name
    left_out = ["hook_attn_in"] + [".ln2.", "mlp.hook_in"] * (name == "gptj")  # a copy of its one norm
    tensors = {key: value for key, value in tensors.items() if not any(part in key for part in left_out)}
    direction = numpy.random.default_rng(7).normal(0.5, 1, model.cfg.d_model)
    tensors["direction"] = direction.astype(numpy.float32)
    tensors["direction/logits"] = (torch.tensor(tensors["direction"]).double() @ model.W_U).float().numpy()
    tensors["probabilities"] = torch.tensor(plain).double().softmax(-1).float().numpy()
    tensors["ids"] = numpy.array(ids, dtype=numpy.int32)
    save_file(tensors, os.path.join(HERE, f"{name}.safetensors"))
    print(name, len(tensors), sum(value.nbytes for value in tensors.values()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for model_name, maker in MODELS:
        record(model_name, maker)
