"""Induction heads: on random tokens that come twice, which heads look at the token after the one that is being repeated? The
second half of the text can only be foreseen by them, so the loss falls there."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


got = ask("/v1/lab/heads", batch=10, length=50, seed=1, loss=True)
print("Induction score by head:")
print(pd.DataFrame(got["induction"]).round(3).to_string())
print("\nPrevious-token score by head:")
print(pd.DataFrame(got["previousToken"]).round(3).to_string())
losses = pd.Series(got["losses"])
print(f"\nmean loss of the first half {losses[:49].mean():.2f}, of the second {losses[50:].mean():.2f}")
