/* matrix.c: matrices of a file in device memory: rows are outputs, one after the other, in the type they are kept in.
 *
 * What lies so in the file is copied as it is; all else is brought into order on the host, some rows at a time. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define STAGE_BYTES ((size_t)32 << 20)
#define TILE 64 /* outputs and inputs of a square that is turned in the caches */

struct upload {
  struct cuda_backend *cuda;
  struct cuda_matrix *matrix;
  size_t size; /* of an element as kept */
  unsigned char *stage;
  int64_t stage_rows;
};

static void put_element(unsigned char *at, enum dtype dtype, float value) {
  uint16_t half = dtype == DTYPE_F16 ? f32_to_f16(value) : f32_to_bf16(value);
  if (dtype == DTYPE_F32)
    memcpy(at, &value, sizeof value);
  else
    memcpy(at, &half, sizeof half);
}

static void fetch_element(const struct upload *up, const struct matrix_part *part, int64_t out, int64_t in, unsigned char *to) {
  const unsigned char *from = (const unsigned char *)part->data + (size_t)part_element(part, out, in) * dtype_size(part->dtype);
  if (part->dtype != up->matrix->base.dtype)
    put_element(to, up->matrix->base.dtype, dtype_f32_at(from, part->dtype, 0));
  else if (up->size == 4)
    memcpy(to, from, 4);
  else
    memcpy(to, from, 2);
}

/* Outputs [begin, end) of a part, in order, into the stage. */
static void stage_rows(const struct upload *up, const struct matrix_part *part, int64_t begin, int64_t end) {
  int64_t n_in = up->matrix->base.n_in;
  size_t row = (size_t)up->matrix->ld * up->size;
  memset(up->stage, 0, (size_t)(end - begin) * row);
  for (int64_t o = begin; o < end; o += TILE)
    for (int64_t i = 0; i < n_in; i += TILE)
      for (int64_t out = o; out < o + TILE && out < end; out++)
        for (int64_t in = i; in < i + TILE && in < n_in; in++)
          fetch_element(up, part, out, in, up->stage + (size_t)(out - begin) * row + (size_t)in * up->size);
}

/* Rows of the matrix from row `at` on, each `pitch` bytes after the last. */
static int send_rows(const struct upload *up, int64_t at, const void *from, size_t pitch, int64_t rows, struct error *error) {
  size_t row = (size_t)up->matrix->ld * up->size;
  unsigned char *to = (unsigned char *)up->matrix->data + (size_t)at * row;
  size_t width = (size_t)up->matrix->base.n_in * up->size;
  enum cudaMemcpyKind kind = cudaMemcpyHostToDevice;
  cudaError_t status = pitch == row && width == row /* the driver need not find out that rows leave no gaps */
                           ? cudaMemcpyAsync(to, from, row * (size_t)rows, kind, cudaStreamPerThread)
                           : cudaMemcpy2DAsync(to, row, from, pitch, width, (size_t)rows, kind, cudaStreamPerThread);
  if (cuda_check(up->cuda, status, "writing a matrix", error) != 0) return -1;
  return cuda_check(up->cuda, cudaStreamSynchronize(cudaStreamPerThread), "writing a matrix", error);
}

static int make_stage(struct upload *up, struct error *error) {
  size_t row = (size_t)up->matrix->ld * up->size;
  if (up->stage) return 0;
  up->stage_rows = (int64_t)size_max(TILE, STAGE_BYTES / row / TILE * TILE);
  up->stage = malloc((size_t)up->stage_rows * row);
  return up->stage ? 0 : error_memory(error, (size_t)up->stage_rows * row);
}

static int send_part(struct upload *up, const struct matrix_part *part, int64_t at, struct error *error) {
  if (part->layout == ROWS_ARE_OUTPUTS && part->dtype == up->matrix->base.dtype && !part->run)
    return send_rows(up, at, part->data, (size_t)part->ld * up->size, part->n_out, error);
  if (make_stage(up, error) != 0) return -1;
  for (int64_t begin = 0; begin < part->n_out; begin += up->stage_rows) {
    int64_t end = begin + up->stage_rows < part->n_out ? begin + up->stage_rows : part->n_out;
    stage_rows(up, part, begin, end);
    if (send_rows(up, at + begin, up->stage, (size_t)up->matrix->ld * up->size, end - begin, error) != 0) return -1;
  }
  return 0;
}

static int make_room(struct cuda_backend *cuda, struct cuda_matrix *matrix, struct error *error) {
  size_t row;
  matrix->ld = (int64_t)size_round_up((size_t)matrix->base.n_in, 8);
  if (!checked_mul((size_t)matrix->ld, dtype_size(matrix->base.dtype), &row) ||
      !checked_mul(row, (size_t)matrix->base.n_out, &matrix->base.bytes))
    return error_memory(error, SIZE_MAX);
  if (cuda_take(cuda, matrix->base.bytes, &matrix->data, error) != 0) return -1;
  if (matrix->ld == matrix->base.n_in) return 0;
  return cuda_check(cuda, cudaMemsetAsync(matrix->data, 0, matrix->base.bytes, cudaStreamPerThread), "clearing a matrix", error);
}

int cuda_matrix_new_as(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                       const struct matrix_wish *wish, struct matrix **out, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  assert(1 <= n_parts && n_parts <= MATRIX_MAX_PARTS && n_in > 0);
  struct cuda_matrix *matrix = calloc(1, sizeof *matrix);
  if (!matrix) return error_memory(error, sizeof *matrix);
  matrix->base = parts_describe(parts, n_parts, n_in, wish->dtype);
  struct upload up = {.cuda = cuda, .matrix = matrix, .size = dtype_size(matrix->base.dtype)};
  int failed = cuda_enter(cuda, error) != 0 || make_room(cuda, matrix, error) != 0 ? -1 : 0;
  int64_t at = 0;
  for (int i = 0; i < n_parts && !failed; at += parts[i++].n_out) failed = send_part(&up, &parts[i], at, error);
  free(up.stage);
  if (failed) {
    cuda_matrix_free(backend, &matrix->base);
    return -1;
  }
  *out = &matrix->base;
  return 0;
}

int cuda_matrix_new(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                    struct matrix **out, struct error *error) {
  static const struct matrix_wish plain = {DTYPE_OTHER, false};
  return cuda_matrix_new_as(backend, parts, n_parts, n_in, &plain, out, error);
}

void cuda_matrix_free(struct backend *backend, struct matrix *matrix) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (!matrix) return;
  cudaSetDevice(cuda->device);
  /* The worker's step may still read it; what failed is told by whatever it asks for next. */
  bool over = cuda_stream(cuda) != cuda->stream || !cuda->in_flight || cuda_wait(cuda, NULL) == 0;
  (void)over;
  cudaFree(((struct cuda_matrix *)matrix)->data);
  free(matrix);
}

struct device_matrix cuda_matrix_view(const struct matrix *matrix) {
  const struct cuda_matrix *w = (const struct cuda_matrix *)matrix;
  return (struct device_matrix){w->data, matrix->n_out, matrix->n_in, w->ld, (int32_t)matrix->dtype};
}
