/* device.cuh: what the kernels share: launching, rows of the tables, sums over a block, edits and taps of a row.
 *
 * Blocks are one-dimensional and whole warps. Sums over a block are taken in one fixed order that depends on the size of the
 * block alone, and the source says where a product is fused with a sum (the compiler is told not to), so that the same row
 * gives the same bits whatever stands around it. */
#ifndef STEERD_CORE_MATH_CUDA_DEVICE_CUH
#define STEERD_CORE_MATH_CUDA_DEVICE_CUH

#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <math.h>

#include "core/math/cuda/kernels.h"

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#endif

#define FULL_WARP 0xFFFFFFFFu
#define MAX_WARPS 32

/* ---- one kernel after the other ----------------------------------------------------------------------------------------- */

/* Every kernel calls this once in every thread, before its first return, its first write, and its first read of anything that a
 * kernel may have written: a kernel may begin while the one before it still runs (see launch). It waits until all that was
 * launched before has ended and its writes are seen, then lets the next kernel begin: at most one grid waits beside the one that
 * works.
 *
 * The one before has ended, and by the same rule it has waited for the one before itself: that is why a kernel whose threads
 * return without waiting would break the chain for those behind it. Only what is constant for as long as a step may be read in
 * front of it: weights, and the step's tables by rows_of (they were sent before the first kernel began). Nothing that it reads
 * behind may go through __ldg or a __restrict__ pointer, which the compiler may read in front. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
static __device__ __forceinline__ void grid_follow(void) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
}
#else /* launched without overlap, and without these instructions */
static __device__ __forceinline__ void grid_follow(void) {}
#endif

/* Asks for bytes that are read soon, in front of grid_follow: into the cache that all multiprocessors share, so that nothing is
 * seen too early. Both are multiples of 16. */
static __device__ __forceinline__ void fetch_ahead(const void *at, int bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "r"(bytes));
#else
  (void)at, (void)bytes;
#endif
}

/* The same for n floats from anywhere, of weights or of a request's vectors: whole pieces of 16 bytes of them. */
static __device__ __forceinline__ void fetch_floats(const float *at, int64_t n) {
  uintptr_t begin = ((uintptr_t)at + 15) / 16 * 16, end = (uintptr_t)(at + n) / 16 * 16;
  if (at && begin < end) fetch_ahead((const void *)begin, (int)(end - begin));
}

/* Kernels take one struct by value. Where the device can, they may begin before their turn, while the kernel before them ends;
 * behind anything else (a copy, a product of the library) the attribute changes nothing that grid_follow does not wait for. */
template <class A>
static inline cudaError_t launch(void (*kernel)(A), const A &args, dim3 grid, int threads, size_t shared, cudaStream_t stream) {
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3((unsigned)threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = launches_overlap() ? 1 : 0;
  launch_prepare((const void *)kernel);
  cudaError_t status = cudaLaunchKernelEx(&config, kernel, args);
  if (!launches_watched()) return status;
  launch_size size = {grid.x, grid.y, grid.z, (unsigned)threads, shared};
  return launch_watched(stream, (const void *)kernel, &size, status);
}

/* Threads of a block that owns a row: by its width alone. */
#define MOST_ROW_THREADS 512
static inline int row_threads(int64_t width) { return width <= 1024 ? 128 : width <= 4096 ? 256 : MOST_ROW_THREADS; }

/* ---- rows ------------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float *row_at(const device_rows &rows, int64_t row) { return rows.at + row * rows.ld; }

/* Pieces of the tables past the cache of the multiprocessor, where those of the last step might lie: what may be read in front
 * of grid_follow. */
template <class T> static __device__ __forceinline__ T *table_pointer(T *const *at) {
  return (T *)__ldcg((const unsigned long long *)at);
}
static __device__ __forceinline__ row_range table_range(const row_range *at) {
  int2 pair = __ldcg((const int2 *)at);
  row_range range = {pair.x, pair.y};
  return range;
}

static __device__ __forceinline__ row_range rows_of(const table *t, int set, int layer) {
  if (set != ROWS_LOGIT) return table_range(table_pointer(set == ROWS_ACTIVE ? &t->active : &t->arriving) + layer);
  row_range all = {0, __ldcg(&t->n_logit_rows)};
  return all;
}

static __device__ __forceinline__ bool row_within(row_range range, int row) { return range.begin <= row && row < range.end; }

/* The row of the step that stands in row `row` of an op's buffers, one of those that there are. */
static __device__ __forceinline__ int step_row(const table *t, int set, int row) {
  const int32_t *rows = set == ROWS_LOGIT ? table_pointer(&t->logit_row) : NULL;
  return rows ? __ldcg(rows + row) : row;
}

static __device__ __forceinline__ float bf16_value(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

/* An element of a matrix of that type, as it was read. */
static __device__ __forceinline__ float weight_value(float value, int) { return value; }
static __device__ __forceinline__ float weight_value(unsigned short bits, int dtype) {
  return dtype == DTYPE_F16 ? __half2float(__ushort_as_half(bits)) : bf16_value(bits);
}

static __device__ __forceinline__ float weight_at(const device_matrix &w, int64_t out, int64_t in) {
  int64_t at = out * w.ld + in;
  return w.dtype == DTYPE_F32 ? ((const float *)w.data)[at] : weight_value(((const unsigned short *)w.data)[at], w.dtype);
}

/* ---- sums over a block --------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float warp_sum(float x) {
  for (int step = 16; step; step >>= 1) x += __shfl_xor_sync(FULL_WARP, x, step);
  return x;
}

static __device__ __forceinline__ float warp_max(float x) {
  for (int step = 16; step; step >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, step));
  return x;
}

/* Every thread gets the result; `shared` is free again when it returns. */
static __device__ __forceinline__ float block_sum(float x, float shared[MAX_WARPS]) {
  int warps = blockDim.x / 32;
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; i++) sum += shared[i];
  __syncthreads();
  return sum;
}

static __device__ __forceinline__ float block_max(float x, float shared[MAX_WARPS]) {
  int warps = blockDim.x / 32;
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float most = shared[0];
  for (int i = 1; i < warps; i++) most = fmaxf(most, shared[i]);
  __syncthreads();
  return most;
}

/* ---- formulas of elements --------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float activate(int act, float x) {
  switch (act) {
    case ACT_RELU: return x < 0 ? 0 : x; /* NaN stays */
    case ACT_GELU_TANH: return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case ACT_GELU_ERF: return 0.5f * x * (1 + erff(x * 0.7071067811865476f));
    case ACT_SILU: return x / (1 + expf(-x));
    default: return x;
  }
}

static __device__ __forceinline__ float soft_capped(float y, float cap) { return cap * tanhf(y / cap); }

#endif
