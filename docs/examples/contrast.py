"""A direction from pairs of texts ("contrast pairs"), and steering with it: what repeng and CAA do. One request runs all texts and keeps a
vector behind each of three layers; the label then steers with all of them."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"

HAPPY = ["The happy girl smiled and", "Tom was so happy that", "Mom laughed with joy and", "They had fun and"]
SAD = ["The sad girl cried and", "Tom was so sad that", "Mom wept with pain and", "They had tears and"]


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json().get("error"))
    return reply.json()


def forget(label):
    """A label stands for one set of vectors: those of an earlier run of this script go first."""
    for vector in ask("/api/vector/list-owned")["vectors"]:
        if vector["vectorLabel"] == label:
            ask("/api/vector/delete", modelId=vector["modelId"], source=vector["source"], index=vector["index"])


forget("joy")
got = ask("/v1/lab/direction", positive=HAPPY, negative=SAD, points=["resid_post.1", "resid_post.2", "resid_post.3"],
          vectorLabel="joy", vectors=False)
print(pd.DataFrame(got["directions"]).round(2).to_string(index=False))

for strength in (-1, 0, 1):
    steering = {"vectors": [{"label": "joy", "strength": strength}]}
    text = ask("/v1/completions", prompt="One day, the little girl", max_tokens=24, temperature=0, steering=steering)["choices"][0]["text"]
    print(f"\nstrength {strength:+d}:{text}")

# The same as a file for llama.cpp (--control-vector joy.gguf), which adds nothing behind layer 0; POST /api/vector/upload takes such files.
file = requests.get(URL + "/api/vector/download", params={"vectorLabel": "joy"}, timeout=60)
print(f"\nA GGUF control vector of {len(file.content)} bytes" if file.ok else f"\nNo file: {file.json()['error']}")
