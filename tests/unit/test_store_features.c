/* test_store_features.c: features with every field and group, their examples, lists with ties, and a batch that is written whole
 * or not at all. */
#include "tests/unit/store_world.h"

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
  part.groups = STORE_STATISTICS | STORE_NEIGHBOURS | STORE_PLACE | STORE_EXTRA | STORE_EXAMPLES;
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

static void test_moments(void **state) {
  struct world world;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 5000), other = world_source(&world, "8-res", 5000);
  static struct store_moments made[5000], got[5000]; /* more than a transaction has */
  static bool has[5000];
  size_t known = 9;
  for (int i = 0; i < 5000; i++) made[i] = (struct store_moments){i, 1.0 / (i + 1), i % 2 ? -0.25 * i : (double)NAN, INFINITY};
  must(store_moments_list(world.store, source, got, has, 5000, &known, &error));
  assert_int_equal(known, 0);
  must(store_moments_put(world.store, source, made, 5000, &error));
  must_fail(ERROR_NOT_FOUND, store_moments_put(world.store, 77, made, 1, &error));
  world_close(&world);
  world_open(&world);
  must(store_moments_list(world.store, source, got, has, 5000, &known, &error));
  assert_int_equal(known, 5000);
  for (int i = 0; i < 5000; i++) {
    assert_true(has[i] && got[i].mean == i && got[i].std == 1.0 / (i + 1) && got[i].kurtosis == INFINITY);
    assert_true(i % 2 ? got[i].skewness == -0.25 * i : isnan(got[i].skewness));
  }
  must(store_moments_list(world.store, source, got, has, 10, &known, &error)); /* a smaller dictionary asks for its own */
  assert_int_equal(known, 10);
  struct store_feature feature = {.index = 3, .groups = STORE_MOMENTS, .moments = {1, 2, 3, 4}};
  must(store_batch_put(world.store, &(struct store_batch){.source = other, .features = &feature, .n_features = 1}, &error));
  must(store_moments_list(world.store, other, got, has, 5000, &known, &error));
  assert_true(known == 1 && has[3] && !has[2] && got[3].kurtosis == 4);
  must(store_source_clear(world.store, source, &error));
  must(store_moments_list(world.store, source, got, has, 5000, &known, &error));
  assert_int_equal(known, 0);
  must(store_moments_list(world.store, other, got, has, 5000, &known, &error));
  assert_int_equal(known, 1);
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

static void test_labels(void **state) {
  struct world world;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = listed_source(&world), other = world_source(&world, "told", 9);
  struct store_explanation rule = {.source = other, .index = 8, .description = "by rule", .type = "rule", .score = 0.5};
  must(store_explanation_put(world.store, &rule, NULL, &error));
  const struct store_feature_at at[] = {{source, 2}, {0, 0}, {source, 5}, {other, 8}, {other, 3}, {source, 2}};
  struct store_feature_label out[6];
  must(store_feature_labels(world.store, at, 6, &world.arena, out, &error));
  assert_true(out[0].known && out[0].rate == 0.5 && out[0].max == 2);
  assert_string_equal(out[0].best->description, "cats");
  assert_true(!out[1].known && !out[1].best && isnan(out[1].rate) && isnan(out[1].max));
  assert_true(out[2].known && out[2].max == 9 && !out[2].best);
  assert_true(out[3].known && isnan(out[3].rate) && isnan(out[3].max)); /* explained, but not counted */
  assert_string_equal(out[3].best->type, "rule");
  assert_false(out[4].known);
  assert_string_equal(out[5].best->description, "cats");
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

/* A row for each explanation, best first, and one for a feature without; a new map leaves nothing of the one before; gone with what a
 * source loses. */
static void test_maps(void **state) {
  struct world world;
  struct store_map_row *rows;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 10), other = world_source(&world, "8-res", 10);
  struct store_place places[3] = {{1, 2, 0, NAN}, {NAN, NAN, -1, NAN}, {-0.5, 4, 1, -3}};
  assert_int_equal(store_map_there(world.store, source, NULL), 0);
  must_fail(ERROR_NOT_FOUND, store_map_put(world.store, other + 1, places, 3, &error));
  must(store_map_put(world.store, other, places, 1, &error));
  must(store_map_put(world.store, source, places, 3, &error));
  assert_int_equal(store_map_there(world.store, source, NULL), 1);
  must(store_batch_put(world.store, &(struct store_batch){.source = source, .features = &(struct store_feature){.index = 2,
    .groups = STORE_STATISTICS, .n_fired = 1, .rate = 0.25, .mean = 1, .max = 2}, .n_features = 1}, &error));
  static const char *const said[] = {"an automatic one", "a better one"};
  for (int i = 0; i < 2; i++) {
    struct store_explanation e = {.source = source, .index = 2, .origin = i ? STORE_MANUAL : STORE_AUTOMATIC, .description = said[i], .score = (double)NAN};
    int64_t id;
    must(store_explanation_put(world.store, &e, &id, &error));
  }
  must(store_map_list(world.store, source, &world.arena, &rows, &n, &error));
  assert_int_equal(n, 4);
  for (size_t i = 0; i < 4; i++) {
    size_t index = i < 3 ? i : 2;
    assert_int_equal(rows[i].index, index);
    assert_true(same_place(&rows[i].place, &places[index]));
    assert_true(index == 2 ? rows[i].rate == 0.25 : isnan(rows[i].rate));
  }
  assert_null(rows[0].description);
  assert_string_equal(rows[2].description, said[1]);
  assert_string_equal(rows[3].description, said[0]);
  must(store_map_put(world.store, source, places, 1, &error));
  must(store_map_list(world.store, source, &world.arena, &rows, &n, &error));
  assert_int_equal(n, 1);
  must(store_source_clear(world.store, source, &error));
  assert_int_equal(store_map_there(world.store, source, NULL), 0);
  assert_int_equal(store_map_there(world.store, other, NULL), 1);
  must(store_forget(world.store, &(struct store_forget){.sources = &other, .n = 1}, &error));
  assert_int_equal(store_map_there(world.store, other, NULL), 0);
  world_end(&world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_feature_round_trip),
      cmocka_unit_test(test_groups_are_independent),
      cmocka_unit_test(test_special_numbers),
      cmocka_unit_test(test_moments), cmocka_unit_test(test_examples),
      cmocka_unit_test(test_feature_lists),
      cmocka_unit_test(test_random_and_density), cmocka_unit_test(test_labels),
      cmocka_unit_test(test_batch_is_whole), cmocka_unit_test(test_maps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
