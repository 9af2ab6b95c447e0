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


def write_tensors(path, tensors):
    """{name: float array} as a safetensors file."""
    rows, at = {}, 0
    for name, array in tensors.items():
        rows[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + 4 * array.size]}
        at += 4 * array.size
    head = json.dumps(rows).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").tobytes())
