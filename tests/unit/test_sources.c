/* Sources that come and go: requests on several threads while one is loaded and unloaded again and again; what may be loaded
 * and what is refused; that an unloaded one is freed when, and only when, nobody uses it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/base/log.h"
#include "tests/unit/api_client.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define RELU "{\"source\":\"1-res-relu\",\"path\":\"1-res-relu\"}"

static struct lab *lab;
static char folder[64];

static int open_all(void **state) {
  (void)state;
  static const struct lab_model_spec model = {"tiny", TINY "model"};
  static const struct lab_source_spec source = {"tiny", "2-res-jump", TINY "sources/2-res-jump"};
  static const char *const folders[] = {TINY "sources", folder};
  static const struct api_options settings = {.max_body = 1 << 20, .max_json_depth = 64, .max_result = 64 << 20,
                                              .max_features = 64, .max_texts = 256, .max_new_tokens = 256,
                                              .max_prompt_chars = 10000};
  struct error error = ERROR_INIT;
  snprintf(folder, sizeof folder, "/tmp/steerd-sources-XXXXXX");
  if (!mkdtemp(folder)) return -1;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = &source, .n_sources = 1, .threads = 2,
                                .max_queue = 64, .max_step_rows = 64, .max_sessions = 8, .queue_timeout_ms = 60000,
                                .generation_timeout_ms = 60000, .folders = folders, .n_folders = 2};
  lab = lab_open(&options, &error);
  if (lab) api = api_new(lab, &settings, &error);
  if (!api) fprintf(stderr, "%s\n", error.text);
  return api ? 0 : -1;
}

static int close_all(void **state) {
  (void)state;
  char command[96];
  api_free(api);
  lab_close(lab);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command);
}

/* How many sources are in a state; waits a little for those that are just being freed. */
static size_t count_state(enum lab_source_state state, size_t wanted) {
  size_t n = 0, count = 0;
  for (int i = 0; i < 500; i++) {
    struct arena arena;
    struct lab_source_status *rows;
    struct error error = ERROR_INIT;
    arena_init(&arena, 0);
    assert_int_equal(lab_source_list(lab, &arena, &rows, &n, &error), 0);
    count = 0;
    for (size_t k = 0; k < n; k++) count += rows[k].state == state;
    arena_clear(&arena);
    if (count == wanted) break;
    usleep(10000);
  }
  return count;
}

static int status_of(const char *method, const char *path, const char *body) {
  struct exchange x = ask(method, path, body);
  int status = x.status;
  forget(&x);
  return status;
}

/* ---- one after the other ---- */

static void test_load_and_unload(void **state) {
  (void)state;
  expect_error("POST", "/activations", "{\"source\":\"1-res-relu\",\"text\":\"hello\"}", 404, "not_found", NULL, "1-res-relu");
  struct exchange x = ask("POST", "/v1/sources", RELU);
  assert_int_equal(x.status, 201);
  assert_string_equal(member(&x, "state"), "ready");
  assert_int_equal(json_integer_value(json_object_get(x.json, "features")), 96);
  forget(&x);
  expect_error("POST", "/v1/sources", RELU, 409, "conflict", "source", "loaded already");
  x = expect_ok("POST", "/activations", "{\"source\":\"1-res-relu\",\"text\":\"hello\"}");
  forget(&x);
  x = expect_ok("GET", "/v1/sources", NULL);
  json_t *rows = json_object_get(x.json, "sources"), *last = json_array_get(rows, 1);
  assert_int_equal(json_array_size(rows), 2);
  assert_string_equal(json_string_value(json_object_get(last, "source")), "1-res-relu");
  assert_true(json_is_string(json_object_get(last, "lastUsedAt")));
  assert_true(json_integer_value(json_object_get(last, "bytes")) > 0);
  forget(&x);
  x = expect_ok("DELETE", "/v1/sources/tiny/1-res-relu", NULL);
  forget(&x);
  expect_error("POST", "/activations", "{\"source\":\"1-res-relu\",\"text\":\"hello\"}", 404, "not_found", NULL, "2-res-jump");
  expect_error("DELETE", "/v1/sources/tiny/1-res-relu", NULL, 404, "not_found", "source", "no source");
  assert_int_equal(count_state(LAB_SOURCE_UNLOADING, 0), 0);
  assert_int_equal(count_state(LAB_SOURCE_READY, 1), 1);
}

/* What was named at the start may be unloaded and loaded again, whatever folder it lies in. */
static void test_named_at_the_start(void **state) {
  (void)state;
  char here[400], body[512];
  assert_non_null(getcwd(here, sizeof here));
  snprintf(body, sizeof body, "{\"source\":\"2-res-jump\",\"path\":\"%s/" TINY "sources/2-res-jump\"}", here);
  assert_int_equal(status_of("DELETE", "/v1/sources/tiny/2-res-jump", NULL), 200);
  assert_int_equal(status_of("POST", "/v1/sources", body), 201);
}

static void test_strangers_are_turned_away(void **state) {
  (void)state;
  struct api_request request = make_request("POST", "/v1/sources", RELU);
  request.trusted = false;
  struct exchange x = send_request(&request);
  assert_int_equal(x.status, 403);
  forget(&x);
  request = make_request("DELETE", "/v1/sources/tiny/2-res-jump", NULL);
  request.trusted = false;
  x = send_request(&request);
  assert_int_equal(x.status, 403);
  forget(&x);
  static const char *const deletions[][2] = {{"/api/model/delete", "{\"id\":\"tiny\"}"}, {"/api/source-set/delete", "{\"name\":\"res-jump\"}"},
                                             {"/api/feature/delete", "{\"source\":\"2-res-jump\",\"index\":1}"}};
  for (size_t i = 0; i < 3; i++) {
    request = make_request("POST", deletions[i][0], deletions[i][1]);
    request.trusted = false;
    x = send_request(&request);
    assert_int_equal(x.status, 403);
    forget(&x);
  }
  request = make_request("GET", "/v1/sources", NULL);
  request.trusted = false;
  x = send_request(&request);
  assert_int_equal(x.status, 200);
  assert_null(strstr(x.body, TINY)); /* paths of this machine are not for strangers */
  forget(&x);
}

static void must_run(const char *format, ...) {
  char command[768];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(command, sizeof command, format, arguments);
  va_end(arguments);
  assert_int_equal(system(command), 0);
}

static void refuse_path(const char *path, const char *words) {
  char body[700];
  snprintf(body, sizeof body, "{\"source\":\"1-x\",\"path\":\"%s\"}", path);
  expect_error("POST", "/v1/sources", body, 400, "argument", "path", words);
}

/* A folder with everything that leads out of it: a link to a folder, a link to a file, an ini that names a file elsewhere. */
static void test_paths_that_lead_out(void **state) {
  (void)state;
  char here[400], path[600];
  assert_non_null(getcwd(here, sizeof here));
  must_run("cp -r " TINY "model '%s/outside'; ln -s '%s/" TINY "model' '%s/link'", folder, here, folder);
  must_run("mkdir '%s/half' && cp " TINY "sources/1-res-relu/cfg.json '%s/half/' && "
           "ln -s '%s/" TINY "model/model.safetensors' '%s/half/sae_weights.safetensors'",
           folder, folder, here, folder);
  must_run("printf '[source 1-x]\\nweights = %s/" TINY "model/model.safetensors\\nkind = relu\\npoint = blocks.1.hook_resid_pre\\n'"
           " > '%s/escape.ini'", here, folder);
  refuse_path("/etc/passwd", "in none of the folders");
  refuse_path("/etc", "in none of the folders");
  refuse_path("../../../etc/passwd", "in none of the folders");
  refuse_path("1-res-relu/../../model", "in none of the folders");
  refuse_path("link", "in none of the folders");
  refuse_path("half", "lies outside");
  refuse_path("escape.ini", "lies outside");
  refuse_path("not-there", "in none of the folders");
  snprintf(path, sizeof path, "%s-beside", folder); /* begins like an allowed one */
  must_run("cp -r " TINY "sources/1-res-relu '%s'", path);
  refuse_path(path, "in none of the folders");
  must_run("rm -rf '%s'", path);
  refuse_path("outside", "1-x");
  expect_error("POST", "/v1/sources", "{\"source\":\"a/b\",\"path\":\"1-res-relu\"}", 400, "argument", "source", "a/b");
  expect_error("POST", "/v1/sources", "{\"source\":\"7\",\"path\":\"1-res-relu\"}", 400, "argument", "source", "neurons");
  expect_error("POST", "/v1/sources", "{\"modelId\":\"other\",\"source\":\"1-x\",\"path\":\"1-res-relu\"}", 404, "not_found",
               "modelId", "other");
}

/* ---- leases ---- */

static const struct lab_source_info *find(const char *id) {
  const struct lab_model_info *model = lab_find_model(lab, NULL, NULL);
  return lab_find_source(lab, model, id, "source", NULL);
}

/* A lease from before the unloading keeps the source; one from after it does not. */
static void test_leases_keep(void **state) {
  (void)state;
  struct lab_lease before, after;
  struct error error = ERROR_INIT;
  assert_int_equal(status_of("POST", "/v1/sources", RELU), 201);
  lab_lease_begin(lab, &before);
  const struct lab_source_info *source = find("1-res-relu");
  assert_non_null(source);
  assert_int_equal(lab_source_unload(lab, source, &error), 0);
  lab_lease_begin(lab, &after);
  assert_null(find("1-res-relu"));
  assert_int_equal(lab_source_unload(lab, source, &error), -1);
  usleep(50000);
  assert_int_equal(count_state(LAB_SOURCE_UNLOADING, 1), 1);
  assert_string_equal(source->id, "1-res-relu");
  assert_int_equal(status_of("POST", "/v1/sources", RELU), 201); /* the name is free at once */
  lab_lease_end(lab, &before);
  assert_int_equal(count_state(LAB_SOURCE_UNLOADING, 0), 0);
  lab_lease_end(lab, &after);
  assert_int_equal(status_of("DELETE", "/v1/sources/tiny/1-res-relu", NULL), 200);
}

/* ---- all at once ---- */

enum { ASKERS = 4, TURNS = 60 };
static atomic_bool over;
static atomic_int answered, missing, wrong;
static char *expected_text;

/* An answer is the whole one or 404, never anything between. */
static void judge(struct exchange *x, bool compare) {
  if (x->status == 404)
    atomic_fetch_add(&missing, 1);
  else if (x->status != 200 || (compare && strcmp(x->body, expected_text) != 0))
    atomic_fetch_add(&wrong, 1);
  else
    atomic_fetch_add(&answered, 1);
  forget(x);
}

static void *ask_on(void *context) {
  static const char *const asks[][3] = {
      {"POST", "/activations", "{\"source\":\"1-res-relu\",\"text\":\"hello there, everybody\"}"},
      {"GET", "/feature/tiny/1-res-relu/5", NULL},
      {"POST", "/steer", "{\"prompt\":\"hello\",\"n_tokens\":3,\"features\":[{\"layer\":\"1-res-relu\",\"index\":3,\"strength\":4}]}"},
      {"GET", "/models", NULL}};
  int mine = *(int *)context;
  while (!atomic_load(&over)) {
    struct exchange x = ask(asks[mine][0], asks[mine][1], asks[mine][2]);
    judge(&x, mine == 0);
  }
  return NULL;
}

static void test_requests_meanwhile(void **state) {
  (void)state;
  pthread_t threads[ASKERS];
  int numbers[ASKERS];
  assert_int_equal(status_of("POST", "/v1/sources", RELU), 201);
  struct exchange x = expect_ok("POST", "/activations", "{\"source\":\"1-res-relu\",\"text\":\"hello there, everybody\"}");
  expected_text = strdup(x.body);
  forget(&x);
  atomic_store(&over, false);
  for (int i = 0; i < ASKERS; i++) {
    numbers[i] = i;
    assert_int_equal(pthread_create(&threads[i], NULL, ask_on, &numbers[i]), 0);
  }
  int failures = 0;
  for (int i = 0; i < TURNS; i++) {
    failures += status_of("DELETE", "/v1/sources/tiny/1-res-relu", NULL) != 200;
    failures += status_of("POST", "/v1/sources", RELU) != 201;
    usleep(3000);
  }
  atomic_store(&over, true);
  for (int i = 0; i < ASKERS; i++) pthread_join(threads[i], NULL);
  free(expected_text);
  assert_int_equal(failures, 0);
  assert_int_equal(atomic_load(&wrong), 0);
  assert_true(atomic_load(&answered) > 0);
  assert_int_equal(count_state(LAB_SOURCE_UNLOADING, 0), 0);
  assert_int_equal(count_state(LAB_SOURCE_READY, 2), 2);
}

/* ---- encoders that come and go ---- */

static const char *const three[] = {"1-res-relu", "0-mlp-topk", "2-res-jump"};
static char *texts[3];

static void *ask_one(void *context) {
  int mine = *(int *)context;
  char body[128];
  snprintf(body, sizeof body, "{\"source\":\"%s\",\"text\":\"hello there, everybody\"}", three[mine]);
  for (int i = 0; i < TURNS; i++) {
    struct exchange x = ask("POST", "/activations", body);
    if (x.status != 200 || (texts[mine] && strcmp(x.body, texts[mine]) != 0)) atomic_fetch_add(&wrong, 1);
    if (!texts[mine]) texts[mine] = strdup(x.body);
    forget(&x);
  }
  return NULL;
}

/* Three dictionaries and room for one: every answer is the one that it always is. */
static void test_a_budget_under_load(void **state) {
  (void)state;
  static const struct lab_model_spec model = {"tiny", TINY "model"};
  static const struct lab_source_spec sources[] = {{"tiny", "1-res-relu", TINY "sources/1-res-relu"},
                                                   {"tiny", "0-mlp-topk", TINY "sources/0-mlp-topk"},
                                                   {"tiny", "2-res-jump", TINY "sources/2-res-jump"}};
  static const struct api_options settings = {.max_body = 1 << 20, .max_json_depth = 64, .max_result = 64 << 20,
                                              .max_features = 64, .max_texts = 256, .max_new_tokens = 256,
                                              .max_prompt_chars = 10000};
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = sources, .n_sources = 3, .threads = 2,
                                .max_queue = 64, .max_step_rows = 64, .max_sessions = 8, .dict_budget = 1};
  struct lab *tight = lab_open(&options, &error);
  if (!tight) fail_msg("%s", error.text);
  struct api *before = api;
  api = api_new(tight, &settings, &error);
  pthread_t threads[6];
  int numbers[6];
  atomic_store(&wrong, 0);
  for (int i = 0; i < 3; i++) { /* once alone, for what is expected */
    numbers[i] = i;
    ask_one(&numbers[i]);
  }
  for (int i = 0; i < 6; i++) {
    numbers[i] = i % 3;
    assert_int_equal(pthread_create(&threads[i], NULL, ask_one, &numbers[i]), 0);
  }
  for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
  struct lab_stats stats;
  lab_stats(tight, &stats);
  api_free(api);
  api = before;
  lab_close(tight);
  for (int i = 0; i < 3; i++) free(texts[i]);
  assert_int_equal(atomic_load(&wrong), 0);
  assert_true(stats.dict_encoders_dropped > 3);
}

/* ---- self-tests ---- */

/* Waits until the test of a source that was just loaded is through. */
static struct lab_source_check check_of(struct lab *tested, const char *id, const char *path) {
  struct lab_source_check check = {.state = LAB_CHECK_NONE};
  struct lab_source_spec spec = {"tiny", id, path};
  struct error error = ERROR_INIT;
  struct lab_job *job;
  struct bell bell = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  if (lab_source_load(tested, &spec, (struct lab_waker){bell_ring, &bell, 0}, &job, &error) != 0) fail_msg("%s", error.text);
  while (lab_job_state(job) == LAB_JOB_WAITING || lab_job_state(job) == LAB_JOB_RUNNING) bell_wait(&bell);
  assert_int_equal(lab_job_state(job), LAB_JOB_DONE);
  for (int i = 0; i < 1000 && check.state != LAB_CHECK_DONE && check.state != LAB_CHECK_FAILED; i++) {
    lab_source_check(tested, lab_source_load_result(job), &check);
    usleep(10000);
  }
  lab_job_free(job);
  return check;
}

static char said[1024];
static void listen_to(void *context, enum log_level level, const char *text) {
  (void)context;
  if (level == LOG_LEVEL_WARN) snprintf(said, sizeof said, "%s", text);
}

/* One that is right, one whose k is kept, one that was moved to a point it was not trained on. */
static void test_self_tests(void **state) {
  (void)state;
  static const struct lab_model_spec model = {"tiny", TINY "model"};
  const char *folders[] = {TINY "sources", folder};
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .threads = 2, .max_queue = 8, .max_step_rows = 64,
                                .max_sessions = 8, .folders = folders, .n_folders = 2, .self_test = true};
  struct lab *tested = lab_open(&options, &error);
  if (!tested) fail_msg("%s", error.text);
  struct lab_source_check right = check_of(tested, "1-res-relu", "1-res-relu");
  assert_int_equal(right.state, LAB_CHECK_DONE);
  assert_true(right.tokens > 100 && right.explained > 0.3 && right.explained < 1 && right.promised_l0 == 0);
  assert_string_equal(right.text, "");
  struct lab_source_check top = check_of(tested, "0-mlp-topk", "0-mlp-topk");
  assert_true(top.promised_l0 > 0 && top.l0 <= top.promised_l0 && top.l0 > top.promised_l0 / 2);
  must_run("cp -r " TINY "sources/1-res-relu '%s/moved' && sed -i 's/blocks.1.hook_resid_pre/blocks.0.hook_mlp_out/; "
           "s/\"hook_layer\": *1/\"hook_layer\": 0/' '%s/moved/cfg.json'", folder, folder);
  log_set_level(LOG_LEVEL_WARN);
  log_set_sink(listen_to, NULL);
  struct lab_source_check moved = check_of(tested, "0-moved", "moved");
  log_set_sink(NULL, NULL);
  log_set_level(LOG_LEVEL_ERROR);
  assert_int_equal(moved.state, LAB_CHECK_DONE);
  assert_true(moved.explained < 0.3);
  assert_non_null(strstr(moved.text, "blocks.0.hook_mlp_out"));
  assert_non_null(strstr(said, "SELF-TEST"));
  lab_close(tested);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_load_and_unload),       cmocka_unit_test(test_named_at_the_start),
      cmocka_unit_test(test_strangers_are_turned_away), cmocka_unit_test(test_paths_that_lead_out),
      cmocka_unit_test(test_leases_keep),           cmocka_unit_test(test_requests_meanwhile),
      cmocka_unit_test(test_a_budget_under_load),
      cmocka_unit_test(test_self_tests),
  };
  log_set_level(LOG_LEVEL_ERROR);
  return cmocka_run_group_tests(tests, open_all, close_all);
}
