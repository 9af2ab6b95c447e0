/* Handlers through api_begin and api_poll, without a socket, on the tiny GPT-2 of the recorded vectors. What is
 * checked are shapes, statuses and sentences; numbers are the business of the rooms that make them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/route.h"
#include "core/core.h"
#include "tests/unit/api_client.h"

#define MODEL_FOLDER "tests/vectors/tiny-gpt2/model"
#define SOURCE_FOLDER "tests/vectors/tiny-gpt2/sources/1-res-relu"

static struct lab *lab;

static const struct api_options settings = {.max_body = 1 << 16, .max_json_depth = 64, .max_result = 1 << 24,
                                            .max_features = 4, .max_texts = 3, .max_new_tokens = 24,
                                            .max_prompt_chars = 2000, .cors_origins = "",
                                            .base_url = "http://127.0.0.1:8080"};

/* ---- the house ---------------------------------------------------------------------------------------- */

static int open_house(void **state) {
  (void)state;
  if (access(MODEL_FOLDER "/config.json", R_OK) != 0 || access(SOURCE_FOLDER, R_OK) != 0) return 0;
  static const struct lab_model_spec model = {"tiny", MODEL_FOLDER};
  static const struct lab_source_spec source = {"tiny", "1-res-relu", SOURCE_FOLDER};
  struct lab_options options = {.models = &model, .n_models = 1, .sources = &source, .n_sources = 1,
                                .backend = "auto", .threads = 2, .max_queue = 16, .max_step_rows = 64,
                                .max_sessions = 4, .queue_timeout_ms = 10000, .generation_timeout_ms = 10000};
  struct error error = ERROR_INIT;
  lab = lab_open(&options, &error);
  if (lab) api = api_new(lab, &settings, &error);
  if (!api) fprintf(stderr, "cannot open the tiny model: %s\n", error.text);
  return api ? 0 : -1;
}

static int close_house(void **state) {
  (void)state;
  api_free(api);
  lab_close(lab);
  return 0;
}

static void need_house(void) {
  if (api) return;
  printf("skip: tests/vectors/tiny-gpt2 is not there (run from the repository root)\n");
  skip();
}

/* ---- paths -------------------------------------------------------------------------------------------- */

static void test_matching(void **state) {
  (void)state;
  assert_true(route_matches("/steer", "/steer"));
  assert_true(route_matches("/steer", "/steer/"));
  assert_true(route_matches("/", "/"));
  assert_true(route_matches("/feature/{m}/{s}/{i}", "/feature/gpt2/7-res-jb/3/"));
  assert_false(route_matches("/feature/{m}/{s}/{i}", "/feature/gpt2/7-res-jb"));
  assert_false(route_matches("/feature/{m}/{s}/{i}", "/feature//7-res-jb/3"));
  assert_false(route_matches("/feature/{m}/{s}/{i}", "/feature/a/b/c/d"));
  assert_false(route_matches("/steer", "/steering"));
  assert_false(route_matches("/steer", "/steer//"));
  assert_false(route_matches("/", "//"));
}

static void test_table(void **state) {
  (void)state;
  for (size_t i = 0; i < n_routes; i++) {
    const struct route *allowed;
    assert_non_null(routes[i].summary);
    /* every row can be reached: none before it hides it */
    assert_ptr_equal(route_find(routes[i].method, routes[i].path, &allowed), &routes[i]);
  }
}

static void test_unknown_paths(void **state) {
  (void)state;
  need_house();
  expect_error("GET", "/nothing", NULL, 404, "not_found", NULL, "GET /docs");
  expect_error("POST", "/api/nothing", "{}", 404, "not_found", NULL, "GET /docs");
  struct exchange x = ask("GET", "/activations", NULL);
  assert_int_equal(x.status, 405);
  assert_string_equal(x.allow, "POST");
  forget(&x);
  expect_error("PUT", "/steer", NULL, 405, "method", NULL, "this path answers only POST, GET, HEAD");
  x = ask("PUT", "/steer", NULL);
  assert_string_equal(x.allow, "POST, GET, HEAD");
  forget(&x);
  x = ask("POST", "/v1/jobs/7", NULL);
  assert_string_equal(x.allow, "GET, HEAD, DELETE");
  forget(&x);
  x = ask("HEAD", "/health", NULL);
  assert_int_equal(x.status, 200);
  forget(&x);
}

/* OpenAI's shape: the field in `param`, nothing where there is none. */
static void test_errors_of_openais_routes(void **state) {
  (void)state;
  need_house();
  struct exchange x = ask("POST", "/v1/chat/completions", "{}");
  assert_int_equal(x.status, 400);
  json_t *error = json_object_get(x.json, "error");
  assert_string_equal(json_string_value(json_object_get(error, "code")), "argument");
  assert_string_equal(json_string_value(json_object_get(error, "type")), "invalid_request_error");
  assert_string_equal(json_string_value(json_object_get(error, "param")), "messages");
  forget(&x);
  x = ask("POST", "/v1/completions", "[");
  assert_int_equal(x.status, 400);
  assert_true(json_is_null(json_object_get(json_object_get(x.json, "error"), "param")));
  forget(&x);
}

/* ---- bodies ------------------------------------------------------------------------------------------- */

static void test_syntax(void **state) {
  (void)state;
  need_house();
  expect_error("POST", "/steer", "", 400, "argument", "prompt", "'prompt' is required: a string of 1 to 2000 characters");
  expect_error("POST", "/steer", "[1]", 400, "argument", NULL, "must be a JSON object, found an array of 1");
  expect_error("POST", "/steer", "7", 400, "argument", NULL, "found 7");
  expect_error("POST", "/steer", "{\"prompt\": \n nope}", 400, "argument", NULL, "line 2 column 5");
  expect_error("POST", "/steer", "{} x", 400, "argument", NULL, "not valid JSON");
  expect_error("POST", "/steer", "prompt=Hello&n_tokens=3", 400, "argument", NULL,
               "the body is a form ('prompt=...'), and this server reads JSON: curl -d '{\"prompt\": \"...\"");
  expect_error("POST", "/steer", "=Hello", 400, "argument", NULL, "not valid JSON");
  expect_error("POST", "/steer", "{\"a\": NaN}", 400, "argument", NULL, "not valid JSON");
  expect_error("POST", "/steer", "{\"a\": 1e999}", 400, "argument", NULL, "not valid JSON");
  expect_error("POST", "/steer", "{\"prompt\":\"a\",\"prompt\":\"b\"}", 400, "argument", NULL, "duplicate");
  expect_error("POST", "/steer", "{\"prompt\":\"a\\u0000b\"}", 400, "argument", NULL, "\\u0000 is not allowed");
  expect_error("POST", "/steer", "{\"prompt\":\"\xff\"}", 400, "argument", NULL, "not UTF-8");
  char wide[16000] = "{";
  for (int i = 0; i < 1001; i++) sprintf(wide + strlen(wide), "\"m%d\":0,", i);
  strcat(wide, "\"x\":0}");
  expect_error("POST", "/steer", wide, 400, "argument", NULL, "at most 1000 members, found 1002");
  char deep[400] = "{\"x\":";
  for (int i = 0; i < 100; i++) strcat(deep, "[");
  expect_error("POST", "/steer", deep, 400, "argument", NULL, "deeper than 64 levels at byte");
}

#define STEER(fields) "{\"prompt\":\"Hello\",\"features\":[]," fields "}"

static void test_values(void **state) {
  (void)state;
  need_house();
  const char *s = "/api/steer";
  expect_error("POST", s, STEER("\"temperature\":\"hot\""), 400, "argument", "temperature",
               "'temperature' must be a number from 0 to 2, found the string \"hot\"");
  expect_error("POST", s, STEER("\"temperature\":true"), 400, "argument", "temperature", "found true");
  expect_error("POST", s, STEER("\"temperature\":2.01"), 400, "argument", "temperature", "found 2.01");
  expect_error("POST", s, STEER("\"n_tokens\":25"), 400, "argument", "n_tokens", "an integer from 1 to 24, found 25");
  expect_error("POST", s, STEER("\"nTokens\":0"), 400, "argument", "n_tokens", "found 0");
  expect_error("POST", s, STEER("\"n_tokens\":2.5"), 400, "argument", "n_tokens",
               "an integer from 1 to 24, found 2.5");
  expect_error("POST", s, STEER("\"n_tokens\":2,\"nTokens\":2"), 400, "argument", "n_tokens", "given twice");
  expect_error("POST", s, STEER("\"seed\":1e9"), 400, "argument", "seed", "from -100000000 to 100000000");
  expect_error("POST", s, STEER("\"steer_method\":\"PUSH\""), 400, "argument", "steer_method",
               "one of 'SIMPLE_ADDITIVE', 'ORTHOGONAL_DECOMP', 'PROJECTION_CAP'");
  expect_error("POST", s, STEER("\"types\":[]"), 400, "argument", "types", "one or more of");
  expect_error("POST", s, STEER("\"types\":[\"OTHER\"]"), 400, "argument", "types[0]", "OTHER");
  expect_error("POST", s, STEER("\"stream\":1"), 400, "argument", "stream", "true or false");
  expect_error("POST", s, "{\"prompt\":\"\",\"features\":[]}", 400, "argument", "prompt", "found an empty string");
  expect_error("POST", s, "{\"prompt\":null,\"features\":[]}", 400, "argument", "prompt", "required");
  expect_error("POST", s, "{\"prompt\":\"a\"}", 400, "argument", "features", "'features' or 'edits' is required");
  expect_error("POST", s, "{\"prompt\":\"a\",\"features\":[1]}", 400, "argument", "features[0]", "must be an object");
  expect_error("POST", s, "{\"prompt\":\"a\",\"features\":[{},{},{},{},{}]}", 400, "argument", "features",
               "of 0 to 4 objects such as");
}

#define FEATURE(layer, index, strength)                                                                     \
  "{\"prompt\":\"Hello\",\"n_tokens\":3,\"features\":[{\"layer\":" layer ",\"index\":" index                 \
  ",\"strength\":" strength "}]}"

static void test_features(void **state) {
  (void)state;
  need_house();
  const char *s = "/steer";
  struct exchange x = expect_ok("POST", s, FEATURE("\"1-res-relu\"", "\"7\"", "8"));
  forget(&x);
  x = expect_ok("POST", s, FEATURE("\"1-res-relu\"", "7", "-8.5"));
  forget(&x);
  expect_error("POST", s, FEATURE("\"1-res-relu\"", "\"7x\"", "8"), 400, "argument", "features[0].index", "\"7x\"");
  expect_error("POST", s, FEATURE("\"1-res-relu\"", "\"-1\"", "8"), 400, "argument", "features[0].index", "-1");
  expect_error("POST", s, FEATURE("\"1-res-relu\"", "-1", "8"), 400, "argument", "features[0].index", "-1");
  expect_error("POST", s, FEATURE("\"1-res-relu\"", "1.5", "8"), 400, "argument", "features[0].index", "1.5");
  expect_error("POST", s, FEATURE("\"1-res-relu\"", "999999", "8"), 404, "not_found", "features[0].index", "");
  expect_error("POST", s, FEATURE("\"9-res-none\"", "1", "8"), 404, "not_found", "features[0].layer", "9-res-none");
  x = expect_ok("POST", s, FEATURE("1", "1", "8")); /* the neurons of a layer */
  forget(&x);
  x = expect_ok("POST", s, FEATURE("\"1\"", "1", "8"));
  forget(&x);
  expect_error("POST", s, FEATURE("3", "1", "8"), 404, "not_found", "features[0].layer", "the layers 0 to 2");
  expect_error("POST", s, FEATURE("\"\"", "1", "8"), 400, "argument", "features[0].layer", "the string \"\"");
  expect_error("POST", s, FEATURE("\"1-res-relu\"", "1", "\"8\""), 400, "argument", "features[0].strength", "number");
  expect_error("POST", s, "{\"prompt\":\"a\",\"modelId\":\"other\",\"features\":[]}", 404, "not_found", "modelId", "tiny");
}

/* ---- steer -------------------------------------------------------------------------------------------- */

static void test_steer_reply(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/steer/",
                                "{\"prompt\":\" H\xc3\xa9llo <b>\",\"modelId\":\"tiny\",\"features\":[{\"modelId\":\"tiny\","
                                "\"layer\":\"1-res-relu\",\"index\":7,\"strength\":8}],\"temperature\":0.2,\"n_tokens\":2,"
                                "\"freq_penalty\":1,\"seed\":57,\"strength_multiplier\":4}");
  const char *prompt = " H\xc3\xa9llo <b>";
  assert_int_equal(strncmp(member(&x, "STEERED"), prompt, strlen(prompt)), 0);
  assert_int_equal(strncmp(member(&x, "DEFAULT"), prompt, strlen(prompt)), 0);
  assert_string_equal(member(&x, "id"), "test-1");
  const char *nulls[] = {"steeredLogProbs", "defaultLogProbs", "shareUrl", "limit"};
  for (size_t i = 0; i < 4; i++) assert_true(json_is_null(json_object_get(x.json, nulls[i])));
  assert_int_equal(json_object_size(x.json), 7);
  assert_string_equal(x.type, "application/json");
  assert_true(x.prompt_tokens > 0 && x.new_tokens > 0);
  forget(&x);
}

static void test_steer_switches(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/steer", STEER("\"n_tokens\":3,\"include_prompt\":false,\"types\":[\"DEFAULT\"],"
                                                        "\"n_logprobs\":2,\"unknown\":1"));
  assert_true(json_is_null(json_object_get(x.json, "STEERED")));
  assert_true(json_is_null(json_object_get(x.json, "steeredLogProbs")));
  assert_int_not_equal(strncmp(member(&x, "DEFAULT"), "Hello", 5), 0);
  json_t *logprobs = json_object_get(x.json, "defaultLogProbs");
  assert_in_range(json_array_size(logprobs), 1, 3);
  json_t *first = json_array_get(logprobs, 0);
  assert_true(json_is_string(json_object_get(first, "token")));
  assert_true(json_number_value(json_object_get(first, "logprob")) <= 0);
  assert_int_equal(json_array_size(json_object_get(first, "topLogprobs")), 2);
  forget(&x);
}

static void test_steer_same_seed(void **state) {
  (void)state;
  need_house();
  struct exchange a = expect_ok("POST", "/steer", STEER("\"n_tokens\":8,\"seed\":5.9"));
  struct exchange b = expect_ok("POST", "/steer", STEER("\"n_tokens\":8,\"seed\":5"));
  assert_string_equal(member(&a, "STEERED"), member(&b, "STEERED"));
  assert_string_equal(member(&a, "STEERED"), member(&a, "DEFAULT")); /* nothing steers */
  forget(&a);
  forget(&b);
}

/* Walks the events: each is a whole reply that continues the one before; only the last has an id. */
static void test_steer_stream(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/steer", STEER("\"n_tokens\":12,\"stream\":true,\"temperature\":0"));
  assert_true(x.stream);
  assert_string_equal(x.type, "text/event-stream; charset=utf-8");
  size_t shown = 0;
  int events = 0;
  for (char *at = x.body, *end; (end = strstr(at, "\n\n")); at = end + 2, events++) {
    assert_int_equal(strncmp(at, "data: ", 6), 0);
    json_t *event = json_loadb(at + 6, (size_t)(end - at - 6), 0, NULL);
    const char *text = json_string_value(json_object_get(event, "STEERED"));
    assert_non_null(text);
    assert_true(strlen(text) >= shown);
    shown = strlen(text);
    assert_int_equal(json_is_string(json_object_get(event, "id")), end[2] == '\0');
    json_decref(event);
  }
  assert_true(events >= 1);
  struct exchange whole = expect_ok("POST", "/steer", STEER("\"n_tokens\":12,\"temperature\":0"));
  assert_int_equal(strlen(member(&whole, "STEERED")), shown);
  forget(&whole);
  forget(&x);
}

static void test_steer_goes_away(void **state) {
  (void)state;
  need_house();
  struct bell bell = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct api_request request = make_request("POST", "/steer", STEER("\"n_tokens\":24"));
  struct api_reply reply;
  /* at once, and after a cancel that was waited for */
  for (int i = 0; i < 20; i++) {
    struct api_call *call = api_begin(api, &request, bell_ring, &bell);
    if (i % 2) {
      api_cancel(call);
      while (!api_poll(call, &reply)) bell_wait(&bell);
      assert_true(reply.status == 503 || reply.status == 200);
    }
    api_end(call);
    bell.count = 0; /* nobody rings after api_end */
  }
  usleep(20000);
  assert_int_equal(bell.count, 0);
  assert_int_equal(api_in_flight(api), 0);
}

/* ---- activations -------------------------------------------------------------------------------------- */

static void check_one(json_t *one) {
  size_t n = json_array_size(json_object_get(one, "tokens"));
  assert_true(n > 0);
  assert_int_equal(json_array_size(json_object_get(one, "values")), n);
  assert_string_equal(json_string_value(json_object_get(one, "index")), "7");
  assert_string_equal(json_string_value(json_object_get(one, "layer")), "1-res-relu");
  assert_string_equal(json_string_value(json_object_get(one, "modelId")), "tiny");
  size_t top = (size_t)json_integer_value(json_object_get(one, "maxValueTokenIndex"));
  assert_true(top < n);
  assert_true(json_number_value(json_object_get(one, "maxValue")) ==
              json_number_value(json_array_get(json_object_get(one, "values"), top)));
}

static void test_one_feature(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/activation/new",
                                "{\"feature\":{\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"index\":\"7\"},"
                                "\"customText\":\"Hello there\"}");
  check_one(x.json);
  forget(&x);
  x = expect_ok("POST", "/activations",
                "{\"source\":\"1-res-relu\",\"index\":7,\"text\":[\"Hello there\",\"you\"]}");
  assert_int_equal(json_array_size(x.json), 2);
  check_one(json_array_get(x.json, 1));
  forget(&x);
  expect_error("POST", "/api/activation/new", "{\"customText\":\"a\"}", 400, "argument", "feature", "required");
  expect_error("POST", "/api/activation/new", "{\"neuron\":{\"layer\":3,\"index\":1},\"customText\":\"a\"}", 404,
               "not_found", "feature.layer", "neurons");
  expect_error("POST", "/activations", "{\"source\":\"1-res-relu\",\"index\":7,\"text\":[]}", 400, "argument", "text",
               "1 to 3 texts, found 0");
  expect_error("POST", "/activations", "{\"source\":\"1-res-relu\",\"index\":7,\"text\":[\"a\",\"\"]}", 400, "argument",
               "text[1]", "empty string");
}

static void test_forms(void **state) {
  (void)state;
  need_house();
  const char *a = "/activations";
  expect_error("POST", a, "{\"text\":\"a\"}", 400, "argument", "source", "'sourceSet' is required");
  expect_error("POST", a, "{\"text\":\"a\",\"source\":\"1-res-relu\",\"sourceSet\":\"res-relu\"}", 400, "argument",
               "sourceSet", "exclude each other");
  expect_error("POST", a, "{\"text\":\"a\",\"index\":1,\"sourceSet\":\"res-relu\"}", 400, "argument", "index", "needs");
  expect_error("POST", a, "{\"text\":\"a\",\"source\":\"1-res-relu\",\"numResults\":21}", 400, "argument", "numResults",
               "from 1 to 20");
  expect_error("POST", a, "{\"text\":\"a\",\"source\":\"4-nothing\"}", 404, "not_found", "source", "4-nothing");
  expect_error("POST", a, "{\"text\":\"a\",\"sourceSet\":\"none\"}", 404, "not_found", "sourceSet", "'res-relu'");
}

static void test_by_token(void **state) {
  (void)state;
  need_house();
  const char *bodies[] = {"{\"source\":\"1-res-relu\",\"text\":\"Hello there\",\"numResults\":2}",
                          "{\"source\":\"1-res-relu\",\"text\":[\"Hello there\"],\"num_results\":2}"};
  const char *paths[] = {"/api/search-topk-by-token/", "/activations"};
  for (int i = 0; i < 4; i++) {
    struct exchange x = expect_ok("POST", paths[i / 2], bodies[i % 2]);
    json_t *one = i % 2 ? json_array_get(json_object_get(x.json, "results"), 0) : x.json;
    assert_string_equal(json_string_value(json_object_get(one, "source")), "1-res-relu");
    json_t *row = json_array_get(json_object_get(one, "results"), 0);
    assert_int_equal(json_integer_value(json_object_get(row, "position")), 1); /* BOS was 0 */
    assert_true(json_is_false(json_object_get(row, "isSpecial")));
    assert_true(json_is_string(json_object_get(row, "token")));
    assert_true(json_array_size(json_object_get(row, "topFeatures")) <= 2);
    forget(&x);
  }
  struct exchange x = expect_ok("POST", paths[0], "{\"source\":\"1-res-relu\",\"text\":\"Hello\",\"ignoreBos\":false}");
  json_t *row = json_array_get(json_object_get(x.json, "results"), 0);
  assert_int_equal(json_integer_value(json_object_get(row, "position")), 0);
  assert_true(json_is_true(json_object_get(row, "isSpecial")));
  forget(&x);
}

static void test_over_text(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/search-all/",
                                "{\"modelId\":\"tiny\",\"sourceSet\":\"res-relu\",\"text\":\"Hello there\",\"selectedLayers\":"
                                "[\"1-res-relu\"],\"sortIndexes\":[1],\"ignoreBos\":true,\"densityThreshold\":-1,"
                                "\"numResults\":5}");
  size_t n = json_array_size(json_object_get(x.json, "tokens")), i;
  json_t *row;
  assert_true(json_array_size(json_object_get(x.json, "result")) <= 5);
  json_array_foreach(json_object_get(x.json, "result"), i, row) {
    assert_int_equal(json_array_size(json_object_get(row, "values")), n);
    assert_true(json_is_string(json_object_get(row, "index")));
    assert_true(json_number_value(json_object_get(row, "maxValue")) > 0);
  }
  assert_int_equal(json_integer_value(json_array_get(json_object_get(x.json, "sortIndexes"), 0)), 1);
  forget(&x);
  x = expect_ok("POST", "/activations", "{\"sourceSet\":\"res-relu\",\"text\":[\"Hello\",\"you\"]}");
  assert_int_equal(json_array_size(json_object_get(x.json, "results")), 2);
  forget(&x);
  expect_error("POST", "/api/search-all", "{\"sourceSet\":\"res-relu\",\"text\":\"a\",\"selectedLayers\":[\"x-y\"]}", 404,
               "not_found", "selectedLayers[0]", "x-y");
  expect_error("POST", "/api/search-all", "{\"sourceSet\":\"res-relu\",\"text\":\"a\",\"sortIndexes\":[99]}", 400,
               "argument", "sortIndexes[0]", "");
}

/* ---- the rest ----------------------------------------------------------------------------------------- */

static void test_tokenize(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/tokenize", "{\"prompt\":\"Hello\",\"modelId\":\"tiny\",\"prependBos\":false}");
  size_t n = json_array_size(json_object_get(x.json, "tokens"));
  assert_int_equal(json_array_size(json_object_get(x.json, "tokenStrings")), n);
  assert_true(json_is_false(json_object_get(x.json, "prependBos")));
  struct exchange y = expect_ok("POST", "/v1/tokenize", "{\"text\":\"Hello\",\"model\":\"tiny\",\"prepend_bos\":true}");
  assert_int_equal(json_array_size(json_object_get(y.json, "tokens")), n + 1);
  assert_true(json_is_true(json_object_get(y.json, "prepend_bos"))); /* as it was asked */
  forget(&x);
  forget(&y);
}

static void test_models(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", "/models", NULL);
  json_t *model = json_array_get(json_object_get(x.json, "models"), 0);
  assert_string_equal(json_string_value(json_object_get(model, "id")), "tiny");
  assert_true(json_array_size(json_object_get(model, "sources")) >= 1);
  forget(&x);
  x = expect_ok("POST", "/api/model/list", NULL);
  model = json_array_get(x.json, 0);
  json_t *set = json_array_get(json_object_get(model, "sourceSets"), 0);
  assert_string_equal(json_string_value(json_object_get(set, "name")), "res-relu");
  json_t *source = json_array_get(json_object_get(set, "sources"), 0);
  assert_string_equal(json_string_value(json_object_get(source, "setName")), "res-relu");
  forget(&x);
  x = expect_ok("POST", "/api/model/get", "{\"id\":\"tiny\"}");
  assert_string_equal(member(&x, "id"), "tiny");
  forget(&x);
  expect_error("POST", "/api/model/get", "{\"id\":\"none\"}", 404, "not_found", "modelId", "tiny");
  expect_error("POST", "/api/model/get", "{}", 400, "argument", "id", "required");
}

static void test_operations(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", "/health", NULL);
  assert_string_equal(x.body, "{\"status\":\"healthy\"}");
  forget(&x);
  x = expect_ok("GET", "/ready/", NULL);
  assert_string_equal(x.body, "{\"status\":\"ready\"}");
  forget(&x);
  x = expect_ok("GET", "/version", NULL);
  assert_string_equal(member(&x, "name"), "steerd");
  forget(&x);
  x = expect_ok("GET", "/metrics", NULL);
  assert_non_null(strstr(x.body, "\nsteerd_request_seconds_bucket{family=\"short\",le=\"+Inf\"} "));
  assert_non_null(strstr(x.body, "\n# TYPE steerd_queue_length gauge\nsteerd_queue_length 0\n"));
  forget(&x);
}

static void test_pages(void **state) {
  (void)state;
  need_house();
  const char *pages[] = {"/", "/docs"};
  for (int i = 0; i < 2; i++) {
    struct exchange x = expect_ok("GET", pages[i], NULL);
    assert_string_equal(x.type, "text/html; charset=utf-8");
    assert_null(strstr(x.body, "<script"));
    assert_null(strstr(x.body, "<style"));
    assert_null(strstr(x.body, "style=\""));
    forget(&x);
  }
  expect_error("GET", "/static/app.js", NULL, 404, "not_found", NULL, "");
  expect_error("GET", "/steer", NULL, 404, "not_found", NULL, "'static'"); /* no folder was given */
}

static void test_openapi(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", "/openapi.json", NULL);
  assert_string_equal(member(&x, "openapi"), "3.1.0");
  json_t *paths = json_object_get(x.json, "paths");
  for (size_t i = 0; i < n_routes; i++) {
    char method[8] = "";
    for (size_t k = 0; routes[i].method[k]; k++) method[k] = (char)(routes[i].method[k] | 0x20);
    json_t *operation = json_object_get(json_object_get(paths, routes[i].path), method);
    assert_string_equal(json_string_value(json_object_get(operation, "summary")), routes[i].summary);
  }
  json_t *schema = json_object_get(json_object_get(paths, "/steer"), "post");
  const char *way[] = {"requestBody", "content", "application/json", "schema", "properties", "n_tokens"};
  for (size_t i = 0; i < 6; i++) schema = json_object_get(schema, way[i]);
  assert_int_equal(json_integer_value(json_object_get(schema, "maximum")), 24);
  assert_int_equal(json_integer_value(json_object_get(schema, "default")), 24); /* 32, but never beyond the maximum */
  forget(&x);
}

static void test_content_type(void **state) {
  (void)state;
  need_house();
  const struct {
    const char *name, *value, *type;
    int status;
  } cases[] = {{"X-Other", "1", "text/plain", 200},
               {"Origin", "http://localhost:3000", "text/plain", 415},
               {"Origin", "http://localhost:3000", NULL, 415},
               {"sec-fetch-site", "cross-site", "application/x-www-form-urlencoded", 415},
               {"Origin", "http://localhost:3000", "Application/JSON; charset=utf-8", 200},
               {"Origin", "http://localhost:3000", "application/jsonp", 415}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct api_pair headers[2] = {{cases[i].name, cases[i].value}, {"content-type", cases[i].type}};
    struct api_request request = make_request("POST", "/api/tokenize", "{\"prompt\":\"a\"}");
    request.headers = headers;
    request.n_headers = cases[i].type ? 2 : 1;
    struct exchange x = send_request(&request);
    assert_int_equal(x.status, cases[i].status);
    struct api_reply reply;
    assert_int_equal(api_preview(api, &request, 14, &reply), cases[i].status == 415);
    forget(&x);
  }
}

static void test_preview(void **state) {
  (void)state;
  need_house();
  struct api_reply reply;
  struct api_request head = make_request("POST", "/steer", NULL);
  assert_int_equal(api_preview(api, &head, UINT64_MAX, &reply), 0);
  assert_int_equal(api_preview(api, &head, settings.max_body, &reply), 0);
  assert_int_equal(api_preview(api, &head, settings.max_body + 1, &reply), 1);
  assert_int_equal(reply.status, 413);
  char limit[32];
  snprintf(limit, sizeof limit, "than %zu bytes", settings.max_body);
  assert_non_null(strstr(reply.body, limit));
  head.method = "PUT";
  assert_int_equal(api_preview(api, &head, 0, &reply), 1);
  assert_int_equal(reply.status, 405);
  assert_string_equal(reply.headers[0].name, "Allow");
  assert_string_equal(reply.headers[0].value, "POST, GET, HEAD");
  head.path = "/v1/chat/nothing";
  assert_int_equal(api_preview(api, &head, 0, &reply), 1);
  assert_int_equal(reply.status, 404);
  assert_non_null(strstr(reply.body, "{\"error\":{\"message\":")); /* OpenAI's shape */
  char body[256];
  size_t length = api_error_body("/steer", 431, "headers", "too many headers", body, sizeof body);
  assert_int_equal(length, strlen(body));
  assert_string_equal(body, "{\"error\":\"too many headers\",\"message\":\"too many headers\",\"code\":\"headers\"}");
  assert_int_equal(api_error_body("/steer", 431, "headers", "too many headers", body, 20), 0);
}

/* Last: the house shuts down. */
static void test_drain(void **state) {
  (void)state;
  need_house();
  api_drain(api);
  struct lab_stats stats;
  lab_stats(lab, &stats);
  assert_true(stats.draining);
  struct exchange x = ask("GET", "/ready", NULL);
  assert_int_equal(x.status, 503);
  forget(&x);
  x = ask("POST", "/steer", STEER("\"n_tokens\":3"));
  assert_int_equal(x.status, 503);
  assert_string_equal(member(&x, "code"), "busy");
  assert_true(atoi(x.retry) >= 1);
  forget(&x);
  struct api_reply reply;
  struct api_request head = make_request("POST", "/steer", NULL);
  assert_int_equal(api_preview(api, &head, 2, &reply), 1);
  assert_int_equal(reply.status, 503);
  assert_string_equal(reply.headers[0].name, "Retry-After");
  x = expect_ok("GET", "/health", NULL);
  forget(&x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matching), cmocka_unit_test(test_table), cmocka_unit_test(test_unknown_paths), cmocka_unit_test(test_errors_of_openais_routes), cmocka_unit_test(test_syntax),
      cmocka_unit_test(test_values), cmocka_unit_test(test_features), cmocka_unit_test(test_steer_reply),
      cmocka_unit_test(test_steer_switches), cmocka_unit_test(test_steer_same_seed), cmocka_unit_test(test_steer_stream),
      cmocka_unit_test(test_steer_goes_away), cmocka_unit_test(test_one_feature), cmocka_unit_test(test_forms),
      cmocka_unit_test(test_by_token), cmocka_unit_test(test_over_text), cmocka_unit_test(test_tokenize),
      cmocka_unit_test(test_models), cmocka_unit_test(test_operations), cmocka_unit_test(test_pages),
      cmocka_unit_test(test_openapi), cmocka_unit_test(test_content_type), cmocka_unit_test(test_preview),
      cmocka_unit_test(test_drain),
  };
  return cmocka_run_group_tests(tests, open_house, close_house);
}
