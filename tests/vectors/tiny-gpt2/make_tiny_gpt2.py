#!/usr/bin/env python3
"""Makes the tiny GPT-2 and what it must answer (README.md says what is where). Run it with no arguments."""
import json
import os
import shutil

import tokenizers
import torch
import transformers
from safetensors.numpy import save_file

from reference import HERE, HOT, f32, greedy, load_model, run, sha256, versions, write_json

SEED = 28
N_NEW = 24
MIN_LEAD = 1e-2  # greedy choices must not hang on rounding: float32 logits of this model move by less than 1e-4
END = "<|endoftext|>"
MIDDLE = ('Le café 🚢  naïf — "où"?\n\n  It\'s 1,024 ships, she\'d say: the Étoile, the Forêt & the Marie-Louise. Who drew them '
          "on the wall of the school, and who will read them? ")
LONG = ("One night a ship came near the rocks, late in the year, when the wind had been blowing from the north for three "
        "days. She rang the bell until her hands were sore, and the ship turned. In the morning there was a letter under "
        "the door, signed with eleven names; she put it into the clock, where she kept the things she wanted to find "
        "again. for (i = 0; i < 10; i++) { total += price[i]; } ")
# (text, tokens to keep with BOS): a text is cut at a token boundary, then the kept text is what the tests send.
PROMPTS = (("The ship turned", 0), (MIDDLE, 70), (LONG, 132))


def make_tokenizer():
    """Byte-level BPE of 512 entries, <|endoftext|> the last, as GPT-2's is the last of 50,257."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=511, initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    trained.train([os.path.join(HERE, "tokenizer_text.txt")], trainer)
    state = json.loads(trained.to_str())["model"]
    vocab = dict(state["vocab"])
    assert sorted(vocab.values()) == list(range(511))
    vocab[END] = 511
    merges = [tuple(pair) for pair in state["merges"]]

    tok = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    tok.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = tokenizers.decoders.ByteLevel()
    tok.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    tok.add_special_tokens([END])
    return tok, vocab, merges


def save_tokenizer(folder, tok, vocab, merges, with_json, with_pair):
    if with_json:
        tok.save(os.path.join(folder, "tokenizer.json"))
    if with_pair:
        with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as file:
            json.dump(vocab, file, ensure_ascii=False, separators=(",", ":"))
        with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as file:
            file.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    write_json(os.path.join(folder, "tokenizer_config.json"),
               {"add_bos_token": False, "add_prefix_space": False, "bos_token": END, "clean_up_tokenization_spaces": False,
                "eos_token": END, "model_max_length": 160, "tokenizer_class": "GPT2Tokenizer", "unk_token": END})


def readable(token, plain):
    """Tokens that decode to printable ASCII (or a space) on their own."""
    return token != END and plain != "" and all(" " <= c <= "~" for c in plain)


def make_model(tok):
    config = transformers.GPT2Config(
        vocab_size=512, n_positions=160, n_embd=48, n_layer=3, n_head=4, n_inner=128, bos_token_id=511, eos_token_id=511,
        initializer_range=0.15, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    torch.manual_seed(SEED)
    model = transformers.GPT2LMHeadModel(config).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            if ".ln_" in name and name.endswith("weight"):
                weight.copy_(1 + 0.25 * noise)
            elif name.endswith("bias"):
                weight.copy_(0.12 * noise)
            elif "wpe" in name:
                weight.copy_(0.4 * noise)
            elif "wte" in name:
                weight.copy_(0.4 * noise)
            else:
                weight.copy_((0.4 if "c_attn" in name else 0.3) * noise)
        # Bytes that are no text on their own would fill greedy texts with U+FFFD: their rows are kept short, as those of
        # rare tokens are in a trained model.
        for token, i in tok.get_vocab().items():
            if not readable(token, tok.decode([i], skip_special_tokens=False)):
                model.transformer.wte.weight[i] *= 0.25
    return model.eval()


def save_cast(model, folder, dtype, n_layer):
    """The same weights, the first n_layer blocks of them, rounded to dtype. The tests read it as any published folder."""
    config = transformers.GPT2Config.from_dict({**model.config.to_dict(), "n_layer": n_layer, "dtype": None})
    small = transformers.GPT2LMHeadModel(config)
    small.load_state_dict({k: v for k, v in model.state_dict().items() if k in small.state_dict()})
    small.to(dtype).save_pretrained(folder)


def prompt_ids(tok, text, keep):
    ids = tok.encode(text, add_special_tokens=False).ids
    if keep:
        assert len(ids) >= keep - 1, (len(ids), keep)
        while "\ufffd" in tok.decode(ids[:keep - 1]) or tok.encode(tok.decode(ids[:keep - 1])).ids != ids[:keep - 1]:
            keep -= 1
        ids = ids[:keep - 1]
    text = tok.decode(ids)
    assert tok.encode(text).ids == ids
    return text, [511] + ids


def check_sums(points, n_layer):
    """The hooks caught what their names say: the residual stream is a running sum, exact but for float64 rounding."""
    for i in range(n_layer):
        at = {point: points[f"blocks.{i}.{point}"] for point in HOT}
        assert torch.equal(at["hook_resid_mid"], at["hook_attn_out"] + at["hook_resid_pre"])
        assert torch.equal(at["hook_resid_post"], at["hook_resid_mid"] + at["hook_mlp_out"])
        assert i == 0 or torch.equal(at["hook_resid_pre"], points[f"blocks.{i - 1}.hook_resid_post"])


def expect_prompts(model, tok, tensors):
    rows = []
    for p, (text, keep) in enumerate(PROMPTS):
        text, ids = prompt_ids(tok, text, keep)
        points, logits = run(model, ids)
        check_sums(points, model.config.n_layer)
        wanted = HOT if p < 2 else ("hook_resid_post",)
        for i in range(model.config.n_layer):
            for point in wanted:
                tensors[f"p{p}/blocks.{i}.{point}"] = f32(points[f"blocks.{i}.{point}"])
        tensors[f"p{p}/logits"] = f32(logits)
        tensors[f"p{p}/ids"] = torch.tensor(ids, dtype=torch.int32).numpy()
        new, lead = greedy(model, ids, N_NEW)
        assert (new, True) == (greedy(model, ids, N_NEW, cached=True)[0], lead > MIN_LEAD), (lead, new)
        tensors[f"p{p}/greedy"] = torch.tensor(new, dtype=torch.int32).numpy()
        assert 511 not in new and "\ufffd" not in tok.decode(new), tok.decode(new)
        rows.append({"text": text, "ids": ids, "greedy_ids": new, "greedy_text": tok.decode(new),
                     "smallest_lead": round(lead, 5), "distinct": len(set(new))})
    return rows


def main():
    torch.set_num_threads(1)
    tok, vocab, merges = make_tokenizer()
    model = make_model(tok)
    for folder in ("model", "model-bf16", "model-f16"):
        shutil.rmtree(os.path.join(HERE, folder), ignore_errors=True)
        os.makedirs(os.path.join(HERE, folder))
    model.save_pretrained(os.path.join(HERE, "model"))
    save_cast(model, os.path.join(HERE, "model-bf16"), torch.bfloat16, 3)
    save_cast(model, os.path.join(HERE, "model-f16"), torch.float16, 2)
    # One folder with both tokenizer forms, one with each alone: all three ways must give the same ids.
    save_tokenizer(os.path.join(HERE, "model"), tok, vocab, merges, True, True)
    save_tokenizer(os.path.join(HERE, "model-bf16"), tok, vocab, merges, True, False)
    save_tokenizer(os.path.join(HERE, "model-f16"), tok, vocab, merges, False, True)

    tensors = {}
    rows = expect_prompts(load_model("model"), tok, tensors)
    for folder in ("model-bf16", "model-f16"):
        tensors[f"{folder}/p0/logits"] = f32(run(load_model(folder), rows[0]["ids"])[1])
    save_file(tensors, os.path.join(HERE, "expected.safetensors"))
    write_json(os.path.join(HERE, "expected.json"), {
        "seed": SEED, "bos": 511, "n_new": N_NEW, "versions": versions(), "prompts": rows,
        "sha256": {name: sha256(os.path.join(HERE, name, "model.safetensors"))
                   for name in ("model", "model-bf16", "model-f16")}})
    for row in rows:
        print(len(row["ids"]), row["smallest_lead"], row["distinct"], repr(row["greedy_text"]))


if __name__ == "__main__":
    main()
