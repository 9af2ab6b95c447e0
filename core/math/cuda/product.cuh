/* product.cuh: what kernels of products share: whose rows they are, and what becomes of a sum. */
#ifndef STEERD_CORE_MATH_CUDA_PRODUCT_CUH
#define STEERD_CORE_MATH_CUDA_PRODUCT_CUH

#include "core/math/cuda/types.cuh"

static __device__ __forceinline__ row_range product_rows(const product_args &a) {
  row_range all = {0, (int32_t)a.n};
  return a.table ? rows_of(a.table, a.set, a.layer) : all;
}

static __device__ __forceinline__ void finish(const product_args &a, int row, int64_t out, float sum) {
  float y = activate(a.act, sum + (a.bias ? a.bias[out] : 0.0f));
  if (a.soft_cap > 0) y = soft_capped(y, a.soft_cap);
  row_at(a.y, row)[out] = y;
  narrow_element(a.narrow, row, out, y);
}

/* Of two products of the same x. */
static __device__ __forceinline__ void finish_gated(const product_args &a, int row, int64_t out, float up, float gate) {
  up += a.bias ? a.bias[out] : 0.0f;
  gate += a.gate_bias ? a.gate_bias[out] : 0.0f;
  float y = activate(a.act, gate) * up;
  row_at(a.y, row)[out] = y;
  narrow_element(a.narrow, row, out, y);
}

#endif
