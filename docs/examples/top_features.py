"""The strongest features at each token of a text, and the stored explanation of the strongest of all."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


text, source = "The princess walked in the dark forest", "2-res-demo"
rows = [{"position": row["position"], "token": row["token"], "feature": f["featureIndex"], "activation": f["activationValue"]}
        for row in ask("/activations", text=text, source=source, numResults=5)["results"] for f in row["topFeatures"]]
table = pd.DataFrame(rows)
print(table.groupby("position").head(3).to_string(index=False))

best = table.loc[table["activation"].idxmax()]
known = requests.get(f"{URL}/feature/demo/{source}/{best['feature']}", timeout=60).json()
print(f"\nfeature {best['feature']} at '{best['token']}':", ", ".join(e["description"] for e in known["explanations"]) or "no explanation")
