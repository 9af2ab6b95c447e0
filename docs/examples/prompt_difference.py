"""Which features tell two prompts apart, at their last tokens."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


got = ask("/v1/lab/compare", source="2-res-demo", text=["The dog was very happy", "The dog was very sad"], numResults=10)

for text in got["texts"]:
    print(repr(text["tokens"][text["position"]]), "of", "".join(text["tokens"][1:]))
print(pd.DataFrame(got["features"]).round(3).to_string(index=False))
