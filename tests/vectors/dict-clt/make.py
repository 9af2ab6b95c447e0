#!/usr/bin/env python3
"""Three cross-layer transcoders for the tiny GPT-2 of ../tiny-gpt2, and what they must answer. In circuit-tracer's files:

    jump/   JumpReLU, f32, from hook_resid_mid           relu/   ReLU, bf16, from what the MLP reads (mlp.hook_in)
    each: config.yaml; W_enc_L.safetensors (W_enc_L [F, d], b_enc_L, b_dec_L, threshold_L); W_dec_L.safetensors ([F, layers from L on, d])

and in Gemma Scope 2's, clt/width_1k_l0_small_affine: params_layer_L.safetensors, w_enc [d, F], w_dec [F, all layers, d] with 0 in
front of layer L, affine_skip_connection [d, d], JumpReLU, f32, from what the MLP reads; config.json.

    a_L = act(x_L W_enc_L^T + b_enc_L)          y_M = b_dec_M + sum over L <= M of a_L W_dec_L[:, M - L] (+ x_M A_M)

expected.safetensors, for each NAME: NAME/x_L [16, d], NAME/features_L [T, F] and NAME/y_M [16, d] over prompt 1 of the tiny model, unedited;
NAME/direct_L [4, V]: what the first features of layer L add to the logits, their rows of all layers summed, through the raw
unembedding; logits [3, V] of the last positions: raw, replaced (every MLP by y), replaced_2 (those of layers 0 and 1), ablated and
clamped (one feature, error kept), both (a feature of each of two layers clamped at once), steered.
expected.json: which features, and the greedy text after steering. float64 through transformers, plain torch for the rest;
`python make.py`, torch 2.15, transformers 5.23."""
import json, os, sys
import torch
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))
tiny = os.path.join(here, "..", "tiny-gpt2")
sys.path.insert(0, tiny)
from reference import first, load_model, run

D, F, N, LAST, NEW, ROWS = 48, 40, 3, 3, 20, 16
model = load_model("model")
prompts = json.load(open(os.path.join(tiny, "expected.json")))["prompts"]
ids = prompts[1]["ids"]
blocks = model.transformer.h


class Transcoder:
    def __init__(self, name, dtype, jump, hook, affine, seed):
        self.name, self.hook, self.jump = name, hook, jump
        g = torch.Generator().manual_seed(seed)
        rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
        folder = os.path.join(here, *(("clt", "width_1k_l0_small_affine") if affine else (name,)))
        os.makedirs(folder, exist_ok=True)
        self.w = []
        rows = self.inputs(ids)
        for layer in range(N):
            w_enc = rand(F, D) / D ** .5
            pre = rows[layer] @ w_enc.T
            w = {"W_enc": w_enc, "b_enc": -torch.quantile(pre, .6, dim=0), "b_dec": rand(D) * .1,
                 "W_dec": rand(F, N - layer, D) * .4 * (.5 + torch.rand(F, 1, 1, generator=g, dtype=torch.float64))}
            if jump:
                w["threshold"] = .1 + .4 * torch.rand(F, generator=g, dtype=torch.float64)
            if affine:
                w["affine_skip_connection"] = rand(D, D) * .1
            w = {k: v.to(dtype).contiguous() for k, v in w.items()}
            self.w.append({k: v.double() for k, v in w.items()})
            if affine:
                front = torch.zeros(F, layer, D, dtype=dtype)
                own = {k: v for k, v in w.items() if not k.startswith("W_")}
                save_file({"w_enc": w["W_enc"].T.contiguous(), "w_dec": torch.cat([front, w["W_dec"]], 1), **own},
                          os.path.join(folder, f"params_layer_{layer}.safetensors"))
                continue
            enc = {f"{k}_{layer}": v for k, v in w.items() if k != "W_dec"}
            save_file(enc, os.path.join(folder, f"W_enc_{layer}.safetensors"))
            save_file({f"W_dec_{layer}": w["W_dec"]}, os.path.join(folder, f"W_dec_{layer}.safetensors"))
        if affine:
            json.dump({"architecture": "jump_relu", "model_name": "google/tiny-gpt2", "l0": 10}, open(os.path.join(folder, "config.json"), "w"))
            return
        with open(os.path.join(folder, "config.yaml"), "w") as out:
            out.write(f'model_name: "tiny-gpt2"\nmodel_kind: cross_layer_transcoder\nfeature_input_hook: {hook}\n'
                      "feature_output_hook: hook_mlp_out\nscan: tiny/tiny\n" + ("activation: jump_relu\n" if jump else ""))

    def input(self, layer, resid_mid):
        return resid_mid if self.hook == "hook_resid_mid" else blocks[layer].ln_2(resid_mid)

    @torch.no_grad()
    def inputs(self, ids):
        points = run(model, ids)[0]
        return [self.input(layer, points[f"blocks.{layer}.hook_resid_mid"]) for layer in range(N)]

    def encode(self, layer, x):
        w = self.w[layer]
        p = x @ w["W_enc"].T + w["b_enc"]
        cut = w["threshold"] if self.jump else torch.zeros(())
        assert (p - cut).abs().min() > 3e-6, 'rounding'  # no feature hangs on it
        return torch.where(p > cut, p.relu(), torch.zeros(()).double())

    def write(self, a, m):
        """what the features of layers up to m write to m"""
        return sum(a[layer] @ self.w[layer]["W_dec"][:, m - layer] for layer in range(m + 1) if layer in a)

    def skip(self, m, x):
        return x @ self.w[m]["affine_skip_connection"] if "affine_skip_connection" in self.w[m] else 0

    @torch.no_grad()
    def run(self, ids, change=lambda layer, a: a, replaced=0, add=None):
        """logits with changed features, the error kept; or with the MLPs of layers below `replaced` gone; or with add(m) added"""
        handles, was, now, xs = [], {}, {}, {}

        def before(layer):
            def hook(_module, args):
                x = args[0][0]
                was[layer] = self.encode(layer, self.input(layer, x))
                now[layer] = change(layer, was[layer])
            return hook

        def after(layer):
            def hook(_module, _args, output):
                y = first(output)
                if add:
                    return y + add(layer)
                if layer < replaced:
                    return (self.w[layer]["b_dec"] + self.write(now, layer) + self.skip(layer, xs.get(layer)))[None]
                return y + self.write({k: now[k] - was[k] for k in now}, layer)[None] if not replaced else y
            return hook

        for layer, block in enumerate(blocks):
            if not add:  # to norm the rows once more would call the hook again
                handles.append(block.ln_2.register_forward_pre_hook(before(layer)) if self.hook == "hook_resid_mid" else
                               block.mlp.register_forward_pre_hook(self.before_mlp(layer, was, now, xs, change)))
            handles.append(block.mlp.register_forward_hook(after(layer)))
        try:
            return model(torch.tensor([ids]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()

    def before_mlp(self, layer, was, now, xs, change):
        def hook(_module, args):
            xs[layer] = args[0][0]
            was[layer] = self.encode(layer, xs[layer])
            now[layer] = change(layer, was[layer])
        return hook

    def greedy(self, ids, **how):
        out, lead = [], 9e9
        for _ in range(NEW):
            top = self.run(ids + out, **how)[-1].topk(2)
            lead = min(lead, float(top.values[0] - top.values[1]))
            out.append(int(top.indices[0]))
        return out, lead


def clamp(which):
    def change(layer, a):
        a = a.clone()
        for at, feature, value in which:
            if at == layer:
                a[:, feature] = value
        return a
    return change


tensors, said = {}, {}
def record(name, dtype, jump, hook, affine, seed):
    clt = Transcoder(name, dtype, jump, hook, affine, seed)
    x = clt.inputs(ids)
    a = {layer: clt.encode(layer, x[layer]) for layer in range(N)}
    busiest = [int(a[layer][1:].sum(0).argmax()) for layer in range(N)]
    ablate, set_to, both = [(0, busiest[0], 0.)], [(1, busiest[1], 3.)], [(0, busiest[0], 2.5), (2, busiest[2], 1.5)]
    steer = 5.
    row = clt.w[0]["W_dec"][busiest[0]]
    add = lambda m: steer * row[m]
    raw = clt.run(ids)
    assert torch.equal(raw, model(torch.tensor([ids])).logits[0])
    logits = {"raw": raw, "replaced": clt.run(ids, replaced=N), "replaced_2": clt.run(ids, replaced=2), "ablated": clt.run(ids, clamp(ablate)),
              "clamped": clt.run(ids, clamp(set_to)), "both": clt.run(ids, clamp(both)), "steered": clt.run(ids, add=add)}
    for k, v in logits.items():
        assert k == "raw" or (v - raw)[-LAST:].abs().max() > .05, k
        tensors[f"{clt.name}/{k}"] = v[-LAST:]
    for layer in range(N):
        assert (a[layer] > 0).any(1).all()
        tensors[f"{clt.name}/x_{layer}"] = x[layer][:ROWS]
        tensors[f"{clt.name}/features_{layer}"] = a[layer]
        tensors[f"{clt.name}/y_{layer}"] = clt.w[layer]["b_dec"] + clt.write(a, layer)[:ROWS] + clt.skip(layer, x[layer][:ROWS])
        tensors[f"{clt.name}/direct_{layer}"] = clt.w[layer]["W_dec"][:4].sum(1) @ model.lm_head.weight.T
    text, lead = clt.greedy(prompts[0]["ids"], add=add)
    assert lead > 5e-3 and text != prompts[0]["greedy_ids"][:NEW], lead
    said[name] = {"ablate": ablate, "clamp": set_to, "both": both, "steer": [0, busiest[0], steer], "greedy": text}


for name, dtype, jump, hook, affine, seed in (("jump", torch.float32, True, "hook_resid_mid", False, 31),
                                              ("relu", torch.bfloat16, False, "mlp.hook_in", False, 32),
                                              ("affine", torch.float32, True, "mlp.hook_in", True, 33)):
    while True:
        try:
            record(name, dtype, jump, hook, affine, seed)
            break
        except AssertionError as error:
            print(name, seed, error)
            seed += 100
save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, os.path.join(here, "expected.safetensors"))
json.dump({"prompt": 1, "steered_prompt": 0, **said}, open(os.path.join(here, "expected.json"), "w"), indent=1)
print({k: tuple(v.shape) for k, v in tensors.items() if k.startswith("jump")})
