"""The texts that turn a feature on most, from the stored statistics: the token with what stands around it."""
import sys

import pandas as pd
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"

source = "2-res-demo"
index = int(sys.argv[2]) if len(sys.argv) > 2 else 1890
known = requests.get(f"{URL}/feature/demo/{source}/{index}", timeout=60).json()
rows = []
for example in known["activations"][:10]:
    at = example["maxValueTokenIndex"]
    rows.append({"value": example["maxValue"], "before": "".join(example["tokens"][max(0, at - 8):at]).replace("\n", " "),
                 "token": example["tokens"][at], "after": "".join(example["tokens"][at + 1:at + 5]).replace("\n", " ")})
print(f"feature {index} fires at {known['frac_nonzero']:.2%} of all tokens, {known['maxActApprox']:.2f} at most")
print(pd.DataFrame(rows).round(2).to_string(index=False))
