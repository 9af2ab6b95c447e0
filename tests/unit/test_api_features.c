/* test_api_features.c: features, dictionaries, vectors and shares through api_begin and api_poll. What is checked are shapes,
 * statuses and sentences. */
#include "tests/unit/api_house.h"

/* ---- one feature -------------------------------------------------------------------------------------- */

#define PLACE "\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"source\":\"1-res-relu\",\"index\":\"3\""
#define ACTIVATIONS                                                                                                \
  "[{\"id\":\"tiny/1-res-relu/3/0\"," PLACE ",\"tokens\":[\"a\",\" <b>\",\"\xef\xbf\xbd\"],\"values\":[0,2.5,0.1]," \
  "\"maxValue\":2.5,\"maxValueTokenIndex\":1,\"minValue\":0,\"binMin\":-1,\"binMax\":2.5,\"binContains\":null,"     \
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
  expect_error("GET", "/feature/tiny/3/3", NULL, 404, "not_found", "source", "MLP neurons");
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
  expect_error("POST", v, "{\"layerNumber\":1,\"hookType\":\"resid-pre\",\"vector\":[true]}", 400, "argument", "vector[0]",
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
  expect_error("POST", "/v1/jobs", "{\"kind\":\"stats\",\"source\":\"1-res-relu\",\"corpus\":\"/etc/hostname\"}", 501, "unsupported", NULL, remedy);
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
      cmocka_unit_test(test_feature),
      cmocka_unit_test(test_unknown_feature),
      cmocka_unit_test(test_no_such_feature),
      cmocka_unit_test(test_features),
      cmocka_unit_test(test_offset),
      cmocka_unit_test(test_activation_get),
      cmocka_unit_test(test_dictionary),
      cmocka_unit_test(test_feature_list),
      cmocka_unit_test(test_cossim),
      cmocka_unit_test(test_vectors),
      cmocka_unit_test(test_share),
      cmocka_unit_test(test_without_store),
      cmocka_unit_test(test_specification),
  };
  return cmocka_run_group_tests(tests, open_house, close_house);
}
