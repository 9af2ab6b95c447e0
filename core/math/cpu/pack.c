/* pack.c: matrices of a file into panels (cpu.h), in parallel, and rows back out of them.
 *
 * Knows dtypes only by their size: packing moves elements and never converts them, except for a matrix whose
 * parts differ in dtype, which is kept in f32, and one that is wished in another dtype than its file has, Q8 (blocks.h) among them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"
#include "core/math/cpu/turn.h"

/* A unit of packing: this many panels by this many inputs, so that a file whose rows are inputs is read in runs
 * of 2 KiB and one whose rows are outputs in runs of 2 KiB as well. */
#define UNIT_PANELS 32
#define UNIT_INPUTS 512

struct packing {
  const struct matrix_part *parts;
  int n_parts;
  struct cpu_matrix *matrix;
  unsigned char *data;
};

/* Where an output comes from. */
struct origin {
  const struct matrix_part *part;
  int64_t out; /* inside the part */
};

static struct origin find_output(const struct packing *packing, int64_t out) {
  const struct matrix_part *part = packing->parts;
  for (; out >= part->n_out; part++) out -= part->n_out;
  return (struct origin){part, out};
}

static const unsigned char *element(struct origin from, int64_t in) {
  return (const unsigned char *)from.part->data +
         (size_t)part_element(from.part, from.out, in) * dtype_size(from.part->dtype);
}

static void put_element(unsigned char *at, enum dtype dtype, float value) {
  uint16_t half = dtype == DTYPE_F16 ? f32_to_f16(value) : f32_to_bf16(value);
  if (dtype == DTYPE_F32)
    memcpy(at, &value, sizeof value);
  else
    memcpy(at, &half, sizeof half);
}

/* Any panel, one element at a time: those with a tail, or where two parts or two runs of a part meet, or
 * whose dtype changes. */
static void pack_slowly(const struct packing *packing, int64_t panel, int64_t begin, int64_t end) {
  const struct matrix *base = &packing->matrix->base;
  size_t size = dtype_size(base->dtype);
  unsigned char *to = packing->data + (size_t)panel * packing->matrix->panel_bytes;
  for (int lane = 0; lane < LANES && panel * LANES + lane < base->n_out; lane++) {
    struct origin from = find_output(packing, panel * LANES + lane);
    for (int64_t in = begin; in < end; in++) {
      unsigned char *at = to + (size_t)(in * LANES + lane) * size;
      if (from.part->dtype == base->dtype) {
        memcpy(at, element(from, in), size);
      } else {
        put_element(at, base->dtype, dtype_f32_at(element(from, in), from.part->dtype, 0));
      }
    }
  }
}

/* Rows of the file are inputs: sixteen outputs lie side by side. The sizes are constants, so that a line is a
 * few moves and not a call. */
static void pack_columns(struct origin from, size_t size, int64_t begin, int64_t end, unsigned char *to) {
  size_t ld = (size_t)from.part->ld * size;
  const unsigned char *source = element(from, begin);
  to += (size_t)begin * LANES * size;
  if (size == 4)
    for (int64_t in = begin; in < end; in++, source += ld, to += LANES * 4) memcpy(to, source, LANES * 4);
  else
    for (int64_t in = begin; in < end; in++, source += ld, to += LANES * 2) memcpy(to, source, LANES * 2);
}

/* Rows of the file are outputs: sixteen of them are read side by side and turned, a square at a time. */
#if defined(__SSE2__)
static void turn_8x8(const unsigned char *source, size_t ld, unsigned char *to) {
  __m128i row[8], pair[8];
  for (int i = 0; i < 8; i++) row[i] = _mm_loadu_si128((const __m128i *)(const void *)(source + (size_t)i * ld));
  for (int i = 0; i < 4; i++) { /* rows 2i, 2i + 1 woven: columns 0..3, columns 4..7 */
    pair[i] = _mm_unpacklo_epi16(row[2 * i], row[2 * i + 1]);
    pair[i + 4] = _mm_unpackhi_epi16(row[2 * i], row[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 4) { /* four rows woven: columns i, i + 1 and i + 2, i + 3 of each half */
    __m128i low = _mm_unpacklo_epi32(pair[i], pair[i + 1]), high = _mm_unpackhi_epi32(pair[i], pair[i + 1]);
    __m128i low2 = _mm_unpacklo_epi32(pair[i + 2], pair[i + 3]), high2 = _mm_unpackhi_epi32(pair[i + 2], pair[i + 3]);
    __m128i *out = (__m128i *)(void *)(to + (size_t)i * LANES * 2);
    _mm_store_si128(out, _mm_unpacklo_epi64(low, low2)); /* a line of 16 halves is two vectors */
    _mm_store_si128(out + 2, _mm_unpackhi_epi64(low, low2));
    _mm_store_si128(out + 4, _mm_unpacklo_epi64(high, high2));
    _mm_store_si128(out + 6, _mm_unpackhi_epi64(high, high2));
  }
}
#endif

static void pack_rows(struct origin from, size_t size, int64_t begin, int64_t end, unsigned char *to) {
  const unsigned char *source = element(from, 0);
  size_t ld = (size_t)from.part->ld * size, line = LANES * size;
  int64_t in = begin;
#if defined(__SSE2__)
  const int square = size == 4 ? 4 : 8;
  for (; in + square <= end; in += square)
    for (int lane = 0; lane < LANES; lane += square)
      if (size == 4)
        turn_4x4((const float *)(const void *)(source + (size_t)lane * ld) + in, ld / size, (float *)(void *)to + in * LANES + lane,
                 LANES);
      else
        turn_8x8(source + (size_t)lane * ld + (size_t)in * size, ld, to + (size_t)in * line + (size_t)lane * size);
#endif
  for (; in < end; in++)
    for (int lane = 0; lane < LANES; lane++)
      memcpy(to + (size_t)in * line + (size_t)lane * size, source + (size_t)lane * ld + (size_t)in * size, size);
}

/* One output's part of a block, n inputs from `in` on; zeros behind the last, so that the counts are constants. */
static void pack_lane(struct origin from, int64_t in, int n, int lane, unsigned char *block) {
  float weights[Q8_INPUTS] = {0};
  size_t stride = from.part->layout == ROWS_ARE_OUTPUTS ? 1 : (size_t)from.part->ld;
  dtype_to_f32(element(from, in), from.part->dtype, stride, (size_t)n, weights);
  uint16_t half = q8_scale(weights, Q8_INPUTS);
  float scale = f16_to_f32(half);
  int8_t numbers[Q8_INPUTS];
  memcpy(block + lane * 2, &half, sizeof half);
  for (int k = 0; k < Q8_INPUTS; k++) numbers[k] = q8_number(weights[k], scale);
  for (int k = 0; k < Q8_INPUTS; k++) block[(2 + k) * LANES + lane] = (unsigned char)numbers[k];
}

/* begin: a multiple of Q8_INPUTS, as the units' are. */
static void pack_blocks(const struct packing *packing, int64_t panel, int64_t begin, int64_t end) {
  const struct cpu_matrix *matrix = packing->matrix;
  unsigned char *to = packing->data + (size_t)panel * matrix->panel_bytes;
  for (int lane = 0; lane < LANES && panel * LANES + lane < matrix->base.n_out; lane++) {
    struct origin from = find_output(packing, panel * LANES + lane);
    for (int64_t in = begin; in < end; in += Q8_INPUTS)
      pack_lane(from, in, end - in < Q8_INPUTS ? (int)(end - in) : Q8_INPUTS, lane, to + (size_t)(in / Q8_INPUTS) * Q8_BLOCK);
  }
}

/* Sixteen outputs from here on lie side by side in the file. */
static bool is_whole(struct origin from) {
  int64_t run = from.part->run;
  return from.out + LANES <= from.part->n_out && (!run || from.out % run + LANES <= run);
}

static void pack_panel(const struct packing *packing, int64_t panel, int64_t begin, int64_t end) {
  const struct cpu_matrix *matrix = packing->matrix;
  struct origin from = find_output(packing, panel * LANES);
  size_t size = dtype_size(matrix->base.dtype);
  unsigned char *to = packing->data + (size_t)panel * matrix->panel_bytes;
  if (matrix->base.dtype == DTYPE_Q8)
    pack_blocks(packing, panel, begin, end);
  else if (!is_whole(from) || from.part->dtype != matrix->base.dtype)
    pack_slowly(packing, panel, begin, end);
  else if (from.part->layout == ROWS_ARE_INPUTS)
    pack_columns(from, size, begin, end, to);
  else
    pack_rows(from, size, begin, end, to);
}

/* Inputs are taken 32 at a time across the panels of a unit where rows are inputs, so that their rows stay in
 * the cache from panel to panel. */
static void pack_unit(const struct packing *packing, int64_t panel, int64_t n_panels, int64_t begin, int64_t end) {
  int64_t step = find_output(packing, panel * LANES).part->layout == ROWS_ARE_INPUTS ? 32 : UNIT_INPUTS;
  for (int64_t in = begin; in < end; in += step)
    for (int64_t p = panel; p < panel + n_panels; p++)
      pack_panel(packing, p, in, in + step < end ? in + step : end);
}

/* Units lie in a grid: across the panels, down the inputs. */
static size_t units_down(const struct packing *packing) {
  return (size_t)((packing->matrix->base.n_in + UNIT_INPUTS - 1) / UNIT_INPUTS);
}

static size_t count_units(const struct packing *packing) {
  return (size_t)((packing->matrix->n_panels + UNIT_PANELS - 1) / UNIT_PANELS) * units_down(packing);
}

static void pack_one(const struct packing *packing, size_t unit) {
  int64_t n_panels = packing->matrix->n_panels, n_in = packing->matrix->base.n_in;
  size_t down = units_down(packing);
  int64_t panel = (int64_t)(unit / down) * UNIT_PANELS, in = (int64_t)(unit % down) * UNIT_INPUTS;
  pack_unit(packing, panel, panel + UNIT_PANELS < n_panels ? UNIT_PANELS : n_panels - panel, in,
            in + UNIT_INPUTS < n_in ? in + UNIT_INPUTS : n_in);
}

static void pack_work(struct pool_worker *worker, void *context) {
  const struct packing *packing = context;
  size_t unit, end;
  while (pool_take(worker, count_units(packing), 1, &unit, &end)) pack_one(packing, unit);
}

/* Bytes from panel to panel. Panels that lie a multiple of 2 KiB apart would fall into the same few sets of a
 * cache when several are read side by side; one line more spreads them. */
static int size_panels(struct cpu_matrix *matrix, size_t *bytes, struct error *error) {
  size_t panel, inputs = (size_t)matrix->base.n_in;
  if (matrix->base.dtype == DTYPE_Q8) inputs = size_round_up(inputs, Q8_INPUTS);
  matrix->n_panels = (matrix->base.n_out + LANES - 1) / LANES;
  if (!checked_mul(inputs, panel_line(matrix->base.dtype), &panel) || panel > SIZE_MAX / 4)
    return error_memory(error, SIZE_MAX);
  panel = size_round_up(panel, 64);
  if (panel % 2048 == 0) panel += 64;
  matrix->panel_bytes = panel;
  if (!checked_mul((size_t)matrix->n_panels, panel, bytes)) return error_memory(error, SIZE_MAX);
  return 0;
}

int cpu_matrix_new_as(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                      const struct matrix_wish *wish, struct matrix **out, struct error *error) {
  assert(1 <= n_parts && n_parts <= MATRIX_MAX_PARTS && n_in > 0);
  struct cpu_matrix *matrix = calloc(1, sizeof *matrix);
  if (!matrix) return error_memory(error, sizeof *matrix);
  size_t bytes = 0;
  matrix->base = parts_describe(parts, n_parts, n_in, wish->dtype);
  if (size_panels(matrix, &bytes, error) != 0 || host_alloc(backend, bytes, &matrix->memory, error) != 0) {
    free(matrix);
    return -1;
  }
  struct packing packing = {parts, n_parts, matrix, matrix->memory->data};
  if (!wish->aside) pool_run(((struct cpu_backend *)backend)->pool, pack_work, &packing);
  for (size_t unit = 0; wish->aside && unit < count_units(&packing); unit++) pack_one(&packing, unit);
  matrix->data = matrix->memory->data;
  matrix->base.bytes = bytes;
  *out = &matrix->base;
  return 0;
}

int cpu_matrix_new(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                   struct matrix **out, struct error *error) {
  static const struct matrix_wish plain = {.dtype = DTYPE_OTHER};
  return cpu_matrix_new_as(backend, parts, n_parts, n_in, &plain, out, error);
}

void cpu_matrix_free(struct backend *backend, struct matrix *matrix) {
  if (!matrix) return;
  host_free(backend, ((struct cpu_matrix *)matrix)->memory);
  free(matrix);
}

/* Sixteen rows are turned at a time; factors are met on the way. */
void cpu_matrix_write(struct matrix *matrix, int64_t first, int64_t count, const float *rows, const float *factors) {
  const struct cpu_matrix *w = (const struct cpu_matrix *)matrix;
  int64_t n_in = matrix->n_in;
  assert(matrix->dtype == DTYPE_F32 && 0 <= first && first + count <= matrix->n_out);
  for (int64_t row = 0; row < count; row++) {
    float *to = (float *)(void *)(w->memory->data + (size_t)((first + row) / LANES) * w->panel_bytes) + (first + row) % LANES;
    for (int64_t in = 0; in < n_in; in++) to[in * LANES] = rows[row * n_in + in] * factors[row];
  }
}

static float block_weight(const unsigned char *panel, int64_t in, size_t lane) {
  const unsigned char *block = panel + (size_t)(in / Q8_INPUTS) * Q8_BLOCK;
  return (float)(int8_t)block[(size_t)(2 + in % Q8_INPUTS) * LANES + lane] * dtype_f32_at(block, DTYPE_F16, lane);
}

void cpu_matrix_row(const struct matrix *matrix, int64_t out, float scale, float *row) {
  const struct cpu_matrix *w = (const struct cpu_matrix *)matrix;
  assert(0 <= out && out < matrix->n_out);
  const unsigned char *panel = w->data + (size_t)(out / LANES) * w->panel_bytes;
  size_t lane = (size_t)(out % LANES);
  for (int64_t k = 0; k < matrix->n_in; k++)
    row[k] = (matrix->dtype == DTYPE_Q8 ? block_weight(panel, k, lane) : dtype_f32_at(panel, matrix->dtype, (size_t)k * LANES + lane)) * scale;
}
