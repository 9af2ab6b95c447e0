"""Makes the tokenizers and the recorded ids of tests/unit/test_tokenizer.c.

    python make_tokenizer.py        (needs the `tokenizers` package; run in this folder)

Trains a small byte-level BPE on training.txt and writes
  plain/tokenizer.json                 as GPT-2's
  vocabulary/vocab.json, merges.txt    the same tokenizer in the older files
  added/tokenizer.json                 the same vocabulary with merges as pairs, added tokens of every kind, a BOS template, a
                                       Split with GPT-2's pattern, ignore_merges
  prefixed/tokenizer.json              the same with a leading space and without a pattern: a text is one stretch
  cases.json                           texts and the ids that the `tokenizers` library gives for them:
                                       "plain", "added", "prefixed": special tokens are ordinary
                                       text; "plain_special" and so on: they become their ids (absent when equal)
"""
import json
import os
import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
MERGES = 600
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + MERGES + 1, initial_alphabet=alphabet, special_tokens=[END],
                                  show_progress=False)
    tokenizer.train(["training.txt"], trainer)
    return json.loads(tokenizer.to_str())


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)


def added_variant(plain):
    """Everything that is supported and that the plain file does not use."""
    it = json.loads(json.dumps(plain))
    model = it["model"]
    model["merges"] = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]
    model["ignore_merges"] = True
    model["vocab"]["Ġlighthousekeeper"] = len(model["vocab"])  # no merge makes it: only ignore_merges finds it
    first = len(model["vocab"])  # the library numbers added tokens from here on, whatever the file says
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokens = [("<s>", {"special": True}), ("<mask>", {"special": True, "lstrip": True}),
              ("<|user|>", {"special": True, "rstrip": True}), ("<think>", {"normalized": True}), ("<thi", {}),
              ("    ", {"normalized": True}), ("  ", {"normalized": True}), ("é🚀", {"lstrip": True, "rstrip": True})]
    for i, (content, flags) in enumerate(tokens):
        it["added_tokens"].append({"id": first + i, "content": content, **base, **flags})
    it["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    it["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                  {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [first], "tokens": ["<s>"]}}}]}
    return it


def prefixed_variant(plain):
    """A leading space and no pattern: a text is one stretch."""
    it = json.loads(json.dumps(plain))
    it["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
    return it


WRITTEN = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\t\n", "\n ", " \n", " \n ", "\v", "\f", "\u0085", "\u00a0",
    "\u00a0\u00a0a", "a\u00a0b", "a \u00a0b", "a\u00a0 b", "\u1680x", "\u180ex", "a \u180e b", "\u180e\u180e", "\u2000 \u200a.",
    "\u2028\u2029", "\u202f1", "\u205f\u3000", "\u200b", "\u200bword", "a\u200bb", "\ufeff", "\ufeffBOM", "\u0001\u0002", "\x1c\x1d\x1e\x1f",
    "\x7f", "Hello world", " Hello world", "Hello  world", "Hello   world  ", "hello\nworld", "hello\n\nworld\n", "a b c", "  a", "a  ",
    "I'm", "I'M", "we're", "We'Re", "they've", "she'll", "he'd", "it's", "can't", "'s", "''s", "'s's", "'", "''", "' s", "'tis", "o'clock",
    "y'all'd've", "\u2019s", "it\u2019s", "don't don\u2019t", "'ll'll", "'mm", "'re're", "'ved", " 's", " 't", "\n's", "1's", "!'s",
    "0", "12", "123", "1234", "12345678901234567890", "1,234.56", "-1", "3.14e-10", "0x1F", "1st 2nd 3rd", "a1b2c3", "½", "²³", "Ⅷ", "٣٤٥",
    "१२३", "１２３", "𝟙𝟚𝟛", "①②", "৪৫ abc", "1٢3", "x²+y²", "10\u00a0000", "10 000", "๑๒๓", "三千", "፳", "\U0001d7d8",
    "é", "e\u0301", "e\u0301\u0301\u0301", "\u0301", " \u0301", "a\u0301b\u0302c", "naïve café", "Größe", "straße", "ŒUVRE œuvre", "İstanbul ıi", "ﬁ ﬂ",
    "Ǆ ǅ ǆ", "ʻokina", "ªº", "Ωω Ωmega", "нещо на Български", "Привет, мир!", "Ελληνικά", "עברית שלום", "שָׁלוֹם", "السلام عليكم",
    "مُحَمَّد", "हिन्दी", "क्षत्रिय", "ไทยภาษา", "កាន់តែពិសេស", "한국어", "\u1112\u1161\u11ab", "日本語テキスト", "漢字かな交じり文", "中文，标点。", "ﾊﾝｶｸ",
    "𠀀𠀁", "𐍈𐌰", "🚀", "🚀🚀", " 🚀", "🚀 ", "👩\u200d🚀", "👨\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "🇫🇷🇩🇪", "👍🏽", "❤️", "😶\u200d🌫️ (multiple)", "✅",
    "☺", "a🚀b", "1🚀2", "©®™", "€$£¥", "∑∫√", "→←", "…", "—–-", "«guillemets»", "„quotes“", "“quotes”", "¿qué?", "¡hola!",
    "!!!!!!", "???", "!?", "...", "------=======", "''''''", "``````", '""""', "a.b.c", "a_b_c", "foo(bar);", "#include <stdio.h>",
    "if (x) { y(); }", "    int main(void) {", "\tint x;", "\t\tint x;", " \t mixed \t ", "for i in range(10):\n    print(i)\n", "a\n  b\n    c\n",
    "http://example.com/a?b=c&d=e", "user@example.com", "C:\\path\\file", "50%", "a/b", "~", "^", "|", "\\", "{}[]()<>",
    END, END + END, "a" + END + "b", "a " + END + " b", " " + END, END + " ", END + "\n", "<|endoftext", "|endoftext|>", "<|ENDOFTEXT|>", "<" + END, END + ">",
    "x" + END * 3 + "y", "<s>", "<s>text", "text<s>", "a <mask> b", "a  <mask>  b", "<mask><mask>", " <mask>", "\u00a0\u3000<mask>x", "<|user|> hello", "<|user|>\n\n hello",
    "a<|user|>", "<|user|>  <|user|>", "<think>hm</think>", "<thi", "<think", "<thin", "<think><thi", "<thi<think>", "a    b", "a     b", "a      b", "  ", "     ", "\n    x",
    "    <mask>", "<|user|>    x", "é🚀", " é🚀 ", "x  é🚀  y", "é🚀é🚀", "é 🚀", "lighthousekeeper", " lighthousekeeper", "the lighthousekeeper!", " lighthousekeepers",
    "a" * 100, "a" * 1000, " " * 100, " " * 999 + "x", "\n" * 50, "\t" * 33 + "x", "ab" * 300, "the" * 200, " the" * 100, "1" * 500, "!" * 257, "é" * 99,
    "🚀" * 40, "'s" * 50, "e\u0301" * 60, "\u00a0" * 30 + "a", "0 " * 64, "Aa" * 64, "lighthouse" * 20, "=-" * 70,
]

ALPHABETS = [
    "abcdefghij etaoin  ", "ABCdef 's't're've'm'll'd", "0123456789 ,.-", "    \t\n\r", "éèêëàâçœ aei", "абвгд еёж", "漢字かなカナ七船",
    "🚀😀✅👩\u200d👍🏽️", "\u0300\u0301\u0327aeo ", "٠١٢३४५৬७ a1", "\u00a0\u2003\u3000\u180e\u200b x1.", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ",
    "שלוםعليكم ", "हिन्दीไทย ", "\x01\x02\x1c\x7f\u0085a ", "the lighthouse keeper counted ",
]


def invented(count, seed):
    rng = random.Random(seed)
    words = open("training.txt", encoding="utf-8").read().split()
    for i in range(count):
        parts = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.35:
                parts.append(rng.choice(words))
            elif kind < 0.42:
                parts.append(rng.choice([END, "<s>", "<mask>", "<|user|>", "<think>", "    "]))
            else:
                letters = rng.choice(ALPHABETS)
                parts.append("".join(rng.choice(letters) for _ in range(rng.randint(1, 14))))
            parts.append(rng.choice(["", "", " ", "  ", "\n"]))
        yield "".join(parts)


def encode(tokenizer, text, special):
    tokenizer.encode_special_tokens = not special
    return tokenizer.encode(text, add_special_tokens=False).ids


def main():
    plain = train()
    variants = {"plain": plain, "added": added_variant(plain), "prefixed": prefixed_variant(plain)}
    for name, content in variants.items():
        write(f"{name}/tokenizer.json", json.dumps(content, ensure_ascii=False, indent=None, separators=(",", ":")) + "\n")
    merges = [m if isinstance(m, str) else " ".join(m) for m in plain["model"]["merges"]]
    write("vocabulary/vocab.json", json.dumps(plain["model"]["vocab"], ensure_ascii=False, separators=(",", ":")) + "\n")
    write("vocabulary/merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")

    made = {name: Tokenizer.from_file(f"{name}/tokenizer.json") for name in variants}
    cases = []
    for text in WRITTEN + list(invented(200, seed=7)):
        case = {"text": text}
        for name, tokenizer in made.items():
            case[name] = encode(tokenizer, text, special=False)
            special = encode(tokenizer, text, special=True)
            if special != case[name]:
                case[name + "_special"] = special
        cases.append(case)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    write("./cases.json", "[\n" + lines + "\n]\n")
    print(len(plain["model"]["vocab"]), "pieces,", len(cases), "cases")


if __name__ == "__main__":
    main()
