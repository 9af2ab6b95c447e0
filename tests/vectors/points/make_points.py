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


FAMILIES = os.environ.get("FAMILIES", os.path.join(HERE, "..", "families"))


AS_STORED = dict(fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False)


def hooked(source, convert, processing=AS_STORED, **config):
    """source in float64 (its stored weights), every switch of `config` as HookedTransformer names it."""
    config = HookedTransformerConfig(dtype=torch.float64, use_attn_result=True, device="cpu", **config)
    model = HookedTransformer(config)
    model.load_and_process_state_dict(convert(source, config), refactor_factored_attn_matrices=False, **processing)
    return model.double().eval()


def hooked_gpt2(folder, **switches):
    source = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    c = source.config
    return hooked(source, weight_conversions.convert_gpt2_weights, n_layers=c.n_layer, d_model=c.n_embd, n_heads=c.n_head,
                  d_head=c.n_embd // c.n_head, d_mlp=c.n_inner, n_ctx=c.n_positions, d_vocab=c.vocab_size, act_fn="gelu_new",
                  eps=c.layer_norm_epsilon, normalization_type="LN", use_hook_mlp_in=True, **switches)


def llama_like(folder, convert, base, **switches):
    source = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    c = source.config
    d_head = getattr(c, "head_dim", c.hidden_size // c.num_attention_heads)
    settings = dict(n_layers=c.num_hidden_layers, d_model=c.hidden_size, n_heads=c.num_attention_heads, d_head=d_head,
                    n_key_value_heads=c.num_key_value_heads, d_mlp=c.intermediate_size, n_ctx=c.max_position_embeddings,
                    d_vocab=c.vocab_size, act_fn="silu", eps=c.rms_norm_eps, normalization_type="RMS", gated_mlp=True,
                    final_rms=True, positional_embedding_type="rotary", rotary_dim=d_head, rotary_base=base,
                    use_hook_mlp_in=True)
    return hooked(source, convert, **{**settings, **switches})


def hooked_llama(folder, **switches):
    return llama_like(folder, weight_conversions.convert_llama_weights, 700, **switches)


def hooked_qwen3(folder, **switches):
    return llama_like(folder, weight_conversions.convert_qwen3_weights, 700, use_qk_norm=True, **switches)


def hooked_gemma2(folder, **switches):
    return llama_like(folder, weight_conversions.convert_gemma_weights, 700, act_fn="gelu_pytorch_tanh",
                      use_normalization_before_and_after=True, attn_scores_soft_cap=2.5, output_logits_soft_cap=4.0,
                      use_attn_scale=True, attn_scale=7**0.5, use_local_attn=True, window_size=5,
                      attn_types=["local", "global", "local"], **switches)


def hooked_neox(folder, **switches):
    source = transformers.GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float64)
    c = source.config
    return hooked(source, weight_conversions.convert_neox_weights, n_layers=c.num_hidden_layers, d_model=c.hidden_size,
                  n_heads=c.num_attention_heads, d_head=c.hidden_size // c.num_attention_heads, d_mlp=c.intermediate_size,
                  n_ctx=c.max_position_embeddings, d_vocab=c.vocab_size, act_fn="gelu", eps=c.layer_norm_eps,
                  normalization_type="LN", positional_embedding_type="rotary", rotary_dim=4, rotary_base=300,
                  parallel_attn_mlp=True, **switches)


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

    def by_position(name, value):
        """Norms of heads see all heads of all positions as rows of one matrix."""
        return value.reshape(1, len(ids), -1) if "q_norm." in name or "k_norm." in name else value

    def hook(function):
        return lambda value, hook: function(by_position(hook.name, value.clone())).reshape(value.shape)

    def see(value, hook):
        points[hook.name] = row_major(hook.name, by_position(hook.name, value))
    hooks = [(name, hook(function)) for name, function in edits if name in model.hook_dict]
    hooks += [(name, see) for name in model.hook_dict]
    points["logits"] = model.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)[0].to(torch.float32).numpy()  # capped
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
LLAMA_EDITS = (
    ("blocks.1.attn.hook_rot_q", "fill", 0.0, 10, 20), ("blocks.0.attn.hook_rot_k", "scale", 2.0, 10, 20),
    ("blocks.1.attn.hook_k", "add", 0.5, 3, 17), ("blocks.1.mlp.hook_pre_linear", "scale", 0.5, 0, 30),
    ("blocks.1.mlp.hook_pre", "add", 0.8, 11, 52), ("blocks.0.attn.hook_attn_scores", "add", 2.0, 5, 0, 3),
    ("blocks.1.attn.hook_pattern", "fill", 0.2, 4, 0, 4), ("blocks.0.attn.hook_result", "scale", 0.5, 36, 108),
    ("ln_final.hook_normalized", "scale", 0.5, 0, 20),
)
QWEN3_EDITS = (
    ("blocks.1.attn.q_norm.hook_scale", "scale", 1.5, 2, 4), ("blocks.0.attn.q_norm.hook_normalized", "fill", 0.0, 16, 40),
    ("blocks.1.attn.k_norm.hook_normalized", "scale", 0.5, 0, 16), ("blocks.0.attn.k_norm.hook_scale", "scale", 0.6, 1, 2),
)
GEMMA2_EDITS = (
    ("blocks.1.ln1_post.hook_normalized", "scale", 0.5, 0, 24), ("blocks.0.ln2_post.hook_scale", "scale", 2.0, 0, 1),
    ("blocks.2.attn.hook_attn_scores", "add", 1.0, 3, 0, 6), ("blocks.1.attn.hook_pattern", "scale", 0.5, 2, 1, 3),
    ("blocks.1.attn.hook_result", "fill", 0.0, 0, 24), ("unembed.hook_out", "add", 1.0, 10, 60),
    ("hook_embed", "scale", 0.5, 0, 12),
)
NEOX_EDITS = (
    ("blocks.0.ln2.hook_normalized", "scale", 0.5, 0, 32), ("blocks.1.ln1.hook_normalized", "fill", 0.0, 4, 9),
    ("blocks.1.attn.hook_rot_k", "add", 0.5, 0, 8), ("blocks.0.mlp.hook_pre", "add", 0.5, 0, 48),
    ("blocks.1.attn.hook_v", "scale", 0.0, 16, 32),
)
LLAMA_SPLIT_EDITS = (("blocks.1.hook_q_input", "add", 0.5, 40, 100), ("blocks.0.hook_k_input", "scale", 0.5, 36, 72),
                     ("blocks.1.hook_v_input", "fill", 0.1, 0, 30))
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
        tensors[key] = points["logits" if at_head else last]
        number += 1
    return number


def record(name, make, folder, edits, split_edits=(), head_edits=()):
    ids = load_file(os.path.join(folder, "expected.safetensors"))["ids"].tolist()[:8] if name != "tiny-gpt2" else load_file(
        os.path.join(TINY, "expected.safetensors"))["p0/ids"].tolist()
    model = make(folder)
    tensors = {point: value for point, value in run(model, ids).items() if "hook_attn_in" not in point and point != "logits"}
    number = add_edits(tensors, model, ids, edits, 0)
    if split_edits:
        split = make(folder, use_split_qkv_input=True)
        points = run(split, ids)
        for point in ("hook_q_input", "hook_k_input", "hook_v_input"):
            tensors[f"blocks.1.{point}"] = points[f"blocks.1.{point}"]
        number = add_edits(tensors, split, ids, split_edits, number)
    if head_edits:
        heads = make(folder, use_attn_in=True)
        tensors["blocks.1.hook_attn_in"] = run(heads, ids)["blocks.1.hook_attn_in"]
        add_edits(tensors, heads, ids, head_edits, number)
    tensors["ids"] = numpy.array(ids, dtype=numpy.int32)
    save_file(tensors, os.path.join(HERE, f"{name}.safetensors"))
    print(name, len(tensors), sum(value.nbytes for value in tensors.values()))


def main():
    torch.set_num_threads(1)
    record("tiny-gpt2", hooked_gpt2, os.path.join(TINY, "model"), EDITS, SPLIT_EDITS, HEAD_EDITS)
    for name, make, edits, split in (("llama", hooked_llama, LLAMA_EDITS, LLAMA_SPLIT_EDITS), ("qwen3", hooked_qwen3, QWEN3_EDITS, ()),
                                     ("gemma2", hooked_gemma2, GEMMA2_EDITS, ()), ("gpt_neox", hooked_neox, NEOX_EDITS, ())):
        if os.path.exists(os.path.join(FAMILIES, name)):
            record(name, make, os.path.join(FAMILIES, name), edits, split)


if __name__ == "__main__":
    main()
