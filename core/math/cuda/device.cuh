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
  cudaError_t status = cudaLaunchKernelEx(&config, kernel, args);
  if (!launches_watched()) return status;
  launch_size size = {grid.x, grid.y, grid.z, (unsigned)threads, shared};
  return launch_watched(stream, (const void *)kernel, &size, status);
}

/* Threads of a block that owns a row: by its width alone. */
static inline int row_threads(int64_t width) { return width <= 1024 ? 128 : width <= 4096 ? 256 : 512; }

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

/* The row of the step that stands in row `row` of an op's buffers. */
static __device__ __forceinline__ int step_row(const table *t, int set, int row) {
  return set == ROWS_LOGIT && t->logit_row ? t->logit_row[row] : row;
}

static __device__ __forceinline__ float bf16_value(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

static __device__ __forceinline__ float weight_at(const device_matrix &w, int64_t out, int64_t in) {
  int64_t at = out * w.ld + in;
  if (w.dtype == DTYPE_F32) return ((const float *)w.data)[at];
  unsigned short bits = ((const unsigned short *)w.data)[at];
  return w.dtype == DTYPE_F16 ? __half2float(__ushort_as_half(bits)) : bf16_value(bits);
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

/* ---- norms: a block owns a row, thread i its elements i, i + blockDim.x, ... ---------------------------------------------------- */

static __device__ inline float norm_middle(int kind, int64_t width, const float *x, float *shared) {
  float sum = 0;
  if (kind != NORM_LAYER) return 0;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) sum += x[i];
  return block_sum(sum, shared) / (float)width;
}

static __device__ inline float norm_scale(const device_norm &norm, int64_t width, const float *x, float middle, float *shared) {
  float square = 0;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) square = fmaf(x[i] - middle, x[i] - middle, square);
  return sqrtf(block_sum(square, shared) / (float)width + norm.eps);
}

static __device__ __forceinline__ float gained(const device_norm &norm, int64_t i, float x) {
  return fmaf(x, norm.gain ? norm.gain[i] : 1.0f, norm.bias ? norm.bias[i] : 0.0f);
}

static __device__ inline void norm_row(const device_norm &norm, int64_t width, const float *x, float *y, float *shared) {
  if (norm.kind == NORM_NONE) {
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) y[i] = x[i];
    return;
  }
  float middle = norm_middle(norm.kind, width, x, shared), scale = norm_scale(norm, width, x, middle, shared);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) y[i] = gained(norm, i, (x[i] - middle) / scale);
}

/* ---- edits and taps: the same ownership --------------------------------------------------------------------------------------- */

/* Elements [first, first + n) of h belong to the edit, which has `skip` elements before them. */
struct edit_columns {
  int64_t first, n, skip;
};

static __device__ __forceinline__ edit_columns columns_of(const table_edit &edit, int64_t column, int64_t width) {
  int64_t begin = edit.column_begin > column ? edit.column_begin : column;
  int64_t end = edit.column_end < column + width ? edit.column_end : column + width;
  edit_columns c = {begin - column, end - begin, begin - edit.column_begin};
  return c;
}

/* The first element of this thread at or behind `first`. */
static __device__ __forceinline__ int64_t own_from(int64_t first) {
  int64_t lap = first / blockDim.x * blockDim.x + threadIdx.x;
  return lap < first ? lap + blockDim.x : lap;
}

static __device__ inline float edit_dot(const float *v, const float *h, const edit_columns &c, float *shared) {
  float sum = 0;
  for (int64_t i = own_from(c.first); i < c.first + c.n; i += blockDim.x) sum = fmaf(h[i], v[i - c.first + c.skip], sum);
  return block_sum(sum, shared);
}

/* How far h goes along v, for the edits that are h += f v. */
static __device__ inline float edit_distance(const table_edit &edit, const float *h, const edit_columns &c, float *shared) {
  float along;
  switch (edit.kind) {
    case EDIT_ROW_PROJECT: return (edit.value - 1) * edit_dot(edit.v, h, c, shared);
    case EDIT_ROW_CAP:
      along = edit_dot(edit.v, h, c, shared);
      return fminf(along, edit.value) - along;
    case EDIT_ROW_FEATURE_SET:
    case EDIT_ROW_FEATURE_SCALE:
      along = edit_dot(edit.enc, h, c, shared) + edit.bias;
      along = along > fmaxf(edit.threshold, 0) ? along * edit.fold : 0;
      return (edit.kind == EDIT_ROW_FEATURE_SET ? edit.value : edit.value * along) - along;
    default: return edit.value; /* EDIT_ROW_ADD */
  }
}

static __device__ inline void edit_row(const table_edit &edit, int row, float *h, int64_t column, int64_t width, float *shared) {
  edit_columns c = columns_of(edit, column, width);
  if (c.n <= 0) return;
  int64_t begin = own_from(c.first), end = c.first + c.n;
  const float *v = edit.v ? edit.v + c.skip - c.first : NULL;
  switch (edit.kind) {
    case EDIT_ROW_SCALE:
      for (int64_t i = begin; i < end; i += blockDim.x) h[i] *= edit.value;
      return;
    case EDIT_ROW_FILL:
      for (int64_t i = begin; i < end; i += blockDim.x) h[i] = edit.value;
      return;
    case EDIT_ROW_REPLACE:
      v += (int64_t)(row - edit.row_begin) * (edit.column_end - edit.column_begin);
      for (int64_t i = begin; i < end; i += blockDim.x) h[i] = v[i];
      return;
    case EDIT_ROW_COPY:
      for (int64_t i = begin; i < end; i += blockDim.x) h[i] = v[i];
      return;
    default: break;
  }
  float f = edit_distance(edit, h, c, shared);
  for (int64_t i = begin; i < end; i += blockDim.x) h[i] = fmaf(f, v[i], h[i]);
}

/* Which of the items [base, base + blockDim.x) of `rows` cover the row, a bit each: the whole block looks at once. */
static __device__ __forceinline__ void find_items(const row_range *rows, int base, int end, int row, unsigned mask[MAX_WARPS]) {
  int item = base + (int)threadIdx.x;
  unsigned found = __ballot_sync(FULL_WARP, item < end && row_within(rows[item], row));
  __syncthreads();
  if (threadIdx.x % 32 == 0) mask[threadIdx.x / 32] = found;
  __syncthreads();
}

/* What edits [begin, end) of the step do to a row. */
static __device__ inline void edits_between(const table *t, int begin, int end, int row, float *h, int64_t column, int64_t width,
                                            float *shared) {
  __shared__ unsigned mask[MAX_WARPS];
  for (int base = begin; base < end; base += blockDim.x) {
    find_items(t->edit_rows, base, end, row, mask);
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
      for (unsigned left = mask[warp]; left; left &= left - 1)
        edit_row(t->edits[base + warp * 32 + __ffs((int)left) - 1], row, h, column, width, shared);
  }
}

/* What edits alone do to a row. */
static __device__ inline void point_edits(const table *t, int point, int row, float *h, int64_t column, int64_t width, float *shared) {
  if (!t->edit_begin || point < 0) return;
  edits_between(t, t->edit_begin[point], t->edit_begin[point + 1], row, h, column, width, shared);
}

static __device__ inline void point_taps(const table *t, int point, int row, const float *h, int64_t column, int64_t width) {
  __shared__ unsigned mask[MAX_WARPS];
  if (!t->tap_begin || point < 0) return;
  int end = t->tap_begin[point + 1];
  for (int base = t->tap_begin[point]; base < end; base += blockDim.x) {
    find_items(t->tap_rows, base, end, row, mask);
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
      for (unsigned left = mask[warp]; left; left &= left - 1) {
        int item = base + warp * 32 + __ffs((int)left) - 1;
        float *to = t->taps[item].to + (int64_t)(row - t->tap_rows[item].begin) * t->taps[item].ld + column;
        for (int64_t i = threadIdx.x; i < width; i += blockDim.x) to[i] = h[i];
      }
  }
}

static __device__ inline void point_row(const table *t, int point, int row, float *h, int64_t column, int64_t width, float *shared) {
  point_edits(t, point, row, h, column, width, shared);
  point_taps(t, point, row, h, column, width);
}

static __device__ inline bool row_is_edited(const table *t, int point, int row) {
  if (!t->edit_begin || point < 0) return false;
  for (int i = t->edit_begin[point]; i < t->edit_begin[point + 1]; i++)
    if (row_within(t->edit_rows[i], row)) return true;
  return false;
}

#endif
