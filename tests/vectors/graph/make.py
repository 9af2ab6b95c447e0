#!/usr/bin/env python3
"""Attribution graphs of tiny models, and the transcoders they are made with.

    gpt2/L-tc, gemma2/L-tc, gpt_neox/L-tc, llama/L-tc     sets of transcoders in SAELens' files, drawn here (seed below): ReLU and JumpReLU in
                                                         turns, llama/1-tc with a skip; decoders fitted to what the MLP writes
    expected.json            the cases, below           expected.safetensors     their numbers

Models are those of ../tiny-gpt2 and ../families, cross-layer transcoders those of ../dict-clt. The graph is made by replaced.py: transformers in
float64 with autograd, patterns and scales held. It is checked there: what a target has from all sources and from the biases together is its
pre-activation (a logit less the mean of all) to 1e-9, in runs without autograd. Influence, thresholds and scores are circuit_tracer.graph's own
(0.5.0), in float64. Which sources are read and where is in each case of expected.json:

    model, sources {layer: folder}, point       what they are made with; a layer that is not there has no transcoder
    ids, first                                  the text; features before position `first` are no nodes, all is error there: the dictionary
                                                was never meant for the BOS that stands there
    features [[layer, position, index], ...]    active ones; nodes are these, errors (layers x positions), embeddings, logits
    logits [id, ...], maxLogits, logitProbability
    replacement, completeness
    pruned [{nodeThreshold, edgeThreshold, nodes: [kept], edges: number, loose: number}, ...]      loose: nodes that go because no edge is left
    slack                                       how far (relative) the scores lie apart between which something is cut off, and how far thresholds lie
                                                from the nearest sum of shares: no set hangs on rounding
    chosen                                      where maxFeatures is below the number of active features, by schedule: "1" is one at a time, "64+" is 64 at
                                                a time, and a quarter of those that are done where that is more: features in the order they are chosen

    CASE/activations [n]                        raw
    CASE/norms [n]                              of the feature's decoder row: folded activations and rows of the matrix are raw ones times this; of
                                                transcoders of one layer only
    CASE/probabilities [logits]
    CASE/matrix [n + logits, nodes - logits]    weights of edges, rows are targets: features and then logits (others have no inputs), columns
                                                are sources: features, errors, embeddings (logits have no targets). Raw.
    CASE/influence [nodes]                      circuit_tracer's compute_node_influence
    CASE/share [nodes]                          and the cumulative share that its JSON calls influence
    CASE/edges_K                                edges kept at thresholds K, as bits: numpy.unpackbits of [n + logits, nodes - logits]

Tensors are rounded once to float32. `python make.py` with torch 2.15, transformers 5.23, circuit-tracer 0.5.0; with --check also sae_lens 6.54, which
then encodes and decodes with each set that was drawn."""
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "..")
TINY = os.path.join(VECTORS, "tiny-gpt2")
sys.path[:0] = [TINY, os.path.join(VECTORS, "points")]
from make_family_points import load as load_family  # noqa: E402
from reference import load_model, write_json  # noqa: E402
from replaced import Edges, Layer, Place, Replaced  # noqa: E402

import circuit_tracer.graph as published  # noqa: E402

MIN_DISTANCE = 2e-4  # from where a feature begins to fire: float32 moves what is read by a tenth of that
MIN_LEAD = 1e-4  # of a score over the next where something is cut off, of a logit's probability over the next, relative
MIN_SUM = 1e-5   # between a threshold and the nearest sum of shares
THRESHOLDS = (0.8, 0.98), (0.95, 0.7)  # the second: nodes that go because no edge is left
PLACES = {"gpt2": Place("transformer.h", "ln_2"),
          "gemma2": Place("model.layers", "pre_feedforward_layernorm", out="post_feedforward_layernorm"),
          "gpt_neox": Place("gpt_neox.layers", "post_attention_layernorm"),
          "llama": Place("model.layers", "post_attention_layernorm")}
# features, point read, share of rows that a feature fires on
SETS = {"gpt2": (48, "ln2.hook_normalized", .15), "gemma2": (36, "mlp.hook_in", .15), "gpt_neox": (40, "ln2.hook_normalized", .15),
        "llama": (40, "mlp.hook_in", .15)}


def folder_of(model):
    return TINY if model == "gpt2" else os.path.join(VECTORS, "families", model)


def open_model(name):
    return Replaced(load_model("model") if name == "gpt2" else load_family(name), PLACES[name])


# ---- sets that are drawn here ----


@torch.no_grad()
def rows_of(r, point, generator):
    """What MLPs read and write over texts of random tokens, by layer."""
    r.point, read, wrote = point, [[] for _ in range(r.n_layers)], [[] for _ in range(r.n_layers)]
    for _ in range(24):
        r.run(torch.randint(3, r.model.config.vocab_size - 2, (24,), generator=generator).tolist())
        for layer in range(r.n_layers):
            read[layer].append(r.read(layer))
            wrote[layer].append(r.seen["hook_mlp_out", layer])
    return [torch.cat(rows) for rows in read], [torch.cat(rows) for rows in wrote]


def draw(read, wrote, n, share, jump, skip, generator):
    """A transcoder that fires on `share` of the rows, with the decoder that fits best."""
    d = read.shape[1]
    w_enc = torch.randn(n, d, generator=generator, dtype=torch.float64) / d ** .5
    before = read @ w_enc.T
    threshold = torch.quantile(before, 1 - share, dim=0)
    t = {"W_enc": w_enc.T, "b_enc": -threshold}
    if jump:  # fires late: the bias lets it through more often, the threshold takes that back
        late = .3 * before.std(0)
        t["b_enc"] = late - threshold
        t["threshold"] = late
    a = torch.where(before - threshold > 0, before + t["b_enc"], torch.zeros(()).double())
    said = wrote
    if skip:
        t["W_skip"] = .2 * torch.randn(wrote.shape[1], d, generator=generator, dtype=torch.float64) / d ** .5
        said = said - read @ t["W_skip"].T
    fit = torch.linalg.lstsq(torch.cat([a, torch.ones(len(a), 1).double()], 1), said).solution
    t["W_dec"], t["b_dec"] = fit[:-1], fit[-1]
    return {key: value.float().contiguous() for key, value in t.items()}


def save_set(name, r, seed):
    n, point, share = SETS[name]
    generator = torch.Generator().manual_seed(seed)
    read, wrote = rows_of(r, point, generator)
    for layer in range(r.n_layers):
        jump, skip = layer % 2 == (name != "gpt2"), (name, layer) == ("llama", 1)
        weights = draw(read[layer], wrote[layer], n, share, jump and not skip, skip, generator)
        folder = os.path.join(HERE, name, f"{layer}-tc")
        os.makedirs(folder, exist_ok=True)
        save_file(weights, os.path.join(folder, "sae_weights.safetensors"))
        kind = "skip_transcoder" if skip else "jumprelu_transcoder" if jump else "transcoder"
        write_json(os.path.join(folder, "cfg.json"), {
            "d_in": read[layer].shape[1], "d_sae": n, "d_out": wrote[layer].shape[1], "dtype": "float32", "device": "cpu",
            "apply_b_dec_to_input": False, "normalize_activations": "none", "architecture": kind,
            "metadata": {"model_name": name, "hook_name": f"blocks.{layer}.{point}", "hook_name_out": f"blocks.{layer}.hook_mlp_out",
                         "prepend_bos": True, "context_size": 64}})


# ---- transcoders as they are stored ----


def load_layer(folder, layer):
    t = {key: value.double() for key, value in load_file(os.path.join(HERE, folder, "sae_weights.safetensors")).items()}
    return Layer(t["W_enc"].T, t["b_enc"], {layer: t["W_dec"]}, t["b_dec"], t.get("threshold"), t["W_skip"].T if "W_skip" in t else None)


def load_cross(folder, layer):
    """circuit-tracer's files, or Gemma Scope 2's."""
    folder = os.path.join(HERE, folder)
    if os.path.exists(os.path.join(folder, "config.json")):
        t = {key: value.double() for key, value in load_file(os.path.join(folder, f"params_layer_{layer}.safetensors")).items()}
        rows = {m: t["w_dec"][:, m] for m in range(layer, t["w_dec"].shape[1])}
        return Layer(t["w_enc"].T, t["b_enc"], rows, t["b_dec"], t["threshold"], t["affine_skip_connection"])
    t = load_file(os.path.join(folder, f"W_enc_{layer}.safetensors")) | load_file(os.path.join(folder, f"W_dec_{layer}.safetensors"))
    t = {key.removesuffix(f"_{layer}"): value.double() for key, value in t.items()}
    rows = {layer + m: t["W_dec"][:, m] for m in range(t["W_dec"].shape[1])}
    return Layer(t["W_enc"], t["b_enc"], rows, t["b_dec"], t.get("threshold"))


def check_with_sae_lens(folder, layer):
    import sae_lens
    of = load_layer(folder, layer)
    sae = sae_lens.SAE.load_from_disk(os.path.join(HERE, folder), dtype="float64")
    x = torch.randn(50, of.w_enc.shape[1], dtype=torch.float64)
    a = of.encode(x)
    said = a @ of.w_dec[layer] + of.b_dec + (0 if of.skip is None else x @ of.skip)
    theirs = sae(x) if of.skip is not None else sae.decode(sae.encode(x))
    assert torch.allclose(sae.encode(x), a, rtol=0, atol=1e-12) and torch.allclose(theirs, said, rtol=0, atol=1e-12), folder


# ---- what circuit_tracer makes of a matrix ----


def as_published(edges, matrix, n_features):
    """What the functions of circuit_tracer.graph read of a Graph."""
    return SimpleNamespace(adjacency_matrix=matrix, input_tokens=edges.ids, logit_targets=edges.logits, selected_features=range(n_features),
                           logit_probabilities=edges.probabilities, cfg=SimpleNamespace(n_layers=edges.replaced.n_layers))


def gap(scores, kept):
    """Relative distance between the least that is kept and the largest that is not."""
    rest = scores[~kept]
    return float(scores[kept].min() / rest.max() - 1) if len(rest) and rest.max() > 0 else float("inf")


def slack_of(graph, weights, node_threshold, edge_threshold):
    """How near a cut is to what it would cut next: between two scores, and of the cumulated share from the threshold."""
    influence = published.compute_node_influence(graph.adjacency_matrix, weights)
    kept = influence >= published.find_threshold(influence, node_threshold)
    scores, sums = [gap(influence, kept)], [nearness(influence, node_threshold)]
    kept[-len(graph.logit_targets) - len(graph.input_tokens):] = True
    matrix = graph.adjacency_matrix.clone()
    matrix[~kept] = 0
    matrix[:, ~kept] = 0
    edges = published.compute_edge_influence(matrix, weights).flatten()
    return (scores + [gap(edges, edges >= published.find_threshold(edges, edge_threshold))], sums + [nearness(edges, edge_threshold)])


def left_by(graph, weights, threshold):
    """Nodes that the threshold leaves, before edges are cut."""
    influence = published.compute_node_influence(graph.adjacency_matrix, weights)
    kept = influence >= published.find_threshold(influence, threshold)
    kept[-len(graph.logit_targets) - len(graph.input_tokens):] = True
    return int(kept.sum())


def nearness(scores, threshold):
    """Distance of the threshold from the nearest of the cumulated shares."""
    ranked = scores.sort(descending=True).values
    sums = ranked.cumsum(0) / ranked.sum()
    k = int(torch.searchsorted(sums, threshold))
    return float((sums[k - 1:k + 1] - threshold).abs().min())


def prune(name, edges, tensors):
    matrix, n, n_logits = edges.matrix, len(edges.active), len(edges.logits)
    graph = as_published(edges, matrix, n)
    weights = torch.zeros(len(matrix), dtype=torch.float64)
    weights[-n_logits:] = edges.probabilities
    tensors[f"{name}/influence"] = published.compute_node_influence(matrix, weights)
    out, slack = [], {"scores": [], "sums": []}
    for thresholds in THRESHOLDS:
        nodes, kept, share = published.prune_graph(graph, *thresholds)
        kept = kept & nodes[:, None] & nodes[None] & (matrix != 0)  # what its JSON has: edges between kept nodes
        for kind, found in zip(slack, slack_of(graph, weights, *thresholds)):
            slack[kind] += [float(f"{x:.1e}") for x in found]
        out.append({"nodeThreshold": thresholds[0], "edgeThreshold": thresholds[1], "nodes": nodes.nonzero()[:, 0].tolist(),
                    "edges": int(kept.sum()), "loose": left_by(graph, weights, thresholds[0]) - int(nodes.sum())})
        bits = torch.cat([kept[:n], kept[-n_logits:]])[:, :-n_logits]
        assert int(bits.sum()) == int(kept.sum())
        tensors[f"{name}/edges_{thresholds[0]}_{thresholds[1]}"] = torch.from_numpy(np.packbits(bits.numpy()))
    tensors[f"{name}/share"] = share
    replacement, completeness = published.compute_graph_scores(graph)
    return {"replacement": replacement, "completeness": completeness, "pruned": out, "slack": slack}


def choose(edges, most, schedule):
    """Which features' inputs are looked at where not all are: after the logits', those with the largest influence so far, schedule(done) at
    a time. And the least relative distance between one that is taken and one that is left."""
    n, n_nodes, n_logits = len(edges.active), len(edges.matrix), len(edges.logits)
    rows, left, slack = list(range(n_nodes - n_logits, n_nodes)), set(range(n)), float("inf")
    order = []
    while len(order) < most:
        influence = published.compute_partial_influences(edges.matrix[rows], edges.probabilities, torch.tensor(rows), device="cpu")
        ranked = sorted(left, key=lambda i: -float(influence[i]))
        take = min(schedule(len(order)), most - len(order))
        assert influence[ranked[take - 1]] > 0
        slack = min(slack, float(influence[ranked[take - 1]] / influence[ranked[take]].clamp(min=1e-300)) - 1)
        order += ranked[:take]
        rows += ranked[:take]
        left -= set(ranked[:take])
    return order, slack


# ---- cases ----


def record(name, r, model, sources, load, point, ids, first, tensors, max_logits=10, probability=.95):
    layers = {layer: load(folder, layer) for layer, folder in sources.items()}
    edges = Edges(r, ids, layers, point, first, max_logits, probability)
    n, n_logits = len(edges.active), len(edges.logits)
    if load is load_layer:
        tensors[f"{name}/norms"] = torch.tensor([float(layers[layer].w_dec[layer][i].norm()) for layer, _, i, _ in edges.active])
    tensors |= {f"{name}/activations": torch.tensor([a for *_, a in edges.active]), f"{name}/probabilities": edges.probabilities,
                f"{name}/matrix": torch.cat([edges.matrix[:n], edges.matrix[-n_logits:]])[:, :-n_logits]}
    case = {"model": model, "sources": sources, "point": point, "ids": ids, "first": first, "features": [list(f[:3]) for f in edges.active],
            "logits": edges.logits, "maxLogits": max_logits, "logitProbability": probability, **prune(name, edges, tensors)}
    print(f"{name}: {n} features, {n_logits} logits, {[(len(p['nodes']), p['loose'], p['edges']) for p in case['pruned']]}, replacement "
          f"{case['replacement']:.3f}, completeness {case['completeness']:.3f}; sums off by {edges.incomplete:.1e}, pre-activations by "
          f"{edges.unlike:.1e}; nearest to firing {edges.closest:.1e}, logits {edges.lead:.1e} {edges.cut:.1e}, slack "
          f"{case['slack']}")
    return case, edges


def decided(edges, case):
    """Nothing hangs on the rounding of float32."""
    return (edges.closest > MIN_DISTANCE and edges.lead > MIN_LEAD and edges.cut > MIN_LEAD and min(case["slack"]["scores"]) > MIN_LEAD and
            min(case["slack"]["sums"]) > MIN_SUM)


def draw_until_decided(name, r, ids, first, tensors):
    for seed in range(40):
        save_set(name, r, seed)
        sources = {layer: f"{name}/{layer}-tc" for layer in range(r.n_layers)}
        case, edges = record(name, r, name, sources, load_layer, SETS[name][1], ids, first, tensors)
        if decided(edges, case):
            return {**case, "seed": seed}, edges
    raise SystemExit(f"{name}: no seed gives a decided graph")


def few(edges):
    """Which features are chosen where there is room for fewer."""
    out = {"maxFeatures": 70}
    for name, schedule in (("1", lambda done: 1), ("64+", lambda done: max(64, done // 4))):
        out[name], out[f"slack {name}"] = choose(edges, out["maxFeatures"], schedule)
        print(f"chosen {name}: slack {out[f'slack {name}']:.1e}")
    return out


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cases, tensors = {}, {}
    prompt = json.load(open(os.path.join(TINY, "expected.json"), encoding="utf-8"))["prompts"][0]["ids"]
    for name in SETS:
        r = open_model(name)
        ids = prompt if name == "gpt2" else load_file(os.path.join(folder_of(name), "expected.safetensors"))["ids"].tolist()[:8]
        cases[name], edges = draw_until_decided(name, r, ids, int(name == "gpt2"), tensors)
        if name != "gpt2":
            continue
        cases[name]["chosen"] = few(edges)
        rest = [("gpt2-part", {0: "gpt2/0-tc", 2: "gpt2/2-tc"}, load_layer, SETS[name][1], dict(max_logits=10, probability=.3)),
                ("jump", {layer: "../dict-clt/jump" for layer in range(3)}, load_cross, "hook_resid_mid", {}),
                ("affine", {layer: "../dict-clt/clt/width_1k_l0_small_affine" for layer in range(3)}, load_cross, "mlp.hook_in", {})]
        for case, sources, load, point, how in rest:
            cases[case], edges = record(case, r, name, sources, load, point, ids, 1, tensors, **how)
            assert decided(edges, cases[case]), case
    save_file({key: value.detach().to(torch.float32 if value.is_floating_point() else torch.uint8).contiguous() for key, value in tensors.items()},
              os.path.join(HERE, "expected.safetensors"))
    write_json(os.path.join(HERE, "expected.json"), cases)
    for name in SETS if "--check" in sys.argv else ():
        for folder in cases[name]["sources"].items():
            check_with_sae_lens(folder[1], folder[0])


if __name__ == "__main__":
    main()
