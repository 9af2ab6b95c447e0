/* The front door over the tiny GPT-2: steering and activations against PyTorch, and the promises of the engine: the
 * same bits alone, in company, in any order; forks equal separate runs; cancelling touches only its own job. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <unistd.h>

#include "core/base/json.h"
#include "core/base/log.h"
#include "core/core.h"
#include "tests/unit/lab_waiter.h"
#include "tests/unit/vectors.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define MAX_JOBS 16

static const struct lab_source_spec sources[] = {{"tiny", "1-res-relu", TINY "sources/1-res-relu"},
                                                 {"tiny", "0-mlp-topk", TINY "sources/0-mlp-topk"},
                                                 {"tiny", "2-res-jump", TINY "sources/2-res-jump"}};
static const struct lab_model_spec model = {"tiny", TINY "model"};

/* ---- a lab ---- */

static struct lab *open_lab(const char *backend, int threads, int step_rows) {
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = sources,
                                .n_sources = sizeof sources / sizeof sources[0], .backend = backend,
                                .threads = threads, .max_queue = 32, .max_step_rows = step_rows, .max_sessions = 16,
                                .queue_timeout_ms = 60000, .generation_timeout_ms = 60000};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

static struct lab_steer_args steer_args(struct lab *lab, const char *prompt) {
  const struct lab_model_info *info = lab_find_model(lab, NULL, NULL);
  assert_non_null(info);
  return (struct lab_steer_args){.model = info, .prompt = prompt, .prompt_length = strlen(prompt),
                                 .strength_multiplier = 1, .want = {true, true}, .steer_special_tokens = true,
                                 .n_tokens = 24, .top_p = 1, .n_logprobs = -1};
}

static struct lab_job *start(struct lab *lab, const struct lab_steer_args *args) {
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  if (lab_steer(lab, args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  return job;
}

/* Both texts of a job, freed by the caller; the job is freed here. */
static void finish(struct lab_job *job, char *texts[2]) {
  if (wait_for(job) != LAB_JOB_DONE) {
    struct error error;
    lab_job_error(job, &error);
    fail_msg("%s", error.text);
  }
  struct arena arena;
  arena_init(&arena, 0);
  for (int i = 0; i < 2; i++) {
    struct lab_generated out;
    struct error error = ERROR_INIT;
    assert_int_equal(lab_steer_read(job, i, &arena, &out, &error), 0);
    texts[i] = out.text ? strdup(out.text) : NULL;
  }
  arena_clear(&arena);
  lab_job_free(job);
}

static void free_texts(char *texts[2]) {
  free(texts[0]);
  free(texts[1]);
}

/* ---- recorded answers ---- */

static struct json_node *answers(const char *file) {
  struct error error = ERROR_INIT;
  struct json_node *root = json_load(file, 1 << 20, 32, &error);
  if (!root) fail_msg("%s", error.text);
  return root;
}

static const struct json_node *prompt_at(const struct json_node *root, size_t i) {
  return json_at(json_get(root, "prompts"), i);
}

static const char *text_of(const struct json_node *object, const char *key) {
  const char *text = json_text(json_get(object, key), NULL);
  if (!text) fail_msg("no '%s' is recorded", key);
  return text;
}

static const char *const backends[] = {"ref", "cpu"};

static void test_greedy_and_steered_texts(void **state) {
  (void)state;
  struct json_node *plain = answers(TINY "expected.json"), *steered = answers(TINY "expected-sources.json");
  static const struct lab_steer_feature two[] = {{"1-res-relu", 3, 4.0}, {"1-res-relu", 17, -2.5}};
  static const struct {
    const char *name;
    enum lab_steer_method method;
    size_t n;
  } methods[] = {{"simple_additive", LAB_STEER_ADD, 2}, {"orthogonal_decomp", LAB_STEER_ORTHOGONAL, 1}};
  for (size_t b = 0; b < 2; b++) {
    struct lab *lab = open_lab(backends[b], 2, 64);
    for (size_t m = 0; m < 2; m++) {
      const struct json_node *method = json_get(json_get(steered, "steered"), methods[m].name);
      for (size_t i = 0; i < 2; i++) {
        struct lab_steer_args args = steer_args(lab, text_of(prompt_at(plain, i), "text"));
        args.features = two;
        args.n_features = methods[m].n;
        args.method = methods[m].method;
        char *texts[2];
        finish(start(lab, &args), texts);
        assert_string_equal(texts[LAB_DEFAULT], text_of(prompt_at(plain, i), "greedy_text"));
        assert_string_equal(texts[LAB_STEERED], text_of(json_at(json_get(method, "continuations"), i), "greedy_text"));
        free_texts(texts);
      }
    }
    lab_close(lab);
  }
  json_free(plain);
  json_free(steered);
}

/* ---- same bits ---- */

static const struct lab_steer_feature late[] = {{"2-res-jump", 5, 9.0}};
static const struct lab_steer_feature middle[] = {{"1-res-relu", 40, 7.0}, {"1-res-relu", 3, -3.0}};
static const struct lab_steer_feature early[] = {{"0-mlp-topk", 11, 8.0}};
static const char *const prompts[] = {
    "The ship turned", "A letter", "In the morning there was a letter under the door, and nobody had knocked; ",
    "One night a ship came near the rocks, late in the year, when the wind had been blowing from the north for three"};

/* Request i of a mixed load: prompts, edits at several layers, methods, sampling. */
static struct lab_steer_args mixed(struct lab *lab, int i) {
  struct lab_steer_args args = steer_args(lab, prompts[i % 4]);
  const struct lab_steer_feature *const lists[] = {late, middle, early, NULL};
  const size_t counts[] = {1, 2, 1, 0};
  args.features = lists[i % 4];
  args.n_features = counts[i % 4];
  args.method = (enum lab_steer_method)(i % 3);
  args.temperature = i % 2 ? 0.9 : 0;
  args.top_p = i % 5 == 1 ? 0.9 : 1;
  args.top_k = i % 5 == 3 ? 20 : 0;
  args.frequency_penalty = i % 3 == 2 ? 0.5 : 0;
  args.seed = 7 * i;
  args.n_tokens = 8 + i;
  args.want[LAB_DEFAULT] = i % 7 != 5;
  return args;
}

/* Alone, one after the other; then all at once; with other numbers of threads and other step sizes: same bytes. */
static void test_load_changes_no_byte(void **state) {
  (void)state;
  char *alone[MAX_JOBS][2];
  struct lab *lab = open_lab("cpu", 1, 64);
  for (int i = 0; i < MAX_JOBS; i++) {
    struct lab_steer_args args = mixed(lab, i);
    finish(start(lab, &args), alone[i]);
  }
  lab_close(lab);
  static const int shapes[][2] = {{1, 16}, {2, 64}, {3, 256}};
  for (size_t k = 0; k < 3; k++) {
    struct lab_job *jobs[MAX_JOBS];
    lab = open_lab("cpu", shapes[k][0], shapes[k][1]);
    for (int i = 0; i < MAX_JOBS; i++) {
      struct lab_steer_args args = mixed(lab, i);
      jobs[i] = start(lab, &args);
    }
    for (int i = 0; i < MAX_JOBS; i++) {
      char *texts[2];
      finish(jobs[i], texts);
      for (int o = 0; o < 2; o++) {
        assert_true(!texts[o] == !alone[i][o]);
        if (texts[o]) assert_string_equal(texts[o], alone[i][o]);
      }
      free_texts(texts);
    }
    lab_close(lab);
  }
  int differ = 0;
  for (int i = 0; i < MAX_JOBS; i++) {
    differ += alone[i][0] && alone[i][1] && strcmp(alone[i][0], alone[i][1]) != 0;
    free_texts(alone[i]);
  }
  assert_true(differ >= 6); /* the edits did something */
}

/* STEERED that forks from DEFAULT's prompt equals STEERED that was asked for alone and shares nothing. */
static void test_fork_equals_separate(void **state) {
  (void)state;
  struct lab *lab = open_lab("cpu", 2, 64);
  const struct lab_steer_feature *const lists[] = {early, middle, late};
  const size_t counts[] = {1, 2, 1};
  for (size_t p = 0; p < 4; p++) {
    for (size_t f = 0; f < 3; f++) {
      struct lab_steer_args args = steer_args(lab, prompts[p]);
      args.features = lists[f];
      args.n_features = counts[f];
      char *both[2], *only[2];
      finish(start(lab, &args), both);
      args.want[LAB_DEFAULT] = false;
      finish(start(lab, &args), only);
      assert_string_equal(both[LAB_STEERED], only[LAB_STEERED]);
      assert_null(only[LAB_DEFAULT]);
      free_texts(both);
      free_texts(only);
    }
  }
  lab_close(lab);
}

static void test_no_features_is_default(void **state) {
  (void)state;
  struct lab *lab = open_lab("cpu", 2, 64);
  struct lab_steer_args args = steer_args(lab, prompts[0]);
  char *texts[2];
  finish(start(lab, &args), texts);
  assert_string_equal(texts[LAB_STEERED], texts[LAB_DEFAULT]);
  free_texts(texts);
  static const struct lab_steer_feature none[] = {{"1-res-relu", 3, 0.0}};
  args.features = none;
  args.n_features = 1;
  finish(start(lab, &args), texts);
  assert_string_equal(texts[LAB_STEERED], texts[LAB_DEFAULT]);
  free_texts(texts);
  lab_close(lab);
}

/* ---- activations ---- */

static const struct lab_text_activations *run_activations(struct lab *lab, const struct lab_activations_args *args,
                                                          struct lab_job **job) {
  struct error error = ERROR_INIT;
  size_t n;
  if (lab_activations(lab, args, waker, job, &error) != 0) fail_msg("%s", error.text);
  if (wait_for(*job) != LAB_JOB_DONE) {
    lab_job_error(*job, &error);
    fail_msg("%s", error.text);
  }
  const struct lab_text_activations *result = lab_activations_result(*job, &n);
  assert_int_equal(n, args->n_texts);
  return result;
}

/* One feature at every token, against the recorded dense activations, BOS left out (the source does not count it). */
static void check_feature(struct lab *lab, const struct tensors *want, const char *source, int64_t index,
                          const char *text) {
  char key[96];
  size_t count;
  snprintf(key, sizeof key, "%s/p1/features", source);
  float *dense = vectors_f32(want, key, &count);
  size_t n_feat = 96, n = count / n_feat;
  struct lab_text one = {text, strlen(text)};
  struct lab_activations_args args = {.model = lab_find_model(lab, NULL, NULL), .form = LAB_ONE_FEATURE,
                                      .source_ids = &source, .n_sources = 1, .index = index, .texts = &one,
                                      .n_texts = 1, .n_results = 1};
  struct lab_job *job;
  const struct lab_text_activations *got = run_activations(lab, &args, &job);
  assert_int_equal(got->n_tokens, n - 1);
  assert_int_equal(got->position_offset, 1);
  float *column = malloc(n * sizeof *column);
  for (size_t i = 0; i + 1 < n; i++) column[i] = dense[(i + 1) * n_feat + (size_t)index];
  assert_true(vectors_agree(key, got->features[0].values, column, n - 1));
  free(column);
  free(dense);
  lab_job_free(job);
}

static void test_one_feature(void **state) {
  (void)state;
  struct tensors *want = vectors_open(TINY "expected-sources.safetensors");
  struct json_node *plain = answers(TINY "expected.json");
  for (size_t b = 0; b < 2; b++) {
    struct lab *lab = open_lab(backends[b], 2, b ? 16 : 256); /* 16: several chunks a text */
    for (int64_t f = 0; f < 96; f += 19) {
      check_feature(lab, want, "1-res-relu", f, text_of(prompt_at(plain, 1), "text"));
      check_feature(lab, want, "0-mlp-topk", f, text_of(prompt_at(plain, 1), "text"));
      check_feature(lab, want, "2-res-jump", f, text_of(prompt_at(plain, 1), "text"));
    }
    lab_close(lab);
  }
  json_free(plain);
  tensors_close(want);
}

/* The strongest features at each token and over the text are those of the dense table. */
static void test_top_features(void **state) {
  (void)state;
  struct tensors *want = vectors_open(TINY "expected-sources.safetensors");
  struct json_node *plain = answers(TINY "expected.json");
  const char *text = text_of(prompt_at(plain, 1), "text"), *source = "1-res-relu";
  struct lab_text one = {text, strlen(text)};
  size_t count;
  float *dense = vectors_f32(want, "1-res-relu/p1/features", &count);
  size_t n = count / 96;
  struct lab *lab = open_lab("cpu", 2, 16);
  struct lab_activations_args args = {.model = lab_find_model(lab, NULL, NULL), .form = LAB_TOP_BY_TOKEN,
                                      .source_ids = &source, .n_sources = 1, .texts = &one, .n_texts = 1,
                                      .n_results = 4};
  struct lab_job *job;
  const struct lab_text_activations *got = run_activations(lab, &args, &job);
  assert_int_equal(got->n_tokens, n - 1);
  for (size_t i = 0; i + 1 < n; i++) {
    float left = INFINITY;
    assert_true(got->n_top[i] >= 3); /* at least three fire at every position, by construction */
    for (int k = 0; k < got->n_top[i]; k++) {
      const struct lab_token_feature *top = &got->top[i][k];
      assert_true(top->value <= left);
      left = top->value;
      assert_true(fabsf(top->value - dense[(i + 1) * 96 + (size_t)top->index]) <= 1e-4f * fmaxf(1, top->value));
    }
    for (size_t f = 0; got->n_top[i] == 4 && f < 96; f++) { /* nothing stronger was left out */
      bool listed = false;
      for (int k = 0; k < 4; k++) listed |= got->top[i][k].index == (int64_t)f;
      assert_true(listed || dense[(i + 1) * 96 + f] <= left + 1e-4f);
    }
  }
  lab_job_free(job);
  args.form = LAB_TOP_OVER_TEXT;
  got = run_activations(lab, &args, &job);
  assert_int_equal(got->n_features, 4);
  for (size_t k = 0; k < 4; k++) {
    float most = 0;
    for (size_t i = 1; i < n; i++) most = fmaxf(most, dense[i * 96 + (size_t)got->features[k].index]);
    assert_true(fabsf(most - got->features[k].max) <= 1e-4f * fmaxf(1, most));
    assert_true(k == 0 || got->features[k].max <= got->features[k - 1].max);
    assert_true(got->features[k].values[got->features[k].max_position] == got->features[k].max);
  }
  lab_job_free(job);
  lab_close(lab);
  free(dense);
  json_free(plain);
  tensors_close(want);
}

/* More texts than sessions: they take turns, and each has the values it has alone. */
static void test_many_texts(void **state) {
  (void)state;
  enum { TEXTS = 40 }; /* of 16 sessions */
  struct lab *lab = open_lab("cpu", 2, 64);
  struct lab_text texts[TEXTS];
  char words[TEXTS][32];
  const char *source = "1-res-relu";
  struct lab_job *job, *alone;
  for (int i = 0; i < TEXTS; i++) {
    snprintf(words[i], sizeof words[i], "ship number %d of %d", i, TEXTS - i);
    texts[i] = (struct lab_text){words[i], strlen(words[i])};
  }
  struct lab_activations_args args = {.model = lab_find_model(lab, NULL, NULL), .form = LAB_ONE_FEATURE,
                                      .source_ids = &source, .n_sources = 1, .index = 7, .texts = texts,
                                      .n_texts = TEXTS, .n_results = 1};
  const struct lab_text_activations *all = run_activations(lab, &args, &job);
  for (int i = 0; i < TEXTS; i += 13) {
    args.texts = &texts[i];
    args.n_texts = 1;
    const struct lab_text_activations *one = run_activations(lab, &args, &alone);
    assert_int_equal(one->n_tokens, all[i].n_tokens);
    assert_memory_equal(one->features[0].values, all[i].features[0].values, one->n_tokens * sizeof(float));
    lab_job_free(alone);
  }
  lab_job_free(job);
  args.texts = texts;
  args.n_texts = TEXTS;
  struct error error = ERROR_INIT;
  for (int i = 0; i < 10; i++) { /* left at any moment */
    assert_int_equal(lab_activations(lab, &args, waker, &job, &error), 0);
    usleep(300 * (unsigned)i);
    lab_job_free(job);
  }
  lab_close(lab);
}

/* ---- cancelling, refusing ---- */

static void test_cancel_touches_its_own(void **state) {
  (void)state;
  struct lab *lab = open_lab("cpu", 2, 32);
  struct lab_steer_args args = mixed(lab, 1);
  char *want[2];
  finish(start(lab, &args), want);
  for (int round = 0; round < 10; round++) {
    struct lab_steer_args other = mixed(lab, 2 + round % 4);
    other.n_tokens = 100;
    struct lab_job *running = start(lab, &other), *kept = start(lab, &args), *queued = start(lab, &other);
    if (round % 2) usleep(1000 * (unsigned)round);
    lab_job_cancel(running);
    lab_job_free(queued); /* leaving cancels */
    char *texts[2];
    finish(kept, texts);
    assert_string_equal(texts[0], want[0]);
    assert_string_equal(texts[1], want[1]);
    free_texts(texts);
    enum lab_job_state end = wait_for(running);
    struct error error = ERROR_INIT;
    lab_job_error(running, &error);
    assert_true(end == LAB_JOB_DONE || error.code == ERROR_CANCELLED);
    lab_job_free(running);
  }
  free_texts(want);
  struct lab_stats stats;
  for (int i = 0; i < 200; i++) { /* cancelled work leaves within a step; the last step may still run */
    lab_stats(lab, &stats);
    if (stats.running == 0 && stats.queued == 0 && stats.kv_used_bytes == 0) break;
    usleep(10000);
  }
  assert_int_equal(stats.running, 0);
  assert_int_equal(stats.kv_used_bytes, 0);
  lab_close(lab);
}

static void test_refusals(void **state) {
  (void)state;
  struct lab *lab = open_lab("ref", 1, 32);
  struct lab_job *job = NULL;
  struct error error = ERROR_INIT;
  static const struct lab_steer_feature bad_index[] = {{"1-res-relu", 96, 1}};
  static const struct lab_steer_feature bad_source[] = {{"1-res-rel", 1, 1}};
  struct lab_steer_args args = steer_args(lab, "A letter");
  args.features = bad_index;
  args.n_features = 1;
  assert_int_equal(lab_steer(lab, &args, waker, &job, &error), -1);
  assert_int_equal(error.code, ERROR_NOT_FOUND);
  assert_string_equal(error.field, "features[0].index");
  assert_non_null(strstr(error.text, "96"));
  error_clear(&error);
  args.features = bad_source;
  assert_int_equal(lab_steer(lab, &args, waker, &job, &error), -1);
  assert_int_equal(error.code, ERROR_NOT_FOUND);
  assert_string_equal(error.field, "features[0].layer");
  assert_non_null(strstr(error.text, "did you mean '1-res-relu'"));
  error_clear(&error);
  char prompt[4096];
  memset(prompt, 'x', sizeof prompt - 1);
  prompt[sizeof prompt - 1] = '\0';
  args.n_features = 0;
  args.prompt = prompt;
  args.prompt_length = strlen(prompt);
  assert_int_equal(lab_steer(lab, &args, waker, &job, &error), -1);
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_string_equal(error.field, "prompt");
  error_clear(&error);
  args.prompt = "\xff\xfe";
  args.prompt_length = 2;
  assert_int_equal(lab_steer(lab, &args, waker, &job, &error), -1);
  assert_int_equal(error.code, ERROR_ARGUMENT);
  lab_close(lab);
}

int main(void) {
  log_set_level(LOG_LEVEL_ERROR);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_greedy_and_steered_texts), cmocka_unit_test(test_load_changes_no_byte),
      cmocka_unit_test(test_fork_equals_separate),     cmocka_unit_test(test_no_features_is_default),
      cmocka_unit_test(test_one_feature),              cmocka_unit_test(test_top_features),
      cmocka_unit_test(test_many_texts),
      cmocka_unit_test(test_cancel_touches_its_own),   cmocka_unit_test(test_refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
