#!/usr/bin/env python3
"""Makes one tiny random model for each family and what it must answer, through transformers and TransformerLens.

Each folder holds config.json and model.safetensors as published models do, and expected.safetensors:
    ids [T]                       the prompt
    logits [T, V]                 of the prompt
    greedy [16]                   what follows
    blocks.L.<point> [T, width]   every hot point of every layer, under its TransformerLens name
Numbers are those of the stored weights (rounded to the folder's dtype) in double precision, rounded once to f32.

Run with no arguments for all of them, or with the names of some."""
import copy
import json
import os
import platform
import shutil
import sys

import safetensors
import torch
import transformers
from safetensors.torch import save_file

from families import FAMILIES, REAL

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.environ.get("STEERD_DATA", os.path.join(HERE, "../../../../shared/data"))
N_PROMPT, N_NEW = 13, 16
MIN_LEAD = 2e-2  # a greedy choice must not hang on rounding


def fill(model, generator, embed):
    """Numbers under which no part of a model can be left out unseen: gains away from 1, biases away from 0, attention
    that is not uniform."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        last = name.split(".")[-2] if "." in name else name
        if weight.dim() == 1 and name.endswith("weight"):
            centre = 0.0 if "gemma" in type(model).__name__.lower() else 1.0
            value = centre + 0.3 * noise
        elif weight.dim() == 1:
            value = 0.2 * noise
        elif "emb" in last or last in ("wte", "wpe", "lm_head"):
            value = embed * noise
        else:
            fan_in = weight.shape[0] if "Conv1D" in str(type(model.get_submodule(name.rsplit(".", 1)[0]))) else weight.shape[1]
            value = noise * (1.6 if any(k in name for k in ("q_proj", "k_proj", "qkv", "query", "c_attn")) else 1.1) / fan_in**0.5
        with torch.no_grad():
            weight.copy_(value)


def submodule(module, path):
    return module.get_submodule(path) if path else module


class Watch:
    """Catches hot points. `sites` maps a point to (path inside the block, "in" or "out")."""

    def __init__(self, blocks, sites):
        self.points, self.handles = {}, []
        for layer, block in enumerate(blocks):
            for point, (path, side) in sites.items():
                name, module = f"blocks.{layer}.{point}", submodule(block, path)
                if side == "in":
                    self.handles.append(module.register_forward_pre_hook(self.before(name), with_kwargs=True))
                else:
                    self.handles.append(module.register_forward_hook(self.after(name)))

    def keep(self, name, value):
        self.points[name] = value.detach().reshape(-1, value.shape[-1]).clone()

    def before(self, name):
        return lambda _module, args, kwargs: self.keep(name, args[0] if args else kwargs["hidden_states"])

    def after(self, name):
        return lambda _module, _args, out: self.keep(name, out[0] if isinstance(out, tuple) else out)

    def close(self):
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def greedy(model, ids, n):
    ids, lead = list(ids), float("inf")
    for _ in range(n):
        top = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
        lead = min(lead, float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    return ids[-n:], lead


def double(model, dtype):
    """The stored weights in double precision. Rotary frequencies are never stored and stay what they are; Gemma's embedding
    scale counts in the stored dtype."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    model = model.double().eval()
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale).to(dtype).double()
    return model


@torch.no_grad()
def make(name, family):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    dtype = getattr(torch, family.get("dtype", "float32"))
    config = family["config"]()
    config._attn_implementation = "eager"
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        model = family["model"](config)
        # A scaled and tied embedding must be small, or every token would be followed by itself.
        fill(model, generator, 0.12 if "gemma" in name else 0.6)
        stored = copy.deepcopy(model).to(dtype)
        model = double(model, dtype)
        ids = torch.randint(3, config.vocab_size, (N_PROMPT,), generator=generator).tolist()
        follow, lead = greedy(model, ids, N_NEW)
        if lead > MIN_LEAD and len(set(follow)) > 5:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a decided greedy text")
    stored.save_pretrained(folder)
    watch = Watch(submodule(model, family["blocks"]), family["sites"])
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    watch.close()
    finish(folder, name, seed, ids, follow, logits, watch.points, family)


def finish(folder, name, seed, ids, follow, logits, points, family):
    out = {key: value.float().contiguous() for key, value in points.items()}
    out["logits"] = logits.float().contiguous()
    out["ids"] = torch.tensor(ids, dtype=torch.int32)
    out["greedy"] = torch.tensor(follow, dtype=torch.int32)
    save_file(out, os.path.join(folder, "expected.safetensors"))
    for extra in ("generation_config.json",):
        if os.path.exists(os.path.join(folder, extra)):
            os.remove(os.path.join(folder, extra))
    if "rewrite" in family:
        family["rewrite"](folder)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name}: seed {seed}, {size // 1024} KiB, largest logit {float(logits.abs().max()):.2f}")


@torch.no_grad()
def toy_greedy(model, ids, n):
    ids, lead = list(ids), float("inf")
    for _ in range(n):
        top = model(torch.tensor([ids]))[0, -1].topk(2)
        lead = min(lead, float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    return ids[-n:], lead


@torch.no_grad()
def make_toy(name, config, published):
    """A model of TransformerLens, with all it caches at the hot points."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        model = HookedTransformer(HookedTransformerConfig(seed=seed, default_prepend_bos=False, dtype=torch.float64, **config)).eval()
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            part = key.split(".")[-1]
            scale = {"w": 0.3, "b": 0.2, "W_E": 0.6, "W_pos": 0.5, "W_U": 0.5}.get(part, 0.25 if part[0] == "W" else 0.2)
            weight.copy_((1.0 if part == "w" else 0.0) + (2.0 if part in ("W_Q", "W_K") else 1.0) * scale * noise)
            weight.copy_(weight.float().double())
        ids = torch.randint(3, config["d_vocab"], (N_PROMPT,), generator=generator).tolist()
        follow, lead = toy_greedy(model, ids, N_NEW)
        if lead > MIN_LEAD and len(set(follow)) > 5:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a decided greedy text")
    state = {key: value.float().contiguous() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    if name == "toy-gelu":  # as they are published: one torch file, masks and all
        torch.save(state, os.path.join(folder, "gelu_2l_final.pth"))
    else:
        save_file({key: value for key, value in state.items() if key.split(".")[-1] not in ("mask", "IGNORE")},
                  os.path.join(folder, "model.safetensors"))
    sizes = {key: config[key] for key in ("n_layers", "d_model", "d_head", "n_heads", "n_ctx", "d_vocab")}
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({**sizes, **published}, file, indent=1)
    logits, cache = model.run_with_cache(torch.tensor([ids]))
    kinds = (POINTS_OF_A_TOY[0],) if config.get("attn_only") else POINTS_OF_A_TOY
    points = {key: value[0].flatten(1) for key, value in cache.items() if key.startswith("blocks.") and key.endswith(sum(kinds, ()))}
    finish(folder, name, seed, ids, follow, logits[0], points, {})


# Of every toy, and of those with an MLP. The cold ones show that products, norms and units are split in the right places.
POINTS_OF_A_TOY = (("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_post", "ln1.hook_scale", "ln1.hook_normalized",
                    "attn.hook_q", "attn.hook_k", "attn.hook_v"),
                   ("hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "ln2.hook_scale", "ln2.hook_normalized", "mlp.hook_pre",
                    "mlp.hook_mid"))


@torch.no_grad()
def make_real():
    """Greedy texts of the real models in STEERD_DATA, from token ids."""
    out = {}
    for name, prompt in REAL.items():
        folder = os.path.join(DATA, "models", name, "hf")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").double().eval()
        follow, lead = greedy(model, prompt, 120)
        print(f"{name}: least lead {lead:.3g}")
        out[f"{name}/ids"] = torch.tensor(prompt, dtype=torch.int32)
        out[f"{name}/greedy"] = torch.tensor(follow, dtype=torch.int32)
        out[f"{name}/logits"] = model(torch.tensor([prompt])).logits[0].float().contiguous()
    save_file(out, os.path.join(HERE, "real.safetensors"))


def main():
    transformers.logging.set_verbosity_error()
    names = sys.argv[1:] or [*FAMILIES, "real"]
    for name in names:
        if name == "real":
            make_real()
        elif "make" in FAMILIES[name]:
            FAMILIES[name]["make"](name, sys.modules[__name__])
        else:
            make(name, FAMILIES[name])
    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
                "safetensors": safetensors.__version__}
    with open(os.path.join(HERE, "versions.json"), "w", encoding="utf-8") as file:
        json.dump(versions, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
