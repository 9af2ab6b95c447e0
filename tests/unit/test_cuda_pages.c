/* Which blocks hold a text stays on the device from step to step: what a step sends hardly grows with what its texts have behind
 * them, and every text is found where it is, however many come and go. Needs the emulated library (STEERD_CUDA_LIBRARY). */
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

enum { TEXTS = 24, AT_ONCE = 8, TOGETHER = 3, LAYERS = 2, LONGEST = 300 };

/* Numbers of one place (pages.c): all these texts want the same few. */
static uint64_t serial_of(int text) { return 1 + 256 * (uint64_t)text; }

/* One step of texts, a row each at `position`, told by their own tables or by one of all. */
static void play(struct world *world, const int *texts, int n, int position, bool own, uint64_t first_serial, float *logits) {
  struct step_slot slots[AT_ONCE] = {0};
  struct kv_pages pages[AT_ONCE];
  int32_t blocks[AT_ONCE][LAYERS];
  for (int i = 0; i < n; i++) slots[i] = (struct step_slot){{i, i + 1}, position, 0, LAYERS};
  world_step(world, slots, n);
  for (int i = 0; i < n; i++) {
    world->token[i] = (texts[i] * 7 + position * 5) % world->shape.vocabulary;
    for (int layer = 0; layer < LAYERS; layer++) {
      blocks[i][layer] = (texts[i] * LAYERS + layer) * 7 % (AT_ONCE * LAYERS * KV_BLOCKS);
      for (int b = 0; b < KV_BLOCKS; b++) world->kv_table[(i * LAYERS + layer) * KV_BLOCKS + b] = b ? -1 : blocks[i][layer];
    }
    pages[i] = (struct kv_pages){blocks[i], 1, first_serial + serial_of(texts[i])};
  }
  if (own) world->step.kv_pages = pages, world->step.kv_table = NULL;
  world_run(world);
  must_read(world->backend, logits, world->logits, (size_t)(n * world->shape.vocabulary));
}

/* Texts in turns: some are found, some have lost their place, and now and then there is no room to keep any. */
static void test_texts_come_and_go(void **state) {
  (void)state;
  struct world *own = world_new("cuda", 1, &small_shape), *all = world_new("cuda", 1, &small_shape);
  float a[AT_ONCE * 61], b[AT_ONCE * 61];
  for (int turn = 0, position[TEXTS] = {0}; turn < 120; turn++) {
    int texts[AT_ONCE], n = 1 + turn % AT_ONCE, at = 0;
    for (int i = 0; i < n; i++) texts[i] = (turn * 5 + i * (1 + turn % 2)) % TEXTS;
    for (int i = 0; i < n; i++) at = position[texts[i]] > at ? position[texts[i]] : at;
    for (int i = 0; i < n; i++) /* the same position for all of a step: who is behind reads on */
      for (; position[texts[i]] < at; position[texts[i]]++) {
        play(own, &texts[i], 1, position[texts[i]], true, 0, a);
        play(all, &texts[i], 1, position[texts[i]], false, 0, b);
        same_bits("reading on", a, b, 61);
      }
    if (emulated.order && turn % 16 == 7) emulated.capacity((size_t)count(BYTES));
    play(own, texts, n, at, true, turn % 16 == 7 ? 5 : 0, a);
    if (emulated.order) emulated.capacity((size_t)4 << 30);
    play(all, texts, n, at, false, 0, b);
    same_bits("texts that come and go", a, b, (size_t)(n * 61));
    for (int i = 0; i < n; i++) position[texts[i]] = at + 1;
  }
  world_free(own);
  world_free(all);
}

/* The bytes of a step of three texts with so many positions behind them, told by their own tables. */
static long bytes_of_step(struct world *world, int position) {
  struct step_slot slots[TOGETHER];
  struct kv_pages pages[TOGETHER];
  for (int i = 0; i < TOGETHER; i++) slots[i] = (struct step_slot){{i, i + 1}, position, 0, LAYERS};
  world_step(world, slots, TOGETHER);
  for (int i = 0; i < TOGETHER; i++) pages[i] = (struct kv_pages){world->kv_table + i * LAYERS * KV_BLOCKS, KV_BLOCKS, 7 + (uint64_t)i};
  world->step.kv_pages = pages;
  long before = emulated.sent();
  world_run(world);
  assert_int_equal(backend_wait(world->backend, NULL), 0);
  return emulated.sent() - before;
}

static void test_a_steady_step(void **state) {
  (void)state;
  if (!emulated.sent) skip();
  struct world *world = world_new("cuda", 1, &small_shape);
  struct step_slot prompts[TOGETHER];
  for (int i = 0; i < TOGETHER; i++) prompts[i] = (struct step_slot){{i * 100, i * 100 + 100}, 0, 0, LAYERS};
  for (int at = 0; at < LONGEST; at += 100) {
    for (int i = 0; i < TOGETHER; i++) prompts[i].position = at;
    world_step(world, prompts, TOGETHER);
    world_run(world);
  }
  long first = bytes_of_step(world, 10), steady = bytes_of_step(world, 11);
  assert_int_equal(first - steady, TOGETHER * LAYERS * KV_BLOCKS * 4); /* each text's table, once */
  long longer = bytes_of_step(world, LONGEST - 1);
  assert_int_equal(longer - steady, TOGETHER * 2 * 16); /* two blocks of attention more for each text (work.c) */
  assert_int_equal(bytes_of_step(world, LONGEST), longer);
  assert_true(steady <= 1024); /* the struct of tables, and about 200 bytes for three rows */
  world_free(world);
}

/* Any call of a step that brings texts may fail: the next step finds them all the same. */
static void test_after_failures(void **state) {
  (void)state;
  if (!emulated.order) skip();
  struct world *own = world_new("cuda", 1, &small_shape), *all = world_new("cuda", 1, &small_shape);
  float a[AT_ONCE * 61], b[AT_ONCE * 61];
  int texts[3] = {1, 4, 9}, failures = 0;
  play(all, texts, 3, 0, false, 0, b);
  play(own, texts, 3, 0, true, 0, a);
  for (long calls = 0; calls < 40; calls++) {
    struct error error = ERROR_INIT;
    struct kv_pages pages[3];
    int32_t blocks[3][LAYERS];
    for (int i = 0; i < 3; i++) {
      for (int layer = 0; layer < LAYERS; layer++) blocks[i][layer] = (texts[i] * LAYERS + layer) * 7 % (AT_ONCE * LAYERS * KV_BLOCKS);
      pages[i] = (struct kv_pages){blocks[i], 1, 1000 + 3 * (uint64_t)calls + (uint64_t)i};
    }
    own->step.kv_pages = pages;
    emulated.order(calls, 1);
    int failed = own->backend->ops->run(own->backend, own->list, own->count, &own->step, &error);
    if (backend_wait(own->backend, failed ? NULL : &error) != 0) failed = -1;
    emulated.order(0, 0);
    failures += failed != 0;
    assert_int_equal(own->backend->ops->run(own->backend, own->list, own->count, &own->step, &error), 0);
    must_read(own->backend, a, own->logits, 3 * 61);
    same_bits("after a failure", a, b, 3 * 61);
  }
  assert_true(failures >= 5);
  world_free(own);
  world_free(all);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts_come_and_go), cmocka_unit_test(test_a_steady_step),
                                     cmocka_unit_test(test_after_failures), cmocka_unit_test(test_nothing_is_left)};
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
