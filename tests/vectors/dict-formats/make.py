#!/usr/bin/env python3
"""One small dictionary in each file format that people publish, as its own library writes it (numpy.savez, torch.save,
safetensors; folders and names included), and what it makes of some rows, computed here in float64 NumPy from that
format's formula. `python make.py`, with numpy 2.4, torch 2.15, safetensors 0.8; nothing of steerd is imported.

expected.safetensors, for each NAME of cases.json: NAME/x, NAME/y (transcoders), NAME/norms, NAME/features (folded),
NAME/reconstruction, NAME/errors. cases.json: [name, path, title, point, point written]."""
import json, os, shutil
import numpy as np
import torch
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))
D, Z, F, ROWS, K = 16, 24, 32, 8, 4
expected, cases = {}, []


def t(a, dtype=torch.float32):
    return torch.tensor(np.ascontiguousarray(a), dtype=dtype)


def make(seed, d_in=D, d_out=D, dtype=torch.float32):
    """weights as the file will have them, back in float64"""
    rng = np.random.default_rng(seed)
    w = dict(W_enc=rng.normal(size=(d_in, F)) / np.sqrt(d_in), W_dec=rng.normal(size=(F, d_out)) * rng.uniform(.4, 2, (F, 1)),
             b_enc=rng.normal(size=F) * .3 - .2, b_dec=rng.normal(size=d_out) * .4)
    return rng, {k: t(v, dtype).double().numpy() for k, v in w.items()}


def f32(a):
    return torch.tensor(np.ascontiguousarray(a, dtype=np.float32))


def topk(p, k):
    a, s = np.maximum(p, 0), -np.sort(-p, axis=1)
    assert (s[:, k - 1] - s[:, k]).min() > 2e-5  # no choice hangs on rounding
    return np.where(p >= s[:, k - 1:k], a, 0)


def jump(p, threshold):
    assert np.abs(p - threshold).min() > 2e-5
    return np.where(p > threshold, np.maximum(p, 0), 0)


def record(name, path, title, point, w, rng, act, out=None, subtract=True, s=1., s_out=None, norm=None, skip=None):
    """the rows, and what act() makes of p"""
    s_out = s if s_out is None else s_out
    x = np.float32(rng.normal(size=(ROWS, w["W_enc"].shape[0])) * 1.2 + .3)
    y = np.float32(rng.normal(size=(ROWS, w["W_dec"].shape[1]))) if out else x
    x64, u, back = x.astype(np.float64), x.astype(np.float64) * s, lambda r: r / s_out
    if norm == "layer":
        mu, sd = x64.mean(1, keepdims=True), x64.std(1, ddof=1, keepdims=True)
        u, back = (x64 - mu) / (sd + 1e-5), lambda r: r * sd + mu
    a = act((u - (w["b_dec"] if subtract else 0)) @ w["W_enc"] + w.get("b_enc", 0))
    x_hat = back(a @ w["W_dec"] + w["b_dec"])
    if skip is not None:
        x_hat = x_hat + x64 @ skip
    n = np.linalg.norm(w["W_dec"], axis=1) / s_out
    assert (a > 0).any(1).all()
    expected.update({f"{name}/{k}": f32(v) for k, v in dict(x=x, norms=n, features=a * n, reconstruction=x_hat,
                                                            errors=y - x_hat).items()})
    if out:
        expected[name + "/y"] = f32(y)
    cases.append([name, path, title, point, out or point])


def at(*parts):
    path = os.path.join(here, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def put_json(value, *parts):
    json.dump(value, open(at(*parts), "w"), indent=1)


for old in os.listdir(here):
    if os.path.isdir(os.path.join(here, old)):
        shutil.rmtree(os.path.join(here, old))
relu = lambda p: np.maximum(p, 0)

# ---- Gemma Scope: params.npz, everything else in the folders' names
for name, repo, folder, site, out, d_in in (
        ("gemma-res", "gemma-scope-2b-pt-res", "layer_1/width_16k/average_l0_71", "blocks.1.hook_resid_post", None, D),
        ("gemma-mlp", "gemma-scope-2b-pt-mlp", "layer_0/width_16k/average_l0_9", "blocks.0.hook_mlp_out", None, D),
        ("gemma-att", "gemma-scope-2b-pt-att", "layer_1/width_16k/average_l0_31", "blocks.1.attn.hook_z", None, Z),
        ("gemma-tc", "gemma-scope-2b-pt-transcoders", "layer_1/width_16k/average_l0_12", "blocks.1.ln2.hook_normalized",
         "blocks.1.hook_mlp_out", D)):
    rng, w = make(len(name) * 7, d_in, d_in)
    threshold = np.float32(rng.uniform(.05, .6, F)).astype(np.float64)
    spell = str.lower if name == "gemma-mlp" else str
    params = {spell(k) if k.startswith("W") else k: np.float32(v) for k, v in {**w, "threshold": threshold}.items()}
    np.savez(at(repo, folder, "params.npz"), **params)
    record(name, f"{repo}/{folder}", "jumprelu" + (" transcoder" if out else ""), site, w, rng,
           lambda p, th=threshold: jump(p, th), out=out, subtract=False)

# ---- Gemma Scope 2: the skip connection is used as it lies, x @ A
rng, w = make(21)
threshold, skip = np.float32(rng.uniform(.05, .6, F)).astype(np.float64), np.float32(rng.normal(size=(D, D)) * .3)
leaf = ("gemma-scope-2-270m-pt", "transcoder", "layer_1_width_16k_l0_small_affine")
put_json({"architecture": "jump_relu", "model_name": "google/gemma-3-270m", "l0": 10, "width": 16384, "affine_connection": True,
          "hf_hook_point_in": "model.layers.1.pre_feedforward_layernorm.output",
          "hf_hook_point_out": "model.layers.1.post_feedforward_layernorm.output"}, *leaf, "config.json")
save_file({**{k.lower(): t(v) for k, v in w.items()}, "threshold": t(threshold), "affine_skip_connection": t(skip)},
          at(*leaf, "params.safetensors"))
record("gemma2-skip", "/".join(leaf), "jumprelu skip transcoder", "blocks.1.mlp.hook_in", w, rng,
       lambda p: jump(p, threshold), out="blocks.1.hook_mlp_out", subtract=False, skip=skip.astype(np.float64))
rng, w = make(22)
th2 = np.float32(rng.uniform(.05, .6, F)).astype(np.float64)
leaf = ("gemma-scope-2-270m-pt", "resid_post", "layer_0_width_16k_l0_medium")  # without config.json
save_file({**{k.lower(): t(v) for k, v in w.items()}, "threshold": t(th2)}, at(*leaf, "params.safetensors"))
record("gemma2-res", "/".join(leaf), "jumprelu", "blocks.0.hook_resid_post", w, rng, lambda p: jump(p, th2), subtract=False)


# ---- modules: nn.Linear keeps [outputs, inputs]
def modules(w, enc="encoder", dec="decoder", dtype=torch.float32):
    return {f"{enc}.weight": t(w["W_enc"].T, dtype), f"{enc}.bias": t(w["b_enc"], dtype), f"{dec}.weight": t(w["W_dec"].T, dtype)}


# ---- Llama Scope: bf16, one threshold, rows scaled to length sqrt(d)
for name, folder, hook, out, avg_out in (("llama-res", "Llama3_1-8B-Base-L1R-8x", "blocks.1.hook_resid_post", None, 3.),
                                         ("llama-tc", "Llama3_1-8B-Base-L1TC-8x", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out", 2.5)):
    rng, w = make(31 + len(name), dtype=torch.bfloat16)
    s, s_out = np.sqrt(D) / 3., np.sqrt(D) / avg_out
    put_json({"d_model": D, "d_sae": F, "act_fn": "jumprelu", "jump_relu_threshold": .25, "norm_activation": "dataset-wise",
              "dataset_average_activation_norm": {"in": 3., "out": avg_out}, "hook_point_in": hook, "hook_point_out": out or hook,
              "sparsity_include_decoder_norm": True, "use_decoder_bias": True}, folder, "hyperparams.json")
    save_file({**modules(w, dtype=torch.bfloat16), "decoder.bias": t(w["b_dec"], torch.bfloat16)},
              at(folder, "checkpoints", "final.safetensors"))
    record(name, folder, "jumprelu" + (" transcoder" if out else ""), hook, w, rng, lambda p, s=s: jump(p, .25 * s), out=out,
           subtract=False, s=s, s_out=s_out if out else None)
rng, w = make(41)
log_threshold = np.float32(rng.normal(size=F) * .4 - 1.2)
put_json({"d_model": D, "expansion_factor": F // D, "act_fn": "jumprelu", "norm_activation": "dataset-wise",
          "dataset_average_activation_norm": {"in": 5.}, "hook_point_in": "blocks.1.hook_resid_post",
          "hook_point_out": "blocks.1.hook_resid_post"}, "r1", "L1R", "config.json")
save_file({**modules(w), "decoder.bias": t(w["b_dec"]), "log_jumprelu_threshold": t(log_threshold)}, at("r1", "L1R", "sae_weights.safetensors"))
record("llama-r1", "r1/L1R", "jumprelu", "blocks.1.hook_resid_post", w, rng,
       lambda p: jump(p, np.exp(log_threshold.astype(np.float64))), subtract=False, s=np.sqrt(D) / 5.)


# ---- sparsify: W_dec [features, outputs] as it is; the folder's name is the module's
def groupmax(p):
    a, out = relu(p).reshape(ROWS, K, F // K), np.zeros((ROWS, K, F // K))
    top = np.sort(a, axis=2)
    assert (top[:, :, -1] - top[:, :, -2])[top[:, :, -1] > 0].min() > 2e-5
    np.put_along_axis(out, a.argmax(2)[:, :, None], a.max(2)[:, :, None], 2)
    return out.reshape(ROWS, F)


for name, repo, folder, cfg, title, point, out, act in (
        ("sparsify", "sae-toy", "layers.1", dict(activation="topk", expansion_factor=2, num_latents=0), "topk",
         "blocks.1.hook_resid_post", None, lambda p: topk(p, K)),
        ("sparsify-groupmax", "sae-toy", "layers.0.mlp", dict(activation="groupmax", num_latents=F, expansion_factor=32), "groupmax",
         "blocks.0.hook_mlp_out", None, groupmax),
        ("sparsify-skip", "skip-toy", "layers.1.mlp", dict(activation="topk", num_latents=F, transcode=True, skip_connection=True),
         "topk skip transcoder", "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out", lambda p: topk(p, K))):
    rng, w = make(50 + len(name))
    state = {"encoder.weight": t(w["W_enc"].T), "encoder.bias": t(w["b_enc"]), "W_dec": t(w["W_dec"]), "b_dec": t(w["b_dec"])}
    skip = np.float32(rng.normal(size=(D, D)) * .2) if out else None
    if out:
        state["W_skip"] = t(skip)
    put_json({"d_in": D, "k": K, "multi_topk": False, "normalize_decoder": True, "signed": False, **cfg}, repo, folder, "cfg.json")
    save_file(state, at(repo, folder, "sae.safetensors"))
    record(name, f"{repo}/{folder}", title, point, w, rng, act, out=out, subtract=not out,
           skip=skip.T.astype(np.float64) if out else None)  # x @ W_skip.T


# ---- dictionary_learning: the class says it all
def gated(w, rng):
    w.update(b_mag=np.float32(rng.normal(size=F) * .3).astype(np.float64), r_mag=np.float32(rng.normal(size=F) * .4).astype(np.float64))

    def act(gate):
        assert np.abs(gate).min() > 2e-5
        return (gate > 0) * relu((gate - w["b_enc"]) * np.exp(w["r_mag"]) + w["b_mag"])
    return act


for name, cls in (("dl-standard", "AutoEncoder"), ("dl-new", "AutoEncoderNew"), ("dl-gated", "GatedAutoEncoder"),
                  ("dl-jump", "JumpReluAutoEncoder"), ("dl-topk", "AutoEncoderTopK"), ("dl-batchtopk", "BatchTopKSAE"),
                  ("dl-matryoshka", "MatryoshkaBatchTopKSAE")):
    seed = 60 + len(name)
    while True:
        try:
            rng, w = make(seed)
            b = {"b_enc": t(w["b_enc"]), "b_dec": t(w["b_dec"])}
            rows = {"W_enc": t(w["W_enc"]), "W_dec": t(w["W_dec"])}
            th = np.float32(rng.uniform(.05, .6, F)).astype(np.float64)
            state, act, title = {
                "AutoEncoder": ({**modules(w), "bias": b["b_dec"]}, relu, "relu"),
                "AutoEncoderNew": ({**modules(w), "decoder.bias": b["b_dec"]}, relu, "relu"),
                "GatedAutoEncoder": (None, None, "gated"),
                "JumpReluAutoEncoder": ({**rows, **b, "threshold": t(th)}, lambda p: jump(p, th), "jumprelu"),
                "AutoEncoderTopK": ({**modules(w), "b_dec": b["b_dec"], "k": torch.tensor(K), "threshold": torch.tensor(9.)},
                                    lambda p: topk(p, K), "topk"),
                "BatchTopKSAE": ({**modules(w), "b_dec": b["b_dec"], "k": torch.tensor(K), "threshold": torch.tensor(.4)},
                                 lambda p: jump(p, np.float64(np.float32(.4))), "jumprelu"),
                "MatryoshkaBatchTopKSAE": ({**rows, **b, "k": torch.tensor(K), "threshold": torch.tensor(.4),
                                            "group_sizes": torch.tensor([8, 8, 16])}, lambda p: jump(p, np.float64(np.float32(.4))), "jumprelu"),
            }[cls]
            if cls == "GatedAutoEncoder":
                act = gated(w, rng)
                state = {"encoder.weight": t(w["W_enc"].T), "decoder.weight": t(w["W_dec"].T), "decoder_bias": b["b_dec"],
                         "r_mag": t(w["r_mag"]), "gate_bias": b["b_enc"], "mag_bias": t(w["b_mag"])}
            folder = f"dictionary_learning/{name}/trainer_0"
            record(name, folder, title, "blocks.1.hook_resid_post", w, rng, act, subtract=cls not in ("AutoEncoderNew", "JumpReluAutoEncoder"))
            break
        except AssertionError:
            seed += 100
    put_json({"trainer": {"trainer_class": "X", "dict_class": cls, "activation_dim": D, "dict_size": F, "layer": 1, "k": K, "lm_name": "toy/toy",
                          "submodule_name": "resid_post_layer_1"}, "buffer": {"d_submodule": D, "ctx_len": 128, "refresh_batch_size": 32}},
             folder, "config.json")
    torch.save(state, at(folder, "ae.pt"))

# ---- OpenAI: texts and dicts beside the tensors
for name, version, activation, kwargs in (("openai-topk", "v5_32k", "TopK", {"k": K, "postact_fn": "ReLU"}), ("openai-relu", "v4", "ReLU", {})):
    rng, w = make(80 + len(name))
    path = f"gpt2-small/resid_post_attn/{version}/autoencoders/1.pt"
    torch.save({"pre_bias": t(w["b_dec"]), "latent_bias": t(w["b_enc"]), "encoder.weight": t(w["W_enc"].T), "decoder.weight": t(w["W_dec"].T),
                "stats_last_nonzero": torch.zeros(F, dtype=torch.int64), "activation": activation, "activation_state_dict": kwargs}, at(path))
    record(name, path, activation.lower(), "blocks.1.hook_resid_mid", w, rng, (lambda p: topk(p, K)) if kwargs else relu,
           norm="layer" if kwargs else None)

# ---- attention SAEs, with a description beside
rng, w = make(91, Z, Z)
torch.save({k: t(v) for k, v in w.items()}, at("attn-saes", "gpt2-small_L1_Hcat_z_lr1.20e-03_v9.pt"))
put_json({"act_name": "blocks.1.attn.hook_z", "act_size": Z, "dict_size": F, "l1_coeff": 1.8, "model_name": "gpt2-small"},
         "attn-saes", "gpt2-small_L1_Hcat_z_lr1.20e-03_v9_cfg.json")
record("attention", "attn-saes/gpt2-small_L1_Hcat_z_lr1.20e-03_v9.pt", "relu", "blocks.1.attn.hook_z", w, rng, relu)

# ---- an encoder and a decoder module, the layer in the name
for name, file, enc, dec in (("goodfire", "Toy-Instruct-SAE-l1.pth", "encoder_linear", "decoder_linear"), ("qresearch", "toy-r1-l1-v2.pt", "encoder", "decoder")):
    rng, w = make(95 + len(name))
    torch.save({**modules(w, enc, dec), f"{dec}.bias": t(w["b_dec"])}, at("pairs", file))
    record(name, f"pairs/{file}", "relu", "blocks.1.hook_resid_post", w, rng, relu, subtract=False)

# ---- circuit-tracer: W_enc [features, inputs]; W_dec was once [outputs, features]
for name, folder, site, turned, skip in (("ct-plain", "ct-toy", "mlp.hook_in", False, False), ("ct-skip-old", "ct-old", "hook_resid_mid", True, True)):
    rng, w = make(101 + len(name))
    state = {"W_enc": t(w["W_enc"].T), "W_dec": t(w["W_dec"].T if turned else w["W_dec"]), "b_enc": t(w["b_enc"]), "b_dec": t(w["b_dec"])}
    s = np.float32(rng.normal(size=(D, D)) * .2)
    if skip:
        state["W_skip"] = t(s)
    save_file(state, at(folder, "layer_1.safetensors"))
    open(at(folder, "config.yaml"), "w").write(f'''# as published
model_name: "toy"
model_kind: transcoder_set
feature_input_hook: {site}   # before
feature_output_hook: 'hook_mlp_out'
scan: toy
transcoders:
- hf://x/y/layer_0.safetensors@main
''')
    record(name, f"{folder}/layer_1.safetensors", "relu" + (" skip" if skip else "") + " transcoder", f"blocks.1.{site}", w, rng, relu,
           out="blocks.1.hook_mlp_out", subtract=False, skip=s.T.astype(np.float64) if skip else None)

# ---- the other things a config.yaml says: TopK, and a threshold that makes a JumpReLU whatever it says
for name, folder, line in (("ct-topk", "ct-topk", f"activation: topk\nk: {K}\n"), ("ct-jump", "ct-jump", "")):
    rng, w = make(131 + len(name) + len(line))
    state = {"W_enc": t(w["W_enc"].T), "W_dec": t(w["W_dec"]), "b_enc": t(w["b_enc"]), "b_dec": t(w["b_dec"])}
    th3 = np.float32(rng.uniform(.05, .6, F)).astype(np.float64)
    if not line:
        state["threshold"] = t(th3)
    save_file(state, at(folder, "layer_1.safetensors"))
    open(at(folder, "config.yaml"), "w").write("model_name: toy\nmodel_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n"
                                               "feature_output_hook: hook_mlp_out\n" + line)
    record(name, f"{folder}/layer_1.safetensors", ("topk" if line else "jumprelu") + " transcoder", "blocks.1.mlp.hook_in", w, rng,
           (lambda p: topk(p, K)) if line else lambda p, th=th3: jump(p, th), out="blocks.1.hook_mlp_out", subtract=False)

# ---- Gemma Scope 2 at the other sites: what attention's output projection reads, and what the MLP adds
for name, leaf, hook, site, d_in in (
        ("gemma2-att", "attn_out/layer_1_width_16k_l0_small", "model.layers.1.self_attn.o_proj.input", "blocks.1.attn.hook_z", Z),
        ("gemma2-mlp", "mlp_out/layer_0_width_16k_l0_big", "model.layers.0.post_feedforward_layernorm.output", "blocks.0.hook_mlp_out", D)):
    rng, w = make(141 + d_in, d_in, d_in)
    th4 = np.float32(rng.uniform(.05, .6, F)).astype(np.float64)
    put_json({"architecture": "jump_relu", "model_name": "google/gemma-3-270m", "l0": 10, "width": 16384, "hf_hook_point_in": hook},
             "gemma-scope-2-270m-pt", leaf, "config.json")
    save_file({**{k.lower(): t(v) for k, v in w.items()}, "threshold": t(th4)}, at("gemma-scope-2-270m-pt", leaf, "params.safetensors"))
    record(name, f"gemma-scope-2-270m-pt/{leaf}", "jumprelu", site, w, rng, lambda p, th=th4: jump(p, th), subtract=False)

# ---- described in described.ini: tied weights (z W, the k largest, back through W transposed), and names of their own
rng, w = make(110)
tied = np.float32(w["W_enc"])
torch.save({"encoder.weight": torch.tensor(tied.T.copy())}, at("plain", "tied.pth"))
w = {"W_enc": tied.astype(np.float64), "W_dec": tied.T.astype(np.float64), "b_dec": np.zeros(D)}
record("tied", "described.ini", "topk", "blocks.1.hook_resid_pre", w, rng, lambda p: topk(p, K), subtract=False)
rng, w = make(111)
np.savez_compressed(at("plain", "names.npz"), enc=np.asfortranarray(np.float32(w["W_enc"].T)), dec=np.float16(w["W_dec"]), be=np.float32(w["b_enc"]), bd=w["b_dec"])
w["W_dec"] = np.float16(w["W_dec"]).astype(np.float64)
record("named", "described.ini", "jumprelu", "blocks.0.hook_resid_mid", w, rng, lambda p: jump(p, .3), s=.5)
rng, w = make(112)
save_file({"enc": t(w["W_enc"]), "gate": t(w["b_enc"]), "mag": t(w["b_enc"] * .5 + .1), "r": t(w["b_enc"] * .7), "dec": t(w["W_dec"].T),
           "bias": t(w["b_dec"])}, at("plain", "gated.safetensors"))
w.update({k: np.float32(v).astype(np.float64) for k, v in {"b_mag": w["b_enc"] * .5 + .1, "r_mag": w["b_enc"] * .7}.items()})
record("plain-gated", "described.ini", "gated", "blocks.1.hook_mlp_out", w, rng,
       lambda p: (p > 0) * relu((p - w["b_enc"]) * np.exp(w["r_mag"]) + w["b_mag"]))
open(at("described.ini"), "w").write("""; Weights without a description. STEERD_DATA is the folder above this one's in the tests.
[source tied]
weights = dict-formats/plain/tied.pth
kind = topk
k = 4
point = blocks.1.hook_resid_pre
apply_b_dec_to_input = no
w_enc = encoder.weight transposed
b_enc = none
b_dec = none
tied = yes

[source named]
weights = dict-formats/plain/names.npz
kind = jumprelu
threshold = 0.3
point = resid_mid.0
normalize = scale
scale = 0.5
w_enc = enc transposed
w_dec = dec
b_enc = be
b_dec = bd

[source plain-gated]
weights = dict-formats/plain/gated.safetensors
kind = gated
point = mlp_out.1
w_enc = enc
w_dec = dec transposed
b_enc = gate
b_mag = mag
r_mag = r
b_dec = bias
""")
save_file(expected, os.path.join(here, "expected.safetensors"))
open(os.path.join(here, "cases.json"), "w").write("[" + ",\n".join(json.dumps(c) for c in cases) + "]\n")
print(len(cases), "dictionaries")
