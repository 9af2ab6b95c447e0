/* Who comes first when several clients wait: one task of each in turn, a client's own in their order, and no client fills the queue
 * alone. Everything is asked for while the worker stands still, so that the order is the queue's and not the clock's. */
#include "tests/unit/plan_bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/engine/engine.h"

#define MOST 16

/* Holds the worker in a slice of work. */
struct gate {
  pthread_mutex_t closed;
  atomic_bool begun;
};

/* One request: its letter goes to the common record when it ends. */
struct asked {
  char letter, *record;
  atomic_bool done;
  enum error_code code;
};

static int hold(void *context, struct plan *plan, struct error *error) {
  struct gate *gate = context;
  (void)plan, (void)error;
  atomic_store(&gate->begun, true);
  pthread_mutex_lock(&gate->closed);
  pthread_mutex_unlock(&gate->closed);
  return 0;
}

static void held(void *context, const struct error *error) { (void)context, (void)error; }
static const struct engine_work holding = {.slice = hold, .done = held};

static void on_done(void *context, const struct error *error) {
  struct asked *asked = context;
  asked->code = error ? error->code : ERROR_NONE;
  asked->record[strlen(asked->record)] = asked->letter; /* the worker's thread alone writes */
  atomic_store(&asked->done, true);
}

static int one_slice(void *context, struct plan *plan, struct error *error) {
  (void)context, (void)plan, (void)error;
  return 0;
}

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  (void)context, (void)sequence, (void)token;
  return true;
}

static const struct engine_work work = {.slice = one_slice, .done = on_done, .asked = true};
static const struct engine_events events = {.token = on_token, .done = on_done};

struct room {
  struct bench bench;
  struct engine *engine;
  struct gate gate;
  struct asked asked[MOST];
  int n;
  char record[MOST + 1];
};

static void room_open(struct room *room, int max_queue) {
  struct error error = ERROR_INIT;
  struct engine_options options = {.max_queue = max_queue, .max_sessions = 1, .max_step_rows = 16, .kv_bytes = 1 << 22};
  memset(room, 0, sizeof *room);
  pthread_mutex_init(&room->gate.closed, NULL);
  assert_int_equal(bench_open(&room->bench, "cpu", TINY "model"), 0);
  const struct model *model = room->bench.model;
  room->engine = engine_new(room->bench.backend, &model, 1, &options, &error);
  if (!room->engine) fail_msg("%s", error.text);
}

static void room_close_gate(struct room *room) {
  struct error error = ERROR_INIT;
  struct engine_task *task;
  atomic_store(&room->gate.begun, false);
  pthread_mutex_lock(&room->gate.closed);
  if (engine_submit_work(room->engine, room->bench.model, &holding, 0, &room->gate, &task, &error) != 0) fail_msg("%s", error.text);
  while (!atomic_load(&room->gate.begun)) usleep(100);
}

/* Lets everybody through, and waits for them. */
static void room_open_gate(struct room *room) {
  pthread_mutex_unlock(&room->gate.closed);
  for (int i = 0; i < room->n; i++) {
    while (!atomic_load(&room->asked[i].done)) usleep(100);
    assert_int_equal(room->asked[i].code, ERROR_NONE);
  }
}

static void room_close(struct room *room) {
  engine_free(room->engine);
  bench_close(&room->bench);
  pthread_mutex_destroy(&room->gate.closed);
}

/* A client is its letter. */
static enum error_code ask(struct room *room, char letter, bool as_work) {
  static const int32_t ids[3] = {5, 6, 7};
  struct error error = ERROR_INIT;
  struct engine_task *task;
  struct asked *asked = &room->asked[room->n];
  const struct model *model = room->bench.model;
  struct engine_sequence sequence = {.tokens = ids, .n_tokens = 3, .last_layer = model->arch.n_layer, .max_new = 2, .eos = -1, .n_logprobs = -1};
  struct engine_task_args args = {.model = model, .sequences = &sequence, .n_sequences = 1, .events = &events, .context = asked,
                                  .owner = (uint64_t)letter};
  *asked = (struct asked){.letter = letter, .record = room->record};
  int failed = as_work ? engine_submit_work(room->engine, model, &work, (uint64_t)letter, asked, &task, &error)
                       : engine_submit(room->engine, &args, &task, &error);
  room->n += !failed;
  return failed ? error.code : ERROR_NONE;
}

static void expect_order(const char *asked, bool as_work, const char *want) {
  struct room room;
  room_open(&room, MOST);
  room_close_gate(&room);
  for (const char *c = asked; *c; c++) assert_int_equal(ask(&room, *c, as_work), ERROR_NONE);
  room_open_gate(&room);
  assert_string_equal(room.record, want);
  room_close(&room);
}

static void test_owners_take_turns(void **state) {
  (void)state;
  for (int as_work = 0; as_work < 2; as_work++) {
    expect_order("aaaabbc", as_work, "abcabaa");
    expect_order("aaab", as_work, "abaa");
    expect_order("abab", as_work, "abab");
    expect_order("aabccb", as_work, "abcacb");
  }
}

static void test_no_owner_fills_the_queue(void **state) {
  (void)state;
  struct room room;
  room_open(&room, 8);
  for (int round = 0; round < 2; round++) { /* whoever left the queue does not count any more */
    room.n = 0;
    memset(room.record, 0, sizeof room.record);
    room_close_gate(&room);
    for (int i = 0; i < 5; i++) assert_int_equal(ask(&room, 'a', i % 2), ERROR_NONE); /* as long as no more wait than places are left */
    assert_int_equal(ask(&room, 'a', false), ERROR_BUSY);
    assert_int_equal(ask(&room, 'a', true), ERROR_BUSY);
    for (int i = 0; i < 2; i++) assert_int_equal(ask(&room, 'b', i), ERROR_NONE);
    assert_int_equal(ask(&room, 'b', false), ERROR_BUSY);
    assert_int_equal(ask(&room, 'c', false), ERROR_NONE);
    assert_int_equal(ask(&room, 'd', false), ERROR_BUSY); /* full */
    room_open_gate(&room);
  }
  room_close(&room);
}

static double still(struct room *room) {
  struct engine_stats stats;
  engine_stats(room->engine, &stats);
  return stats.still_seconds;
}

/* What a watchdog asks: a worker that does not come back is seen, one that has nothing to do stands still for no time at all. */
static void test_a_worker_that_stands_still_is_seen(void **state) {
  (void)state;
  struct room room;
  room_open(&room, 8);
  for (int round = 0; round < 2; round++) {
    room_close_gate(&room);
    usleep(30000);
    double first = still(&room);
    assert_true(first >= 0.03 && first < 30); /* the slice began before room_close_gate returned */
    usleep(1000);
    assert_true(still(&room) > first);
    room_open_gate(&room);
    for (int i = 0; i < 5000 && still(&room) > 0; i++) usleep(1000);
    assert_true(still(&room) == 0);
  }
  room_close(&room);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_worker_that_stands_still_is_seen), cmocka_unit_test(test_owners_take_turns), cmocka_unit_test(test_no_owner_fills_the_queue)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
