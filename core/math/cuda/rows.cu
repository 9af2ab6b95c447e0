/* rows.cu: what happens to whole rows: where they come from, sums of the residual, edits, taps, norms. One block a row. */
#include "core/math/cuda/rows.cuh"

/* A row that is worked on stays in shared memory up to this width, and in its buffer beyond. */
#define SHARED_WIDTH 10240

static __global__ void __launch_bounds__(MOST_ROW_THREADS, 1) rows_kernel(row_args a) {
  DYNAMIC_SHARED(float, kept);
  __shared__ float shared[MAX_WARPS];
  __shared__ point_items<block_team> found[ROW_POINTS];
  block_team team = {shared};
  int row = blockIdx.x;
  row_stages stages = stages_of(a, row);
  bool begins = stages.arrives && begins_here(a, row);
  find_points(team, a, stages, row, found);
  if (stages.sums) fetch_norm(a.out_norm, a.width);
  if (stages.norms) fetch_norm(a.norm, a.width);
  grid_follow();
  if (!stages.sums && !stages.arrives && !stages.norms) return;
  float *resid = row_at(a.resid, row), *out = row_at(a.out, row), *h = a.width <= SHARED_WIDTH ? kept : resid;
  __syncthreads(); /* all is found */
  stages.added = stages.sums && !begins && a.out_norm.kind == NORM_NONE && !any_items(found[OUT_POINT]);
  if (begins)
    begin_row(team, a, row, h);
  else if (stages.added)
    add_rows(team, resid, out, h, a.width);
  else if (h != resid)
    copy_row(team, resid, h, a.width);
  change_row(team, a, stages, row, h, out, found);
  if (h != resid && (stages.sums || begins || has_point(a, stages))) copy_row(team, h, resid, a.width);
  if (!stages.norms) return;
  norm_row(team, a.norm, a.width, h, row_at(a.y, row));
  narrow_row(team, a.narrow, row, row_at(a.y, row), a.width);
}

extern "C" cudaError_t launch_rows(cudaStream_t stream, const bucket *bucket, const row_args *args) {
  bool logit = (args->sub_layer >= 0 && args->sub_set == ROWS_LOGIT) || (args->norm_layer >= 0 && args->norm_set == ROWS_LOGIT);
  unsigned rows = (unsigned)(logit ? bucket->logit_rows : bucket->rows);
  size_t shared = args->width <= SHARED_WIDTH ? (size_t)args->width * sizeof(float) : 0;
  return launch(rows_kernel, *args, dim3(rows), row_threads(args->width), shared, stream);
}

static __global__ void __launch_bounds__(MOST_ROW_THREADS) point_kernel(point_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x;
  bool within = row_within(rows_of(a.table, a.set, a.layer), row);
  grid_follow();
  if (!within) return;
  block_team team = {shared};
  float *x = row_at(a.x, row);
  row = step_row(a.table, a.set, row);
  if (!a.part) {
    point_row(team, a.table, a.point, row, x, a.column, a.width);
    narrow_row(team, a.narrow, blockIdx.x, x, a.width);
  } else {
    if (a.table->edit_begin) {
      int first = a.table->edit_begin[a.point];
      edits_between(team, a.table, first + a.first, first + a.last, row, x, a.column, a.width);
    }
    if (a.taps) point_taps(team, a.table, a.point, row, x, a.column, a.width);
  }
}

extern "C" cudaError_t launch_point(cudaStream_t stream, const bucket *bucket, const point_args *args) {
  unsigned rows = (unsigned)bucket_rows(bucket, (row_set)args->set);
  return launch(point_kernel, *args, dim3(rows), row_threads(args->width), 0, stream);
}

static __global__ void __launch_bounds__(MOST_ROW_THREADS) norm_kernel(norm_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x, part = blockIdx.y;
  bool within = row_within(rows_of(a.table, a.set, a.layer), row);
  int from = within && a.gathers ? step_row(a.table, a.set, row) : row;
  fetch_norm(a.norm, a.width);
  grid_follow();
  if (!within) return;
  block_team team = {shared};
  const float *x = row_at(a.x, from) + part * a.width;
  float *y = a.y.at ? row_at(a.y, row) + part * a.width : NULL;
  if (a.code == OP_NORM) {
    norm_row(team, a.norm, a.width, x, y);
    narrow_row(team, a.narrow, row, y, a.width);
  } else if (a.code == OP_NORM_SCALE) {
    float middle = norm_middle(team, a.norm.kind, a.width, x);
    float scale = norm_scale(team, a.norm, a.width, x, middle);
    if (threadIdx.x == 0) row_at(a.scale, row)[part] = scale;
  } else if (a.code == OP_NORMALIZE) {
    float middle = norm_middle(team, a.norm.kind, a.width, x), scale = row_at(a.scale, row)[part];
    team.each(0, a.width, [=](int i) { return x[i]; }, [=](int i, float own) { y[i] = (own - middle) / scale; });
  } else {
    team.each(0, a.width, [&](int i) { return norm_element_at(a.norm, i, x[i]); },
              [=](int i, norm_element own) { y[i] = gained(own, own.x); });
  }
}

extern "C" cudaError_t launch_norm(cudaStream_t stream, const bucket *bucket, const norm_args *args) {
  dim3 grid((unsigned)bucket_rows(bucket, (row_set)args->set), (unsigned)args->parts);
  return launch(norm_kernel, *args, grid, row_threads(args->width), 0, stream);
}

static __global__ void __launch_bounds__(MOST_ROW_THREADS) solu_kernel(solu_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x;
  bool within = row_within(rows_of(a.table, a.set, a.layer), row);
  grid_follow();
  if (!within) return;
  const float *x = row_at(a.x, row);
  float *y = row_at(a.y, row), most = -INFINITY, total;
  block_team team = {shared};
  auto read = [=](int i) { return x[i]; };
  team.each(0, a.width, read, [&](int, float own) { most = fmaxf(most, own); });
  most = block_max(most, shared);
  total = team.sum(0, a.width, read, [=](float sum, float own) { return sum + expf(own - most); });
  team.each(0, a.width, read, [=](int i, float own) { y[i] = own * (expf(own - most) / total); });
}

extern "C" cudaError_t launch_solu(cudaStream_t stream, const bucket *bucket, const solu_args *args) {
  unsigned rows = (unsigned)bucket_rows(bucket, (row_set)args->set);
  return launch(solu_kernel, *args, dim3(rows), row_threads(args->width), 0, stream);
}
