/* chain.h: one output of a product, for rows in host memory: by any thread, beside whatever a backend does. */
#ifndef STEERD_CORE_MATH_CHAIN_H
#define STEERD_CORE_MATH_CHAIN_H

#include <stdint.h>

/* sums[r] += sum over k < n of x[r * ld + k] * w[k] in f32, rows 0 <= r < rows: by one chain of multiply-adds in the order of k, fused
 * where the processor has them, as the backend "cpu" adds. So a row's sum has the bits that "cpu" gives it, and inputs may come in
 * pieces. */
void chain_add(int64_t n, const float *w, const float *x, int64_t ld, int64_t rows, float *sums);

#endif
