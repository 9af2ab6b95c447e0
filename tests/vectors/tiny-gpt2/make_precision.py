"""What tests/unit/test_inspect.c expects of `steerd inspect` on this model, from PyTorch in float64:

    python3 make_precision.py       (in this folder; torch, transformers, tokenizers)

Matrices (all but the learned positions) are rounded to bf16 or f16, or kept in 8 bits (q8.py); norms, biases and positions stay as they are.
Prints the relative error of the logits, positions with the same next token, and the loss.
"""
import os
import re

import torch
from q8 import keep_model
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

here = os.path.dirname(os.path.abspath(__file__))
source = open(os.path.join(here, "../../../core/inspect/precision.c")).read()
text = "".join(re.findall(r'^    "(.*)"', source[source.index("text[] ="):source.index("/* One run")], re.M)).replace('\\"', '"')
tokenizer = Tokenizer.from_file(os.path.join(here, "model/tokenizer.json"))
model = GPT2LMHeadModel.from_pretrained(os.path.join(here, "model"), torch_dtype=torch.float32, attn_implementation="eager")
ids = torch.tensor([tokenizer.encode(text).ids[:96]])  # its tokenizer_config.json says: no BOS
print("tokens", ids.shape[1], "first", ids[0, :5].tolist())


def logits(dtype):
    copy = GPT2LMHeadModel(model.config)
    copy.load_state_dict(model.state_dict())
    if dtype == "q8":
        keep_model(copy)
    for name, parameter in copy.named_parameters():
        if dtype != "q8" and parameter.dim() == 2 and "wpe" not in name:
            parameter.data = parameter.data.to(dtype).to(torch.float32)
    copy.tie_weights()
    with torch.no_grad():
        return copy.double().eval()(ids).logits[0]


plain = logits(torch.float32)
loss = torch.nn.functional.cross_entropy
print("loss", loss(plain[:-1], ids[0, 1:]).item())
for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), ("q8", "q8")):
    rounded = logits(dtype)
    spread = (plain - plain.mean(-1, keepdim=True)).pow(2).sum()
    print(name, "relative", ((rounded - plain).pow(2).sum() / spread).sqrt().item(),
          "agree", (rounded.argmax(-1) == plain.argmax(-1)).sum().item(), "loss", loss(rounded[:-1], ids[0, 1:]).item())
