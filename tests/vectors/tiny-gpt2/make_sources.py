#!/usr/bin/env python3
"""Makes dictionaries for the tiny GPT-2 in SAELens' own format, what they must answer, and what steering with one of
them must do (README.md says what is where). Run it after make_tiny_gpt2.py, with no arguments.

sae_lens writes every folder but the old-style one, reads all of them back and encodes and decodes (in float64). What
SAELens leaves to others is done here in plain torch and named so: folding, centring, steering."""
import json
import os
import shutil
import warnings

import sae_lens
import torch
import transformers
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from reference import HERE, f32, greedy, load_model, run, sha256, versions, write_json

warnings.filterwarnings("ignore", category=UserWarning)  # sae_lens warns of model_from_pretrained_kwargs: wanted here

SOURCES = os.path.join(HERE, "sources")
D, F, K = 48, 96, 8
STEER_SOURCE = "1-res-relu"
STEER = {"simple_additive": [(3, 4.0), (17, -2.5)], "orthogonal_decomp": [(3, 4.0)]}  # (feature, strength)
MIN_MARGIN = 1e-4  # no feature may hang on rounding: float32 moves pre-activations here by about 1e-5
MIN_LEAD = 5e-3

# id: architecture, point, what differs from the defaults
KINDS = {
    "0-mlp-topk": ("topk", "blocks.0.hook_mlp_out", {}),
    "1-res-relu": ("standard", "blocks.1.hook_resid_pre", {}),
    "1-res-old": ("old", "blocks.1.hook_resid_pre", {}),
    "2-res-jump": ("jumprelu", "blocks.2.hook_resid_post", {"apply_b_dec_to_input": False}),
    "2-res-bf16": ("standard", "blocks.2.hook_resid_pre", {"dtype": "bfloat16"}),
    "2-res-center": ("standard", "blocks.1.hook_resid_post", {"center": True}),
}
# Found by trying 100, 101, ... until every position of the prompts had 3 to 30 active features, none by a hair.
SEEDS = {**{name: 100 for name in KINDS}, "1-res-relu": 113}


def centred(x):
    return x - x.mean(-1, keepdim=True)


def corpus_rows(model, point):
    """Rows of a point over other text than the prompts; every 33rd is BOS."""
    tok = transformers.AutoTokenizer.from_pretrained(os.path.join(HERE, "model"))
    with open(os.path.join(HERE, "tokenizer_text.txt"), encoding="utf-8") as file:
        ids = tok(file.read()).input_ids
    return torch.cat([run(model, [511] + ids[i:i + 32])[0][point] for i in range(0, len(ids), 32)])


def make_weights(rows, seed, share, apply_b_dec):
    """Detectors and directions that belong together, as after training: a feature reads about what it writes, and its
    bias lets it fire on `share` of the rows. Decoder norms go from 0.4 to 2.5, so that folding matters."""
    g = torch.Generator().manual_seed(seed)
    mean = rows.mean(0)
    picks = rows[torch.randint(len(rows), (F,), generator=g)] - mean
    noise = torch.randn(F, D, generator=g, dtype=torch.float64)
    unit = torch.nn.functional.normalize(picks / picks.norm(dim=1, keepdim=True) + 0.1 * noise, dim=1)
    norm = 0.4 * (2.5 / 0.4) ** torch.rand(F, 1, generator=g, dtype=torch.float64)
    b_dec = mean + 0.3 * torch.randn(D, generator=g, dtype=torch.float64)
    w_enc = ((unit + 0.03 * torch.randn(F, D, generator=g, dtype=torch.float64)) / norm).T
    pre = (rows - b_dec if apply_b_dec else rows) @ w_enc
    b_enc = -torch.quantile(pre, 1 - share, dim=0)
    return {"W_enc": w_enc, "W_dec": unit * norm, "b_enc": b_enc, "b_dec": b_dec}


def metadata(name, point, center):
    meta = {"model_name": "tiny-gpt2", "hook_name": point, "hook_head_index": None, "prepend_bos": True, "context_size": 128,
            "dataset_path": "none", "neuronpedia_id": f"tiny-gpt2/{name}"}
    if center:
        meta["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    return sae_lens.saes.sae.SAEMetadata(**meta)


def save_new(name, arch, point, options, weights):
    """A folder as sae_lens 6 saves it."""
    options = dict(options)
    center = options.pop("center", False)
    if arch == "topk":
        options["k"] = K
    config_class = {"standard": sae_lens.StandardSAEConfig, "jumprelu": sae_lens.JumpReLUSAEConfig,
                    "topk": sae_lens.TopKSAEConfig}[arch]
    sae_class = {"standard": sae_lens.StandardSAE, "jumprelu": sae_lens.JumpReLUSAE, "topk": sae_lens.TopKSAE}[arch]
    config = config_class(d_in=D, d_sae=F, metadata=metadata(name, point, center), **options)
    sae = sae_class(config)
    sae.load_state_dict({key: value.to(sae.W_enc.dtype).contiguous() for key, value in weights.items()})
    sae.save_model(os.path.join(SOURCES, name))


def save_old(name, point, weights):
    """A folder as SAELens wrote it before version 6: one flat cfg.json, other names, no architecture."""
    folder = os.path.join(SOURCES, name)
    os.makedirs(folder)
    save_torch({key: value.float().contiguous() for key, value in weights.items()},
               os.path.join(folder, "sae_weights.safetensors"))
    write_json(os.path.join(folder, "cfg.json"), {
        "model_name": "tiny-gpt2", "hook_point": point, "hook_point_layer": 1, "hook_point_head_index": None,
        "dataset_path": "none", "is_dataset_tokenized": False, "context_size": 128, "use_cached_activations": False,
        "d_in": D, "d_sae": F, "expansion_factor": 2, "activation_fn_str": "relu", "normalize_activations": False,
        "dtype": "torch.float32", "device": "mps", "seed": 42, "b_dec_init_method": "geometric_median",
        "l1_coefficient": 8e-05, "lr": 0.0004, "lr_scheduler_name": "constantwithwarmup", "train_batch_size": 4096,
        "use_ghost_grads": False, "feature_sampling_window": 1000, "dead_feature_threshold": 1e-08,
        "log_to_wandb": False, "checkpoint_path": "checkpoints/none"})


def save_sources(model):
    shutil.rmtree(SOURCES, ignore_errors=True)
    for name in KINDS:
        save_source(name, model)


def save_source(name, model):
    arch, point, options = KINDS[name]
    rows = corpus_rows(model, point)
    if options.get("center"):
        rows = centred(rows)
    share = 0.14  # TopK too: some rows then have fewer than k positive values
    weights = make_weights(rows, SEEDS[name], share, options.get("apply_b_dec_to_input", True))
    if arch == "jumprelu":
        # The bias lets a feature through more often and the threshold takes that back; one in eight thresholds is
        # negative, where a pre-activation below zero must still give zero.
        low = weights["b_enc"].abs() * 0.2
        weights["b_enc"] += low
        weights["threshold"] = torch.where(torch.arange(F) % 8 == 7, -0.5 * low, low)
        weights["b_enc"] -= torch.where(torch.arange(F) % 8 == 7, low, torch.zeros(F, dtype=low.dtype))
    if arch == "old":
        save_old(name, point, weights)
    else:
        save_new(name, arch, point, options, weights)


def check_margins(name, sae, x, raw):
    """Which features fire must not hang on rounding."""
    pre = (x - sae.b_dec if sae.cfg.apply_b_dec_to_input else x) @ sae.W_enc + sae.b_enc
    if isinstance(sae, sae_lens.TopKSAE):
        best = pre.topk(K + 1, dim=1).values
        assert float((best[:, K - 1] - best[:, K]).min()) > MIN_MARGIN, name
    elif isinstance(sae, sae_lens.JumpReLUSAE):
        assert float((pre - sae.threshold.clamp(min=0)).abs().min()) > MIN_MARGIN, name
    active = (raw > 0).sum(1)
    assert 3 <= int(active.min()) and int(active.max()) <= 30, (name, active.tolist())
    return active


@torch.no_grad()
def expect_source(name, model, prompts, tensors):
    """Input rows, activations and reconstructions."""
    _, point, options = KINDS[name]
    folder = os.path.join(SOURCES, name)
    sae = sae_lens.SAE.load_from_disk(folder, dtype="float64")
    folded = None  # sae_lens refuses to fold TopK, as selection would change
    if sae.cfg.architecture() != "topk":
        folded = sae_lens.SAE.load_from_disk(folder, dtype="float64", fold_W_dec_norm=True)
    assert sae.W_enc.dtype == torch.float64 and sae.cfg.metadata.hook_name == point
    norms = sae.W_dec.norm(dim=1)
    tensors[f"{name}/norms"] = f32(norms)
    low, high = F, 0
    for p, prompt in enumerate(prompts):
        if p == 2 and name != STEER_SOURCE:
            continue  # one source with every prompt is enough, the file should stay small
        x = run(model, prompt["ids"])[0][point].float()  # the recorded float32 row is the input, exactly
        seen = centred(x.double()) if options.get("center") else x.double()
        raw = sae.encode(seen)
        active = check_margins(name, sae, seen, raw)
        low, high = min(low, int(active.min())), max(high, int(active.max()))
        if folded is not None:  # SAELens' own folding agrees, up to float64 rounding
            assert torch.allclose(folded.encode(seen), raw * norms, rtol=0, atol=1e-9)
            assert torch.allclose(folded.decode(raw * norms), sae.decode(raw), rtol=0, atol=1e-9)
        tensors[f"{name}/p{p}/input"] = f32(x)
        tensors[f"{name}/p{p}/features"] = f32(raw * norms)
        tensors[f"{name}/p{p}/reconstruction"] = f32(sae.decode(raw))
    return {"point": point, "architecture": sae.cfg.architecture(), "apply_b_dec_to_input": sae.cfg.apply_b_dec_to_input,
            "l0": [low, high], "norms": [round(float(norms.min()), 4), round(float(norms.max()), 4)]}


def make_edit(method, rows):
    """rows: (unit vector, strength). Every position, BOS too."""
    def additive(h):
        for unit, strength in rows:
            h = h + strength * unit
        return h

    def orthogonal(h):
        for unit, strength in rows:
            h = h + (strength - 1) * (h @ unit).unsqueeze(-1) * unit
        return h
    return {"simple_additive": additive, "orthogonal_decomp": orthogonal}[method]


def expect_steering(model, prompts, tokenizer, tensors):
    path = os.path.join(SOURCES, STEER_SOURCE, "sae_weights.safetensors")
    decoder = torch.tensor(load_file(path)["W_dec"]).double()
    point, out = KINDS[STEER_SOURCE][1], {}
    for method, features in STEER.items():
        rows = [(decoder[i] / decoder[i].norm(), strength) for i, strength in features]
        edits = {point: make_edit(method, rows)}
        tensors[f"steered/{method}/p0/logits"] = f32(run(model, prompts[0]["ids"], edits)[1])
        texts = []
        for p in (0, 1):
            new, lead = greedy(model, prompts[p]["ids"], 24, edits)
            assert new == greedy(model, prompts[p]["ids"], 24, edits, cached=True)[0]
            assert lead > MIN_LEAD and 511 not in new and new != prompts[p]["greedy_ids"], (method, p, lead)
            assert "\ufffd" not in tokenizer.decode(new)
            tensors[f"steered/{method}/p{p}/greedy"] = torch.tensor(new, dtype=torch.int32).numpy()
            texts.append({"prompt": p, "greedy_ids": new, "greedy_text": tokenizer.decode(new),
                          "smallest_lead": round(lead, 5)})
            print(method, p, round(lead, 5), repr(texts[-1]["greedy_text"]))
        out[method] = {"source": STEER_SOURCE, "point": point, "continuations": texts,
                       "features": [{"index": i, "strength": strength} for i, strength in features]}
    return out


def main():
    torch.set_num_threads(1)
    with open(os.path.join(HERE, "expected.json"), encoding="utf-8") as file:
        prompts = json.load(file)["prompts"]
    model = load_model("model")
    save_sources(model)
    tensors = {}
    sources = {name: expect_source(name, model, prompts, tensors) for name in KINDS}
    for name, row in sources.items():
        print(name, row)
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.join(HERE, "model"))
    steered = expect_steering(model, prompts, tokenizer, tensors)
    save_file(tensors, os.path.join(HERE, "expected-sources.safetensors"))
    write_json(os.path.join(HERE, "expected-sources.json"), {
        "seeds": SEEDS, "versions": {**versions(), "sae_lens": sae_lens.__version__}, "sources": sources, "steered": steered,
        "sha256": {name: sha256(os.path.join(SOURCES, name, "sae_weights.safetensors")) for name in KINDS}})


if __name__ == "__main__":
    main()
