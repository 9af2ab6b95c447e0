"""The parameters of a dictionary: features whose logits are skewed, and those that put girls' or boys' names on top of the
vocabulary (token-set enrichment)."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
PLACE = f"{URL}/v1/lab/dictionaries/demo/2-res-demo"


def read(reply):
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


skewed = read(requests.get(PLACE + "/logit-stats", timeout=600,
                           params={"order": "skewness", "descending": "true", "minSkewness": 1, "limit": 100000}))["rows"]
print("features with a skewness above 1:", len(skewed))
print(pd.DataFrame(skewed).head(5).round(3).to_string(index=False))

names = {"girls": ["Lily", "Mia", "Anna", "Lucy", "Amy", "Sara"], "boys": ["Tom", "Tim", "Ben", "Jack", "Max", "Sam"]}
found = read(requests.post(PLACE + "/enrichment", timeout=600, json={
    "features": [row["index"] for row in skewed], "builtin": ["all_digits", "starts_with_capital"],
    "sets": [{"name": name, "words": words} for name, words in names.items()], "topK": 3}))
for one in found["sets"]:
    best = ", ".join(f"{top['index']} ({top['enrichment']:.2f}, {top['end']})" for top in one["top"])
    print(f"{one['name']}: {one['tokens']} tokens; features {best}")
