"""A transformers model as the local replacement model of one text, in float64: what attention looks at and what norms divide by are
constants, each MLP writes a leaf (what the features and the error write), the constant of its transcoder, and the skip of what it reads.
What is left is affine in the leaves, so autograd's gradients are the edges, and a second run without leaves is the part of the biases.

Knows modules of transformers and nothing of steerd."""
import contextlib

import torch
from torch import nn

D64 = torch.float64


def is_rms(module):
    return type(module).__name__.endswith("RMSNorm")


def gain_of(module):
    """RMS norms: Gemma's gains are stored less one."""
    weight = module.weight.double()
    return 1 + weight if type(module).__name__.startswith("Gemma") else weight


class Place:
    """Modules of a family: `blocks` in the model; in a block the norm before the MLP, the MLP, and what gives hook_mlp_out."""

    def __init__(self, blocks, norm, mlp="mlp", out=None):
        self.blocks, self.norm, self.mlp, self.out = blocks, norm, mlp, out or mlp


class Replaced:
    def __init__(self, model, place):
        self.model, self.place = model.eval().requires_grad_(False), place
        self.blocks = model.get_submodule(place.blocks)
        self.head = model.get_output_embeddings()
        self.n_layers = len(self.blocks)
        self.kept, self.writes, self.embedding, self.skips, self.constants = {}, None, None, {}, {}
        for name, module in model.named_modules():
            if isinstance(module, nn.LayerNorm) or is_rms(module):
                self.take_norm(name, module)
        for layer, block in enumerate(self.blocks):
            block.get_submodule(place.norm).register_forward_pre_hook(lambda _m, args, layer=layer: self.see("hook_resid_mid", layer, args[0]))
            block.get_submodule(place.mlp).register_forward_pre_hook(lambda _m, args, layer=layer: self.see("mlp.hook_in", layer, args[0]))
            block.get_submodule(place.out).register_forward_hook(lambda _m, _a, y, layer=layer: self.write(layer, y))
        self.blocks[0].register_forward_pre_hook(self.begin, with_kwargs=True)
        self.head.register_forward_pre_hook(lambda _m, args: self.see("unembed.hook_in", self.n_layers, args[0]))

    # ---- constants ----

    def hold(self, key, compute):
        """The first run's value, in every run."""
        if key not in self.kept:
            self.kept[key] = compute().detach()
        return self.kept[key]

    def take_norm(self, name, module):
        centred = isinstance(module, nn.LayerNorm)
        eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
        gain = module.weight.double() if centred else gain_of(module)
        bias = module.bias.double() if centred else 0.0

        def forward(x):
            assert x.dtype == D64
            y = x - x.mean(-1, keepdim=True) if centred else x
            scale = self.hold(name, lambda: (y.pow(2).mean(-1, keepdim=True) + eps).sqrt())
            self.normalized[name] = y / scale
            return self.normalized[name] * gain + bias
        module.forward = forward

    @contextlib.contextmanager
    def held_patterns(self):
        """Softmax is called by attention alone, and in order; in float64, where transformers would round to float32."""
        real, calls = nn.functional.softmax, iter(range(10 ** 6))

        def softmax(scores, dim=-1, dtype=None):
            return self.hold(("pattern", next(calls)), lambda: real(scores.double(), dim=dim))
        nn.functional.softmax = softmax
        try:
            yield
        finally:
            nn.functional.softmax = real

    # ---- places ----

    def see(self, point, layer, value):
        self.seen[point, layer] = value[0]

    def begin(self, _module, args, kwargs):
        name = None if args else "hidden_states"
        value = args[0] if args else kwargs[name]
        assert value.dtype == D64
        if self.embedding is None:
            self.first = value[0].detach()
            return None
        value = self.embedding[None]
        return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, name: value})

    def write(self, layer, y):
        if self.writes is None:
            self.seen["hook_mlp_out", layer] = y[0]
            return None
        out = self.writes[layer] + self.constants[layer]
        if layer in self.skips:
            out = out + self.skips[layer](self.read(layer))
        return out[None]

    def read(self, layer, point=None):
        """What a transcoder of this layer reads."""
        point = point or self.point
        if point == "ln2.hook_normalized":
            return self.normalized[f"{self.place.blocks}.{layer}.{self.place.norm}"][0]
        return self.seen[point, layer]

    # ---- runs ----

    def run(self, ids, embedding=None, writes=None):
        """Logits [T, V]. Without leaves: the model itself, whose patterns and scales are held from then on."""
        self.embedding, self.writes, self.seen, self.normalized = embedding, writes, {}, {}
        if writes is None:
            self.kept = {}
        with self.held_patterns():
            return self.model(torch.tensor([ids]), use_cache=False).logits[0]


class Layer:
    """A transcoder of a layer, weights in float64: w_enc [F, d], b_enc [F], threshold [F] or None, w_dec {layer written to: [F, d]},
    b_dec [d], skip [d, d] or None (applied as x @ skip)."""

    def __init__(self, w_enc, b_enc, w_dec, b_dec, threshold=None, skip=None):
        self.w_enc, self.b_enc, self.w_dec, self.b_dec, self.threshold, self.skip = w_enc, b_enc, w_dec, b_dec, threshold, skip

    def before(self, x):
        return x @ self.w_enc.T + self.b_enc

    def distance(self, x):
        """From the value where a feature begins to fire."""
        return self.before(x) - (0 if self.threshold is None else self.threshold.clamp(min=0))

    def encode(self, x):
        return torch.where(self.distance(x) > 0, self.before(x), torch.zeros((), dtype=D64))


class Edges:
    """The nodes and the whole matrix (rows are targets) of a text. layers: {layer: Layer}; point: what they read; first: the first position
    whose features count (1 where a dictionary was never meant for a BOS that is there): at those in front all is error."""

    def __init__(self, replaced, ids, layers, point, first, max_logits, probability):
        self.replaced, self.ids, self.layers, self.first = replaced, ids, layers, first
        replaced.point = point
        logits = replaced.run(ids)[-1].detach()
        self.take_features()
        self.take_errors()
        self.choose_logits(logits, max_logits, probability)
        self.count_edges()

    def take_features(self):
        r, self.active, self.codes, self.closest = self.replaced, [], {}, float("inf")
        for layer, of in sorted(self.layers.items()):
            x = r.read(layer).detach()
            a = of.encode(x)
            self.closest = min(self.closest, float(of.distance(x)[self.first:].abs().min()))
            a[:self.first] = 0
            self.codes[layer] = a
            self.active += [(layer, p, i, float(a[p, i])) for p, i in a.nonzero().tolist()]

    def take_errors(self):
        """What the MLP of each layer writes, less what its transcoders make of it."""
        r, self.errors = self.replaced, []
        counts = torch.ones(len(self.ids), 1, dtype=D64)
        counts[:self.first] = 0
        for layer in range(r.n_layers):
            said = torch.zeros_like(r.first)
            for source, of in self.layers.items():
                if layer in of.w_dec:
                    said = said + self.codes[source] @ of.w_dec[layer]
            r.constants[layer] = torch.zeros_like(said)
            r.skips.pop(layer, None)
            if layer in self.layers:
                of = self.layers[layer]
                r.constants[layer] = counts * of.b_dec
                said = said + r.constants[layer]
                if of.skip is not None:
                    r.skips[layer] = lambda x, skip=of.skip: counts * (x @ skip)
                    said = said + r.skips[layer](r.read(layer).detach())
            self.errors.append(r.seen["hook_mlp_out", layer].detach() - said)

    def choose_logits(self, logits, most, probability):
        p = torch.softmax(logits, -1)
        top = p.topk(most)
        n = min(int((top.values.cumsum(0) < probability).sum()) + 1, most)
        self.logits, self.probabilities = top.indices[:n].tolist(), top.values[:n]
        self.lead = float((top.values[:n] / p.topk(n + 1).values[1:]).min()) - 1  # no place hangs on rounding
        self.cut = float((top.values.cumsum(0) - probability).abs().min())

    # ---- edges ----

    def leaves(self):
        written = []
        for layer, error in enumerate(self.errors):
            written.append(error + sum(self.codes[s] @ of.w_dec[layer] for s, of in self.layers.items() if layer in of.w_dec))
        return [self.replaced.first.clone().requires_grad_(), *(value.clone().requires_grad_() for value in written)]

    def targets(self):
        """The numbers whose inputs are looked at: pre-activations less their bias, logits less the mean of all."""
        r, out = self.replaced, []
        for layer, p, i, _ in self.active:
            out.append(r.read(layer)[p] @ self.layers[layer].w_enc[i])
        unembedding = r.head.weight.double()
        x = r.seen["unembed.hook_in", r.n_layers][-1]
        return out + [(unembedding[i] - unembedding.mean(0)) @ x for i in self.logits]

    def sources(self, back):
        """[nodes less logits]: what each has of a target whose gradients at embedding and layers are `back`."""
        features = [sum(back[1 + m][p] @ (a * rows[i]) for m, rows in self.layers[layer].w_dec.items()) for layer, p, i, a in self.active]
        errors = [(back[1 + layer] * error).sum(1) for layer, error in enumerate(self.errors)]
        return torch.cat([torch.stack(features), *errors, (back[0] * self.replaced.first).sum(1)])

    def count_edges(self):
        leaves, n = self.leaves(), len(self.active)
        self.replaced.run(self.ids, leaves[0], leaves[1:])
        values = self.targets()
        n_nodes = n + len(self.ids) * (self.replaced.n_layers + 1) + len(self.logits)
        self.matrix = torch.zeros(n_nodes, n_nodes, dtype=D64)
        for k, value in enumerate(values):
            back = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
            back = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(back, leaves)]
            self.matrix[k if k < n else k - len(values), :n_nodes - len(self.logits)] = self.sources(back)
        self.check(values)

    @torch.no_grad()
    def check(self, values):
        """A target is the sum of its inputs and of what biases bring; and a feature's is what the model itself had there."""
        n = len(self.active)
        rows = torch.cat([self.matrix[:n], self.matrix[-len(self.logits):]]).sum(1)
        zero = [torch.zeros_like(leaf) for leaf in self.leaves()]
        self.replaced.run(self.ids, zero[0], zero[1:])
        biases = torch.stack(self.targets())
        values = torch.stack(values)
        self.incomplete = float((rows + biases - values).abs().max())
        before = torch.tensor([a - float(self.layers[layer].b_enc[i]) for layer, _, i, a in self.active], dtype=D64)
        self.replaced.run(self.ids)
        self.unlike = max(float((values[:n] - before).abs().max()), float((torch.stack(self.targets()) - values).abs().max()))
        assert self.incomplete < 1e-9 and self.unlike < 1e-9, (self.incomplete, self.unlike)
