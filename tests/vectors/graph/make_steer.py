#!/usr/bin/env python3
"""Texts that go on with features of a graph turned up or down: steer.json. Models, texts and transcoders are those of expected.json.

What is meant is circuit-tracer's feature_intervention_generate (0.5.0), done again here with transformers in float64, without a cache: every token
is a run over the whole text. At the output of a transcoder's layer, (value - activation) times the feature's decoder row is added, with the
activation that the feature has in the run itself; a cross-layer transcoder adds to each layer that it writes. `value` is 0, or the activation in
a run without steering plus a difference. With frozen attention the prompt's tokens look at each other as they do in that run; norms are never held.
With --check the first expected token of each case is circuit-tracer's own, run over transformer_lens' model of the same weights.

    CASE: set, prompt, ids              the case of expected.json that it belongs to
    steered [{nodes [{layer, index, active, position or null (all that is generated), delta or null (0 instead)}], frozen, free}]
          delta raw, as activations are in expected.json; frozen: with held attention, free: without
    default, frozen, free: {ids [n], top [n + 1][5] {id: probability}}          greedy; top[k] is what was expected behind ids[k - 1]; [0] behind the prompt
"""
import importlib.util
import json
import os
import sys

import torch
import transformers
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
spec = importlib.util.spec_from_file_location("graph_make", os.path.join(HERE, "make.py"))  # another folder has a make.py too
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
from replaced import D64, Replaced  # noqa: E402
from reference import load_model, write_json  # noqa: E402

N_TOKENS, MIN_LEAD = 4, 2e-3  # of the likeliest probability over the next, relative: no token hangs on float32
LOADS = {"gpt2": make.load_layer, "jump": make.load_cross, "affine": make.load_cross}


class Steered(Replaced):
    """Patterns are held over the first `n` tokens, or not at all; `nodes` [(layer, index, position or None, value)] are put to their values."""

    def plan(self, layers, nodes, n):
        self.layers, self.nodes, self.n, self.added = layers, nodes, n, {}

    def take_norm(self, name, module):
        super().take_norm(name, module)
        held = module.forward

        def forward(x):
            self.kept.pop(name, None)
            return held(x)
        module.forward = forward

    def write(self, layer, y):
        self.seen["hook_mlp_out", layer] = y[0]
        if layer in self.layers:
            self.turn(layer, self.layers[layer].encode(self.read(layer)))
        return (y[0] + self.added[layer])[None] if layer in self.added else None

    def turn(self, layer, activations):
        change = torch.zeros_like(activations)
        for at, index, position, value in self.nodes:
            if at == layer:
                places = slice(self.n, None) if position is None else slice(position, position + 1)
                change[places, index] = value - activations[places, index]
        for target, rows in self.layers[layer].w_dec.items():
            self.added[target] = self.added.get(target, 0) + change @ rows

    def go(self, ids, patterns=None):
        """Logits; patterns: the list of a run's, to be held over its tokens. With None they are kept in self.patterns."""
        self.embedding, self.writes, self.seen, self.normalized, self.kept, self.added = None, None, {}, {}, {}, {}
        real, seen = nn.functional.softmax, []

        def softmax(scores, dim=-1, dtype=None):
            out = real(scores.double(), dim=dim)
            if patterns is not None:
                n = patterns[len(seen)].shape[-1]
                out[..., :n, :n] = patterns[len(seen)]
            seen.append(out)
            return out
        nn.functional.softmax = softmax
        try:
            logits = self.model(torch.tensor([ids]), use_cache=False).logits[0]
        finally:
            nn.functional.softmax = real
        if patterns is None:
            self.patterns = seen
        return logits


def continued(r, ids, patterns):
    out, top, ids = [], [], list(ids)
    for _ in range(N_TOKENS + 1):
        p = torch.softmax(r.go(ids, patterns)[-1], -1)
        best = p.topk(5)
        assert float(best.values[0] / best.values[1]) - 1 > MIN_LEAD, "a token hangs on rounding: choose other nodes"
        top.append({str(i): float(f"{v:.9g}") for i, v in zip(best.indices.tolist(), best.values.tolist())})
        out.append(int(best.indices[0]))
        ids.append(out[-1])
    return {"ids": out[:-1], "top": top}


def told(layer, index, active, position, delta):
    return {"layer": layer, "index": index, "active": active, "position": position, "delta": delta}


def choose(case):
    """Kinds of nodes: all of one layer off; one up at its own token and two of its neighbours'; some off and one up while text is generated."""
    features = [f for f in case["features"] if f[1] > 0]
    first, last = [f for f in features if f[0] == 0], [f for f in features if f[0] == features[-1][0]]
    some = first[len(first) // 2]
    yield [told(layer, index, position, position, None) for layer, position, index in first]
    yield [told(some[0], some[2], some[1], some[1], 2.5), told(some[0], some[2], some[1], 1, 1.5), told(last[0][0], last[0][2], last[0][1], last[-1][1], -1.0)]
    yield [told(layer, index, position, position, None) for layer, position, index in features[::3]] + \
          [told(last[-1][0], last[-1][2], last[-1][1], None, 3.0), told(first[0][0], first[0][2], first[0][1], None, None)]


@torch.no_grad()
def record(which, r, case, load, text):
    layers = {int(layer): load(folder, int(layer)) for layer, folder in case["sources"].items()}
    r.point, ids = case["point"], case["ids"]
    r.plan(layers, [], len(ids))
    r.go(ids)
    patterns, base = r.patterns, {layer: of.encode(r.read(layer)) for layer, of in layers.items()}
    out = {"set": case["sources"]["0"].split("/")[-1], "prompt": text, "ids": ids, "default": continued(r, ids, None), "steered": []}
    for nodes in choose(case):
        values = [(n["layer"], n["index"], n["position"], 0.0 if n["delta"] is None else float(base[n["layer"]][n["active"], n["index"]]) + n["delta"]) for n in nodes]
        r.plan(layers, values, len(ids))
        one = {"nodes": nodes, "frozen": continued(r, ids, patterns), "free": continued(r, ids, None)}
        out["steered"].append(one)
        for name in ("frozen", "free") if "--check" in sys.argv and which != "affine" else ():  # it has no cross-layer sets with a skip at mlp.hook_in
            check(which, ids, layers, values, name == "frozen", one[name]["top"][0])
    return out


# ---- circuit-tracer itself ----


def theirs(name, layers):
    """Its model of the same weights, with the same transcoders: those of a layer each, or one set that reaches across layers."""
    import huggingface_hub.constants
    huggingface_hub.constants.HF_HUB_ENABLE_HF_TRANSFER = False  # 0.5.0 asks for it; newer hubs have no such thing
    from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
    from circuit_tracer.transcoder import SingleLayerTranscoder, TranscoderSet
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    d, n = layers[0].w_enc.shape[::-1]
    if name == "gpt2":
        each = {}
        for i, of in layers.items():
            kind = torch.relu if of.threshold is None else JumpReLU(of.threshold)
            each[i] = SingleLayerTranscoder(d, n, kind, i, dtype=D64)
            each[i].load_state_dict({"W_enc": of.w_enc, "b_enc": of.b_enc, "W_dec": of.w_dec[i], "b_dec": of.b_dec}, strict=False)
        transcoders = TranscoderSet(each, "ln2.hook_normalized", "hook_mlp_out")
    else:
        transcoders = CrossLayerTranscoder(len(layers), n, d, "jump_relu", lazy_decoder=False, feature_input_hook="hook_resid_mid", dtype=D64)
        for i, of in layers.items():
            transcoders.W_enc[i], transcoders.b_enc[i], transcoders.b_dec[i] = of.w_enc, of.b_enc, of.b_dec
            transcoders.activation_function.threshold[i, 0] = of.threshold
            transcoders.W_dec[i][:] = torch.stack([of.w_dec[i + k] for k in range(len(layers) - i)], 1)
    real = load_model("model")
    c = real.config
    config = HookedTransformerConfig(n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head, n_heads=c.n_head, d_mlp=c.n_inner,
                                     d_vocab=c.vocab_size, act_fn="gelu_new", eps=c.layer_norm_epsilon, normalization_type="LN", dtype=D64, device="cpu",
                                     model_name="gpt2", original_architecture="GPT2LMHeadModel")
    model = TransformerLensReplacementModel.from_config(config, transcoders)
    missing, odd = model.load_state_dict(model_keys(convert_gpt2_weights(real, config)), strict=False)
    assert not odd and all(key.startswith("transcoders.") or key.split(".")[-1] in ("mask", "IGNORE", "b_U") for key in missing), (missing, odd)
    return model


def model_keys(weights):
    """Its MLPs and its unembedding are wrapped."""
    return {key.replace(".mlp.", ".mlp.old_mlp.").replace("unembed.", "unembed.old_unembed."): value for key, value in weights.items()}


def check(name, ids, layers, values, freeze, expected):
    """Of the token behind the prompt alone: later ones it draws without held attention, and each node at them too."""
    at_prompt = [(layer, position, index, value) for layer, index, position, value in values if position is not None]
    logits, _ = theirs(name, layers).feature_intervention(torch.tensor(ids), at_prompt, freeze_attention=freeze)
    p = torch.softmax(logits[0, -1], -1)
    off = max(abs(float(p[int(i)]) / said - 1) for i, said in expected.items())
    print(f"{name}, {len(at_prompt)} nodes, {'held' if freeze else 'free'}: off circuit-tracer by {off:.1e}")
    assert off < 1e-6


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(D64)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    make.Replaced = Steered
    cases = json.load(open(os.path.join(HERE, "expected.json"), encoding="utf-8"))
    prompt = json.load(open(os.path.join(make.TINY, "expected.json"), encoding="utf-8"))["prompts"][0]
    out = {}
    for name, load in LOADS.items():
        assert cases[name]["ids"] == prompt["ids"]
        out[name] = record(name, make.open_model("gpt2"), cases[name], load, prompt["text"])
        for one in out[name]["steered"]:
            print(name, len(one["nodes"]), out[name]["default"]["ids"], one["frozen"]["ids"], one["free"]["ids"])
    write_json(os.path.join(HERE, "steer.json"), out)


if __name__ == "__main__":
    main()
