/* test_dict_points.c: dictionaries on points that are no residual stream, inside a running model, against PyTorch
 * (tests/vectors/dict-points): activations, steering at a transcoder's output, logits of rows that W_O is to carry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "core/analysis/tables.h"
#include "core/base/json.h"
#include "core/core.h"
#include "tests/unit/lab_waiter.h"
#include "tests/unit/vectors.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define HERE "tests/vectors/dict-points/"
enum { FEATURES = 64, RECORDED = 16 }; /* of each dictionary; those whose logits are recorded */

static const struct lab_source_spec sources[] = {
    {"tiny", "1-tc", HERE "1-tc"}, {"tiny", "2-skip", HERE "2-skip"}, {"tiny", "2-z", HERE "2-z"}};
static const struct lab_model_spec model_spec = {"tiny", TINY "model"};
enum { SOURCES = sizeof sources / sizeof sources[0] };

/* ---- a lab ---- */

static void must_be_done(struct lab_job *job) {
  struct error error;
  if (wait_for(job) == LAB_JOB_DONE) return;
  lab_job_error(job, &error);
  fail_msg("%s", error.text);
}

static struct lab *open_lab(const char *backend) {
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model_spec, .n_models = 1, .sources = sources, .n_sources = SOURCES,
                                .backend = backend, .threads = 2, .max_queue = 8, .max_step_rows = 16, .max_sessions = 4,
                                .queue_timeout_ms = 60000, .generation_timeout_ms = 60000};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

static char *prompt(size_t i) {
  struct json_node *root = json_load(TINY "expected.json", 1 << 20, 32, NULL);
  char *text = strdup(json_text(json_get(json_at(json_get(root, "prompts"), i), "text"), NULL));
  json_free(root);
  return text;
}

/* ---- activations ---- */

static void check_feature(struct lab *lab, const struct tensors *want, const char *source, int64_t index,
                          const char *text) {
  char key[96];
  size_t count;
  snprintf(key, sizeof key, "%s/features", source);
  float *dense = vectors_f32(want, key, &count);
  size_t n = count / FEATURES;
  struct lab_text one = {text, strlen(text)};
  struct lab_activations_args args = {.model = lab_find_model(lab, NULL, NULL), .form = LAB_ONE_FEATURE,
                                      .source_ids = &source, .n_sources = 1, .index = index, .texts = &one,
                                      .n_texts = 1, .n_results = 1};
  struct lab_job *job;
  struct error error = ERROR_INIT;
  if (lab_activations(lab, &args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  must_be_done(job);
  const struct lab_text_activations *got = lab_activations_result(job, &(size_t){0});
  assert_int_equal(got->n_tokens, n - 1); /* BOS is not counted */
  for (size_t i = 0; i + 1 < n; i++) dense[i] = dense[(i + 1) * FEATURES + (size_t)index];
  assert_true(vectors_agree(key, got->features[0].values, dense, n - 1));
  free(dense);
  lab_job_free(job);
}

static void activations_as_recorded(void **state) {
  (void)state;
  static const char *const backends[] = {"ref", "cpu"};
  struct tensors *want = vectors_open(HERE "expected.safetensors");
  char *text = prompt(1);
  for (int b = 0; b < 2; b++) {
    struct lab *lab = open_lab(backends[b]);
    for (int s = 0; s < SOURCES; s++)
      for (int64_t f = 0; f < FEATURES; f += 7) check_feature(lab, want, sources[s].source_id, f, text);
    lab_close(lab);
  }
  free(text);
  tensors_close(want);
}

/* ---- steering ---- */

static void a_transcoder_steers_at_its_output(void **state) {
  (void)state;
  struct json_node *want = json_load(HERE "expected.json", 1 << 20, 8, NULL);
  struct lab *lab = open_lab("cpu");
  struct lab_steer_feature feature = {json_text(json_get(want, "source"), NULL), json_int_or(json_get(want, "feature"), -1),
                                      json_number_or(json_get(want, "strength"), 0)};
  char *text = prompt(0);
  struct lab_steer_args args = {.model = lab_find_model(lab, NULL, NULL), .prompt = text, .prompt_length = strlen(text),
                                .features = &feature, .n_features = 1, .strength_multiplier = 1, .want = {true, true},
                                .steer_special_tokens = true, .n_tokens = 24, .top_p = 1, .n_logprobs = -1};
  struct lab_job *job;
  struct arena arena;
  struct lab_generated out;
  arena_init(&arena, 0);
  assert_int_equal(lab_steer(lab, &args, waker, &job, NULL), 0);
  must_be_done(job);
  assert_int_equal(lab_steer_read(job, LAB_STEERED, &arena, &out, NULL), 0);
  assert_string_equal(out.text, json_text(json_get(want, "greedy_text"), NULL));
  arena_clear(&arena);
  lab_job_free(job);
  lab_close(lab);
  free(text);
  json_free(want);
}

/* ---- logits ---- */

static void check_logits(const struct feature_logits *got, const float *want, size_t vocabulary) {
  float top[TABLE_LOGITS], bottom[TABLE_LOGITS];
  for (int i = 0; i < TABLE_LOGITS; i++) {
    top[i] = want[got->top[i]];
    bottom[i] = want[got->bottom[i]];
  }
  assert_true(vectors_agree("top logits", got->top_value, top, TABLE_LOGITS));
  assert_true(vectors_agree("bottom logits", got->bottom_value, bottom, TABLE_LOGITS));
  size_t above = 0, below = 0;
  for (size_t v = 0; v < vocabulary; v++) {
    above += want[v] > top[TABLE_LOGITS - 1];
    below += want[v] < bottom[TABLE_LOGITS - 1];
  }
  assert_true(above < TABLE_LOGITS + 1 && below < TABLE_LOGITS + 1); /* equals may change places */
}

static void logits_as_recorded(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct tensors *file = vectors_open(HERE "expected.safetensors");
  struct backend *backend = backend_open("cpu", 2, NULL);
  struct model *model = model_open("tiny", TINY "model", backend, &error);
  struct plan *plan = model ? plan_new(model, (struct plan_limits){16, 16}, &error) : NULL;
  if (!plan) fail_msg("%s", error.text);
  struct dict_host host = {"tiny", &model->arch, NULL, NULL};
  for (int s = 0; s < SOURCES; s++) {
    char key[96];
    size_t count;
    snprintf(key, sizeof key, "%s/logits", sources[s].source_id);
    float *want = vectors_f32(file, key, &count);
    struct dict *dict = dict_open(sources[s].path, sources[s].source_id, &host, backend, &error);
    if (!dict) fail_msg("%s", error.text);
    static struct feature_logits made[RECORDED];
    uint32_t features[RECORDED];
    for (uint32_t i = 0; i < RECORDED; i++) features[i] = i;
    if (tables_logits(dict, plan, (int64_t)(count / RECORDED), features, RECORDED, made, &error) != 0) fail_msg("%s", error.text);
    for (int i = 0; i < RECORDED; i++) check_logits(&made[i], want + (size_t)i * (count / RECORDED), count / RECORDED);
    dict_close(dict);
    free(want);
  }
  plan_free(plan);
  model_close(model);
  backend_close(backend);
  tensors_close(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(activations_as_recorded),
                                     cmocka_unit_test(a_transcoder_steers_at_its_output),
                                     cmocka_unit_test(logits_as_recorded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
