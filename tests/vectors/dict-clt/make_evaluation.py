#!/usr/bin/env python3
"""How well the cross-layer transcoders of this folder do over the first lines of ../tiny-gpt2/corpus.txt, in PyTorch float64 from the files as they lie.
For each NAME and each highest layer K: what is left of the outputs of layers 0 to K, each the sum of what the features of all
layers up to it write there as they fire in the model as it is; how many features of each layer fire; and the cross-entropy of the model
as it is, with the outputs of all MLPs of layers 0 to K replaced at once (features of a layer read what the replaced ones below made), and
with zeros there. BOS rows are neither counted nor changed. Run it after make.py: `python make_evaluation.py`, torch 2.15, transformers 5.23."""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "..", "tiny-gpt2")
sys.path.insert(0, TINY)
from make_statistics import BOS  # noqa: E402
from reference import first, load_model  # noqa: E402

LAYERS, SKIP, LINES = 3, 1, 44
FOLDERS = {"jump": "jump", "relu": "relu", "affine": "clt/width_1k_l0_small_affine"}


def load(name):
    """For each layer: W_enc [F, d], b_enc, b_dec, threshold, rows [F, targets, d], skip [d, d] or None."""
    layers = []
    for layer in range(LAYERS):
        if name == "affine":
            w = load_file(f"{HERE}/{FOLDERS[name]}/params_layer_{layer}.safetensors")
            w = {k: v.double() for k, v in w.items()}
            layers.append((w["w_enc"].T, w["b_enc"], w["b_dec"], w["threshold"], w["w_dec"][:, layer:], w["affine_skip_connection"]))
            continue
        w = {k.rsplit("_", 1)[0]: v.double() for part in ("enc", "dec") for k, v in load_file(f"{HERE}/{name}/W_{part}_{layer}.safetensors").items()}
        layers.append((w["W_enc"], w["b_enc"], w["b_dec"], w.get("threshold", torch.zeros(()).double()), w["W_dec"], None))
    return layers


def encode(layer, x):
    pre = x @ layer[0].T + layer[1]
    return torch.where(pre > layer[3], pre.relu(), torch.zeros(()).double())


def cut(tokenizer, context):
    """Documents of ids, one a line, or as many as its context takes."""
    with open(os.path.join(TINY, "corpus.txt"), encoding="utf-8", newline="") as file:
        lines = file.read().split("\n")[:LINES]
    documents, size = [], context - 1
    for line in lines:
        ids = tokenizer(line).input_ids
        documents += [[BOS] + ids[i:i + size] for i in range(0, len(ids), size)] or [[BOS]]
    return documents


class Run:
    """One pass over a document: `edit(layer, y)` gives the output of an MLP; reads and outputs are kept."""

    def __init__(self, model, layers, name, ids, edit=None):
        self.x, self.y, self.a = {}, {}, {}
        blocks, handles = model.transformer.h, []
        for number, block in enumerate(blocks):
            def read(_module, args, number=number):
                rows = args[0][0]
                self.x[number], self.a[number] = rows, encode(layers[number], rows)

            def write(_module, _args, output, number=number):
                y = first(output)[0]
                self.y[number] = y
                return edit(self, number, y)[None] if edit else None
            # resid_mid is what ln_2 reads, mlp.hook_in what it gives
            handles.append((block.ln_2 if name == "jump" else block.mlp).register_forward_pre_hook(read))
            handles.append(block.mlp.register_forward_hook(write))
        logits = model(torch.tensor([ids])).logits[0]
        for handle in handles:
            handle.remove()
        self.loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").item() if len(ids) > 1 else 0

    def reconstruct(self, layers, target):
        out = layers[target][2] + sum(self.a[number] @ layers[number][4][:, target - number] for number in range(target + 1))
        return out if layers[target][5] is None else out + self.x[target] @ layers[target][5]


@torch.no_grad()
def evaluate(model, documents, name):
    layers, rows = load(name), [{"y": [], "e": [], "fires": []} for _ in range(LAYERS)]
    losses = {run: [0.0] * LAYERS for run in ("spliced", "zero")}
    raw = predicted = 0
    for ids in documents:
        plain = Run(model, layers, name, ids)
        raw, predicted = raw + plain.loss, predicted + len(ids) - 1
        for layer in range(LAYERS):
            y = plain.y[layer][SKIP:]
            rows[layer]["y"].append(y)
            rows[layer]["e"].append(y - plain.reconstruct(layers, layer)[SKIP:])
            rows[layer]["fires"].append(plain.a[layer][SKIP:] > 0)
            behind = lambda y, new: torch.cat([y[:SKIP], new[SKIP:]])  # noqa: E731
            losses["spliced"][layer] += Run(model, layers, name, ids, lambda run, at, y: behind(y, run.reconstruct(layers, at)) if at <= layer else y).loss
            losses["zero"][layer] += Run(model, layers, name, ids, lambda run, at, y: behind(y, torch.zeros_like(y)) if at <= layer else y).loss
    out = []
    for layer, row in enumerate(rows):
        y, e, fires = (torch.cat(row[key]) for key in ("y", "e", "fires"))
        out.append({"l0": fires.sum().item() / len(y), "mse": e.square().sum().item() / len(y),
                    "explained": 1 - (e.square().sum() / (y - y.mean(0)).square().sum()).item(), "dead": int((fires.sum(0) == 0).sum()),
                    **{run: loss[layer] / predicted for run, loss in losses.items()}})
    return {"tokens": len(y), "predicted": predicted, "raw": raw / predicted, "layers": out}


def main():
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.join(TINY, "model"))
    model = load_model("model")
    documents = cut(tokenizer, model.config.n_positions)
    found = {name: evaluate(model, documents, name) for name in FOLDERS}
    with open(os.path.join(HERE, "evaluation.json"), "w") as out:
        json.dump({"lines": LINES, "documents": len(documents), "sources": found}, out, indent=1)
        out.write("\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
