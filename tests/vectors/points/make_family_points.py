#!/usr/bin/env python3
"""Records the cold points of the families that make_points.py leaves, at every layer, two positions each, in float64.

usage: make_family_points.py [NAME ...]     (writes family-NAME.safetensors beside this script; nothing is drawn, but for the
weights of the two models that are made here, llama2c and workshop, whose seeds stand below)

The tiny models and their prompts are those of tests/vectors/families. Two independent paths, neither of which knows steerd:
transformers' own model, whose modules are watched (products and norms give q, k, v, pre-activations; what arrives at its
attention function is turned already), with scores, norms before their gain and heads' results worked out beside it in plain
PyTorch; and TransformerLens for its toys. Everything worked out must lead back to what the model itself gave: patterns,
outputs of norms, of attention, and the hot points and logits recorded before. The prompt has 13 tokens, so that windows of
5 and 6 hide keys of the last one."""
import os
import shutil
import struct
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDERS = os.path.join(HERE, "..", "families")
sys.path.insert(0, FOLDERS)
from families import FAMILIES  # noqa: E402
from make import double, fill, submodule  # noqa: E402

ROWS = [3, 12]
CLOSE = 2e-6  # attention is softmaxed in f32 by transformers, whatever the model's type
HIDDEN = -1e30  # a masked score, which is -inf


def separate(q="q_proj", k="k_proj", v="v_proj"):
    """q, k, v as the outputs of three modules."""
    return lambda seen, attn: tuple(seen[f"{attn}.{name}"] for name in (q, k, v))


def fused(name, take):
    """q, k, v out of one module's output; take(output, heads, key heads, width of a head) gives them."""
    return lambda seen, attn: take(seen[f"{attn}.{name}"])


def thirds(x):
    return x.chunk(3, -1)


def by_head(heads):
    """GPT-NeoX: (head, {q, k, v}, width)."""
    def take(x):
        parts = x.view(x.shape[0], heads, 3, -1)
        return tuple(parts[:, :, i].flatten(1) for i in range(3))
    return take


def block(attn="self_attn", o="o_proj", qkv=separate(), ln1="input_layernorm", ln2=None, mlp="mlp", pre=None, up=None, split=None,
          final="model.norm", wte=None, wpe=None, **more):
    return dict(attn=attn, o=o, qkv=qkv, ln1=ln1, ln2=ln2, mlp=mlp, pre=pre, up=up, split=split, final=final, wte=wte, wpe=wpe, **more)


LLAMA = dict(ln2="post_attention_layernorm", pre="mlp.gate_proj", up="mlp.up_proj")
GEMMA3 = block(ln2="pre_feedforward_layernorm", pre="mlp.gate_proj", up="mlp.up_proj", post1="post_attention_layernorm",
               post2="post_feedforward_layernorm", q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")
# Where the parts of a block are. Embeddings are watched where positions are added to them; else they are resid_pre.
PARTS = {
    "gpt2-crfm": block("attn", "c_proj", fused("c_attn", thirds), "ln_1", "ln_2", pre="mlp.c_fc", final="transformer.ln_f",
                       wte="transformer.wte", wpe="transformer.wpe"),
    "gpt_neo": block("attn.attention", "out_proj", ln1="ln_1", ln2="ln_2", pre="mlp.c_fc", final="transformer.ln_f",
                     wte="transformer.wte", wpe="transformer.wpe", scale=1.0),
    "gpt_neox-sequential": block("attention", "dense", fused("query_key_value", by_head(3)), ln2="post_attention_layernorm",
                                 pre="mlp.dense_h_to_4h", final="gpt_neox.final_layer_norm"),
    "gptj": block("attn", "out_proj", ln1="ln_1", pre="mlp.fc_in", final="transformer.ln_f", scale=10**-0.5),
    "llama-scaled": block(**LLAMA),
    "mistral": block(**LLAMA),
    "qwen2": block(**LLAMA),
    "gemma": block(**LLAMA),
    "gemma3": GEMMA3,
    "phi": block(o="dense", pre="mlp.fc1", final="model.final_layernorm"),
    "phi3": block(qkv=fused("qkv_proj", lambda x: x.split([36, 12, 12], -1)), ln2="post_attention_layernorm",
                  split="mlp.gate_up_proj"),
    "stablelm": block(**LLAMA),
    "stablelm-parallel": block(pre="mlp.gate_proj", up="mlp.up_proj"),
    "stablelm-heads": block(**LLAMA, q_norm="self_attn.q_layernorm", k_norm="self_attn.k_layernorm"),
    "opt": block(o="out_proj", ln1="self_attn_layer_norm", ln2="final_layer_norm", pre="fc1", final="model.decoder.final_layer_norm",
                 wte="model.decoder.embed_tokens", wpe="model.decoder.embed_positions"),
    # no norm in front of anything: what attention, MLP and unembedding read is the stream
    "opt-350m": block(o="out_proj", ln1=None, ln2=None, pre="fc1", final=None, wte="model.decoder.project_in",
                      wpe="model.decoder.embed_positions", mlp_in="fc1", head="model.decoder.project_out"),
}


def agree(what, got, want, limit=CLOSE):
    off = float((got - want).abs().max())
    if not off <= limit * max(1.0, float(want.abs().max())):
        raise SystemExit(f"{what}: off by {off:.3g}")


def load(name):
    family = FAMILIES[name]
    model = family["model"].from_pretrained(os.path.join(FOLDERS, name), dtype=torch.float32, attn_implementation="eager")
    return double(model, getattr(torch, family.get("dtype", "float32")))


class Watch:
    """What every module took and gave, and what arrived at the attention functions, by layer."""

    def __init__(self, model, blocks, attn):
        self.took, self.gave, self.attended, self.handles, self.undo = {}, {}, [], [], []
        for name, module in model.named_modules():
            self.handles.append(module.register_forward_hook(self.see(name), with_kwargs=True))
        space = sys.modules[type(model).__module__]
        if hasattr(space, "eager_attention_forward"):
            self.patch(space, "eager_attention_forward", lambda a, k: (a[1], a[2], a[4], k.get("scaling"), k.get("softcap")))
        for layer in blocks:
            module = submodule(layer, attn)
            if hasattr(module, "_attn"):
                self.patch(module, "_attn", lambda a, k: (a[0], a[1], a[3] if len(a) > 3 else None, None, None))

    def patch(self, owner, name, pick):
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            out = function(*args, **kwargs)
            self.attended.append((*pick(args, kwargs), out[1]))
            return out
        setattr(owner, name, watched)
        self.undo.append((owner, name, function))

    def see(self, name):
        def hook(_module, args, kwargs, out):
            first = args[0] if args else kwargs.get("hidden_states")
            self.took[name], self.gave[name] = rows_of(first), rows_of(out[0] if isinstance(out, tuple) else out)
        return hook

    def close(self):
        for handle in self.handles:
            handle.remove()
        for owner, name, function in self.undo:
            setattr(owner, name, function)


def rows_of(value):
    """[1, p, ...] as [p, everything of a position]."""
    return value.detach()[0].flatten(1) if torch.is_tensor(value) and value.dim() > 2 else value


def norm_points(module, x, out, what):
    """scale and normalized of LayerNorm or RMSNorm (or of one for each head), led back to the module's own output by its gain
    and bias."""
    norms = list(getattr(module, "norms", [module]))
    eps = getattr(norms[0], "eps", None) or getattr(norms[0], "variance_epsilon", None)
    centred = isinstance(norms[0], torch.nn.LayerNorm)
    x = x - x.mean(-1, keepdim=True) if centred else x
    scale = (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    gain = torch.stack([norm.weight for norm in norms]) + (1.0 if "Gemma" in type(module).__name__ else 0.0)
    bias = getattr(norms[0], "bias", None)
    agree(what, x / scale * (gain if len(norms) > 1 else gain[0]) + (0.0 if bias is None else bias), out)
    return scale, x / scale


def add_norm(points, prefix, after, module, watch, path, what):
    scale, normalized = norm_points(module, watch.took[path], watch.gave[path], what)
    points[f"{prefix}.hook_scale"], points[f"{prefix}.hook_normalized"] = scale, normalized
    if after:
        points[after] = watch.gave[path]


def hidden_keys(config, layer, n):
    """Keys behind the row's own, or in front of the layer's window, as the configuration has it."""
    kinds = getattr(config, "attention_layers", None) or getattr(config, "layer_types", None)
    local = kinds[layer] in ("local", "sliding_attention") if kinds else bool(getattr(config, "sliding_window", None))
    window = (getattr(config, "sliding_window", None) or getattr(config, "window_size", n)) if local else n
    q, k = torch.arange(n)[:, None], torch.arange(n)
    return (k > q) | (k <= q - window)


def scores_of(parts, config, layer, q, k, mask, scaling, softcap, pattern):
    """[h, q, k] in float64, led back to the pattern that the model came to."""
    q, k = q[0].double(), k[0].double()
    k = k.repeat_interleave(q.shape[0] // k.shape[0], 0)
    s = q @ k.transpose(-1, -2) * (scaling if scaling is not None else parts["scale"])
    if softcap:
        s = softcap * (s / softcap).tanh()
    s = s.masked_fill(hidden_keys(config, layer, s.shape[-1]), -torch.inf)
    assert mask is None or bool(torch.isneginf(s).logical_or(mask[0] > -1e30).all()), "the mask hides other keys"
    agree("pattern", s.softmax(-1), pattern[0].double())
    return s


def head_results(module, z, heads):
    """z of each head through its share of the output matrix: [p, h * d]."""
    weight = module.weight if type(module).__name__ == "Conv1D" else module.weight.T
    width = z.shape[1] // heads
    return torch.stack([z[:, h * width:(h + 1) * width] @ weight[h * width:(h + 1) * width] for h in range(heads)], 1)


def attention(points, watch, parts, model, at, attn, attended):
    o = f"{attn}.{parts['o']}"
    q, k, mask, scaling, softcap, pattern = attended
    for kind, value in zip("qkv", parts["qkv"](watch.gave, attn)):
        points[f"{at}.attn.hook_{kind}"] = value
    for kind, path in (("q", parts.get("q_norm")), ("k", parts.get("k_norm"))):
        if path:
            heads_norm(points, at, kind, submodule(model, f"{watch.blocks}.{watch.layer}.{path}"), points[f"{at}.attn.hook_{kind}"],
                       watch.by_head[f"{watch.blocks}.{watch.layer}.{path}"])
    if parts["wpe"] is None:
        points[f"{at}.attn.hook_rot_q"], points[f"{at}.attn.hook_rot_k"] = (x[0].transpose(0, 1).flatten(1) for x in (q, k))
    scores = scores_of(parts, model.config, watch.layer, q, k, mask, scaling, softcap, pattern)
    points[f"{at}.attn.hook_attn_scores"], points[f"{at}.attn.hook_pattern"] = scores.clamp(min=HIDDEN), scores.softmax(-1)
    results = head_results(submodule(model, o), watch.took[o], q.shape[1])
    bias = getattr(submodule(model, o), "bias", None)
    agree("heads' results", results.sum(1) + (0.0 if bias is None else bias), watch.gave[o])
    points[f"{at}.attn.hook_result"] = results.flatten(1)


def heads_norm(points, at, kind, module, x, out):
    """The norm of each head's q or k: out is [1, h, p, e] as the model has it."""
    out = out[0].transpose(0, 1)
    scale, normalized = norm_points(module, x.view(out.shape), out, f"{kind}_norm")
    points[f"{at}.attn.{kind}_norm.hook_scale"], points[f"{at}.attn.{kind}_norm.hook_normalized"] = scale.flatten(1), normalized.flatten(1)
    points[f"{kind}_norm_out.{at.split('.')[1]}"] = out.flatten(1)


def one_block(points, watch, parts, model, layer, attended):
    at, path = f"blocks.{layer}", f"{watch.blocks}.{layer}"
    watch.layer = layer
    module = submodule(model, path)
    if parts["ln1"]:
        add_norm(points, f"{at}.ln1", f"attn_in.{layer}", submodule(module, parts["ln1"]), watch, f"{path}.{parts['ln1']}", "ln1")
    else:
        points[f"attn_in.{layer}"], points[f"{at}.mlp.hook_in"] = watch.took[path], watch.took[f"{path}.{parts['mlp_in']}"]
    attention(points, watch, parts, model, at, f"{path}.{parts['attn']}", attended)
    if parts["ln2"]:
        add_norm(points, f"{at}.ln2", f"{at}.mlp.hook_in", submodule(module, parts["ln2"]), watch, f"{path}.{parts['ln2']}", "ln2")
    if parts["split"]:
        points[f"{at}.mlp.hook_pre"], points[f"{at}.mlp.hook_pre_linear"] = watch.gave[f"{path}.{parts['split']}"].chunk(2, -1)
    else:
        points[f"{at}.mlp.hook_pre"] = watch.gave[f"{path}.{parts['pre']}"]
    if parts["up"]:
        points[f"{at}.mlp.hook_pre_linear"] = watch.gave[f"{path}.{parts['up']}"]
    for post, raw, prefix in (("post1", f"attn_out.{layer}", "ln1_post"), ("post2", f"{at}.mlp.hook_out", "ln2_post")):
        if post in parts:
            points[raw] = watch.took[f"{path}.{parts[post]}"]
            add_norm(points, f"{at}.{prefix}", None, submodule(module, parts[post]), watch, f"{path}.{parts[post]}", post)


@torch.no_grad()
def watched_points(model, parts, blocks_path, ids):
    """Every point but the hot ones, logits, and what was watched."""
    blocks = submodule(model, blocks_path)
    watch = Watch(model, blocks, parts["attn"])
    watch.blocks, watch.by_head = blocks_path, {}
    for layer in range(len(blocks)):
        for path in (parts.get("q_norm"), parts.get("k_norm")):
            if path:
                full = f"{blocks_path}.{layer}.{path}"
                submodule(model, full).register_forward_hook(lambda _m, _a, out, full=full: watch.by_head.update({full: out}))
    logits = model(ids[None].long(), use_cache=False).logits[0]
    watch.close()
    first = watch.took[f"{blocks_path}.0"]
    points = {"hook_embed": watch.gave[parts["wte"]].expand_as(first) if parts["wte"] else first}
    if parts["wpe"]:
        points["hook_pos_embed"] = watch.gave[parts["wpe"]]
        if points["hook_pos_embed"].dim() == 3:
            points["hook_pos_embed"] = points["hook_pos_embed"][0]
        agree("embeddings", points["hook_embed"] + points["hook_pos_embed"], first)
    for layer, attended in enumerate(watch.attended):
        one_block(points, watch, parts, model, layer, attended)
    final = parts["final"]
    if final:
        add_norm(points, "ln_final", "unembed.hook_in", submodule(model, final), watch, final, "final norm")
    else:
        points["unembed.hook_in"] = watch.took[parts["head"]]
    points["unembed.hook_out"] = watch.gave["lm_head"]
    return points, logits, watch


def transformers_points(name):
    family = FAMILIES[name]
    expected = load_file(os.path.join(FOLDERS, name, "expected.safetensors"))
    points, logits, watch = watched_points(load(name), PARTS[name], family["blocks"], expected["ids"])
    agree("logits", logits, expected["logits"].double())
    for layer in range(len(watch.attended)):
        agree("resid_pre", watch.took[f"{family['blocks']}.{layer}"], expected[f"blocks.{layer}.hook_resid_pre"].double())
    return points, expected["ids"]


HOT = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")


@torch.no_grad()
def lens_points(model, ids, skip):
    """All that TransformerLens caches but what ends in `skip`, what its norms give after gain and bias, and logits."""
    after = {"ln_final": "unembed.hook_in"}
    for layer in range(model.cfg.n_layers):
        after[f"blocks.{layer}.ln1"], after[f"blocks.{layer}.ln2"] = f"attn_in.{layer}", f"blocks.{layer}.mlp.hook_in"
    points = {}
    modules = dict(model.named_modules())
    for path, point in after.items():
        if path in modules:
            modules[path].register_forward_hook(lambda _m, _a, out, point=point: points.update({point: out[0]}))
    logits, cache = model.run_with_cache(ids[None].long())
    points["unembed.hook_out"] = logits[0]
    for key, value in cache.items():
        if key.endswith(skip) or ".mlp.ln." in key:  # the norm inside SoLU has no points here but its input and output
            continue
        square = key.endswith(("hook_attn_scores", "hook_pattern"))
        points[key] = value[0].clamp(min=HIDDEN) if square else value[0].flatten(1)
    return points


def lens_model(**config):
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    return HookedTransformer(HookedTransformerConfig(seed=0, default_prepend_bos=False, dtype=torch.float64, use_attn_result=True,
                                                     **config)).eval()


def toy_points(name):
    expected = load_file(os.path.join(FOLDERS, name, "expected.safetensors"))
    cell = dict(zip(FAMILIES[name]["make"].__code__.co_freevars, (c.cell_contents for c in FAMILIES[name]["make"].__closure__)))
    model = lens_model(n_layers=2, d_model=30, d_head=7, n_heads=4, n_ctx=48, d_vocab=97, **cell["config"])
    published = os.path.join(FOLDERS, name, "gelu_2l_final.pth")
    state = torch.load(published) if os.path.exists(published) else load_file(os.path.join(FOLDERS, name, "model.safetensors"))
    missing = model.load_state_dict({key: value.double() if value.is_floating_point() else value for key, value in state.items()}, strict=False).missing_keys
    assert all(key.endswith(("mask", "IGNORE")) for key in missing), missing
    points = lens_points(model, expected["ids"], HOT)
    agree("logits", points["unembed.hook_out"], expected["logits"].double())
    return points, expected["ids"]


# ---- models that are made here: files that no library writes ----

def as_meta(rows, heads):
    """q or k as Meta has them, pairs that turn together side by side, from Hugging Face's halves; rows come first."""
    return rows.view(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def write_llama2c(folder, state, config, marked):
    """A checkpoint of llama2.c, version 0 or 1, with an unembedding of its own."""
    c, e = config, config.hidden_size // config.num_attention_heads
    layers = [{key.split(f"layers.{i}.")[1]: value for key, value in state.items() if f"layers.{i}." in key} for i in range(c.num_hidden_layers)]
    each = {name: [layer[f"{path}.weight"] for layer in layers] for name, path in dict(
        norm1="input_layernorm", norm2="post_attention_layernorm", v="self_attn.v_proj", o="self_attn.o_proj", gate="mlp.gate_proj",
        down="mlp.down_proj", up="mlp.up_proj").items()}
    each["q"] = [as_meta(layer["self_attn.q_proj.weight"], c.num_attention_heads) for layer in layers]
    each["k"] = [as_meta(layer["self_attn.k_proj.weight"], c.num_key_value_heads) for layer in layers]
    embed, final, unembed = (state[key] for key in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"))
    numbers = (c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads)
    if marked:
        head = struct.pack("<Ii5iiiB", 0x616B3432, 1, *numbers, c.vocab_size, c.max_position_embeddings, 0).ljust(256, b"\0")
        order = [*each["norm1"], *each["norm2"], final, embed, *(w for key in ("q", "k", "v", "o", "gate", "down", "up") for w in each[key]), unembed]
    else:
        head = struct.pack("<5iii", *numbers, -c.vocab_size, c.max_position_embeddings)
        turns = torch.zeros(c.max_position_embeddings * e)  # cosines and sines, which nobody has to believe
        order = [embed, *(w for key in ("norm1", "q", "k", "v", "o", "norm2", "gate", "down", "up") for w in each[key]), final, turns, unembed]
    with open(os.path.join(folder, f"version{int(marked)}.bin"), "wb") as file:
        file.write(head + b"".join(w.float().numpy().tobytes() for w in order))


def made_folder(name):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def add_hot(points, watch, path, parts, down):
    """The hot points of a block that attention and MLP follow in turn."""
    for layer in range(len(watch.attended)):
        at, block_path = f"blocks.{layer}", f"{path}.{layer}"
        attn = f"{block_path}.{parts['attn']}"
        points.update({f"{at}.hook_resid_pre": watch.took[block_path], f"{at}.attn.hook_z": watch.took[f"{attn}.{parts['o']}"],
                       f"{at}.hook_attn_out": watch.gave[attn], f"{at}.hook_resid_mid": watch.took[f"{block_path}.{parts['ln2']}"],
                       f"{at}.mlp.hook_post": watch.took[f"{block_path}.{down}"], f"{at}.hook_mlp_out": watch.gave[f"{block_path}.mlp"],
                       f"{at}.hook_resid_post": watch.gave[block_path]})


def llama2c_points(name):
    """transformers' Llama, of which q and k are put back into Meta's order."""
    config = transformers.LlamaConfig(vocab_size=40, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5)
    config._attn_implementation = "eager"
    generator = torch.Generator().manual_seed(7)
    model = transformers.LlamaForCausalLM(config)
    fill(model, generator, 0.6)
    folder, state = made_folder(name), {key: value.float() for key, value in model.state_dict().items()}
    for marked in (False, True):
        write_llama2c(folder, state, config, marked)
    with open(os.path.join(folder, "tokenizer.bin"), "wb") as file:
        pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(bytes([i + 61]) for i in range(3, config.vocab_size))]
        file.write(struct.pack("<i", 7) + b"".join(struct.pack("<fi", -float(i), len(piece)) + piece for i, piece in enumerate(pieces)))
    ids = torch.randint(3, config.vocab_size, (13,), generator=generator)
    parts = block(**LLAMA)
    points, _, watch = watched_points(double(model, torch.float32), parts, "model.layers", ids)
    add_hot(points, watch, "model.layers", parts, "mlp.down_proj")
    for layer in range(2):
        for point, heads in (("hook_q", 4), ("hook_rot_q", 4), ("hook_k", 2), ("hook_rot_k", 2)):
            key = f"blocks.{layer}.attn.{point}"
            points[key] = as_meta(points[key].T, heads).T
    return points, ids


def workshop_points(name):
    """The workshop's character model as TransformerLens sees it: RMS norms, learned positions, SwiGLU, tied."""
    model = lens_model(n_layers=2, d_model=24, d_head=6, n_heads=4, d_mlp=20, n_ctx=16, d_vocab=29, act_fn="silu", gated_mlp=True,
                       normalization_type="RMS", final_rms=True, eps=1e-5)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            part = key.split(".")[-1]
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            value = 1 + 0.3 * noise if part == "w" else torch.zeros_like(noise) if part.startswith("b") else 0.35 * noise
            weight.copy_(value.float().double())
        model.unembed.W_U.copy_(model.embed.W_E.T)
    state = {"embedding.weight": model.embed.W_E.float(), "core.PE.weight": model.pos_embed.W_pos.float()}
    for i, layer in enumerate(model.blocks):
        at = f"core.layers.{i}"
        state[f"{at}.attention_norm.weight"] = layer.ln1.w.float()
        for key, weight in (("query_proj", layer.attn.W_Q), ("key_proj", layer.attn.W_K), ("value_proj", layer.attn.W_V)):
            state[f"{at}.sa.{key}.weight"] = weight.transpose(1, 2).reshape(24, 24).float().contiguous()  # [h, d, e] to [h e, d]
        state[f"{at}.sa.c_proj.weight"] = layer.attn.W_O.reshape(24, 24).T.float().contiguous()
        state[f"{at}.mlp_norm.weight"] = layer.ln2.w.float()
        for key, weight in (("fc_1", layer.mlp.W_gate), ("fc_2", layer.mlp.W_out), ("fc_3", layer.mlp.W_in)):
            state[f"{at}.mlp.{key}.weight"] = weight.T.float().contiguous()
    state["out_norm.weight"], state["lm_head.weight"] = model.ln_final.w.float(), state["embedding.weight"]
    folder = made_folder(name)
    torch.save({key: value.detach() for key, value in state.items()}, os.path.join(folder, "weights.pth"))
    with open(os.path.join(folder, "names.txt"), "w", encoding="utf-8") as file:
        file.write("abcdefghijklm,nopqrstuvwxyz\n")
    ids = torch.randint(1, 29, (13,), generator=generator)
    return lens_points(model, ids, ()), ids


MADE = {"llama2c": llama2c_points, "workshop": workshop_points}


def record(name):
    points, ids = MADE.get(name, toy_points if name.startswith("toy-") else transformers_points)(name)
    out = {"ids": ids.to(torch.int32), "rows": torch.tensor(ROWS, dtype=torch.int32)}
    for key, value in points.items():
        square = key.endswith(("hook_attn_scores", "hook_pattern"))
        out[key] = (value[:, ROWS] if square else value[ROWS]).to(torch.float32).contiguous()
    save_file(out, os.path.join(HERE, f"family-{name}.safetensors"))
    print(f"{name}: {len(out) - 2} points, {sum(value.nbytes for value in out.values()) // 1024} KiB")


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for name in sys.argv[1:] or [*PARTS, *(name for name in FAMILIES if name.startswith("toy-")), *MADE]:
        record(name)


if __name__ == "__main__":
    main()
