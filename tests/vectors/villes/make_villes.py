#!/usr/bin/env python3
"""An independent twin of the villes model in plain NumPy, float64: it reads the published weights, checks itself against
golden numbers, and records what the model must answer (README.md says what is where).

Neither torch nor a pickle is involved: both archives are stored zips whose members data/N are raw float32 in the order
of the state dict, and the shapes below are known. Run it with STEERD_DATA set, with no arguments."""
import json
import os
import platform
import re
import sys
import zipfile

import numpy as np
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
DATA = os.path.join(os.environ.get("STEERD_DATA", os.path.join(ROOT, "..", "shared", "data")), "models", "villes")
MODEL = "model_32__4_heads__1_layers.pth"
SAE = "sae_model_32__4_heads__1_layers.pth"
D, HEADS, EPS, MAX_LEN = 32, 4, 1e-5, 46
PAD, SOS, EOS = 0, 1, 2
NAMES = ["paris", "saint-lô", "l'haÿ-les-roses", "niederrœdern"]  # and the longest name of the corpus
STARTS = ["", "sa", "mont"]
STEER = (103, 3.0)  # feature, strength; added at blocks.0.hook_resid_post at every position, <SOS> too

CLAMP = (38, (0.0, 1.5))  # feature, activations it is held at, in folded units; at every position

MODEL_SHAPES = [("embedding", (46, D)), ("PE", (46, D)), ("attention_norm", (D,)), ("query", (D, D)), ("key", (D, D)),
                ("value", (D, D)), ("c_proj", (D, D)), ("mlp_norm", (D,)), ("fc_1", (128, D)), ("fc_2", (D, 128)),
                ("fc_3", (128, D)), ("out_norm", (D,))]
SAE_SHAPES = [("W_enc", (D, 128)), ("b_enc", (128,)), ("W_dec", (128, D)), ("b_dec", (D,))]


def read_storages(name, shapes):
    weights = {}
    with zipfile.ZipFile(os.path.join(DATA, name)) as archive:
        top = archive.namelist()[0].split("/")[0]
        assert archive.read(f"{top}/byteorder") == b"little"
        for i, (key, shape) in enumerate(shapes):
            raw = np.frombuffer(archive.read(f"{top}/data/{i}"), "<f4")
            weights[key] = raw.reshape(shape).astype(np.float64)  # a wrong size fails here
    return weights


def read_names():
    with open(os.path.join(DATA, "villes.txt"), encoding="utf-8", newline="") as file:
        return file.read().replace("\n", ",").split(",")


def rms(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * gain


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(w, ids, edit=None):
    """All hot points of the one block and the logits, by TransformerLens name; `edit` changes the last residual."""
    n = len(ids)
    x = w["embedding"][ids] + w["PE"][:n]
    out = {"hook_resid_pre": x}

    h = rms(x, w["attention_norm"])
    q, k, v = (np.stack(np.split(h @ w[name].T, HEADS, axis=1)) for name in ("query", "key", "value"))  # [heads, T, 8]
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(D // HEADS)
    scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
    out["pattern"] = softmax(scores)
    out["attn.hook_z"] = np.concatenate(list(out["pattern"] @ v), axis=1)
    out["hook_attn_out"] = out["attn.hook_z"] @ w["c_proj"].T
    x = out["hook_resid_mid"] = x + out["hook_attn_out"]

    h = rms(x, w["mlp_norm"])
    gate = h @ w["fc_1"].T
    out["mlp.hook_post"] = gate / (1 + np.exp(-gate)) * (h @ w["fc_3"].T)
    out["hook_mlp_out"] = out["mlp.hook_post"] @ w["fc_2"].T
    x = x + out["hook_mlp_out"]
    if edit is not None:
        x = edit(x)
    out["hook_resid_post"] = x
    out["logits"] = rms(x, w["out_norm"]) @ w["embedding"].T
    return out


def encode(s, x):
    """Raw activations; folded ones are these times the norms of the decoder rows."""
    return np.maximum((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"], 0)


def decode(s, a):
    return a @ s["W_dec"] + s["b_dec"]


def clamp(s, norms, feature, value, include_error):
    """A function of the last residual: the feature's activation held at `value`. With the error term only its own share of the
    stream changes; without, the dictionary's reconstruction stands in its place."""
    def edit(x):
        a = encode(s, x)
        if include_error:
            return x + (value - a[:, feature:feature + 1] * norms[feature]) * s["W_dec"][feature] / norms[feature]
        a[:, feature] = value / norms[feature]
        return decode(s, a)
    return edit


def greedy(w, ids, edit=None):
    """New ids without <EOS>, whether <EOS> ended it (else the model's length did), and the smallest lead of a choice."""
    ids, start, lead = list(ids), len(ids), np.inf
    while len(ids) < MAX_LEN:
        logits = forward(w, ids, edit)["logits"][-1]
        first, second = np.argsort(-logits, kind="stable")[:2]
        lead = min(lead, logits[first] - logits[second])
        if first == EOS:
            return ids[start:], True, lead
        ids.append(int(first))
    return ids[start:], False, lead


def cross_entropy(logits, targets):
    return -np.log(softmax(logits)[np.arange(len(targets)), targets])


def check_paris(w, s, ids):
    """Golden numbers of one name; each was printed with six significant digits or decimals, so half a unit of the last."""
    out = forward(w, ids)
    x, logits, p = out["hook_resid_post"], out["logits"], softmax(out["logits"])
    a = encode(s, x)
    error = ((decode(s, a) - x) ** 2).sum(1)
    want = [
        (-cross_entropy(logits, ids[1:] + [EOS]), [-2.916533, -1.906941, -1.056815, -2.483184, -2.246328, -2.338488]),
        (np.sort(p, axis=1)[:, ::-1][:, :3], [[.139251, .112385, .10843], [.228547, .17832, .149867], [.347561, .116845, .100631],
                                              [.188842, .106862, .095857], [.228602, .148027, .105787], [.239918, .122886, .105503]]),
        (x[5, :6], [-0.169124, 0.090648, 0.221797, -0.00937, 0.413283, -0.222411]),
        (np.linalg.norm(x[5]), 1.319278),
        (logits[5, :6], [-11.17873, -3.06764, 2.93805, -7.64934, -7.4707, 2.21136]),
        (out["pattern"][0, 5], [.461859, .215333, .011149, .029691, .010729, .27124]),
        ((a > 0).sum(1), [2, 16, 10, 19, 21, 21]),
        (error, [.011768, .280125, .184099, .094637, .202077, .196278]),
        (a[[0, 0, 1, 2, 3, 4, 5], [103, 2, 109, 39, 10, 120, 53]], [1.857592, 1.758281, .827924, .4966, .527248, 1.025343, .465296]),
    ]
    return max(float(np.abs(np.asarray(got) - np.asarray(value)).max()) for got, value in want)


def check_corpus(w, s, vocab, names):
    """Golden numbers over every tenth name; the empty names at the end are not among them."""
    losses, through, active, errors, fired = [], [], [], [], np.zeros(128)
    for name in names[::10]:
        ids = [SOS] + [vocab[c] for c in name]
        targets = ids[1:] + [EOS]
        out = forward(w, ids)
        x = out["hook_resid_post"]
        a = encode(s, x)
        losses.append(cross_entropy(out["logits"], targets))
        through.append(cross_entropy(forward(w, ids, lambda h: decode(s, encode(s, h)))["logits"], targets))
        active.append((a > 0).sum(1))
        errors.append(((decode(s, a) - x) ** 2).sum(1))
        fired += (a > 0).sum(0)
    n = sum(map(len, losses))
    means = [float(np.concatenate(rows).mean()) for rows in (losses, through, active, errors)]
    gap = np.abs(np.array(means) - [1.786625, 1.947234, 13.99864, 0.184380])
    assert (len(losses), n) == (3659, 46366) and (gap <= [6e-7, 6e-7, 6e-6, 6e-7]).all(), (means, n)
    rate = fired / n
    assert [int((rate < t).sum()) for t in (.1, .01, .001, .0001)] == [79, 37, 19, 14] and int((rate == 0).sum()) == 6
    assert np.abs(rate[[73, 38, 48]] - [.57326, .45807, .42162]).max() < 6e-6
    return {"names": len(losses), "positions": n, "ce": means[0], "ce_through_sae": means[1], "mean_l0": means[2],
            "mean_squared_error_sum": means[3]}


def record_name(w, s, norms, n, ids, tensors):
    out = forward(w, ids)
    tensors[f"n{n}/ids"] = np.array(ids, np.int32)
    for point in ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out",
                  "hook_resid_post"):
        tensors[f"n{n}/blocks.0.{point}"] = out[point].astype(np.float32)
    tensors[f"n{n}/logits"] = out["logits"].astype(np.float32)
    raw = encode(s, out["hook_resid_post"])
    tensors[f"n{n}/features"] = (raw * norms).astype(np.float32)
    tensors[f"n{n}/reconstruction"] = decode(s, raw).astype(np.float32)


def record_greedy(w, characters, vocab, edit=None, starts=STARTS):
    rows = []
    for start in starts:
        new, ended, lead = greedy(w, [SOS] + [vocab[c] for c in start], edit)
        assert lead > 1e-3, (start, lead)  # a choice must not hang on float32 rounding (about 1e-5)
        rows.append({"start": start, "ids": new, "text": start + "".join(characters[i - 3] for i in new),
                     "ended_by_eos": ended, "smallest_lead": round(float(lead), 5)})
    return rows


def write_json(path, value):
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[\d\s,.\-e]*\]", lambda numbers: re.sub(r"\s+", " ", numbers.group()), text)  # a list, a line
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def main():
    if not os.path.isdir(DATA):
        sys.exit(f"make_villes: '{DATA}' not found (set STEERD_DATA)")
    w, s, names = read_storages(MODEL, MODEL_SHAPES), read_storages(SAE, SAE_SHAPES), read_names()
    characters = sorted(set("".join(names)))
    vocab = {c: i + 3 for i, c in enumerate(characters)}
    assert (len(names), len(vocab)) == (36585, 43)
    longest = max(names, key=len)
    assert len(longest) + 1 == MAX_LEN
    norms = np.linalg.norm(s["W_dec"], axis=1)

    paris = [SOS] + [vocab[c] for c in "paris"]
    assert paris == [1, 21, 6, 23, 14, 24]
    off = check_paris(w, s, paris)
    assert off < 5.1e-6, off  # logits were printed with five decimals
    agreement = {"paris_largest_difference": off, **check_corpus(w, s, vocab, names)}

    tensors = {"norms": norms.astype(np.float32)}
    chosen = NAMES + [longest]
    for n, name in enumerate(chosen):
        assert name in names, name
        record_name(w, s, norms, n, [SOS] + [vocab[c] for c in name], tensors)
    row = s["W_dec"][STEER[0]] / norms[STEER[0]]
    tensors["steered/n0/logits"] = forward(w, paris, lambda h: h + STEER[1] * row)["logits"].astype(np.float32)
    save_file(tensors, os.path.join(HERE, "expected.safetensors"))
    write_json(os.path.join(HERE, "expected.json"), {
        "versions": {"python": platform.python_version(), "numpy": np.__version__}, "agreement": agreement, "names": chosen,
        "greedy": record_greedy(w, characters, vocab),
        "steered": {"feature": STEER[0], "strength": STEER[1], "point": "blocks.0.hook_resid_post",
                    "method": "SIMPLE_ADDITIVE", "greedy": record_greedy(w, characters, vocab, lambda h: h + STEER[1] * row)},
        "clamped": {"feature": CLAMP[0], "runs": [
            {"value": value, "include_error": keep,
             "greedy": record_greedy(w, characters, vocab, clamp(s, norms, CLAMP[0], value, keep), STARTS[1:])}
            for value in CLAMP[1] for keep in (True, False)]}})


if __name__ == "__main__":
    main()
