"""One feature turned up step by step through OpenAI's routes: several texts for each strength, and what the unsteered model
thinks of them. With the official client the same call is
    openai.OpenAI(base_url=URL + "/v1", api_key="none").completions.create(model=..., prompt=..., extra_body={"steering": ...})"""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


def complete(**body):
    reply = requests.post(URL + "/v1/completions", json=body, timeout=600)
    if not reply.ok:
        sys.exit(reply.json()["error"]["message"])
    return reply.json()["choices"]


prompt, source, feature = "One day, the children went to the", "2-res-demo", 1890
rows = []
for strength in (0, 10, 20, 30):
    steering = {"features": [{"source": source, "index": feature, "strength": strength}]}
    texts = [c["text"] for c in complete(prompt=prompt, n=4, max_tokens=16, temperature=0.7, seed=1, steering=steering)]
    # echo with max_tokens 0 generates nothing: it tells what the model, unsteered here, thinks of each token of a text
    judged = complete(prompt=[prompt + text for text in texts], max_tokens=0, echo=True, logprobs=0)
    for text, choice in zip(texts, judged):
        scores = [p for p, at in zip(choice["logprobs"]["token_logprobs"], choice["logprobs"]["text_offset"]) if at >= len(prompt)]
        rows.append({"strength": strength, "log probability": sum(scores) / len(scores), "text": text.strip().replace("\n", " ")})
table = pd.DataFrame(rows)
print(table.round(2).to_string(index=False))
print("\nmean over the texts of each strength:")
print(table.groupby("strength")["log probability"].mean().round(2).to_string())
