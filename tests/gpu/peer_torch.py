"""What users of forward hooks get: transformers in eager mode, bf16, random weights, the shapes of bench_gpu.c. (a) no hooks; (b) at
every layer a hook that copies the residual stream out and adds a vector of each stream's own. Greedy decode with a KV cache after a
prompt of 128 tokens; the timing window is the same as bench_gpu's: the step, the choice of the token and its way to the host. (a) and
(b) alternate; figures are medians. Then, where time is left, one stream with torch.compile (static cache, CUDA graphs) and no hooks:
what PyTorch can do when nobody looks. Prints rows of a Markdown table. A model that fails leaves the others; the exit status is 1 then.

    peer_torch.py [--figures FILE] [--until SECONDS] [--device cpu --tiny]
"""
import argparse
import gc
import statistics
import sys
import time

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, StaticCache

START, TOKENS, ROUNDS = 128, 24, 3
BEGIN = time.perf_counter()


def shapes(tiny):
    gpt2 = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 96} if tiny else {}
    gemma = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "head_dim": 16, "vocab_size": 128} if tiny else {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "vocab_size": 256000}
    llama = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "vocab_size": 112} if tiny else {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256}
    return {
        "GPT-2 small": lambda: GPT2LMHeadModel(GPT2Config(**gpt2)),
        "Gemma 2 2B": lambda: Gemma2ForCausalLM(Gemma2Config(attn_implementation="eager", **gemma)),
        "Llama 3.1 8B": lambda: LlamaForCausalLM(LlamaConfig(max_position_embeddings=8192, **llama)),
    }


class Peer:
    def __init__(self, arguments):
        self.arguments = arguments
        self.device = arguments.device
        self.tokens = 2 if arguments.tiny else TOKENS
        self.figures = open(arguments.figures, "a") if arguments.figures else None

    def in_time(self, wanted=0):
        return not self.arguments.until or time.perf_counter() - BEGIN + wanted < self.arguments.until

    def figure(self, *fields):
        if self.figures:
            print(*fields, sep="|", file=self.figures, flush=True)

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def make(self, make):
        torch.manual_seed(1)
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device(self.device):
                return make().eval()
        finally:
            torch.set_default_dtype(torch.float32)


def layers_of(model):
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def hook_all(peer, model, streams):
    handles, taps = [], {}
    for index, layer in enumerate(layers_of(model)):
        vector = 0.01 * torch.randn(streams, 1, model.config.hidden_size, device=peer.device).to(torch.bfloat16)

        def hook(_module, _inputs, output, index=index, vector=vector):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden + vector
            taps[index] = hidden[:, -1].clone()
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handles.append(layer.register_forward_hook(hook))
    return handles


@torch.inference_mode()
def decode(peer, model, streams):
    tokens = peer.tokens
    ids = torch.randint(0, model.config.vocab_size, (streams, START), device=peer.device)
    out = model(ids, use_cache=True, logits_to_keep=1)
    cache, token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
    peer.synchronize()
    begin = time.perf_counter()
    for _ in range(tokens):
        out = model(token, past_key_values=cache, use_cache=True)
        cache, token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
        token.tolist()  # the next step of a server waits for the token
    return streams * tokens / (time.perf_counter() - begin)


def hooked(peer, model, streams):
    handles = hook_all(peer, model, streams)
    try:
        return decode(peer, model, streams)
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def compiled(peer, model):
    """One stream, every step a replayed CUDA graph."""
    cache = StaticCache(config=model.config, max_cache_len=START + 4 * TOKENS)
    ids = torch.randint(0, model.config.vocab_size, (1, START), device=peer.device)
    model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    how = {"backend": "eager"} if peer.arguments.tiny else {"mode": "reduce-overhead"}  # generated code takes a minute to compile
    step = torch.compile(model.forward, fullgraph=False, **how)
    token, at, rates = ids[:, -1:].clone(), START, []
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(peer.tokens):
            place = torch.tensor([[at]], device=peer.device)
            out = step(token, past_key_values=cache, position_ids=place, use_cache=True)
            token, at = out.logits[:, -1].argmax(-1, keepdim=True).clone(), at + 1
            token.tolist()
        rates.append(peer.tokens / (time.perf_counter() - begin))
    return rates[-1]


def measure(peer, name, make):
    model = peer.make(make)
    for streams in (1, 8, 64):
        if not peer.in_time():
            print(f"| {name} | decode, {streams} streams | no time left | |", flush=True)
            continue
        decode(peer, model, streams), hooked(peer, model, streams)
        plain, with_hooks = [], []
        for _ in range(1 if peer.arguments.tiny else ROUNDS):
            plain.append(decode(peer, model, streams))
            with_hooks.append(hooked(peer, model, streams))
        a, b = statistics.median(plain), statistics.median(with_hooks)
        print(f"| {name} | decode, {streams} streams | {a:.0f} tok/s | {b:.0f} tok/s |", flush=True)
        peer.figure(name, f"decode, {streams} streams", "eager", a)
        peer.figure(name, f"decode, {streams} streams", "hooks", b)


def first_line(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def measure_compiled(peer, name, make):
    if not peer.in_time(60):
        print(f"| {name} | decode, 1 stream, torch.compile, no hooks | no time left | |", flush=True)
        return
    try:
        rate = f"{compiled(peer, peer.make(make)):.0f} tok/s"
    except Exception as error:  # of another version of transformers: the comparison above stands without it
        rate = f"not measured ({first_line(error)})"
    print(f"| {name} | decode, 1 stream, torch.compile, no hooks | {rate} | |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--figures")
    parser.add_argument("--until", type=float, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    peer = Peer(parser.parse_args())
    import transformers
    print(f"## PyTorch {torch.__version__}, transformers {transformers.__version__}, eager, forward hooks\n")
    print("| model | what | (a) no hooks | (b) a hook at every layer |\n| --- | --- | --- | --- |", flush=True)
    failed = 0
    for run in (measure, measure_compiled):
        for name, make in shapes(peer.arguments.tiny).items():
            try:
                run(peer, name, make)
            except Exception as error:  # too little memory, another version: what can be compared is
                failed = 1
                print(f"| {name} | failed: {first_line(error)} | | |", flush=True)
            gc.collect()  # the model, before the next is made
            if peer.device == "cuda":
                torch.cuda.empty_cache()
    return failed


if __name__ == "__main__":
    sys.exit(main())
