/* The statistics job as its users meet it: interrupted, killed and resumed it ends as an unbroken run does, byte for
 * byte; it leaves room for others; what it cannot do it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "tests/unit/child.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define KILLS 25

static char folder[] = "/tmp/steerd-stats-XXXXXX";
static struct lab_model_spec model = {"tiny", TINY "model"};

static const char *dictionary = TINY "sources/1-res-relu";

static struct lab *open_lab(const char *store, bool run_jobs, struct error *error) {
  const struct lab_source_spec source = {"tiny", "1-res-relu", dictionary};
  struct lab_options options = {.models = &model, .n_models = 1, .sources = &source, .n_sources = 1, .threads = 2,
                                .store = store, .holder = "test", .run_jobs = run_jobs, .checkpoint_ms = 1,
                                .max_queue = 8, .max_step_rows = 128, .max_sessions = 8, .queue_timeout_ms = 60000,
                                .generation_timeout_ms = 60000};
  return lab_open(&options, error);
}

static struct lab_stats_args stats_args(void) {
  struct lab_stats_args args = LAB_STATS_DEFAULTS;
  args.model_id = "tiny";
  args.source_id = "1-res-relu";
  args.corpus = TINY "corpus.txt";
  args.n_top = 5;
  args.window = 16;
  return args;
}

static char *store_path(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s.sqlite", folder, name);
  return path;
}

static bool go_on(void *context, const struct lab_progress *progress) {
  (void)context;
  (void)progress;
  return false;
}

static int run(const char *store, bool (*tell)(void *, const struct lab_progress *), void *context,
               struct error *error) {
  struct lab *lab = open_lab(store, false, error);
  if (!lab) return -1;
  struct lab_stats_args args = stats_args();
  int failed = lab_stats_run(lab, &args, tell, context, error);
  lab_close(lab);
  return failed;
}

/* ---- everything that is known of every feature, as text ---- */

static void dump_feature(const struct store_feature *f, struct buffer *out) {
  buffer_printf(out, "%u %u %lld %a %a %a\n", f->index, f->groups, (long long)f->n_fired, f->rate, f->mean, (double)f->max);
  for (size_t i = 0; i < f->activity.n; i++)
    buffer_printf(out, "%a:%a ", (double)f->activity.values[i], (double)f->activity.heights[i]);
  for (size_t i = 0; i < f->top.n; i++)
    buffer_printf(out, "%s=%a %s=%a ", f->top.texts[i].text, (double)f->top.values[i], f->bottom.texts[i].text,
                  (double)f->bottom.values[i]);
  for (size_t i = 0; i < f->n_neighbours; i++) buffer_printf(out, "%u~%a ", f->neighbours[i], (double)f->cosines[i]);
  for (size_t i = 0; i < f->n_examples; i++) {
    const struct store_example *e = &f->examples[i];
    buffer_printf(out, "\n  %d %a %a %a %d %lld %lld:", e->slot, (double)e->bin_min, (double)e->bin_max,
                  (double)e->bin_contains, e->qualifying, (long long)e->document, (long long)e->position);
    for (size_t k = 0; k < e->n; k++) buffer_printf(out, " %s/%a", e->tokens[k].text, (double)e->values[k]);
  }
  for (size_t i = 0; i < f->n_explanations; i++) buffer_printf(out, "\n  \"%s\"", f->explanations[i].description);
  buffer_char(out, '\n');
}

static char *dump(const char *path) {
  struct error error = ERROR_INIT;
  struct store_options options = {.path = path, .check = STORE_CHECK_FULL};
  struct store *store = store_open(&options, &error);
  if (!store) fail_msg("%s", error.text);
  struct buffer out;
  buffer_init(&out, 0);
  for (uint32_t f = 0; f < 96; f++) {
    struct arena arena;
    struct store_feature feature;
    arena_init(&arena, 0);
    if (store_feature_get(store, 1, f, 1000, &arena, &feature, &error) != 1) fail_msg("feature %u: %s", f, error.text);
    dump_feature(&feature, &out);
    arena_clear(&arena);
  }
  store_close(store);
  return out.data;
}

static char *unbroken(void) {
  static char *text;
  struct error error = ERROR_INIT;
  if (text) return text;
  if (run(store_path("unbroken"), go_on, NULL, &error) != 0) fail_msg("%s", error.text);
  return text = dump(store_path("unbroken"));
}

/* ---- tests ---- */

static void test_has_everything(void **state) {
  (void)state;
  const char *text = unbroken();
  assert_true(strlen(text) > 20000);
  assert_non_null(strstr(text, "fires on"));
  assert_non_null(strstr(text, "promotes"));
}

/* Stops at every third report, again and again, until it is done. */
static bool stop_now_and_then(void *context, const struct lab_progress *progress) {
  (void)progress;
  return ++*(int *)context % 3 == 0;
}

static void test_interrupted(void **state) {
  (void)state;
  int reports = 0, rounds = 0, failed;
  do {
    struct error error = ERROR_INIT;
    failed = run(store_path("interrupted"), stop_now_and_then, &reports, &error);
    if (failed) assert_int_equal(error.code, ERROR_CANCELLED);
    assert_true(++rounds < 200);
  } while (failed);
  assert_true(rounds >= 2);
  char *text = dump(store_path("interrupted"));
  assert_string_equal(text, unbroken());
  free(text);
}

/* A process that runs the job and is killed after so many microseconds; true when it finished first. */
static bool run_and_kill(const char *path, unsigned microseconds) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct error error = ERROR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    _exit(run(path, go_on, NULL, &error) == 0 ? 0 : 1);
  }
  return child_ends_within(child, microseconds);
}

/* Kills at random moments over the length of a run; every resumed run ends with the same bytes. */
static void test_killed(void **state) {
  (void)state;
  const char *want = unbroken();
  char path[160];
  snprintf(path, sizeof path, "%s", store_path("killed"));
  int64_t begin = clock_ns();
  assert_true(run_and_kill(store_path("timing"), 60000000));
  unsigned whole = (unsigned)((clock_ns() - begin) / 1000);
  srand(28);
  int kills = 0, finished = 0;
  while (kills < KILLS) {
    if (!run_and_kill(path, (unsigned)((double)rand() / RAND_MAX * whole))) {
      kills++;
      continue;
    }
    char *text = dump(path);
    assert_string_equal(text, want);
    free(text);
    finished++;
    snprintf(path, sizeof path, "%s/killed-%d.sqlite", folder, finished);
  }
  while (!run_and_kill(path, 60000000)) assert_true(false);
  char *text = dump(path);
  assert_string_equal(text, want);
  free(text);
}

static void test_second_writer(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct lab *first = open_lab(store_path("taken"), false, &error);
  assert_non_null(first);
  assert_null(open_lab(store_path("taken"), false, &error));
  assert_int_equal(error.code, ERROR_BUSY);
  assert_non_null(strstr(error.text, "test"));
  lab_close(first);
}

static void on_wake(void *context) { (*(int *)context)++; }

/* As a daemon runs it: queued, watched, and other requests are answered meanwhile. */
static void test_in_the_background(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  int wakes = 0;
  int64_t id = 0;
  struct lab *lab = open_lab(store_path("daemon"), true, &error);
  assert_non_null(lab);
  struct lab_watch *watch = lab_watch(lab, (struct lab_waker){on_wake, &wakes, 0});
  struct lab_stats_args args = stats_args();
  assert_int_equal(lab_stats_start(lab, &args, &id, &error), 0);
  struct lab_progress progress;
  for (int i = 0;; i++) {
    struct arena arena;
    arena_init(&arena, 0);
    assert_int_equal(lab_long_job(lab, id, &arena, &progress, &error), 0);
    arena_clear(&arena);
    if (progress.job.state == STORE_DONE) break;
    assert_true(progress.job.state == STORE_QUEUED || progress.job.state == STORE_RUNNING);
    assert_true(i < 6000);
    usleep(10000);
  }
  lab_unwatch(lab, watch);
  assert_true(wakes > 0);
  lab_close(lab);
  char *text = dump(store_path("daemon"));
  assert_string_equal(text, unbroken());
  free(text);
}

static void test_refusals(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  int64_t id;
  struct lab *lab = open_lab(store_path("refusals"), false, &error);
  struct lab_stats_args args = stats_args();
  args.n_top = 101;
  assert_int_equal(lab_stats_start(lab, &args, &id, &error), -1);
  assert_string_equal(error.field, "nTop");
  error_clear(&error);
  args = stats_args();
  args.corpus = "no/such/file.txt";
  assert_int_equal(lab_stats_run(lab, &args, go_on, NULL, &error), -1);
  assert_int_equal(error.code, ERROR_NOT_FOUND);
  assert_non_null(strstr(error.text, "no/such/file.txt"));
  lab_close(lab);
  error_clear(&error);
  lab = open_lab(NULL, false, &error);
  assert_int_equal(lab_stats_start(lab, &args, &id, &error), -1);
  assert_int_equal(error.code, ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.text, "--store"));
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

static bool stop_once_kept(void *context, const struct lab_progress *progress) {
  (void)context;
  return progress->job.message && strcmp(progress->job.message, "counting") == 0 && progress->job.done > 0;
}

/* The last weight of the file, which is the last row's of some matrix or vector. */
static void change_last_weight(const char *path) {
  float weight = 0;
  FILE *file = fopen(path, "r+b");
  assert_non_null(file);
  assert_int_equal(fseek(file, -4, SEEK_END), 0);
  assert_int_equal(fread(&weight, 4, 1, file), 1);
  weight += 0.5f;
  assert_int_equal(fseek(file, -4, SEEK_END), 0);
  assert_int_equal(fwrite(&weight, 4, 1, file), 1);
  fclose(file);
}

/* Counts of two dictionaries are never mixed. */
static void test_another_dictionary(void **state) {
  (void)state;
  static char copy[128], weights[192], command[512];
  struct error error = ERROR_INIT;
  snprintf(copy, sizeof copy, "%s/dictionary", folder);
  snprintf(weights, sizeof weights, "%s/sae_weights.safetensors", copy);
  snprintf(command, sizeof command, "cp -r " TINY "sources/1-res-relu '%s'", copy);
  assert_int_equal(system(command), 0);
  dictionary = copy;
  assert_int_equal(run(store_path("changed"), stop_once_kept, NULL, &error), -1);
  assert_int_equal(error.code, ERROR_CANCELLED);
  change_last_weight(weights);
  error = (struct error)ERROR_INIT;
  log_set_level(LOG_LEVEL_ERROR);
  assert_int_equal(run(store_path("changed"), go_on, NULL, &error), -1);
  assert_int_equal(error.code, ERROR_ARGUMENT);
  assert_non_null(strstr(error.text, "another one"));
  dictionary = TINY "sources/1-res-relu";
}

/* Documents behind the statistics that the store has of the source; 0: it has none. */
static int64_t documents_counted(const char *path) {
  struct error error = ERROR_INIT;
  struct store_options options = {.path = path};
  struct store_source row;
  struct arena arena;
  arena_init(&arena, 0);
  struct store *store = store_open(&options, &error);
  if (!store || store_source_at(store, 1, &arena, &row, &error) != 1) fail_msg("%s", error.text);
  int64_t documents = row.statistics.n_documents;
  store_close(store);
  arena_clear(&arena);
  return documents;
}

/* The same dictionary over a model whose weights are processed sees other rows: what was counted over the raw ones is not gone on
 * with, nor shown as its own. */
static void test_processed_model(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  assert_int_equal(run(store_path("processed"), stop_once_kept, NULL, &error), -1);
  assert_int_equal(error.code, ERROR_CANCELLED);
  model.path = TINY "model?process";
  error = (struct error)ERROR_INIT;
  assert_int_equal(run(store_path("processed"), go_on, NULL, &error), -1);
  assert_int_equal(error.code, ERROR_ARGUMENT);
  assert_non_null(strstr(error.text, "another one"));
  model.path = TINY "model";
  error = (struct error)ERROR_INIT;
  if (run(store_path("both"), go_on, NULL, &error) != 0) fail_msg("%s", error.text);
  assert_true(documents_counted(store_path("both")) > 0);
  lab_close(open_lab(store_path("both"), false, &error));
  assert_true(documents_counted(store_path("both")) > 0); /* the same model again changes nothing */
  model.path = TINY "model?process";
  lab_close(open_lab(store_path("both"), false, &error));
  assert_int_equal(documents_counted(store_path("both")), 0);
  model.path = TINY "model";
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_has_everything),    cmocka_unit_test(test_interrupted), cmocka_unit_test(test_another_dictionary),
                                     cmocka_unit_test(test_processed_model),
                                     cmocka_unit_test(test_killed),            cmocka_unit_test(test_second_writer),
                                     cmocka_unit_test(test_in_the_background), cmocka_unit_test(test_refusals)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
