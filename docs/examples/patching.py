"""Activation patching: where in the model does "girl" become "she"? The residual stream of the clean run is put into the
corrupted one, a layer and a position at a time; 1 restores the clean answer, 0 does nothing. All cells are one request."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


got = ask("/v1/lab/patch", clean={"text": "The little girl was very happy because"},
          corrupted={"text": "The little boy was very happy because"}, answers=["she", "he"])

print(f"Clean logit difference: {got['clean']['value']:.3f}")
print(f"Corrupted logit difference: {got['corrupted']['value']:.3f}\n")
labels = [f"{token}_{i}" for i, token in enumerate(got["clean"]["tokens"])]
print(pd.DataFrame(got["matrix"], index=got["layers"], columns=labels).round(2).to_string())

# z: what each head has gathered, before it is written back; one head of a layer is taken from the clean run at all positions
heads = ask("/v1/lab/patch", clean={"text": "The little girl was very happy because"}, point="z", axes="layer-head",
            corrupted={"text": "The little boy was very happy because"}, answers=["she", "he"])
print("\nOne head at all positions:")
print(pd.DataFrame(heads["matrix"], index=heads["layers"], columns=heads["heads"]).round(2).to_string())
