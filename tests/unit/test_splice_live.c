/* Splices while texts are served: what is generated with them is what one pass over the whole text gives; their dictionaries are brought
 * while others are served; and the memory in which rows wait is there before the first request. Cross-layer transcoders above all: what
 * they write waits for layers that are yet to come. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/complete.h"
#include "core/lab/lab_int.h"
#include "tests/unit/lab_waiter.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define CROSS "tests/vectors/dict-clt/"
#define AFFINE CROSS "clt/width_1k_l0_small_affine"
static const struct lab_source_spec sources[] = {
    {"tiny", "1-res-relu", TINY "sources/1-res-relu"}, {"tiny", "2-res-jump", TINY "sources/2-res-jump"},
    {"tiny", "1-tc", "tests/vectors/dict-points/1-tc"},
    {"tiny", "0-jump", CROSS "jump"}, {"tiny", "1-jump", CROSS "jump"}, {"tiny", "2-jump", CROSS "jump"},
    {"tiny", "0-affine", AFFINE}, {"tiny", "1-affine", AFFINE}, {"tiny", "2-affine", AFFINE}};
static const struct lab_model_spec model = {"tiny", TINY "model"};
enum { PROMPT = 24, NEW = 12, TEXTS = 2, EOS = 511 };

static struct lab *open_lab(const char *backend, size_t budget) {
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = sources, .n_sources = sizeof sources / sizeof *sources,
                                .backend = backend, .dict_budget = budget, .threads = 2, .max_queue = 64, .max_step_rows = 64,
                                .max_sessions = 32, .queue_timeout_ms = 120000, .generation_timeout_ms = 120000};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

#define SPLICE(id, error) {.op = LAB_EDIT_SPLICE, .source_id = id, .index = -1, .special = true, .include_error = error}
#define CLAMP(id, feature, to, error) \
  {.op = LAB_EDIT_CLAMP, .source_id = id, .index = feature, .value = to, .special = true, .include_error = error}
#define MOST_EDITS 4

static const struct lab_edit lists[][MOST_EDITS] = {
    {SPLICE("0-jump", false), SPLICE("1-jump", false), SPLICE("2-jump", false)},
    {SPLICE("1-affine", false), SPLICE("0-affine", false)},
    {CLAMP("0-jump", 5, 2, true), CLAMP("0-jump", 6, 1, true), CLAMP("1-jump", 7, 3, true)},
    {SPLICE("0-affine", false), SPLICE("1-affine", false), SPLICE("2-affine", false), CLAMP("1-tc", 5, 2, true)},
    {CLAMP("0-jump", 5, 2, false), SPLICE("1-res-relu", false), CLAMP("2-res-jump", 3, 2, false)},
};
enum { LISTS = sizeof lists / sizeof *lists };

static size_t length_of(const struct lab_edit *list) {
  size_t n = 0;
  while (n < MOST_EDITS && list[n].source_id) n++;
  return n;
}

static void must_end(struct lab_job *job) {
  struct error error = ERROR_INIT;
  if (wait_for(job) == LAB_JOB_DONE) return;
  lab_job_error(job, &error);
  fail_msg("%s", error.text);
}

/* ---- texts and their losses ---------------------------------------------------------------------------------------------- */

/* A prompt and what was drawn behind it, with what the engine said of it. */
struct drawn {
  int64_t ids[PROMPT + NEW];
  float logprob[NEW];
};

static void fill_prompt(int64_t ids[PROMPT]) {
  for (int i = 0; i < PROMPT; i++) ids[i] = i ? (i * 37 + 11) % 500 : EOS;
}

static struct lab_job *generate(struct lab *lab, const struct lab_edit *edits, size_t n_edits, int n, int64_t n_tokens) {
  static const struct lab_bias goes_on = {EOS, -100};
  static int64_t ids[PROMPT];
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  fill_prompt(ids);
  struct lab_input prompt = {.ids = ids, .n_ids = PROMPT};
  struct lab_complete_args args = {.model = lab_find_model(lab, NULL, NULL), .prompts = &prompt, .n_prompts = 1, .n = n,
                                   .steering = {.edits = edits, .n_edits = n_edits, .strength_multiplier = 1, .prefix = "",
                                                .source_field = "source"},
                                   .n_tokens = n_tokens, .temperature = 1, .top_p = 1, .bias = &goes_on, .n_bias = 1, .seed = 5,
                                   .n_logprobs = 0, .ends_turn = -1};
  if (lab_complete(lab, &args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  return job;
}

static void read_drawn(struct lab_job *job, struct drawn drawn[TEXTS]) {
  for (size_t k = 0; k < TEXTS; k++) {
    struct error error = ERROR_INIT;
    struct lab_seen seen = {0, 0};
    struct lab_news news;
    struct arena arena;
    arena_init(&arena, 0);
    if (lab_complete_read(job, k, &seen, &arena, &news, &error) != 0) fail_msg("%s", error.text);
    assert_int_equal(news.n_scored, NEW);
    fill_prompt(drawn[k].ids);
    for (int i = 0; i < NEW; i++) drawn[k].ids[PROMPT + i] = news.scored[i].id, drawn[k].logprob[i] = news.scored[i].logprob;
    arena_clear(&arena);
  }
  lab_job_free(job);
}

/* -log p of tokens 1, 2, ... of all texts, in one pass over each. */
static void judge(struct lab *lab, const struct drawn drawn[TEXTS], const struct lab_edit *edits, size_t n_edits,
                  float losses[TEXTS][PROMPT + NEW - 1]) {
  struct lab_input inputs[TEXTS];
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  for (int k = 0; k < TEXTS; k++) inputs[k] = (struct lab_input){.ids = drawn[k].ids, .n_ids = PROMPT + NEW};
  struct lab_run_args args = {.model = lab_find_model(lab, NULL, NULL), .inputs = inputs, .n_inputs = TEXTS, .edits = edits,
                              .n_edits = n_edits, .stop_at_layer = INT64_MIN, .loss = true};
  if (lab_run(lab, &args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  must_end(job);
  const struct lab_run_result *result = lab_run_result(job);
  for (int k = 0; k < TEXTS; k++) memcpy(losses[k], result->texts[k].losses, (PROMPT + NEW - 1) * sizeof losses[k][0]);
  lab_job_free(job);
}

/* How far what the engine said of drawn tokens is from the losses of a pass. */
static double distance(const struct drawn drawn[TEXTS], float losses[TEXTS][PROMPT + NEW - 1]) {
  double most = 0;
  for (int k = 0; k < TEXTS; k++)
    for (int i = 0; i < NEW; i++) most = fmax(most, fabs((double)drawn[k].logprob[i] + (double)losses[k][PROMPT - 1 + i]));
  return most;
}

/* All lists at once, so that steps hold rows of different splices, prompts beside single tokens. The obvious path judges, which takes
 * steps apart, and so does the one that has drawn. */
static void test_what_is_generated_is_what_a_pass_gives(void **state) {
  (void)state;
  struct lab *fast = open_lab("cpu", 0), *plain = open_lab("ref", 0), *labs[] = {fast, plain};
  struct lab_job *jobs[LISTS];
  struct drawn drawn[LISTS][TEXTS];
  float losses[TEXTS][PROMPT + NEW - 1];
  for (int k = 0; k < LISTS; k++) jobs[k] = generate(fast, lists[k], length_of(lists[k]), TEXTS, NEW);
  for (int k = 0; k < LISTS; k++) {
    must_end(jobs[k]);
    read_drawn(jobs[k], drawn[k]);
  }
  for (int k = 0; k < LISTS; k++)
    for (int l = 0; l < 2; l++) {
      judge(labs[l], drawn[k], lists[k], length_of(lists[k]), losses);
      if (!(distance(drawn[k], losses) <= 1e-4 * 8)) /* decision 18, of losses up to log(512) and some */
        fail_msg("list %d: log-probabilities differ by %g from those of a pass on %s", k, distance(drawn[k], losses),
                 labs[l]->backend->ops->name);
      judge(labs[l], drawn[k], NULL, 0, losses);
      assert_true(distance(drawn[k], losses) > 0.01); /* the edits of generated tokens make a difference */
    }
  lab_close(fast);
  lab_close(plain);
}

/* ---- in front of the backend --------------------------------------------------------------------------------------------- */

static struct {
  const struct ops *real;
  struct ops ops;
  pthread_t worker;
  atomic_int steps, brought, by_worker, in_vain; /* matrices; in_vain: brought while nobody got on */
  atomic_size_t taken;                           /* by the worker */
  int patience;                                  /* ms that a matrix waits for others to get on */
  size_t room;                                   /* most bytes that are taken at once */
} spy;

static int spy_run(struct backend *backend, const struct op *list, size_t count, const struct step *step, struct error *error) {
  spy.worker = pthread_self(); /* nobody else runs anything */
  usleep(5000);
  atomic_fetch_add(&spy.steps, 1);
  return spy.real->run(backend, list, count, step, error);
}

/* A matrix that takes as long as ten steps of others. */
static int spy_matrix(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in, const struct matrix_wish *wish,
                      struct matrix **out, struct error *error) {
  int begin = atomic_load(&spy.steps);
  if (!wish->aside) atomic_fetch_add(&spy.by_worker, 1);
  for (int i = 0; i < spy.patience && wish->aside && atomic_load(&spy.steps) < begin + 10; i++) usleep(1000);
  if (wish->aside && atomic_load(&spy.steps) < begin + 10) atomic_fetch_add(&spy.in_vain, 1);
  atomic_fetch_add(&spy.brought, 1);
  return spy.real->matrix_new_as(backend, parts, n_parts, n_in, wish, out, error);
}

static int spy_alloc(struct backend *backend, size_t bytes, struct memory **out, struct error *error) {
  if (bytes > spy.room) return error_set(error, ERROR_MEMORY, "there is no room");
  if (atomic_load(&spy.steps) && pthread_equal(spy.worker, pthread_self())) atomic_fetch_add(&spy.taken, bytes);
  return spy.real->alloc(backend, bytes, out, error);
}

/* The worker sleeps: nobody looks at the verbs meanwhile. They stay to the end, since it may still wait when its last task has ended. */
static void spy_begin(struct lab *lab, int patience) {
  spy.patience = patience;
  spy.room = SIZE_MAX;
  spy.real = lab->backend->ops;
  spy.ops = *spy.real;
  spy.ops.run = spy_run;
  spy.ops.matrix_new_as = spy_matrix;
  spy.ops.alloc = spy_alloc;
  atomic_store(&spy.steps, 0);
  atomic_store(&spy.brought, 0);
  atomic_store(&spy.by_worker, 0);
  atomic_store(&spy.in_vain, 0);
  atomic_store(&spy.taken, 0);
  lab->backend->ops = &spy.ops;
}

/* A text is generated while the dictionaries of another request are brought: it gets on, and the worker brings none. */
static void test_nobody_waits_for_dictionaries(void **state) {
  (void)state;
  float losses[TEXTS][PROMPT + NEW - 1];
  struct drawn drawn[TEXTS];
  struct lab *lab = open_lab("cpu", 0);
  bool splices = lab->backend->ops->splices;
  if (!splices) { /* encoders are all it needs, and there at once: all but one have to go */
    lab_close(lab);
    lab = open_lab("cpu", 20 << 10);
  }
  for (int k = 0; k < TEXTS; k++) {
    fill_prompt(drawn[k].ids);
    for (int i = 0; i < NEW; i++) drawn[k].ids[PROMPT + i] = i;
  }
  spy_begin(lab, 10000);
  struct lab_job *stream = generate(lab, NULL, 0, 1, 128);
  while (!atomic_load(&spy.steps)) usleep(1000);
  const struct lab_edit edits[] = {CLAMP("0-jump", 5, 2, false)}; /* reads and writes one layer without what it leaves out */
  judge(lab, drawn, edits, 1, losses);
  assert_int_equal(atomic_load(&spy.in_vain), 0);
  assert_int_equal(atomic_load(&spy.by_worker), 0);
  assert_true(atomic_load(&spy.brought) >= 1);
  must_end(stream);
  lab_job_free(stream);
  lab_close(lab);
}

/* A request that leaves while its dictionaries are brought, and one that is there when the lab closes. */
static void test_askers_leave_meanwhile(void **state) {
  (void)state;
  struct lab *lab = open_lab("cpu", 20 << 10);
  spy_begin(lab, 20);
  for (int k = 0; k < LISTS; k++) {
    struct lab_job *job = generate(lab, lists[k], length_of(lists[k]), 1, 4);
    usleep(2000);
    lab_job_free(job);
  }
  struct lab_job *last = generate(lab, lists[3], length_of(lists[3]), 1, 4);
  lab_drain(lab);
  usleep(2000);
  lab_job_free(last);
  engine_free(lab->engine); /* all have ended when it returns */
  lab->engine = NULL;
  lab_close(lab);
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static char said[4096];
static void keep_text(void *context, enum log_level level, const char *text) {
  (void)context, (void)level;
  if (strstr(text, "between")) snprintf(said, sizeof said, "%s", text);
}

static void run_all(struct lab *lab) {
  for (int k = 0; k < LISTS; k++) {
    struct lab_job *job = generate(lab, lists[k], length_of(lists[k]), 1, 2);
    must_end(job);
    lab_job_free(job);
  }
}

/* Rows wait in memory that the log has told of: the worker takes none for them. Where more cannot be had, the log says what becomes of it,
 * and what was there still serves. */
static void test_memory_is_there_before_it_is_needed(void **state) {
  (void)state;
  said[0] = '\0';
  log_set_sink(keep_text, NULL);
  struct lab *lab = open_lab("cpu", 0);
  log_set_sink(NULL, NULL);
  if (!lab->backend->ops->splices) {
    printf("skip: splices as ops (backend %s takes steps apart)\n", lab->backend->ops->name);
    assert_string_equal(said, "");
    lab_close(lab);
    return;
  }
  assert_string_equal(said, "model tiny: 64 MiB for rows that wait between the points of splices");
  spy_begin(lab, 0);
  run_all(lab);
  assert_true(atomic_load(&spy.steps) > 0);
  assert_true(atomic_load(&spy.taken) < (size_t)1 << 20);
  log_set_sink(keep_text, NULL);
  spy.room = (size_t)64 << 20;
  engine_make_aside(lab->engine, lab->models[0].model, 1 << 20);
  assert_non_null(strstr(said, "go through the host, which is slow"));
  spy.room = SIZE_MAX;
  engine_make_aside(lab->engine, lab->models[0].model, (1 << 18) + 1);
  log_set_sink(NULL, NULL);
  assert_string_equal(said, "model tiny: 128 MiB for rows that wait between the points of splices"); /* no more of 4 GiB */
  run_all(lab);
  lab_close(lab);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_what_is_generated_is_what_a_pass_gives), cmocka_unit_test(test_nobody_waits_for_dictionaries),
      cmocka_unit_test(test_askers_leave_meanwhile), cmocka_unit_test(test_memory_is_there_before_it_is_needed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
