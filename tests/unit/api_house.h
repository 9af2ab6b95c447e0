/* api_house.h: a reception over the tiny GPT-2 and a store that is filled here, and a second one over a lab without a store.
 * Features 0 to 9 of 1-res-relu have statistics (3 has everything), 2-res-jump has explanations by the thousand. */
#ifndef STEERD_TESTS_UNIT_API_HOUSE_H
#define STEERD_TESTS_UNIT_API_HOUSE_H

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

static inline void put_source(int64_t number) {
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
static inline void put_features(void) {
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

static inline void put_explanations(void) {
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

static inline struct lab *open_lab(const char *store, struct error *error) {
  static const struct lab_model_spec model = {"tiny", MODEL_FOLDER};
  static const struct lab_source_spec specs[] = {{"tiny", "1-res-relu", SOURCES_FOLDER "1-res-relu"},
                                                 {"tiny", "2-res-jump", SOURCES_FOLDER "2-res-jump"}};
  struct lab_options options = {.models = &model, .n_models = 1, .sources = specs, .n_sources = 2, .store = store,
                                .backend = "auto", .threads = 2, .max_queue = 16, .max_step_rows = 64,
                                .max_sessions = 4, .queue_timeout_ms = 10000, .generation_timeout_ms = 10000, .run_jobs = true};
  return lab_open(&options, error);
}

static inline int open_house(void **state) {
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

static inline int close_house(void **state) {
  (void)state;
  char command[128];
  api_free(full_api);
  api_free(bare_api);
  lab_close(lab);
  lab_close(bare_lab);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return folder[0] ? system(command) : 0;
}

static inline void need_house(void) {
  api = full_api;
  if (api) return;
  printf("skip: tests/vectors/tiny-gpt2 is not there (run from the repository root)\n");
  skip();
}

/* The reply without members that the test does not know beforehand must be this JSON. */
static inline void expect_same(json_t *got, const char *want, const char *what) {
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
static inline json_t *take(json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  if (!value) fail_msg("member '%s' is missing", key);
  json_incref(value);
  json_object_del(object, key);
  return value;
}

static inline const char *text_of(json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

#endif
