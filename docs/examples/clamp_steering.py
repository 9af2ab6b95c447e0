"""Clamp steering: a feature held at a value at every position, prompt and generated text; the rest of the stream, and what
the dictionary does not explain, stay as they are. Values may count in the feature's largest stored activation."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


source = "2-res-demo"
index = int(sys.argv[2]) if len(sys.argv) > 2 else 1890
rows = []
for value in (0, 1, 3):
    got = ask("/steer", prompt="One day, the children went to the", n_tokens=20, temperature=0, types=["STEERED"],
              edits=[{"op": "clamp", "source": source, "index": index, "value": value, "unit": "max"}])
    rows.append({"times the maximum": value, "text": got["STEERED"].replace("\n", " ")})
# features=[] and no edits: nothing is steered
plain = ask("/steer", prompt="One day, the children went to the", features=[], n_tokens=20, temperature=0, types=["DEFAULT"])
print("as it is:", plain["DEFAULT"].replace("\n", " "), "\n")
print(pd.DataFrame(rows).to_string(index=False, max_colwidth=120))
