#!/usr/bin/env python3
"""How well dictionaries of the tiny GPT-2 do over corpus.txt, in PyTorch float64 with sae_lens' own encode and decode: L0,
squared error, explained variance, cosine, ratio of lengths, relative reconstruction bias; the cross-entropy of the model as it is, with the
reconstruction in place of the point's rows, and with zeros there, and how far its predictions are from those of the model as it is (KL: sae_lens'
own function). BOS rows are neither counted nor changed. Run it after make_sources.py."""
import os

import numpy as np
import sae_lens
import sae_lens.evals
import torch
import transformers

from make_sources import KINDS, SOURCES, centred
from make_statistics import LINES, cut
from reference import HERE, load_model, sha256, versions, watch, write_json

BELOW = (0.1, 0.01, 0.001, 0.0001)


def predictions(model, ids, edits=None):
    """Logits of the predicted tokens."""
    with watch(model, edits=edits or {}):
        return model(torch.tensor([ids])).logits[0][:-1]


def loss(logits, ids):
    """Summed over the predicted tokens."""
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item() if len(ids) > 1 else 0


def behind_bos(change):
    def edit(rows):
        return torch.cat([rows[:, :1], change(rows[:, 1:])], dim=1)
    return edit


@torch.no_grad()
def evaluate(name, model, tokenizer):
    sae = sae_lens.SAE.load_from_disk(os.path.join(SOURCES, name), dtype="float64")
    _, point, options = KINDS[name]
    centre = centred if options.get("center") else lambda x: x

    def splice(rows):
        c = centre(rows)
        return rows + (sae.decode(sae.encode(c)) - c)

    ce, kl, rows, features, predicted = np.zeros(3), np.zeros(2), [], [], 0
    documents = cut(tokenizer, LINES[name])
    for ids in documents:
        points = {}
        with watch(model, points=points):
            model(torch.tensor([ids]))
        rows.append(centre(points[point][1:]))
        features.append(sae.encode(rows[-1]) > 0)
        runs = [predictions(model, ids), predictions(model, ids, {point: behind_bos(splice)}),
                predictions(model, ids, {point: behind_bos(torch.zeros_like)})]
        ce += [loss(run, ids) for run in runs]
        kl += [sae_lens.evals._kl(runs[0], run).sum().item() for run in runs[1:]]
        predicted += len(ids) - 1
    x, fires = torch.cat(rows), torch.cat(features)
    made = sae.decode(sae.encode(x))
    error = (x - made).square().sum().item()
    lengths, made_lengths, along = x.norm(dim=-1), made.norm(dim=-1), (x * made).sum(-1)
    fired = fires.sum(0).numpy()
    return {"lines": LINES[name], "documents": len(documents), "tokens": len(x), "predicted": predicted,
            "l0": fires.sum().item() / len(x), "mse": error / len(x),
            "explained": 1 - error / (x - x.mean(0)).square().sum().item(),
            "cosine": (along / (lengths * made_lengths)).mean().item(), "l2_ratio": (made_lengths / lengths).mean().item(),
            "bias": (made_lengths.square().sum() / along.sum()).item(),
            **{run: float(sum_ / predicted) for run, sum_ in zip(("raw", "spliced", "zero"), ce)},
            "kl_spliced": float(kl[0] / predicted), "kl_zero": float(kl[1] / predicted),
            "dead": int((fired == 0).sum()), "below": [int((fired < b * len(x)).sum()) for b in BELOW]}


def main():
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.join(HERE, "model"))
    model = load_model("model")
    sources = {name: evaluate(name, model, tokenizer) for name in LINES}
    for name, row in sources.items():
        print(name, row)
    write_json(os.path.join(HERE, "evaluation.json"), {
        "text": "corpus.txt", "sha256": sha256(os.path.join(HERE, "corpus.txt")),
        "versions": {**versions(), "sae_lens": sae_lens.__version__}, "sources": sources})


if __name__ == "__main__":
    main()
