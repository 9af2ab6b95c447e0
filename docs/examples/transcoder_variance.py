"""How much of an MLP's output a transcoder explains: its output is spliced in without the error term, and compared with the
MLP's own. The first position (BOS) is left out of the sums."""
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


text = ("Once upon a time, there was a little girl named Lily. She had a big red ball. One day, she went to the park with her "
        "mom. They played with the ball all day.")
point = "blocks.2.hook_mlp_out"


def rows(edits):
    got = ask("/v1/lab/run", text=text, points=[point], edits=edits, loss=True)
    return np.array(got["activations"][point])[1:], got["loss"]


target, loss = rows([])
recon, spliced = rows([{"op": "splice", "source": "2-tc-demo", "includeError": False}])
_, zeroed = rows([{"op": "zero", "point": point}])
explained = 1 - ((target - recon) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
print(f"explained variance: {explained:.3f}")
print(f"one variance over everything: {1 - ((target - recon) ** 2).mean() / target.var():.3f}")
print(pd.Series({"the MLP": loss, "the transcoder": spliced, "zero": zeroed}, name="loss").round(3).to_string())
print(f"loss recovered: {(zeroed - spliced) / (zeroed - loss):.3f}")
