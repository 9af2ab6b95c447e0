#!/usr/bin/env python3
"""A Gemma Scope embedding SAE in its own file format, on the tiny Gemma 2 of ../families, and what it must answer. It was
trained on rows of the embedding as they lie in the table; the point hook_embed has them times sqrt(d_model).

    gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6/params.npz   as published: W_enc, W_dec, b_enc, b_dec, threshold
    tokenizer.json                      for the model, which has none: letters and a few merges, 97 tokens
    expected.safetensors                features [T, F] (folded: times the length of the decoder row in the stream),
                                        reconstruction [T, d] of hook_embed, logits [T, V]: raw, spliced, ablated (feature
                                        `feature` alone, error kept)
    expected.json                       text, ids, and the greedy continuation raw and steered
The model runs in float64 through transformers; the SAE is plain torch. `python make.py`, torch 2.15, transformers 5.23."""
import json, os
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

here = os.path.dirname(os.path.abspath(__file__))
F, TEXT, FEATURE, STRENGTH, NEW = 64, "the sea and the sun", None, 9.0, 8

# ---- a tokenizer in Gemma's manner
letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'-()"
merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("s", "e"), ("i", "n"), ("e", "r"), ("o", "n"), ("▁", "the"), ("▁", "and"),
          ("s", "u"), ("o", "f"), ("r", "e"), ("a", "t"), ("▁", "s"), ("i", "s"), ("i", "t"), ("e", "n"), ("o", "r"), ("a", "l")]
vocab = {t: i for i, t in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "▁", *letters, *(a + b for a, b in merges)])}
assert len(vocab) == 97
tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True))
tokenizer.normalizer = normalizers.Replace(" ", "▁")
tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<pad>", "<eos>", "<bos>", "<unk>")])
tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)])
tokenizer.save(os.path.join(here, "tokenizer.json"))
ids = tokenizer.encode(TEXT).ids

# ---- the model, from rows of the embedding
model = transformers.Gemma2ForCausalLM.from_pretrained(os.path.join(here, "..", "families", "gemma2"), dtype=torch.float32,
                                                       attn_implementation="eager").double().eval()
table = model.model.embed_tokens.weight.detach()
d, scale = table.shape[1], table.shape[1] ** 0.5


@torch.no_grad()
def run(change, ids):
    rows = change(table[torch.tensor(ids)]) * scale  # inputs_embeds are what hook_embed holds
    return model(inputs_embeds=rows[None], use_cache=False).logits[0]


def greedy(change, ids):
    out, lead = [], 9e9
    for _ in range(NEW):
        top = run(change, ids + out)[-1].topk(2)
        lead = min(lead, float(top.values[0] - top.values[1]))
        out.append(int(top.indices[0]))
    assert lead > 2e-2  # no choice hangs on rounding
    return out


# ---- the dictionary
g = torch.Generator().manual_seed(7)
rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
w = {"W_enc": rand(d, F) / d ** .5, "W_dec": rand(F, d) * .3 * (.5 + torch.rand(F, 1, generator=g, dtype=torch.float64)), "b_dec": rand(d) * .05}
pre = table @ w["W_enc"]
w["b_enc"] = -torch.quantile(pre, .6, dim=0)
w["threshold"] = torch.quantile(pre, .8, dim=0) + w["b_enc"]
w = {k: v.float().numpy() for k, v in w.items()}
folder = os.path.join(here, "gemma-scope-2b-pt-res", "embedding", "width_4k", "average_l0_6")
os.makedirs(folder, exist_ok=True)
np.savez(os.path.join(folder, "params.npz"), **w)
w = {k: torch.tensor(v).double() for k, v in w.items()}


def encode(rows):
    p = rows @ w["W_enc"] + w["b_enc"]
    assert (p - w["threshold"]).abs().min() > 2e-5
    return torch.where(p > w["threshold"], p.relu(), torch.zeros(()).double())


decode = lambda a: a @ w["W_dec"] + w["b_dec"]
rows = table[torch.tensor(ids)]
a = encode(rows)
n = w["W_dec"].norm(dim=1) * scale
assert (a > 0).any(1).all()
FEATURE = int((a[1:] * n).sum(0).argmax())


def ablated(rows):
    return rows - encode(rows)[:, FEATURE:FEATURE + 1] * w["W_dec"][FEATURE]


def spliced(rows):
    return torch.cat([rows[:1], decode(encode(rows))[1:]])  # BOS is left as it is: special tokens are not touched


steered = lambda rows: rows + STRENGTH * w["W_dec"][FEATURE] / w["W_dec"][FEATURE].norm() / scale
same = lambda rows: rows
assert torch.allclose(run(same, ids), model(torch.tensor([ids])).logits[0], atol=1e-6)  # the model's scale is rounded to f32
out = {"features": a * n, "reconstruction": decode(a) * scale, "logits_raw": run(same, ids), "logits_spliced": run(spliced, ids),
       "logits_ablated": run(ablated, ids), "embed": rows * scale}
save_file({k: v.float().contiguous() for k, v in out.items()}, os.path.join(here, "expected.safetensors"))
raw, changed = greedy(same, ids), greedy(steered, ids)
assert raw != changed
json.dump({"text": TEXT, "ids": ids, "feature": FEATURE, "strength": STRENGTH, "raw": raw, "steered": changed},
          open(os.path.join(here, "expected.json"), "w"), indent=1)
print(ids, FEATURE, raw, changed, (a > 0).sum(1))
