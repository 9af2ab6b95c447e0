/* encode.c: sparse codes of rows, some rows at a time: centred, multiplied and chosen from on the device; what was kept comes back
 * packed.
 *
 * In the usual case one copy and one wait: where the entries of each row begin and as many entries as are expected lie in one
 * block. Only where more was kept a second copy brings the rest. */
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/encode.h"

#define CHUNK_ROWS 256
#define CHUNK_BYTES ((size_t)256 << 20) /* and no more scratch than this, unless one row needs it */
#define FIRST_ENTRIES ((size_t)512 << 10) /* at most, with the beginnings of rows: 4 MiB, which take 80 us on a bus of 50 GB/s */
#define LEAST_EXPECTED 64                 /* entries of a row */

static void *cut(unsigned char *base, size_t *used, size_t bytes) {
  void *at = base ? base + *used : NULL;
  *used += size_round_up(bytes, 256);
  return at;
}

static bool multiplied_as_is(const struct encode_args *args) {
  return args->norm == ENCODE_NORM_NONE && !args->center_mean && !args->subtract.memory;
}

/* The most that can be kept of a row. */
static size_t most_entries(const struct encode_args *args) {
  size_t features = (size_t)args->w->n_out;
  bool bounded = args->kind == ENCODE_TOPK || args->kind == ENCODE_GROUPMAX;
  return bounded ? size_min((size_t)args->k, features) : features;
}

static size_t lay_out(struct encoding *e, unsigned char *base) {
  size_t used = 0, rows = (size_t)e->chunk, features = rows * (size_t)e->ld;
  size_t first = rows * size_min(e->expected, most_entries(e->args));
  size_t more = rows * most_entries(e->args) - first;
  struct choose_args *c = &e->choose;
  c->start = cut(base, &used, (rows + 1) * sizeof *c->start);
  c->index = cut(base, &used, first * sizeof *c->index);
  c->value = cut(base, &used, first * sizeof *c->value);
  e->back_bytes = used;
  c->first = (int64_t)first;
  c->more_index = cut(base, &used, more * sizeof *c->more_index);
  c->more_value = cut(base, &used, more * sizeof *c->more_value);
  c->counters = cut(base, &used, rows * (size_t)c->n_counters * sizeof *c->counters);
  c->counts = cut(base, &used, rows * (size_t)choose_pieces(c->n_feat) * sizeof *c->counts);
  if (e->framed) e->frame = cut(base, &used, 2 * rows * sizeof *e->frame);
  if (e->skip_width) {
    e->raw = cut(base, &used, rows * (size_t)e->args->w->n_in * sizeof *e->raw);
    e->skip = cut(base, &used, rows * (size_t)e->skip_width * sizeof *e->skip);
  }
  if (e->of.table || !multiplied_as_is(e->args))
    e->centred = cut(base, &used, rows * (size_t)e->args->w->n_in * sizeof *e->centred);
  c->p = cut(base, &used, features * sizeof *c->p);
  c->feature = cut(base, &used, features * sizeof *c->feature);
  if (e->args->kind == ENCODE_TOPK) c->order = cut(base, &used, features * sizeof *c->order);
  return used;
}

static struct choose_args choose_args(const struct encode_args *args, int64_t ld) {
  return (struct choose_args){.ld = ld, .n_feat = args->w->n_out, .kind = (int32_t)args->kind, .k = args->k,
                              .fold_selects = args->fold_selects && args->fold.memory, .bias = span_floats(args->bias),
                              .threshold = span_floats(args->threshold), .fold = span_floats(args->fold),
                              .gain = span_floats(args->gain), .shift = span_floats(args->shift),
                              .n_counters = choose_counters((int32_t)args->kind)};
}

/* The rows [first, first + rows), ready to be multiplied, and the counters of all of them at 0. */
static int centre(struct encoding *e, int64_t first, int64_t rows, struct device_rows *to, struct error *error) {
  const struct encode_args *args = e->args;
  struct cuda_backend *cuda = e->cuda;
  struct group_rows of = {e->of.table, e->of.group, (int32_t)first};
  *to = device_rows_of(args->x);
  if (!of.table) to->at += first * to->ld;
  if (!e->centred) {
    size_t bytes = (size_t)rows * (size_t)e->choose.n_counters * sizeof *e->choose.counters;
    return cuda_check(cuda, cudaMemsetAsync(e->choose.counters, 0, bytes, cuda->stream), "clearing counters", error);
  }
  struct centre_args centre = {.of = of, .x = *to, .to = e->centred, .subtract = span_floats(args->subtract),
                               .width = args->w->n_in, .norm = (int32_t)args->norm, .center_mean = args->center_mean,
                               .scale = args->scale, .counters = e->choose.counters, .n_counters = e->choose.n_counters,
                               .raw = e->raw, .frame = e->frame, .kept = e->kept, .kept_width = e->kept_width};
  *to = (struct device_rows){e->centred, args->w->n_in};
  return cuda_check(cuda, launch_centre(cuda->stream, rows, &centre), "centring rows", error);
}

int encoding_run(struct encoding *e, int64_t first, int64_t rows, struct error *error) {
  const struct encode_args *args = e->args;
  struct product_args product = {.n = rows, .w = cuda_matrix_view(args->w), .y = {e->choose.p, e->ld}, .room = (int32_t)rows};
  struct narrow_x x = {SCRATCH_NARROW, false};
  if (centre(e, first, rows, &product.x, error) != 0 || cuda_product(e->cuda, rows, &product, x, error) != 0) return -1; /* who chooses adds the bias */
  return cuda_check(e->cuda, launch_choose(e->cuda->stream, rows, &e->choose), "choosing features", error);
}

int encoding_open(struct encoding *e, struct error *error) {
  const struct encode_args *args = e->args;
  e->ld = (int64_t)size_round_up((size_t)args->w->n_out, 4);
  e->choose = choose_args(args, e->ld);
  e->chunk = 1;
  int64_t fit = (int64_t)(CHUNK_BYTES / lay_out(e, NULL));
  e->chunk = fit < 1 ? 1 : fit < CHUNK_ROWS ? fit : CHUNK_ROWS;
  if (args->n_rows < e->chunk) e->chunk = args->n_rows;
  unsigned char *base = cuda_scratch(e->cuda, SCRATCH_ENCODE, lay_out(e, NULL), error);
  if (!base) return -1;
  lay_out(e, base);
  return 0;
}

/* ---- the way back ---------------------------------------------------------------------------------------------------------- */

static int make_host_room(struct encoding *e, struct error *error) {
  struct codes_back *codes = &e->cuda->codes;
  if (e->back_bytes <= codes->bytes) return 0;
  cudaFreeHost(codes->host);
  codes->host = NULL;
  codes->bytes = 0;
  void *host = NULL;
  if (cuda_check(e->cuda, cudaMallocHost(&host, e->back_bytes), "taking locked memory", error) != 0) return -1;
  codes->host = host;
  codes->bytes = e->back_bytes;
  return 0;
}

static int fetch(struct encoding *e, const void *from, size_t bytes, struct error *error) {
  if (cuda_check(e->cuda, cudaMemcpyAsync(e->cuda->codes.host, from, bytes, cudaMemcpyDeviceToHost, e->cuda->stream),
                 "reading codes", error) != 0)
    return -1;
  return cuda_wait(e->cuda, error);
}

/* Entries beyond the expected ones, as many bytes at a time as there is room for. */
static int fetch_more(struct encoding *e, const void *from, void *to, size_t bytes, struct error *error) {
  size_t room = e->cuda->codes.bytes;
  for (size_t at = 0; at < bytes; at += room) {
    size_t n = size_min(room, bytes - at);
    if (fetch(e, (const unsigned char *)from + at, n, error) != 0) return -1;
    memcpy((unsigned char *)to + at, e->cuda->codes.host, n);
  }
  return 0;
}

/* What the block holds, at the same places on the host. */
static const void *on_host(const struct encoding *e, const void *at) {
  return e->cuda->codes.host + ((const unsigned char *)at - (const unsigned char *)e->choose.start);
}

static int append(struct encoding *e, int64_t rows, struct sparse *out, struct error *error) {
  const struct choose_args *c = &e->choose;
  const int32_t *start = on_host(e, c->start);
  size_t all = (size_t)start[rows], here = size_min(all, (size_t)c->first), left = all - here;
  if (sparse_room(out, (size_t)rows, all, error) != 0) return -1;
  size_t used = out->start[out->n_rows], *ends = out->start + out->n_rows + 1;
  if (here) memcpy(out->index + used, on_host(e, c->index), here * sizeof *out->index); /* else there may be no room at all yet */
  if (here) memcpy(out->value + used, on_host(e, c->value), here * sizeof *out->value);
  for (int64_t row = 0; row < rows; row++) ends[row] = used + (size_t)start[row + 1];
  used += here;
  if (fetch_more(e, c->more_index, out->index + used, left * sizeof *out->index, error) != 0 ||
      fetch_more(e, c->more_value, out->value + used, left * sizeof *out->value, error) != 0)
    return -1;
  out->n_rows += (size_t)rows;
  e->cuda->codes.expected = (int64_t)(all / (size_t)rows * 5 / 4);
  return 0;
}

static int encode_chunk(struct encoding *e, int64_t first, int64_t rows, struct sparse *out, struct error *error) {
  if (encoding_run(e, first, rows, error) != 0 || fetch(e, e->choose.start, e->back_bytes, error) != 0) return -1;
  return append(e, rows, out, error);
}

static int append_nothing(int64_t rows, struct sparse *out, struct error *error) {
  for (int64_t row = 0; row < rows; row++)
    if (sparse_row(out, 0, error) != 0) return -1;
  return 0;
}

/* Of the k largest all are expected; of what is above thresholds, what there was the last time. */
static size_t expected_entries(const struct cuda_backend *cuda, const struct encode_args *args) {
  size_t most = most_entries(args), usual = size_max((size_t)cuda->codes.expected, LEAST_EXPECTED);
  if (most == (size_t)args->w->n_out) most = size_min(most, usual);
  return size_min(most, FIRST_ENTRIES / (size_t)(args->n_rows < CHUNK_ROWS ? args->n_rows : CHUNK_ROWS));
}

int cuda_encode(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (args->n_rows <= 0) return 0;
  if (cuda_begin(cuda, error) != 0) return -1;
  if (cuda->watch) watch_op(cuda->watch, cuda->stream, "encode", args->n_rows, args->w);
  if (args->kind == ENCODE_TOPK && args->k <= 0) return append_nothing(args->n_rows, out, error);
  struct encoding e = {.cuda = cuda, .args = args, .expected = expected_entries(cuda, args)};
  int failed = encoding_open(&e, error) != 0 || make_host_room(&e, error) != 0 ? -1 : 0;
  for (int64_t first = 0; first < args->n_rows && !failed; first += e.chunk)
    failed = encode_chunk(&e, first, args->n_rows - first < e.chunk ? args->n_rows - first : e.chunk, out, error);
  return failed;
}

void cuda_encode_close(struct cuda_backend *cuda) { cudaFreeHost(cuda->codes.host); }
