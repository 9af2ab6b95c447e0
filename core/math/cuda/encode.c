/* encode.c: sparse codes of rows, some rows at a time: centred, multiplied, chosen from, and what is kept copied back. */
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define CHUNK_ROWS 256
#define CHUNK_BYTES ((size_t)1 << 30) /* and no more scratch than this, unless one row needs it */

struct encoding {
  struct cuda_backend *cuda;
  const struct encode_args *args;
  int64_t chunk; /* rows at a time */
  /* on the device */
  float *centred, *p, *value;
  int32_t *index, *count;
  /* on the host: [chunk], and what was kept of the chunk [rows][widest] */
  int32_t *counts, *indices;
  float *values;
  size_t room;
};

static void *cut(unsigned char *base, size_t *used, size_t bytes) {
  void *at = base ? base + *used : NULL;
  *used += size_round_up(bytes, 256);
  return at;
}

static size_t lay_out(struct encoding *e, unsigned char *base) {
  size_t used = 0, rows = (size_t)e->chunk, features = (size_t)e->args->w->n_out;
  e->centred = cut(base, &used, rows * (size_t)e->args->w->n_in * sizeof(float));
  e->p = cut(base, &used, rows * features * sizeof(float));
  e->value = cut(base, &used, rows * features * sizeof(float));
  e->index = cut(base, &used, rows * features * sizeof(int32_t));
  e->count = cut(base, &used, rows * sizeof(int32_t));
  return used;
}

static int multiply(struct encoding *e, int64_t first, int64_t rows, struct error *error) {
  const struct encode_args *args = e->args;
  struct rows from = {span_at(args->x.at, (size_t)(first * args->x.ld) * sizeof(float)), args->x.ld};
  struct centre_args centre = {device_rows_of(from), e->centred, span_floats(args->subtract), args->w->n_in,
                               (int32_t)args->norm, args->center_mean, args->scale};
  struct product_args product = {.n = rows, .w = cuda_matrix_view(args->w), .x = {e->centred, args->w->n_in},
                                 .y = {e->p, args->w->n_out}, .bias = span_floats(args->bias)};
  if (cuda_check(e->cuda, launch_centre(e->cuda->stream, rows, &centre), "centring rows", error) != 0) return -1;
  return cuda_product(e->cuda, rows, &product, false, error);
}

static int choose(struct encoding *e, int64_t rows, struct error *error) {
  const struct encode_args *args = e->args;
  struct select_args select = {.p = e->p, .n_feat = args->w->n_out, .kind = (int32_t)args->kind, .k = args->k,
                               .fold_selects = args->fold_selects, .bias = span_floats(args->bias),
                               .threshold = span_floats(args->threshold), .fold = span_floats(args->fold),
                               .gain = span_floats(args->gain), .shift = span_floats(args->shift), .index = e->index,
                               .count = e->count, .value = e->value};
  cudaStream_t stream = e->cuda->stream;
  if (cuda_check(e->cuda, launch_select(stream, rows, &select), "choosing features", error) != 0 ||
      cuda_check(e->cuda, cudaMemcpyAsync(e->counts, e->count, (size_t)rows * sizeof *e->counts, cudaMemcpyDeviceToHost, stream),
                 "reading codes", error) != 0)
    return -1;
  return cuda_wait(e->cuda, error);
}

static int make_host_room(struct encoding *e, size_t entries, struct error *error) {
  if (entries <= e->room) return 0;
  free(e->indices);
  free(e->values);
  e->room = 0;
  e->indices = malloc(entries * sizeof *e->indices);
  e->values = malloc(entries * sizeof *e->values);
  if (!e->indices || !e->values) return error_memory(error, entries * (sizeof *e->indices + sizeof *e->values));
  e->room = entries;
  return 0;
}

static int fetch(struct encoding *e, int64_t rows, size_t widest, struct error *error) {
  size_t from = (size_t)e->args->w->n_out * sizeof(float), to = widest * sizeof(float);
  cudaStream_t stream = e->cuda->stream;
  if (cuda_check(e->cuda, cudaMemcpy2DAsync(e->indices, to, e->index, from, to, (size_t)rows, cudaMemcpyDeviceToHost, stream),
                 "reading codes", error) != 0 ||
      cuda_check(e->cuda, cudaMemcpy2DAsync(e->values, to, e->value, from, to, (size_t)rows, cudaMemcpyDeviceToHost, stream),
                 "reading codes", error) != 0)
    return -1;
  return cuda_wait(e->cuda, error);
}

static int append(const struct encoding *e, int64_t rows, size_t widest, struct sparse *out, struct error *error) {
  for (int64_t row = 0; row < rows; row++) {
    if (sparse_row(out, (size_t)e->counts[row], error) != 0) return -1;
    for (size_t i = (size_t)row * widest; i < (size_t)row * widest + (size_t)e->counts[row]; i++)
      sparse_push(out, e->indices[i], e->values[i]);
  }
  return 0;
}

static int encode_chunk(struct encoding *e, int64_t first, int64_t rows, struct sparse *out, struct error *error) {
  size_t widest = 0;
  if (multiply(e, first, rows, error) != 0 || choose(e, rows, error) != 0) return -1;
  for (int64_t row = 0; row < rows; row++) widest = size_max(widest, (size_t)e->counts[row]);
  if (make_host_room(e, (size_t)rows * widest, error) != 0 || (widest && fetch(e, rows, widest, error) != 0)) return -1;
  return append(e, rows, widest, out, error);
}

int cuda_encode(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error) {
  struct encoding e = {.cuda = (struct cuda_backend *)backend, .args = args, .chunk = 1};
  if (args->n_rows <= 0) return 0;
  if (cuda_enter(e.cuda, error) != 0) return -1;
  int64_t fit = (int64_t)(CHUNK_BYTES / lay_out(&e, NULL));
  e.chunk = fit < 1 ? 1 : fit < CHUNK_ROWS ? fit : CHUNK_ROWS;
  if (args->n_rows < e.chunk) e.chunk = args->n_rows;
  unsigned char *base = cuda_scratch(e.cuda, SCRATCH_ENCODE, lay_out(&e, NULL), error);
  e.counts = malloc((size_t)e.chunk * sizeof *e.counts);
  int failed = !base ? -1 : !e.counts ? error_memory(error, (size_t)e.chunk * sizeof *e.counts) : 0;
  if (!failed) lay_out(&e, base);
  for (int64_t first = 0; first < args->n_rows && !failed; first += e.chunk)
    failed = encode_chunk(&e, first, args->n_rows - first < e.chunk ? args->n_rows - first : e.chunk, out, error);
  free(e.counts);
  free(e.indices);
  free(e.values);
  return failed;
}
