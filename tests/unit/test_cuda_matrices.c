/* How the matrices of a file come to the device: whatever lies in it, in whatever order and type, is kept as the formulas of ops.h and
 * dtype.h say, to the bit; the way there gives way to nobody and leaves nothing behind. Needs a library (STEERD_CUDA_LIBRARY): the
 * emulated one for all of it. */
#include <pthread.h>

#include "core/math/host.h"
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

/* ---- what is kept, read back --------------------------------------------------------------------------------------- */

enum { ASKED = 256 }; /* rows at a time */

/* Rows of the matrix as f32: an embedding takes them as they are. */
static void rows_of(struct backend *backend, const struct matrix *matrix, const int32_t *rows, int n, float *out) {
  struct error error = ERROR_INIT;
  struct span to = must_alloc(backend, (size_t)n * (size_t)matrix->n_in);
  struct op op = {.code = OP_BEGIN, .set = ROWS_ARRIVING, .width = matrix->n_in,
                  .u.begin = {.to = {to, matrix->n_in}, .embed = matrix, .embed_scale = 1}};
  int32_t zero[ASKED] = {0};
  uint8_t origin[ASKED] = {0};
  struct step_slot slot = {{0, n}, 0, 0, 1};
  struct row_range all[2] = {{0, n}, {0, n}};
  struct step step = {.n_layer = 1, .n_rows = n, .token = rows, .position = zero, .origin = origin, .source = zero, .n_slots = 1,
                      .slots = &slot, .active = all, .arriving = all};
  if (backend->ops->run(backend, &op, 1, &step, &error) != 0) fail_msg("%s", error.text);
  must_read(backend, out, to, (size_t)n * (size_t)matrix->n_in);
  drop(backend, to);
}

/* ---- files of random bits ---------------------------------------------------------------------------------------------- */

static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

static uint32_t word(uint64_t stream, uint64_t i) { return (uint32_t)(random_unit(11, stream, i) * 4294967296.0); }
static int64_t up_to(uint64_t stream, uint64_t i, int64_t most) { return 1 + (int64_t)(random_unit(12, stream, i) * (double)most); }

/* What conversions may stumble over: subnormals, ties, what rounds up to the next power of two or out of the range, infinities, NaN. */
static uint32_t hard_bits(uint64_t stream, uint64_t i) {
  static const uint32_t hard[] = {0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x33000000,
                                  0x33000001, 0x33800000, 0x387FC000, 0x387FE000, 0x38000000, 0x3F808000, 0x3F818000, 0x3F801000, 0x3F803000,
                                  0x7F7FFFFF, 0x00000001, 0x3F7FFFFF};
  uint32_t bits = word(stream, i);
  if (bits % 4 == 0) return hard[bits / 4 % (sizeof hard / sizeof *hard)];
  return bits % 4 == 1 ? word(stream, ~i) : 0x38000000 + bits % 0x0F000000; /* mostly within the range of f16 */
}

struct source {
  unsigned char *block;
  struct matrix_part part;
};

/* Unaligned, with gaps between lines and runs that hold NaN. */
static struct source source_new(enum dtype dtype, enum matrix_layout layout, int64_t n_out, int64_t n_in, int64_t run, int64_t gap,
                                uint64_t stream) {
  size_t size = dtype_size(dtype);
  int64_t together = run ? run : n_out, lines = layout == ROWS_ARE_OUTPUTS ? together : n_in;
  int64_t ld = (layout == ROWS_ARE_OUTPUTS ? n_in : together) + gap, stride = run ? lines * ld + gap : 0, runs = run ? (n_out + run - 1) / run : 1;
  size_t count = (size_t)((runs - 1) * stride + lines * ld);
  struct source s = {malloc(count * size + 1), {.dtype = dtype, .layout = layout, .n_out = n_out, .ld = ld, .run = run, .run_stride = stride}};
  s.part.data = s.block + 1;
  memset(s.block, 0xFF, count * size + 1);
  for (int64_t out = 0; out < n_out; out++)
    for (int64_t in = 0; in < n_in; in++) {
      uint32_t bits = hard_bits(stream, (uint64_t)(out * n_in + in));
      float value;
      memcpy(&value, &bits, 4);
      uint16_t half = dtype == DTYPE_F16 ? f32_to_f16(value) : f32_to_bf16(value);
      if (bits % 64 == 5) half = dtype == DTYPE_F16 ? bits >> 16 | 0x7C00 : bits >> 16; /* what no rounding makes: infinities, NaN */
      if (bits % 64 == 6) half = dtype == DTYPE_F16 ? 0x7C00 : 0xFF80;
      memcpy(s.block + 1 + (size_t)part_element(&s.part, out, in) * size, dtype == DTYPE_F32 ? (void *)&bits : (void *)&half, size);
    }
  return s;
}

/* Element (out, in) as it is to be kept. */
static float kept(const struct source *s, enum dtype as, int64_t out, int64_t in) {
  float value = dtype_f32_at(s->part.data, s->part.dtype, (size_t)part_element(&s->part, out, in));
  return as == s->part.dtype ? value : dtype_round(value, as);
}

/* A number is the same in all its bits; NaN is NaN. */
static void check_row(const char *what, const struct source *s, enum dtype as, int64_t out, int64_t n_in, const float *got) {
  for (int64_t in = 0; in < n_in; in++) {
    float want = kept(s, as, out, in);
    bool same = want != want ? got[in] != got[in] : memcmp(&want, &got[in], 4) == 0;
    if (!same)
      fail_msg("%s: %s, %s, run %d, kept as %s: output %d of %d, input %d of %d is %a, not %a", what, dtype_name(s->part.dtype),
               s->part.layout == ROWS_ARE_INPUTS ? "turned" : "as it is", (int)s->part.run, dtype_name(as), (int)out, (int)s->part.n_out,
               (int)in, (int)n_in, (double)got[in], (double)want);
  }
}

static struct matrix *matrix_as(struct backend *backend, const struct source *s, int n, int64_t n_in, enum dtype as) {
  struct matrix_part parts[MATRIX_MAX_PARTS];
  struct matrix_wish wish = {.dtype = as, .passing = n % 2};
  struct matrix *matrix = NULL;
  struct error error = ERROR_INIT;
  for (int i = 0; i < n; i++) parts[i] = s[i].part;
  if (backend->ops->matrix_new_as(backend, parts, n, n_in, &wish, &matrix, &error) != 0) fail_msg("%s", error.text);
  return matrix;
}

/* All of a matrix that has few rows. */
static void check_all(const char *what, struct backend *backend, const struct matrix *matrix, const struct source *s, int n) {
  int64_t first = 0;
  for (int i = 0; i < n; first += s[i++].part.n_out) {
    int32_t rows[ASKED];
    assert_true(s[i].part.n_out <= ASKED);
    for (int32_t row = 0; row < s[i].part.n_out; row++) rows[row] = (int32_t)first + row;
    float *got = malloc((size_t)(s[i].part.n_out * matrix->n_in) * sizeof *got);
    rows_of(backend, matrix, rows, (int)s[i].part.n_out, got);
    for (int64_t row = 0; row < s[i].part.n_out; row++) check_row(what, &s[i], matrix->dtype, row, matrix->n_in, got + row * matrix->n_in);
    free(got);
  }
}

/* ---- small ones of every kind --------------------------------------------------------------------------------------------- */

static void try_one(const char *what, struct backend *backend, uint64_t stream) {
  struct source s[MATRIX_MAX_PARTS];
  int n = (int)up_to(stream, 0, MATRIX_MAX_PARTS);
  int64_t n_in = up_to(stream, 1, stream % 3 ? 150 : 16) * (stream % 5 ? 1 : 8);
  enum dtype as = types[word(stream, 2) % 3];
  for (int i = 0; i < n; i++) {
    int64_t n_out = up_to(stream, 10 + (uint64_t)i, 100), run = word(stream, 20 + (uint64_t)i) % 3 ? 0 : up_to(stream, 30 + (uint64_t)i, n_out);
    s[i] = source_new(types[word(stream, 40 + (uint64_t)i) % 3], word(stream, 50 + (uint64_t)i) % 2 ? ROWS_ARE_INPUTS : ROWS_ARE_OUTPUTS, n_out, n_in,
                      run, word(stream, 60 + (uint64_t)i) % 2 ? 0 : up_to(stream, 70, 9), stream * 8 + (uint64_t)i);
  }
  struct matrix *matrix = matrix_as(backend, s, n, n_in, as);
  check_all(what, backend, matrix, s, n);
  backend->ops->matrix_free(backend, matrix);
  for (int i = 0; i < n; i++) free(s[i].block);
}

static void test_any_order_and_type(void **state) {
  (void)state;
  struct backend *backend = must_open("cuda", 1);
  for (uint64_t stream = 0; stream < 120; stream++) try_one("by the device", backend, stream);
  backend_close(backend);
}

/* Where not even the scratch has room, the host does it: no kernel runs for it, and the bits are the same. */
static void test_by_the_host(void **state) {
  (void)state;
  if (!emulated.order) skip();
  for (uint64_t stream = 0; stream < 12; stream++) {
    struct backend *backend = must_open("cuda", 1);
    struct source s = source_new(types[stream % 3], stream % 2 ? ROWS_ARE_INPUTS : ROWS_ARE_OUTPUTS, 70, 90, stream % 4 ? 0 : 16, 3, stream);
    size_t bytes = 70 * 96 * 4;
    emulated.capacity((size_t)count(BYTES) + bytes);
    long launches = count(LAUNCHES);
    struct matrix *matrix = matrix_as(backend, &s, 1, 90, types[stream / 3 % 3]);
    assert_int_equal(count(LAUNCHES), launches);
    emulated.capacity((size_t)4 << 30);
    check_all("by the host", backend, matrix, &s, 1);
    backend->ops->matrix_free(backend, matrix);
    backend_close(backend);
    free(s.block);
  }
}

/* ---- larger than a stage --------------------------------------------------------------------------------------------------- */

/* Cut between lines and within them. Rows are asked for where pieces may meet, and elsewhere. */
static void test_many_pieces(void **state) {
  (void)state;
  static const struct {
    enum dtype from, as;
    enum matrix_layout layout;
    int64_t n_out, n_in, gap;
  } large[] = {{DTYPE_F32, DTYPE_F32, ROWS_ARE_INPUTS, 40000, 70, 0},   /* an encoder: lines are cut in two */
               {DTYPE_F32, DTYPE_BF16, ROWS_ARE_INPUTS, 5000, 500, 3},
               {DTYPE_BF16, DTYPE_BF16, ROWS_ARE_OUTPUTS, 9000, 504, 0}, /* straight */
               {DTYPE_BF16, DTYPE_BF16, ROWS_ARE_OUTPUTS, 9000, 504, 8},
               {DTYPE_F16, DTYPE_F32, ROWS_ARE_OUTPUTS, 9000, 501, 1},
               {DTYPE_BF16, DTYPE_BF16, ROWS_ARE_OUTPUTS, 3, 4300000, 0}}; /* a line is more than a stage */
  struct backend *backend = must_open("cuda", 1);
  for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
    int64_t n_out = large[i].n_out, n_in = large[i].n_in;
    struct source s = source_new(large[i].from, large[i].layout, n_out, n_in, 0, large[i].gap, 900 + i);
    struct matrix *matrix = matrix_as(backend, &s, 1, n_in, large[i].as);
    int32_t rows[64];
    int n = n_out < 64 ? (int)n_out : 64;
    for (int k = 0; k < n; k++) rows[k] = n < 64 ? k : k < 24 ? (int32_t)(n_out - 1 - k) : (int32_t)(up_to(i, (uint64_t)k, n_out) - 1);
    for (int k = 24; n == 64 && k < 28; k++) rows[k] = 32768 + k - 26 < n_out ? 32768 + k - 26 : 0; /* around the cut of the first */
    float *got = malloc((size_t)n * (size_t)n_in * sizeof *got);
    rows_of(backend, matrix, rows, n, got);
    for (int k = 0; k < n; k++) check_row("in pieces", &s, matrix->dtype, rows[k], n_in, got + k * n_in);
    backend->ops->matrix_free(backend, matrix);
    free(got);
    free(s.block);
  }
  backend_close(backend);
}

/* ---- while others are served ------------------------------------------------------------------------------------------------ */

struct loading {
  struct backend *backend;
  struct source source;
  struct matrix *matrix;
  int64_t n_in;
  enum dtype as;
};

static void *load(void *argument) {
  struct loading *l = argument;
  struct matrix_wish wish = {.dtype = l->as, .aside = true, .passing = true};
  if (l->backend->ops->matrix_new_as(l->backend, &l->source.part, 1, l->n_in, &wish, &l->matrix, NULL) != 0) l->matrix = NULL;
  return NULL;
}

/* Threads load while the worker runs and records steps; each way is one thread's. */
static void test_beside_steps(void **state) {
  (void)state;
  enum { LOADING = 3 };
  struct world *world = world_new("cuda", 1, &small_shape);
  float before[2 * 61], after[2 * 61];
  for (int turn = 0; turn < 4; turn++) {
    struct loading l[LOADING];
    pthread_t threads[LOADING];
    for (int i = 0; i < LOADING; i++) {
      l[i] = (struct loading){world->backend, source_new(DTYPE_F32, i % 2 ? ROWS_ARE_OUTPUTS : ROWS_ARE_INPUTS, 200, 300 + i, 0, 0, (uint64_t)(77 + i)),
                              NULL, 300 + i, types[i]};
      assert_int_equal(pthread_create(&threads[i], NULL, load, &l[i]), 0);
    }
    for (int step = 0; step < 6; step++) {
      world_step(world, (struct step_slot[]){{{0, 1}, 3, 0, 2}, {{1, 2}, 9, 0, 2}}, 1 + (step + turn) % 2);
      world_run(world);
    }
    for (int i = 0; i < LOADING; i++) pthread_join(threads[i], NULL);
    world_step(world, (struct step_slot[]){{{0, 1}, 3, 0, 2}, {{1, 2}, 9, 0, 2}}, 2);
    world_run(world);
    must_read(world->backend, turn ? after : before, world->logits, 2 * 61);
    if (turn) same_bits("beside uploads", after, before, 2 * 61);
    for (int i = 0; i < LOADING; i++) {
      assert_non_null(l[i].matrix);
      check_all("beside steps", world->backend, l[i].matrix, &l[i].source, 1);
      world->backend->ops->matrix_free(world->backend, l[i].matrix);
      free(l[i].source.block);
    }
  }
  world_free(world);
}

/* ---- what comes and goes ---------------------------------------------------------------------------------------------------- */

/* Giving one back waits for nothing; what is kept of it counts as free, and is had by whoever needs it. */
static void test_what_passes(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  struct backend *backend = world->backend;
  struct source s = source_new(DTYPE_F32, ROWS_ARE_OUTPUTS, 256, 4096, 0, 0, 5);
  size_t room, left, total, bytes = (size_t)256 * 4096 * 4;
  struct memory *memory = NULL;
  struct error error = ERROR_INIT;
  world_step(world, (struct step_slot[]){{{0, 1}, 2, 0, 2}}, 1); /* what a step takes is taken */
  world_run(world);
  struct matrix *matrix = matrix_as(backend, &s, 1, 4096, DTYPE_F32);
  backend->ops->matrix_free(backend, matrix);
  assert_int_equal(backend_wait(backend, &error), 0);
  assert_int_equal(backend->ops->room(backend, &room, &total, &error), 0);
  matrix = matrix_as(backend, &s, 1, 4096, DTYPE_F32);
  world_step(world, (struct step_slot[]){{{0, 1}, 3, 0, 2}}, 1);
  world_run(world);
  long waits = count(WAITS);
  backend->ops->matrix_free(backend, matrix);
  assert_int_equal(count(WAITS), waits);
  assert_int_equal(backend_wait(backend, &error), 0);
  assert_int_equal(backend->ops->room(backend, &left, &total, &error), 0);
  assert_int_equal(left, room);
  size_t tight = (size_t)count(BYTES) + bytes * 3 / 2;
  emulated.capacity(tight);
  matrix = matrix_as(backend, &s, 1, 4096, DTYPE_F32); /* its own again */
  backend->ops->matrix_free(backend, matrix);
  assert_int_equal(backend->ops->alloc(backend, bytes, &memory, &error), 0); /* of another pool */
  assert_int_equal(backend->ops->room(backend, &left, &total, &error), 0);
  assert_int_equal(left, 0); /* what is free is for the scratch of uploads */
  matrix = NULL;
  struct matrix_wish wish = {.dtype = DTYPE_F32, .passing = true};
  assert_int_equal(backend->ops->matrix_new_as(backend, &s.part, 1, 4096, &wish, &matrix, &error), -1);
  assert_int_equal(error.code, ERROR_MEMORY);
  assert_non_null(strstr(error.text, "no room for 4 MiB: 2 of"));
  emulated.capacity((size_t)4 << 30);
  backend->ops->free(backend, memory);
  free(s.block);
  world_free(world);
}

/* The processor alone keeps weights in 8 bits: told, and nothing stays behind. */
static void test_eight_bits_are_refused(void **state) {
  (void)state;
  struct backend *backend = must_open("cuda", 1);
  struct source s = source_new(DTYPE_F32, ROWS_ARE_INPUTS, 100, 90, 30, 0, 31);
  struct matrix_wish wish = {.dtype = DTYPE_Q8};
  struct matrix *matrix = NULL;
  struct error error = ERROR_INIT;
  assert_int_equal(backend->ops->matrix_new_as(backend, &s.part, 1, 90, &wish, &matrix, &error), -1);
  assert_int_equal(error.code, ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.text, "f32, f16 and bf16"));
  assert_null(matrix);
  free(s.block);
  backend_close(backend);
}

/* Every call of an upload may fail: the error says so, nothing stays behind, and the next one is right. */
static void test_every_call_may_fail(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct backend *backend = must_open("cuda", 1);
  struct source s = source_new(DTYPE_F32, ROWS_ARE_INPUTS, 100, 90, 30, 0, 31);
  struct matrix_wish wish = {.dtype = DTYPE_BF16, .passing = true};
  int failures = 0;
  for (long calls = 0; calls < 40; calls++) {
    struct error error = ERROR_INIT;
    struct matrix *matrix = NULL;
    emulated.order(calls, 1);
    int failed = backend->ops->matrix_new_as(backend, &s.part, 1, 90, &wish, &matrix, &error);
    emulated.order(0, 0);
    if (failed) assert_int_equal(error.code, ERROR_DEVICE);
    else check_all("after a failure", backend, matrix, &s, 1);
    failures += failed != 0;
    backend->ops->matrix_free(backend, matrix);
  }
  assert_true(failures >= 10);
  backend_close(backend);
  free(s.block);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_any_order_and_type), cmocka_unit_test(test_by_the_host),         cmocka_unit_test(test_many_pieces),
      cmocka_unit_test(test_beside_steps),       cmocka_unit_test(test_what_passes),         cmocka_unit_test(test_eight_bits_are_refused), cmocka_unit_test(test_every_call_may_fail),
      cmocka_unit_test(test_nothing_is_left),
  };
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
