"""The obvious path: the tiny model through transformers, in double precision, with every hot point caught and
every edit applied by a hook. Both scripts of this folder use it; nothing of steerd is imported here."""
import contextlib
import hashlib
import json
import os
import platform
import re

import numpy
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
HOT = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid",
       "mlp.hook_post", "hook_mlp_out", "hook_resid_post")


def load_model(folder):
    """The saved weights, upcast to float64: a cast model is upcast from its cast weights."""
    model = transformers.GPT2LMHeadModel.from_pretrained(
        os.path.join(HERE, folder), dtype=torch.float32, attn_implementation="eager")
    return model.double().eval()


def first(value):
    return value[0] if isinstance(value, tuple) else value


@contextlib.contextmanager
def watch(model, points=None, edits=None):
    """Catches hot points into the dict `points` (name -> [T, width]) and applies `edits` (name -> function of [1, T, d])
    at residual points. An edited point is caught after its edit."""
    handles = []
    edits = edits or {}

    def keep(name, value):
        if points is not None:
            points[name] = value.detach()[0].clone()

    def on_input(name):
        def hook(_module, args, kwargs):
            if args:
                value, rest = args[0], args[1:]
            else:
                value, rest = kwargs["hidden_states"], ()
            if name in edits:
                value = edits[name](value)
            keep(name, value)
            if args:
                return (value, *rest), kwargs
            return (), {**kwargs, "hidden_states": value}
        return hook

    def on_output(name):
        def hook(_module, _args, output):
            value = first(output)
            if name in edits:
                value = edits[name](value)
            keep(name, value)
            return (value, *output[1:]) if isinstance(output, tuple) else value
        return hook

    for i, block in enumerate(model.transformer.h):
        def name(point):
            return f"blocks.{i}.{point}"
        before = [(block, "hook_resid_pre"), (block.attn.c_proj, "attn.hook_z"), (block.ln_2, "hook_resid_mid"),
                  (block.mlp.c_proj, "mlp.hook_post")]
        after = [(block.attn, "hook_attn_out"), (block.mlp, "hook_mlp_out"), (block, "hook_resid_post")]
        for module, point in before:
            # An edit of the MLP's or attention's input alone is not an edit of the residual stream.
            assert name(point) not in edits or point == "hook_resid_pre"
            handles.append(module.register_forward_pre_hook(on_input(name(point)), with_kwargs=True))
        for module, point in after:
            handles.append(module.register_forward_hook(on_output(name(point))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def run(model, ids, edits=None):
    """Points by name and logits [T, V], both float64."""
    points = {}
    with watch(model, points, edits):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return points, logits


@torch.no_grad()
def greedy(model, ids, n_tokens, edits=None, cached=False):
    """Ids that follow, and the smallest lead of a chosen token over the runner-up. Without `cached` every step runs
    the whole text again, which is the definition; with it the KV cache of transformers is used."""
    ids, chosen, lead, cache = list(ids), [], float("inf"), None
    with watch(model, None, edits):
        for _ in range(n_tokens):
            if cached:
                fresh = ids if cache is None else ids[-1:]
                out = model(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
            else:
                out = model(torch.tensor([ids]), use_cache=False)
            top = out.logits[0, -1].topk(2)
            lead = min(lead, float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
            chosen.append(ids[-1])
    return chosen, lead


def f32(tensor):
    return tensor.detach().to(torch.float32).contiguous().numpy().copy()


def versions():
    import safetensors
    import tokenizers
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__, "safetensors": safetensors.__version__, "numpy": numpy.__version__}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def write_json(path, value):
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[\d\s,.\-e]*\]", lambda numbers: re.sub(r"\s+", " ", numbers.group()), text)  # a list, a line
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")
