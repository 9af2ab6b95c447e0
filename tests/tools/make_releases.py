#!/usr/bin/env python3
"""config/releases.ini from a table of published dictionaries in YAML: release -> model, repo_id, saes [id, path, neuronpedia],
as SAELens keeps one (pretrained_saes.yaml). Only names are taken. usage: make_releases.py TABLE.yaml > config/releases.ini

Dictionaries of a release that differ in numbers only become one line: the first number of the id stands for itself in the
other names as {}, numbers that go with it in another way are listed."""
import re, sys
import yaml

HEAD = """; Published dictionaries by name: which repository holds them, in which folder, and what Neuronpedia calls them.
;
;   [RELEASE]
;   model = the model's name            repository = OWNER/NAME on the Hugging Face hub
;   ID = FOLDER | NEURONPEDIA ID        the latter is MODEL/SOURCE, or left out
;
; {0-11} or {0,6,12} in an ID are numbers; {} in FOLDER and NEURONPEDIA ID is that number, {5=105 6=102} what goes with it.
; A release answers to every folder of its repository, listed or not. Made by tests/tools/make_releases.py.
"""
digits = re.compile(r"\d+")


def ranges(numbers):
    out, numbers = [], sorted(numbers)
    while numbers:
        n = 1
        while n < len(numbers) and numbers[n] == numbers[0] + n:
            n += 1
        out.append(f"{numbers[0]}-{numbers[n - 1]}" if n > 2 else ",".join(map(str, numbers[:n])))
        numbers = numbers[n:]
    return ",".join(out)


def column(texts, numbers):
    """one pattern for the texts of all numbers, or None"""
    if any(t is None for t in texts):
        return "" if all(t is None for t in texts) else None
    shapes = {digits.sub("#", t) for t in texts}
    if len(shapes) > 1:
        return None
    found, out = [digits.findall(t) for t in texts], digits.split(texts[0])
    text = out[0]
    for i, rest in enumerate(out[1:]):
        values = [f[i] for f in found]
        if len(set(values)) == 1 and len(values) > 1:
            text += values[0]
        elif values == [str(n) for n in numbers]:
            text += "{}"
        else:
            text += "{" + " ".join(f"{n}={v}" for n, v in zip(numbers, values)) + "}"
        text += rest
    return text


def lines(saes):
    groups = {}
    for sae in saes:
        match = digits.search(sae["id"])
        key = (sae["id"][:match.start()], sae["id"][match.end():]) if match else (sae["id"], None)
        groups.setdefault(key, []).append((int(match.group()) if match else 0, sae))
    for (before, after), members in groups.items():
        members.sort(key=lambda m: m[0])
        numbers = [m[0] for m in members]
        if after is None or len(members) == 1:
            for _, s in members:
                yield s["id"], s["path"], s.get("neuronpedia")
            continue
        path, name = (column([m[1].get(k) for m in members], numbers) for k in ("path", "neuronpedia"))
        if path is None or name is None or len(path) > 2000:
            for _, s in members:
                yield s["id"], s["path"], s.get("neuronpedia")
            continue
        yield before + "{" + ranges(numbers) + "}" + after, path, name


table = yaml.safe_load(open(sys.argv[1]))
table = table.get("releases", table) if "releases" in table else table
print(HEAD, end="")
for release, entry in table.items():
    saes = entry.get("saes") or []
    # a folder that is its own name needs no line unless Neuronpedia calls it something
    if len(release) > 48:  # longer than a section's name may be
        continue
    saes = [s for s in saes if "_step_" not in str(s["id"])]  # checkpoints of a training
    for s in saes:
        s.update(id=str(s["id"]), path=str(s["path"]))
        if "clt_layer" in str(entry.get("conversion_func")):  # named by a layer's number there, which no file bears
            s.update(path=f"W_enc_{s['path']}.safetensors")
    kept = [l for l in lines(saes) if l[2] or re.sub(r"\{[^}]*\}", "{}", l[0]) != l[1]]
    if len(kept) > 60:  # hundreds of variants, each with a name of its own: the folders answer to themselves
        kept = []
    print(f"\n[{release}]\nmodel = {entry['model']}\nrepository = {entry['repo_id']}")
    for i, path, name in kept:
        print(f"{i} = {path}" + (f" | {name}" if name else ""))
