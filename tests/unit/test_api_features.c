/* Features, explanations, dictionaries, vectors, shares and long jobs through api_begin and api_poll, on the tiny GPT-2
 * and a store that each test fills itself. What is checked are shapes, statuses and sentences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <unistd.h>

#include "core/archive.h"
#include "tests/unit/api_client.h"

#define MODEL_FOLDER "tests/vectors/tiny-gpt2/model"
#define SOURCES_FOLDER "tests/vectors/tiny-gpt2/sources/"
#define EXPORTED 1203 /* explanations of the second source: more than two pieces of the export */

static struct lab *lab;
static struct api *bare_api; /* of a lab without a store */
static struct lab *bare_lab;
static struct api *full_api;
static char folder[64];
static int64_t sources[2]; /* the store's numbers of 1-res-relu and 2-res-jump */

static const struct api_options settings = {.max_body = 1 << 18, .max_json_depth = 64, .max_result = 1 << 24,
                                            .max_features = 4, .max_texts = 3, .max_new_tokens = 24,
                                            .max_prompt_chars = 2000, .cors_origins = "",
                                            .base_url = "http://127.0.0.1:8080"};

#define must(call)                                                   \
  do {                                                               \
    struct error error = ERROR_INIT;                                 \
    if ((call) < 0) fail_msg("line %d: %s", __LINE__, error.text);   \
  } while (0)

/* ---- what is stored ----------------------------------------------------------------------------------- */

#define WORD(text) {text, sizeof text - 1}

static const struct store_text words[] = {WORD("a"), WORD(" <b>"), WORD("\xff")};
static const float values[] = {0.0f, 2.5f, 0.1f};
static const float heights[] = {7, 0, 1};
static const float bars[] = {0.25f, 0.75f, 1.25f};
static const uint32_t near_indices[] = {9, 2};
static const float cosines[] = {0.5f, -0.25f};

static const struct store_example examples[] = {
    {.slot = 0, .tokens = words, .values = values, .n = 3, .bin_min = -1, .bin_max = 2.5f, .bin_contains = -1,
     .qualifying = 1, .document = 12, .position = 1},
    {.slot = 1, .tokens = words, .values = bars, .n = 2, .bin_min = 0.5f, .bin_max = 1, .bin_contains = 0.125f,
     .qualifying = -1, .document = -1, .position = -1, .data_index = "x7", .extra = "{\"dfaValues\":[1,0.5],\"z\":1}"}};

static const struct store_feature full_feature = {
    .index = 3, .groups = STORE_STATISTICS | STORE_LOGITS | STORE_NEIGHBOURS | STORE_EXTRA | STORE_EXAMPLES,
    .n_fired = 8, .rate = 0.008, .mean = 0.75, .max = 2.5f, .activity = {heights, bars, 3}, .top = {words, bars, 2},
    .bottom = {words + 1, values, 2}, .logits = {bars, heights, 3}, .neighbours = near_indices, .cosines = cosines,
    .n_neighbours = 2, .extra = "{\"umap_x\":1.5,\"neuron_alignment_indices\":[4],\"other\":2}", .examples = examples,
    .n_examples = 2};

static void put_source(int64_t number) {
  struct arena arena;
  struct store_source row;
  arena_init(&arena, 0);
  must(store_source_at(lab_store(lab), number, &arena, &row, &error) == 1 ? 0 : -1);
  row.statistics = (struct store_statistics){.n_tokens = 1000, .n_documents = 40, .context = 64, .folded = true,
                                             .lines = true, .logit_convention = "raw", .corpus = "names.txt",
                                             .corpus_hash = "c0ffee", .made_at = "2026-01-02T03:04:05.000Z"};
  must(store_source_put(lab_store(lab), &row, NULL, &error));
  arena_clear(&arena);
}

/* Features 0..9 of the first source have rates of 1 in 10^index, the fourth everything; one explanation of it. */
static void put_features(void) {
  struct store_feature features[10] = {{0}};
  for (int i = 0; i < 10; i++)
    features[i] = (struct store_feature){.index = (uint32_t)i, .groups = STORE_STATISTICS, .n_fired = 10 - i,
                                         .rate = i == 9 ? 0 : pow(10, -i), .mean = i, .max = i == 9 ? 0 : 1.0f + i};
  features[3] = full_feature;
  const struct store_explanation explanation = {.source = sources[0], .index = 3, .origin = STORE_AUTOMATIC,
                                                .description = "fires on <b>", .type = "steerd-auto",
                                                .model_name = "rules-1", .score = NAN,
                                                .created_at = "2026-01-02T03:04:06.000Z"};
  struct store_batch batch = {.source = sources[0], .features = features, .n_features = 10,
                              .explanations = &explanation, .n_explanations = 1};
  must(store_batch_put(lab_store(lab), &batch, &error));
}

static void put_explanations(void) {
  static struct store_explanation rows[EXPORTED];
  static char texts[EXPORTED][48];
  for (int i = 0; i < EXPORTED; i++) {
    snprintf(texts[i], sizeof texts[i], "%s number %d", i % 2 ? "odd" : "even", i);
    rows[i] = (struct store_explanation){.source = sources[1], .index = (uint32_t)(i % 7), .origin = STORE_IMPORTED,
                                         .description = texts[i], .score = NAN};
  }
  struct store_batch batch = {.source = sources[1], .explanations = rows, .n_explanations = EXPORTED};
  must(store_batch_put(lab_store(lab), &batch, &error));
}

/* ---- the house ---------------------------------------------------------------------------------------- */

static struct lab *open_lab(const char *store, struct error *error) {
  static const struct lab_model_spec model = {"tiny", MODEL_FOLDER};
  static const struct lab_source_spec specs[] = {{"tiny", "1-res-relu", SOURCES_FOLDER "1-res-relu"},
                                                 {"tiny", "2-res-jump", SOURCES_FOLDER "2-res-jump"}};
  struct lab_options options = {.models = &model, .n_models = 1, .sources = specs, .n_sources = 2, .store = store,
                                .backend = "auto", .threads = 2, .max_queue = 16, .max_step_rows = 64,
                                .max_sessions = 4, .queue_timeout_ms = 10000, .generation_timeout_ms = 10000, .run_jobs = true};
  return lab_open(&options, error);
}

static int open_house(void **state) {
  (void)state;
  static char path[96];
  struct error error = ERROR_INIT;
  if (access(MODEL_FOLDER "/config.json", R_OK) != 0) return 0;
  snprintf(folder, sizeof folder, "/tmp/steerd-api-XXXXXX");
  if (!mkdtemp(folder)) return -1;
  snprintf(path, sizeof path, "%s/store.sqlite", folder);
  lab = open_lab(path, &error);
  bare_lab = open_lab(NULL, &error);
  if (lab) full_api = api_new(lab, &settings, &error);
  if (bare_lab) bare_api = api_new(bare_lab, &settings, &error);
  if (!full_api || !bare_api) return fprintf(stderr, "cannot open the tiny model: %s\n", error.text), -1;
  const struct lab_model_info *models;
  lab_models(lab, &models);
  const struct lab_source_info *const *infos;
  if (lab_sources(lab, &models[0], &infos) != 2) return -1;
  for (int i = 0; i < 2; i++) {
    sources[i] = lab_store_source(lab, infos[i]);
    put_source(sources[i]);
  }
  put_features();
  put_explanations();
  return 0;
}

static int close_house(void **state) {
  (void)state;
  char command[128];
  api_free(full_api);
  api_free(bare_api);
  lab_close(lab);
  lab_close(bare_lab);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return folder[0] ? system(command) : 0;
}

static void need_house(void) {
  api = full_api;
  if (api) return;
  printf("skip: tests/vectors/tiny-gpt2 is not there (run from the repository root)\n");
  skip();
}

/* The reply without members that the test does not know beforehand must be this JSON. */
static void expect_same(json_t *got, const char *want, const char *what) {
  json_error_t why;
  json_t *wanted = json_loads(want, 0, &why);
  if (!wanted) fail_msg("%s: the expectation is no JSON: line %d %s", what, why.line, why.text);
  if (!json_equal(got, wanted)) {
    char *text = json_dumps(got, JSON_COMPACT);
    fail_msg("%s:\nwanted %s\ngot    %s", what, want, text);
  }
  json_decref(wanted);
}

/* Takes a member out, after it has been looked at. */
static json_t *take(json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  if (!value) fail_msg("member '%s' is missing", key);
  json_incref(value);
  json_object_del(object, key);
  return value;
}

static const char *text_of(json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

/* ---- one feature -------------------------------------------------------------------------------------- */

#define PLACE "\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"source\":\"1-res-relu\",\"index\":\"3\""
#define ACTIVATIONS                                                                                                \
  "[{\"id\":\"tiny/1-res-relu/3/0\"," PLACE ",\"tokens\":[\"a\",\" <b>\",\"\xef\xbf\xbd\"],\"values\":[0,2.5,0.1]," \
  "\"maxValue\":2.5,\"maxValueTokenIndex\":1,\"minValue\":0,\"binMin\":-1,\"binMax\":2.5,\"binContains\":-1,"       \
  "\"qualifyingTokenIndex\":1,\"dfaValues\":[],\"dfaTargetIndex\":null,\"dfaMaxValue\":null,\"zQIndices\":[],"      \
  "\"zKIndices\":[],\"zValues\":[],\"lossValues\":[],\"logitContributions\":null,\"dataIndex\":\"12\","             \
  "\"dataSource\":\"names.txt\",\"document\":12,\"position\":1,\"creatorId\":null,"                                 \
  "\"createdAt\":\"2026-01-02T03:04:05.000Z\"},"                                                                    \
  "{\"id\":\"tiny/1-res-relu/3/1\"," PLACE ",\"tokens\":[\"a\",\" <b>\"],\"values\":[0.25,0.75],\"maxValue\":0.75,"  \
  "\"maxValueTokenIndex\":1,\"minValue\":0.25,\"binMin\":0.5,\"binMax\":1,\"binContains\":0.125,"                   \
  "\"qualifyingTokenIndex\":null,\"dfaValues\":[1,0.5],\"dfaTargetIndex\":null,\"dfaMaxValue\":null,"               \
  "\"zQIndices\":[],\"zKIndices\":[],\"zValues\":[],\"lossValues\":[],\"logitContributions\":null,"                 \
  "\"dataIndex\":\"x7\",\"dataSource\":\"names.txt\",\"document\":null,\"position\":null,\"creatorId\":null,"       \
  "\"createdAt\":\"2026-01-02T03:04:05.000Z\"}]"
#define EXPLANATION                                                                                         \
  "{" PLACE ",\"description\":\"fires on <b>\",\"explanationModelName\":\"rules-1\",\"typeName\":\"steerd-auto\"," \
  "\"score\":null,\"scores\":[],\"origin\":\"automatic\",\"authorId\":null,\"notes\":null,"                 \
  "\"triggeredByUser\":null,\"createdAt\":\"2026-01-02T03:04:06.000Z\"}"
#define FEATURE                                                                                             \
  "{\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"index\":\"3\",\"sourceSetName\":\"res-relu\","          \
  "\"creatorId\":null,\"createdAt\":\"2026-01-02T03:04:05.000Z\",\"maxActApprox\":2.5,\"hasVector\":false," \
  "\"vector\":[],\"vectorLabel\":null,\"vectorDefaultSteerStrength\":10,\"frac_nonzero\":0.008,"            \
  "\"n_tokens\":1000,\"n_fired\":8,\"mean\":0.75,\"conventions\":{\"folded\":true,\"bosCounted\":false,"    \
  "\"lines\":true,\"context\":64,\"documents\":40,\"logits\":\"raw\",\"corpus\":\"names.txt\","             \
  "\"corpusHash\":\"c0ffee\",\"madeAt\":\"2026-01-02T03:04:05.000Z\"},\"topkCosSimIndices\":[9,2],"         \
  "\"topkCosSimValues\":[0.5,-0.25],\"neg_str\":[\" <b>\",\"\xef\xbf\xbd\"],\"neg_values\":[0,2.5],"        \
  "\"pos_str\":[\"a\",\" <b>\"],\"pos_values\":[0.25,0.75],\"freq_hist_data_bar_heights\":[7,0,1],"         \
  "\"freq_hist_data_bar_values\":[0.25,0.75,1.25],\"logits_hist_data_bar_heights\":[0.25,0.75,1.25],"       \
  "\"logits_hist_data_bar_values\":[7,0,1],\"neuron_alignment_indices\":[4],\"neuron_alignment_values\":[]," \
  "\"neuron_alignment_l1\":[],\"correlated_neurons_indices\":[],\"correlated_neurons_pearson\":[],"         \
  "\"correlated_neurons_l1\":[],\"correlated_features_indices\":[],\"correlated_features_pearson\":[],"     \
  "\"correlated_features_l1\":[],\"decoder_weights_dist\":[],\"umap_cluster\":null,"                        \
  "\"umap_log_feature_sparsity\":null,\"umap_x\":1.5,\"umap_y\":null,\"creator\":null,\"lists\":[],"        \
  "\"comments\":[]}"

/* A feature object that came from anywhere, by its parts; takes it apart. */
static void check_feature(json_t *feature, const char *activations, bool has_norm) {
  json_t *examples_got = take(feature, "activations"), *explanations = take(feature, "explanations");
  json_t *model = take(feature, "model"), *source = take(feature, "source"), *set = take(feature, "sourceSet");
  json_t *norm = take(feature, "decoder_norm"), *hook = take(feature, "hookName");
  assert_true(has_norm ? json_number_value(norm) > 0 : json_is_null(norm));
  assert_non_null(strstr(json_string_value(hook), ".hook_"));
  expect_same(examples_got, activations, "activations");
  assert_int_equal(json_array_size(explanations), 1);
  json_t *id = take(json_array_get(explanations, 0), "id");
  assert_true(json_is_string(id));
  expect_same(json_array_get(explanations, 0), EXPLANATION, "explanation");
  assert_string_equal(text_of(model, "id"), "tiny");
  assert_string_equal(text_of(source, "setName"), "res-relu");
  assert_string_equal(text_of(set, "name"), "res-relu");
  expect_same(feature, FEATURE, "feature");
  json_t *parts[] = {examples_got, explanations, model, source, set, norm, hook, id};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) json_decref(parts[i]);
}

static void test_feature(void **state) {
  (void)state;
  need_house();
  const char *paths[] = {"/feature/tiny/1-res-relu/3", "/api/feature/tiny/1-res-relu/3/"};
  for (int i = 0; i < 2; i++) {
    struct exchange x = expect_ok("GET", paths[i], NULL);
    check_feature(x.json, ACTIVATIONS, true);
    forget(&x);
  }
  struct exchange x = expect_ok("GET", "/feature/tiny/1-res-relu/3?maxActivations=1", NULL);
  assert_int_equal(json_array_size(json_object_get(x.json, "activations")), 1);
  forget(&x);
  expect_error("GET", "/feature/tiny/1-res-relu/3?maxActivations=x", NULL, 400, "argument", "maxActivations",
               "an integer from 0 to 4096, found the string \"x\"");
}

/* Without statistics and without a store: what is not known is null or empty, never 0. */
static void test_unknown_feature(void **state) {
  (void)state;
  need_house();
  for (int i = 0; i < 2; i++) {
    api = i ? bare_api : full_api;
    struct exchange x = expect_ok("GET", "/feature/tiny/1-res-relu/11", NULL);
    const char *nulls[] = {"maxActApprox", "frac_nonzero", "n_fired", "mean"};
    for (size_t k = 0; k < 4; k++) assert_true(json_is_null(json_object_get(x.json, nulls[k])));
    const char *lists[] = {"activations", "explanations", "freq_hist_data_bar_heights"};
    for (size_t k = 0; k < 3; k++) assert_int_equal(json_array_size(json_object_get(x.json, lists[k])), 0);
    assert_int_equal(json_is_null(json_object_get(x.json, "n_tokens")), i);
    assert_true(json_number_value(json_object_get(x.json, "decoder_norm")) > 0);
    forget(&x);
  }
}

static void test_no_such_feature(void **state) {
  (void)state;
  need_house();
  expect_error("GET", "/feature/tiny/1-res-relu/999999", NULL, 404, "not_found", "index", "has no feature 999999");
  expect_error("GET", "/feature/tiny/1-res-relu/x", NULL, 404, "not_found", "index", "has no feature 'x'");
  expect_error("GET", "/feature/tiny/1-res-relu/-1", NULL, 404, "not_found", "index", "'-1'");
  expect_error("GET", "/feature/tiny/1-res-relu/99999999999999999999", NULL, 404, "not_found", "index", "indices go");
  expect_error("GET", "/feature/tiny/1-res-rely/3", NULL, 404, "not_found", "source", "1-res-relu");
  expect_error("GET", "/feature/none/1-res-relu/3", NULL, 404, "not_found", "modelId", "tiny");
  expect_error("GET", "/feature/tiny/1/3", NULL, 501, "unsupported", "source", "MLP neurons");
}

/* ---- several features --------------------------------------------------------------------------------- */

static void test_features(void **state) {
  (void)state;
  need_house();
#define LIST                                                                                      \
  "[{\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"index\":3},{\"layer\":\"9-res-none\",\"index\":1}," \
  "{\"modelId\":\"none\",\"layer\":\"1-res-relu\",\"index\":1},{\"source\":\"1-res-relu\",\"index\":99999999}," \
  "{\"layer\":\"2-res-jump\",\"index\":\"0\"},{\"layer\":\"1-res-relu\",\"index\":3,\"maxActsToReturn\":0}]"
  const char *bodies[] = {LIST, "{\"features\":" LIST "}"};
  for (int i = 0; i < 2; i++) {
    struct exchange x = expect_ok("POST", "/api/features", bodies[i]);
    assert_int_equal(json_array_size(x.json), 3);
    assert_string_equal(text_of(json_array_get(x.json, 1), "layer"), "2-res-jump");
    assert_true(json_array_size(json_object_get(json_array_get(x.json, 1), "explanations")) > 100);
    check_feature(json_array_get(x.json, 0), ACTIVATIONS, false);
    check_feature(json_array_get(x.json, 2), "[]", false);
    forget(&x);
  }
  struct exchange x = expect_ok("POST", "/api/features", "[]");
  assert_string_equal(x.body, "[]");
  forget(&x);
  expect_error("POST", "/api/features", "[{\"layer\":\"1-res-relu\"}]", 400, "argument", "features[0].index", "required");
  expect_error("POST", "/api/features", "7", 400, "argument", NULL, "found 7");
  expect_error("POST", "/api/features", "", 400, "argument", "features", "required");
  expect_error("POST", "/steer", "[]", 400, "argument", NULL, "must be a JSON object");
}

static void test_offset(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/features-offset", "{\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"offset\":2}");
  assert_int_equal(json_array_size(x.json), 7); /* 9 fire */
  assert_string_equal(text_of(json_array_get(x.json, 0), "index"), "2");
  check_feature(json_array_get(x.json, 1), ACTIVATIONS, false);
  forget(&x);
}

static void test_activation_get(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/activation/get", "{\"modelId\":\"tiny\",\"source\":\"1-res-relu\",\"index\":\"3\"}");
  expect_same(x.json, ACTIVATIONS, "activations");
  forget(&x);
  x = expect_ok("POST", "/api/activation/get", "{\"modelId\":\"tiny\",\"source\":\"1-res-relu\",\"index\":\"0\"}");
  assert_string_equal(x.body, "[]");
  forget(&x);
  expect_error("POST", "/api/activation/get", "{\"modelId\":\"tiny\",\"index\":\"3\"}", 400, "argument", "source", "required");
}

/* ---- explanations ------------------------------------------------------------------------------------- */

#define EXPORT "/api/explanation/export?modelId=tiny&saeId=2-res-jump"

/* Rows are ordered by index; each has the six columns and nothing else. */
static void check_rows(json_t *rows, size_t count) {
  size_t i;
  json_t *row;
  long before = -1;
  assert_int_equal(json_array_size(rows), count);
  json_array_foreach(rows, i, row) {
    assert_int_equal(json_object_size(row), 6);
    assert_string_equal(text_of(row, "modelId"), "tiny");
    assert_string_equal(text_of(row, "layer"), "2-res-jump");
    assert_true(json_is_string(json_object_get(row, "description")));
    long index = atol(text_of(row, "index"));
    assert_true(index >= before);
    before = index;
  }
}

static void test_export(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", EXPORT, NULL);
  assert_true(x.stream);
  assert_string_equal(x.type, "application/json");
  assert_string_equal(x.total, "1203");
  assert_string_equal(x.link, "");
  check_rows(x.json, EXPORTED);
  struct exchange page = expect_ok("GET", EXPORT "&limit=600&offset=601", NULL);
  check_rows(page.json, 600);
  for (size_t i = 0; i < 600; i++)
    assert_true(json_equal(json_array_get(page.json, i), json_array_get(x.json, i + 601)));
  assert_string_equal(page.total, "1203");
  assert_non_null(strstr(page.link, "<http://127.0.0.1:8080" EXPORT "&limit=600&offset=1201>; rel=\"next\""));
  assert_non_null(strstr(page.link, "offset=1>; rel=\"prev\""));
  forget(&x);
  forget(&page);
  x = expect_ok("GET", EXPORT "&limit=10&offset=1200", NULL);
  assert_false(x.stream);
  check_rows(x.json, 3);
  assert_null(strstr(x.link, "next"));
  forget(&x);
  x = expect_ok("GET", EXPORT "&offset=5000", NULL);
  assert_string_equal(x.body, "[]");
  forget(&x);
}

static void test_explanations(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", "/explanations?saeId=2-res-jump&limit=2", NULL);
  check_rows(x.json, 2);
  forget(&x);
  x = expect_ok("GET", "/explanations", NULL); /* every source of the only model */
  assert_int_equal(json_array_size(x.json), EXPORTED + 1);
  forget(&x);
  x = expect_ok("GET", "/explanations?q=fire&saeId=1-res-relu", NULL); /* "fires" without its ending */
  assert_int_equal(json_array_size(x.json), 1);
  json_t *row = json_array_get(x.json, 0);
  assert_string_equal(text_of(row, "description"), "fires on <b>");
  assert_string_equal(text_of(row, "index"), "3");
  assert_non_null(text_of(row, "snippet"));
  forget(&x);
  x = expect_ok("GET", "/explanations?q=number&saeId=1-res-relu", NULL);
  assert_string_equal(x.body, "[]");
  forget(&x);
  x = expect_ok("GET", "/explanations?q=numb&limit=3&offset=3", NULL);
  assert_int_equal(json_array_size(x.json), 3);
  assert_non_null(strstr(x.link, "/explanations?q=numb&limit=3&offset=6>; rel=\"next\""));
  assert_string_equal(x.total, "");
  forget(&x);
  expect_error("GET", "/explanations?q=...", NULL, 400, "argument", "q", "word");
  expect_error("GET", "/explanations?saeId=none", NULL, 404, "not_found", "saeId", "none");
  expect_error("GET", "/explanations?limit=0", NULL, 400, "argument", "limit", "from 1 to 1000000000, found 0");
  expect_error("GET", "/explanations?limit=2&limit=3", NULL, 400, "argument", "limit", "given twice");
  expect_error("GET", "/explanations?saeId=2-res-jump&source=2-res-jump", NULL, 400, "argument", "saeId", "given twice");
}

static void test_search(void **state) {
  (void)state;
  need_house();
  const struct {
    const char *path, *where;
    size_t count;
  } cases[] = {{"/api/explanation/search", "\"modelId\":\"tiny\",\"layers\":[\"2-res-jump\"],", 20},
               {"/api/explanation/search", "\"modelId\":\"tiny\",\"layers\":[\"1-res-relu\"],", 0},
               {"/api/explanation/search", "\"modelId\":\"tiny\",\"layers\":[],", 20},
               {"/api/explanation/search-model", "\"modelId\":\"tiny\",", 20},
               {"/api/explanation/search-release", "\"releaseName\":\"res-jump\",", 20},
               {"/api/explanation/search-release", "\"releaseName\":\"res-relu\",", 0},
               {"/api/explanation/search-all", "", 20}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char body[200];
    snprintf(body, sizeof body, "{%s\"query\":\"odd number\"}", cases[i].where);
    struct exchange x = expect_ok("POST", cases[i].path, body);
    json_t *rows = json_object_get(x.json, "results");
    assert_int_equal(json_array_size(rows), cases[i].count);
    assert_int_equal(json_integer_value(json_object_get(x.json, "resultsCount")), cases[i].count);
    assert_int_equal(json_is_true(json_object_get(x.json, "hasMore")), cases[i].count > 0);
    assert_int_equal(json_integer_value(json_object_get(x.json, "nextOffset")), cases[i].count);
    assert_string_equal(text_of(json_object_get(x.json, "request"), "query"), "odd number");
    if (cases[i].count) assert_int_equal(strncmp(text_of(json_array_get(rows, 0), "description"), "odd", 3), 0);
    forget(&x);
  }
  struct exchange x = expect_ok("POST", "/api/explanation/search-all", "{\"query\":\"odd number\",\"offset\":600}");
  assert_int_equal(json_array_size(json_object_get(x.json, "results")), 1); /* 601 of them are odd */
  assert_null(json_object_get(x.json, "nextOffset"));
  forget(&x);
  x = expect_ok("POST", "/api/explanation/search-all", "{\"query\":\"fires 1202\",\"match\":\"any\"}");
  assert_int_equal(json_array_size(json_object_get(x.json, "results")), 2);
  forget(&x);
  expect_error("POST", "/api/explanation/search-all", "{\"query\":\"ab\"}", 400, "argument", "query", "of 3 to 256");
  expect_error("POST", "/api/explanation/search-all", "{\"query\":\"...\"}", 400, "argument", "query", "");
  expect_error("POST", "/api/explanation/search-release", "{\"releaseName\":\"x\",\"query\":\"abc\"}", 404, "not_found",
               "releaseName", "no source set 'x'");
  expect_error("POST", "/api/explanation/search", "{\"layers\":[\"x-y\"],\"query\":\"abc\"}", 404, "not_found",
               "layers[0]", "x-y");
}

static void test_new_explanation(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/explanation/new",
                                "{\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"index\":\"5\",\"description\":\"zebras\","
                                "\"typeName\":\"by hand\",\"authorId\":\"ada\",\"score\":0.5}");
  char path[64], gone[80];
  snprintf(path, sizeof path, "/api/explanation/%s", member(&x, "id"));
  snprintf(gone, sizeof gone, "%s/delete", path);
  struct exchange y = expect_ok("GET", path, NULL);
  assert_true(json_equal(x.json, y.json));
  assert_string_equal(member(&y, "origin"), "manual");
  assert_string_equal(member(&y, "source"), "1-res-relu");
  assert_true(json_is_null(json_object_get(y.json, "explanationModelName")));
  forget(&x);
  forget(&y);
  x = expect_ok("GET", "/explanations?q=zebra", NULL);
  assert_int_equal(json_array_size(x.json), 1);
  forget(&x);
  x = expect_ok("POST", gone, NULL);
  assert_string_equal(member(&x, "message"), "Success");
  forget(&x);
  expect_error("GET", path, NULL, 404, "not_found", "id", "no explanation");
  expect_error("POST", gone, NULL, 404, "not_found", "id", "no explanation");
  expect_error("GET", "/api/explanation/x", NULL, 404, "not_found", "id", "'x'");
  expect_error("POST", "/api/explanation/new", "{\"layer\":\"1-res-relu\",\"index\":99999,\"description\":\"a\"}", 404,
               "not_found", "index", "99999");
  expect_error("POST", "/api/explanation/new", "{\"layer\":\"1-res-relu\",\"index\":1,\"description\":\"\"}", 400,
               "argument", "description", "empty string");
}

/* ---- dictionaries ------------------------------------------------------------------------------------- */

#define DICTIONARY "/v1/lab/dictionaries/tiny/1-res-relu"

static void test_dictionary(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", DICTIONARY, NULL);
  assert_string_equal(member(&x, "source"), "1-res-relu");
  assert_true(json_is_object(json_object_get(x.json, "provenance")));
  json_t *statistics = json_object_get(x.json, "statistics");
  assert_int_equal(json_integer_value(json_object_get(statistics, "nTokens")), 1000);
  assert_int_equal(json_integer_value(json_object_get(statistics, "featuresWithStatistics")), 10);
  forget(&x);
  x = expect_ok("GET", DICTIONARY "/density", NULL);
  size_t n = (size_t)json_integer_value(json_object_get(x.json, "features"));
  json_t *rates = json_object_get(x.json, "rates");
  assert_int_equal(json_array_size(rates), n);
  assert_true(json_real_value(json_array_get(rates, 3)) == 0.008); /* a float32 in the store, the shortest text of it */
  assert_true(json_is_null(json_array_get(rates, 10)));
  assert_int_equal(json_integer_value(json_object_get(x.json, "dead")), 1);
  /* rates 1, 0.1, 0.01, 0.008, 1e-4 ... 1e-8, 0: those below each end, 0 among them */
  expect_same(json_object_get(x.json, "shares"),
              "[{\"below\":0.1,\"features\":8,\"share\":0.8},{\"below\":0.01,\"features\":7,\"share\":0.7},"
              "{\"below\":0.001,\"features\":6,\"share\":0.6},{\"below\":0.0001,\"features\":5,\"share\":0.5}]",
              "shares");
  json_t *histogram = json_object_get(x.json, "log10Histogram");
  json_t *counts = json_object_get(histogram, "counts"), *count;
  size_t i, sum = 0;
  assert_int_equal(json_array_size(counts) + 1, json_array_size(json_object_get(histogram, "edges")));
  json_array_foreach(counts, i, count) sum += (size_t)json_integer_value(count);
  assert_int_equal(sum, 9);
  assert_int_equal(json_integer_value(json_array_get(counts, 31)), 1); /* the rate 1 */
  assert_int_equal(json_integer_value(json_array_get(counts, 24)), 1); /* 0.01: the bar that begins there */
  forget(&x);
  x = expect_ok("GET", DICTIONARY "/density?rates=false", NULL);
  assert_null(json_object_get(x.json, "rates"));
  forget(&x);
  expect_error("GET", DICTIONARY "/density?rate=false", NULL, 400, "argument", "rate", "did you mean 'rates'");
  expect_error("GET", DICTIONARY "/density?rates=no", NULL, 400, "argument", "rates", "true or false, found");
  expect_error("GET", DICTIONARY "?x=1", NULL, 400, "argument", "x", "unknown field");
}

static void test_feature_list(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", DICTIONARY "/features?order=max&descending=true&limit=3&offset=1", NULL);
  json_t *rows = json_object_get(x.json, "features");
  const int want[] = {7, 6, 5}; /* the maximum of feature i is i + 1, but for 3 and 9 */
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(json_integer_value(json_object_get(json_array_get(rows, i), "index")), want[i]);
  assert_string_equal(x.total, "10");
  assert_non_null(strstr(x.link, "limit=3&offset=4>; rel=\"next\""));
  forget(&x);
  x = expect_ok("GET", DICTIONARY "/features?alive=1", NULL);
  assert_int_equal(json_integer_value(json_object_get(x.json, "total")), 9);
  expect_same(json_array_get(json_object_get(x.json, "features"), 3),
              "{\"index\":3,\"rate\":0.008,\"nFired\":8,\"max\":2.5,\"mean\":0.75,\"description\":\"fires on <b>\"}", "row");
  forget(&x);
  expect_error("GET", DICTIONARY "/features?order=size", NULL, 400, "argument", "order", "one of 'index', 'rate'");
  for (int i = 0; i < 20; i++) {
    x = expect_ok("GET", DICTIONARY "/random", NULL);
    assert_in_range(json_integer_value(json_object_get(x.json, "index")), 0, 8);
    forget(&x);
  }
}

static void test_cossim(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/cossim",
                                "{\"modelId\":\"tiny\",\"source\":\"1-res-relu\",\"index\":\"5\",\"targetModelId\":\"tiny\","
                                "\"targetSourceId\":\"2-res-jump\"}");
  json_t *rows = json_object_get(x.json, "topkDecoderCossimFeatures");
  assert_int_equal(json_array_size(rows), 10);
  expect_same(json_object_get(x.json, "feature"), "{\"model\":\"tiny\",\"source\":\"1-res-relu\",\"index\":5}", "feature");
  json_t *first = json_array_get(rows, 0);
  assert_string_equal(text_of(json_object_get(first, "feature"), "source"), "2-res-jump");
  assert_true(json_is_number(json_object_get(first, "cosineSimilarity")));
  forget(&x);
  expect_error("POST", "/api/cossim", "{\"source\":\"1-res-relu\",\"index\":5,\"targetSourceId\":\"x-y\"}", 404, "not_found",
               "targetSourceId", "x-y");
  expect_error("POST", "/api/cossim", "{\"source\":\"1-res-relu\",\"index\":99999}", 404, "not_found", "index", "99999");
}

/* ---- vectors ------------------------------------------------------------------------------------------ */

static void test_vectors(void **state) {
  (void)state;
  need_house();
  const struct lab_model_info *models;
  lab_models(lab, &models);
  char body[8192] = "{\"modelId\":\"tiny\",\"layerNumber\":1,\"hookType\":\"hook_resid_pre\",\"vectorLabel\":\"up\","
                    "\"vectorDefaultSteerStrength\":-4.5,\"vector\":[0.1";
  for (int64_t i = 1; i < models[0].d_model; i++) strcat(body, ",2");
  strcat(body, "]}");
  struct exchange x = expect_ok("POST", "/api/vector/new", body);
  json_t *vector = json_object_get(x.json, "vector");
  assert_string_equal(text_of(vector, "source"), "1-neuronpedia-resid-pre");
  assert_string_equal(text_of(vector, "hookName"), "blocks.1.hook_resid_pre");
  assert_true(json_real_value(json_array_get(json_object_get(vector, "values"), 0)) == 0.1);
  char ask_for[200];
  snprintf(ask_for, sizeof ask_for, "{\"modelId\":\"tiny\",\"source\":\"1-neuronpedia-resid-pre\",\"index\":\"%s\"}",
           text_of(vector, "index"));
  struct exchange y = expect_ok("POST", "/api/vector/get", ask_for);
  vector = json_object_get(y.json, "vector");
  assert_string_equal(text_of(vector, "layer"), "1-neuronpedia-resid-pre");
  assert_string_equal(text_of(vector, "vectorLabel"), "up");
  assert_true(json_number_value(json_object_get(vector, "vectorDefaultSteerStrength")) == -4.5);
  assert_int_equal(json_array_size(json_object_get(vector, "vector")), models[0].d_model);
  forget(&x);
  forget(&y);
  x = expect_ok("POST", "/api/vector/list-owned", NULL);
  assert_int_equal(json_array_size(json_object_get(x.json, "vectors")), 1);
  forget(&x);
  for (int i = 0; i < 2; i++) {
    x = expect_ok("POST", "/api/vector/delete", ask_for);
    assert_string_equal(member(&x, "message"), "Success");
    forget(&x);
  }
  expect_error("POST", "/api/vector/get", ask_for, 404, "not_found", "index", "no vector");
#define NEW(fields) "{\"vector\":[1,2],\"hookType\":\"hook_resid_post\"," fields "}"
  const char *v = "/api/vector/new";
  expect_error("POST", v, NEW("\"layerNumber\":1"), 400, "argument", "vector", "the width of model 'tiny', found 2");
  expect_error("POST", v, NEW("\"layerNumber\":99"), 400, "argument", "layerNumber", "found 99");
  expect_error("POST", v, NEW("\"layerNumber\":1,\"label\":1"), 400, "argument", "vectorLabel", "a string");
  expect_error("POST", v, "{\"layerNumber\":1,\"hookType\":\"hook_z\",\"vector\":[1]}", 400, "argument", "hookType", "one of");
  expect_error("POST", v, "{\"layerNumber\":1,\"hookType\":\"resid-pre\",\"vector\":[true]}", 400, "argument", "vector",
               "found true");
}

/* ---- shares ------------------------------------------------------------------------------------------- */

static void test_share(void **state) {
  (void)state;
  need_house();
  const char *bodies[] = {
      "{\"prompt\":\"Hello <b>\",\"features\":[{\"layer\":\"1-res-relu\",\"index\":7,\"strength\":2}],\"n_tokens\":3,"
      "\"n_logprobs\":1,\"share\":true}",
      "{\"prompt\":\"Hello <b>\",\"features\":[{\"layer\":\"1-res-relu\",\"index\":7,\"strength\":2}],\"n_tokens\":3,"
      "\"n_logprobs\":1,\"share\":true,\"stream\":true}"};
  for (int i = 0; i < 2; i++) {
    struct exchange x = expect_ok("POST", "/api/steer", bodies[i]);
    char *last = i ? strstr(x.body, "data: ") : NULL;
    for (char *at = last; at; at = strstr(at + 1, "data: ")) last = at;
    json_t *reply = i ? json_loads(last + 6, JSON_DISABLE_EOF_CHECK, NULL) : json_incref(x.json);
    char want[128], body[128];
    snprintf(want, sizeof want, "http://127.0.0.1:8080/steer/%s", text_of(reply, "id"));
    assert_string_equal(text_of(reply, "shareUrl"), want);
    snprintf(body, sizeof body, "{\"steerOutputId\":\"%s\"}", text_of(reply, "id"));
    struct exchange y = expect_ok("POST", "/api/steer-load", body);
    const char *key;
    json_t *value;
    json_object_foreach(reply, key, value) {
      if (!json_equal(json_object_get(y.json, key), value)) fail_msg("'%s' came back differently: %s", key, y.body);
    }
    assert_string_equal(member(&y, "inputText"), "Hello <b>");
    assert_true(json_is_true(json_object_get(y.json, "outputTextIncludesPrompt")));
    expect_same(json_object_get(y.json, "features"),
                "[{\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"index\":\"7\",\"strength\":2}]", "features");
    json_decref(reply);
    forget(&x);
    forget(&y);
  }
  expect_error("POST", "/api/steer-load", "{\"steerOutputId\":\"none\"}", 404, "not_found", "steerOutputId", "'none'");
}

/* ---- jobs --------------------------------------------------------------------------------------------- */

/* A text long enough that its job is still running when the test looks. */
static const char *corpus(int lines) {
  static char path[96];
  snprintf(path, sizeof path, "%s/corpus-%d.txt", folder, lines);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  for (int i = 0; i < lines; i++) fprintf(file, "the %d lines of a text that says nothing\n", i);
  assert_int_equal(fclose(file), 0);
  return path;
}

static int64_t start_job(const char *path) {
  char body[300];
  snprintf(body, sizeof body, "{\"kind\":\"stats\",\"modelId\":\"tiny\",\"source\":\"2-res-jump\",\"corpus\":\"%s\","
                              "\"lines\":true,\"nTop\":2,\"n_quantile\":1,\"window\":16}", path);
  struct exchange x = expect_ok("POST", "/v1/jobs", body);
  int64_t id = json_integer_value(json_object_get(x.json, "id"));
  assert_true(id > 0);
  assert_string_equal(member(&x, "kind"), "stats");
  const char *members[] = {"state", "done", "total", "unit", "share", "rate", "secondsLeft", "message", "cancelling",
                           "error", "parameters", "result", "createdAt", "startedAt", "updatedAt", "finishedAt"};
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
    if (!json_object_get(x.json, members[i])) fail_msg("a job has no '%s': %s", members[i], x.body);
  forget(&x);
  return id;
}

/* Follows a job to its end: within one unit (documents, then features) progress never goes back, and the last event
 * alone tells the end. */
static void follow_job(int64_t id, const char *end) {
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld/events", (long long)id);
  struct exchange x = expect_ok("GET", path, NULL);
  assert_string_equal(x.type, "text/event-stream; charset=utf-8");
  json_int_t before = 0;
  char unit[32] = "";
  int events = 0;
  for (char *at = x.body, *stop; (stop = strstr(at, "\n\n")); at = stop + 2, events++) {
    assert_int_equal(strncmp(at, "data: ", 6), 0);
    json_t *event = json_loadb(at + 6, (size_t)(stop - at - 6), 0, NULL);
    const char *now = json_string_value(json_object_get(event, "unit"));
    bool same = strcmp(unit, now ? now : "") == 0;
    assert_true(!same || json_integer_value(json_object_get(event, "done")) >= before);
    snprintf(unit, sizeof unit, "%s", now ? now : "");
    before = json_integer_value(json_object_get(event, "done"));
    const char *state = text_of(event, "state");
    bool open = strcmp(state, "queued") == 0 || strcmp(state, "running") == 0;
    assert_int_equal(open, stop[2] != '\0');
    if (!open) assert_string_equal(state, end);
    json_decref(event);
  }
  assert_true(events > 0);
  forget(&x);
}

static void test_jobs(void **state) {
  (void)state;
  need_house();
  int64_t id = start_job(corpus(3));
  follow_job(id, "done");
  follow_job(id, "done"); /* of a job that has ended: one event */
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  struct exchange x = expect_ok("GET", path, NULL);
  assert_string_equal(member(&x, "state"), "done");
  forget(&x);
  x = expect_ok("GET", "/v1/jobs", NULL);
  assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(x.json, "jobs"), 0), "id")), id);
  forget(&x);
  expect_error("GET", "/v1/jobs/x", NULL, 404, "not_found", "id", "no job 'x'");
  expect_error("GET", "/v1/jobs/99999", NULL, 404, "not_found", NULL, "99999");
  expect_error("GET", "/v1/jobs/99999/events", NULL, 404, "not_found", NULL, "99999");
#define JOB(fields) "{\"kind\":\"stats\",\"source\":\"1-res-relu\"," fields "}"
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/none\",\"windw\":9"), 400, "argument", "windw", "did you mean 'window'");
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/none\",\"window\":7"), 400, "argument", "window", "from 8 to 256");
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/none/at/all\""), 404, "not_found", "corpus", "/none/at/all");
  expect_error("POST", "/v1/jobs", "{\"kind\":\"train\",\"source\":\"1-res-relu\"}", 400, "argument", "kind", "'stats'");
}

static void test_job_stops_and_goes_on(void **state) {
  (void)state;
  need_house();
  int64_t id = start_job(corpus(20000));
  char path[64], resume[80];
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  snprintf(resume, sizeof resume, "%s/resume", path);
  for (int i = 0; i < 2; i++) {
    struct exchange x = expect_ok("DELETE", path, NULL);
    forget(&x);
    follow_job(id, "cancelled");
    if (i) break;
    x = expect_ok("POST", resume, NULL);
    assert_true(strcmp(member(&x, "state"), "queued") == 0 || strcmp(member(&x, "state"), "running") == 0);
    forget(&x);
  }
}

/* Only this machine, or a client with a key, may have files read. */
static void test_strangers(void **state) {
  (void)state;
  need_house();
  const struct {
    const char *method, *path;
    int status;
  } cases[] = {{"POST", "/v1/jobs", 403}, {"DELETE", "/v1/jobs/1", 403}, {"POST", "/v1/jobs/1/resume", 403},
               {"GET", "/v1/jobs", 200}, {"GET", "/v1/jobs/1", 200}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    bool starts = i == 0;
    struct api_request request = make_request(cases[i].method, cases[i].path,
                                              starts ? JOB("\"corpus\":\"/etc/passwd\"") : NULL);
    request.trusted = false;
    struct exchange x = send_request(&request);
    assert_int_equal(x.status, cases[i].status);
    if (x.status == 403) assert_string_equal(member(&x, "code"), "forbidden");
    forget(&x);
  }
}

/* Reads what there is; -1 at the end of the stream, 0 when the next event must be waited for. */
static ssize_t read_events(struct api_call *call) {
  char window[4096];
  ssize_t n;
  while ((n = api_read(call, window, sizeof window)) > 0) continue;
  return n;
}

/* A client that leaves, and a server that stops, end the stream of a job that says nothing. */
static void test_watchers_leave(void **state) {
  (void)state;
  need_house();
  int64_t id;
  must(store_job_create(lab_store(lab), "stats", "{}", &id, &error));
  struct store_job_update running = STORE_JOB_UPDATE_INIT; /* taken from the queue by nobody: it says nothing */
  running.state = STORE_RUNNING;
  must(store_job_update(lab_store(lab), id, &running, &error));
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld/events", (long long)id);
  struct bell bell = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct api_request request = make_request("GET", path, NULL);
  for (int i = 0; i < 3; i++) {
    struct api_reply reply;
    struct api_call *call = api_begin(api, &request, bell_ring, &bell);
    assert_int_equal(api_poll(call, &reply), 1);
    assert_true(reply.stream);
    assert_int_equal(read_events(call), 0);
    bell.count = 0;
    if (i == 1) api_cancel(call);
    if (i == 2) api_drain(api);
    if (i > 0) bell_wait(&bell);
    if (i > 0) assert_int_equal(read_events(call), -1);
    api_end(call);
  }
  assert_int_equal(api_in_flight(api), 0);
}

/* ---- without a store ---------------------------------------------------------------------------------- */

static void test_without_store(void **state) {
  (void)state;
  need_house();
  api = bare_api;
  struct exchange x = expect_ok("GET", "/explanations?saeId=1-res-relu", NULL);
  assert_string_equal(x.body, "[]");
  assert_string_equal(x.total, "0");
  forget(&x);
  x = expect_ok("GET", DICTIONARY "/density", NULL);
  assert_true(json_is_null(json_array_get(json_object_get(x.json, "rates"), 0)));
  forget(&x);
  const char *quiet[] = {DICTIONARY, DICTIONARY "/features", DICTIONARY "/random", "/v1/jobs", "/explanations?q=a"};
  for (size_t i = 0; i < sizeof quiet / sizeof quiet[0]; i++) {
    x = expect_ok("GET", quiet[i], NULL);
    forget(&x);
  }
  x = expect_ok("POST", "/api/features", "[{\"layer\":\"1-res-relu\",\"index\":3}]");
  assert_int_equal(json_array_size(x.json), 1);
  forget(&x);
  x = expect_ok("POST", "/api/explanation/search-all", "{\"query\":\"anything\"}");
  assert_true(json_is_false(json_object_get(x.json, "hasMore")));
  forget(&x);
  const char *remedy = "--store";
  expect_error("POST", "/api/explanation/new", "{\"layer\":\"1-res-relu\",\"index\":1,\"description\":\"a\"}", 501,
               "unsupported", NULL, remedy);
  expect_error("POST", "/api/vector/delete", "{\"source\":\"x\",\"index\":1}", 501, "unsupported", NULL, remedy);
  expect_error("POST", "/steer", "{\"prompt\":\"a\",\"features\":[],\"share\":true}", 501, "unsupported", NULL, remedy);
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/etc/hostname\""), 501, "unsupported", NULL, remedy);
}

/* ---- the specification -------------------------------------------------------------------------------- */

static void test_specification(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", "/openapi.json", NULL);
  json_t *paths = json_object_get(x.json, "paths");
  json_t *get = json_object_get(json_object_get(paths, "/api/explanation/export"), "get");
  json_t *parameter = json_array_get(json_object_get(get, "parameters"), 1);
  assert_string_equal(text_of(parameter, "name"), "saeId");
  assert_string_equal(text_of(parameter, "in"), "query");
  assert_null(json_object_get(get, "requestBody"));
  json_t *post = json_object_get(json_object_get(paths, "/api/features"), "post");
  const char *way[] = {"requestBody", "content", "application/json", "schema"};
  for (size_t i = 0; i < 4; i++) post = json_object_get(post, way[i]);
  assert_string_equal(text_of(json_array_get(json_object_get(post, "oneOf"), 0), "type"), "array");
  forget(&x);
  x = expect_ok("GET", "/docs", NULL);
  assert_non_null(strstr(x.body, "query parameter"));
  forget(&x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_feature),         cmocka_unit_test(test_unknown_feature),
      cmocka_unit_test(test_no_such_feature), cmocka_unit_test(test_features),
      cmocka_unit_test(test_offset),          cmocka_unit_test(test_activation_get),
      cmocka_unit_test(test_export),          cmocka_unit_test(test_explanations),
      cmocka_unit_test(test_search),          cmocka_unit_test(test_new_explanation),
      cmocka_unit_test(test_dictionary),      cmocka_unit_test(test_feature_list),
      cmocka_unit_test(test_cossim),          cmocka_unit_test(test_vectors),
      cmocka_unit_test(test_share),           cmocka_unit_test(test_jobs),
      cmocka_unit_test(test_job_stops_and_goes_on), cmocka_unit_test(test_strangers),
      cmocka_unit_test(test_without_store),   cmocka_unit_test(test_specification),
      cmocka_unit_test(test_watchers_leave), /* last: the house shuts down */
  };
  return cmocka_run_group_tests(tests, open_house, close_house);
}
