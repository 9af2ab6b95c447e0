/* rows.cu: what happens to whole rows: where they come from, sums of the residual, edits, taps, norms. One block a row. */
#include "core/math/cuda/device.cuh"

/* A row that is worked on stays in shared memory up to this width, and in its buffer beyond. */
#define SHARED_WIDTH 10240

static __device__ void begin_row(const row_args &a, int row, float *h) {
  const table *t = a.table;
  int64_t source = t->source ? t->source[row] : 0;
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) {
    switch (t->origin[row]) {
      case ORIGIN_FORK: h[i] = row_at(a.resid, source)[i]; break;
      case ORIGIN_SAVED: h[i] = t->saved[source * a.width + i]; break;
      default:
        h[i] = a.embedded.at ? row_at(a.embedded, row)[i] : weight_at(a.embed, t->token[row], i) * a.embed_scale;
        if (a.positions) h[i] += a.embedded.at ? row_at(a.placed, row)[i] : a.positions[t->position[row] * a.width + i];
    }
  }
}

static __device__ bool begins_here(const row_args &a, int row) {
  return a.origins && a.table->slots[a.table->slot[row]].first == a.begin_layer;
}

static __global__ void rows_kernel(row_args a) {
  DYNAMIC_SHARED(float, kept);
  __shared__ float shared[MAX_WARPS];
  const table *t = a.table;
  int row = blockIdx.x;
  bool sums = a.sub_layer >= 0 && row_within(rows_of(t, a.sub_set, a.sub_layer), row);
  bool arrives = a.begin_layer >= 0 && row_within(rows_of(t, ROWS_ARRIVING, a.begin_layer), row);
  bool begins = arrives && begins_here(a, row);
  arrives = begins || (arrives && a.begin_point >= 0); /* a row that is copied from is not written meanwhile */
  bool norms = a.norm_layer >= 0 && row_within(rows_of(t, a.norm_set, a.norm_layer), row);
  grid_follow();
  if (!sums && !arrives && !norms) return;
  float *resid = row_at(a.resid, row), *h = a.width <= SHARED_WIDTH ? kept : resid;
  if (begins)
    begin_row(a, row, h);
  else if (h != resid)
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) h[i] = resid[i];
  if (sums) {
    int item_row = step_row(t, a.sub_set, row);
    float *out = row_at(a.out, row);
    if (a.out_norm.kind != NORM_NONE) norm_row(a.out_norm, a.width, out, out, shared);
    point_row(t, a.out_point, item_row, out, 0, a.width, shared);
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) h[i] += out[i];
    point_row(t, a.resid_point, item_row, h, 0, a.width, shared);
  }
  if (arrives) point_row(t, a.begin_point, row, h, 0, a.width, shared);
  if (h != resid && (sums || arrives))
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) resid[i] = h[i];
  if (norms) norm_row(a.norm, a.width, h, row_at(a.y, row), shared);
}

extern "C" cudaError_t launch_rows(cudaStream_t stream, const bucket *bucket, const row_args *args) {
  bool logit = (args->sub_layer >= 0 && args->sub_set == ROWS_LOGIT) || (args->norm_layer >= 0 && args->norm_set == ROWS_LOGIT);
  unsigned rows = (unsigned)(logit ? bucket->logit_rows : bucket->rows);
  size_t shared = args->width <= SHARED_WIDTH ? (size_t)args->width * sizeof(float) : 0;
  return launch(rows_kernel, *args, dim3(rows), row_threads(args->width), shared, stream);
}

static __global__ void point_kernel(point_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x;
  bool within = row_within(rows_of(a.table, a.set, a.layer), row);
  grid_follow();
  if (!within) return;
  float *x = row_at(a.x, row);
  row = step_row(a.table, a.set, row);
  if (!a.part) {
    point_row(a.table, a.point, row, x, a.column, a.width, shared);
  } else {
    if (a.table->edit_begin) {
      int first = a.table->edit_begin[a.point];
      edits_between(a.table, first + a.first, first + a.last, row, x, a.column, a.width, shared);
    }
    if (a.taps) point_taps(a.table, a.point, row, x, a.column, a.width);
  }
}

extern "C" cudaError_t launch_point(cudaStream_t stream, const bucket *bucket, const point_args *args) {
  unsigned rows = (unsigned)bucket_rows(bucket, (row_set)args->set);
  return launch(point_kernel, *args, dim3(rows), row_threads(args->width), 0, stream);
}

static __global__ void norm_kernel(norm_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x, part = blockIdx.y;
  bool within = row_within(rows_of(a.table, a.set, a.layer), row);
  grid_follow();
  if (!within) return;
  const float *x = row_at(a.x, row) + part * a.width;
  float *y = a.y.at ? row_at(a.y, row) + part * a.width : NULL;
  if (a.code == OP_NORM) {
    norm_row(a.norm, a.width, x, y, shared);
  } else if (a.code == OP_NORM_SCALE) {
    float middle = norm_middle(a.norm.kind, a.width, x, shared);
    float scale = norm_scale(a.norm, a.width, x, middle, shared);
    if (threadIdx.x == 0) row_at(a.scale, row)[part] = scale;
  } else if (a.code == OP_NORMALIZE) {
    float middle = norm_middle(a.norm.kind, a.width, x, shared), scale = row_at(a.scale, row)[part];
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) y[i] = (x[i] - middle) / scale;
  } else {
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) y[i] = gained(a.norm, i, x[i]);
  }
}

extern "C" cudaError_t launch_norm(cudaStream_t stream, const bucket *bucket, const norm_args *args) {
  dim3 grid((unsigned)bucket_rows(bucket, (row_set)args->set), (unsigned)args->parts);
  return launch(norm_kernel, *args, grid, row_threads(args->width), 0, stream);
}

static __global__ void solu_kernel(solu_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x;
  bool within = row_within(rows_of(a.table, a.set, a.layer), row);
  grid_follow();
  if (!within) return;
  const float *x = row_at(a.x, row);
  float *y = row_at(a.y, row), most = -INFINITY, total = 0;
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) most = fmaxf(most, x[i]);
  most = block_max(most, shared);
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) total += expf(x[i] - most);
  total = block_sum(total, shared);
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) y[i] = x[i] * (expf(x[i] - most) / total);
}

extern "C" cudaError_t launch_solu(cudaStream_t stream, const bucket *bucket, const solu_args *args) {
  unsigned rows = (unsigned)bucket_rows(bucket, (row_set)args->set);
  return launch(solu_kernel, *args, dim3(rows), row_threads(args->width), 0, stream);
}
