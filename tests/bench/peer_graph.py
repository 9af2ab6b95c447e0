"""A peer for attribution graphs: circuit-tracer on the same weights, transcoders and tokens, in turns with POST /v1/lab/graph.

    PYTHON tests/bench/peer_graph.py --folder build/bench-data/f32 --binary build/release/steerd [--features 6144] [--tokens 32] [--most 512] [--rounds 3]

The model is of the size of GPT-2 small; its transcoders, one a layer, have random rows and a bias with which about --active features fire at a
token. Timed on both sides: all from the text to the pruned graph, f32, as many threads on both. circuit-tracer's batch is the quickest of
--batches. That both have made the same graph is checked before anything is printed."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings

warnings.filterwarnings("ignore")


def import_peer():
    try:
        import huggingface_hub.constants
        vars(huggingface_hub.constants).setdefault("HF_HUB_ENABLE_HF_TRANSFER", False)  # circuit-tracer 0.5 reads it, hub 1 has it no more
        import circuit_tracer
        import numpy
        import safetensors.numpy
        import torch
        import transformer_lens
        import transformers
    except ImportError as error:
        print(f"skip: the circuit-tracer peer ({error}; run it with a Python that has circuit-tracer, torch and transformers)")
        sys.exit(0)
    transformers.logging.set_verbosity_error()
    return numpy, torch


# ---- what both are given ----

def make_weights(numpy, layers, width, features, active, seed=1):
    """Rows of length 1: a normalised row of the model has them at about a normal distribution's distance from 0."""
    from statistics import NormalDist
    rng = numpy.random.default_rng(seed)
    bias = NormalDist().inv_cdf(active / features)
    for _ in range(layers):
        rows = [rng.standard_normal((features, width), dtype=numpy.float32) for _ in range(2)]
        encoder, decoder = (r / numpy.linalg.norm(r, axis=1, keepdims=True) for r in rows)
        yield {"W_enc": encoder.T.copy(), "W_dec": decoder, "b_enc": numpy.full(features, bias, numpy.float32),
               "b_dec": numpy.zeros(width, numpy.float32)}


def write_sources(folder, weights):
    import safetensors.numpy
    for layer, arrays in enumerate(weights):
        place = folder / f"{layer}-tc"
        place.mkdir()
        safetensors.numpy.save_file(arrays, place / "sae_weights.safetensors")
        width, features = arrays["W_enc"].shape
        metadata = {"hook_name": f"blocks.{layer}.ln2.hook_normalized", "hook_name_out": f"blocks.{layer}.hook_mlp_out", "hook_layer_out": layer,
                    "prepend_bos": True, "model_name": "bench"}
        (place / "cfg.json").write_text(json.dumps({"architecture": "transcoder", "d_in": width, "d_sae": features, "d_out": width, "dtype": "float32",
                                                    "apply_b_dec_to_input": False, "normalize_activations": "none", "metadata": metadata}))


# ---- circuit-tracer ----

def make_peer(torch, folder, weights):
    import transformers
    from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    c = hf.config
    cfg = HookedTransformerConfig(n_layers=c.n_layer, d_model=c.n_embd, n_heads=c.n_head, d_head=c.n_embd // c.n_head, d_mlp=4 * c.n_embd,
                                  d_vocab=c.vocab_size, n_ctx=c.n_positions, act_fn="gelu_new", normalization_type="LN", device="cpu",
                                  eps=c.layer_norm_epsilon, model_name="bench", dtype=torch.float32)
    transcoders = {}
    for layer, arrays in enumerate(weights):
        width, features = arrays["W_enc"].shape
        one = SingleLayerTranscoder(width, features, torch.nn.functional.relu, layer, device=torch.device("cpu"), dtype=torch.float32)
        one.load_state_dict({name: torch.from_numpy(array.T.copy() if name == "W_enc" else array) for name, array in arrays.items()})
        transcoders[layer] = one
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    from transformer_lens import HookedTransformer
    plain = HookedTransformer(cfg, tokenizer=tokenizer, default_padding_side="right")
    plain.load_and_process_state_dict(convert_gpt2_weights(hf, cfg), fold_ln=False, center_writing_weights=False, center_unembed=False)
    model = TransformerLensReplacementModel(cfg, tokenizer=tokenizer, default_padding_side="right")
    model.load_state_dict(plain.state_dict(), strict=False)
    model._configure_replacement_model(TranscoderSet(transcoders, "ln2.hook_normalized", "hook_mlp_out"))
    return model


def trace(torch, model, tokens, most, batch):
    from circuit_tracer import attribute
    from circuit_tracer.graph import prune_graph
    begin = time.perf_counter()
    graph = attribute(torch.tensor(tokens), model, max_n_logits=10, desired_logit_prob=0.95, batch_size=batch, max_feature_nodes=most)
    prune_graph(graph, 0.8, 0.98)
    return time.perf_counter() - begin, graph


# ---- steerd ----

class Daemon:
    def __init__(self, binary, folder, sources, threads):
        arguments = [binary, "serve", "--listen", "127.0.0.1:0", "--store", "", "--threads", str(threads), "--model", f"bench={folder}"]
        for source in sorted(sources.iterdir()):
            arguments += ["--source", f"bench/{source.name}={source}"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = next(line.split()[1] for line in self.process.stdout if line.startswith("ready "))

    def graph(self, **body):
        request = urllib.request.Request(self.url + "/v1/lab/graph", json.dumps(body).encode(), {"Content-Type": "application/json"})
        begin = time.perf_counter()
        with urllib.request.urlopen(request) as reply:
            graph = json.load(reply)
        return time.perf_counter() - begin, graph

    def stop(self):
        self.process.terminate()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--binary", required=True)
    for name, value in (("features", 6144), ("active", 24), ("tokens", 32), ("most", 512), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", default="32,128,512")
    options = parser.parse_args()
    numpy, torch = import_peer()
    threads = int(os.environ.get("STEERD_THREADS", os.cpu_count()))
    torch.set_num_threads(threads)
    config = json.loads((pathlib.Path(options.folder) / "config.json").read_text())
    weights = list(make_weights(numpy, config["n_layer"], config["n_embd"], options.features, options.active))
    tokens = [50256, *(int(t) for t in numpy.random.default_rng(2).integers(0, 50000, options.tokens - 1))]  # BOS, which circuit-tracer leaves out
    with tempfile.TemporaryDirectory() as scratch:
        write_sources(pathlib.Path(scratch), weights)
        daemon = Daemon(options.binary, options.folder, pathlib.Path(scratch), threads)
        try:
            compare(torch, daemon, make_peer(torch, options.folder, weights), tokens, options)
        finally:
            daemon.stop()


def named(graph):
    """circuit-tracer's nodes by our names: place in its matrix."""
    chosen = graph.active_features[graph.selected_features].tolist()
    names = {f"{layer}_{index}_{position}": i for i, (layer, position, index) in enumerate(chosen)}
    tokens, layers = len(graph.input_tokens), graph.cfg.n_layers
    for i in range(layers * tokens):
        names[f"err_{i // tokens}_{i % tokens}"] = len(chosen) + i
    logits = graph.logit_token_ids if hasattr(graph, "logit_token_ids") else graph.logit_tokens
    for i, token in enumerate(logits.tolist()):
        names[f"{layers + 1}_{token}_{tokens - 1}"] = len(chosen) + layers * tokens + tokens + i
    return names


def check(ours, theirs):
    """Features of both, and how far weights between nodes of both are apart, in shares of what goes into the target."""
    names, weights = named(theirs), {(link["target"], link["source"]): link["weight"] for link in ours["links"]}
    nodes = [node["node_id"] for node in ours["nodes"] if node["feature_type"] == "cross layer transcoder"]
    both = [name for name in nodes if name in names]
    targets = [*both, *(node["node_id"] for node in ours["nodes"] if node["is_target_logit"])]
    sources = [*both, *(name for name in names if name.startswith("err_") and not name.endswith("_0"))]
    matrix = theirs.adjacency_matrix
    worst = 0
    for target in targets:
        row = matrix[names[target]]
        scale = float(row.abs().sum())
        worst = max([worst, *(abs(weights.get((target, source), 0) - float(row[names[source]])) / scale for source in sources)])
    return len(nodes), len(both), worst


def compare(torch, daemon, model, tokens, options):
    body = {"tokens": tokens, "sourceSet": "tc", "maxFeatures": options.most}
    batches = [int(batch) for batch in options.batches.split(",")]
    trial = {batch: trace(torch, model, tokens, options.most, batch) for batch in batches}
    batch = min(trial, key=lambda b: trial[b][0])
    _, whole = daemon.graph(**body, nodeThreshold=1, edgeThreshold=1)
    n, both, worst = check(whole, trial[batch][1])
    active = len(trial[batch][1].active_features)
    print(f"{options.tokens} tokens, {active} active features (steerd {whole['metadata']['counts']['active']}), inputs of {n}: {both} are the same; their "
          f"weights differ by {worst:.1e} of what goes into a node at most")
    assert both > 0.9 * n and worst < 1e-3, "these are two graphs"
    rounds = [(trace(torch, model, tokens, options.most, batch)[0], daemon.graph(**body)[0]) for _ in range(options.rounds)]
    theirs, ours = (statistics.median(column) for column in zip(*rounds))
    print(f"circuit-tracer {theirs:.2f} s (batches of {batch}; " + ", ".join(f"{b}: {t[0]:.2f} s" for b, t in trial.items()) + f"), steerd {ours:.2f} s: "
          f"{statistics.median(t / o for t, o in rounds):.1f}x in {options.rounds} rounds")


if __name__ == "__main__":
    main()
