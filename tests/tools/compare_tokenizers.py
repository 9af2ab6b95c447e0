"""Compares steerd's tokenizer with the `tokenizers` library, or with `sentencepiece`, on hard and random texts.

    make build/release/tools/tokenize
    python tests/tools/compare_tokenizers.py [--count 100000] [--seed 1] FOLDER [FOLDER...]

A FOLDER holds tokenizer.json, or vocab.json + merges.txt (taken as GPT-2's), or tokenizer.model. Every text is encoded twice, special
tokens as ordinary text and as themselves, and decoded again token by token; ids and text must be equal. Prints one line
a folder; exit status 1 when anything differs. Differences in texts with characters newer than Unicode 14 are counted apart: the
library knows some of them as letters or digits, steerd's PCRE2 does not.
"""
import argparse
import json
import os
import random
import re
import struct
import subprocess
import sys
import types
import unicodedata

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

ALPHABETS = [
    "abcdefghij etaoin  ", "ABCdef 's't're've'm'll'd'S'T'RE'VE'M'LL'D", "0123456789 ,.-", "    \t\n\r", "\r\n\r\n  \n", "éèêëàâçœ aei",
    "абвгд еёж", "漢字かなカナ七船龍", "🚀😀✅👩\u200d👍🏽️", "\u0300\u0301\u0327\u0323\u0345aeo ", "٠١٢३४५৬७²³½Ⅷ a1", "\u00a0\u2003\u3000\u180e\u200b\u1680\u2028\u0085 x1.",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", "שלוםعليكم ", "हिन्दीไทย ", "\x00\x01\x02\x1c\x1f\x7f\u0085a ", "\u2581_ \u2581a", "ſKÅΩﬁﬀİıßẞ", "각가각한글ㄱ",
    "\ufb01\u2126\u212b\u1e9b\u0323①㎏Ａ", "<>|/_ sendofx", "\ue000\U000f0000\uffff\ufeff\U0010fffd ", "aaaaaaaaab", "          a", "ﷺ \u0f73\u0f75\U0001d15e\U0001d1bf",
]
WRITTEN = [
    "", " ", "  ", "\n", "a", " a", "a ", " a ", "Hello world", "Hello  world", "Hello, y'all! How are you 😁 ?", "I'll I'LL i'Ll 's 'S",
    "The 3 quick brown foxes 1234567890 12.5e-3", "    int main(void) {\n\t\treturn 0;\n    }\n", "\r\n\r\n", "a\r\nb\r\n\r\n  c", "e\u0301 é \u00e9\u0301",
    "\u2581Hello\u2581world", "\u2581", "<0x41><0x0A>", "<s>", "</s>", "<unk>", "<bos>", "<|endoftext|>", " <|endoftext|> ", "<|endoftext|><|endoftext|>",
    "<|im_start|>user\nhi<|im_end|>\n", "<think>\n\n</think>\n\n", "x<s>y</s> z", "<s> a", "a" * 3000, " " * 500 + "x", "\n" * 300, "ab" * 1000, "漢" * 500, "e\u0301" * 300,
    "🚀" * 100, "\u0301" * 400, "1" * 400, "x" + " " * 99 + "\n" + " " * 99, "'" * 99, "\u00a0" * 50 + "a", "ſ's ſ'ſ", "don'ſ", "a\u200db", "\ufeffabc",
]


def words():
    root = os.environ.get("STEERD_DATA", "../shared/data")
    try:
        with open(f"{root}/texts/tinyshakespeare/input.txt", encoding="utf-8") as file:
            return file.read().split(" ")
    except OSError:
        return [word + " " for word in "the lighthouse keeper counted ships and the sea went on without him".split()]


def texts(count, seed, added):
    """Half of them from alphabets that pick at one rule each, the rest from words, added tokens and single code points."""
    rng, prose = random.Random(seed), words()
    yield from WRITTEN
    for token in added:
        yield from (token, f"a{token}b", f" {token} ", f"{token}{token}", f"{token}  x", f"x \n{token}", token[:-1], f"_{token}1")
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.3:
                at = rng.randrange(len(prose))
                parts.append(" ".join(prose[at:at + rng.randint(1, 6)]))
            elif kind < 0.4 and added:
                parts.append(rng.choice(added))
            elif kind < 0.5:
                parts.append("".join(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))) for _ in range(rng.randint(1, 4))))
            else:
                letters = rng.choice(ALPHABETS)
                parts.append("".join(rng.choice(letters) for _ in range(rng.randint(1, 14))))
            parts.append(rng.choice(["", "", " ", "  ", "\n"]))
        yield "".join(parts)


SPACES = r"(?:(?![\x1c-\x1f])\s)*"  # white space as Rust has it


class Pieces:
    """A SentencePiece model and the tokens that the settings beside it add, with the methods of a Tokenizer that are used here.
    Between added tokens stands what `sentencepiece` itself makes of the text, as transformers' slow tokenizers have it."""

    def __init__(self, folder):
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
        config = self.load(f"{folder}/tokenizer_config.json")
        proto = sentencepiece_model_pb2.ModelProto()
        with open(f"{folder}/tokenizer.model", "rb") as file:
            proto.ParseFromString(file.read())
        self.prefix = config.get("add_prefix_space", proto.normalizer_spec.add_dummy_prefix)
        self.every, self.strip = config.get("legacy", True), self.prefix or proto.normalizer_spec.remove_extra_whitespaces
        proto.normalizer_spec.add_dummy_prefix = self.prefix and self.every
        self.sp = SentencePieceProcessor(model_proto=proto.SerializeToString())
        proto.normalizer_spec.add_dummy_prefix = self.prefix
        self.begin = SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.tokens, self.encode_special_tokens = {}, False
        ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
        for i, piece in enumerate(proto.pieces):
            if piece.type in (2, 3):
                self.tokens[i] = AddedToken(piece.piece, special=True, normalized=False)
        self.add(config, folder, ids)
        self.pattern = re.compile("|".join(re.escape(t.content) for t in sorted(self.tokens.values(), key=lambda t: -len(t.content))))
        self.ids = {t.content: i for i, t in self.tokens.items()}
        self.shown = {i: p.piece.replace("\u2581", " ").encode() if p.type != 6 else bytes([int(p.piece[3:5], 16)]) for i, p in enumerate(proto.pieces)}
        self.shown.update({i: t.content.encode() for i, t in self.tokens.items() if i >= len(proto.pieces) or proto.pieces[i].piece != t.content})

    @staticmethod
    def load(path):
        return json.load(open(path, encoding="utf-8")) if os.path.exists(path) else {}

    def add(self, config, folder, ids):
        listed = config.get("added_tokens_decoder")
        names = dict(config) if listed else {**config, **self.load(f"{folder}/special_tokens_map.json")}
        special = [names.get(f"{kind}_token") for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")] + names.get("additional_special_tokens", [])
        special = {t if isinstance(t, str) else t["content"] for t in special if t}
        for i, token in (listed or {}).items():
            self.tokens[int(i)] = AddedToken(**{**token, "special": token.get("special", False) or token["content"] in special})
        if not listed:
            for content, i in self.load(f"{folder}/added_tokens.json").items():
                self.tokens[i] = AddedToken(content, special=content in special, normalized=False)
        for content in special:
            if content in ids and content not in [t.content for t in self.tokens.values()]:
                self.tokens[ids[content]] = AddedToken(content, special=True, normalized=False)

    def get_vocab_size(self):
        return max(self.shown) + 1

    def get_added_tokens_decoder(self):
        return self.tokens

    def stretch(self, text, first):
        return (self.begin if first and not self.every else self.sp).encode(text) if text else []

    def ids_of(self, text):
        """`encode_special_tokens`, as in the library, means that special ones stay text."""
        ids, start = [], 0
        for match in self.pattern.finditer(text):
            token = self.tokens[self.ids[match.group()]]
            if token.special and self.encode_special_tokens:
                continue
            before = text[start:match.start()]
            ids += self.stretch(re.sub(f"{SPACES}$", "", before) if token.lstrip else before, start == 0) + [self.ids[match.group()]]
            start = re.compile(SPACES).match(text, match.end()).end() if token.rstrip else match.end()
        return ids + self.stretch(text[start:], start == 0)

    def encode_batch_fast(self, batch, add_special_tokens=False):
        return [types.SimpleNamespace(ids=self.ids_of(text)) for text in batch]

    def encode(self, text, add_special_tokens=False):
        return types.SimpleNamespace(ids=self.ids_of(text))

    def decode(self, ids, skip_special_tokens=False):
        text = b"".join(self.shown[i] for i in ids).decode("utf-8", "replace")
        return text[1:] if self.strip and text.startswith(" ") else text


def reference(folder):
    path = f"{folder}/tokenizer.json"
    if os.path.exists(path):
        return Tokenizer.from_file(path)
    if os.path.exists(f"{folder}/tokenizer.model"):
        return Pieces(folder)
    made = Tokenizer(models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    for content, _ in sorted(Pieces.load(f"{folder}/added_tokens.json").items(), key=lambda item: item[1]):
        made.add_tokens([AddedToken(content, normalized=False)])
    if made.token_to_id("<|endoftext|>") is not None:
        made.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    return made


class Ours:
    def __init__(self, program, folder):
        self.command = [program, folder]

    def encode(self, batch, flags):
        """(ids or None, text) of each."""
        sent = b"".join(struct.pack("<II", flags, len(data)) + data for data in (text.encode() for text in batch))
        out = subprocess.run(self.command, input=sent, stdout=subprocess.PIPE, check=True).stdout
        at = 0
        for _ in batch:
            (count,) = struct.unpack_from("<I", out, at)
            at += 4
            ids = None
            if count != 0xFFFFFFFF:
                ids = list(struct.unpack_from(f"<{count}i", out, at))
                at += 4 * count
            (length,) = struct.unpack_from("<I", out, at)
            yield ids, out[at + 4:at + 4 + length].decode()
            at += 4 + length


def compare(program, folder, count, seed, shown):
    theirs, ours = reference(folder), Ours(program, folder)
    added = sorted(token.content for token in theirs.get_added_tokens_decoder().values())
    if len(added) > 300:
        added = random.Random(seed).sample(added, 300)
    batch = list(texts(count, seed, added))
    wrong = refused = newer = 0
    for special in (False, True):
        theirs.encode_special_tokens = not special
        wanted = theirs.encode_batch_fast(batch, add_special_tokens=False)
        for text, want, (ids, decoded) in zip(batch, wanted, ours.encode(batch, 2 if special else 0)):
            if ids is None:  # the library drops characters without a piece, steerd refuses them
                refused += 1
                continue
            back = theirs.decode(ids, skip_special_tokens=False) if ids == want.ids else decoded
            if ids == want.ids and back == decoded:
                continue
            if any(unicodedata.category(c) == "Cn" for c in text):
                newer += 1
                continue
            wrong += 1
            if wrong <= shown:
                print(f"  {text!r} special={special}\n    ours   {ids} {decoded!r}\n    theirs {want.ids} {back!r}")
    name = "/".join(folder.rstrip("/").split("/")[-2:])
    print(f"{name}: {theirs.get_vocab_size()} ids, {len(batch)} texts twice, {wrong} differ, {newer} more with newer characters, {refused} refused", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shown", type=int, default=5, help="differences printed a folder")
    parser.add_argument("--program", default="build/release/tools/tokenize")
    parser.add_argument("folders", nargs="+")
    args = parser.parse_args()
    sys.exit(1 if sum(compare(args.program, f, args.count, args.seed, args.shown) for f in args.folders) else 0)


if __name__ == "__main__":
    main()
