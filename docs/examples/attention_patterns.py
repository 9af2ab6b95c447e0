"""What a head looks at: the attention pattern of a layer as one NumPy array, and its strongest places as JSON."""
import io
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


text = "Once upon a time, there was a little girl named Lily. Lily liked to"
layer, head = 3, 7
reply = requests.post(URL + "/v1/lab/run", json={"text": text, "points": [f"blocks.{layer}.attn.hook_pattern"]},
                      headers={"Accept": "application/x-npy"}, timeout=600)
pattern = np.load(io.BytesIO(reply.content))
print("position, head, position looked at:", pattern.shape, " rows sum to", np.unique(pattern.sum(-1).round(4)))

got = ask("/v1/lab/run", text=text, points=[f"blocks.{layer}.attn.hook_pattern"], heads=[head], sparse=0.3)
rows = got["activations"][f"blocks.{layer}.attn.hook_pattern"]
tokens = got["tokens"]
print(f"what head {layer}.{head} looks at more than 0.3:")
print(pd.DataFrame([{"from": tokens[q], "to": tokens[k], "attention": value} for q, _, k, value in rows]).round(3).to_string())
