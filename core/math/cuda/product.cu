/* product.cu: products with few rows, and what surrounds those that the library does.
 *
 * The kernel for few rows streams each row of the weights once, a warp for each output: a lane adds its pieces of 16 bytes in
 * order, then the lanes are added in one tree. That order does not depend on how many rows there are, nor on which stand
 * beside. Weights are widened to f32 and x is read as it is. */
#include "core/math/cuda/types.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)

static __device__ __forceinline__ row_range product_rows(const product_args &a) {
  row_range all = {0, (int32_t)a.n};
  return a.table ? rows_of(a.table, a.set, a.layer) : all;
}

static __device__ __forceinline__ void finish(const product_args &a, int row, int64_t out, float sum) {
  float y = activate(a.act, sum + (a.bias ? a.bias[out] : 0.0f));
  row_at(a.y, row)[out] = a.soft_cap > 0 ? soft_capped(y, a.soft_cap) : y;
}

/* N elements of x from `in` on; those at n_in and beyond count as 0. WIDE: rows of x begin at multiples of 16 bytes. */
template <int N, bool WIDE> static __device__ __forceinline__ void load_row(const float *x, int64_t in, int64_t n_in, float out[8]) {
  if (WIDE && in + N <= n_in) {
    for (int i = 0; i < N; i += 4) {
      float4 v = *(const float4 *)(x + in + i);
      out[i] = v.x, out[i + 1] = v.y, out[i + 2] = v.z, out[i + 3] = v.w;
    }
    return;
  }
  for (int i = 0; i < N; i++) out[i] = in + i < n_in ? x[in + i] : 0.0f;
}

/* Sums of ROWS values over the lanes of a warp, by halves: lane l ends with that of value l * ROWS / 32. Each is added in the
 * same tree as by warp_sum. */
template <int ROWS> static __device__ __forceinline__ float fold_lanes(float sum[ROWS], int lane) {
  int step = 16;
#pragma unroll
  for (int n = ROWS / 2; n >= 1; n /= 2, step /= 2) {
    bool upper = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < n; i++) {
      float give = upper ? sum[i] : sum[i + n], keep = upper ? sum[i + n] : sum[i];
      sum[i] = keep + __shfl_xor_sync(FULL_WARP, give, step);
    }
  }
#pragma unroll
  for (; step; step /= 2) sum[0] += __shfl_xor_sync(FULL_WARP, sum[0], step);
  return sum[0];
}

template <int TYPE, int ROWS, bool WIDE> static __global__ void __launch_bounds__(THREADS) few_kernel(product_args a) {
  const int N = piece<TYPE>::n;
  row_range rows = product_rows(a);
  int first = rows.begin + (int)blockIdx.y * ROWS, lane = threadIdx.x % 32;
  int64_t out = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  grid_follow();
  if (first >= rows.end || out >= a.w.n_out) return;
  const float *x[ROWS];
  float sum[ROWS];
  for (int r = 0; r < ROWS; r++) {
    x[r] = row_at(a.x, first + r < rows.end ? first + r : first);
    sum[r] = 0;
  }
  int64_t begin = out * a.w.ld / N, pieces = a.w.ld / N;
#pragma unroll 2
  for (int64_t p = lane; p < pieces; p += 32) {
    float w[8], v[8];
    piece<TYPE>::widen(a.w.data, begin + p, w);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      load_row<N, WIDE>(x[r], p * N, a.w.n_in, v);
#pragma unroll
      for (int i = 0; i < N; i++) sum[r] = fmaf(w[i], v[i], sum[r]);
    }
  }
  float total = fold_lanes<ROWS>(sum, lane);
  int row = first + lane * ROWS / 32;
  if (lane % (32 / ROWS) == 0 && row < rows.end) finish(a, row, out, total);
}

template <int TYPE, int ROWS> static cudaError_t launch_few(cudaStream_t stream, int64_t rows, const product_args &args) {
  dim3 grid((unsigned)((args.w.n_out + WARPS - 1) / WARPS), (unsigned)((rows + ROWS - 1) / ROWS));
  bool wide = (uintptr_t)args.x.at % 16 == 0 && args.x.ld % 4 == 0;
  return wide ? launch(few_kernel<TYPE, ROWS, true>, args, grid, THREADS, 0, stream)
              : launch(few_kernel<TYPE, ROWS, false>, args, grid, THREADS, 0, stream);
}

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, int64_t rows, const product_args &args) {
  if (rows <= 1) return launch_few<TYPE, 1>(stream, rows, args);
  if (rows <= 2) return launch_few<TYPE, 2>(stream, rows, args);
  if (rows <= 4) return launch_few<TYPE, 4>(stream, rows, args);
  return launch_few<TYPE, 8>(stream, rows, args);
}

extern "C" cudaError_t launch_product_few(cudaStream_t stream, int64_t rows, const product_args *args) {
  if (args->w.dtype == DTYPE_F32) return launch_type<DTYPE_F32>(stream, rows, *args);
  if (args->w.dtype == DTYPE_F16) return launch_type<DTYPE_F16>(stream, rows, *args);
  return launch_type<DTYPE_BF16>(stream, rows, *args);
}

/* ---- around the library's product ---------------------------------------------------------------------------------------- */

struct narrow_args {
  product_args product;
  void *to;
};

static __global__ void narrow_kernel(narrow_args n) {
  const product_args &a = n.product;
  row_range rows = product_rows(a);
  int row = rows.begin + (int)blockIdx.x;
  int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  grid_follow();
  if (i >= a.w.ld) return;
  float value = row < rows.end && i < a.w.n_in ? row_at(a.x, row)[i] : 0;
  int64_t at = (int64_t)blockIdx.x * a.w.ld + i;
  if (a.w.dtype == DTYPE_F32)
    ((float *)n.to)[at] = value;
  else
    ((unsigned short *)n.to)[at] = a.w.dtype == DTYPE_F16 ? f16_bits(value) : bf16_bits(value);
}

extern "C" cudaError_t launch_product_narrow(cudaStream_t stream, int64_t rows, const product_args *args, void *to) {
  narrow_args narrow = {*args, to};
  dim3 grid((unsigned)rows, (unsigned)((args->w.ld + THREADS - 1) / THREADS));
  return launch(narrow_kernel, narrow, grid, THREADS, 0, stream);
}

struct finish_args {
  product_args product;
  const float *sums;
  int64_t ld;
};

static __global__ void finish_kernel(finish_args f) {
  const product_args &a = f.product;
  row_range rows = product_rows(a);
  int row = rows.begin + (int)blockIdx.x;
  int64_t out = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  grid_follow();
  if (row < rows.end && out < a.w.n_out) finish(a, row, out, f.sums[(int64_t)blockIdx.x * f.ld + out]);
}

extern "C" cudaError_t launch_product_finish(cudaStream_t stream, int64_t rows, const product_args *args, const float *sums,
                                             int64_t ld) {
  finish_args f = {*args, sums, ld};
  dim3 grid((unsigned)rows, (unsigned)((args->w.n_out + THREADS - 1) / THREADS));
  return launch(finish_kernel, f, grid, THREADS, 0, stream);
}
