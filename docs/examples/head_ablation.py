"""The loss of a text with each attention head zeroed, one request a head: which heads matter for it."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


text = ("Once upon a time, there was a little girl named Lily. Lily liked to play in the park. "
        "One day, Lily went to the park with her mom.")
model = requests.get(URL + "/models", timeout=60).json()["models"][0]
rows = []
for layer in range(model["layers"]):
    for head in range(model["heads"]):
        got = ask("/v1/lab/ablate", text=text, heads=[{"layer": layer, "head": head}], topK=1)
        rows.append({"layer": layer, "head": head, "loss": got["after"]["loss"] - got["before"]["loss"]})

print(f"Original loss: {got['before']['loss']:.3f}")
print("What zeroing a head adds to it:")
print(pd.DataFrame(rows).pivot(index="layer", columns="head", values="loss").round(3).to_string())
