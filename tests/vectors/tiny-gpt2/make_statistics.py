#!/usr/bin/env python3
"""Feature statistics of dictionaries of the tiny GPT-2 over corpus.txt, in PyTorch float64 (README.md says what is where).
Run it after make_sources.py, with no arguments."""
import os
import sys
import warnings

import numpy as np
import sae_lens
import torch
import transformers
from safetensors.numpy import save_file

from make_sources import KINDS, SOURCES, centred
from reference import HERE, load_model, run, sha256, versions, write_json

sys.path.insert(0, os.path.dirname(HERE))
from counting import Counter, Text, dictionary_tables  # noqa: E402

warnings.filterwarnings("ignore", category=UserWarning)

N_TOP, N_QUANTILE, WINDOW, BOS = 10, 2, 16, 511
CONTEXT = min(128, 160)  # of the dictionaries, of the model
LINES = {"1-res-relu": False, "0-mlp-topk": True, "2-res-jump": True, "2-res-center": True}
# Attention is sharp here, and at some positions float32 is ten times as far from float64 as at others. So the slack of a
# position is measured: the largest difference of any feature over float32 runs whose embeddings are off by a rounding
# error, so that every sum rounds otherwise, times SAFETY for programs that sum in another order, and FLOOR at least.
RUNS, SAFETY, FLOOR = 6, 6, 1e-5
# The same products in NumPy float32 differ by at most 4.8e-7 and 3.6e-7: another order of sums stays within four times as much.
LOGIT_SLACK, COSINE_SLACK = 2e-6, 1.5e-6


def cut(tokenizer, lines):
    """Documents of ids: BOS and what fits after it."""
    with open(os.path.join(HERE, "corpus.txt"), encoding="utf-8", newline="") as file:
        text = file.read()
    documents, size = [], CONTEXT - 1
    for part in text.split("\n") if lines else [text]:
        ids = tokenizer(part).input_ids
        documents += [[BOS] + ids[i:i + size] for i in range(0, len(ids), size)] or [[BOS]]
    return documents


def single(seed):
    """The model in float32, its embeddings off by about half a unit of the last place."""
    model = load_model("model").float()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for table in (model.transformer.wte.weight, model.transformer.wpe.weight):
            table *= 1 + 2.0 ** -24 * torch.randn(table.shape, generator=g)
    return model


@torch.no_grad()
def pre_activations(model, sae, name, documents):
    """Raw pre-activations [documents' positions, F], in the precision of model and dictionary."""
    _, point, options = KINDS[name]
    out = []
    for ids in documents:
        x = run(model, ids)[0][point]
        x = centred(x) if options.get("center") else x
        out.append((x - sae.b_dec if sae.cfg.apply_b_dec_to_input else x) @ sae.W_enc + sae.b_enc)
    return torch.cat(out).double()


def choose(sae, pre, slack):
    """What fires, and where that is open: by kind, on raw values; slack [T, 1]."""
    near, fires = pre.abs() <= slack, pre > 0
    if isinstance(sae, sae_lens.TopKSAE):
        k = sae.cfg.k
        best = pre.topk(k + 1, dim=1)
        last, left_out = best.values[:, k - 1:k], best.values[:, k:]
        chosen = torch.zeros_like(fires).scatter(1, best.indices[:, :k], True)
        near = (pre >= -slack) & torch.where(chosen, (pre - slack <= left_out + slack) | near, pre + slack >= last - slack)
        fires = fires & chosen
    elif isinstance(sae, sae_lens.JumpReLUSAE):
        limit = sae.threshold.clamp(min=0)
        near, fires = (pre - limit).abs() <= slack, pre > limit
    return fires, near


@torch.no_grad()
def count(name, models, tokenizer):
    text = Text(cut(tokenizer, LINES[name]), bos_counts=False)
    folder = os.path.join(SOURCES, name)
    sae = sae_lens.SAE.load_from_disk(folder, dtype="float64")
    rough = sae_lens.SAE.load_from_disk(folder, dtype="float32")
    assert sae.cfg.metadata.context_size == 128 and sae.cfg.metadata.prepend_bos
    norms = sae.W_dec.norm(dim=1)
    pre = pre_activations(models[0], sae, name, text.documents)
    off = torch.stack([(pre_activations(model, rough, name, text.documents) - pre).abs() for model in models[1:]]).amax(0)
    fresh = torch.tensor([text.first[d] + t for d, t in text.fresh])  # the first place of each prefix
    pre, off = pre[fresh], off[fresh]
    raw_slack = (SAFETY * off.amax(1, keepdim=True)).clamp(min=FLOOR)
    slack = (SAFETY * (off * norms).amax(1)).clamp(min=FLOOR)
    fires, near = choose(sae, pre, torch.maximum(raw_slack, (slack[:, None] / norms)))
    fires[0] = near[0] = False  # BOS, which never counts
    encoded = torch.where(fires, pre, torch.zeros_like(pre))
    for d, ids in enumerate(text.documents[:8]):  # what fires is what sae_lens says
        x = run(models[0], ids)[0][KINDS[name][1]]
        want = sae.encode(centred(x) if KINDS[name][2].get("center") else x)
        got = encoded[text.same[text.first[d]:text.first[d] + len(ids)]]
        assert len(ids) == 1 or torch.allclose(got[1:], want[1:], rtol=0, atol=1e-9), name

    V, fires, near = (x.numpy() for x in (pre * norms, fires, near))
    counter = Counter(text, N_TOP, N_QUANTILE, WINDOW)
    for f in range(V.shape[1]):
        counter.feature(V[:, f], fires[:, f], near[:, f], slack.numpy())
    tensors = {"settings": np.array([text.n_tokens, len(text.documents), N_TOP, N_QUANTILE, WINDOW], np.int32)}
    counter.save(tensors)
    unembedding = models[0].lm_head.weight.detach().numpy()
    counter.near.update(dictionary_tables(sae.W_dec.numpy(), unembedding, LOGIT_SLACK, COSINE_SLACK, tensors))
    save_file(tensors, os.path.join(HERE, f"statistics-{name}.safetensors"))
    return {"lines": LINES[name], "n_documents": len(text.documents), "n_tokens": text.n_tokens,
            "distinct_prefixes": len(text.fresh), "n_fired": int(tensors["n_fired"].sum()),
            "never_fires": np.flatnonzero(tensors["n_fired"] == 0).tolist(),
            "slack": {part: round(float(np.quantile(slack, q)), 6) for part, q in (("median", .5), ("largest", 1))},
            "near_ties": counter.near}


def main():
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.join(HERE, "model"))
    models = [load_model("model")] + [single(seed) for seed in range(RUNS)]
    sources = {name: count(name, models, tokenizer) for name in LINES}
    for name, row in sources.items():
        print(name, row)
    write_json(os.path.join(HERE, "statistics.json"), {
        "text": "corpus.txt", "sha256": sha256(os.path.join(HERE, "corpus.txt")), "context": CONTEXT, "bos_counts": False,
        "n_top": N_TOP, "n_quantile": N_QUANTILE, "window": WINDOW, "safety": SAFETY,
        "versions": {**versions(), "sae_lens": sae_lens.__version__}, "sources": sources})


if __name__ == "__main__":
    main()
