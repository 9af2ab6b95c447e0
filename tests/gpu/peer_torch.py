"""What users of forward hooks get: transformers in eager mode, bf16, random weights, the shapes of bench_gpu.c. (a) no hooks; (b) at
every layer a hook that copies the residual stream out and adds a vector of each stream's own. Greedy decode with a KV cache after a
prompt of 128 tokens; the timing window is the same as bench_gpu's. Prints rows of a Markdown table."""
import statistics
import time

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

START, TOKENS, ROUNDS = 128, 32, 3

SHAPES = {
    "GPT-2 small": lambda: GPT2LMHeadModel(GPT2Config()),
    "Gemma 2 2B": lambda: Gemma2ForCausalLM(Gemma2Config(
        hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8, num_key_value_heads=4, head_dim=256,
        attn_implementation="eager")),
    "Llama 3.1 8B": lambda: LlamaForCausalLM(LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, max_position_embeddings=8192)),
}


def layers_of(model):
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def hook_all(model, streams):
    handles, taps = [], {}
    for index, layer in enumerate(layers_of(model)):
        width = model.config.hidden_size
        vector = 0.01 * torch.randn(streams, 1, width, dtype=torch.bfloat16, device="cuda")

        def hook(_module, _inputs, output, index=index, vector=vector):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden + vector
            taps[index] = hidden[:, -1].clone()
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handles.append(layer.register_forward_hook(hook))
    return handles


@torch.inference_mode()
def decode(model, streams):
    ids = torch.randint(0, model.config.vocab_size, (streams, START), device="cuda")
    out = model(ids, use_cache=True, logits_to_keep=1)
    cache, token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(TOKENS):
        out = model(token, past_key_values=cache, use_cache=True)
        cache, token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
        token.tolist()  # the next step of a server waits for the token
    return streams * TOKENS / (time.perf_counter() - begin)


def main():
    print(f"## PyTorch {torch.__version__}, eager, forward hooks\n")
    print("| model | what | (a) no hooks | (b) a hook at every layer |\n| --- | --- | --- | --- |")
    for name, make in SHAPES.items():
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            model = make().eval()
        for streams in (1, 8, 64):
            decode(model, streams)
            plain = statistics.median(decode(model, streams) for _ in range(ROUNDS))
            handles = hook_all(model, streams)
            hooked = statistics.median(decode(model, streams) for _ in range(ROUNDS))
            for handle in handles:
                handle.remove()
            print(f"| {name} | decode, {streams} streams | {plain:.0f} tok/s | {hooked:.0f} tok/s |", flush=True)
        del model
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
