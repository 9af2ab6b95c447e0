#!/usr/bin/env python3
"""Which positions Python's slices have: slices.txt, for tests/unit/test_positions.c. With any Python 3, no arguments.

Line (n, step) for n of 0..7 and step of STEPS, in that order; in it, for every start of BOUNDS and every stop of BOUNDS, the mask of
range(n)[start:stop:step] in two hexadecimal digits, bit p for position p. SAELens slices the rows of a context, and its tokens, by
slice(*seqpos_slice) in the same way (sae_lens/training/activations_store.py)."""
import os

BOUNDS = [None] + list(range(-9, 10))
STEPS = [None, 1, 2, 3, 8, 2147483647, -1, -2, -3, -8, -2147483647]


def mask(n, start, stop, step):
    return sum(1 << p for p in range(n)[start:stop:step])


with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "slices.txt"), "w", encoding="ascii") as file:
    for n in range(8):
        for step in STEPS:
            file.write("".join(f"{mask(n, start, stop, step):02x}" for start in BOUNDS for stop in BOUNDS) + "\n")
