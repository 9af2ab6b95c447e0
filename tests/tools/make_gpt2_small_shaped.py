#!/usr/bin/python3
"""Writes a random GPT-2 of any size as a Hugging Face folder, and SAELens dictionaries for it: what a test needs where
the real gpt2-small would do, without a download. NumPy and the standard library only.

    make_gpt2_small_shaped.py --out DIR [--layers 12 --width 768 --heads 12 --vocab 50257 --ctx 1024]
                              [--seed 1] [--dtype f32|bf16|f16] [--tokenizer DIR] [--dictionary F,LAYER,NAME ...]
    make_gpt2_small_shaped.py --self-check

Without --tokenizer the vocabulary is synthetic: 256 single bytes, fillers that no text encodes to but that decode to
readable words, and <|endoftext|> as the last id (as GPT-2's is), without merges. A dictionary goes to DIR/sources/NAME; it is
a ReLU SAE at blocks.LAYER.hook_resid_pre with unit decoder rows. The same arguments give the same bytes."""
import argparse
import json
import math
import os
import shutil
import statistics
import struct
import sys
import tempfile
import zlib

import numpy as np

CHUNK = 1 << 22  # elements held at a time
END = "<|endoftext|>"
DTYPES = {"f32": ("F32", 4), "bf16": ("BF16", 2), "f16": ("F16", 2)}
TORCH_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def to_bytes(values, dtype):
    """Little-endian bytes of float32 values; f16 and bf16 round to nearest, ties to even."""
    values = np.ascontiguousarray(values, "<f4")
    if dtype != "bf16":
        return values.astype({"f32": "<f4", "f16": "<f2"}[dtype]).tobytes()
    bits = values.view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def write_safetensors(path, tensors, dtype):
    """tensors: [(name, shape, function that yields float32 arrays, which together are the tensor in row-major order)]."""
    label, size = DTYPES[dtype]
    header, at = {}, 0
    for name, shape, _ in tensors:
        end = at + math.prod(shape) * size
        header[name] = {"dtype": label, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned in the file
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = file.tell()
        for name, shape, chunks in tensors:
            for chunk in chunks():
                file.write(to_bytes(chunk, dtype))
            assert file.tell() - start == header[name]["data_offsets"][1], name


def normal(seed, name, shape, std, mean=0.0):
    """Random numbers that depend on the seed and the name alone, not on what else is written."""
    def chunks():
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        left = math.prod(shape)
        while left:
            n = min(left, CHUNK)
            yield random.standard_normal(n, dtype=np.float32) * np.float32(std) + np.float32(mean)
            left -= n
    return name, shape, chunks


def embedding_rows(seed, vocab, width):
    """wte: short rows, so that a token does not mostly predict itself through the tied unembedding; the row of
    <|endoftext|> is shorter still, so that texts do not end early."""
    name, shape, plain = normal(seed, "transformer.wte.weight", (vocab - 1, width), 0.1)

    def chunks():
        yield from plain()
        yield np.full(width, 0.001, np.float32)
    return name, (vocab, width), chunks


def model_tensors(args):
    d, wide = args.width, 4 * args.width
    rows = [embedding_rows(args.seed, args.vocab, d), normal(args.seed, "transformer.wpe.weight", (args.ctx, d), 0.03)]
    for i in range(args.layers):
        h = f"transformer.h.{i}."
        for name, shape, std, mean in (
                ("ln_1.weight", (d,), 0.1, 1.0), ("ln_1.bias", (d,), 0.05, 0.0),
                ("attn.c_attn.weight", (d, 3 * d), 1 / math.sqrt(d), 0.0), ("attn.c_attn.bias", (3 * d,), 0.05, 0.0),
                ("attn.c_proj.weight", (d, d), 1 / math.sqrt(d), 0.0), ("attn.c_proj.bias", (d,), 0.05, 0.0),
                ("ln_2.weight", (d,), 0.1, 1.0), ("ln_2.bias", (d,), 0.05, 0.0),
                ("mlp.c_fc.weight", (d, wide), 1 / math.sqrt(d), 0.0), ("mlp.c_fc.bias", (wide,), 0.05, 0.0),
                ("mlp.c_proj.weight", (wide, d), 1 / math.sqrt(wide), 0.0), ("mlp.c_proj.bias", (d,), 0.05, 0.0)):
            rows.append(normal(args.seed, h + name, shape, std, mean))
    gain = 20 / math.sqrt(d)  # with rows of wte of length 0.1 sqrt(d), logits spread by about 2
    rows.append(normal(args.seed, "transformer.ln_f.weight", (d,), 0.1 * gain, gain))
    rows.append(normal(args.seed, "transformer.ln_f.bias", (d,), 0.05))
    return rows


def write_config(args):
    config = {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "bos_token_id": args.vocab - 1,
              "eos_token_id": args.vocab - 1, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": args.ctx,
              "n_embd": args.width, "n_head": args.heads, "n_inner": None, "n_layer": args.layers, "n_positions": args.ctx,
              "tie_word_embeddings": True, "torch_dtype": TORCH_NAMES[args.dtype],
              "vocab_size": args.vocab}
    with open(os.path.join(args.out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)


def byte_letters():
    """The 256 characters that stand for bytes in GPT-2's vocabulary: printable Latin-1 for itself, the rest from U+0100."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in keep]
    return [chr(b) for b in keep] + [chr(0x100 + i) for i in range(len(rest))]


def write_tokenizer(args):
    if args.tokenizer:
        # OpenAI published the same two files under other names.
        for name, old in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
            source = os.path.join(args.tokenizer, name)
            if not os.path.exists(source):
                source = os.path.join(args.tokenizer, old)
            shutil.copyfile(source, os.path.join(args.out, name))
        return
    words = byte_letters() + [f"\u0120x{i}" for i in range(256, args.vocab - 1)] + [END]
    with open(os.path.join(args.out, "vocab.json"), "w", encoding="utf-8") as file:
        json.dump({word: i for i, word in enumerate(words)}, file, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(args.out, "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n")


def dictionary_tensors(args, n_feat, layer, name):
    d = args.width
    unit = np.random.default_rng([args.seed, zlib.crc32(name.encode())]).standard_normal((n_feat, d), dtype=np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # A residual of this model has a mean square of about 1.3 a layer, so a unit direction sees that as its variance; the
    # bias lets some 32 features fire at a position, or a quarter of a small dictionary.
    spread = math.sqrt(0.02 + 1.3 * layer)
    cut = -spread * statistics.NormalDist().inv_cdf(1 - min(0.25, 32 / n_feat))
    return [("W_enc", (d, n_feat), lambda: iter([unit.T])), ("W_dec", (n_feat, d), lambda: iter([unit])),
            ("b_enc", (n_feat,), lambda: iter([np.full(n_feat, cut, np.float32)])), normal(args.seed, "b_dec", (d,), 0.01)]


def write_dictionary(args, spec):
    n_feat, layer, name = spec
    folder = os.path.join(args.out, "sources", name)
    os.makedirs(folder, exist_ok=True)
    write_safetensors(os.path.join(folder, "sae_weights.safetensors"), dictionary_tensors(args, n_feat, layer, name), args.dtype)
    config = {"architecture": "standard", "d_in": args.width, "d_sae": n_feat, "device": "cpu",
              "dtype": TORCH_NAMES[args.dtype], "apply_b_dec_to_input": True,
              "normalize_activations": "none", "reshape_activations": "none",
              "metadata": {"sae_lens_version": "6.0.0", "model_name": "gpt2-small", "hook_name": f"blocks.{layer}.hook_resid_pre",
                           "hook_head_index": None, "prepend_bos": True, "context_size": min(128, args.ctx)}}
    with open(os.path.join(folder, "cfg.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)


def write_folder(args):
    os.makedirs(args.out, exist_ok=True)
    write_config(args)
    write_tokenizer(args)
    write_safetensors(os.path.join(args.out, "model.safetensors"), model_tensors(args), args.dtype)
    for spec in args.dictionary:
        write_dictionary(args, spec)


def dictionary_spec(text):
    try:
        n_feat, layer, name = text.split(",")
        spec = int(n_feat), int(layer), name
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not FEATURES,LAYER,NAME, as in 24576,7,7-res-jb") from None
    if spec[0] < 1 or spec[1] < 0 or os.path.basename(name) != name or name in ("", ".", ".."):
        raise argparse.ArgumentTypeError(f"'{text}': features from 1, layer from 0, a name without slashes")
    return spec


def parse_args(argv):
    parser = argparse.ArgumentParser(description="random GPT-2-shaped model folder")
    parser.add_argument("--out")
    for name, value in (("layers", 12), ("width", 768), ("heads", 12), ("vocab", 50257), ("ctx", 1024), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="f32")
    parser.add_argument("--tokenizer", help="folder with vocab.json and merges.txt (or encoder.json and vocab.bpe)")
    parser.add_argument("--dictionary", type=dictionary_spec, action="append", default=[], metavar="F,LAYER,NAME")
    parser.add_argument("--self-check", action="store_true")
    args = parser.parse_args(argv)
    if not args.self_check and not args.out:
        parser.error("--out DIR is needed")
    if args.vocab < 257 or min(args.layers, args.width, args.heads, args.ctx) < 1 or args.width % args.heads:
        parser.error("at least 257 ids, and a width that the heads divide")
    if any(layer >= args.layers for _, layer, _ in args.dictionary):
        parser.error(f"a dictionary's layer must be below --layers {args.layers}")
    return args


def read_back(path):
    """(tensors as float32, bytes of the file): a reader as plain as the writer, for the self-check."""
    with open(path, "rb") as file:
        raw = file.read()
    n = struct.unpack("<Q", raw[:8])[0]
    tensors, data = {}, raw[8 + n:]
    for name, row in json.loads(raw[8:8 + n]).items():
        part = data[slice(*row["data_offsets"])]
        values = np.frombuffer(part, "<f4") if row["dtype"] == "F32" else \
            (np.frombuffer(part, "<u2").astype("<u4") << 16).view("<f4")
        tensors[name] = values.reshape(row["shape"])
    assert n % 8 == 0 and max(row["data_offsets"][1] for row in json.loads(raw[8:8 + n]).values()) == len(data)
    return tensors, raw


def self_check():
    with tempfile.TemporaryDirectory() as top:
        def make(name, *more):
            out = os.path.join(top, name)
            write_folder(parse_args(["--out", out, "--layers", "2", "--width", "8", "--heads", "2", "--vocab", "300",
                                     "--ctx", "16", "--dictionary", "64,1,1-res-x", *more]))
            return out
        first, again, half = make("a"), make("b"), make("c", "--dtype", "bf16")
        weights, raw = read_back(os.path.join(first, "model.safetensors"))
        assert raw == read_back(os.path.join(again, "model.safetensors"))[1]
        assert raw != read_back(os.path.join(make("d", "--seed", "2"), "model.safetensors"))[1]
        assert len(weights) == 2 + 2 * 12 + 2 and weights["transformer.wte.weight"].shape == (300, 8)
        assert weights["transformer.h.1.attn.c_attn.weight"].shape == (8, 24)  # Conv1D: rows are inputs
        for name, cast in read_back(os.path.join(half, "model.safetensors"))[0].items():
            # bfloat16 keeps 8 significant bits: half a unit of the last is at most 2^-8 of the value
            assert (np.abs(cast - weights[name]) <= np.abs(weights[name]) * 2.0 ** -8).all(), name
        with open(os.path.join(first, "vocab.json"), encoding="utf-8") as file:
            vocab = json.load(file)
        assert sorted(vocab.values()) == list(range(300)) and vocab[END] == 299 and vocab["!"] == 0 and vocab["\u0120"] == 220
        sae = read_back(os.path.join(first, "sources", "1-res-x", "sae_weights.safetensors"))[0]
        assert sae["W_enc"].shape == (8, 64) and np.array_equal(sae["W_enc"], sae["W_dec"].T)
        assert np.allclose(np.linalg.norm(sae["W_dec"], axis=1), 1, atol=1e-6)
        copied = make("e", "--tokenizer", first)
        with open(os.path.join(copied, "vocab.json"), encoding="utf-8") as file:
            assert json.load(file) == vocab
    print("make_gpt2_small_shaped: self-check passed")


def main(argv):
    args = parse_args(argv)
    if args.self_check:
        self_check()
    else:
        write_folder(args)


if __name__ == "__main__":
    main(sys.argv[1:])
