"""Writes the small files that test_tensors.c reads. Made with torch 2.15, safetensors and numpy:

    python3 make.py       (in this folder)

Values are chosen so that a test can state them: element i of a tensor is i times a step, unless said.
"""
import json
import os

import numpy as np
import safetensors.torch
import torch
from safetensors.numpy import save_file

here = os.path.dirname(os.path.abspath(__file__))


def at(name):
    return os.path.join(here, name)


def mixed():
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tied = torch.arange(4, dtype=torch.float32) * 0.5
    return {
        "state_dict": {
            "transposed": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),  # [3, 2], stride [1, 3]
            "slice": base[1:, 1:3],  # [2, 2], stride [4, 1], offset 5
            "tied.a": tied,
            "tied.b": tied,
            "parameter": torch.nn.Parameter(torch.ones(2)),
        },
        "types": {
            "f16": torch.tensor([1.5, -2.0], dtype=torch.float16),
            "bf16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
            "f64": torch.tensor([1.5, -2.0], dtype=torch.float64),
            "i8": torch.tensor([3, -4], dtype=torch.int8),
            "u8": torch.tensor([3, 250], dtype=torch.uint8),
            "i16": torch.tensor([3, -4], dtype=torch.int16),
            "i32": torch.tensor([3, -4], dtype=torch.int32),
            "i64": torch.tensor([3, -4], dtype=torch.int64),
            "bool": torch.tensor([True, False]),
        },
        "list": [torch.zeros(1), {"deep": torch.full((1,), 7.0)}],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "step": 1234567890123,
        "rate": 1e-3,
        "note": "été",
        "flags": [True, None, (1, 2, 3, 4)],
        3: torch.full((1,), 3.0),
    }


def torch_files():
    torch.save(mixed(), at("mixed.pth"))
    torch.save(mixed(), at("protocol4.pth"), pickle_protocol=4)
    torch.save({"x": torch.ones(3)}, at("legacy.pth"), _use_new_zipfile_serialization=False)
    torch.save({"x": torch.ones(3).expand(4, 3)}, at("expanded.pth"))
    torch.save({"x": torch.ones(3), "dtype": torch.float32}, at("names_dtype.pth"))
    torch.save(torch.ones(3), at("bare.pth"))
    torch.serialization.set_crc32_options(False)
    torch.save({"x": torch.arange(3.0)}, at("no_crc.pth"))


def safetensors_files():
    kinds = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"]
    tensors = {kind: np.arange(2).astype(kind) for kind in kinds}
    tensors["empty"] = np.zeros((0, 3), dtype="float32")
    tensors["scalar"] = np.array(2.5, dtype="float32")
    tensors["nom en français \"x\""] = np.arange(3, dtype="float32")
    save_file(tensors, at("kinds.safetensors"), metadata={"format": "np", "note": "a {brace} \"quoted\""})
    safetensors.torch.save_file({"w": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
                                 "f8": torch.tensor([1.0], dtype=torch.float8_e4m3fn)}, at("bf16.safetensors"))


def sharded():
    os.makedirs(at("sharded"), exist_ok=True)
    first = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.arange(2, dtype="float16")}
    second = {"c": np.arange(4, dtype="float32")}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file(first, at("sharded/" + names[0]))
    save_file(second, at("sharded/" + names[1]))
    index = {"metadata": {"total_size": 24 + 4 + 16}, "weight_map": {"a": names[0], "b": names[0], "c": names[1]}}
    with open(at("sharded/model.safetensors.index.json"), "w") as f:
        json.dump(index, f, indent=2)


def arrays():
    kinds = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"]
    named = {kind: np.arange(2).astype(kind) for kind in kinds}
    named["bf16"] = np.array([0x3FC0, 0xC000], dtype="<u2").view("V2")  # 1.5 and -2, as numpy stores ml_dtypes.bfloat16
    named["rows"] = np.arange(6, dtype="float32").reshape(2, 3)
    named["columns"] = np.asfortranarray(np.arange(6, dtype="float32").reshape(2, 3))
    named["scalar"] = np.array(2.5, dtype="float32")
    named["empty"] = np.zeros((0, 3), dtype="float32")
    named["text"] = np.array(["relu"])
    named["complex"] = np.array([1j])
    named["deep/W_enc"] = np.arange(5000, dtype="float32").reshape(50, 100)  # longer than what is read for its header
    return named


torch_files()
safetensors_files()
sharded()
np.savez(at("arrays.npz"), **arrays())
np.savez_compressed(at("arrays_compressed.npz"), **arrays())
np.savez(at("objects.npz"), o=np.array([{"a": 1}], dtype=object))
np.savez(at("big_endian.npz"), b=np.arange(2, dtype=">f4"))
np.savez(at("records.npz"), r=np.zeros(2, dtype=[("x", "<f4"), ("y", "<i4")]))
np.save(at("vector.npy"), np.arange(4, dtype="float32"))
np.savez(at("savez.npz"), a=np.arange(3, dtype="float32"))
np.savez_compressed(at("compressed.npz"), a=np.zeros(100, dtype="float32"))
