#!/usr/bin/env python3
"""Records gradients of the tiny models of every family, by PyTorch's autograd through transformers' and TransformerLens' own code, in float64.

usage: make.py [NAME ...]      (writes NAME.safetensors beside this script; nothing is drawn)

    ids                     the prompt, as recorded with the model
    rows                    positions whose gradients follow
    BLOCKS.POINT            [row, width]: gradient of the last position's logit of token 5 less that of token 11
    loss/BLOCKS.POINT       the same of the mean loss of the prompt's own tokens; for the first layer's input and queries
    value, loss             the two numbers

Models and points are those of tests/vectors/families; where q, k and v come from is said in tests/vectors/points."""
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

PARTS = {**family_points.PARTS,
         "llama": family_points.block(), "qwen3": family_points.block(), "gemma2": family_points.block(),
         "gpt_neox": family_points.block("attention", "dense", family_points.fused("query_key_value", family_points.by_head(2)))}
RIGHT, WRONG = 5, 11


class Keep:
    """Tensors as they come by, with gradients kept: by point, and outputs of modules by name."""

    def __init__(self):
        self.points, self.modules = {}, {}

    def keep(self, where, name, value):
        value = value[0] if isinstance(value, tuple) else value
        value.retain_grad()
        where[name] = value

    def watch(self, block, layer, sites):
        for point, (path, side) in sites.items():
            name, module = f"blocks.{layer}.{point}", submodule(block, path)
            if side == "in":
                module.register_forward_pre_hook(
                    lambda _m, args, kwargs, name=name: self.keep(self.points, name, args[0] if args else kwargs["hidden_states"]),
                    with_kwargs=True)
            else:
                module.register_forward_hook(lambda _m, _a, out, name=name: self.keep(self.points, name, out))

    def watch_modules(self, block, path):
        for name, module in submodule(block, path).named_children():
            if isinstance(module, (torch.nn.Linear, transformers.pytorch_utils.Conv1D)):
                module.register_forward_hook(lambda _m, _a, out, name=f"{path}.{name}", b=block: self.keep(self.modules, (b, name), out))


def rows_of(value, n):
    return value.reshape(n, -1)


def measures(logits, ids):
    logits = logits.double()
    return {"value": logits[-1, RIGHT] - logits[-1, WRONG],
            "loss": torch.nn.functional.cross_entropy(logits[:-1], ids[1:])}


def gradients(keep, logits, ids, name, qkv):
    """[p, width] of every point kept; qkv(grads of a block's modules) gives three of them."""
    numbers = measures(logits, ids)
    numbers[name].backward(retain_graph=True)
    out = {key: rows_of(value.grad.clone(), len(ids)) for key, value in keep.points.items()}
    out.update(qkv())
    for value in [*keep.points.values(), *keep.modules.values()]:
        value.grad = None
    return float(numbers[name].detach()), out


def write(name, ids, keep, logits, qkv):
    ids = ids.long()
    rows = torch.tensor([0, 3, len(ids) - 1])
    value, grads = gradients(keep, logits, ids, "value", qkv)
    loss, of_loss = gradients(keep, logits, ids, "loss", qkv)
    out = {key: grad[rows] for key, grad in grads.items()}
    out.update({f"loss/{key}": of_loss[key][rows] for key in ("blocks.0.hook_resid_pre", "blocks.0.attn.hook_q")})
    out = {key: value.float().contiguous() for key, value in out.items()}
    out["value"], out["loss"] = torch.tensor([value]), torch.tensor([loss])
    out["ids"], out["rows"] = ids.int().contiguous(), rows.int()
    path = os.path.join(HERE, f"{name}.safetensors")
    save_file(out, path)
    print(f"{name}: {os.path.getsize(path) // 1024} KiB, value {value:.3f}, loss {loss:.3f}, "
          f"largest {max(float(g.abs().max()) for g in grads.values()):.3f}")


def of_transformers(name, model, blocks, sites, parts, ids):
    keep, blocks = Keep(), submodule(model, blocks)
    for layer, block in enumerate(blocks):
        keep.watch(block, layer, {point: at for point, at in sites.items() if not point.startswith(("attn.hook_q", "attn.hook_k",
                                                                                                  "attn.hook_v"))})
        keep.watch_modules(block, parts["attn"])
    logits = model(ids[None].long(), use_cache=False).logits[0]

    def qkv():
        out = {}
        for layer, block in enumerate(blocks):
            grads = {module: rows_of(value.grad, len(ids)) for (owner, module), value in keep.modules.items() if owner is block and value.grad is not None}
            for kind, value in zip("qkv", parts["qkv"](grads, parts["attn"])):
                out[f"blocks.{layer}.attn.hook_{kind}"] = value.clone()
        return out
    write(name, ids, keep, logits, qkv)


def family(name):
    ids = load_file(os.path.join(FOLDERS, name, "expected.safetensors"))["ids"]
    if "make" in FAMILIES[name]:
        return toy(name, ids)
    model = family_points.load(name)
    of_transformers(name, model, FAMILIES[name]["blocks"], FAMILIES[name]["sites"], PARTS[name], ids)


TOY_POINTS = ("hook_resid_pre", "hook_q", "hook_k", "hook_v", "hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_pre", "mlp.hook_post",
              "hook_mlp_out", "hook_resid_post")


def toy(name, ids):
    cell = dict(zip(FAMILIES[name]["make"].__code__.co_freevars, (c.cell_contents for c in FAMILIES[name]["make"].__closure__)))
    model = family_points.lens_model(n_layers=2, d_model=30, d_head=7, n_heads=4, n_ctx=48, d_vocab=97, **cell["config"])
    published = os.path.join(FOLDERS, name, "gelu_2l_final.pth")
    state = torch.load(published) if os.path.exists(published) else load_file(os.path.join(FOLDERS, name, "model.safetensors"))
    model.load_state_dict({key: value.double() if value.is_floating_point() else value for key, value in state.items()}, strict=False)
    keep = Keep()

    def hook(value, hook):
        keep.keep(keep.points, hook.name, value)
        return value
    names = [key for key in model.hook_dict if key.startswith("blocks.") and key.endswith(TOY_POINTS)]
    logits = model.run_with_hooks(ids[None].long(), fwd_hooks=[(key, hook) for key in names])[0]
    write(name, ids, keep, logits, lambda: {})


def tiny():
    folder = os.path.join(HERE, "..", "tiny-gpt2")
    ids = load_file(os.path.join(folder, "expected.safetensors"))["p1/ids"]
    model = transformers.GPT2LMHeadModel.from_pretrained(os.path.join(folder, "model"), dtype=torch.float64, attn_implementation="eager").eval()
    of_transformers("tiny-gpt2", model, "transformer.h", FAMILIES["gpt2-crfm"]["sites"], PARTS["gpt2-crfm"], ids)


def main():
    names = sys.argv[1:] or [*(name for name in FAMILIES if name != "gemma3-multimodal"), "tiny-gpt2"]
    for name in names:
        tiny() if name == "tiny-gpt2" else family(name)


if __name__ == "__main__":
    main()
