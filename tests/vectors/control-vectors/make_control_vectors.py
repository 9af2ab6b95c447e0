"""Files of directions for tiny-gpt2 (3 layers, width 48), written by the libraries that people write them with.

    PYTHON make_control_vectors.py     # in this folder, with gguf, numpy and safetensors from PyPI (made with 0.19, 2.4 and 0.8)

layers.gguf          as repeng exports: direction.1 and direction.2 in F32, its three facts, and further pairs of all kinds
half.gguf            direction.1 in F16, direction.2 in BF16, data aligned to 64 bytes
named.safetensors    resid_pre.1 in F32, blocks.2.hook_resid_post in F16
named.npz            the same, compressed, in F32 and F64

Value c of layer N is ((7 c + N) mod 13 - 6) / 4, which all of these types hold exactly."""
import gguf
import numpy as np
from safetensors.numpy import save_file

WIDTH = 48


def direction(layer, dtype=np.float32):
    return np.array([((7 * c + layer) % 13 - 6) / 4 for c in range(WIDTH)], dtype)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_layers():
    writer = gguf.GGUFWriter("layers.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "gpt2")
    writer.add_uint32("controlvector.layer_count", 2)
    writer.add_array("tests.texts", ["a", "", "three"])
    writer.add_array("tests.numbers", [1.5, 2.5])
    writer.add_bool("tests.bool", True)
    writer.add_float64("tests.wide", 0.25)
    writer.add_uint8("tests.narrow", 3)
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", direction(layer))
    finish(writer)


def write_half():
    writer = gguf.GGUFWriter("half.gguf", "controlvector")
    writer.add_custom_alignment(64)
    writer.add_tensor("direction.1", direction(1, np.float16))
    bits = (direction(2).view(np.uint32) >> 16).astype(np.uint16)  # exact: the lower half is zero
    writer.add_tensor("direction.2", bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    finish(writer)


write_layers()
write_half()
save_file({"resid_pre.1": direction(1), "blocks.2.hook_resid_post": direction(2, np.float16)}, "named.safetensors")
np.savez_compressed("named.npz", **{"resid_pre.1": direction(1), "blocks.2.hook_resid_post": direction(2, np.float64)})
