"""Every point of a decoder in plain NumPy, float64: what each edit of /v1/lab does at each of them is computed here a second time.
Rows keep their shape: [position, ...] with heads and keys as axes of their own. GPT-2 and Qwen3 (rotary, grouped heads, norms of
queries and keys, a gated MLP) between them have nearly all points."""
import json

import numpy as np

from tensors import read_tensors


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


class Layers:
    """The weights of a family under one set of names: q, k, v [d, heads, e], o [heads, e, d], and so on."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        w = {name.removeprefix("transformer.").removeprefix("model."): value.astype(np.float64)
             for name, value in read_tensors(folder / "model.safetensors").items()}
        (self._gpt2 if self.config["model_type"] == "gpt2" else self._qwen3)(w)

    def _gpt2(self, w):
        c = self.config
        self.n_layer, self.heads, self.kv, self.eps = c["n_layer"], c["n_head"], c["n_head"], c["layer_norm_epsilon"]
        self.e, self.centred, self.rotary = c["n_embd"] // c["n_head"], True, False
        self.embed, self.positions, self.unembed = w["wte.weight"], w["wpe.weight"], w["wte.weight"].T
        self.final = (w["ln_f.weight"], w["ln_f.bias"])
        self.layers = []
        for i in range(self.n_layer):
            at = lambda name: w[f"h.{i}.{name}"]
            qkv, bias = np.split(at("attn.c_attn.weight"), 3, axis=1), np.split(at("attn.c_attn.bias"), 3)
            self.layers.append({
                "ln1": (at("ln_1.weight"), at("ln_1.bias")), "ln2": (at("ln_2.weight"), at("ln_2.bias")),
                **{name: (m.reshape(-1, self.heads, self.e), b.reshape(self.heads, self.e)) for name, m, b in zip("qkv", qkv, bias)},
                "o": (at("attn.c_proj.weight").reshape(self.heads, self.e, -1), at("attn.c_proj.bias")),
                "in": (at("mlp.c_fc.weight"), at("mlp.c_fc.bias")), "out": (at("mlp.c_proj.weight"), at("mlp.c_proj.bias"))})

    def _qwen3(self, w):
        c = self.config
        self.n_layer, self.heads, self.kv = c["num_hidden_layers"], c["num_attention_heads"], c["num_key_value_heads"]
        self.eps, self.e, self.centred, self.rotary = c["rms_norm_eps"], c["head_dim"], False, True
        self.embed, self.positions, self.unembed = w["embed_tokens.weight"], None, w["lm_head.weight"].T
        self.final = (w["norm.weight"], 0)
        self.layers = []
        for i in range(self.n_layer):
            at = lambda name: w[f"layers.{i}.{name}.weight"]
            self.layers.append({
                "ln1": (at("input_layernorm"), 0), "ln2": (at("post_attention_layernorm"), 0),
                **{x: (at(f"self_attn.{x}_proj").T.reshape(-1, n, self.e), 0) for x, n in (("q", self.heads), ("k", self.kv), ("v", self.kv))},
                "q_norm": at("self_attn.q_norm"), "k_norm": at("self_attn.k_norm"),
                "o": (at("self_attn.o_proj").T.reshape(self.heads, self.e, -1), 0),
                "gate": at("mlp.gate_proj").T, "in": (at("mlp.up_proj").T, 0), "out": (at("mlp.down_proj").T, 0)})


class PointTwin(Layers):
    def run(self, ids, edits=None):
        """(points, logits). edits: {name: function of the rows}, applied where the model goes on with what they return."""
        self.points, self.edits, n = {}, edits or {}, len(ids)
        x = self.at("hook_embed", self.embed[ids])
        if self.positions is not None:
            x = x + self.at("hook_pos_embed", self.positions[:n])
        for i in range(self.n_layer):
            x = self.layer(i, x)
        x = self.norm("ln_final", x, self.final, "unembed.hook_in")
        return self.points, self.at("unembed.hook_out", x @ self.unembed)

    def at(self, name, rows):
        if name in self.edits:
            rows = self.edits[name](rows.copy())
        self.points[name] = rows
        return rows

    def scale(self, x):
        if self.centred:
            x = x - x.mean(-1, keepdims=True)
        return x, np.sqrt((x ** 2).mean(-1, keepdims=True) + self.eps)

    def norm(self, name, x, weights, out):
        x, scale = self.scale(x)
        x = self.at(name + ".hook_normalized", x / self.at(name + ".hook_scale", scale))
        return self.at(out, x * weights[0] + weights[1])

    def product(self, i, which, x):
        m, bias = self.layers[i][which]
        return np.einsum("nd,dhe->nhe", x, m) + bias

    def head_inputs(self, i, which, x, plain, heads):
        """q, k or v: of the shared norm, but of a norm of their own for heads whose input was edited."""
        b, out = f"blocks.{i}.", self.product(i, which, plain)
        rows = np.repeat(x[:, None], heads, axis=1)
        if heads == self.heads:
            rows = self.at(b + "hook_attn_in", rows) if b + "hook_attn_in" in self.edits else rows
        rows = self.at(f"{b}hook_{which}_input", rows)
        if b + "hook_attn_in" in self.edits or f"{b}hook_{which}_input" in self.edits:
            for h in range(heads):
                own, scale = self.scale(rows[:, h])
                own = own / scale * self.layers[i]["ln1"][0] + self.layers[i]["ln1"][1]
                out[:, h] = self.product(i, which, own)[:, h]
        return out

    def turn(self, x):
        """Pairs (j, j + e / 2) by position * theta^(-2 j / e), with theta from the config; angles in float32, as PyTorch has them."""
        half = self.e // 2
        theta = self.config["rope_parameters"]["rope_theta"]
        frequency = (1 / theta ** (np.arange(half, dtype=np.float32) * 2 / self.e)).astype(np.float32)
        angle = (np.arange(len(x), dtype=np.float32)[:, None] * frequency).astype(np.float64)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    def normed_heads(self, i, which, x):
        if which + "_norm" not in self.layers[i]:
            return x
        name = f"blocks.{i}.attn.{which}_norm"
        scale = self.at(name + ".hook_scale", np.sqrt((x ** 2).mean(-1, keepdims=True) + self.eps))
        x = self.at(name + ".hook_normalized", x / scale)
        return self.at(f"{which}_norm_out.{i}", x * self.layers[i][which + "_norm"])

    def attention(self, i, x):
        b, n = f"blocks.{i}.attn.", len(x)
        plain = self.norm(f"blocks.{i}.ln1", x, self.layers[i]["ln1"], f"attn_in.{i}")
        q, k, v = (self.at(b + "hook_" + which, self.head_inputs(i, which, x, plain, heads))
                   for which, heads in (("q", self.heads), ("k", self.kv), ("v", self.kv)))
        q, k = self.normed_heads(i, "q", q), self.normed_heads(i, "k", k)
        if self.rotary:
            q, k = self.at(b + "hook_rot_q", self.turn(q)), self.at(b + "hook_rot_k", self.turn(k))
        k, v = (np.repeat(m, self.heads // self.kv, axis=1) for m in (k, v))
        hidden = np.broadcast_to(np.triu(np.ones((n, n), bool), 1)[:, None], (n, self.heads, n))
        scores = np.where(hidden, -np.inf, np.einsum("qhe,khe->qhk", q, k) / np.sqrt(self.e))
        scores = self.points[b + "hook_attn_scores"] = np.where(hidden, -np.inf, self.at(b + "hook_attn_scores", scores))
        most = scores.max(-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isinf(most), 0, most))
        total = weights.sum(-1, keepdims=True)
        pattern = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        pattern = self.points[b + "hook_pattern"] = np.where(hidden, 0, self.at(b + "hook_pattern", pattern))
        z = self.at(b + "hook_z", np.einsum("qhk,khe->qhe", pattern, v))
        o, bias = self.layers[i]["o"]
        return self.at(b + "hook_result", np.einsum("nhe,hed->nhd", z, o)).sum(1) + bias

    def layer(self, i, x):
        b, w = f"blocks.{i}.", self.layers[i]
        x = self.at(b + "hook_resid_pre", x)
        x = self.at(b + "hook_resid_mid", x + self.at(b + "hook_attn_out", self.attention(i, x)))
        m = self.norm(b + "ln2", self.at(b + "hook_mlp_in", x), w["ln2"], b + "mlp.hook_in")
        if "gate" in w:
            m = silu(self.at(b + "mlp.hook_pre", m @ w["gate"])) * self.at(b + "mlp.hook_pre_linear", m @ w["in"][0])
        else:
            m = gelu(self.at(b + "mlp.hook_pre", m @ w["in"][0] + w["in"][1]))
        m = self.at(b + "mlp.hook_post", m)
        return self.at(b + "hook_resid_post", x + self.at(b + "hook_mlp_out", m @ w["out"][0] + w["out"][1]))
