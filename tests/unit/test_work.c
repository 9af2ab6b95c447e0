/* Work that a request asks for waits like any request: it counts in the queue, is refused when that is full, and times out there.
 * The engine's thread is held in a callback, which is the one way to have something wait. And cosines found in parts are those
 * of the whole decoder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/analysis/tables.h"
#include "core/archive.h"
#include "core/base/log.h"
#include "core/model/arch.h"

#define TINY "tests/vectors/tiny-gpt2/"

struct gate {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool shut, held;
  int wakes;
};
static struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, 0};
static struct gate second = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, 0};

static void pass(struct gate *g) {
  pthread_mutex_lock(&g->mutex);
  g->held = true;
  g->wakes++;
  pthread_cond_broadcast(&g->changed);
  while (g->shut) pthread_cond_wait(&g->changed, &g->mutex);
  g->held = false;
  pthread_mutex_unlock(&g->mutex);
}

/* On the engine's thread: waits while the gate is shut, against the rule that it must not. */
static void hold(void *context) {
  (void)context;
  pass(&gate);
}

static void note(void *context) {
  (void)context;
  pthread_mutex_lock(&gate.mutex);
  gate.wakes++;
  pthread_cond_broadcast(&gate.changed);
  pthread_mutex_unlock(&gate.mutex);
}

static void hold_second(void *context) {
  pass(&second);
  note(context);
}

static void set_one(struct gate *g, bool shut) {
  pthread_mutex_lock(&g->mutex);
  g->shut = shut;
  pthread_cond_broadcast(&g->changed);
  pthread_mutex_unlock(&g->mutex);
}

static void set_gate(bool shut) { set_one(&gate, shut); }

static void wait_held(struct gate *g) {
  pthread_mutex_lock(&g->mutex);
  while (!g->held) pthread_cond_wait(&g->changed, &g->mutex);
  pthread_mutex_unlock(&g->mutex);
}

static enum lab_job_state wait_for(struct lab_job *job) {
  enum lab_job_state state;
  pthread_mutex_lock(&gate.mutex);
  for (;;) {
    int seen = gate.wakes;
    pthread_mutex_unlock(&gate.mutex);
    state = lab_job_state(job);
    pthread_mutex_lock(&gate.mutex);
    if (state == LAB_JOB_DONE || state == LAB_JOB_FAILED) break;
    while (gate.wakes == seen) pthread_cond_wait(&gate.changed, &gate.mutex);
  }
  pthread_mutex_unlock(&gate.mutex);
  return state;
}

static struct lab *open_lab(int queue_timeout_ms) {
  static const struct lab_model_spec model = {"tiny", TINY "model"};
  static const struct lab_source_spec source = {"tiny", "1-res-relu", TINY "sources/1-res-relu"};
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = &source, .n_sources = 1, .threads = 1,
                                .max_queue = 2, .max_step_rows = 64, .max_sessions = 4,
                                .queue_timeout_ms = queue_timeout_ms};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

static const struct lab_source_info *first_source(struct lab *lab) {
  const struct lab_source_info *const *sources;
  assert_int_equal(lab_sources(lab, lab_find_model(lab, NULL, NULL), &sources), 1);
  return sources[0];
}

static int start(struct lab *lab, int64_t index, struct lab_job **out, struct error *error) {
  return lab_feature(lab, first_source(lab), index, 10, (struct lab_waker){note, NULL, 0}, out, error);
}

/* A steer whose first token finds the gate shut. */
static struct lab_job *hold_engine(struct lab *lab) {
  struct lab_job *job;
  struct error error = ERROR_INIT;
  struct lab_steer_args args = {.model = lab_find_model(lab, NULL, NULL), .prompt = "the", .prompt_length = 3,
                                .strength_multiplier = 1, .want = {false, true}, .n_tokens = 2, .top_p = 1,
                                .n_logprobs = -1};
  set_gate(true);
  if (lab_steer(lab, &args, (struct lab_waker){hold, NULL, 0}, &job, &error) != 0) fail_msg("%s", error.text);
  wait_held(&gate);
  return job;
}

static int queued(struct lab *lab) {
  struct lab_stats stats;
  lab_stats(lab, &stats);
  return stats.queued;
}

static void test_work_waits_in_the_queue(void **state) {
  (void)state;
  struct lab *lab = open_lab(60000);
  struct lab_job *jobs[2], *third, *steer = hold_engine(lab);
  struct error error = ERROR_INIT;
  for (int i = 0; i < 2; i++) assert_int_equal(start(lab, i, &jobs[i], &error), 0);
  assert_int_equal(queued(lab), 2);
  assert_int_equal(start(lab, 2, &third, &error), -1);
  assert_int_equal(error.code, ERROR_BUSY);
  set_gate(false);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(wait_for(jobs[i]), LAB_JOB_DONE);
    const struct lab_feature *feature = lab_feature_result(jobs[i]);
    assert_int_equal(feature->stored.n_neighbours, TABLE_NEIGHBOURS);
    lab_job_free(jobs[i]);
  }
  assert_int_equal(queued(lab), 0);
  wait_for(steer);
  lab_job_free(steer);
  error = (struct error)ERROR_INIT;
  assert_int_equal(start(lab, 2, &third, &error), 0);
  assert_int_equal(wait_for(third), LAB_JOB_DONE);
  lab_job_free(third);
  lab_close(lab);
}

static void test_work_times_out(void **state) {
  (void)state;
  struct lab *lab = open_lab(20);
  struct lab_job *job, *gone, *steer = hold_engine(lab);
  struct error error = ERROR_INIT;
  assert_int_equal(start(lab, 0, &job, &error), 0);
  assert_int_equal(start(lab, 1, &gone, &error), 0);
  lab_job_free(gone); /* its asker leaves while it waits */
  usleep(60000);
  set_gate(false);
  assert_int_equal(wait_for(job), LAB_JOB_FAILED);
  lab_job_error(job, &error);
  assert_int_equal(error.code, ERROR_TIMEOUT);
  lab_job_free(job);
  wait_for(steer);
  lab_job_free(steer);
  for (int i = 0; i < 500 && queued(lab); i++) usleep(1000);
  assert_int_equal(queued(lab), 0);
  lab_close(lab);
}

/* Behind other work, that is when it has left the queue and waits for its first slice. */
static void test_work_times_out_behind_work(void **state) {
  (void)state;
  struct lab *lab = open_lab(500);
  struct lab_job *first, *behind, *steer = hold_engine(lab);
  struct error error = ERROR_INIT;
  set_one(&second, true);
  assert_int_equal(lab_feature(lab, first_source(lab), 0, 10, (struct lab_waker){hold_second, NULL, 0}, &first, &error), 0);
  assert_int_equal(start(lab, 1, &behind, &error), 0);
  set_gate(false);
  wait_held(&second);
  assert_int_equal(queued(lab), 1);
  usleep(600000);
  set_one(&second, false);
  assert_int_equal(wait_for(behind), LAB_JOB_FAILED);
  lab_job_error(behind, &error);
  assert_int_equal(error.code, ERROR_TIMEOUT);
  assert_int_equal(wait_for(first), LAB_JOB_DONE);
  wait_for(steer);
  lab_job_free(behind);
  lab_job_free(first);
  lab_job_free(steer);
  lab_close(lab);
}

/* ---- parts ---- */

static void test_parts_are_the_whole(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open("cpu", 2, &error);
  static const struct arch arch = {.n_layer = 3, .n_head = 4, .n_kv_head = 4, .d_head = 12, .d_model = 48, .d_mlp = 128,
                                   .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
  const struct dict_host host = {"tiny-gpt2", &arch, NULL, NULL};
  struct dict *dict = dict_open(TINY "sources/1-res-relu", "1-res-relu", &host, backend, &error);
  if (!dict) fail_msg("%s", error.text);
  int64_t n = dict_info(dict)->n_feat, skip = 5, ends[] = {1, 17, 32, 90, n};
  float query[48];
  struct feature_neighbours whole = {.n = 0}, parts = {.n = 0}, one = {.n = 0};
  dict_decoder_row(dict, skip, query);
  struct decoder_table *table = decoder_table_new(dict, 0, n, backend, &error);
  assert_non_null(table);
  assert_int_equal(decoder_table_nearest(table, query, &skip, 1, 20, &whole, &error), 0);
  decoder_table_free(table);
  for (int64_t at = 0, i = 0; at < n; at = ends[i++]) {
    table = decoder_table_new(dict, at, ends[i] - at, backend, &error);
    assert_non_null(table);
    assert_int_equal(decoder_table_nearest(table, query, &skip, 1, 20, &parts, &error), 0);
    decoder_table_free(table);
  }
  int64_t next = 0;
  int more;
  while ((more = decoder_nearest_part(dict, backend, query, skip, 20, &next, &one, &error)) > 0) continue;
  assert_int_equal(more, 0);
  assert_int_equal(whole.n, 20);
  assert_true(parts.n == 20 && one.n == 20);
  assert_memory_equal(parts.index, whole.index, 20 * sizeof *whole.index);
  assert_memory_equal(parts.cosine, whole.cosine, 20 * sizeof *whole.cosine);
  assert_memory_equal(one.index, whole.index, 20 * sizeof *whole.index);
  assert_memory_equal(one.cosine, whole.cosine, 20 * sizeof *whole.cosine);
  struct decoder_parts *all = decoder_parts_new(dict, backend, 7 * 48 * 4, &error); /* seven rows at a time */
  assert_non_null(all);
  assert_int_equal(decoder_parts_count(all), (n + 6) / 7);
  one.n = 0;
  for (int64_t i = 0; i < decoder_parts_count(all); i++) {
    assert_int_equal(decoder_parts_prepare(all, &error), 1);
    assert_int_equal(decoder_table_nearest(decoder_parts_table(all, i), query, &skip, 1, 20, &one, &error), 0);
  }
  assert_int_equal(decoder_parts_prepare(all, &error), 0);
  decoder_parts_free(all);
  assert_int_equal(one.n, 20);
  assert_memory_equal(one.index, whole.index, 20 * sizeof *whole.index);
  assert_memory_equal(one.cosine, whole.cosine, 20 * sizeof *whole.cosine);
  dict_close(dict);
  backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_work_waits_in_the_queue), cmocka_unit_test(test_work_times_out),
                                     cmocka_unit_test(test_work_times_out_behind_work),
                                     cmocka_unit_test(test_parts_are_the_whole)};
  log_set_level(LOG_LEVEL_ERROR);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
