#!/usr/bin/env python3
"""The same small dictionary (d 4, 6 features) with W_enc and W_dec lying row by row (rows.pth) and as transposed views
(columns.pth), as torch.save keeps them. `python make.py`, with torch 2.15.0; the same bytes every time."""
import os

import torch

here = os.path.dirname(os.path.abspath(__file__))
g = torch.Generator().manual_seed(5)
w_enc, w_dec = torch.randn(4, 6, generator=g), torch.randn(6, 4, generator=g)
rest = {"b_enc": torch.randn(6, generator=g), "b_dec": torch.randn(4, generator=g)}
torch.save({"W_enc": w_enc, "W_dec": w_dec, **rest}, os.path.join(here, "rows.pth"))
torch.save({"W_enc": w_enc.T.contiguous().T, "W_dec": w_dec.T.contiguous().T, **rest}, os.path.join(here, "columns.pth"))
