/* bench_answers.h: whether what bench_gpu.c times is right: logits and codes at the sizes that it measures, beside the processor's. */
#ifndef STEERD_TESTS_GPU_BENCH_ANSWERS_H
#define STEERD_TESTS_GPU_BENCH_ANSWERS_H

#include "tests/gpu/bench_model.h"

/* Two layers of each shape, and a dictionary, on the device `name` and with +deterministic; where something is wrong, by the other ways that a
 * name of the device has as well, which tells them apart. Prints a row of a table for each. The number of rows that are wrong. */
int bench_answers(const char *name, const struct shape *shapes, int n_shapes, const uint16_t *numbers, size_t n_numbers, bool tiny);

#endif
