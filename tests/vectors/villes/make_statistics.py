#!/usr/bin/env python3
"""Feature statistics of the villes dictionary over all of villes.txt with --lines, by the twin of make_villes.py in float64
(README.md says what is where). Run it with STEERD_DATA set, with no arguments; nothing is drawn."""
import os
import sys

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from counting import Counter, Text, dictionary_tables  # noqa: E402
from make_villes import (DATA, HERE, MODEL, MODEL_SHAPES, SAE, SAE_SHAPES, SOS, forward, read_names,  # noqa: E402
                         read_storages, write_json)

N_TOP, N_QUANTILE, WINDOW = 10, 2, 16
# How far float32 may be from these values. The same formulas in NumPy float32 differ by at most 1.4e-6 over every
# twentieth name, logits by 2.1e-7 and cosines by 2.4e-7: another order of sums stays within four times as much.
SLACK, LOGIT_SLACK, COSINE_SLACK = 5e-6, 1e-6, 1e-6


def main():
    if not os.path.isdir(DATA):
        sys.exit(f"make_statistics: '{DATA}' not found (set STEERD_DATA)")
    w, s, names = read_storages(MODEL, MODEL_SHAPES), read_storages(SAE, SAE_SHAPES), read_names()
    assert len(names) == 36585  # no name holds a comma: read_names cut at newlines alone
    vocab = {c: i + 3 for i, c in enumerate(sorted(set("".join(names))))}
    text = Text([[SOS] + [vocab[c] for c in name] for name in names], bos_counts=True)
    norms = np.linalg.norm(s["W_dec"], axis=1)

    V = np.empty((len(text.fresh), len(norms)))
    fresh = {}
    for row, (d, t) in enumerate(text.fresh):
        fresh.setdefault(d, []).append((row, t))
    for d, places in fresh.items():
        x = forward(w, text.documents[d])["hook_resid_post"]
        rows, positions = zip(*places)
        V[list(rows)] = (((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"]) * norms)[list(positions)]

    counter = Counter(text, N_TOP, N_QUANTILE, WINDOW)
    slack = np.full(len(V), SLACK)
    for f in range(len(norms)):
        counter.feature(V[:, f], V[:, f] > 0, np.abs(V[:, f]) <= SLACK, slack)
    tensors = {"settings": np.array([text.n_tokens, len(names), N_TOP, N_QUANTILE, WINDOW], np.int32)}
    counter.save(tensors)
    near = {**counter.near, **dictionary_tables(s["W_dec"], w["embedding"], LOGIT_SLACK, COSINE_SLACK, tensors)}

    fired = tensors["n_fired"]
    rate = fired / text.n_tokens
    shares = {str(limit): int((rate < limit).sum()) for limit in (.1, .01, .001, .0001)}
    save_file(tensors, os.path.join(HERE, "statistics.safetensors"))
    write_json(os.path.join(HERE, "statistics.json"), {
        "text": "models/villes/villes.txt", "lines": True, "n_documents": len(names), "n_tokens": text.n_tokens,
        "distinct_prefixes": len(V), "bos_counts": True, "n_top": N_TOP, "n_quantile": N_QUANTILE, "window": WINDOW,
        "slack": {"activations": SLACK, "logits": LOGIT_SLACK, "cosines": COSINE_SLACK}, "features_below_rate": shares,
        "never_fires": np.flatnonzero(fired == 0).tolist(), "mean_l0": round(float(fired.sum() / text.n_tokens), 6),
        "near_ties": near})
    print(shares, int((fired == 0).sum()), near)


if __name__ == "__main__":
    main()
