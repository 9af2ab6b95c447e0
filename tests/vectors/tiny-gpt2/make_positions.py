#!/usr/bin/env python3
"""Statistics and evaluation of 1-res-relu over corpus.txt where its cfg.json had seqpos_slice and exclude_special_tokens: counted at the
positions that Python's slice of each document has, less BOS and the excluded tokens, in PyTorch float64. Other positions are left as they are
when the reconstruction takes the place of rows. Run it after make_sources.py, with no arguments."""
import os

import numpy as np
import sae_lens
import torch
import transformers

from make_evaluation import loss, predictions
from make_sources import KINDS, SOURCES
from make_statistics import cut
from reference import HERE, load_model, sha256, versions, watch, write_json

NAME = "1-res-relu"
# lines, seqpos_slice, and how many of the commonest tokens of the text are excluded
CASES = {"ends": (False, [5, -5], None), "steps": (True, [None, -2, 3], None), "back": (True, [-2, 3, -2], None),
         "tokens": (True, [2, None], 6), "stop": (False, [40], 3)}
# The largest difference between float64 and float32 runs of this source (statistics.json, "slack") is below this; a feature nearer to its
# threshold may fire or not.
SLACK = 1e-3


@torch.no_grad()
def count(model, tokenizer, sae, lines, slice_, excluded):
    point, norms = KINDS[NAME][1], sae.W_dec.norm(dim=1)
    documents = cut(tokenizer, lines)
    values, rows, near, ce, kl, predicted = [], [], 0, np.zeros(3), np.zeros(2), 0
    for ids in documents:
        at = sorted(set(range(len(ids))[slice(*slice_)]) - {0} - {p for p, token in enumerate(ids) if token in excluded})
        points = {}
        with watch(model, points=points):
            model(torch.tensor([ids]))
        rows.append(points[point][at])
        pre = (rows[-1] - sae.b_dec) @ sae.W_enc + sae.b_enc
        near = near + (pre.abs() <= SLACK).sum(0)
        values.append(sae.encode(rows[-1]))

        def change(made):
            def edit(whole):
                whole = whole.clone()
                whole[:, at] = made(whole[:, at])
                return whole
            return edit

        runs = [predictions(model, ids), predictions(model, ids, {point: change(lambda x: sae.decode(sae.encode(x)))}),
                predictions(model, ids, {point: change(torch.zeros_like)})]
        ce += [loss(run, ids) for run in runs]
        kl += [sae_lens.evals._kl(runs[0], run).sum().item() for run in runs[1:]]
        predicted += len(ids) - 1
    a, x = torch.cat(values), torch.cat(rows)
    error = (x - sae.decode(a)).square().sum().item()
    folded = a * norms
    return {"lines": lines, "seqpos_slice": slice_, "exclude_special_tokens": sorted(excluded), "documents": len(documents), "tokens": len(x),
            "n_fired": (a > 0).sum(0).tolist(), "near": near.tolist(), "sum": folded.sum(0).tolist(), "max": folded.amax(0).tolist(),
            "predicted": predicted, "l0": (a > 0).sum().item() / len(x), "mse": error / len(x),
            "explained": 1 - error / (x - x.mean(0)).square().sum().item(),
            **{run: float(sum_ / predicted) for run, sum_ in zip(("raw", "spliced", "zero"), ce)},
            "kl_spliced": float(kl[0] / predicted), "kl_zero": float(kl[1] / predicted)}


def main():
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.join(HERE, "model"))
    model, sae = load_model("model"), sae_lens.SAE.load_from_disk(os.path.join(SOURCES, NAME), dtype="float64")
    common = np.bincount(sum(cut(tokenizer, True), []))[:511].argsort()[::-1]
    cases = {name: count(model, tokenizer, sae, lines, slice_, set(common[:n or 0].tolist()))
             for name, (lines, slice_, n) in CASES.items()}
    for name, row in cases.items():
        print(name, row["seqpos_slice"], row["exclude_special_tokens"], row["tokens"], row["l0"], row["raw"], row["spliced"], row["zero"])
    write_json(os.path.join(HERE, "positions.json"), {
        "source": NAME, "text": "corpus.txt", "sha256": sha256(os.path.join(HERE, "corpus.txt")), "slack": SLACK,
        "versions": {**versions(), "sae_lens": sae_lens.__version__}, "cases": cases})


if __name__ == "__main__":
    main()
