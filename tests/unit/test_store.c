/* test_store.c: every verb of the store with every field, orders and ties, searching with hostile words, migrations,
 * two processes, and readers beside a writer. What happens when the disk or the process fails is in
 * test_store_faults.c. */
#include "tests/unit/store_world.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/base/clock.h"
#include "core/base/random.h"
#include "core/store/migrations.h"

/* ---- models and sources ----------------------------------------------------------------------------- */

static void test_models(void **state) {
  struct world world;
  struct store_model got, *list;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  struct store_model model = {"tiny", "Tiny", 3, 48, 192, "us", "https://x", "7-res", "hash", "2020-01-01T00:00:00Z"};
  must(store_model_put(world.store, &model, &error));
  must(store_model_put(world.store, &(struct store_model){.id = "bare"}, &error));
  must_fail(ERROR_ARGUMENT, store_model_put(world.store, &(struct store_model){.id = ""}, &error));
  must(store_model_find(world.store, "tiny", &world.arena, &got, &error));
  assert_string_equal(got.id, "tiny");
  assert_string_equal(got.display_name, "Tiny");
  assert_true(got.layers == 3 && got.dimension == 48 && got.neurons_per_layer == 192);
  assert_string_equal(got.owner, "us");
  assert_string_equal(got.website, "https://x");
  assert_string_equal(got.default_source, "7-res");
  assert_string_equal(got.identity, "hash");
  assert_string_equal(got.created_at, "2020-01-01T00:00:00Z");

  model.layers = 4;
  model.created_at = NULL; /* the old one stays */
  must(store_model_put(world.store, &model, &error));
  must(store_model_list(world.store, &world.arena, &list, &n, &error));
  assert_int_equal(n, 2);
  assert_string_equal(list[0].id, "bare");
  assert_null(list[0].owner);
  assert_int_equal(strlen(list[0].created_at), 24);
  assert_int_equal(list[1].layers, 4);
  assert_string_equal(list[1].created_at, "2020-01-01T00:00:00Z");
  assert_int_equal(store_model_find(world.store, "none", &world.arena, &got, NULL), 0);
  world_end(&world);
}

static void test_sources(void **state) {
  struct world world;
  struct store_source got, *list;
  int64_t first, second, again;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  struct store_source source = {0, "tiny", "7-res-jb", "res-jb", 7, "blocks.7.hook_resid_pre", "topk", 24576, "sha",
    "{\"k\":32}", "about", "https://y", "2021-02-03T00:00:00Z",
    {3145728, 24576, 128, true, true, true, "centred", "villes.txt", "c0ffee", "2022-01-01T00:00:00Z"}};
  must(store_source_put(world.store, &source, &first, &error));
  struct store_source other = {.model = "other", .name = "0-x", .layer = -1};
  must(store_source_put(world.store, &other, &second, &error));
  assert_true(first >= 1 && second > first);
  must(store_source_find(world.store, "tiny", "7-res-jb", &world.arena, &got, &error));
  assert_int_equal(got.id, first);
  assert_string_equal(got.model, "tiny");
  assert_string_equal(got.name, "7-res-jb");
  assert_string_equal(got.set, "res-jb");
  assert_int_equal(got.layer, 7);
  assert_string_equal(got.point, "blocks.7.hook_resid_pre");
  assert_string_equal(got.kind, "topk");
  assert_int_equal(got.n_features, 24576);
  assert_string_equal(got.identity, "sha");
  assert_string_equal(got.config, "{\"k\":32}");
  assert_string_equal(got.description, "about");
  assert_string_equal(got.url, "https://y");
  assert_string_equal(got.created_at, "2021-02-03T00:00:00Z");
  assert_true(got.statistics.n_tokens == 3145728 && got.statistics.n_documents == 24576);
  assert_true(got.statistics.context == 128 && got.statistics.bos_counted && got.statistics.folded &&
              got.statistics.lines);
  assert_string_equal(got.statistics.logit_convention, "centred");
  assert_string_equal(got.statistics.corpus, "villes.txt");
  assert_string_equal(got.statistics.corpus_hash, "c0ffee");
  assert_string_equal(got.statistics.made_at, "2022-01-01T00:00:00Z");

  source.kind = "relu";
  must(store_source_put(world.store, &source, &again, &error));
  assert_int_equal(again, first);
  must(store_source_at(world.store, first, &world.arena, &got, &error));
  assert_string_equal(got.kind, "relu");
  must(store_source_list(world.store, NULL, &world.arena, &list, &n, &error));
  assert_int_equal(n, 2);
  assert_string_equal(list[0].name, "0-x");
  assert_null(list[0].statistics.corpus);
  must(store_source_list(world.store, "tiny", &world.arena, &list, &n, &error));
  assert_int_equal(n, 1);
  assert_int_equal(store_source_find(world.store, "tiny", "0-x", &world.arena, &got, NULL), 0);
  must_fail(ERROR_ARGUMENT, store_source_put(world.store, &(struct store_source){.model = "m"}, NULL, &error));
  world_end(&world);
}

static void test_source_clear(void **state) {
  struct world world;
  struct made made;
  struct store_feature got;
  struct store_source source;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t a = world_source(&world, "a", 4), b = world_source(&world, "b", 4);
  made_fill(&made, 0xffffffffu, 1);
  struct store_explanation words[2] = {
      {.source = a, .index = 1, .origin = STORE_AUTOMATIC, .description = "automatic", .score = NAN},
      {.source = a, .index = 1, .origin = STORE_MANUAL, .description = "manual", .score = NAN}};
  must(store_batch_put(world.store, &(struct store_batch){.source = a, .features = &made.feature, .n_features = 1,
                       .explanations = words, .n_explanations = 2}, &error));
  must(store_batch_put(world.store, &(struct store_batch){.source = b, .features = &made.feature, .n_features = 1},
                       &error));
  must(store_source_clear(world.store, a, &error));
  assert_int_equal(store_feature_get(world.store, a, 0xffffffffu, 9, &world.arena, &got, NULL), 0);
  must(store_feature_get(world.store, a, 1, 9, &world.arena, &got, &error));
  assert_int_equal(got.n_explanations, 1);
  assert_string_equal(got.explanations[0].description, "manual");
  must(store_feature_get(world.store, b, 0xffffffffu, 9, &world.arena, &got, &error)); /* the neighbour stays */
  assert_true(same_feature(&got, &made.feature));
  must(store_source_at(world.store, a, &world.arena, &source, &error));
  assert_string_equal(source.name, "a");
  must_fail(ERROR_NOT_FOUND, store_source_clear(world.store, 99, &error));
  world_end(&world);
}

/* ---- features --------------------------------------------------------------------------------------- */

static void test_feature_round_trip(void **state) {
  struct world world;
  struct made made[2];
  struct store_feature got, both[2];
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10);
  made_fill(made, 0, 3);
  made_fill(made + 1, 0xffffffffu, 4); /* the last index there can be */
  both[0] = made[0].feature;
  both[1] = made[1].feature;
  must(store_batch_put(world.store, &(struct store_batch){.source = source, .features = both, .n_features = 2},
                       &error));
  for (int i = 0; i < 2; i++) {
    assert_int_equal(store_feature_get(world.store, source, both[i].index, 99, &world.arena, &got, NULL), 1);
    assert_true(same_feature(&got, both + i));
  }
  world_close(&world); /* and from the file */
  world_open(&world);
  must(store_feature_get(world.store, source, 0, 99, &world.arena, &got, &error));
  assert_true(same_feature(&got, both));
  must(store_feature_get(world.store, source, 0, 1, &world.arena, &got, &error));
  assert_int_equal(got.n_examples, 1);
  assert_int_equal(store_feature_get(world.store, source, 5, 9, &world.arena, &got, NULL), 0);
  assert_int_equal(store_feature_get(world.store, 77, 0, 9, &world.arena, &got, NULL), 0);
  world_end(&world);
}

static void test_groups_are_independent(void **state) {
  struct world world;
  struct made made, other;
  struct store_feature got, part;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10);
  made_fill(&made, 3, 1);
  made_fill(&other, 3, 8);
  struct store_batch batch = {.source = source, .features = &part, .n_features = 1};
  part = made.feature;
  part.groups = STORE_LOGITS;
  must(store_batch_put(world.store, &batch, &error));
  must(store_feature_get(world.store, source, 3, 9, &world.arena, &got, &error));
  assert_int_equal(got.groups, STORE_LOGITS);
  assert_int_equal(got.n_examples, 0);
  part.groups = STORE_STATISTICS | STORE_NEIGHBOURS | STORE_EXTRA | STORE_EXAMPLES;
  must(store_batch_put(world.store, &batch, &error));
  part = other.feature; /* only the logits are replaced */
  part.groups = STORE_LOGITS;
  must(store_batch_put(world.store, &batch, &error));
  must(store_feature_get(world.store, source, 3, 9, &world.arena, &got, &error));
  part = made.feature;
  part.top = other.feature.top;
  part.bottom = other.feature.bottom;
  part.logits = other.feature.logits;
  assert_true(same_feature(&got, &part));
  part.groups = STORE_EXAMPLES; /* fewer examples than before leave none behind */
  part.n_examples = 1;
  must(store_batch_put(world.store, &batch, &error));
  must(store_feature_get(world.store, source, 3, 9, &world.arena, &got, &error));
  assert_int_equal(got.n_examples, 1);
  world_end(&world);
}

static void test_special_numbers(void **state) {
  struct world world;
  struct store_feature got;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10);
  float values[3] = {-0.0f, INFINITY, 1e-45f};
  struct store_text tokens[3] = {{"a", 1}, {"b", 1}, {"c", 1}};
  struct store_example example = {.tokens = tokens, .values = values, .n = 3, .bin_min = NAN, .bin_max = -INFINITY,
                                  .bin_contains = 1e-45f, .qualifying = -1, .document = -1, .position = -1};
  struct store_feature feature = {.index = 1, .groups = STORE_STATISTICS | STORE_EXAMPLES | STORE_EXTRA,
    .rate = NAN, .mean = -0.0, .max = 16777216.0f, .examples = &example, .n_examples = 1};
  must(store_batch_put(world.store, &(struct store_batch){.source = source, .features = &feature, .n_features = 1},
                       &error));
  must(store_feature_get(world.store, source, 1, 9, &world.arena, &got, &error));
  assert_true(isnan(got.rate) && got.mean == 0 && got.max == 16777216.0f);
  assert_null(got.extra);
  assert_true(isnan(got.examples[0].bin_min) && got.examples[0].bin_max == -INFINITY);
  assert_true(got.examples[0].bin_contains == 1e-45f && got.examples[0].max_value == INFINITY);
  assert_memory_equal(got.examples[0].values, values, sizeof values); /* blobs keep their bits */
  assert_int_equal(got.examples[0].document, -1);
  world_end(&world);
}

static void test_examples(void **state) {
  struct world world;
  struct made made;
  struct store_feature got;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10);
  made_fill(&made, 2, 1);
  must(store_examples_add(world.store, source, 2, made.examples, 2, &error));
  must(store_examples_add(world.store, source, 2, made.examples, 3, &error));
  must(store_feature_get(world.store, source, 2, 99, &world.arena, &got, &error));
  assert_int_equal(got.n_examples, 5);
  for (size_t i = 0; i < 5; i++) {
    int slot = got.examples[i].slot;
    assert_true(same_example(got.examples + i, made.examples + (slot < 2 ? slot : slot - 2)));
    if (i == 0) continue;
    assert_true(got.examples[i - 1].max_value >= got.examples[i].max_value);
    if (got.examples[i - 1].max_value == got.examples[i].max_value) assert_true(got.examples[i - 1].slot < slot);
  }
  must_fail(ERROR_NOT_FOUND, store_examples_add(world.store, 9, 2, made.examples, 1, &error));
  made.examples[0].qualifying = MADE_TOKENS;
  must_fail(ERROR_ARGUMENT, store_examples_add(world.store, source, 2, made.examples, 1, &error));
  made.examples[0].n = 0;
  must_fail(ERROR_ARGUMENT, store_examples_add(world.store, source, 2, made.examples, 1, &error));
  struct store_example *many = calloc(STORE_SLOT_MAX, sizeof *many);
  assert_non_null(many);
  for (int i = 0; i < STORE_SLOT_MAX; i++) many[i] = made.examples[1];
  must_fail(ERROR_LIMIT, store_examples_add(world.store, source, 2, many, STORE_SLOT_MAX - 4, &error));
  must(store_examples_add(world.store, source, 2, many, STORE_SLOT_MAX - 5, &error));
  must(store_feature_get(world.store, source, 2, 10, &world.arena, &got, &error));
  assert_int_equal(got.n_examples, 10);
  free(many);
  world_end(&world);
}

/* Rates with ties, a dead feature, and one whose rate is not known. */
static int64_t listed_source(struct world *world) {
  static const double rates[] = {0.5, 0.25, 0.5, 0, NAN, 0.125};
  static const float maxima[] = {1, 3, 2, 0, 2, 9};
  static const double means[] = {0.1, 0.3, 0.2, 0, 0.2, 0.4};
  int64_t source = world_source(world, "list", 6), other = world_source(world, "other", 1);
  struct store_feature features[6];
  memset(features, 0, sizeof features);
  for (uint32_t i = 0; i < 6; i++) {
    features[i].index = i;
    features[i].groups = STORE_STATISTICS;
    features[i].n_fired = 10 * i;
    features[i].rate = rates[i];
    features[i].max = maxima[i];
    features[i].mean = means[i];
  }
  must(store_batch_put(world->store, &(struct store_batch){.source = source, .features = features, .n_features = 6},
                       &error));
  must(store_batch_put(world->store, &(struct store_batch){.source = other, .features = features + 5,
                       .n_features = 1}, &error));
  struct store_explanation manual = {.source = source, .index = 2, .origin = STORE_MANUAL, .description = "cats",
                                     .score = NAN};
  must(store_explanation_put(world->store, &manual, NULL, &error));
  return source;
}

static void check_order(struct world *world, struct store_feature_query query, const char *want) {
  struct store_feature_row *rows;
  size_t n;
  int64_t total;
  char got[64] = "";
  must(store_feature_list(world->store, &query, &world->arena, &rows, &n, &total, &error));
  for (size_t i = 0; i < n; i++) snprintf(got + i, sizeof got - i, "%u", rows[i].index);
  assert_string_equal(got, want);
  assert_int_equal(total, query.alive ? 5 : 6);
}

static void test_feature_lists(void **state) {
  struct world world;
  struct store_feature_row *rows;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t s = listed_source(&world);
  check_order(&world, (struct store_feature_query){s, STORE_BY_INDEX, false, false, 0, 10}, "012345");
  check_order(&world, (struct store_feature_query){s, STORE_BY_INDEX, true, false, 1, 2}, "43");
  check_order(&world, (struct store_feature_query){s, STORE_BY_INDEX, false, true, 1, 3}, "124");
  check_order(&world, (struct store_feature_query){s, STORE_BY_RATE, false, false, 0, 10}, "435102");
  check_order(&world, (struct store_feature_query){s, STORE_BY_RATE, true, false, 0, 10}, "021534");
  check_order(&world, (struct store_feature_query){s, STORE_BY_MAX, true, true, 0, 10}, "51240");
  check_order(&world, (struct store_feature_query){s, STORE_BY_MAX, false, false, 5, 10}, "5");
  check_order(&world, (struct store_feature_query){s, STORE_BY_MEAN, true, false, 0, 4}, "5124");
  check_order(&world, (struct store_feature_query){s, STORE_BY_MEAN, false, false, 6, 4}, "");
  must(store_feature_list(world.store, &(struct store_feature_query){s, STORE_BY_INDEX, false, false, 2, 2},
                          &world.arena, &rows, &n, NULL, &error));
  assert_true(rows[0].n_fired == 20 && rows[0].rate == 0.5 && rows[0].mean == 0.2 && rows[0].max == 2);
  assert_string_equal(rows[0].description, "cats");
  assert_null(rows[1].description);
  must_fail(ERROR_ARGUMENT, store_feature_list(world.store, &(struct store_feature_query){s, STORE_BY_INDEX, 0, 0,
            -1, 2}, &world.arena, &rows, &n, NULL, &error));
  must_fail(ERROR_ARGUMENT, store_feature_list(world.store, &(struct store_feature_query){s, STORE_BY_INDEX, 0, 0,
            0, 10001}, &world.arena, &rows, &n, NULL, &error));
  world_end(&world);
}

static void test_random_and_density(void **state) {
  struct world world;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = listed_source(&world);
  unsigned seen = 0;
  for (int i = 0; i < 10; i++) {
    uint32_t index = 99;
    assert_int_equal(store_feature_random(world.store, source, i / 10.0, &index, NULL), 1);
    seen |= 1u << index;
  }
  assert_int_equal(seen, 0x37); /* all but the dead feature 3 */
  uint32_t index;
  assert_int_equal(store_feature_random(world.store, 99, 0.5, &index, NULL), 0);
  must_fail(ERROR_ARGUMENT, store_feature_random(world.store, source, 1.0, &index, &error));
  float rates[8];
  size_t known;
  must(store_density(world.store, source, rates, 8, &known, &error));
  assert_int_equal(known, 6);
  assert_true(rates[0] == 0.5f && rates[1] == 0.25f && rates[3] == 0 && isnan(rates[4]) && rates[5] == 0.125f);
  assert_true(isnan(rates[6]) && isnan(rates[7]));
  must(store_density(world.store, source, rates, 2, &known, &error)); /* never beyond what was given */
  assert_int_equal(known, 2);
  world_end(&world);
}

static void test_batch_is_whole(void **state) {
  struct world world;
  struct made made;
  struct store_feature got;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10), job;
  must(store_job_create(world.store, "stats", "{}", &job, &error));
  made_fill(&made, 1, 1);
  struct store_explanation wrong = {.source = source + 1, .description = "x", .score = NAN};
  struct store_job_part part = {0, "abc", 3};
  struct store_batch batch = {.source = source, .features = &made.feature, .n_features = 1, .explanations = &wrong,
                              .n_explanations = 1, .job = job, .parts = &part, .n_parts = 1};
  must_fail(ERROR_ARGUMENT, store_batch_put(world.store, &batch, &error));
  batch.n_explanations = 0;
  batch.job = job + 1;
  must_fail(ERROR_NOT_FOUND, store_batch_put(world.store, &batch, &error));
  batch.source = source + 1;
  must_fail(ERROR_NOT_FOUND, store_batch_put(world.store, &batch, &error));
  assert_int_equal(store_feature_get(world.store, source, 1, 9, &world.arena, &got, NULL), 0);
  batch.source = source;
  batch.job = job;
  must(store_batch_put(world.store, &batch, &error));
  const void *data;
  size_t bytes;
  assert_int_equal(store_job_part(world.store, job, 0, &world.arena, &data, &bytes, NULL), 1);
  assert_true(bytes == 3 && memcmp(data, "abc", 3) == 0);
  world_end(&world);
}

/* ---- explanations ----------------------------------------------------------------------------------- */

static int64_t explain(struct world *world, int64_t source, uint32_t index, enum store_origin origin, double score,
                       const char *text) {
  int64_t id = 0;
  struct store_explanation row = {.source = source, .index = index, .origin = origin, .description = text,
                                  .type = "method", .model_name = "who", .score = score};
  must(store_explanation_put(world->store, &row, &id, &error));
  return id;
}

static void test_explanations(void **state) {
  struct world world;
  struct store_explanation got;
  struct store_feature feature;
  int64_t id;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10);
  struct store_explanation all = {0, source, 4, STORE_IMPORTED, "des villes \xe2\x82\xac", "oai", "gpt", "me", "note",
                                  0.75, "[1]", "2023-01-01T00:00:00Z", NULL, NULL};
  must(store_explanation_put(world.store, &all, &id, &error));
  assert_int_equal(store_explanation_find(world.store, id, &world.arena, &got, NULL), 1);
  assert_true(got.id == id && got.source == source && got.index == 4 && got.origin == STORE_IMPORTED);
  assert_string_equal(got.description, all.description);
  assert_string_equal(got.type, "oai");
  assert_string_equal(got.model_name, "gpt");
  assert_string_equal(got.author, "me");
  assert_string_equal(got.notes, "note");
  assert_true(got.score == 0.75);
  assert_string_equal(got.scores, "[1]");
  assert_string_equal(got.created_at, "2023-01-01T00:00:00Z");
  assert_string_equal(got.model, "tiny");
  assert_string_equal(got.source_name, "7-res");

  int64_t automatic = explain(&world, source, 4, STORE_AUTOMATIC, NAN, "automatic");
  int64_t low = explain(&world, source, 4, STORE_IMPORTED, 0.1, "low"), tie;
  tie = explain(&world, source, 4, STORE_IMPORTED, 0.75, "tie");
  int64_t none = explain(&world, source, 4, STORE_IMPORTED, NAN, "none");
  int64_t manual = explain(&world, source, 4, STORE_MANUAL, NAN, "manual");
  int64_t again = explain(&world, source, 4, STORE_AUTOMATIC, NAN, "automatic again");
  assert_true(again > manual && manual > automatic); /* numbers are not used twice */
  must(store_feature_get(world.store, source, 4, 9, &world.arena, &feature, &error));
  int64_t want[] = {manual, id, tie, low, none, again};
  assert_int_equal(feature.groups, 0);
  assert_int_equal(feature.n_explanations, 6);
  for (int i = 0; i < 6; i++) assert_int_equal(feature.explanations[i].id, want[i]);

  assert_int_equal(store_explanation_delete(world.store, again, NULL), 1);
  assert_int_equal(store_explanation_delete(world.store, again, NULL), 0);
  assert_int_equal(store_explanation_find(world.store, again, &world.arena, &got, NULL), 0);
  assert_true(explain(&world, source, 4, STORE_MANUAL, NAN, "new") > again);
  all.source = 99;
  must_fail(ERROR_NOT_FOUND, store_explanation_put(world.store, &all, NULL, &error));
  all.source = source;
  all.description = NULL;
  must_fail(ERROR_ARGUMENT, store_explanation_put(world.store, &all, NULL, &error));
  world_end(&world);
}

struct walk {
  char text[256];
  int stop_after;
};

static int walk_row(void *context, const struct store_explanation *row, struct error *error) {
  struct walk *walk = context;
  size_t used = strlen(walk->text);
  snprintf(walk->text + used, sizeof walk->text - used, "%s/%u:%s ", row->source_name, row->index, row->description);
  if (walk->stop_after && --walk->stop_after == 0) return error_set(error, ERROR_CANCELLED, "enough");
  return 0;
}

static void check_walk(struct world *world, struct store_explanation_query query, const char *want, int64_t total) {
  struct walk walk = {0};
  int64_t count;
  must(store_explanation_each(world->store, &query, walk_row, &walk, &error));
  assert_string_equal(walk.text, want);
  must(store_explanation_count(world->store, &query, &count, &error));
  assert_int_equal(count, total);
}

static void test_explanation_walk(void **state) {
  struct world world;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t a = world_source(&world, "a", 10), b = world_source(&world, "b", 10), c;
  struct store_source other = {.model = "other", .name = "c"};
  must(store_source_put(world.store, &other, &c, &error));
  explain(&world, b, 0, STORE_MANUAL, NAN, "x");
  explain(&world, a, 9, STORE_AUTOMATIC, NAN, "late");
  explain(&world, a, 9, STORE_MANUAL, NAN, "first");
  explain(&world, a, 1, STORE_AUTOMATIC, NAN, "one");
  explain(&world, c, 0, STORE_AUTOMATIC, NAN, "z");
  check_walk(&world, (struct store_explanation_query){NULL, 0, 0, -1}, "a/1:one a/9:first a/9:late b/0:x c/0:z ", 5);
  check_walk(&world, (struct store_explanation_query){"tiny", 0, 1, 2}, "a/9:first a/9:late ", 4);
  check_walk(&world, (struct store_explanation_query){NULL, a, 0, -1}, "a/1:one a/9:first a/9:late ", 3);
  check_walk(&world, (struct store_explanation_query){"other", a, 0, -1}, "", 0);
  check_walk(&world, (struct store_explanation_query){NULL, a, 3, 5}, "", 3);
  struct walk walk = {.stop_after = 2};
  struct store_explanation_query all = {NULL, 0, 0, -1};
  must_fail(ERROR_CANCELLED, store_explanation_each(world.store, &all, walk_row, &walk, &error));
  assert_string_equal(walk.text, "a/1:one a/9:first ");
  all.offset = -1;
  must_fail(ERROR_ARGUMENT, store_explanation_each(world.store, &all, walk_row, &walk, &error));
  world_end(&world);
}

/* Indices of the hits, best first. */
static void check_search(struct world *world, struct store_search search, const char *query, const char *want) {
  struct store_hit *hits;
  size_t n;
  char got[128] = "";
  search.query = query;
  search.query_length = strlen(query);
  if (!search.limit) search.limit = 20;
  must(store_explanation_search(world->store, &search, &world->arena, &hits, &n, NULL, &error));
  for (size_t i = 0; i < n; i++) snprintf(got + strlen(got), sizeof got - strlen(got), "%u ", hits[i].explanation.index);
  if (strcmp(got, want) != 0) fail_msg("search '%.60s': got %s, wanted %s", query, got, want);
}

static int64_t searched_source(struct world *world) {
  int64_t source = world_source(world, "7-res", 100);
  explain(world, source, 1, STORE_AUTOMATIC, NAN, "names of cities in France");
  explain(world, source, 2, STORE_AUTOMATIC, NAN, "city");
  explain(world, source, 3, STORE_AUTOMATIC, NAN, "dates and years, \"NEAR\" the end AND more * of it");
  explain(world, source, 4, STORE_MANUAL, NAN, "\xc3\xa9t\xc3\xa9 \xc3\xa0 Paris");
  explain(world, source, 5, STORE_MANUAL, NAN, "\xe5\x9f\x8e\xe5\xb8\x82 C++ f(x)");
  return source;
}

static void test_search(void **state) {
  struct world world;
  struct store_hit *hits;
  size_t n;
  bool more;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = searched_source(&world), other = world_source(&world, "8-res", 10);
  struct store_search all = {0}, any = {.any = true}, prefix = {.prefix = true};
  check_search(&world, all, "city", "2 1 ");         /* the shorter text ranks first; endings do not matter */
  check_search(&world, all, "CITIES france", "1 ");
  check_search(&world, any, "france dates", "1 3 ");
  check_search(&world, all, "france dates", "");
  check_search(&world, all, "ete", "4 ");            /* nor do accents */
  check_search(&world, all, "fra", "");
  check_search(&world, prefix, "names fra", "1 ");
  check_search(&world, all, "\xe5\x9f\x8e\xe5\xb8\x82", "5 ");
  explain(&world, other, 50, STORE_AUTOMATIC, NAN, "city");
  check_search(&world, all, "city", "2 50 1 ");
  check_search(&world, (struct store_search){.sources = &other, .n_sources = 1}, "city", "50 ");
  check_search(&world, (struct store_search){.sources = &source, .n_sources = 1}, "city", "2 1 ");
  check_search(&world, (struct store_search){.sources = (int64_t[]){source, other, 900}, .n_sources = 3}, "city",
               "2 50 1 ");
  check_search(&world, (struct store_search){.sources = &source, .n_sources = 0}, "city", "");
  check_search(&world, (struct store_search){.model = "tiny"}, "city", "2 50 1 ");
  check_search(&world, (struct store_search){.model = "none"}, "city", "");
  check_search(&world, (struct store_search){.limit = 1, .offset = 1}, "city", "50 ");

  struct store_search page = {.query = "cities", .query_length = 6, .limit = 2};
  must(store_explanation_search(world.store, &page, &world.arena, &hits, &n, &more, &error));
  assert_true(n == 2 && more && hits[0].rank <= hits[1].rank && hits[0].rank < 0);
  assert_string_equal(hits[0].snippet, "\x02" "city\x03");
  assert_string_equal(hits[0].explanation.description, "city");
  assert_string_equal(hits[0].explanation.source_name, "7-res");
  assert_string_equal(hits[0].explanation.type, "method");
  page.offset = 2;
  must(store_explanation_search(world.store, &page, &world.arena, &hits, &n, &more, &error));
  assert_true(n == 1 && !more);
  assert_string_equal(hits[0].snippet, "names of \x02" "cities\x03 in France");

  int64_t id = hits[0].explanation.id; /* what is deleted is not found */
  assert_int_equal(store_explanation_delete(world.store, id, NULL), 1);
  check_search(&world, all, "france", "");
  explain(&world, source, 2, STORE_AUTOMATIC, NAN, "river"); /* nor what was replaced */
  check_search(&world, all, "city", "50 ");
  check_search(&world, all, "river", "2 ");
  world_end(&world);
}

/* Rows that cannot be among the best are not looked at: a small page must still be the beginning of a large one. */
static void test_search_any_pages(void **state) {
  (void)state;
  static const char *const vocabulary[] = {"city", "river", "france", "dates", "names", "of", "the", "words"};
  static struct store_explanation rows[600];
  static char texts[600][160];
  struct world world;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 600);
  for (uint32_t i = 0; i < 600; i++) {
    uint32_t words[16];
    for (int k = 0; k < 4; k++) random_words(11, i, (uint64_t)k, words + 4 * k);
    size_t used = 0;
    for (uint32_t k = 0; k <= words[0] % 14; k++)
      used += (size_t)snprintf(texts[i] + used, sizeof texts[i] - used, "%s ", vocabulary[words[k + 1] % 64 * (words[k + 1] % 64) / 512]);
    rows[i] = (struct store_explanation){.source = source, .index = i, .origin = STORE_IMPORTED, .description = texts[i], .score = NAN};
  }
  struct store_batch batch = {.source = source, .explanations = rows, .n_explanations = 600};
  must(store_batch_put(world.store, &batch, &error));
  static const char *const queries[] = {"river france dates", "city words", "the of names", "words", "river river dates"};
  for (size_t q = 0; q < sizeof queries / sizeof *queries; q++) {
    struct store_search search = {.query = queries[q], .query_length = strlen(queries[q]), .any = true, .limit = 1000};
    struct store_hit *all, *page;
    size_t n_all, n;
    bool more;
    must(store_explanation_search(world.store, &search, &world.arena, &all, &n_all, NULL, &error));
    assert_true(n_all > 20);
    search.limit = 5;
    for (search.offset = 0; search.offset < (int64_t)n_all + 5; search.offset += search.offset < 10 ? 1 : 37) {
      must(store_explanation_search(world.store, &search, &world.arena, &page, &n, &more, &error));
      size_t offset = (size_t)search.offset, left = offset < n_all ? n_all - offset : 0;
      assert_int_equal(n, left < 5 ? left : 5);
      assert_int_equal(more, left > 5);
      for (size_t i = 0; i < n; i++) {
        assert_int_equal(page[i].explanation.id, all[offset + i].explanation.id);
        assert_true(page[i].rank == all[offset + i].rank);
      }
    }
  }
  world_end(&world);
}

static void test_search_hostile(void **state) {
  static const char *const queries[] = {
      "\"", "\"\"", "city\"", "\"city", "NEAR(a b)", "NEAR", "a NEAR b", "city*", "*", "^city", "^", "city AND",
      "AND", "OR OR", "NOT city", "description:city", "description : city", "-description:city", "{a b}:c", "(city",
      "city)", "()", "city + city", "a+b", "'; DROP TABLE explanations; --", "\\", "\x01\x02", "%s%n%d", "a,b", "\t\n",
      "\xf0\x9f\x98\x80", "\xef\xbf\xbf", ("\xe2\x80\xae" "city"), "c\xcc\xa7ity", "#@!", "city\x7f", "rank", "rowid:1"};
  struct world world;
  struct store_hit *hits;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  searched_source(&world);
  for (size_t i = 0; i < sizeof queries / sizeof *queries; i++)
    for (int way = 0; way < 4; way++) {
      struct error error = ERROR_INIT;
      struct store_search search = {.query = queries[i], .query_length = strlen(queries[i]), .limit = 5,
                                    .any = way & 1, .prefix = way & 2};
      int result = store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error);
      if (result != 0 && error.code != ERROR_ARGUMENT)
        fail_msg("search '%s': %s: %s", queries[i], error_word(error.code), error.text);
    }
  struct store_search all = {0};
  check_search(&world, all, "NEAR", "3 "); /* operators are words */
  check_search(&world, all, "AND more", "3 ");
  check_search(&world, all, "NOT city", "");
  check_search(&world, all, "\"city\" *", "2 1 ");
  check_search(&world, all, "^city", "2 1 ");
  check_search(&world, all, "description:city", "");
  check_search(&world, all, "\xe2\x80\xa6 city", "2 1 "); /* a piece without letters changes nothing */
  check_search(&world, all, "c++", "5 ");

  char *large = malloc(10240);
  assert_non_null(large);
  memset(large, 'a', 10240);
  for (int i = 0; i < 10240; i += 2) large[i] = ' ';
  struct store_search search = {.query = large, .query_length = 10240, .limit = 5};
  must_fail(ERROR_LIMIT, store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error));
  search.query_length = STORE_QUERY_MAX; /* 512 words */
  must(store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error));
  search.query = "city\0\" OR city";
  search.query_length = 14;
  must(store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error));
  assert_int_equal(n, 0); /* "or" is a word that no row with a city has */
  search.query = "\xff\xfe";
  search.query_length = 2;
  must_fail(ERROR_ARGUMENT, store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error));
  search.query_length = 0;
  must_fail(ERROR_ARGUMENT, store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error));
  must(store_verify(world.store, STORE_CHECK_FULL, &error));
  free(large);
  world_end(&world);
}

static void test_search_time_limit(void **state) {
  struct world world;
  struct store_hit *hits;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 60000);
  struct store_explanation *rows = calloc(60000, sizeof *rows);
  assert_non_null(rows);
  for (uint32_t i = 0; i < 60000; i++)
    rows[i] = (struct store_explanation){.source = source, .index = i, .origin = STORE_IMPORTED, .score = NAN,
                                         .description = "common words in many rows"};
  must(store_batch_put(world.store, &(struct store_batch){.source = source, .explanations = rows,
                       .n_explanations = 60000}, &error));
  free(rows);
  struct store_search search = {.query = "common words many", .query_length = 17, .limit = 5, .time_limit_ms = 1};
  must_fail(ERROR_TIMEOUT, store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error));
  search.time_limit_ms = 0; /* and the reader is as good as before */
  for (int i = 0; i < 5; i++)
    must(store_explanation_search(world.store, &search, &world.arena, &hits, &n, NULL, &error));
  assert_int_equal(n, 5);
  for (uint32_t i = 0; i < 5; i++) assert_int_equal(hits[i].explanation.index, i); /* equal ranks: oldest first */
  world_end(&world);
}

/* ---- vectors, shares, jobs -------------------------------------------------------------------------- */

static void test_vectors(void **state) {
  struct world world;
  struct store_vector got, *list;
  int64_t first, second;
  size_t n;
  float values[3] = {1.5f, -2, 1e-40f};
  (void)state;
  world_init(&world);
  world_open(&world);
  struct store_vector vector = {"tiny", "6-neuronpedia-resid-pre", 0, "love", "blocks.6.hook_resid_pre", -12.5, "me",
                                "2024-01-01T00:00:00Z", values, 3};
  must(store_vector_new(world.store, &vector, &first, &error));
  vector.owner = vector.label = NULL;
  vector.created_at = NULL;
  must(store_vector_new(world.store, &vector, &second, &error));
  assert_true(first != second && first >= 100000000 && first < 1000000000);
  assert_int_equal(store_vector_find(world.store, "tiny", vector.source, first, &world.arena, &got, NULL), 1);
  assert_string_equal(got.model, "tiny");
  assert_string_equal(got.source, vector.source);
  assert_int_equal(got.index, first);
  assert_string_equal(got.label, "love");
  assert_string_equal(got.point, "blocks.6.hook_resid_pre");
  assert_true(got.strength == -12.5 && got.n == 3);
  assert_string_equal(got.owner, "me");
  assert_string_equal(got.created_at, "2024-01-01T00:00:00Z");
  assert_memory_equal(got.values, values, sizeof values);
  must(store_vector_list(world.store, NULL, NULL, &world.arena, &list, &n, &error));
  assert_true(n == 2 && list[0].index == first && list[1].index == second && !list[1].owner);
  must(store_vector_list(world.store, "tiny", "me", &world.arena, &list, &n, &error));
  assert_int_equal(n, 1);
  must(store_vector_list(world.store, "none", NULL, &world.arena, &list, &n, &error));
  assert_int_equal(n, 0);
  assert_int_equal(store_vector_delete(world.store, "tiny", vector.source, first, NULL), 1);
  assert_int_equal(store_vector_delete(world.store, "tiny", vector.source, first, NULL), 0);
  assert_int_equal(store_vector_find(world.store, "tiny", vector.source, first, &world.arena, &got, NULL), 0);
  vector.n = 0;
  must_fail(ERROR_ARGUMENT, store_vector_new(world.store, &vector, &first, &error));
  world_end(&world);
}

static void test_shares(void **state) {
  struct world world;
  struct store_share got;
  char first[STORE_SHARE_ID], second[STORE_SHARE_ID];
  (void)state;
  world_init(&world);
  world_open(&world);
  struct store_share share = {NULL, "steer", "tiny", "{\"prompt\":\"a\"}", "{\"text\":\"\xc3\xa9\"}", NULL};
  must(store_share_save(world.store, &share, first, &error));
  must(store_share_save(world.store, &share, second, &error));
  assert_int_equal(strlen(first), STORE_SHARE_ID - 1);
  assert_int_equal(strspn(first, "abcdefghijklmnopqrstuvwxyz234567"), STORE_SHARE_ID - 1);
  assert_string_not_equal(first, second);
  assert_int_equal(store_share_load(world.store, first, &world.arena, &got, NULL), 1);
  assert_string_equal(got.id, first);
  assert_string_equal(got.kind, "steer");
  assert_string_equal(got.model, "tiny");
  assert_string_equal(got.request, share.request);
  assert_string_equal(got.reply, share.reply);
  assert_int_equal(strlen(got.created_at), 24);
  assert_int_equal(store_share_load(world.store, "' OR 1=1", &world.arena, &got, NULL), 0);
  assert_int_equal(store_share_delete(world.store, first, NULL), 1);
  assert_int_equal(store_share_delete(world.store, first, NULL), 0);
  assert_int_equal(store_share_load(world.store, first, &world.arena, &got, NULL), 0);
  world_end(&world);
}

static void test_evaluations(void **state) {
  struct world world;
  struct store_evaluation *rows;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "0-a", 8);
  struct store_evaluation e = {.source = source, .corpus = "a.txt", .corpus_hash = "aa", .lines = true, .n_documents = 3,
                               .n_tokens = 100, .n_features = 8, .l0 = 2.5, .mse = 0.25, .explained = 0.875,
                               .n_predicted = 97, .ce_raw = 1.5, .ce_spliced = 1.75, .ce_error = 1.5, .ce_zero = NAN,
                               .n_dead = 1, .below = {4, 3, 2, 1}, .made_at = "2026-01-01T00:00:00.000Z"};
  must(store_evaluation_put(world.store, &e, &error));
  e.l0 = 3.5; /* the same text again takes the place of the first */
  must(store_evaluation_put(world.store, &e, &error));
  e.ends = true; /* another question */
  e.made_at = NULL;
  must(store_evaluation_put(world.store, &e, &error));
  must(store_evaluation_list(world.store, source, &world.arena, &rows, &n, &error));
  assert_int_equal(n, 2);
  assert_true(rows[0].ends && !rows[1].ends); /* newest first */
  assert_true(rows[1].l0 == 3.5 && rows[1].mse == 0.25 && rows[1].explained == 0.875 && rows[1].lines);
  assert_true(rows[1].ce_raw == 1.5 && rows[1].ce_spliced == 1.75 && rows[1].ce_error == 1.5 && isnan(rows[1].ce_zero));
  assert_true(rows[1].n_documents == 3 && rows[1].n_tokens == 100 && rows[1].n_features == 8 && rows[1].n_predicted == 97);
  assert_true(rows[1].n_dead == 1 && rows[1].below[0] == 4 && rows[1].below[3] == 1);
  assert_string_equal(rows[1].corpus, "a.txt");
  assert_string_equal(rows[1].made_at, "2026-01-01T00:00:00.000Z");
  e.source = source + 50;
  must_fail(ERROR_NOT_FOUND, store_evaluation_put(world.store, &e, &error));
  must(store_source_clear(world.store, source, &error));
  must(store_evaluation_list(world.store, source, &world.arena, &rows, &n, &error));
  assert_int_equal(n, 0);
  world_end(&world);
}

static void test_jobs(void **state) {
  struct world world;
  struct store_job got, *list;
  int64_t first, second;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  must(store_job_create(world.store, "stats", "{\"a\":1}", &first, &error));
  must(store_job_create(world.store, "train", "{}", &second, &error));
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  update.state = STORE_RUNNING;
  update.done = 5;
  update.total = 10;
  update.unit = "tokens";
  update.message = "reading";
  must(store_job_update(world.store, first, &update, &error));
  must(store_job_find(world.store, first, &world.arena, &got, &error));
  assert_true(got.id == first && got.state == STORE_RUNNING && got.done == 5 && got.total == 10 && !got.cancel);
  assert_string_equal(got.kind, "stats");
  assert_string_equal(got.unit, "tokens");
  assert_string_equal(got.message, "reading");
  assert_string_equal(got.parameters, "{\"a\":1}");
  assert_non_null(got.created_at);
  assert_non_null(got.started_at);
  assert_non_null(got.updated_at);
  assert_true(!got.result && !got.error && !got.finished_at);

  assert_int_equal(store_job_cancel(world.store, first, NULL), 1); /* running: asked to stop */
  must(store_job_find(world.store, first, &world.arena, &got, &error));
  assert_true(got.cancel && got.state == STORE_RUNNING);
  assert_int_equal(store_job_cancel(world.store, second, NULL), 1); /* queued: gone */
  must(store_job_find(world.store, second, &world.arena, &got, &error));
  assert_true(got.state == STORE_CANCELLED && got.finished_at);
  assert_int_equal(store_job_cancel(world.store, second, NULL), 0);
  must_fail(ERROR_NOT_FOUND, store_job_cancel(world.store, 99, &error));

  update = (struct store_job_update)STORE_JOB_UPDATE_INIT;
  update.state = STORE_FAILED;
  update.error = "no more disk";
  must(store_job_update(world.store, first, &update, &error));
  update.state = STORE_RUNNING;
  must_fail(ERROR_ARGUMENT, store_job_update(world.store, first, &update, &error));
  must(store_job_find(world.store, first, &world.arena, &got, &error));
  assert_string_equal(got.error, "no more disk");
  assert_true(got.done == 5 && got.finished_at);
  must(store_job_resume(world.store, first, &error));
  must(store_job_find(world.store, first, &world.arena, &got, &error));
  assert_true(got.state == STORE_QUEUED && !got.cancel && !got.error && !got.finished_at && got.started_at);

  must(store_job_list(world.store, -1, NULL, 0, 10, &world.arena, &list, &n, &error));
  assert_true(n == 2 && list[0].id == second && list[1].id == first);
  must(store_job_list(world.store, STORE_QUEUED, NULL, 0, 10, &world.arena, &list, &n, &error));
  assert_true(n == 1 && list[0].id == first);
  must(store_job_list(world.store, -1, "train", 0, 10, &world.arena, &list, &n, &error));
  assert_true(n == 1 && list[0].id == second);
  must(store_job_list(world.store, -1, NULL, 1, 1, &world.arena, &list, &n, &error));
  assert_true(n == 1 && list[0].id == first);
  must_fail(ERROR_ARGUMENT, store_job_delete(world.store, first, &error));
  assert_int_equal(store_job_delete(world.store, second, NULL), 1);
  assert_int_equal(store_job_delete(world.store, second, NULL), 0);
  must(store_job_create(world.store, "eval", "{}", &second, &error));
  assert_int_equal(second, 3); /* a number is never used twice */
  assert_string_equal(store_job_word(STORE_CANCELLED), "cancelled");
  world_end(&world);
}

static void test_job_parts(void **state) {
  struct world world;
  int64_t job;
  const void *data;
  size_t bytes;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10);
  must(store_job_create(world.store, "stats", "{}", &job, &error));
  char *large = malloc(3 << 20);
  assert_non_null(large);
  memset(large, 7, 3 << 20);
  struct store_job_part parts[] = {{0, "first", 5}, {1, large, 3 << 20}, {2, "", 0}};
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  update.done = 128;
  struct store_batch batch = {.source = source, .job = job, .update = &update, .parts = parts, .n_parts = 3};
  must(store_batch_put(world.store, &batch, &error));
  assert_int_equal(store_job_part(world.store, job, 1, &world.arena, &data, &bytes, NULL), 1);
  assert_true(bytes == 3 << 20 && memcmp(data, large, bytes) == 0);
  assert_int_equal(store_job_part(world.store, job, 2, &world.arena, &data, &bytes, NULL), 1);
  assert_int_equal(bytes, 0);
  parts[0] = (struct store_job_part){1, NULL, 0};
  batch.n_parts = 1;
  must(store_batch_put(world.store, &batch, &error));
  assert_int_equal(store_job_part(world.store, job, 1, &world.arena, &data, &bytes, NULL), 0);
  assert_int_equal(store_job_part(world.store, job, 0, &world.arena, &data, &bytes, NULL), 1);
  struct store_job got;
  must(store_job_find(world.store, job, &world.arena, &got, &error));
  assert_int_equal(got.done, 128);
  update.state = STORE_DONE; /* a job that is done needs no state */
  parts[0] = (struct store_job_part){5, "late", 4};
  must(store_batch_put(world.store, &batch, &error));
  for (int part = 0; part < 6; part++)
    assert_int_equal(store_job_part(world.store, job, part, &world.arena, &data, &bytes, NULL), 0);
  must_fail(ERROR_ARGUMENT, store_job_resume(world.store, job, &error));
  free(large);
  world_end(&world);
}

/* ---- the file ---------------------------------------------------------------------------------------- */

static void test_file_mode_and_options(void **state) {
  struct world world;
  struct stat status;
  char wal[128];
  (void)state;
  world_init(&world);
  mode_t mask = umask(0);
  world_open(&world);
  umask(mask);
  world_source(&world, "7-res", 1);
  assert_int_equal(stat(world.path, &status), 0);
  assert_int_equal(status.st_mode & 0777, 0600);
  snprintf(wal, sizeof wal, "%s-wal", world.path);
  assert_int_equal(stat(wal, &status), 0);
  assert_int_equal(status.st_mode & 0777, 0600);
  world_close(&world);
  assert_int_equal(stat(wal, &status), -1); /* folded in */
  must_fail(ERROR_ARGUMENT, store_open(&(struct store_options){.path = ""}, &error) ? 0 : -1);
  must_fail(ERROR_IO, store_open(&(struct store_options){.path = "/nowhere/at/all.db"}, &error) ? 0 : -1);
  unlink(world.path);
  assert_int_equal(mkfifo(world.path, 0600), 0); /* and one that would hang is not waited for */
  must_fail(ERROR_FORMAT, world_try(&world, &error) ? 0 : -1);
  world_end(&world);
}

/* Names that mean something to SQLite are files like others here. */
static void test_odd_names(void **state) {
  struct world world;
  char here[256];
  (void)state;
  world_init(&world);
  assert_non_null(getcwd(here, sizeof here));
  assert_int_equal(chdir(world.folder), 0);
  static const char *const names[] = {":memory:", "file:x.db?mode=memory", "a b'c\".db"};
  for (size_t i = 0; i < 3; i++) {
    struct error error = ERROR_INIT;
    struct store *store = store_open(&(struct store_options){.path = names[i]}, &error);
    if (!store) fail_msg("%s", error.text);
    store_close(store);
    assert_int_equal(access(names[i], F_OK), 0);
  }
  assert_int_equal(chdir(here), 0);
  world_end(&world);
}

/* A file as an older schema made it. */
static void old_file(const char *path, int schema) {
  struct error error = ERROR_INIT;
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fclose(file);
  struct connection *old = connection_open(path, path, CONNECTION_WRITER, &error);
  assert_non_null(old);
  char begin[128];
  snprintf(begin, sizeof begin, "PRAGMA page_size=8192; PRAGMA application_id=%d; PRAGMA journal_mode=WAL",
           APPLICATION_ID);
  assert_int_equal(connection_exec(old, begin, &error), 0);
  assert_int_equal(migrations_run(old, schema, &error), 0);
  connection_own(old);
  connection_close(old);
}

static int schema_of(const char *path, const char *also) {
  struct error error = ERROR_INIT;
  struct connection *connection = connection_open(path, path, CONNECTION_WRITER, &error);
  assert_non_null(connection);
  struct row row;
  row_open(&row, connection, "PRAGMA user_version", NULL, &error);
  assert_int_equal(row_next(&row), 1);
  int schema = (int)row_int(&row);
  row_close(&row);
  if (also) assert_int_equal(connection_exec(connection, also, &error), 0);
  connection_own(connection);
  connection_close(connection);
  return schema;
}

static void migrate_from(int schema) {
  struct world world;
  struct store_feature got;
  struct made made;
  world_init(&world);
  old_file(world.path, schema);
  assert_int_equal(schema_of(world.path, "INSERT INTO models(id, seal) VALUES('x', 1)"), schema);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 4);
  made_fill(&made, 2, 1);
  must(store_batch_put(world.store, &(struct store_batch){.source = source, .features = &made.feature,
                       .n_features = 1}, &error));
  must(store_verify(world.store, STORE_CHECK_FULL, &error));
  world_close(&world);
  assert_int_equal(schema_of(world.path, NULL), store_schema());
  assert_true(store_schema() >= 3);
  world_open(&world);
  must(store_feature_get(world.store, source, 2, 9, &world.arena, &got, &error));
  assert_true(same_feature(&got, &made.feature));
  struct store_model model; /* a row nobody sealed is not served */
  must_fail(ERROR_STORE, store_model_find(world.store, "x", &world.arena, &model, &error));
  world_end(&world);
}

static void test_migration(void **state) {
  (void)state;
  for (int schema = 1; schema < store_schema(); schema++) migrate_from(schema);
}

/* A step that fails leaves the file as it was before the step. */
static void test_migration_is_whole(void **state) {
  struct world world;
  struct error error = ERROR_INIT;
  (void)state;
  world_init(&world);
  old_file(world.path, 1);
  schema_of(world.path, "CREATE INDEX features_by_mean ON features(mean)");
  assert_null(world_try(&world, &error));
  assert_non_null(strstr(error.text, "schema 2"));
  assert_int_equal(schema_of(world.path, "CREATE INDEX features_by_rate ON features(rate)"), 1);
  world_end(&world);
}

static void test_newer_refused(void **state) {
  struct world world;
  struct error error = ERROR_INIT;
  (void)state;
  world_init(&world);
  world_open(&world);
  world_close(&world);
  schema_of(world.path, "PRAGMA user_version=99");
  struct store_options options = {.path = world.path, .set_aside = true}; /* which is for damage, not for this */
  assert_null(store_open(&options, &error));
  assert_int_equal(error.code, ERROR_FORMAT);
  assert_non_null(strstr(error.text, "99"));
  assert_int_equal(schema_of(world.path, NULL), 99);
  world_end(&world);
}

static void test_second_open(void **state) {
  struct world world;
  struct error error = ERROR_INIT;
  char name[64];
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t before = clock_ns();
  struct store_options options = {.path = world.path, .holder = "other", .wait_ms = 100};
  assert_null(store_open(&options, &error));
  assert_true(clock_ns() - before >= 100 * 1000000);
  assert_int_equal(error.code, ERROR_BUSY);
  snprintf(name, sizeof name, "process %ld (test)", (long)getpid());
  assert_non_null(strstr(error.text, name));
  assert_non_null(strstr(error.text, world.path));

  world_end(&world);
}

/* One that waits gets it. The waiting process is made before the store is opened: a child would share the lock. */
static void test_waiting_open(void **state) {
  struct world world;
  int go[2], status;
  char byte;
  (void)state;
  world_init(&world);
  assert_int_equal(pipe(go), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct store_options options = {.path = world.path, .wait_ms = 20000};
    if (read(go[0], &byte, 1) != 1) _exit(2);
    struct store *store = store_open(&options, NULL);
    store_close(store);
    _exit(store ? 0 : 1);
  }
  world_open(&world);
  assert_int_equal(write(go[1], "x", 1), 1);
  usleep(100000);
  assert_int_equal(waitpid(child, &status, WNOHANG), 0);
  world_close(&world);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  close(go[0]);
  close(go[1]);
  world_open(&world);
  world_end(&world);
}

/* ---- readers beside a writer -------------------------------------------------------------------------- */

struct threads {
  struct world *world;
  int64_t source;
  atomic_int stop, reads, failures;
};

/* Both features of a batch have the same seed, and every read sees one moment. */
static void *reader_thread(void *context) {
  struct threads *threads = context;
  struct arena arena;
  arena_init(&arena, 0);
  while (!atomic_load(&threads->stop)) {
    struct store_feature got;
    struct store_hit *hits;
    struct made made;
    size_t n;
    float rates[4];
    struct store_search search = {.query = "seed", .query_length = 4, .limit = 3, .time_limit_ms = 10000};
    int found = store_feature_get(threads->world->store, threads->source, 1, 9, &arena, &got, NULL);
    bool fine = found == 1 && got.n_explanations == 1;
    if (fine) {
      made_fill(&made, 1, atoi(got.explanations[0].description + 5));
      fine = same_feature(&got, &made.feature) &&
             store_explanation_search(threads->world->store, &search, &arena, &hits, &n, NULL, NULL) == 0 && n == 1 &&
             store_density(threads->world->store, threads->source, rates, 4, NULL, NULL) == 0;
    }
    if (!fine) atomic_fetch_add(&threads->failures, 1);
    atomic_fetch_add(&threads->reads, 1);
    arena_clear(&arena);
  }
  return NULL;
}

static void write_seed(struct threads *threads, int seed) {
  struct made made;
  char text[32];
  made_fill(&made, 1, seed);
  snprintf(text, sizeof text, "seed %d", seed);
  struct store_explanation explanation = {.source = threads->source, .index = 1, .description = text, .score = NAN};
  must(store_batch_put(threads->world->store, &(struct store_batch){.source = threads->source,
       .features = &made.feature, .n_features = 1, .explanations = &explanation, .n_explanations = 1}, &error));
}

static void test_threads(void **state) {
  struct world world;
  struct threads threads = {.world = &world};
  pthread_t readers[4];
  (void)state;
  world_init(&world);
  struct store_options options = {.path = world.path, .readers = 2}; /* fewer than readers: they must wait */
  world.store = store_open(&options, NULL);
  assert_non_null(world.store);
  threads.source = world_source(&world, "7-res", 4);
  write_seed(&threads, 0);
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(readers + i, NULL, reader_thread, &threads), 0);
  for (int seed = 1; seed <= 60 || (atomic_load(&threads.reads) < 200 && seed < 5000); seed++)
    write_seed(&threads, seed);
  atomic_store(&threads.stop, 1);
  for (int i = 0; i < 4; i++) pthread_join(readers[i], NULL);
  assert_int_equal(threads.failures, 0);
  assert_true(threads.reads >= 4);
  assert_false(store_degraded(world.store));
  must(store_verify(world.store, STORE_CHECK_FULL, &error));
  world_end(&world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_models),
      cmocka_unit_test(test_sources),
      cmocka_unit_test(test_source_clear),
      cmocka_unit_test(test_feature_round_trip),
      cmocka_unit_test(test_groups_are_independent),
      cmocka_unit_test(test_special_numbers),
      cmocka_unit_test(test_examples),
      cmocka_unit_test(test_feature_lists),
      cmocka_unit_test(test_random_and_density),
      cmocka_unit_test(test_batch_is_whole),
      cmocka_unit_test(test_explanations),
      cmocka_unit_test(test_explanation_walk),
      cmocka_unit_test(test_search),
      cmocka_unit_test(test_search_any_pages),
      cmocka_unit_test(test_search_hostile),
      cmocka_unit_test(test_search_time_limit),
      cmocka_unit_test(test_vectors),
      cmocka_unit_test(test_shares),
      cmocka_unit_test(test_evaluations),
      cmocka_unit_test(test_jobs),
      cmocka_unit_test(test_job_parts),
      cmocka_unit_test(test_file_mode_and_options),
      cmocka_unit_test(test_odd_names),
      cmocka_unit_test(test_migration),
      cmocka_unit_test(test_migration_is_whole),
      cmocka_unit_test(test_newer_refused),
      cmocka_unit_test(test_second_open),
      cmocka_unit_test(test_waiting_open),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
