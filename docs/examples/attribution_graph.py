"""An attribution graph: which features made the next token, and which made them? A transcoder stands for the MLP of each layer, and every
edge says how much of a feature, or of a token's logit, comes from another. Then the test that a graph has to pass: features are switched off,
and the token should lose what the graph says it has of them."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
TEXT = "The little girl was very happy because"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


graph = ask("/v1/lab/graph", text=TEXT, sourceSet="tc-demo")
nodes = pd.DataFrame(graph["nodes"]).set_index("node_id")
links = pd.DataFrame(graph["links"])
tokens = graph["metadata"]["prompt_tokens"]
answer = nodes.index[nodes["is_target_logit"]][0]
print(f"{nodes.clerp[answer]}: {len(nodes)} nodes, {len(links)} edges, scores {graph['metadata']['scores']}")


# What goes straight into the logit, and where on the text it is. A feature with a name in the store has it in "clerp".
def inputs(target, count):
    into = links[links.target == target].set_index("source").weight
    into = into.reindex(into.abs().sort_values(ascending=False).index).head(count)
    about = nodes.loc[into.index]
    return pd.DataFrame({"weight": into.round(2), "token": [tokens[i] for i in about.ctx_idx], "about": about.clerp.str.slice(0, 90)})


print("\ninto the logit:\n" + inputs(answer, 8).to_string())
features = nodes[nodes.feature_type == "cross layer transcoder"]
first = next(source for source in inputs(answer, 50).index if source in features.index)
print(f"\ninto {first}:\n" + inputs(first, 5).to_string() + "\n")

# Switched off where they fire, with errors and all else as they are. Behind the last layer there is only the norm, which the graph takes for a
# constant: it should be right about that feature. What an early one does goes through MLPs that answer anew, which no graph of one text knows.
early = features[features.layer == "0"].index
last = features[features.layer == str(features.layer.astype(int).max())].index
for group in (last, early):
    name = next(source for source in inputs(answer, len(links)).index if source in group)
    edit = {"op": "ablate", "source": features.source[name], "index": int(features["index"][name]), "positions": [int(features.ctx_idx[name])]}
    run = ask("/v1/lab/next", text=TEXT, topK=50, edits=[edit])
    before, after = (next(t["logit"] for t in run[when]["top"] if t["token"] == " she") for when in ("before", "after"))
    said = float(links[(links.target == answer) & (links.source == name)].weight.iloc[0])
    print(f"without {name} the logit of ' she' changes by {after - before:+.2f}; straight into it went {said:+.2f}")
