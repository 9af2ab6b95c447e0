"""Attribution patching beside the real thing: one gradient stands for a whole matrix of patched runs. Then which features carry the
answer, and how much of it the dictionary leaves out."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
CLEAN, CORRUPTED = {"text": "The little girl was very happy because"}, {"text": "The little boy was very happy because"}


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


exact = ask("/v1/lab/patch", clean=CLEAN, corrupted=CORRUPTED, answers=["she", "he"])
# the gradient is that of the corrupted run, the differences are those to the clean one
near = ask("/v1/lab/attribute", **CORRUPTED, against=CLEAN, answers=["she", "he"], points=["blocks.*.hook_resid_pre", "blocks.*.attn.hook_z"])

labels = [f"{token}_{i}" for i, token in enumerate(near["tokens"])]
rows = [near["normalized"][f"blocks.{layer}.hook_resid_pre"] for layer in exact["layers"]]
print("Patched, run by run:")
print(pd.DataFrame(exact["matrix"], index=exact["layers"], columns=labels).round(2).to_string())
print("\nAttributed, by one gradient:")
print(pd.DataFrame(rows, index=exact["layers"], columns=labels).round(2).to_string())

heads = pd.DataFrame([pd.DataFrame(near["normalized"][f"blocks.{layer}.attn.hook_z"]).sum() for layer in exact["layers"]], index=exact["layers"])
print("\nHeads, over all positions:")
print(heads.round(2).to_string())

source = ask("/v1/lab/attribute", **CLEAN, answers=["she", "he"], source="2-res-demo", topK=5)["sources"][0]
print(f"\n{source['point']}: {source['total']:.3f} = features {source['features']:.3f} + bias {source['bias']:.3f} + error {source['error']:.3f}")
print(pd.DataFrame(source["top"]).round(3).to_string(index=False))
