"""Induction heads: on random tokens that come twice (A B C ... A B C ...), which heads look back from the second A to the B
behind the first? Random tokens cannot be foreseen, repeated ones can, and only by such heads: where a model has them, its loss
falls in the second half. The demo's model is small and was never taught to copy, so all its scores are near 0; GPT-2 small
has several such heads, 5.1, 5.5 and 6.9 among them."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


# 10 texts of 50 random tokens, each followed by itself. A score is a mean of attention weights, so it lies between 0 and 1.
got = ask("/v1/lab/heads", batch=10, length=50, seed=1, loss=True)
print("Induction score by head:")
print(pd.DataFrame(got["induction"]).round(3).to_string())
# The other half of the circuit: a head below must write "A came before me" at B, or there is nothing to find it by.
print("\nPrevious-token score by head:")
print(pd.DataFrame(got["previousToken"]).round(3).to_string())
# losses[i] is the loss of token i + 1 given those before it. The first 49 lie within the first half; the 50th is about the first
# token of the repetition, which nothing announces, so it belongs to neither.
losses = pd.Series(got["losses"])
print(f"\nmean loss of the first half {losses[:49].mean():.2f}, of the second {losses[50:].mean():.2f}")
