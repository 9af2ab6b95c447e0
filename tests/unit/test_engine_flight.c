/* What the engine leaves in flight: nothing while its worker sleeps, whatever became of those it worked for. The backend is told by a
 * spy that stands in front of its verbs. */
#include "tests/unit/plan_bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/engine/engine.h"

#define N_PROMPT 66
#define N_EDITS 2000 /* of 66 rows of 48 columns: 24 MiB, six pieces of an upload */

/* ---- the spy ---- */

/* What the worker asked for since it last waited. Verbs of the test's own thread are done when they return (ops.h). */
static struct {
  const struct ops *real;
  struct ops ops;
  pthread_t own;
  atomic_int in_flight, pieces, freed_beside; /* freed_beside: by the test's thread while anything was in flight */
  struct engine *engine;
  struct engine_task *task; /* cancelled when a piece of its edits goes over; NULL: nobody */
} spy;

static void note(void) {
  if (!pthread_equal(spy.own, pthread_self())) atomic_fetch_add(&spy.in_flight, 1);
}

static int spy_alloc(struct backend *backend, size_t bytes, struct memory **out, struct error *error) {
  note();
  return spy.real->alloc(backend, bytes, out, error);
}

static int spy_write(struct backend *backend, struct span to, const void *from, size_t bytes, struct error *error) {
  note();
  if (bytes > 1 << 20 && atomic_fetch_add(&spy.pieces, 1) == 1 && spy.task) engine_cancel(spy.engine, spy.task);
  return spy.real->write(backend, to, from, bytes, error);
}

static int spy_copy(struct backend *backend, struct span to, struct span from, size_t bytes, struct error *error) {
  note();
  return spy.real->copy(backend, to, from, bytes, error);
}

static int spy_run(struct backend *backend, const struct op *list, size_t count, const struct step *step, struct error *error) {
  note();
  return spy.real->run(backend, list, count, step, error);
}

static int spy_wait(struct backend *backend, struct error *error) {
  atomic_store(&spy.in_flight, 0);
  return spy.real->wait ? spy.real->wait(backend, error) : 0;
}

static void spy_free(struct backend *backend, struct memory *memory) {
  if (memory && pthread_equal(spy.own, pthread_self()) && atomic_load(&spy.in_flight)) atomic_fetch_add(&spy.freed_beside, 1);
  spy.real->free(backend, memory);
}

static void spy_begin(struct backend *backend) {
  spy.real = backend->ops;
  spy.ops = *backend->ops;
  spy.own = pthread_self();
  spy.ops.alloc = spy_alloc;
  spy.ops.write = spy_write;
  spy.ops.copy = spy_copy;
  spy.ops.run = spy_run;
  spy.ops.wait = spy_wait;
  spy.ops.free = spy_free;
  atomic_store(&spy.in_flight, 0);
  atomic_store(&spy.pieces, 0);
  atomic_store(&spy.freed_beside, 0);
  spy.task = NULL;
  backend->ops = &spy.ops;
}

/* Whether nothing is in flight soon, though nobody asks the engine for anything: only its own wait can make it so. */
static bool comes_to_rest(void) {
  for (int i = 0; i < 3000 && atomic_load(&spy.in_flight); i++) usleep(1000);
  return !atomic_load(&spy.in_flight);
}

/* ---- one request ---- */

struct ending {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool done;
  enum error_code code;
};

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  (void)context, (void)sequence, (void)tapped, (void)error;
  return 0;
}

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  (void)context, (void)sequence, (void)token;
  return true;
}

static void on_done(void *context, const struct error *error) {
  struct ending *ending = context;
  pthread_mutex_lock(&ending->mutex);
  ending->code = error ? error->code : ERROR_NONE;
  ending->done = true;
  pthread_cond_signal(&ending->changed);
  pthread_mutex_unlock(&ending->mutex);
}

static const struct engine_events events = {.tapped = on_tapped, .token = on_token, .done = on_done};

static enum error_code run(struct engine *engine, const struct model *model, const struct engine_sequence *sequences, int n,
                           struct engine_task **task) {
  struct error error = ERROR_INIT;
  struct ending ending = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, ERROR_NONE};
  struct engine_task_args args = {.model = model, .sequences = sequences, .n_sequences = n, .events = &events, .context = &ending};
  if (engine_submit(engine, &args, task, &error) != 0) fail_msg("%s", error.text);
  pthread_mutex_lock(&ending.mutex);
  while (!ending.done) pthread_cond_wait(&ending.changed, &ending.mutex);
  pthread_mutex_unlock(&ending.mutex);
  return ending.code;
}

static struct edit_list *large_edits(void) {
  struct error error = ERROR_INIT;
  struct edit_list *list = edit_list_new(&error);
  uint8_t mask[N_PROMPT];
  float *rows = calloc((size_t)N_PROMPT * 48, sizeof *rows);
  struct edit edit = {.point = {1, SITE_RESID_PRE}, .kind = EDIT_ROW_REPLACE, .column_end = 48, .v = rows, .prompt = true, .mask = mask,
                      .n_mask = N_PROMPT};
  memset(mask, 1, sizeof mask);
  for (int e = 0; e < N_EDITS; e++) assert_int_equal(edit_list_add(list, &edit, &error), 0);
  free(rows);
  return list;
}

static void open_bench(struct bench *b) {
  struct error error = ERROR_INIT;
  struct engine_options options = {.max_queue = 4, .max_sessions = 3, .max_step_rows = 16, .kv_bytes = 1 << 22};
  assert_int_equal(bench_open(b, "cpu", TINY "model"), 0);
  const struct model *model = b->model;
  spy_begin(b->backend);
  spy.engine = engine_new(b->backend, &model, 1, &options, &error);
  if (!spy.engine) fail_msg("%s", error.text);
}

static void close_bench(struct bench *b) {
  engine_free(spy.engine);
  assert_int_equal(atomic_load(&spy.in_flight), 0);
  assert_int_equal(atomic_load(&spy.freed_beside), 0);
  b->backend->ops = spy.real;
  bench_close(b);
}

static struct engine_sequence sequence_of(const int32_t ids[N_PROMPT]) {
  return (struct engine_sequence){.tokens = ids, .n_tokens = N_PROMPT, .last_layer = 3, .eos = -1, .n_logprobs = -1};
}

/* Its asker leaves while its edits go over a piece at a time: there is no step that would wait for the pieces. */
static void test_a_request_cancelled_before_its_step(void **state) {
  (void)state;
  struct bench b;
  int32_t ids[N_PROMPT] = {0};
  open_bench(&b);
  struct engine_sequence sequence = sequence_of(ids);
  sequence.edits = large_edits();
  assert_int_equal(run(spy.engine, b.model, &sequence, 1, &spy.task), ERROR_CANCELLED);
  assert_int_equal(atomic_load(&spy.pieces), 2);
  assert_true(comes_to_rest());
  close_bench(&b);
}

/* Twins copy the block in which they part from their leader behind the step that read the prompt. */
static void test_texts_that_end_as_they_part(void **state) {
  (void)state;
  struct bench b;
  int32_t ids[N_PROMPT] = {0};
  struct engine_task *task;
  open_bench(&b);
  struct engine_sequence twins[2] = {sequence_of(ids), sequence_of(ids)};
  for (int i = 0; i < 2; i++) twins[i].max_new = 1, twins[i].twin = i > 0;
  assert_int_equal(run(spy.engine, b.model, twins, 2, &task), ERROR_NONE);
  assert_true(comes_to_rest());
  close_bench(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_request_cancelled_before_its_step),
                                     cmocka_unit_test(test_texts_that_end_as_they_part)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
