"""The hidden layer of an MLP over a text as one NumPy array, straight from the reply, and how dense it is."""
import io
import sys

import numpy as np
import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"

text = "Once upon a time, there was a little girl named Lily. She had a big red ball."
reply = requests.post(URL + "/v1/lab/run", json={"text": text, "points": ["blocks.2.mlp.hook_post"]},
                      headers={"Accept": "application/x-npy"}, timeout=600)
hidden = np.load(io.BytesIO(reply.content))
print("Activations size:", hidden.shape)
active = pd.Series((hidden > 0).mean(0))
print("share of tokens at which a neuron is above zero:")
print(active.describe().round(3).to_string())
strongest = pd.DataFrame({"neuron": np.argsort(-hidden.max(0))[:5]})
strongest["largest"] = np.sort(hidden.max(0))[::-1][:5].round(3)
print(strongest.to_string(index=False))
