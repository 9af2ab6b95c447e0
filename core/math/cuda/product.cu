/* product.cu: products with few rows by plain arithmetic, and what surrounds those that the library does.
 *
 * The kernel for few rows is for weights in f32 (others: tensor.cu). It streams each row of the weights once, a warp for each
 * output: a lane adds its pieces of 16 bytes in order, then the lanes are added in one tree. That order does not depend on
 * how many rows there are, nor on which stand beside. */
#include "core/math/cuda/product.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
#define PIECE 4 /* elements of 16 bytes */

/* 4 elements of x from `in` on; those at n_in and beyond count as 0. WIDE: rows of x begin at multiples of 16 bytes. */
template <bool WIDE> static __device__ __forceinline__ float4 load_row(const float *x, int64_t in, int64_t n_in) {
  if (WIDE && in + PIECE <= n_in) return *(const float4 *)(x + in);
  float4 v = {in < n_in ? x[in] : 0.0f, in + 1 < n_in ? x[in + 1] : 0.0f, in + 2 < n_in ? x[in + 2] : 0.0f,
              in + 3 < n_in ? x[in + 3] : 0.0f};
  return v;
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

static __device__ __forceinline__ float add_piece(float sum, const float4 &w, const float4 &x) {
  return fmaf(w.w, x.w, fmaf(w.z, x.z, fmaf(w.y, x.y, fmaf(w.x, x.x, sum))));
}

/* GATED: two matrices, each with the sums that it would have alone. */
template <int ROWS, bool WIDE, bool GATED> static __global__ void __launch_bounds__(THREADS) few_kernel(product_args a) {
  row_range rows = product_rows(a);
  int first = rows.begin + (int)blockIdx.y * ROWS, lane = threadIdx.x % 32;
  int64_t out = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  grid_follow();
  if (first >= rows.end || out >= a.w.n_out) return;
  const float *x[ROWS];
  float sum[ROWS], gate[ROWS];
  for (int r = 0; r < ROWS; r++) {
    x[r] = row_at(a.x, first + r < rows.end ? first + r : first);
    sum[r] = gate[r] = 0;
  }
  const float *weights = (const float *)a.w.data + out * a.w.ld, *gates = (const float *)a.gate.data + out * a.w.ld;
#pragma unroll (GATED ? 2 : 4)
  for (int64_t in = lane * PIECE; in < a.w.ld; in += 32 * PIECE) {
    float4 w = *(const float4 *)(weights + in), g = GATED ? *(const float4 *)(gates + in) : w;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float4 v = load_row<WIDE>(x[r], in, a.w.n_in);
      sum[r] = add_piece(sum[r], w, v);
      if (GATED) gate[r] = add_piece(gate[r], g, v);
    }
  }
  float total = fold_lanes<ROWS>(sum, lane), gate_total = GATED ? fold_lanes<ROWS>(gate, lane) : 0;
  int row = first + lane * ROWS / 32;
  if (lane % (32 / ROWS) != 0 || row >= rows.end) return;
  if (GATED)
    finish_gated(a, row, out, total, gate_total);
  else
    finish(a, row, out, total);
}

template <int ROWS, bool GATED> static cudaError_t launch_few_of(cudaStream_t stream, int64_t rows, const product_args &args) {
  dim3 grid((unsigned)((args.w.n_out + WARPS - 1) / WARPS), (unsigned)((rows + ROWS - 1) / ROWS));
  bool wide = (uintptr_t)args.x.at % 16 == 0 && args.x.ld % 4 == 0;
  return wide ? launch(few_kernel<ROWS, true, GATED>, args, grid, THREADS, 0, stream)
              : launch(few_kernel<ROWS, false, GATED>, args, grid, THREADS, 0, stream);
}

template <int ROWS> static cudaError_t launch_few(cudaStream_t stream, int64_t rows, const product_args &args) {
  return args.gate.data ? launch_few_of<ROWS, true>(stream, rows, args) : launch_few_of<ROWS, false>(stream, rows, args);
}

extern "C" cudaError_t launch_product_few(cudaStream_t stream, int64_t rows, const product_args *args) {
  if (rows <= 1) return launch_few<1>(stream, rows, *args);
  if (rows <= 2) return launch_few<2>(stream, rows, *args);
  if (rows <= 4) return launch_few<4>(stream, rows, *args);
  return launch_few<8>(stream, rows, *args);
}

/* ---- around the library's product ---------------------------------------------------------------------------------------- */

struct narrow_args {
  product_args product;
  void *to;
};

static __global__ void narrow_kernel(narrow_args n) {
  const product_args &a = n.product;
  row_range rows = product_rows(a);
  int row = blockIdx.x;
  int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x, at = row * a.w.ld + i;
  grid_follow();
  if (i >= a.w.ld) return;
  float value = row_within(rows, row) && i < a.w.n_in ? row_at(a.x, row)[i] : 0;
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
  int row = blockIdx.x;
  int64_t out = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  grid_follow();
  if (row_within(rows, row) && out < a.w.n_out) finish(a, row, out, f.sums[row * f.ld + out]);
}

extern "C" cudaError_t launch_product_finish(cudaStream_t stream, int64_t rows, const product_args *args, const float *sums,
                                             int64_t ld) {
  finish_args f = {*args, sums, ld};
  dim3 grid((unsigned)rows, (unsigned)((args->w.n_out + THREADS - 1) / THREADS));
  return launch(finish_kernel, f, grid, THREADS, 0, stream);
}
