/* splice.cu: sparse decode: rows of a decoder, gathered by kept features, into rows of a step.
 *
 * A block has some columns of a row. Its warps take the features in turn, so that rows of the decoder from all over its memory are
 * under way at once; each adds its own in ascending order, then the warps are added in order. That order depends on the
 * features of the row alone. */
#include "core/math/cuda/splice.cuh"
#include "core/math/cuda/types.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)

static __global__ void hold_kernel(hold_args a) {
  grid_follow();
  const table_splice *row = group_row(a.of, blockIdx.x);
  if (!row) return;
  block_team team = {NULL}; /* it has nothing to tell itself */
  copy_row(team, row_at(a.x, row->x), row_at(a.to, row->y), a.width);
}

extern "C" cudaError_t launch_hold(cudaStream_t stream, int64_t rows, const hold_args *args) {
  return launch(hold_kernel, *args, dim3((unsigned)rows), row_threads(args->width), 0, stream);
}

/* A block has some columns of a row: the first entry of those about it works, through all of them in their order. */
static __global__ void __launch_bounds__(THREADS) put_kernel(put_args a) {
  grid_follow();
  const table_splice *row = group_row(a.of, (int)blockIdx.x);
  int64_t column = (int64_t)blockIdx.y * THREADS + threadIdx.x;
  if (!row || !row->n_parts || column >= a.width) return;
  float *y = row_at(a.to, row->y) + column, value = *y;
  int n = row->n_parts;
#pragma unroll 8
  for (int i = 0; i < n; i++) {
    float x = row_at(a.x, row[i].x)[column];
    value = row[i].with_error ? value + x : x;
  }
  *y = value;
}

extern "C" cudaError_t launch_put(cudaStream_t stream, int64_t rows, const put_args *args) {
  dim3 grid((unsigned)rows, (unsigned)((args->width + THREADS - 1) / THREADS));
  return launch(put_kernel, *args, grid, THREADS, 0, stream);
}

/* ---- changes ------------------------------------------------------------------------------------------------------------- */

/* The first change of a feature, n_changes where there is none. */
static __device__ __forceinline__ int find_change(const table_splice &row, int32_t feature) {
  int low = 0, high = row.n_changes;
  while (low < high) {
    int middle = (low + high) / 2;
    if (row.changes[middle].index < feature)
      low = middle + 1;
    else
      high = middle;
  }
  return low < row.n_changes && row.changes[low].index == feature ? low : row.n_changes;
}

/* An activation after the changes from number `at` on that are of the same feature. */
static __device__ __forceinline__ float changed(const table_splice &row, int at, float value) {
  for (int i = at; i < row.n_changes && row.changes[i].index == row.changes[at].index; i++)
    value = row.changes[i].change == FEATURE_SET ? row.changes[i].value : row.changes[i].value * value;
  return value;
}

/* Entry of a feature among [begin, end), end where it is not kept. */
static __device__ __forceinline__ int find_kept(const int32_t *index, int begin, int end, int32_t feature) {
  int low = begin, high = end;
  while (low < high) {
    int middle = low + (high - low) / 2;
    if (index[middle] < feature)
      low = middle + 1;
    else
      high = middle;
  }
  return low < end && index[low] == feature ? low : end;
}

/* What change number `at` adds to the decoder's row of its feature; 0 where it is not the first of that feature, or where a row that
 * is decoded anew has it already. */
static __device__ __forceinline__ float added(const decode_args &a, const table_splice &row, int begin, int end, int at) {
  int32_t feature = row.changes[at].index;
  if (at && row.changes[at - 1].index == feature) return 0;
  int kept = find_kept(a.index, begin, end, feature);
  if (!row.with_error && kept < end) return 0;
  float was = kept < end ? a.value[kept] : 0;
  return (changed(row, at, was) - was) * a.factor[feature];
}

/* ---- sums ---------------------------------------------------------------------------------------------------------------- */

/* Up to THREADS features that wait to be added. */
struct waiting {
  float scale[THREADS];
  int32_t feature[THREADS];
};

template <int TYPE>
static __device__ __forceinline__ void add_waiting(const device_matrix &w, const waiting &list, int n, int64_t column, float *sum) {
  const int N = piece<TYPE>::n;
  if (column >= w.ld) return;
#pragma unroll 4
  for (int i = threadIdx.x / 32; i < n; i += WARPS) {
    float v[8], scale = list.scale[i];
    piece<TYPE>::widen(w.data, (list.feature[i] * w.ld + column) / N, v);
#pragma unroll
    for (int c = 0; c < N; c++) sum[c] = fmaf(scale, v[c], sum[c]);
  }
}

template <int TYPE> static __global__ void __launch_bounds__(THREADS) decode_kernel(decode_args a) {
  const int N = piece<TYPE>::n;
  __shared__ waiting list;
  __shared__ float sums[WARPS][32 * 8];
  __shared__ int any;
  grid_follow();
  const table_splice *entry = group_row(a.of, blockIdx.y);
  if (!entry) return;
  table_splice row = *entry;
  int begin = a.start[blockIdx.y], end = a.start[blockIdx.y + 1], lane = threadIdx.x % 32;
  int64_t first = (int64_t)blockIdx.x * 32 * N;
  float sum[N] = {0};
  if (threadIdx.x == 0) any = 0;
  for (int base = row.with_error ? end : begin; base < end; base += THREADS) {
    int i = base + (int)threadIdx.x, n = end - base < THREADS ? end - base : THREADS;
    if (i < end) {
      int32_t feature = a.index[i];
      int change = find_change(row, feature);
      float value = change < row.n_changes ? changed(row, change, a.value[i]) : a.value[i];
      list.feature[threadIdx.x] = feature;
      list.scale[threadIdx.x] = value * a.factor[feature];
    }
    __syncthreads();
    add_waiting<TYPE>(a.w, list, n, first + lane * N, sum);
    __syncthreads();
  }
  for (int base = 0; base < row.n_changes; base += THREADS) {
    int i = base + (int)threadIdx.x, n = row.n_changes - base < THREADS ? row.n_changes - base : THREADS;
    if (base == 0) __syncthreads(); /* any is 0 */
    if (i < row.n_changes) {
      list.feature[threadIdx.x] = row.changes[i].index;
      list.scale[threadIdx.x] = added(a, row, begin, end, i);
      if (list.scale[threadIdx.x] != 0) any = 1;
    }
    __syncthreads();
    add_waiting<TYPE>(a.w, list, n, first + lane * N, sum);
    __syncthreads();
  }
#pragma unroll
  for (int c = 0; c < N; c++) sums[threadIdx.x / 32][lane * N + c] = sum[c];
  __syncthreads();
  int64_t column = first + threadIdx.x;
  if (threadIdx.x >= 32 * N || column >= a.w.n_in || (row.with_error && !any && !a.apart)) return;
  float total = 0, back = a.frame ? a.frame[2 * blockIdx.y] : 1.0f, mean = a.frame ? a.frame[2 * blockIdx.y + 1] : 0.0f;
  for (int i = 0; i < WARPS; i++) total += sums[i][threadIdx.x];
  float *y = row_at(a.y, row.y) + column;
  bool own = column < a.d_out && !row.with_error;
  float bias = own ? a.bias[column] : 0.0f, beside = own && a.skip ? a.skip[blockIdx.y * a.d_out + column] : 0.0f;
  if (!row.with_error)
    *y = fmaf(bias + total, back, mean) + beside;
  else if (a.apart)
    *y = any ? total : -0.0f;
  else
    *y = fmaf(back, total, *y);
}

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, int64_t rows, const decode_args &args) {
  const int columns = 32 * piece<TYPE>::n;
  dim3 grid((unsigned)((args.w.n_in + columns - 1) / columns), (unsigned)rows);
  return launch(decode_kernel<TYPE>, args, grid, THREADS, 0, stream);
}

extern "C" cudaError_t launch_decode(cudaStream_t stream, int64_t rows, const decode_args *args) {
  if (args->w.dtype == DTYPE_F32) return launch_type<DTYPE_F32>(stream, rows, *args);
  if (args->w.dtype == DTYPE_F16) return launch_type<DTYPE_F16>(stream, rows, *args);
  return launch_type<DTYPE_BF16>(stream, rows, *args);
}
