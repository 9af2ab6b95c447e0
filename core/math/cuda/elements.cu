/* elements.cu: ops whose elements do not look at each other, and rotary positions. One thread an element. */
#include "core/math/cuda/row.cuh"

#define THREADS 256

static __device__ __forceinline__ void embed_element(const element_args &a, int row, int64_t i) {
  const table *t = a.table;
  bool here = t->origin[row] == ORIGIN_EMBED;
  row_at(a.x, row)[i] = here ? weight_at(a.embed, t->token[row], i) * a.scale : 0;
  row_at(a.y, row)[i] = here && a.places ? a.places[t->position[row] * a.width + i] : 0;
}

static __device__ __forceinline__ void put(const element_args &a, int row, int64_t i, float value) {
  row_at(a.y, row)[i] = value;
  narrow_element(a.narrow, row, i, value);
}

static __global__ void elements_kernel(element_args a) {
  const table *t = a.table;
  int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  int row = blockIdx.x;
  bool within = row_within(rows_of(t, a.set, a.layer), row);
  grid_follow();
  if (i >= a.width || !within) return;
  float *y = row_at(a.y, row) + i;
  switch (a.code) {
    case OP_GATE: put(a, row, i, activate(a.act, row_at(a.x, row)[i]) * (a.up.at ? row_at(a.up, row)[i] : 1.0f)); return;
    case OP_PLACE: put(a, row, i, row_at(a.x, row)[i] + a.places[t->position[row] * a.width + i]); return;
    case OP_GATHER: put(a, row, i, row_at(a.x, t->logit_row[row])[i]); return;
    case OP_COPY: *y = row_at(a.x, row)[i]; return;
    case OP_KEEP: *y = i >= a.begin && i < a.end ? row_at(a.x, row)[i] : 0; return;
    case OP_CAP: *y = soft_capped(*y, a.scale); return;
    case OP_DELTA: /* to is y, before is up */
      if (row_is_edited(t, a.point, step_row(t, a.set, row))) *y += row_at(a.x, row)[i] - row_at(a.up, row)[i];
      return;
    case OP_EMBED: embed_element(a, row, i); return;
    default: return;
  }
}

extern "C" cudaError_t launch_elements(cudaStream_t stream, const bucket *bucket, const element_args *args) {
  dim3 grid((unsigned)bucket_rows(bucket, (row_set)args->set), (unsigned)((args->width + THREADS - 1) / THREADS));
  return launch(elements_kernel, *args, grid, THREADS, 0, stream);
}

/* A turn by an angle, factor and all, is undone as far as it is a turn: its transpose turns by the other sign. */
static __global__ void rotate_kernel(rotate_args a) {
  int row = blockIdx.x, half = a.dims / 2, pair = (int)(blockIdx.y * blockDim.x + threadIdx.x);
  bool within = row_within(rows_of(a.table, a.set, a.layer), row);
  grid_follow();
  if (pair >= a.heads * half || !within) return;
  int head = pair / half, i = pair % half;
  const float *cosine = a.turns + (int64_t)a.table->position[row] * a.dims;
  float *x = row_at(a.x, row) + (int64_t)head * a.d_head;
  float *p = a.pairing == ROTARY_HALVES ? x + i : x + 2 * i, *q = a.pairing == ROTARY_HALVES ? p + half : p + 1;
  float c = cosine[i], s = a.back ? -cosine[half + i] : cosine[half + i], was = *p, other = *q;
  *p = was * c - other * s;
  *q = other * c + was * s;
}

static cudaError_t rotate_rows(cudaStream_t stream, int32_t rows, const rotate_args *args) {
  int pairs = args->heads * (args->dims / 2);
  return launch(rotate_kernel, *args, dim3((unsigned)rows, (unsigned)((pairs + THREADS - 1) / THREADS)), THREADS, 0, stream);
}

extern "C" cudaError_t launch_rotate(cudaStream_t stream, const bucket *bucket, const rotate_args *args) {
  return rotate_rows(stream, bucket_rows(bucket, (row_set)args->set), args);
}

extern "C" cudaError_t launch_back_rotate(cudaStream_t stream, int32_t rows, const rotate_args *args) { return rotate_rows(stream, rows, args); }
