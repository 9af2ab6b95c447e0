/* The evaluation job as its users meet it: cancelled, killed and resumed it ends with the same bits as an unbroken run; it tells how
 * far it is, and what it found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/store/evaluations.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define KILLS 12
#define PATIENCE 60000 /* looks of a millisecond: a sanitizer build on a busy machine is slow */

static char folder[] = "/tmp/steerd-eval-XXXXXX";
static const struct lab_model_spec model = {"tiny", TINY "model"};
#define CLT "tests/vectors/dict-clt/jump"
static const struct lab_source_spec sources[] = {{"tiny", "1-res-relu", TINY "sources/1-res-relu"},
                                                 {"tiny", "2-jump", CLT}, {"tiny", "0-jump", CLT}, {"tiny", "1-jump", CLT}};
static const struct lab_eval_args args = {.model_id = "tiny", .source_id = "1-res-relu", .corpus = TINY "corpus.txt", .lines = true};
static const struct lab_eval_args layers = {.model_id = "tiny", .source_id = "2-jump", .corpus = TINY "corpus.txt", .lines = true};

static struct lab *open_lab(const char *store, bool run_jobs) {
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = sources, .n_sources = 4, .threads = 1,
                                .store = store, .holder = "test", .run_jobs = run_jobs, .checkpoint_ms = 1,
                                .max_queue = 8, .max_step_rows = 128, .max_sessions = 8, .queue_timeout_ms = 60000,
                                .generation_timeout_ms = 60000};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

static const char *store_path(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s.sqlite", folder, name);
  return path;
}

/* Every figure of a source (1 and 2 are evaluated here), bit for bit; when it was made is another matter. */
static char *dump_source(struct lab *lab, int64_t source) {
  struct error error = ERROR_INIT;
  struct arena arena;
  struct store_evaluation *rows;
  struct buffer out;
  size_t n;
  arena_init(&arena, 0);
  buffer_init(&out, 0);
  if (store_evaluation_list(lab_store(lab), source, &arena, &rows, &n, &error) != 0) fail_msg("%s", error.text);
  for (size_t i = 0; i < n; i++) {
    const struct store_evaluation *e = &rows[i];
    buffer_printf(&out, "%s %s %lld %lld %lld %a %a %a %lld %a %a %a %a %a %a %a %a %a %lld %lld %lld\n", e->corpus, e->corpus_hash,
                  (long long)e->n_documents, (long long)e->n_tokens, (long long)e->n_features, e->l0, e->mse, e->explained,
                  (long long)e->n_predicted, e->ce_raw, e->ce_spliced, e->ce_error, e->ce_zero,
                  e->cosine, e->l2_ratio, e->bias, e->kl_spliced, e->kl_zero, (long long)e->n_dead,
                  (long long)e->below[0], (long long)e->below[2]);
  }
  arena_clear(&arena);
  buffer_text(&out, "");
  return out.data;
}

static char *dump(struct lab *lab) { return dump_source(lab, 1); }

static bool go_on(void *context, const struct lab_progress *progress) {
  (void)context;
  (void)progress;
  return false;
}

/* By the caller's thread, which is no job of the store. */
static char *run_unbroken(const struct lab_eval_args *what, int64_t source, size_t n_layers) {
  struct error error = ERROR_INIT;
  struct lab_eval_found out;
  struct arena arena;
  arena_init(&arena, 0);
  struct lab *lab = open_lab(store_path("unbroken"), false);
  if (lab_eval_run(lab, what, go_on, NULL, &arena, &out, &error) != 0) fail_msg("%s", error.text);
  assert_int_equal(out.n_layers, n_layers);
  char *text = dump_source(lab, source);
  lab_close(lab);
  arena_clear(&arena);
  return text;
}

static char *unbroken(void) {
  static char *text;
  if (!text) text = run_unbroken(&args, 1, 0);
  return text;
}

struct seen {
  enum store_job_state state;
  int64_t done, total;
  char unit[16], message[64], result[512];
};

static struct seen look(struct lab *lab, int64_t id) {
  struct error error = ERROR_INIT;
  struct lab_progress progress;
  struct arena arena;
  arena_init(&arena, 0);
  if (lab_long_job(lab, id, &arena, &progress, &error) != 0) fail_msg("%s", error.text);
  struct seen seen = {.state = progress.job.state, .done = progress.job.done, .total = progress.job.total};
  snprintf(seen.unit, sizeof seen.unit, "%s", progress.job.unit ? progress.job.unit : "");
  snprintf(seen.message, sizeof seen.message, "%s", progress.job.message ? progress.job.message : "");
  snprintf(seen.result, sizeof seen.result, "%s", progress.job.result ? progress.job.result : "");
  arena_clear(&arena);
  return seen;
}

static struct seen wait_until_ended(struct lab *lab, int64_t id) {
  for (int i = 0; i < PATIENCE; i++) {
    struct seen seen = look(lab, id);
    if (seen.state != STORE_QUEUED && seen.state != STORE_RUNNING) return seen;
    usleep(1000);
  }
  fail_msg("the job does not end");
  return (struct seen){0};
}

/* ---- tests ---- */

static void test_tells_how_far_it_is(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  int64_t id;
  struct lab *lab = open_lab(store_path("figures"), true);
  assert_int_equal(lab_eval_start(lab, &args, &id, &error), 0);
  bool between = false;
  struct seen seen;
  for (int i = 0; (seen = look(lab, id)).state == STORE_QUEUED || seen.state == STORE_RUNNING; i++) {
    between |= seen.total > 0 && seen.done > 0 && seen.done < seen.total && !strcmp(seen.message, "evaluating");
    assert_true(i < PATIENCE * 10);
    usleep(100);
  }
  assert_int_equal(seen.state, STORE_DONE);
  assert_true(between);
  assert_true(seen.done > 64 && seen.done == seen.total);
  assert_string_equal(seen.unit, "documents");
  assert_non_null(strstr(seen.result, "\"l0\":"));
  assert_non_null(strstr(seen.result, "\"kept\":"));
  char *text = dump(lab);
  assert_string_equal(text, unbroken());
  free(text);
  lab_close(lab);
}

/* Cancelled in the middle, again and again; what was done is not done again. */
static void cancel_and_resume(const char *store, const struct lab_eval_args *what, int64_t source, const char *want) {
  struct error error = ERROR_INIT;
  int64_t id, kept = 0;
  int cancels = 0;
  struct lab *lab = open_lab(store_path(store), true);
  assert_int_equal(lab_eval_start(lab, what, &id, &error), 0);
  for (;;) {
    struct seen seen = look(lab, id);
    assert_true(seen.state != STORE_FAILED);
    if (seen.state == STORE_DONE) break;
    if (seen.state == STORE_CANCELLED) {
      assert_true(seen.done >= kept);
      kept = seen.done;
      if (lab_long_job_resume(lab, id, &error) != 0) fail_msg("%s", error.text);
    } else if (seen.state == STORE_RUNNING && seen.done > kept && cancels < 20) {
      cancels++;
      assert_int_equal(lab_long_job_cancel(lab, id, &error), 0);
      wait_until_ended(lab, id);
    }
    usleep(200);
  }
  assert_true(cancels > 0 && kept > 0);
  char *text = dump_source(lab, source);
  assert_string_equal(text, want);
  free(text);
  lab_close(lab);
}

static void test_cancelled_and_resumed(void **state) {
  (void)state;
  cancel_and_resume("cancelled", &args, 1, unbroken());
}

/* The layers of a cross-layer transcoder keep their sums together. */
static void test_layers_are_resumed(void **state) {
  (void)state;
  char *want = run_unbroken(&layers, 2, 3);
  assert_true(*want != '\0');
  cancel_and_resume("layers", &layers, 2, want);
  free(want);
}

/* A process that runs jobs until none is left, killed after so many microseconds; true when it ended by itself. */
static bool run_and_kill(const char *path, unsigned microseconds, bool start) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct error error = ERROR_INIT;
    int64_t id = 1;
    struct lab *lab = open_lab(path, true);
    int failed = start ? lab_eval_start(lab, &args, &id, &error) : 0;
    for (int i = 0; !failed && i < PATIENCE && look(lab, id).state != STORE_DONE; i++) usleep(1000);
    lab_close(lab);
    _exit(failed ? 1 : 0);
  }
  int status;
  int64_t end = clock_ns() + (int64_t)microseconds * 1000;
  while (clock_ns() < end) {
    if (waitpid(child, &status, WNOHANG) == child) return true;
    usleep(200);
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return WIFEXITED(status);
}

/* The first process makes the job; the others find it. */
static void test_killed(void **state) {
  (void)state;
  const char *want = unbroken();
  char path[160];
  int64_t begin = clock_ns();
  assert_true(run_and_kill(store_path("timing"), 60000000, true));
  unsigned whole = (unsigned)((clock_ns() - begin) / 1000);
  snprintf(path, sizeof path, "%s", store_path("killed"));
  struct lab *lab = open_lab(path, false);
  struct error error = ERROR_INIT;
  int64_t id;
  assert_int_equal(lab_eval_start(lab, &args, &id, &error), 0);
  assert_int_equal(id, 1);
  lab_close(lab);
  srand(7);
  for (int kills = 0; kills < KILLS && !run_and_kill(path, (unsigned)((double)rand() / RAND_MAX * whole), false);) kills++;
  assert_true(run_and_kill(path, 60000000, false));
  lab = open_lab(path, false);
  char *text = dump(lab);
  assert_string_equal(text, want);
  free(text);
  lab_close(lab);
}

static int make_folder(void **state) {
  (void)state;
  log_set_level(LOG_LEVEL_ERROR);
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  char command[64];
  free(unbroken());
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_tells_how_far_it_is), cmocka_unit_test(test_cancelled_and_resumed),
                                     cmocka_unit_test(test_layers_are_resumed),
                                     cmocka_unit_test(test_killed)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
