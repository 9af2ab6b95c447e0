/* product.cuh: what kernels of products share: whose rows they are, and what becomes of a sum. */
#ifndef STEERD_CORE_MATH_CUDA_PRODUCT_CUH
#define STEERD_CORE_MATH_CUDA_PRODUCT_CUH

#include "core/math/cuda/device.cuh"

static __device__ __forceinline__ row_range product_rows(const product_args &a) {
  row_range all = {0, (int32_t)a.n};
  return a.table ? rows_of(a.table, a.set, a.layer) : all;
}

static __device__ __forceinline__ void finish(const product_args &a, int row, int64_t out, float sum) {
  float y = activate(a.act, sum + (a.bias ? a.bias[out] : 0.0f));
  row_at(a.y, row)[out] = a.soft_cap > 0 ? soft_capped(y, a.soft_cap) : y;
}

#endif
