"""A peer for the whole model: PyTorch and transformers on the same folder, in turns with bench_model.

    STEERD_TORCH_PYTHON=PYTHON make bench    # a Python that has torch and transformers; skipped by name without
    PYTHON tests/bench/peer_torch.py --folder build/bench-data/f32 --bench build/release/bench/bench_model [--rounds 3]

What is timed, like bench_model: prefill = all blocks over 128 or 512 tokens without the unembedding (GPT2Model, no cache
kept); decode = one stream, prompt of 9 tokens and 48 new ones, greedy, with the key-value cache, a plain loop of
forward calls (faster than generate()); steered = the same with one forward hook that adds a vector at a block's output.
Everything under torch.inference_mode(), f32, all threads."""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time

PROMPT_TOKENS, NEW_TOKENS = 9, 48  # as bench_model has them
CASES = ("prefill 128", "prefill 512", "decode 1 stream", "decode 1 stream, steered")
LINE = re.compile(r"^(.*?)\s+([0-9.]+) tok/s")


def import_peer():
    try:
        import torch
        import transformers
    except ImportError as error:
        print(f"skip: the PyTorch peer ({error}; set STEERD_TORCH_PYTHON to a Python that has torch and transformers)")
        sys.exit(0)
    transformers.logging.set_verbosity_error()
    return torch, transformers


def prefill(torch, model, n):
    ids = torch.arange(n).remainder(200).unsqueeze(0)
    begin = time.perf_counter()
    with torch.inference_mode():
        model.transformer(ids, use_cache=False)
    return n / (time.perf_counter() - begin)


def decode(torch, model, hook):
    handle = model.transformer.h[-2].register_forward_hook(hook) if hook else None
    ids, past = torch.arange(PROMPT_TOKENS).add(64).unsqueeze(0), None
    begin = time.perf_counter()
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            out = model(ids, past_key_values=past, use_cache=True)
            past, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
    seconds = time.perf_counter() - begin
    if handle:
        handle.remove()
    return NEW_TOKENS / seconds


def make_hook(torch, width):
    vector = torch.randn(width) * 0.1

    def add(_module, _args, out):
        return (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector
    return add


def one_round(torch, model, hook):
    return {CASES[0]: prefill(torch, model, 128), CASES[1]: prefill(torch, model, 512),
            CASES[2]: decode(torch, model, None), CASES[3]: decode(torch, model, hook)}


def ours(bench, folder, threads):
    """The medians that one run of bench_model prints."""
    env = dict(os.environ, STEERD_THREADS=str(threads))
    text = subprocess.run([bench, folder], check=True, capture_output=True, text=True, env=env).stdout
    found = {match[1].strip(): float(match[2]) for match in map(LINE.match, text.splitlines()) if match}
    return {case: found[case] for case in CASES}


def main():
    parser = argparse.ArgumentParser(description="PyTorch beside bench_model")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--bench", required=True, help="the program bench_model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch, transformers = import_peer()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    hook = make_hook(torch, model.config.n_embd)
    one_round(torch, model, hook)  # warm
    theirs, mine, ratio = ({case: [] for case in CASES} for _ in range(3))
    for _ in range(args.rounds):
        peer = [one_round(torch, model, hook) for _ in range(5)]  # bench_model has five rounds of its own
        steerd = ours(args.bench, args.folder, args.threads)
        for case in CASES:
            theirs[case].append(statistics.median(row[case] for row in peer))
            mine[case].append(steerd[case])
            ratio[case].append(steerd[case] / theirs[case][-1])
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads, f32; "
          f"medians of {args.rounds} rounds in turns")
    for case in CASES:
        print(f"{case:28} steerd {statistics.median(mine[case]):8.1f} tok/s  torch {statistics.median(theirs[case]):8.1f} tok/s"
              f"  {statistics.median(ratio[case]):5.2f}x")


main()
