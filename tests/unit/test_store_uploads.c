/* test_store_uploads.c: registered models and source sets, uploads that never take the place of what is there and are written whole
 * or not at all, and lists of features. */
#include "tests/unit/store_world.h"

#include <sqlite3.h>

/* ---- registration ----------------------------------------------------------------------------------- */

static void test_models(void **state) {
  struct world world;
  struct store_model got;
  (void)state;
  world_init(&world);
  world_open(&world);
  struct store_model model = {.id = "pup", .display_name = "Pup", .layers = 3, .website = "https://x"};
  assert_int_equal(store_model_register(world.store, &model, NULL), 1);
  model.layers = 5;
  assert_int_equal(store_model_register(world.store, &model, NULL), 0);
  must(store_model_find(world.store, "pup", &world.arena, &got, &error));
  assert_true(got.layers == 3 && got.dimension == 0 && !got.identity);
  must_fail(ERROR_ARGUMENT, store_model_register(world.store, &(struct store_model){.id = ""}, &error));
  char id[16];
  for (int i = 1; i < STORE_MODELS_MAX; i++) {
    snprintf(id, sizeof id, "m%d", i);
    assert_int_equal(store_model_register(world.store, &(struct store_model){.id = id}, NULL), 1);
  }
  must_fail(ERROR_LIMIT, store_model_register(world.store, &(struct store_model){.id = "one-more"}, &error));
  world_end(&world);
}

static void test_sets(void **state) {
  struct world world;
  struct store_set got, set = {.model = "pup", .name = "mine", .description = "about", .url = "https://y"};
  struct store_source *sources, source;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  assert_int_equal(store_set_register(world.store, &set, 3, NULL), 1);
  assert_int_equal(store_set_register(world.store, &set, 3, NULL), 0);
  assert_int_equal(store_set_find(world.store, "pup", "mine", &world.arena, &got, NULL), 1);
  assert_string_equal(got.description, "about");
  assert_string_equal(got.url, "https://y");
  assert_int_equal(store_set_find(world.store, "pup", "none", &world.arena, &got, NULL), 0);
  must(store_source_list_named(world.store, "pup", &world.arena, &sources, &n, &error));
  assert_int_equal(n, 3);
  assert_string_equal(sources[2].name, "2-mine");
  assert_string_equal(sources[2].set, "mine");
  assert_true(sources[2].layer == 2 && sources[2].n_features == 0 && !sources[2].statistics.made_at);
  world_end(&world);
  /* one of the names is taken: nothing of the set is there afterwards */
  world_init(&world);
  world_open(&world);
  must(store_source_put(world.store, &(struct store_source){.model = "pup", .name = "1-mine", .identity = "relu #1"}, NULL, &error));
  assert_int_equal(store_set_register(world.store, &set, 3, NULL), 0);
  assert_int_equal(store_set_find(world.store, "pup", "mine", &world.arena, &got, NULL), 0);
  assert_int_equal(store_source_find(world.store, "pup", "0-mine", &world.arena, &source, NULL), 0);
  must(store_source_list_named(world.store, NULL, &world.arena, &sources, &n, &error));
  assert_int_equal(n, 0);
  must_fail(ERROR_LIMIT, store_set_register(world.store, &set, STORE_NAMED_SOURCES_MAX + 1, &error));
  world_end(&world);
}

/* ---- uploads ---------------------------------------------------------------------------------------- */

static struct store_source source_of(struct world *world, int64_t id) {
  struct store_source row;
  must(store_source_at(world->store, id, &world->arena, &row, &error));
  return row;
}

static void test_features(void **state) {
  struct world world;
  struct made made[3];
  struct store_feature features[3], got;
  struct store_explanation say = {.description = "an animal", .origin = STORE_IMPORTED, .score = NAN};
  bool added[3];
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 0);
  struct store_upload upload = {.source = source};
  for (uint32_t i = 0; i < 3; i++) {
    made_fill(&made[i], 10 * i + 5, i + 1);
    features[i] = made[i].feature;
    features[i].explanations = &say;
    features[i].n_explanations = 1;
  }
  must(store_upload_features(world.store, &upload, features, 2, added, &error));
  assert_true(added[0] && added[1]);
  struct store_source row = source_of(&world, source);
  assert_int_equal(row.n_features, 16);
  assert_true(row.statistics.made_at && row.statistics.folded && !row.statistics.bos_counted);

  features[0].max = 1e6f; /* it is there: left alone, and not explained twice */
  must(store_upload_features(world.store, &upload, features, 3, added, &error));
  assert_true(!added[0] && !added[1] && added[2]);
  must(store_feature_get(world.store, source, 5, 99, &world.arena, &got, &error));
  assert_true(same_feature(&got, &made[0].feature));
  assert_int_equal(got.n_explanations, 1);
  assert_int_equal(got.explanations[0].index, 5);
  assert_int_equal(source_of(&world, source).n_features, 26);
  must(store_verify(world.store, STORE_CHECK_FULL, &error));
  world_end(&world);
}

/* The second of two rows cannot be: the first is not there either, and the source has not grown. */
static void test_features_are_whole(void **state) {
  struct world world;
  struct made made;
  struct store_feature features[2], got;
  bool added[2];
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 0);
  made_fill(&made, 4, 1);
  features[0] = features[1] = made.feature;
  features[1].index = (uint32_t)STORE_UPLOAD_FEATURES;
  must_fail(ERROR_ARGUMENT, store_upload_features(world.store, &(struct store_upload){.source = source}, features, 2, added, &error));
  assert_int_equal(store_feature_get(world.store, source, 4, 9, &world.arena, &got, NULL), 0);
  assert_int_equal(source_of(&world, source).n_features, 0);
  features[1].index = 5;
  struct store_explanation nothing = {.score = NAN};
  features[1].explanations = &nothing; /* without a description */
  features[1].n_explanations = 1;
  must_fail(ERROR_ARGUMENT, store_upload_features(world.store, &(struct store_upload){.source = source}, features, 2, added, &error));
  assert_int_equal(store_feature_get(world.store, source, 4, 9, &world.arena, &got, NULL), 0);
  must_fail(ERROR_NOT_FOUND, store_upload_features(world.store, &(struct store_upload){.source = 99}, features, 1, added, &error));
  world_end(&world);
}

static void test_dictionaries(void **state) {
  struct world world;
  struct made made;
  bool added;
  int64_t source;
  (void)state;
  world_init(&world);
  world_open(&world);
  made_fill(&made, 4, 1);
  struct store_source row = {.model = "tiny", .name = "7-res", .n_features = 5, .identity = "relu #1"};
  must(store_source_put(world.store, &row, &source, &error));
  struct store_upload upload = {.source = source};
  must_fail(ERROR_CONFLICT, store_upload_features(world.store, &upload, &made.feature, 1, &added, &error));
  upload.identity = "relu #2";
  must_fail(ERROR_CONFLICT, store_upload_features(world.store, &upload, &made.feature, 1, &added, &error));
  upload.identity = "relu #1";
  must(store_upload_features(world.store, &upload, &made.feature, 1, &added, &error));
  assert_true(added);
  assert_null(source_of(&world, source).statistics.made_at); /* what is known of the dictionary's statistics stays */
  made.feature.index = 5;
  must_fail(ERROR_ARGUMENT, store_upload_features(world.store, &upload, &made.feature, 1, &added, &error));
  world_end(&world);
}

static struct store_example example_of(const struct store_text *tokens, const float *values) {
  return (struct store_example){.tokens = tokens, .values = values, .n = 2, .qualifying = -1, .document = -1, .position = -1};
}

static void test_examples(void **state) {
  static const struct store_text cat[] = {{"a", 1}, {" cat", 4}}, dog[] = {{"a", 1}, {" dog", 4}};
  static const float low[] = {0, 1.5f}, high[] = {0, 3.5f};
  struct world world;
  struct store_feature got;
  size_t added;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 0);
  struct store_upload upload = {.source = source};
  struct store_example rows[] = {example_of(cat, low), example_of(dog, low), example_of(cat, low), example_of(cat, high)};
  must(store_upload_examples(world.store, &upload, 9, rows, 3, &added, &error));
  assert_int_equal(added, 2);
  must(store_upload_examples(world.store, &upload, 9, rows, 4, &added, &error));
  assert_int_equal(added, 1);
  must(store_feature_get(world.store, source, 9, 99, &world.arena, &got, &error));
  assert_int_equal(got.n_examples, 3);
  assert_true(got.max == 3.5f && got.n_fired == -1 && isnan(got.rate));
  assert_int_equal(source_of(&world, source).n_features, 10);

  /* What was counted over a text stays. */
  struct store_feature counted = {.index = 3, .groups = STORE_STATISTICS, .n_fired = 7, .rate = 0.5, .mean = 1, .max = 2};
  must(store_batch_put(world.store, &(struct store_batch){.source = source, .features = &counted, .n_features = 1}, &error));
  must(store_upload_examples(world.store, &upload, 3, rows + 3, 1, &added, &error));
  must(store_feature_get(world.store, source, 3, 99, &world.arena, &got, &error));
  assert_true(got.max == 2 && got.n_fired == 7 && got.n_examples == 1);
  rows[0].n = 0;
  must_fail(ERROR_ARGUMENT, store_upload_examples(world.store, &upload, 3, rows, 1, &added, &error));
  world_end(&world);
}

/* ---- lists ------------------------------------------------------------------------------------------ */

static const struct store_list_feature cats = {"tiny", "7-res", 3, "cats", NULL}, dogs = {"tiny", "7-res", 4, NULL, NULL},
                                       other = {"pup", "7-res", 3, "x", NULL};

static void test_lists(void **state) {
  struct world world;
  struct store_list list = {.name = "Animals", .description = "about", .test_text = "The cat"}, got, *all;
  struct store_list_feature first[] = {cats, dogs, cats}, *features;
  int64_t id, second;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  must(store_list_new(world.store, &list, first, 3, &id, &error));
  must(store_list_new(world.store, &(struct store_list){.name = "Empty"}, NULL, 0, &second, &error));
  must_fail(ERROR_ARGUMENT, store_list_new(world.store, &(struct store_list){.name = ""}, NULL, 0, &id, &error));
  assert_int_equal(store_list_find(world.store, id, &world.arena, &got, &features, &n, NULL), 1);
  assert_string_equal(got.name, "Animals");
  assert_string_equal(got.test_text, "The cat");
  assert_int_equal(n, 2);
  assert_int_equal(got.n_features, 2);
  assert_true(features[0].index == 3 && features[1].index == 4 && !features[1].description);
  assert_string_equal(features[0].description, "cats");

  assert_int_equal(store_list_add(world.store, id, (struct store_list_feature[]){dogs, other}, 2, NULL), 1);
  struct store_list_feature wolves = dogs;
  wolves.description = "wolves";
  assert_int_equal(store_list_describe(world.store, id, &wolves, NULL), 1);
  assert_int_equal(store_list_remove(world.store, id, &cats, NULL), 1);
  assert_int_equal(store_list_remove(world.store, id, &cats, NULL), 0);
  assert_int_equal(store_list_describe(world.store, id, &cats, NULL), 0);
  list.id = id;
  list.name = "Beasts";
  list.test_text = NULL;
  assert_int_equal(store_list_update(world.store, &list, NULL), 1);
  world_close(&world);
  world_open(&world);
  assert_int_equal(store_list_find(world.store, id, &world.arena, &got, &features, &n, NULL), 1);
  assert_string_equal(got.name, "Beasts");
  assert_null(got.test_text);
  assert_int_equal(n, 2);
  assert_string_equal(features[0].description, "wolves");
  assert_string_equal(features[1].model, "pup");
  must(store_list_all(world.store, &world.arena, &all, &n, &error));
  assert_true(n == 2 && all[0].n_features == 2 && all[1].n_features == 0);

  assert_int_equal(store_list_delete(world.store, second, NULL), 1);
  assert_int_equal(store_list_delete(world.store, second, NULL), 0);
  assert_int_equal(store_list_add(world.store, second, &cats, 1, NULL), 0);
  int64_t third;
  must(store_list_new(world.store, &(struct store_list){.name = "New"}, NULL, 0, &third, &error));
  assert_true(third > second); /* a number is never given twice */
  must(store_verify(world.store, STORE_CHECK_FULL, &error));
  world_end(&world);
}

static void test_list_limits(void **state) {
  struct world world;
  struct store_list_feature *features = calloc(STORE_LIST_FEATURES, sizeof *features), *read;
  struct store_list got;
  int64_t id;
  size_t n;
  (void)state;
  world_init(&world);
  world_open(&world);
  for (uint32_t i = 0; i < STORE_LIST_FEATURES; i++) features[i] = (struct store_list_feature){"tiny", "7-res", i, NULL, NULL};
  must(store_list_new(world.store, &(struct store_list){.name = "All"}, features, STORE_LIST_FEATURES, &id, &error));
  must_fail(ERROR_LIMIT, store_list_add(world.store, id, (struct store_list_feature[]){features[0], other}, 2, &error));
  must(store_list_find(world.store, id, &world.arena, &got, &read, &n, &error));
  assert_int_equal(n, STORE_LIST_FEATURES);
  free(features);
  world_end(&world);
}

/* Every row is sealed: one that somebody changed in the file is not served. */
static void test_damage(void **state) {
  static const char *const harm[] = {"UPDATE lists SET name = 'x'", "UPDATE list_features SET number = 8",
                                     "UPDATE source_sets SET url = 'x'"};
  struct world world;
  struct store_list got;
  struct store_list_feature *features;
  struct store_set set;
  size_t n;
  int64_t id;
  (void)state;
  for (int i = 0; i < 3; i++) {
    world_init(&world);
    world_open(&world);
    must(store_list_new(world.store, &(struct store_list){.name = "Animals"}, &cats, 1, &id, &error));
    must(store_set_register(world.store, &(struct store_set){.model = "pup", .name = "mine", .url = "y"}, 1, &error));
    world_close(&world);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(world.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, harm[i], NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    world_open(&world);
    if (i < 2) must_fail(ERROR_STORE, store_list_find(world.store, id, &world.arena, &got, &features, &n, &error));
    else must_fail(ERROR_STORE, store_set_find(world.store, "pup", "mine", &world.arena, &set, &error));
    world_end(&world);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_models), cmocka_unit_test(test_sets), cmocka_unit_test(test_features),
      cmocka_unit_test(test_features_are_whole), cmocka_unit_test(test_dictionaries), cmocka_unit_test(test_examples),
      cmocka_unit_test(test_lists), cmocka_unit_test(test_list_limits), cmocka_unit_test(test_damage),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
