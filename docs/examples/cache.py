"""run_with_cache: every activation of a text, and its losses. One request; names are TransformerLens'."""
import sys

import numpy as np
import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


text = "Once upon a time, there was a little girl named Lily."
got = ask("/v1/lab/run", text=text, points=["blocks.*.hook_resid_post", "blocks.*.attn.hook_z"], loss=True)

cache = {name: np.array(value) for name, value in got["activations"].items()}
print(pd.DataFrame({"shape": {name: value.shape for name, value in cache.items()}}).to_string())
print()
losses = pd.Series(got["tokenLosses"], index=got["tokens"][1:], name="loss")
print(losses.round(3).to_string())
print(f"\nloss: {got['loss']:.3f}")
