#!/usr/bin/python3
"""Writes a random Llama of any size as a Hugging Face folder: Llama's shape of block for benchmarks, without a download. The
writer and the synthetic vocabulary are those of make_gpt2_small_shaped.py beside it.

    make_llama_shaped.py --out DIR [--layers 30 --width 576 --heads 9 --kv-heads 3 --mlp 1536 --vocab 49152 --ctx 2048]
                         [--untied] [--seed 1] [--dtype f32|bf16|f16]

The sizes that it has by itself are SmolLM-135M's. The same arguments give the same bytes."""
import argparse
import json
import math
import os
import sys

import make_gpt2_small_shaped as shaped


def model_tensors(args):
    d, kv = args.width, args.width // args.heads * args.kv_heads
    normal = shaped.normal
    rows = [("model.embed_tokens.weight", *shaped.embedding_rows(args.seed, args.vocab, d)[1:])]
    for i in range(args.layers):
        h = f"model.layers.{i}."
        for name, shape in (("self_attn.q_proj", (d, d)), ("self_attn.k_proj", (kv, d)), ("self_attn.v_proj", (kv, d)),
                            ("self_attn.o_proj", (d, d)), ("mlp.gate_proj", (args.mlp, d)), ("mlp.up_proj", (args.mlp, d)),
                            ("mlp.down_proj", (d, args.mlp))):
            rows.append(normal(args.seed, f"{h}{name}.weight", shape, 1 / math.sqrt(shape[1])))
        for name in ("input_layernorm", "post_attention_layernorm"):
            rows.append(normal(args.seed, f"{h}{name}.weight", (d,), 0.1, 1.0))
    gain = 20 / math.sqrt(d)  # with rows of the unembedding of length 0.1 sqrt(d), logits spread by about 2
    rows.append(normal(args.seed, "model.norm.weight", (d,), 0.1 * gain, gain))
    if args.untied:
        rows.append(normal(args.seed, "lm_head.weight", (args.vocab, d), 0.1))
    return rows


def write_config(args):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": args.width,
              "intermediate_size": args.mlp, "num_hidden_layers": args.layers, "num_attention_heads": args.heads,
              "num_key_value_heads": args.kv_heads, "max_position_embeddings": args.ctx, "rms_norm_eps": 1e-05,
              "rope_theta": 10000.0, "tie_word_embeddings": not args.untied, "vocab_size": args.vocab,
              "bos_token_id": args.vocab - 1, "eos_token_id": args.vocab - 1, "torch_dtype": shaped.TORCH_NAMES[args.dtype]}
    with open(os.path.join(args.out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)


def main(argv):
    parser = argparse.ArgumentParser(description="random Llama-shaped model folder")
    parser.add_argument("--out", required=True)
    for name, value in (("layers", 30), ("width", 576), ("heads", 9), ("kv-heads", 3), ("mlp", 1536), ("vocab", 49152),
                        ("ctx", 2048), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--untied", action="store_true", help="an unembedding of its own")
    parser.add_argument("--dtype", choices=sorted(shaped.DTYPES), default="bf16")
    args = parser.parse_args(argv)
    args.tokenizer = None
    if args.width % args.heads or args.heads % args.kv_heads or args.vocab < 257:
        parser.error("at least 257 ids, heads that divide the width, and heads of keys that divide the heads")
    os.makedirs(args.out, exist_ok=True)
    write_config(args)
    shaped.write_tokenizer(args)
    shaped.write_safetensors(os.path.join(args.out, "model.safetensors"), model_tensors(args), args.dtype)


main(sys.argv[1:])
