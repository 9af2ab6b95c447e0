"""Matrices kept in 8 bits, as core/math/blocks.h says it, in NumPy."""
import numpy as np


def kept(w):
    """What [outputs, inputs] f32 becomes: 32 inputs of an output share a scale in f16, numbers go from -127 to 127."""
    out = np.empty_like(w)
    for begin in range(0, w.shape[1], 32):
        block = w[:, begin:begin + 32]
        scale = (np.abs(block).max(axis=1, keepdims=True) / np.float32(127)).astype(np.float16).astype(np.float32)
        numbers = np.rint(np.divide(block, scale, out=np.zeros_like(block), where=scale > 0))
        out[:, begin:begin + 32] = np.clip(numbers, -127, 127).astype(np.int8) * scale
    return out


def keep_model(model):
    """Rounds the matrices of a GPT2LMHeadModel in place; positions, norms and biases stay. Conv1D has its inputs first."""
    import torch
    for name, parameter in model.named_parameters():
        if parameter.dim() != 2 or "wpe" in name:
            continue
        w = parameter.data.numpy()
        parameter.data = torch.from_numpy(kept(w) if "wte" in name else np.ascontiguousarray(kept(np.ascontiguousarray(w.T)).T))
    model.tie_weights()
