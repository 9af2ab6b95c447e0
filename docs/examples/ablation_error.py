"""Taking one feature out, with and without the dictionary's error term. With it, only the feature goes; without it, the
model goes on with the dictionary's reconstruction alone."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def ask(path, **body):
    reply = requests.post(URL + path, json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"])
    return reply.json()


prompt, answer, source = "Once upon a time, there was a little", "girl", "2-res-demo"
# the feature that fires most at the last token
top = ask("/activations", text=prompt, source=source, numResults=1)["results"][-1]["topFeatures"][0]
feature = int(top["featureIndex"])


def show(title, side):
    rows = [{"rank": t["rank"], "token": t["token"], "probability": t["probability"], "logit": t["logit"]} for t in side["top"]]
    known = side["answers"][0]
    print(f"{title}: '{known['token']}' has rank {known['rank']}, probability {known['probability']:.3f}; loss {side['loss']:.3f}")
    print(pd.DataFrame(rows).round(3).to_string(index=False), "\n")


for include in (False, True):
    got = ask("/v1/lab/ablate", text=prompt, source=source, features=[feature], includeError=include, answers=answer, topK=5)
    if not include:
        show("As it is", got["before"])
    show(f"Without feature {feature}, {'with' if include else 'no'} error term", got["after"])
