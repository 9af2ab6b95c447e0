/* What the CUDA backend's steps are: recorded and repeated, waited for once, failing with the device. Needs a library
 * (STEERD_CUDA_LIBRARY): the emulated one for all of it, a real one for the first half. Formulas are tested where those of the
 * other backends are, and in test_cuda_*.c. */
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

enum { ILLEGAL_ADDRESS = 700, OUT_OF_MEMORY = 2 };

/* ---- steps that are repeated ------------------------------------------------------------------------------------ */

/* Point tables with one item at `point`. */
static void at_point(int32_t *begin, int point) {
  for (int p = 0; p <= point_count(MAX_LAYERS); p++) begin[p] = p > point;
}

struct scene {
  struct world *world;
  struct span to;
  struct edit_item edit;
  struct tap_item tap;
  int32_t edit_begin[(MAX_LAYERS + 1) * SITE_COUNT + 1], tap_begin[(MAX_LAYERS + 1) * SITE_COUNT + 1];
};

enum { SCENE_ROWS = 5, SCENE_TURNS = 16 };

/* Another bucket in the second half: what was recorded for the first waits. */
static int scene_rows(int turn) { return turn < SCENE_TURNS / 2 ? 3 : SCENE_ROWS; }

/* A step of a decode: sessions at different places, one row each, the second one edited. The third looks back over two chunks of
 * attention; those behind it begin. */
static void play(struct scene *scene, int turn, float *logits, float *tapped) {
  static const enum site edited[] = {SITE_RESID_POST, SITE_ATTN_OUT, SITE_RESID_PRE, SITE_MLP_OUT, SITE_ATTN_Z, SITE_MLP_POST};
  static const int kinds[] = {EDIT_ROW_ADD, EDIT_ROW_SCALE, EDIT_ROW_PROJECT, EDIT_ROW_FILL};
  static const int begin[SCENE_ROWS] = {1, 60, 170, 0, 0};
  struct world *world = scene->world;
  struct step_slot slots[SCENE_ROWS];
  int rows = scene_rows(turn), half = turn % (SCENE_TURNS / 2);
  for (int i = 0; i < rows; i++) slots[i] = (struct step_slot){{i, i + 1}, begin[i] + (i < 3 ? turn : half), 0, 2};
  world_step(world, slots, rows);
  scene->edit = (struct edit_item){.kind = (enum edit_kind)kinds[turn % 4], .rows = {1, 2}, .column_begin = turn % 5,
                                   .column_end = 30, .value = 0.25f * (float)(half + 1), .v = span_at(world->vectors, (size_t)(4 * turn))};
  scene->tap = (struct tap_item){{turn % 2, rows}, span_at(scene->to, (size_t)(turn % 3) * 64), 64};
  at_point(scene->edit_begin, point_index((struct point){turn % 2, edited[turn % 6]}));
  at_point(scene->tap_begin, point_index((struct point){1, SITE_RESID_POST}));
  world->step.edits = &scene->edit;
  world->step.edit_begin = turn % 3 == 2 ? NULL : scene->edit_begin; /* and none at all now and then */
  world->step.taps = &scene->tap;
  world->step.tap_begin = scene->tap_begin;
  world_run(world);
  must_read(world->backend, logits, world->logits, (size_t)(rows * world->shape.vocabulary));
  must_read(world->backend, tapped, scene->tap.to, (size_t)((rows - scene->tap.rows.begin) * 64 - 24));
}

static void scene_open(struct scene *scene, const char *name, const struct shape *shape) {
  scene->world = world_new(name, 1, shape);
  scene->to = must_alloc(scene->world->backend, 64 * (SCENE_ROWS + 3));
  /* a prompt for each session, so that there is something to look back at */
  struct step_slot prompts[3] = {{{0, 1}, 0, 0, 2}, {{1, 61}, 0, 0, 2}, {{61, 231}, 0, 0, 2}};
  world_step(scene->world, prompts, 3);
  world_run(scene->world);
}

static void scene_close(struct scene *scene) {
  drop(scene->world->backend, scene->to);
  world_free(scene->world);
}

/* The same steps on the obvious path and on the device: whatever a recording has kept from an earlier step that it should
 * have read from this one shows as a wrong answer. */
static void compare_scenes(const char *name, const struct shape *shape, double tolerance) {
  struct scene want, got;
  scene_open(&want, "ref", shape);
  scene_open(&got, name, shape);
  for (int turn = 0; turn < SCENE_TURNS; turn++) {
    float a[SCENE_ROWS * 61], b[SCENE_ROWS * 61], tapped[2][SCENE_ROWS * 64] = {{0}};
    play(&want, turn, a, tapped[0]);
    play(&got, turn, b, tapped[1]);
    close_to("logits of a repeated step", b, a, (size_t)(scene_rows(turn) * shape->vocabulary), tolerance);
    for (int row = 0; row < scene_rows(turn) - turn % 2; row++)
      close_to("taps of a repeated step", tapped[1] + 64 * row, tapped[0] + 64 * row, (size_t)shape->d_model, tolerance);
  }
  scene_close(&want);
  scene_close(&got);
}

/* As in test_pass of test_ops.c: two layers of sums of at most 70 terms, values below 10. */
#define PASS_TOLERANCE 2e-4

/* Weights in bf16 and many rows: each product rounds its x to 8 bits, 2^-9 of each term. Terms are summed with mixed signs, so
 * that stays about what it is of a logit (below 3) through the 9 products of two layers. */
#define HALF_TOLERANCE (9 * 3 * 0x1p-9)

static void test_repeated_steps(void **state) {
  (void)state;
  long before = emulated.counts ? count(REPLAYS) : 0;
  compare_scenes("cuda", &small_shape, PASS_TOLERANCE);
  compare_scenes("cuda", &gated_shape, HALF_TOLERANCE);
  compare_scenes("cuda+deterministic", &gated_shape, PASS_TOLERANCE);
  if (emulated.counts) assert_true(count(REPLAYS) - before >= 3 * 8);
}

/* Steps of 36 to 59 rows, all one graph: products of the library in it (of weights of 16 bits: x narrowed, sums finished, or y written as it
 * is) read and write what is this step's. Nodes of the graph. */
static long compare_many_rows(const char *name, const struct shape *shape) {
  struct world *want = world_new("ref", 1, shape), *got = world_new(name, 1, shape);
  float *a = malloc((size_t)(64 * shape->vocabulary) * sizeof *a), *b = malloc((size_t)(64 * shape->vocabulary) * sizeof *b);
  for (int turn = 0, at = 0; turn < 5; turn++) {
    int rows = 36 + turn * 23 % 29;
    struct step_slot slots[] = {{{0, rows - 3}, at, 0, 2}, {{rows - 3, rows}, 3 * turn, 0, 2}};
    at += rows - 3;
    world_step(want, slots, 2);
    world_step(got, slots, 2);
    world_run(want);
    world_run(got);
    must_read(want->backend, a, want->logits, (size_t)(rows * shape->vocabulary));
    must_read(got->backend, b, got->logits, (size_t)(rows * shape->vocabulary));
    close_to(name, b, a, (size_t)(rows * shape->vocabulary), HALF_TOLERANCE);
  }
  world_free(want);
  world_free(got);
  free(a);
  free(b);
  return emulated.counts ? count_launches(NODES) : 0;
}

static void test_products_of_the_library(void **state) {
  (void)state;
  static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F16};
  for (int i = 0; i < 2; i++) {
    struct shape shape = gated_shape;
    long before = emulated.counts ? count(REPLAYS) : 0;
    shape.dtype = dtypes[i];
    long ours = compare_many_rows("cuda", &shape), library = compare_many_rows("cuda+library", &shape);
    if (emulated.counts) assert_true(count(REPLAYS) - before >= 2 * 3 && library >= ours + 2 * 4); /* a sum and its finish, for each product of a layer */
  }
}

/* More kinds of steps than there is room for graphs: the one used longest ago goes, and comes back. */
static void test_many_kinds_of_steps(void **state) {
  (void)state;
  struct world *world = world_new("cuda", 1, &small_shape);
  struct op list[64];
  memcpy(list, world->list, sizeof list);
  float plain[61], again[61];
  for (int kind = 0; kind < 150; kind++) {
    for (int turn = 0; turn < 2; turn++) {
      struct error error = ERROR_INIT;
      world_step(world, (struct step_slot[]){{{0, 1}, 5, 0, 2}}, 1);
      list[world->count - 1].u.linear.soft_cap = kind % 75 ? 1.0f + (float)(kind % 75) : 0; /* another list */
      assert_int_equal(world->backend->ops->run(world->backend, list, world->count, &world->step, &error), 0);
      must_read(world->backend, kind == 0 ? plain : again, world->logits, 61);
    }
    if (kind == 75) same_bits("a step that comes again", again, plain, 61);
  }
  world_free(world);
}

/* ---- one wait a step -------------------------------------------------------------------------------------------------- */

/* A step as the engine makes it, with the vectors of a request that begins, draws, and taps that are read: six calls when it is
 * a repeated one, one of them a wait. Whatever was taken from locked memory too early, or given to another too early, shows as a
 * wrong answer, because the emulator does nothing before it is waited for. */
static void test_one_wait(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  struct backend *backend = world->backend;
  struct span taps = must_alloc(backend, 2 * 64);
  int32_t tap_begin[(MAX_LAYERS + 1) * SITE_COUNT + 1];
  at_point(tap_begin, point_index((struct point){1, SITE_RESID_POST}));
  for (int turn = 0; turn < 6; turn++) {
    struct error error = ERROR_INIT;
    struct tap_item tap = {{0, 2}, taps, 64};
    struct memory *vectors = NULL;
    float three[24], tapped[2 * 64] = {0}, again[2 * 64] = {0}, logits[2 * 61];
    static struct sample_result tokens[2];
    struct sample_draw draws[2] = {{.row = 0, .top_p = 1, .n_likely = -1}, {.row = 1, .top_p = 1, .n_likely = -1}};
    struct step_slot slots[2] = {{{0, 1}, turn, 0, 2}, {{1, 2}, turn, 0, 2}};
    world_step(world, slots, 2);
    for (int i = 0; i < 24; i++) three[i] = (float)(turn + i);
    struct edit_item edit = {.kind = EDIT_ROW_COPY, .rows = {turn % 2, 2}, .column_end = 24, .value = 1};
    world->step.edits = &edit;
    world->step.edit_begin = world->step.tap_begin = tap_begin;
    world->step.taps = &tap;
    long calls = count(CALLS), waits = count(WAITS);
    assert_int_equal(backend->ops->alloc(backend, sizeof three, &vectors, &error), 0);
    edit.v = (struct span){vectors, 0};
    assert_int_equal(backend->ops->write(backend, edit.v, three, sizeof three, &error), 0);
    memset(three, 0xFF, sizeof three); /* the caller's again */
    assert_int_equal(backend->ops->run(backend, world->list, world->count, &world->step, &error), 0);
    assert_int_equal(backend->ops->sample(backend, (struct rows){world->logits, world->shape.vocabulary}, 61, draws, 2, tokens, &error), 0);
    assert_int_equal(backend->ops->fetch(backend, taps, 2 * 64 * sizeof(float), &error), 0);
    backend->ops->free(backend, vectors);
    assert_int_equal(backend_wait(backend, &error), 0);
    must_read(backend, tapped, taps, 64);
    must_read(backend, tapped + 64, span_at(taps, 64 * sizeof(float)), 64);
    if (turn > 2) assert_int_equal(count(WAITS) - waits, 1);
    if (turn > 2) assert_int_equal(count(CALLS) - calls, 3 + 6); /* three of them for the vectors */
    for (int row = turn % 2; row < 2; row++)
      for (int i = 0; i < 24; i++) assert_true(tapped[row * 64 + i] == (float)(turn + i));
    must_read(backend, logits, world->logits, 2 * 61);
    for (int row = 0; row < 2; row++)
      for (int i = 0; i < 61; i++) assert_true(logits[row * 61 + i] <= logits[row * 61 + tokens[row].token]);
    assert_int_equal(backend->ops->write(backend, taps, three, sizeof three, &error), 0); /* what was fetched is old now */
    must_read(backend, again, taps, 24);
    assert_memory_equal(again, three, sizeof three);
  }
  drop(backend, taps);
  world_free(world);
}

/* ---- errors ---------------------------------------------------------------------------------------------------------- */

/* Every call of a step may fail: each time the run says so, and when the device is well again, so are the answers. */
static void test_every_call_may_fail(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  float plain[3 * 61], again[3 * 61];
  struct step_slot slots[3] = {{{0, 1}, 3, 0, 2}, {{1, 2}, 4, 0, 2}, {{2, 3}, 5, 0, 2}};
  world_step(world, slots, 3);
  world_run(world);
  must_read(world->backend, plain, world->logits, 3 * 61);
  long failures = 0;
  for (long calls = 0; calls < 200; calls++) {
    struct error error = ERROR_INIT;
    emulated.order(calls, 1); /* an invalid value: the device goes on */
    int failed = world->backend->ops->run(world->backend, world->list, world->count, &world->step, &error);
    if (backend_wait(world->backend, failed ? NULL : &error) != 0) failed = -1;
    emulated.order(0, 0);
    if (failed) assert_int_equal(error.code, ERROR_DEVICE);
    failures += failed != 0;
  }
  assert_true(failures >= 5); /* a replayed step is few calls; the first ones are dozens */
  world_run(world);
  must_read(world->backend, again, world->logits, 3 * 61);
  same_bits("after failures", again, plain, 3 * 61);
  world_free(world);
}

/* A step whose call number `calls` fails: 0, its logits in out, when it was right all the same. */
static int run_with_failure(struct world *world, long calls, float out[2 * 61]) {
  struct error error = ERROR_INIT;
  emulated.order(calls, 1);
  int failed = world->backend->ops->run(world->backend, world->list, world->count, &world->step, &error);
  emulated.order(0, 0);
  if (backend_wait(world->backend, NULL) != 0 || failed) return -1;
  must_read(world->backend, out, world->logits, 2 * 61);
  return 0;
}

/* What cannot be recorded is launched as it is, recorded when it comes again, and not tried for ever. */
static void test_recording_may_fail(void **state) {
  (void)state;
  if (!emulated.order) skip();
  float plain[2 * 61], again[2 * 61];
  int without = 0;
  for (long calls = 0; calls < 60; calls++) {
    struct world *world = world_new("cuda", 1, &small_shape);
    float *cap = &world->list[world->count - 1].u.linear.soft_cap;
    world_step(world, (struct step_slot[]){{{0, 2}, 0, 0, 2}}, 1);
    for (int turn = 0; turn < 2; turn++) world_run(world); /* memory has grown, and the kind is known: the next one is recorded */
    must_read(world->backend, plain, world->logits, 2 * 61);
    long replays = count(REPLAYS);
    bool launched = run_with_failure(world, calls, again) == 0 && count(REPLAYS) == replays;
    if (launched) {
      same_bits("what was not recorded", again, plain, 2 * 61);
      for (int turn = 0; turn < 2; turn++) world_run(world);
      assert_int_equal(count(REPLAYS), ++replays);
      for (int kind = 1; kind < 3; kind++) { /* two more failures: three in all */
        *cap = (float)kind;
        world_run(world);
        assert_int_equal(run_with_failure(world, calls, again), 0);
      }
      *cap = 3;
      for (int turn = 0; turn < 4; turn++) world_run(world);
      assert_int_equal(count(REPLAYS), replays);
      *cap = 0;
      world_run(world);
      must_read(world->backend, again, world->logits, 2 * 61);
      same_bits("without recording", again, plain, 2 * 61);
      without++;
    }
    world_free(world);
  }
  assert_true(without >= 3); /* beginning it, launches in it, ending it */
}

/* A kernel that reads what it may not makes every later call fail: the backend says so at once and asks no more. */
static void test_a_lost_device(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  struct error error = ERROR_INIT, later = ERROR_INIT, read = ERROR_INIT;
  float x;
  world_step(world, (struct step_slot[]){{{0, 2}, 0, 0, 2}}, 1);
  emulated.order(6, ILLEGAL_ADDRESS);
  assert_int_equal(world->backend->ops->run(world->backend, world->list, world->count, &world->step, &error), -1);
  assert_int_equal(error.code, ERROR_DEVICE);
  assert_non_null(strstr(error.text, "started again"));
  emulated.order(0, 0); /* a real one does not come back; it must not be asked either */
  long calls = count(CALLS);
  assert_int_equal(world->backend->ops->run(world->backend, world->list, world->count, &world->step, &later), -1);
  assert_int_equal(later.code, ERROR_DEVICE);
  assert_int_equal(world->backend->ops->read(world->backend, &x, world->logits, 4, &read), -1);
  assert_int_equal(read.code, ERROR_DEVICE);
  assert_int_equal(count(CALLS), calls);
  world_free(world);
}

static void test_too_little_memory(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct backend *backend = must_open("cuda", 1);
  struct error error = ERROR_INIT;
  struct memory *memory = NULL;
  emulated.capacity(((size_t)100 << 20) + (size_t)count(BYTES));
  assert_int_equal(backend->ops->alloc(backend, (size_t)300 << 20, &memory, &error), -1);
  assert_int_equal(error.code, ERROR_MEMORY);
  assert_non_null(strstr(error.text, "no room for 300 MiB: 100 of"));
  emulated.capacity((size_t)4 << 30);
  assert_int_equal(backend->ops->alloc(backend, (size_t)300 << 20, &memory, NULL), 0); /* it goes on */
  backend->ops->free(backend, memory);
  backend_close(backend);
}

static void test_names(void **state) {
  (void)state;
  static const char *const wrong[] = {"cuda:", "cuda:x", "cuda:-1", "cuda:0+", "cuda+fast", "cuda:99", "cuda+serial+"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    struct error error = ERROR_INIT;
    assert_null(backend_open(wrong[i], 1, &error));
    assert_int_equal(error.code, ERROR_ARGUMENT);
  }
  struct backend *backend = must_open("auto", 1);
  assert_string_equal(backend->ops->name, "cuda:0");
  backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_names),
      cmocka_unit_test(test_repeated_steps),
      cmocka_unit_test(test_products_of_the_library),
      cmocka_unit_test(test_many_kinds_of_steps),
      cmocka_unit_test(test_every_call_may_fail), cmocka_unit_test(test_recording_may_fail),
      cmocka_unit_test(test_one_wait),
      cmocka_unit_test(test_a_lost_device),
      cmocka_unit_test(test_too_little_memory),
      cmocka_unit_test(test_nothing_is_left),
  };
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
