"""The laboratory's twin: GPT-2 in plain NumPy, float64, every point open to a function. What the requests of /v1/lab
answer is computed here a second time, the obvious way: one text, one pass, no cache."""
import json

import numpy as np

from tensors import read_tensors


class Twin:
    """A saved GPT-2 folder; weights as float64."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.w = {name.removeprefix("transformer."): value.astype(np.float64)
                  for name, value in read_tensors(folder / "model.safetensors").items()}
        self.n_layer, self.n_head = self.config["n_layer"], self.config["n_head"]
        self.d_head = self.config["n_embd"] // self.n_head

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred ** 2).mean(-1, keepdims=True) + self.config["layer_norm_epsilon"])
        return centred / scale * self.w[name + ".weight"] + self.w[name + ".bias"]

    def linear(self, x, name):
        return x @ self.w[name + ".weight"] + self.w[name + ".bias"]

    def run(self, ids, edits=None, start=None):
        """(points, logits). edits: {name: function of the rows}, applied where the model goes on with what they return.
        start: (layer, rows) begins there."""
        points, edits = {}, edits or {}

        def at(name, rows):
            if name in edits:
                rows = edits[name](rows.copy())
            points[name] = rows
            return rows

        n = len(ids)
        first, x = start or (0, self.w["wte.weight"][ids] + self.w["wpe.weight"][:n])
        for layer in range(first, self.n_layer):
            block = f"blocks.{layer}."
            h = f"h.{layer}."
            x = at(block + "hook_resid_pre", x)
            q, k, v = np.split(self.linear(self.norm(x, h + "ln_1"), h + "attn.c_attn"), 3, axis=-1)
            z = np.empty_like(q)
            for head in range(self.n_head):
                part = slice(head * self.d_head, (head + 1) * self.d_head)
                scores = q[:, part] @ k[:, part].T / np.sqrt(self.d_head)
                scores[np.triu_indices(n, 1)] = -np.inf
                pattern = np.exp(scores - scores.max(-1, keepdims=True))
                pattern /= pattern.sum(-1, keepdims=True)
                points[f"{block}attn.hook_pattern/{head}"] = pattern
                z[:, part] = pattern @ v[:, part]
            z = at(block + "attn.hook_z", z)
            x = x + at(block + "hook_attn_out", self.linear(z, h + "attn.c_proj"))
            x = at(block + "hook_resid_mid", x)
            m = self.linear(self.norm(x, h + "ln_2"), h + "mlp.c_fc")
            m = 0.5 * m * (1 + np.tanh(np.sqrt(2 / np.pi) * (m + 0.044715 * m ** 3)))
            m = at(block + "mlp.hook_post", m)
            x = x + at(block + "hook_mlp_out", self.linear(m, h + "mlp.c_proj"))
            x = at(block + "hook_resid_post", x)
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred ** 2).mean(-1, keepdims=True) + self.config["layer_norm_epsilon"])
        x = at("ln_final.hook_normalized", centred / scale) * self.w["ln_f.weight"] + self.w["ln_f.bias"]
        return points, at("unembed.hook_out", x @ self.w["wte.weight"].T)

    def head(self, x):
        return self.norm(x, "ln_f") @ self.w["wte.weight"].T

    def losses(self, ids, logits):
        return -log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]


def log_softmax(logits):
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


class Dictionary:
    """A SAELens folder: encode and decode in folded units."""

    def __init__(self, folder):
        self.config = json.loads((folder / "cfg.json").read_text())
        self.w = {k: v.astype(np.float64) for k, v in read_tensors(folder / "sae_weights.safetensors").items()}
        self.norms = np.linalg.norm(self.w["W_dec"], axis=1)
        self.rows = self.w["W_dec"] / self.norms[:, None]
        self.kind = self.config.get("architecture", "standard")
        center = (self.config.get("metadata") or {}).get("model_from_pretrained_kwargs") or {}
        self.centred = bool(center.get("center_writing_weights"))

    def encode(self, x):
        if self.centred:
            x = x - x.mean(-1, keepdims=True)
        if self.config.get("apply_b_dec_to_input", True):
            x = x - self.w["b_dec"]
        p = x @ self.w["W_enc"] + self.w["b_enc"]
        if self.kind == "topk":
            k = self.config["k"]
            kept = np.zeros_like(p)
            for row, out in zip(p, kept):
                best = np.argsort(-row, kind="stable")[:k]
                out[best] = np.maximum(row[best], 0)
        elif self.kind == "jumprelu":
            kept = np.where(p > np.maximum(self.w["threshold"], 0), p, 0)
        else:
            kept = np.maximum(p, 0)
        return kept * self.norms

    def decode(self, a):
        return a @ self.rows + self.w["b_dec"]

    def splice(self, change=lambda a: a, error=True):
        """The rows that stand in place of x when the activations change."""
        def edit(x):
            before = self.encode(x)
            after = change(before.copy())
            if error:
                return x + (after - before) @ self.rows
            stays = x.mean(-1, keepdims=True) if self.centred else 0
            return self.decode(after) + stays
        return edit


def agrees(got, want):
    """Decision 18: |a - b| <= 1e-4 * max(1, rms), for float32 sums beside float64 ones."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    limit = 1e-4 * max(1.0, np.sqrt((want ** 2).mean()))
    worst = np.abs(got - want).max()
    assert worst <= limit, (worst, limit)
