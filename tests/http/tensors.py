"""Reads recorded tensors with NumPy alone, so that the tests need no package beside Debian's."""
import json
import struct

import numpy as np

TYPES = {"F32": "<f4", "I32": "<i4", "U16": "<u2", "U8": "u1"}


def read_tensors(path):
    """A safetensors file as {name: array}."""
    with open(path, "rb") as file:
        raw = file.read()
    at = 8 + struct.unpack("<Q", raw[:8])[0]
    rows = json.loads(raw[8:at])
    rows.pop("__metadata__", None)
    return {name: np.frombuffer(raw[at + row["data_offsets"][0]:at + row["data_offsets"][1]], TYPES[row["dtype"]])
            .reshape(row["shape"]) for name, row in rows.items()}


def load_safetensors(raw):
    at = 8 + struct.unpack("<Q", raw[:8])[0]
    assert at % 8 == 0
    return {name: np.frombuffer(raw[at + row["data_offsets"][0]:at + row["data_offsets"][1]], "<f4").reshape(row["shape"])
            for name, row in json.loads(raw[8:at]).items()}


def write_tensors(path, tensors, kind="F32"):
    """{name: float array} as a safetensors file; kind "BF16": to nearest, ties to even."""
    rows, at, size = {}, 0, 4 if kind == "F32" else 2
    for name, array in tensors.items():
        rows[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + size * array.size]}
        at += size * array.size
    head = json.dumps(rows).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for array in tensors.values():
            bits = np.ascontiguousarray(array, "<f4").view("<u4")
            file.write((bits if kind == "F32" else ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")).tobytes())
