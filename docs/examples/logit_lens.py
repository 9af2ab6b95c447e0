"""The logit lens: what the model would say next if it ended at each layer. Rows are layers, the last row is the model."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


got = ask("/v1/lab/lens", text="Once upon a time, there was a little girl named", topK=1)
table = pd.DataFrame([[cell["top"][0]["token"] for cell in layer["positions"]] for layer in got["layers"]],
                     index=[layer["layer"] for layer in got["layers"]], columns=got["tokens"])
print(table.apply(lambda column: column.map(repr)).to_string())

# Direct logit attribution: what each part of the model adds to the difference of two answers at the last token. The parts sum up
# to it exactly, because the residual stream is a sum and the final norm is taken as it stands.
parts = ask("/v1/lab/components", text="The little girl was very happy because", answers=["she", "he"])
print(f"\nlogit of 'she' less that of 'he': {parts['total']:.3f}, of this embedding {parts['embedding']:.3f}, bias {parts['bias']:.3f}")
print(pd.DataFrame({"attention": parts["attention"], "mlp": parts["mlp"]}).round(3).to_string())
print("by head:")
print(pd.DataFrame(parts["heads"]).round(3).to_string())
