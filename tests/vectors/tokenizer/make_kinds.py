"""Makes small tokenizers of every kind steerd serves, and the recorded ids of tests/unit/test_tokenizer_kinds.c.

    python make_kinds.py        (needs the `tokenizers` package, 0.23.3 was used; run in this folder)

Each kinds/NAME has a tokenizer.json trained on training.txt with the configuration of a published family, and cases.json:
[text, ids with special tokens as ordinary text, ids with special tokens as themselves or null when equal, decoded text of the last
or null when equal to the text].
"""
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, "../../tools")
from compare_tokenizers import ALPHABETS, WRITTEN  # noqa: E402

SPACE = "\u2581"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def level(regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


def bytes_kind(name, pre, normalizer=None, special=("<|endoftext|>",), added=(), post=None, size=420, **model):
    """Byte-level BPE."""
    t = Tokenizer(models.BPE(**model))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    t.train(["training.txt"], trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    t.add_special_tokens([AddedToken(s, normalized=False) for s in special])
    t.add_tokens(list(added))
    if post:
        t.post_processor = post(t)
    return name, t


def pieces_kind(name, normalizer, pre, decoder, special=("<unk>", "<s>", "</s>"), added=(), fallback=True, size=700, **model):
    """SentencePiece-style BPE: characters, with or without byte fallback."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=fallback, **model))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.decoder = decoder
    first = list(special) + (BYTES if fallback else [])
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=first, show_progress=False, max_token_length=12)
    t.train_from_iterator((word for line in open("training.txt", encoding="utf-8") for word in line.split(" ")) if not pre else open("training.txt", encoding="utf-8"), trainer)
    data = json.loads(t.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in special]
    t = Tokenizer.from_str(json.dumps(data))
    t.add_tokens(list(added))
    return name, t


def bos(token):
    return lambda t: processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                          processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B:1",
                                                                        special_tokens=[(token, t.token_to_id(token))])])


def kinds():
    replace, back = normalizers.Replace(" ", SPACE), [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    token = AddedToken
    yield bytes_kind("llama3", pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), level(False)]),
                     special=("<|begin_of_text|>", "<|end_of_text|>"), post=bos("<|begin_of_text|>"), ignore_merges=True)
    yield bytes_kind("qwen", pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), level(False)]), normalizers.NFC(),
                     special=("<|endoftext|>", "<|im_start|>"), added=[token("<think>", normalized=False), token("e\u0301\u0323", normalized=True)])
    yield bytes_kind("neox", level(True), normalizers.NFC(), added=[token(" " * n, normalized=True) for n in range(8, 1, -1)])
    yield bytes_kind("digits", pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level(True)]))
    yield bytes_kind("digits-behind", pre_tokenizers.Sequence([level(True), pre_tokenizers.Digits(False)]))
    yield bytes_kind("o200k", pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(O200K), "isolated"), level(False)]))
    yield pieces_kind("llama2", normalizers.Sequence([normalizers.Prepend(SPACE), replace]), None,
                      decoders.Sequence(back + [decoders.Strip(" ", 1, 0)]), fuse_unk=True,
                      added=[token("<x>", normalized=True), token("<|user|>", rstrip=True, normalized=False)])
    yield pieces_kind("gemma", replace, pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(back), fuse_unk=True,
                      special=("<pad>", "<eos>", "<bos>", "<unk>"), added=[token("\n\n", normalized=False), token(SPACE * 2, normalized=False)])
    yield pieces_kind("metaspace", None, pre_tokenizers.Metaspace(SPACE, "first", False), decoders.Sequence(back + [decoders.Strip(" ", 1, 0)]), fuse_unk=True)
    yield pieces_kind("metaspace-split", None, pre_tokenizers.Metaspace(SPACE, "always", True), decoders.Metaspace(SPACE, "always", True), fallback=False)
    yield pieces_kind("words", normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace(Regex(r"\s{2,}"), "  ")]),
                      pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Digits(False)]),
                      decoders.Fuse(), fallback=False, size=400,
                      added=[token("keep", single_word=True, normalized=False), token("sea", single_word=True, lstrip=True, rstrip=True, normalized=True)])
    yield pieces_kind("cuts", None, pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Split("e", "merged_with_next"),
        pre_tokenizers.Split(Regex("[aou]"), "merged_with_previous"), pre_tokenizers.Split(Regex(r"\p{L}+"), "removed", invert=True)]), decoders.Fuse(), fallback=False, size=200)


def cases(t, name, more=()):
    rng = random.Random(name)
    prose = open("training.txt", encoding="utf-8").read().split(" ")
    added = [a.content for a in t.get_added_tokens_decoder().values() if not a.content.startswith("<0x")]
    batch = [text if len(text) < 120 else text[:120] for text in WRITTEN]
    for content in added + list(more):
        batch += [content, f"a{content}b", f" {content}  x", f"{content}{content}", f"\n {content}_"]
    for _ in range(110):
        parts = []
        for _ in range(rng.randint(1, 4)):
            kind = rng.random()
            letters = rng.choice(ALPHABETS)
            parts.append(" ".join(rng.sample(prose, 2)) if kind < 0.4 else rng.choice(added) if kind < 0.55 else
                         "".join(rng.choice(letters) for _ in range(rng.randint(1, 9))))
        batch.append("".join(parts))
    for text in batch:
        ids = []
        for special in (False, True):
            t.encode_special_tokens = not special
            ids.append(t.encode(text, add_special_tokens=False).ids)
        back = t.decode(ids[1], skip_special_tokens=False)
        yield [text, ids[0], None if ids[1] == ids[0] else ids[1], None if back == text else back]


def main():
    for name, t in kinds():
        folder = f"kinds/{name}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/tokenizer.json", "w", encoding="utf-8") as out:
            out.write(json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
        t = Tokenizer.from_file(f"{folder}/tokenizer.json")
        lines = [json.dumps(case, separators=(",", ":")) for case in cases(t, name)]
        with open(f"{folder}/cases.json", "w", encoding="ascii") as out:
            out.write("[\n" + ",\n".join(lines) + "\n]\n")
        print(name, t.get_vocab_size(), len(lines), os.path.getsize(f"{folder}/tokenizer.json"), os.path.getsize(f"{folder}/cases.json"))


if __name__ == "__main__":
    main()
