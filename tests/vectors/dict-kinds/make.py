#!/usr/bin/env python3
"""Small dictionaries of every kind in SAELens' files, and what they make of some rows, computed here in float64 NumPy from
the formulas of core/dict/dict.h. `python make.py` (numpy, safetensors) writes the same bytes every time; `python make.py
--check` also lets sae_lens (6.54) compute what it serves and compares: all but its centred, single-head and
scaled dictionaries, which it has no notion of at inference.

expected.safetensors, for each dictionary NAME: NAME/x [rows, width of the input point], NAME/y [rows, width of the output
point] (transcoders only), NAME/norms, NAME/features (folded), NAME/reconstruction, NAME/errors."""
import json, os, sys
import numpy as np
from safetensors.numpy import save_file

here = os.path.dirname(os.path.abspath(__file__))
D, Z, HEADS, F, ROWS, K = 16, 24, 3, 40, 12, 5
POINTS = {"resid": "blocks.1.hook_resid_pre", "z": "blocks.1.attn.hook_z", "mid": "blocks.1.hook_resid_mid",
          "mlp": "blocks.1.hook_mlp_out", "attn": "blocks.0.hook_attn_out"}
expected = {}


def f32(a):
    return np.asarray(a, np.float64).astype(np.float32)


def weights(rng, kind, d_in, d_out, skip):
    t = {"W_enc": rng.normal(size=(d_in, F)) / np.sqrt(d_in), "W_dec": rng.normal(size=(F, d_out)) * rng.uniform(.3, 2, (F, 1)),
         "b_dec": rng.normal(size=d_out) * .5}
    if kind == "gated":
        t.update(b_gate=rng.normal(size=F) * .4 - .5, b_mag=rng.normal(size=F) * .4, r_mag=rng.normal(size=F) * .5)
    else:
        t["b_enc"] = rng.normal(size=F) * .4 - .3
    if kind == "jumprelu":
        t["threshold"] = rng.uniform(-.2, 1, F)
    if skip:
        t["W_skip"] = rng.normal(size=(d_out, d_in)) * .3
    t["W_dec"][7] = 0  # a row without a direction
    return {k: f32(v) for k, v in t.items()}


def normed(c, norm, scale):
    """u, and how to come back from what the decoder gives"""
    if norm == "scale":
        return c * scale, lambda r: r / scale
    if norm == "constant_norm_rescale":
        k = np.sqrt(c.shape[1]) / np.linalg.norm(c, axis=1, keepdims=True)
        return c * k, lambda r: r / k
    if norm == "layer_norm":
        mu, sd = c.mean(1, keepdims=True), c.std(1, ddof=1, keepdims=True)
        return (c - mu) / (sd + 1e-5), lambda r: r * sd + mu
    return c, lambda r: r


def largest(p, k):
    """k largest of each row, lower index first among equals; of these relu"""
    out = np.zeros_like(p)
    for r in range(len(p)):
        for f in sorted(range(p.shape[1]), key=lambda f: (-p[r, f], f))[:k]:
            out[r, f] = max(p[r, f], 0)
    return out


def activations(kind, w, u, rescale):
    pre = u @ w["W_enc"]
    gap = np.inf  # how far the nearest decision is from tipping over
    if kind == "gated":
        gate = pre + w["b_gate"]
        gap = np.abs(gate).min()
        return (gate > 0) * np.maximum(pre * np.exp(w["r_mag"]) + w["b_mag"], 0), gap
    p = pre + w["b_enc"]
    if kind == "jumprelu":
        gap = np.abs(p - w["threshold"])[:, w["threshold"] > 0].min()
        return np.maximum(p, 0) * (p > w["threshold"]), gap
    if kind == "topk":
        n = np.linalg.norm(w["W_dec"], axis=1) if rescale else np.ones(F)
        a = largest(p * n, K)
        s = -np.sort(-p * n, axis=1)
        gap = (s[:, K - 1] - s[:, K]).min()
        return np.where(a > 0, p, 0), gap
    return np.maximum(p, 0), gap


def dictionary(name, kind="relu", point="resid", out=None, norm="none", scale=1., apply=True, center=False, head=None,
               finetuned=False, skip=False, rescale=False, cfg=None, old=False, extra=None):
    """one folder NAME, and its expected numbers; another seed until no decision is near to tipping over"""
    d_in = Z // HEADS if head is not None else Z if point == "z" else D
    d_out = D if out else d_in
    seed = sum(map(ord, name))
    while True:
        rng = np.random.default_rng(seed)
        w = weights(rng, kind, d_in, d_out, skip)
        if finetuned:
            w["scaling_factor"] = f32(rng.uniform(-.5, 2, F))
        if rescale:
            w["W_dec"][7] = f32(rng.normal(size=d_out))
        rows = f32(rng.normal(size=(ROWS, Z if point == "z" else D)) * 1.5 + .4)
        y = f32(rng.normal(size=(ROWS, D))) if out else rows
        w64 = {k: v.astype(np.float64) for k, v in w.items()}
        part = slice(head * (Z // HEADS), (head + 1) * (Z // HEADS)) if head is not None else slice(None)
        x, target = rows[:, part].astype(np.float64), (y if out else rows[:, part]).astype(np.float64)
        c = x - x.mean(1, keepdims=True) if center else x
        u, back = normed(c, norm, scale)
        a, gap = activations(kind, w64, u - w64["b_dec"] * apply if not out else u, rescale)
        if gap > 1e-4:
            break
        seed += 1000
    rows_of_dec = w64["W_dec"] * (w64["scaling_factor"][:, None] if finetuned else 1)
    x_hat = back(a @ rows_of_dec + w64["b_dec"])
    if skip:
        x_hat = x_hat + x @ w64["W_skip"].T
    n = np.linalg.norm(rows_of_dec, axis=1) / (scale if norm == "scale" else 1)
    n[n == 0] = 1
    if center:
        target = target - target.mean(1, keepdims=True)
    expected.update({f"{name}/{k}": np.ascontiguousarray(f32(v)) for k, v in dict(
        x=rows, norms=n, features=a * n, reconstruction=x_hat, errors=target - x_hat).items()})
    if out:
        expected[f"{name}/y"] = y
    said = dict(d_in=d_in, d_sae=F, dtype="float32", device="cpu", apply_b_dec_to_input=apply and not out,
                normalize_activations={"scale": "expected_average_only_in"}.get(norm, norm), **(cfg or {}))
    about = dict(model_name="toy", hook_name=POINTS[point], prepend_bos=True, context_size=64,
                 **({"hook_name_out": POINTS[out]} if out else {}), **({"hook_head_index": head} if head is not None else {}),
                 **({"model_from_pretrained_kwargs": {"center_writing_weights": True}} if center else {}))
    if out:
        said["d_out"] = d_out
    if name == "transcoder-jumprelu":
        del said["apply_b_dec_to_input"]  # absent means false for a transcoder, true for an SAE
    if finetuned:
        said["finetuning_scaling_factor"] = True
    folder = os.path.join(here, name)
    os.makedirs(folder, exist_ok=True)
    json.dump({**said, **about} if old else {**said, "metadata": about}, open(os.path.join(folder, "cfg.json"), "w"), indent=1)
    for file, content in (extra or {}).items():
        json.dump(content, open(os.path.join(folder, file), "w"))
    save_file(w, os.path.join(folder, "sae_weights.safetensors"))
    return name


arch = lambda name, **more: dict(architecture=name, **more)
dictionary("relu", apply=False, cfg=arch("standard"))
dictionary("gated", "gated", cfg=arch("gated"))
dictionary("gated-plain", "gated", apply=False, cfg=arch("gated"))
dictionary("jumprelu", "jumprelu", apply=False, cfg=arch("jumprelu"))
dictionary("topk", "topk", cfg=arch("topk", k=K, rescale_acts_by_decoder_norm=False))
dictionary("topk-rescaled", "topk", rescale=True, cfg=arch("topk", k=K, rescale_acts_by_decoder_norm=True))
dictionary("scaled", norm="scale", scale=.75, cfg=arch("standard", norm_scaling_factor=.75))
dictionary("scaled-beside", norm="scale", scale=1.5, old=True, cfg=arch("standard"),
           extra={"activation_scaler.json": {"scaling_factor": 1.5}})
dictionary("scaled-jumprelu", "jumprelu", norm="scale", scale=.5, cfg=arch("jumprelu", norm_scaling_factor=.5))
dictionary("length", norm="constant_norm_rescale", cfg=arch("standard"))
dictionary("length-topk", "topk", norm="constant_norm_rescale", old=True,
           cfg=dict(activation_fn_str="topk", activation_fn_kwargs={"k": K}))
dictionary("layernorm", norm="layer_norm", cfg=arch("standard"))
dictionary("layernorm-topk", "topk", norm="layer_norm", old=True,
           cfg=dict(activation_fn_str="topk", activation_fn_kwargs={"k": K}))
dictionary("layernorm-gated", "gated", norm="layer_norm", cfg=arch("gated"))
dictionary("center-length", norm="constant_norm_rescale", center=True, cfg=arch("standard"))
dictionary("center-layernorm", "jumprelu", norm="layer_norm", center=True, cfg=arch("jumprelu"))
dictionary("hook-z", point="z", cfg=arch("standard", reshape_activations="hook_z"))
dictionary("one-head", point="z", head=2, old=True, cfg=arch("standard"))
dictionary("finetuned", finetuned=True, old=True, cfg=arch("standard"))
dictionary("transcoder", point="mid", out="mlp", cfg=arch("transcoder"))
dictionary("transcoder-topk", "topk", point="mid", out="mlp", old=True,
           cfg=arch("transcoder", activation_fn_str="topk", activation_fn_kwargs={"k": K}))
dictionary("transcoder-z", point="z", out="attn", cfg=arch("transcoder"))
dictionary("transcoder-jumprelu", "jumprelu", point="mid", out="mlp", cfg=arch("jumprelu_transcoder"))
dictionary("transcoder-skip", point="mid", out="mlp", skip=True, cfg=arch("skip_transcoder"))
dictionary("batchtopk", "jumprelu", cfg=arch("batchtopk", k=K))
dictionary("matryoshka", "jumprelu", cfg=arch("matryoshka_batchtopk", k=K, matryoshka_widths=[8, 20, F]))
save_file(expected, os.path.join(here, "expected.safetensors"))

if "--check" in sys.argv:
    import torch
    from sae_lens import SAE
    names = sorted({k.split("/")[0] for k in expected})
    for name in names:
        if name.startswith(("scaled", "center")) or name in (
                "one-head", "finetuned", "transcoder-topk", "topk-rescaled", "batchtopk", "matryoshka"):
            continue
        sae = SAE.load_from_disk(os.path.join(here, name))
        x = torch.tensor(expected[name + "/x"])
        if name == "hook-z":
            x = x.reshape(ROWS, HEADS, Z // HEADS)
        with torch.no_grad():
            a = sae.encode(x)
            back = sae(x) if name == "transcoder-skip" else sae.decode(a)
            got = {"features": a.numpy() * expected[name + "/norms"], "reconstruction": back.reshape(ROWS, -1).numpy()}
        for what, value in got.items():
            off = np.abs(value - expected[f"{name}/{what}"]).max()
            print(f"{name:22} {what:15} off by {off:.2e}")
            assert off < 2e-5
