"""Makes small SentencePiece models of every kind steerd serves, and the recorded ids of tests/unit/test_tokenizer_pieces.c.

    python make_pieces.py        (needs the `sentencepiece` and `tokenizers` packages, 0.2.3 and 0.23.3 were used; run in this folder)

Each pieces/NAME has a tokenizer.model trained on training.txt, settings beside it as published folders have them, and cases.json as
make_kinds.py writes it. The reference is `sentencepiece` itself between the added tokens (Pieces in compare_tokenizers.py).
"""
import json
import os
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

sys.path.insert(0, "../../tools")
import compare_tokenizers  # noqa: E402
import make_kinds  # noqa: E402

# What maps of characters do: one for one, one for many, many for one, nothing, spaces, several words.
RULES = {"\ufb01": "fi", "\uff21": "A", "\u2460": "1", "\u338f": "kg", "\u3000": " ", "\u00a0": " ", "\u2003": " ", "\t": " ", "\n": " ", "\r": " ",
         "\u200b": "", "\u00ad": "", "\x7f": "", "e\u0301": "\u00e9", "a\u0301": "\u00e1", "\u212b": "\u00c5", "\u0301": "'",
         "\ufdfa": "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647", "\u00b4": " \u0301", "\u2026": "...", "\u017f": "s", "\u00b2": "2", "\u0130": "i\u0307",
         "~": "-", "~~": "=", "~~~": "~"}


def flags(content, special=False, **more):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special, **more}


def kinds():
    """name, arguments of the trainer, changes of the model, files beside it."""
    base = dict(model_type="bpe", vocab_size=560, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True, character_coverage=0.999, hard_vocab_limit=False)
    yield "llama", base, {}, {"tokenizer_config.json": {
        "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}}
    yield "llama-new", base, {}, {"tokenizer_config.json": {"legacy": False, "add_bos_token": True, "bos_token": "<s>", "added_tokens_decoder": {
        "0": flags("<unk>", True), "1": flags("<s>", True), "2": flags("</s>", True, rstrip=True), "570": flags("<|end|>", True, lstrip=True),
        "575": flags("<think>"), "20": flags("<tool>", True)}}}
    yield "gemma", dict(base, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, bos_piece="<bos>", eos_piece="<eos>",
                        control_symbols=["<mask>"], user_defined_symbols=["<start>", "\u2581\u2581", "\u2581\u2581\u2581", "\n", "\n\n", "\t", "the"]), {}, {}
    yield "mapped", dict(base, byte_fallback=False, vocab_size=420, remove_extra_whitespaces=True, normalization_rule_name=None, rules=RULES,
                         user_defined_symbols=["\ufb01n", "<x  y>"]), {}, {
        "added_tokens.json": {"<pad>": 423, "<turn>": 421}, "special_tokens_map.json": {"pad_token": "<pad>", "bos_token": {"content": "<s>"}}}
    yield "characters", dict(base, model_type="char", byte_fallback=False, remove_extra_whitespaces=True), {}, {}
    yield "plain-spaces", base, {"escape_whitespaces": False}, {"tokenizer_config.json": {"add_prefix_space": False}}


def train(arguments, changes, folder):
    rules = arguments.pop("rules", None)
    if rules:
        with open(f"{folder}/rules.tsv", "w", encoding="utf-8") as out:
            out.writelines("\t".join(" ".join(f"{ord(c):X}" for c in side) for side in rule) + "\n" for rule in rules.items())
        arguments["normalization_rule_tsv"] = f"{folder}/rules.tsv"
    arguments = {key: value for key, value in arguments.items() if value is not None}
    sentencepiece.SentencePieceTrainer.train(input="training.txt", model_prefix=f"{folder}/trained", num_threads=1, minloglevel=2, **arguments)
    proto = sentencepiece_model_pb2.ModelProto()
    with open(f"{folder}/trained.model", "rb") as file:
        proto.ParseFromString(file.read())
    for key, value in changes.items():
        setattr(proto.normalizer_spec, key, value)
        for piece in proto.pieces:
            piece.piece = piece.piece.replace("\u2581", " ")
    proto.trainer_spec.model_prefix = ""
    proto.trainer_spec.input[:] = []
    proto.normalizer_spec.normalization_rule_tsv = ""
    with open(f"{folder}/tokenizer.model", "wb") as out:
        out.write(proto.SerializeToString(deterministic=True))
    for name in ("rules.tsv", "trained.model", "trained.vocab"):
        if os.path.exists(f"{folder}/{name}"):
            os.remove(f"{folder}/{name}")


def main():
    for name, arguments, changes, files in kinds():
        folder = f"pieces/{name}"
        os.makedirs(folder, exist_ok=True)
        train(dict(arguments), changes, folder)
        for file, content in files.items():
            with open(f"{folder}/{file}", "w", encoding="utf-8") as out:
                json.dump(content, out, indent=1)
                out.write("\n")
        t = compare_tokenizers.reference(folder)
        lines = [json.dumps(case, separators=(",", ":")) for case in make_kinds.cases(t, name, arguments.get("user_defined_symbols", []) + ["~", "~~", "~~~~~"])]
        with open(f"{folder}/cases.json", "w", encoding="ascii") as out:
            out.write("[\n" + ",\n".join(lines) + "\n]\n")
        print(name, t.get_vocab_size(), len(lines), os.path.getsize(f"{folder}/tokenizer.model"), os.path.getsize(f"{folder}/cases.json"))


if __name__ == "__main__":
    main()
