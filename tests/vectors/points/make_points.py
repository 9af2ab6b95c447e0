#!/usr/bin/env python3
"""Records every point of tiny models, and what edits at cold points do, with TransformerLens in float64.

usage: make_points.py            (writes NAME.safetensors beside this script for each model of MODELS)

The independent path: HookedTransformer holds the weights of the folder without any processing; points are what its hooks
see, edits are hooks that return something else. What TransformerLens has no hook for (the outputs of norms after their
gain) is caught from its modules. Nothing of steerd is imported."""
import os

import numpy
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained import weight_conversions

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "..", "tiny-gpt2")


def hooked_gpt2(folder, **switches):
    source = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    c = source.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_heads=c.n_head, d_head=c.n_embd // c.n_head, d_mlp=c.n_inner,
        n_ctx=c.n_positions, d_vocab=c.vocab_size, act_fn="gelu_new", eps=c.layer_norm_epsilon, normalization_type="LN",
        dtype=torch.float64, use_attn_result=True, use_hook_mlp_in=True, device="cpu", **switches)
    model = HookedTransformer(config)
    state = weight_conversions.convert_gpt2_weights(source, config)
    model.load_and_process_state_dict(state, fold_ln=False, center_writing_weights=False, center_unembed=False,
                                      fold_value_biases=False, refactor_factored_attn_matrices=False)
    return model.double().eval()


def norm_outputs(model):
    """Names for what norms give after gain and bias."""
    names = {"ln_final": "unembed.hook_in"}
    for i in range(model.cfg.n_layers):
        names[f"blocks.{i}.ln1"] = f"attn_in.{i}"
        names[f"blocks.{i}.ln2"] = f"blocks.{i}.mlp.hook_in"
    return {module: name for module, name in names.items() if name not in model.hook_dict}


def row_major(name, value):
    """[p, everything of a position]; scores and patterns stay [h, q, k], -inf as -1e30."""
    value = value[0]
    if name.endswith(("hook_attn_scores", "hook_pattern")):
        value = value.clamp(min=-1e30)
    else:
        value = value.reshape(value.shape[0], -1)
    return value.detach().to(torch.float32).contiguous().numpy().copy()


@torch.no_grad()
def run(model, ids, edits=()):
    """Every point by name; edits are (name, function) in order."""
    points, handles = {}, []
    for module, name in norm_outputs(model).items():
        def keep(_module, _args, output, name=name):
            for edited, function in edits:
                if edited == name:
                    output = function(output.clone())
            points[name] = row_major(name, output)
            return output
        handles.append(dict(model.named_modules())[module].register_forward_hook(keep))

    def hook(function):
        return lambda value, hook: function(value.clone())

    def see(value, hook):
        points[hook.name] = row_major(hook.name, value)
    hooks = [(name, hook(function)) for name, function in edits if name in model.hook_dict]
    hooks += [(name, see) for name in model.hook_dict]
    model.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)
    for handle in handles:
        handle.remove()
    return points


def columns(kind, value, begin, end, rows=slice(1, 4)):
    """An edit of columns of a row, as steerd counts them: heads one after the other."""
    def function(x):
        flat = x.reshape(*x.shape[:2], -1)
        part = flat[:, rows, begin:end]
        flat[:, rows, begin:end] = {"add": lambda: part + value, "scale": lambda: part * value,
                                    "fill": lambda: torch.full_like(part, value)}[kind]()
        return flat.reshape(x.shape)
    return function


def square(kind, value, head, keys, rows=slice(1, 4)):
    """The same for scores and patterns: keys of one head, seen ones only."""
    def function(x):
        for q in range(rows.start, rows.stop):
            for k in range(keys.start, min(keys.stop, q + 1)):
                old = x[0, head, q, k]
                x[0, head, q, k] = {"add": old + value, "scale": old * value, "fill": value}[kind]
        return x
    return function


# name, edit as steerd takes it (kind, value, columns of the row, or head and keys), whose TransformerLens twin runs
EDITS = (
    ("hook_embed", "scale", 0.5, 3, 40), ("hook_pos_embed", "fill", 0.0, 0, 48),
    ("blocks.0.ln1.hook_scale", "scale", 1.5, 0, 1), ("blocks.1.ln1.hook_normalized", "scale", 0.5, 5, 30),
    ("attn_in.1", "add", 0.7, 4, 20), ("blocks.1.attn.hook_q", "fill", 0.0, 12, 24),
    ("blocks.1.attn.hook_k", "scale", 2.0, 0, 12), ("blocks.0.attn.hook_v", "add", 0.3, 24, 36),
    ("blocks.1.attn.hook_attn_scores", "add", 1.5, 2, 0, 2), ("blocks.1.attn.hook_attn_scores", "fill", -3.0, 1, 1, 4),
    ("blocks.1.attn.hook_pattern", "fill", 0.25, 3, 0, 4), ("blocks.2.attn.hook_pattern", "scale", 0.0, 0, 0, 6),
    ("blocks.1.attn.hook_result", "scale", 0.0, 96, 144), ("blocks.1.hook_mlp_in", "add", 0.6, 10, 30),
    ("blocks.1.ln2.hook_scale", "scale", 0.7, 0, 1), ("blocks.2.ln2.hook_normalized", "scale", 1.8, 0, 48),
    ("blocks.1.mlp.hook_in", "add", -0.4, 0, 48), ("blocks.1.mlp.hook_pre", "add", 1.25, 17, 90),
    ("ln_final.hook_scale", "scale", 2.0, 0, 1), ("ln_final.hook_normalized", "fill", 0.0, 0, 24),
    ("unembed.hook_in", "add", 0.5, 7, 19), ("unembed.hook_out", "scale", 0.5, 100, 300),
)
SPLIT_EDITS = (("blocks.1.hook_q_input", "scale", 0.5, 48, 96), ("blocks.1.hook_k_input", "add", 0.5, 96, 120),
               ("blocks.0.hook_v_input", "fill", 0.0, 0, 48))
HEAD_EDITS = (("blocks.1.hook_attn_in", "add", 0.8, 50, 90),)


def twin(edit):
    name, kind, value, *where = edit
    if len(where) == 3:
        return name, square(kind, value, where[0], slice(where[1], where[2]))
    return name, columns(kind, value, *where)


def add_edits(tensors, model, ids, edits, number):
    for edit in edits:
        points = run(model, ids, [twin(edit)])
        last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
        at_head = edit[0].startswith(("ln_final", "unembed"))
        key = f"edit{number}/{'add scale fill'.split().index(edit[1])}/{edit[2]}/{'/'.join(map(str, edit[3:]))}/{edit[0]}"
        tensors[key] = points["unembed.hook_out" if at_head else last]
        number += 1
    return number


def main():
    torch.set_num_threads(1)
    ids = load_file(os.path.join(TINY, "expected.safetensors"))["p0/ids"].tolist()
    folder = os.path.join(TINY, "model")
    model = hooked_gpt2(folder)
    tensors = {name: value for name, value in run(model, ids).items() if "hook_attn_in" not in name}
    number = add_edits(tensors, model, ids, EDITS, 0)
    split = hooked_gpt2(folder, use_split_qkv_input=True)
    points = run(split, ids)
    for name in ("hook_q_input", "hook_k_input", "hook_v_input"):
        tensors[f"blocks.1.{name}"] = points[f"blocks.1.{name}"]
    number = add_edits(tensors, split, ids, SPLIT_EDITS, number)
    heads = hooked_gpt2(folder, use_attn_in=True)
    tensors["blocks.1.hook_attn_in"] = run(heads, ids)["blocks.1.hook_attn_in"]
    add_edits(tensors, heads, ids, HEAD_EDITS, number)
    tensors["ids"] = numpy.array(ids, dtype=numpy.int32)
    save_file(tensors, os.path.join(HERE, "tiny-gpt2.safetensors"))
    for name, value in tensors.items():
        print(name, value.shape)


if __name__ == "__main__":
    main()
