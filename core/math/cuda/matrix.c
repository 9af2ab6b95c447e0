/* matrix.c: matrices of a file in device memory: rows are outputs, one after the other, in the type they are kept in.
 *
 * A file is sent as it lies, a piece at a time. What lies in it as it is kept goes straight to its place; what lies the other way round, is of
 * another type or has gaps goes through scratch of the device, which turns and converts it. Where there is no room even for that, the
 * host brings it into order, number by number: the obvious path. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define TURNED_LINES 64

struct upload {
  struct cuda_backend *cuda;
  struct cuda_matrix *matrix;
  size_t size; /* of an element as kept */
  struct upload_way *way;
};

static unsigned char *place_of(const struct upload *up, int64_t row, int64_t column) {
  return (unsigned char *)up->matrix->data + ((size_t)row * (size_t)up->matrix->ld + (size_t)column) * up->size;
}

/* ---- as it lies ------------------------------------------------------------------------------------------------------ */

/* Numbers of a file: `lines` of `length` each, `ld` from one to the next. They become rows from `row` on; turned: each a column of
 * the rows from `row` on. */
struct block {
  const unsigned char *data;
  enum dtype dtype;
  bool turned;
  int64_t lines, length, ld, row;
};

/* They lie as they are kept, and without gaps in either place. */
static bool goes_straight(const struct upload *up, const struct block *b, int64_t lines) {
  return !b->turned && b->dtype == up->matrix->base.dtype && (lines == 1 || b->length == up->matrix->ld);
}

static int copy_piece(const struct upload *up, void *to, const void *staged, size_t bytes, struct error *error) {
  cudaError_t status = cudaMemcpyAsync(to, staged, bytes, cudaMemcpyHostToDevice, cudaStreamPerThread);
  return cuda_check(up->cuda, status, "writing a matrix", error);
}

/* Numbers [at, at + length) of lines [line, line + lines): 1; 0: there is no scratch to arrange them in. */
static int send_piece(const struct upload *up, const struct block *b, int64_t line, int64_t lines, int64_t at, int64_t length,
                      struct error *error) {
  size_t size = dtype_size(b->dtype), bytes = (size_t)lines * (size_t)length * size;
  bool straight = goes_straight(up, b, lines);
  struct upload_stage *stage = upload_stage(up->cuda, up->way, error);
  if (!stage) return -1;
  unsigned char *place = b->turned ? place_of(up, b->row + at, line) : place_of(up, b->row + line, at);
  unsigned char *to = straight ? place : upload_scratch(up->cuda, up->way, stage);
  if (!to) return 0;
  upload_fill(up->way, stage->host, b->data + ((size_t)line * (size_t)b->ld + (size_t)at) * size, (size_t)lines, (size_t)length * size,
              (size_t)b->ld * size);
  if (copy_piece(up, to, stage->host, bytes, error) != 0) return -1;
  struct arrange_args args = {.from = to, .lines = lines, .length = length, .from_dtype = (int32_t)b->dtype,
                              .to_dtype = (int32_t)up->matrix->base.dtype, .turned = b->turned, .to = place, .ld = up->matrix->ld};
  if (!straight && cuda_check(up->cuda, launch_arrange(cudaStreamPerThread, &args), "arranging a matrix", error) != 0) return -1;
  return upload_sent(up->cuda, stage, error) != 0 ? -1 : 1;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* As many lines at a time as there is room for, or a part of one. Lines that are turned come together, so that what they become is
 * whole pieces of the rows. */
static int send_block(const struct upload *up, const struct block *b, struct error *error) {
  int64_t most = (int64_t)(up->way->bytes / dtype_size(b->dtype)), together = b->turned ? least(b->lines, TURNED_LINES) : 1;
  int64_t length = least(b->length, most / together), lines = length < b->length ? together : least(b->lines, most / length);
  for (int64_t line = 0; line < b->lines; line += lines)
    for (int64_t at = 0; at < b->length; at += length) {
      int sent = send_piece(up, b, line, least(lines, b->lines - line), at, least(length, b->length - at), error);
      if (sent != 1) return sent;
    }
  return 1;
}

/* Run by run, where outputs come in runs. */
static int send_as_it_lies(const struct upload *up, const struct matrix_part *part, int64_t row, struct error *error) {
  int64_t run = part->run ? part->run : part->n_out, n_in = up->matrix->base.n_in;
  bool turned = part->layout == ROWS_ARE_INPUTS;
  for (int64_t out = 0; out < part->n_out; out += run) {
    int64_t n = least(run, part->n_out - out);
    struct block b = {(const unsigned char *)part->data + (size_t)part_element(part, out, 0) * dtype_size(part->dtype), part->dtype, turned,
                      turned ? n_in : n, turned ? n : n_in, part->ld, row + out};
    int sent = send_block(up, &b, error);
    if (sent != 1) return sent;
  }
  return 1;
}

/* ---- brought into order by the host ------------------------------------------------------------------------------------ */

static void put_element(unsigned char *at, enum dtype dtype, float value) {
  uint16_t half = dtype == DTYPE_F16 ? f32_to_f16(value) : f32_to_bf16(value);
  if (dtype == DTYPE_F32)
    memcpy(at, &value, sizeof value);
  else
    memcpy(at, &half, sizeof half);
}

static void fetch_element(const struct upload *up, const struct matrix_part *part, int64_t out, int64_t in, unsigned char *to) {
  const unsigned char *from = (const unsigned char *)part->data + (size_t)part_element(part, out, in) * dtype_size(part->dtype);
  if (part->dtype == up->matrix->base.dtype)
    memcpy(to, from, up->size);
  else
    put_element(to, up->matrix->base.dtype, dtype_f32_at(from, part->dtype, 0));
}

static int send_in_order(const struct upload *up, const struct matrix_part *part, int64_t row, struct error *error) {
  size_t line = (size_t)up->matrix->ld * up->size;
  int64_t together = (int64_t)(up->way->bytes / line), n;
  for (int64_t begin = 0; begin < part->n_out; begin += n) {
    struct upload_stage *stage = upload_stage(up->cuda, up->way, error);
    if (!stage) return -1;
    n = least(together, part->n_out - begin);
    memset(stage->host, 0, (size_t)n * line);
    for (int64_t out = 0; out < n; out++)
      for (int64_t in = 0; in < up->matrix->base.n_in; in++)
        fetch_element(up, part, begin + out, in, stage->host + (size_t)out * line + (size_t)in * up->size);
    if (copy_piece(up, place_of(up, row + begin, 0), stage->host, (size_t)n * line, error) != 0 ||
        upload_sent(up->cuda, stage, error) != 0)
      return -1;
  }
  return 0;
}

/* ---- matrices ------------------------------------------------------------------------------------------------------------ */

static int send_part(const struct upload *up, const struct matrix_part *part, int64_t row, struct error *error) {
  int sent = send_as_it_lies(up, part, row, error);
  return sent ? sent < 0 ? -1 : 0 : send_in_order(up, part, row, error);
}

static int send_parts(struct upload *up, const struct matrix_part *parts, int n_parts, struct error *error) {
  size_t line = (size_t)up->matrix->ld * up->size;
  int64_t row = 0;
  int failed = 0;
  up->way = upload_begin(up->cuda, up->matrix->base.bytes, line, error);
  if (!up->way) return -1;
  for (int i = 0; i < n_parts && !failed; row += parts[i++].n_out) failed = send_part(up, &parts[i], row, error);
  return upload_end(up->cuda, up->way, failed ? NULL : error) != 0 ? -1 : failed;
}

static int make_room(struct cuda_backend *cuda, struct cuda_matrix *matrix, struct error *error) {
  size_t row;
  matrix->ld = (int64_t)size_round_up((size_t)matrix->base.n_in, 8);
  if (!checked_mul((size_t)matrix->ld, dtype_size(matrix->base.dtype), &row) ||
      !checked_mul(row, (size_t)matrix->base.n_out, &matrix->base.bytes))
    return error_memory(error, SIZE_MAX);
  int failed = matrix->lent ? cuda_lend(cuda, matrix->base.bytes, &matrix->data, error)
                            : cuda_take(cuda, matrix->base.bytes, &matrix->data, error);
  if (failed) return -1;
  if (matrix->ld == matrix->base.n_in) return 0;
  return cuda_check(cuda, cudaMemsetAsync(matrix->data, 0, matrix->base.bytes, cudaStreamPerThread), "clearing a matrix", error);
}

int cuda_matrix_new_as(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                       const struct matrix_wish *wish, struct matrix **out, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  assert(1 <= n_parts && n_parts <= MATRIX_MAX_PARTS && n_in > 0);
  if (wish->dtype == DTYPE_Q8)
    return error_set(error, ERROR_UNSUPPORTED, "weights are kept in 8 bits on the processor alone; a CUDA device keeps f32, f16 and bf16");
  struct cuda_matrix *matrix = calloc(1, sizeof *matrix);
  if (!matrix) return error_memory(error, sizeof *matrix);
  matrix->base = parts_describe(parts, n_parts, n_in, wish->dtype);
  matrix->lent = wish->passing;
  struct upload up = {.cuda = cuda, .matrix = matrix, .size = dtype_size(matrix->base.dtype)};
  if (cuda_enter(cuda, error) != 0 || make_room(cuda, matrix, error) != 0 || send_parts(&up, parts, n_parts, error) != 0) {
    cuda_matrix_free(backend, &matrix->base);
    return -1;
  }
  *out = &matrix->base;
  return 0;
}

int cuda_matrix_new(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                    struct matrix **out, struct error *error) {
  static const struct matrix_wish plain = {.dtype = DTYPE_OTHER};
  return cuda_matrix_new_as(backend, parts, n_parts, n_in, &plain, out, error);
}

void cuda_matrix_free(struct backend *backend, struct matrix *matrix) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  struct cuda_matrix *own = (struct cuda_matrix *)matrix;
  if (!matrix) return;
  if (own->lent) {
    (void)cuda_choose(cuda);
    cuda_give_back(cuda, own->data);
  } else if (!atomic_load(&cuda->hung)) {
    (void)cuda_choose(cuda);
    /* The worker's step may still read it; what failed is told by whatever it asks for next. */
    bool over = cuda_stream(cuda) != cuda->stream || !cuda->in_flight || cuda_wait(cuda, NULL) == 0;
    (void)over;
    cudaFree(own->data);
  }
  free(matrix);
}

struct device_matrix cuda_matrix_view(const struct matrix *matrix) {
  const struct cuda_matrix *w = (const struct cuda_matrix *)matrix;
  return (struct device_matrix){w->data, matrix->n_out, matrix->n_in, w->ld, (int32_t)matrix->dtype};
}
