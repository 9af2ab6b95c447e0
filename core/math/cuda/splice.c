/* splice.c: dictionaries inside a step: rows are encoded, their codes changed and decoded, and nothing of it leaves the device. */
#include "core/math/cuda/encode.h"

int cuda_hold(struct cuda_backend *cuda, const struct table *table, const struct op *op, struct error *error) {
  struct hold_args args = {{table, op->u.splice.group, 0}, device_rows_of(op->u.splice.x), device_rows_of(op->u.splice.y), op->width};
  return cuda_check(cuda, launch_hold(cuda->stream, op->u.splice.rows, &args), "putting rows aside", error);
}

int cuda_put(struct cuda_backend *cuda, const struct table *table, const struct op *op, struct error *error) {
  struct put_args args = {{table, op->u.splice.group, 0}, device_rows_of(op->u.splice.x), device_rows_of(op->u.splice.y), op->width};
  return cuda_check(cuda, launch_put(cuda->stream, op->u.splice.rows, &args), "putting rows in their places", error);
}

static int decode(const struct encoding *e, const struct op *op, int64_t first, int64_t rows, struct error *error) {
  const struct splice *what = op->u.splice.what;
  struct group_rows of = {e->of.table, e->of.group, (int32_t)first};
  struct decode_args args = {.of = of, .start = e->choose.start, .index = e->choose.index, .value = e->choose.value,
                             .w = cuda_matrix_view(what->decoder), .factor = span_floats(what->factor),
                             .bias = span_floats(what->bias), .frame = e->frame, .skip = e->skip,
                             .d_out = what->d_out, .apart = what->apart, .y = device_rows_of(op->u.splice.y)};
  return cuda_check(e->cuda, launch_decode(e->cuda->stream, rows, &args), "decoding rows", error);
}

/* The linear path beside the features, of the rows that were read as they were. */
static int skip(const struct encoding *e, const struct splice *what, int64_t rows, struct error *error) {
  if (!what->skip) return 0;
  struct product_args args = {.n = rows, .w = cuda_matrix_view(what->skip), .x = {e->raw, what->skip->n_in},
                              .y = {e->skip, what->skip->n_out}, .room = (int32_t)rows};
  return cuda_product(e->cuda, rows, &args, (struct narrow_x){SCRATCH_NARROW, false}, error);
}

int cuda_splice(struct cuda_backend *cuda, const struct table *table, const struct op *op, struct error *error) {
  const struct splice *what = op->u.splice.what;
  struct encode_args args = what->encode;
  args.x = op->u.splice.x;
  args.n_rows = op->u.splice.rows;
  struct encoding e = {.cuda = cuda, .args = &args, .of = {table, op->u.splice.group, 0}, .framed = what->framed || what->keeps_mean,
                       .expected = SIZE_MAX}; /* all of them in one part */
  if (what->keeps_mean) {
    e.kept = device_rows_of(op->u.splice.y);
    e.kept_width = what->d_out;
  }
  if (what->skip) e.skip_width = what->skip->n_out;
  if (encoding_open(&e, error) != 0) return -1;
  for (int64_t first = 0; first < args.n_rows; first += e.chunk) {
    int64_t rows = args.n_rows - first < e.chunk ? args.n_rows - first : e.chunk;
    if (encoding_run(&e, first, rows, error) != 0 || skip(&e, what, rows, error) != 0 ||
        decode(&e, op, first, rows, error) != 0) return -1;
  }
  return 0;
}
