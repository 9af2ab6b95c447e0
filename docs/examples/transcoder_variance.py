"""How well a transcoder stands in for an MLP. A transcoder reads what the MLP reads and is trained to write what it writes, by way
of a few features. Here its output takes the place of the MLP's, and two things are asked: how near are the rows (explained
variance), and how much worse does the model predict (loss)?"""
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


# What the MLP's output is under these edits, and the model's loss with it. The first position is left out of the sums: BOS has rows
# of a size of its own, and the dictionary was not trained on it.
def rows(edits):
    got = ask("/v1/lab/run", text=text, points=[point], edits=edits, loss=True)
    return np.array(got["activations"][point])[1:], got["loss"]


target, loss = rows([])
# includeError False: the reconstruction alone goes on. With the error term the output would be the MLP's own again.
recon, spliced = rows([{"op": "splice", "source": "2-tc-demo", "includeError": False}])
# The yardstick: the loss without any MLP there.
_, zeroed = rows([{"op": "zero", "point": point}])
# What is left unexplained, over how much the rows differ from their mean row. The second figure takes one mean over all numbers
# instead, as some notebooks do; it is larger wherever columns have means of their own.
explained = 1 - ((target - recon) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
print(f"explained variance: {explained:.3f}")
print(f"one variance over everything: {1 - ((target - recon) ** 2).mean() / target.var():.3f}")
print(pd.Series({"the MLP": loss, "the transcoder": spliced, "zero": zeroed}, name="loss").round(3).to_string())
# 1: as good as the MLP; 0: as bad as nothing. Over one short text it may pass 1.
print(f"loss recovered: {(zeroed - spliced) / (zeroed - loss):.3f}")
