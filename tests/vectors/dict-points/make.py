#!/usr/bin/env python3
"""Dictionaries on points that are no residual stream, on the tiny GPT-2 of ../tiny-gpt2: a TopK transcoder from the MLP's
normalized input (before the gain) to its output, a ReLU transcoder with a skip from what the MLP reads (after the gain),
and a ReLU SAE on attn.hook_z. The model runs in float64 through transformers; everything else is plain torch here.

expected.safetensors, for each source: SOURCE/features [T, F] (folded) over prompt 1 of ../tiny-gpt2/expected.json, and
SOURCE/logits [16, V]: what the first steering rows add to the logits through W_O (hook_z) and the raw unembedding.
expected.json: the greedy text after steering with a transcoder's feature at its output. `python make.py`, with torch 2.15."""
import json, os, sys
import torch
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))
tiny = os.path.join(here, "..", "tiny-gpt2")
sys.path.insert(0, tiny)
from reference import greedy, load_model, run, write_json

D, F, K, EPS = 48, 64, 6, 1e-5
model = load_model("model")
prompts = json.load(open(os.path.join(tiny, "expected.json")))["prompts"]
g = torch.Generator().manual_seed(4)
rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)


def normalized(points, layer):
    x = points[f"blocks.{layer}.hook_resid_mid"]
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt()


def mlp_in(points, layer):
    ln = model.transformer.h[layer].ln_2
    return normalized(points, layer) * ln.weight + ln.bias


SOURCES = {
    "1-tc": dict(input=lambda p: normalized(p, 1), hook="blocks.1.ln2.hook_normalized", out="blocks.1.hook_mlp_out", k=K),
    "2-skip": dict(input=lambda p: mlp_in(p, 2), hook="blocks.2.mlp.hook_in", out="blocks.2.hook_mlp_out", skip=True),
    "2-z": dict(input=lambda p: p["blocks.2.attn.hook_z"], hook="blocks.2.attn.hook_z"),
}
tensors, steered = {}, {}
for name, s in SOURCES.items():
    rows = s["input"](run(model, prompts[1]["ids"])[0])
    w_enc, w_dec = rand(D, F) / D ** .5, rand(F, D) * (.5 + torch.rand(F, 1, generator=g, dtype=torch.float64))
    b_dec = rand(D) * .1
    shift = 0 if "out" in s else b_dec
    pre = (rows - shift) @ w_enc
    b_enc = -torch.quantile(pre, .7, dim=0)
    w = {"W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc, "b_dec": b_dec}
    if s.get("skip"):
        w["W_skip"] = rand(D, D) * .2
    w = {k: v.float().contiguous() for k, v in w.items()}
    d = {k: v.double() for k, v in w.items()}
    a = torch.relu((rows - (0 if "out" in s else d["b_dec"])) @ d["W_enc"] + d["b_enc"])
    cfg = {"architecture": "standard", "d_in": D, "d_sae": F, "apply_b_dec_to_input": "out" not in s, "normalize_activations": "none",
           "metadata": {"hook_name": s["hook"], "model_name": "tiny", "prepend_bos": True, "context_size": 128}}
    if "out" in s:
        cfg.update(architecture="skip_transcoder" if s.get("skip") else "transcoder", d_out=D)
        cfg["metadata"]["hook_name_out"] = s["out"]
    if "k" in s:
        top = a.topk(s["k"] + 1, dim=1).values
        assert (top[:, s["k"] - 1] - top[:, s["k"]]).min() > 1e-4  # no choice hangs on rounding
        a = torch.where(a >= top[:, s["k"] - 1:s["k"]], a, torch.zeros(()).double())
        cfg.update(activation_fn="topk", activation_fn_kwargs={"k": s["k"]})
    folder = os.path.join(here, name)
    os.makedirs(folder, exist_ok=True)
    json.dump(cfg, open(os.path.join(folder, "cfg.json"), "w"), indent=1)
    save_file(w, os.path.join(folder, "sae_weights.safetensors"))
    n = d["W_dec"].norm(dim=1)
    unit = d["W_dec"] / n[:, None]
    tensors[name + "/features"] = (a * n).float().contiguous()
    stream = unit @ model.transformer.h[2].attn.c_proj.weight if name == "2-z" else unit  # Conv1D: rows are inputs
    tensors[name + "/logits"] = (stream[:16] @ model.lm_head.weight.T).float().detach().contiguous()
    if name == "1-tc":
        row = unit[9]
        ids, lead = greedy(model, prompts[0]["ids"], 24, {s["out"]: lambda h: h + 6.0 * row})
        steered = {"source": name, "feature": 9, "strength": 6.0, "greedy_ids": ids, "smallest_lead": round(lead, 5)}
        assert lead > 5e-3 and ids != prompts[0]["greedy_ids"]
save_file(tensors, os.path.join(here, "expected.safetensors"))
import transformers
steered["greedy_text"] = transformers.AutoTokenizer.from_pretrained(os.path.join(tiny, "model")).decode(steered["greedy_ids"])
write_json(os.path.join(here, "expected.json"), steered)
print(steered)
