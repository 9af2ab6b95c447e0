"""A peer for gradients: PyTorch's autograd through transformers' GPT-2 on the same folder, in turns with bench_gradient.

    PYTHON tests/bench/peer_gradient.py --folder build/bench-data/f32 --bench build/release/bench/bench_gradient [--tokens 128] [--rounds 5]

Timed on both sides: a forward pass with the logits of the last token; a pass there and back, from the logit of one token to the residual
stream of every layer. Weights ask for no gradients. f32, as many threads on both sides."""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time


def import_peer():
    try:
        import torch
        import transformers
    except ImportError as error:
        print(f"skip: the PyTorch peer ({error}; run it with a Python that has torch and transformers)")
        sys.exit(0)
    transformers.logging.set_verbosity_error()
    return torch, transformers


def forward(torch, model, ids):
    begin = time.perf_counter()
    with torch.inference_mode():
        model.lm_head(model.transformer(ids, use_cache=False).last_hidden_state[:, -1])
    return (time.perf_counter() - begin) * 1e3


def gradient(torch, model, ids):
    begin = time.perf_counter()
    streams = []
    handles = [block.register_forward_pre_hook(lambda _m, args: streams.append(args[0])) for block in model.transformer.h]
    embedded = model.transformer.wte(ids).detach().requires_grad_(True)
    last = model.transformer(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, -1]
    torch.autograd.grad(model.lm_head(last)[0, 7], streams)
    for handle in handles:
        handle.remove()
    return (time.perf_counter() - begin) * 1e3


def ours(bench, folder, tokens):
    out = subprocess.run([bench, folder, str(tokens), "3"], capture_output=True, text=True, check=True).stdout
    return [float(value) for value in re.findall(r"([0-9.]+) ms", out)[:2]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch, transformers = import_peer()
    torch.set_num_threads(int(os.environ.get("STEERD_THREADS", os.cpu_count())))
    model = transformers.GPT2LMHeadModel.from_pretrained(options.folder, dtype=torch.float32).eval().requires_grad_(False)
    ids = torch.arange(options.tokens).remainder(200).unsqueeze(0)
    forward(torch, model, ids), gradient(torch, model, ids)
    rows = []
    for _ in range(options.rounds):
        theirs = [statistics.median(timed(torch, model, ids) for _ in range(3)) for timed in (forward, gradient)]
        rows.append([*theirs, *ours(options.bench, options.folder, options.tokens)])
    medians = [statistics.median(column) for column in zip(*rows)]
    print(f"{options.tokens} tokens, medians of {options.rounds} rounds: forward {medians[2]:.0f} ms, PyTorch {medians[0]:.0f} ms "
          f"({statistics.median(r[0] / r[2] for r in rows):.2f}x); there and back {medians[3]:.0f} ms, PyTorch {medians[1]:.0f} ms "
          f"({statistics.median(r[1] / r[3] for r in rows):.2f}x)")


if __name__ == "__main__":
    main()
