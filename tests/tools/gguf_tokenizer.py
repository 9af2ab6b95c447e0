"""Makes a tokenizer.json from the vocabulary that a GGUF file carries, for compare_tokenizers.py.

    python tests/tools/gguf_tokenizer.py FILE.gguf llama2|gemma|smollm|gpt2|llama3|qwen2 OUT_FOLDER

GGUF names no normalizer or pre-tokenizer: the second argument says whose configuration the vocabulary has. SentencePiece
vocabularies have scores instead of merges; merges are made from them as transformers' converter does.
"""
import json
import os
import struct
import sys

SPACE = "\u2581"
SPLITS = {
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


class Reader:
    FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self):
        length = self.take("Q")
        self.at += length
        return self.data[self.at - length:self.at].decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(self.FORMATS[kind])


def metadata(path):
    with open(path, "rb") as file:
        reader = Reader(file.read(64 << 20))
    assert reader.data[:4] == b"GGUF"
    reader.at = 4
    version, _tensors, count = reader.take("I"), reader.take("Q"), reader.take("Q")
    assert version >= 2
    return {reader.text(): reader.value(reader.take("I")) for _ in range(count)}


def merges_of_scores(vocab, scores):
    merges = []
    for piece, score in scores.items():
        cuts = [(piece[:i], piece[i:], score) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += sorted(cuts, key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
    return [[a, b] for a, b, _ in sorted(merges, key=lambda cut: -cut[2])]


def template(bos, ids):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}}}


def parts(style, ids):
    """normalizer, pre_tokenizer, post_processor, decoder, further fields of the model."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": style in ("gpt2", "smollm")}
    pieces = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    if style == "llama2":
        return ({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]}, None, template("<s>", ids),
                {"type": "Sequence", "decoders": back + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}, pieces)
    if style == "gemma":
        return (replace, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
                template("<bos>", ids), {"type": "Sequence", "decoders": back}, pieces)
    if style == "smollm":
        return None, {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]}, None, level, {}
    if style == "gpt2":
        return None, level, None, level, {}
    split = {"type": "Split", "pattern": {"Regex": SPLITS[style]}, "behavior": "Isolated", "invert": False}
    return ({"type": "NFC"} if style == "qwen2" else None, {"type": "Sequence", "pretokenizers": [split, level]}, None, level,
            {"ignore_merges": style == "llama3"})


def main():
    path, style, folder = sys.argv[1:]
    meta = metadata(path)
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    vocab = {}
    for i, token in enumerate(tokens):
        vocab.setdefault(token, i)
    merges = meta.get("tokenizer.ggml.merges")
    if merges is None:
        scores = {t: s for t, s, kind in zip(tokens, meta["tokenizer.ggml.scores"], types) if kind == 1}
        merges = merges_of_scores(vocab, scores)
    normalizer, pre, post, decoder, model = parts(style, vocab)
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": kind != 4}
             for i, (token, kind) in enumerate(zip(tokens, types)) if kind in (2, 3, 4) and vocab[token] == i]
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre,
             "post_processor": post, "decoder": decoder,
             "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                       "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **model, "vocab": vocab, "merges": merges}}
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/tokenizer.json", "w", encoding="utf-8") as out:
        json.dump(whole, out, ensure_ascii=False, indent=2)
    print(f"{folder}: {meta['tokenizer.ggml.model']} {meta.get('tokenizer.ggml.pre')}, {len(vocab)} pieces, {len(merges)} merges, {len(added)} added")


if __name__ == "__main__":
    main()
