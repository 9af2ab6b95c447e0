"""A peer for the whole model: llama.cpp on the same weights, in turns with bench_streams.

    STEERD_LLAMA_BATCHED_BENCH=PROGRAM STEERD_LLAMA_PYTHON=PYTHON make bench
    PYTHON tests/bench/peer_llama.py --peer PROGRAM --bench build/release/bench/bench_streams [--rounds 5] FOLDER ...

PROGRAM is a built llama-batched-bench (no BLAS, for this processor), PYTHON one that has the packages gguf and numpy. Each FOLDER
is one that make_gpt2_small_shaped.py or make_llama_shaped.py wrote; its weights are written as model.gguf beside them, in the
same types. FOLDER?q8 is its matrices in 8 bits, ours as steerd keeps them then, the peer's as Q8_0: blocks of 32 and a scale in f16 both.

Both programs take the same cases in turns: prompts of 128 and 512 tokens, one stream behind each of them; one, 8 and 32 streams
with prompts of 16. Streams begin together and each has its own text; ours draws greedily and counts that, the peer draws nothing.
Ours keeps keys and values in f32, the peer in f16 as it does by itself. The peer rounds activations to the weights' own type where
that has 16 or 8 bits; ours multiplies them as f32.

Printed: medians of the rounds (quartiles) of tokens a second and, of one thread, a processor second, and of the ratio in each round. On a
machine with other work only one thread's processor time says much (--threads 1): the peer's threads wait for each other by asking, which
takes the processor from whoever is waited for."""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys

# Prompts, streams. What comes again counts the last time: the first pays for loading. The last is nobody's: the peer ends behind it.
GRIDS = (((512, 128, 512, 8), (1,)), ((16,), (8, 1, 8, 32, 2)))
NEW = 32       # tokens that each stream draws
CONTEXT = 2048
ROWS = [("prompt of 128", 128, 1, "pp"), ("prompt of 512", 512, 1, "pp"), ("one stream at 16", 16, 1, "tg"),
        ("one stream at 128", 128, 1, "tg"), ("one stream at 512", 512, 1, "tg"), ("8 streams", 16, 8, "tg"), ("32 streams", 16, 32, "tg")]


def import_writer():
    try:
        import gguf.quants
        import numpy
    except ImportError as error:
        print(f"skip: the llama.cpp peer ({error}; set STEERD_LLAMA_PYTHON to a Python that has gguf and numpy)")
        sys.exit(0)
    return gguf, numpy


# ---- the same weights as a GGUF file ---------------------------------------------------------------------------------

def read_tensors(np, folder):
    """{name: (dtype, array)}; bf16 as its bits."""
    kinds = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        n = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n))
    data = np.memmap(os.path.join(folder, "model.safetensors"), mode="r", offset=8 + n)
    return {name: (row["dtype"], data[slice(*row["data_offsets"])].view(kinds[row["dtype"]]).reshape(row["shape"]))
            for name, row in header.items() if name != "__metadata__"}


def widened(np, kind, values):
    return (values.astype("<u4") << 16).view("<f4") if kind == "BF16" else values.astype("<f4")


class File:
    def __init__(self, gguf, np, path, config, arch, eight):
        self.gguf, self.np, self.writer = gguf, np, gguf.GGUFWriter(path, arch)
        self.config, self.eight = config, eight
        w = self.writer
        w.add_context_length(config.get("n_ctx") or config["max_position_embeddings"])
        w.add_vocab_size(config["vocab_size"])
        w.add_tokenizer_model("none")

    def add(self, name, tensor):
        """Matrices as they are stored or in 8 bits, vectors and positions as f32: what the peer's own converter makes of them."""
        kind, values = tensor
        if values.ndim == 1 or name.startswith("position"):
            self.writer.add_tensor(name, widened(self.np, kind, values))
        elif self.eight:
            q8 = self.gguf.GGMLQuantizationType.Q8_0
            self.writer.add_tensor(name, self.gguf.quants.quantize(self.np.ascontiguousarray(widened(self.np, kind, values)), q8), raw_dtype=q8)
        elif kind == "BF16":
            self.writer.add_tensor(name, self.np.ascontiguousarray(values).view("u1"), raw_dtype=self.gguf.GGMLQuantizationType.BF16)
        else:
            self.writer.add_tensor(name, self.np.ascontiguousarray(values))

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def write_gpt2(file, config, tensors):
    w = file.writer
    w.add_embedding_length(config["n_embd"])
    w.add_feed_forward_length(4 * config["n_embd"])
    w.add_block_count(config["n_layer"])
    w.add_head_count(config["n_head"])
    w.add_layer_norm_eps(config["layer_norm_epsilon"])
    file.add("token_embd.weight", tensors["transformer.wte.weight"])
    file.add("position_embd.weight", tensors["transformer.wpe.weight"])
    names = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
             "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
    for i in range(config["n_layer"]):
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                kind, values = tensors[f"transformer.h.{i}.{ours}.{part}"]
                file.add(f"blk.{i}.{theirs}.{part}", (kind, values.T if values.ndim == 2 else values))  # Conv1D: rows are inputs
    for part in ("weight", "bias"):
        file.add(f"output_norm.{part}", tensors[f"transformer.ln_f.{part}"])


def in_pairs(values, heads):
    """Rows of q and k from halves of a head, as transformers turns them, to neighbours, as the peer does."""
    out, inputs = values.shape
    return values.reshape(heads, 2, out // heads // 2, inputs).swapaxes(1, 2).reshape(out, inputs)


def write_llama(file, config, tensors):
    w, heads, kv_heads = file.writer, config["num_attention_heads"], config["num_key_value_heads"]
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_dimension_count(config["hidden_size"] // heads)
    w.add_rope_freq_base(config["rope_theta"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    file.add("token_embd.weight", tensors["model.embed_tokens.weight"])
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    turned = {"attn_q": heads, "attn_k": kv_heads}
    for i in range(config["num_hidden_layers"]):
        for ours, theirs in names.items():
            kind, values = tensors[f"model.layers.{i}.{ours}.weight"]
            file.add(f"blk.{i}.{theirs}.weight", (kind, in_pairs(values, turned[theirs]) if theirs in turned else values))
    file.add("output_norm.weight", tensors["model.norm.weight"])
    if not config["tie_word_embeddings"]:
        file.add("output.weight", tensors["lm_head.weight"])


def write_gguf(place):
    folder, _, kept = place.partition("?")
    if kept not in ("", "q8"):
        sys.exit(f"peer_llama: {place}: behind '?' only q8 is compared")
    path = os.path.join(folder, f"model{'-' + kept if kept else ''}.gguf")
    if os.path.exists(path):
        return path
    gguf, np = import_writer()
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as text:
        config = json.load(text)
    kind = config["model_type"]
    file = File(gguf, np, path + ".new", config, kind, kept == "q8")
    {"gpt2": write_gpt2, "llama": write_llama}[kind](file, config, read_tensors(np, folder))
    file.close()
    os.rename(path + ".new", path)
    return path


# ---- turns -----------------------------------------------------------------------------------------------------------

def processor_of(pid):
    """Seconds of all threads that live, as the kernel tells them of another process. The peer's further threads end with each
    step and take theirs along: with more than one this says nothing."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path, encoding="ascii") as text:
                total += int(text.read().split()[0])
        except FileNotFoundError:
            pass  # it has just ended
    return total * 1e-9


def lines_of(command, env=None):
    """(a line, processor seconds of the program so far) of each line that is JSON. nan is what the peer calls the rate of nothing."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as process:
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line.replace("-nan", "0").replace("nan", "0")), processor_of(process.pid)
    if process.returncode:
        sys.exit(f"peer_llama: {command[0]} ended with {process.returncode}")


def theirs(args, path):
    """{(prompt, streams, phase): (seconds, processor seconds)}. The peer tells no processor time: each prompt is taken without
    new tokens and with them, and the difference is theirs."""
    found = {}
    for prompts, streams in GRIDS:
        command = [args.peer, "-m", path, "-c", str(CONTEXT), "-b", "2048", "-ub", "512", "-t", str(args.threads), "-tb",
                   str(args.threads), "--output-format", "jsonl", "-npp", ",".join(map(str, prompts)), "-ntg", f"0,{NEW}",
                   "-npl", ",".join(map(str, streams)), *args.peer_option]
        before = 0.0
        for case, now in lines_of(command):
            key, spent, before = (case["pp"], case["pl"]), now - before, now
            if case["tg"] == 0:
                found[*key, "pp"] = case["t_pp"], spent
            else:
                found[*key, "tg"] = case["t_tg"], max(spent - found[*key, "pp"][1], 1e-3)
    return found


def ours(args, folder):
    """The same of bench_streams."""
    env = dict(os.environ, STEERD_THREADS=str(args.threads))
    wanted = [f"{p}:{NEW}:{s}" for prompts, streams in GRIDS for p in prompts for s in streams]
    return {(case["pp"], case["pl"], phase): (case[f"t_{phase}"], case[f"cpu_{phase}"])
            for case, _ in lines_of([args.bench, folder, *wanted], env) for phase in ("pp", "tg")}


def spread(values, form):
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return f"{statistics.median(values):{form}} ({low:{form}}-{high:{form}})"


def compare(args, folder):
    path = write_gguf(folder)
    rounds = [(ours(args, folder), theirs(args, path)) for _ in range(args.rounds)]
    print(f"\n{folder}: {args.threads} threads, {args.rounds} rounds in turns, load {os.getloadavg()[0]:.1f}")
    for name, prompt, streams, phase in ROWS:
        tokens, key = (prompt if phase == "pp" else NEW) * streams, (prompt, streams, phase)
        for which, clock in enumerate(("clock", "processor")[:2 if args.threads == 1 else 1]):
            mine, peer = [tokens / a[key][which] for a, _ in rounds], [tokens / b[key][which] for _, b in rounds]
            print(f"{name:18} by {clock:9}  steerd {spread(mine, '.1f'):24}  llama.cpp {spread(peer, '.1f'):24} "
                  f"{spread([x / y for x, y in zip(mine, peer)], '.2f')}x", flush=True)


def main():
    parser = argparse.ArgumentParser(description="llama.cpp beside bench_streams")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a model; FOLDER?q8: the same in 8 bits")
    parser.add_argument("--bench", required=True, help="the program bench_streams")
    parser.add_argument("--peer", required=True, help="the program llama-batched-bench")
    parser.add_argument("--peer-option", action="append", default=[], help="handed on to it, as --peer-option=-fa --peer-option=off")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    for folder in args.folders:
        compare(args, folder)


main()
