"""Clamp steering: a feature held at a value at every position, prompt and generated text. With the error term only the feature's own
share of the stream changes; without it the dictionary's reconstruction stands in for the rest.

Beside the workshop's model (steerd serve --model villes=config/models/villes.ini --source villes/0-res-ws=config/models/villes.ini)
it writes town names from two beginnings, then draws some; beside the demo it continues a story."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600) if body else requests.get(URL + path, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


def write(prompt, n_tokens, edits, **more):
    output = "STEERED" if edits else "DEFAULT"
    got = ask("/steer", modelId=model, prompt=prompt, features=[], n_tokens=n_tokens, types=[output], edits=edits,
              **{"temperature": 0, **more})
    return got[output].replace("\n", " ")


def clamp(value, unit="raw", error=True):
    return [{"op": "clamp", "source": source, "index": index, "value": value, "unit": unit, "includeError": error}]


def names():
    """Where the feature fires, then names with it silent and turned up."""
    towns = ["paris", "lyon", "montigny", "saint-lô", "sailly", "bordeaux"]
    rows = ask("/activations", modelId=model, source=source, index=index, text=towns)
    print(f"feature {index}:", ", ".join(f"{t} {max(r['values']):.2f}" for t, r in zip(towns, rows)), "\n")
    rows = [{"feature": "as it is", "error term": "", "sa": write("sa", 40, []), "mont": write("mont", 40, [])}]
    for value in (0, 1.5):
        for error in (True, False):
            rows.append({"feature": f"held at {value:g}", "error term": "kept" if error else "left out",
                         **{start: write(start, 40, clamp(value, error=error)) for start in ("sa", "mont")}})
    print(pd.DataFrame(rows).to_string(index=False), "\n")
    for title, edits in (("as it is", []), ("held at 0", clamp(0)), ("held at 1", clamp(1))):
        print(f"drawn, {title}:", ", ".join(write("b", 30, edits, temperature=0.8, seed=seed) for seed in range(5)))


def story():
    """Values count in the feature's largest stored activation."""
    prompt = "One day, the children went to the"
    rows = [{"times the maximum": value, "text": write(prompt, 20, clamp(value, "max"))} for value in (0, 1, 3)]
    print("as it is:", write(prompt, 20, []), "\n")
    print(pd.DataFrame(rows).to_string(index=False, max_colwidth=120))


models = {m["id"]: [s["id"] for s in m["sources"]] for m in ask("/models")["models"]}
model = "villes" if "villes" in models else next(iter(models))
source = "0-res-ws" if model == "villes" else "2-res-demo"
index = int(sys.argv[2]) if len(sys.argv) > 2 else 38 if model == "villes" else 1890
(names if model == "villes" else story)()
