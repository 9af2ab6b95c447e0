/* test_store_graphs.c: attribution graphs of the store: kept across opening, one of a name, deleted whole, sealed; and the best explanations
 * of several features. */
#include "tests/unit/store_world.h"

#include <math.h>
#include <sqlite3.h>

static const struct store_graph cat = {.model = "tiny", .slug = "cat", .prompt = "The cat", .tokens = "[\"The\",\" cat\"]", .source_set = "tc",
                                       .n_nodes = 3, .n_links = 2, .json = "{\"nodes\":[]}", .length = 12};

static void test_graphs(void **state) {
  struct world world;
  struct store_graph other = cat, got, *all;
  int64_t first, second;
  size_t n;
  (void)state;
  other.slug = "dog";
  other.source_set = NULL;
  world_init(&world);
  world_open(&world);
  assert_int_equal(store_graph_new(world.store, &cat, &first, NULL), 1);
  assert_int_equal(store_graph_new(world.store, &other, &second, NULL), 1);
  other.json = "{}";
  other.length = 2;
  assert_int_equal(store_graph_new(world.store, &other, NULL, NULL), 0); /* what is there stays */
  other.model = "pup";
  assert_int_equal(store_graph_new(world.store, &other, NULL, NULL), 1); /* of another model it is another graph */
  world_close(&world);
  world_open(&world);
  assert_int_equal(store_graph_find(world.store, "tiny", "cat", true, &world.arena, &got, NULL), 1);
  assert_true(got.id == first && got.n_nodes == 3 && got.n_links == 2 && got.length == 12 && memcmp(got.json, cat.json, 12) == 0);
  assert_string_equal(got.prompt, cat.prompt);
  assert_string_equal(got.tokens, cat.tokens);
  assert_string_equal(got.source_set, "tc");
  assert_int_equal(strlen(got.created_at), 24);
  assert_int_equal(store_graph_find(world.store, "tiny", "dog", false, &world.arena, &got, NULL), 1);
  assert_true(!got.json && !got.source_set);
  assert_int_equal(store_graph_find(world.store, "pup", "cat", true, &world.arena, &got, NULL), 0);
  must(store_graph_all(world.store, &world.arena, &all, &n, &error));
  assert_true(n == 3 && all[0].id == first && all[1].id == second && !all[0].json);

  assert_int_equal(store_graph_delete(world.store, "tiny", "dog", NULL), 1);
  assert_int_equal(store_graph_delete(world.store, "tiny", "dog", NULL), 0);
  int64_t third;
  other.model = "tiny";
  assert_int_equal(store_graph_new(world.store, &other, &third, NULL), 1);
  assert_true(third > second); /* a number is never given twice */
  assert_int_equal(store_graph_find(world.store, "tiny", "dog", true, &world.arena, &got, NULL), 1);
  assert_int_equal(got.length, 2); /* and nothing of the old text is left */
  must(store_verify(world.store, STORE_CHECK_FULL, &error));
  world_end(&world);
}

static void test_subgraphs(void **state) {
  struct world world;
  struct store_graph other = cat;
  struct store_subgraph *all;
  int64_t graph, second, first, id;
  size_t n;
  (void)state;
  other.model = "pup";
  world_init(&world);
  world_open(&world);
  assert_int_equal(store_graph_new(world.store, &cat, &graph, NULL), 1);
  assert_int_equal(store_graph_new(world.store, &other, &second, NULL), 1);
  struct store_subgraph one = {.graph = graph, .name = "sea", .choices = "{\"a\":1}"};
  must(store_subgraph_new(world.store, &one, &first, &error));
  one.name = NULL;
  must(store_subgraph_new(world.store, &one, &id, &error));
  assert_true(id > first);
  one.id = first;
  one.choices = "{}";
  assert_int_equal(store_subgraph_update(world.store, &one, NULL), 1);
  one.graph = second;
  assert_int_equal(store_subgraph_update(world.store, &one, NULL), 0); /* of another graph */
  world_close(&world);
  world_open(&world);
  must(store_subgraphs_of(world.store, graph, &world.arena, &all, &n, &error));
  assert_true(n == 2 && all[0].id == id && all[1].id == first && !all[0].name);
  assert_string_equal(all[1].name, "sea");
  assert_string_equal(all[1].choices, "{}");
  assert_int_equal(store_subgraph_delete(world.store, first, NULL), 1);
  assert_int_equal(store_subgraph_delete(world.store, first, NULL), 0);

  char *large = malloc(STORE_SUBGRAPH_BYTES + 2);
  memset(large, 'x', STORE_SUBGRAPH_BYTES + 1);
  large[STORE_SUBGRAPH_BYTES + 1] = 0;
  struct store_subgraph much = {.graph = graph, .choices = large}, nowhere = {.graph = graph + 100, .choices = "{}"};
  must_fail(ERROR_LIMIT, store_subgraph_new(world.store, &much, &id, &error));
  free(large);
  must_fail(ERROR_NOT_FOUND, store_subgraph_new(world.store, &nowhere, &id, &error));

  one.graph = second;
  must(store_subgraph_new(world.store, &one, &id, &error));
  assert_int_equal(store_graph_delete(world.store, "tiny", "cat", NULL), 1);
  must(store_subgraphs_of(world.store, graph, &world.arena, &all, &n, &error));
  assert_int_equal(n, 0);
  must(store_forget(world.store, &(struct store_forget){.model = "pup", .whole_model = true}, &error));
  must(store_subgraphs_of(world.store, second, &world.arena, &all, &n, &error));
  assert_int_equal(n, 0);
  must(store_verify(world.store, STORE_CHECK_FULL, &error));
  world_end(&world);
}

/* With a model that is forgotten go its graphs, texts and all, and nobody else's. */
static void test_forgotten(void **state) {
  struct world world;
  struct store_graph other = cat, got;
  (void)state;
  other.model = "pup";
  world_init(&world);
  world_open(&world);
  assert_int_equal(store_graph_new(world.store, &cat, NULL, NULL), 1);
  assert_int_equal(store_graph_new(world.store, &other, NULL, NULL), 1);
  must(store_forget(world.store, &(struct store_forget){.model = "tiny", .whole_model = true}, &error));
  assert_int_equal(store_graph_find(world.store, "tiny", "cat", false, &world.arena, &got, NULL), 0);
  assert_int_equal(store_graph_find(world.store, "pup", "cat", true, &world.arena, &got, NULL), 1);
  world_close(&world);
  sqlite3 *db;
  sqlite3_stmt *count;
  assert_int_equal(sqlite3_open(world.path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM graph_texts", -1, &count, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(count), SQLITE_ROW);
  assert_int_equal(sqlite3_column_int(count, 0), 1);
  sqlite3_finalize(count);
  sqlite3_close(db);
  world_open(&world);
  world_end(&world);
}

static void test_limits(void **state) {
  struct world world;
  struct store_graph graph = cat;
  (void)state;
  world_init(&world);
  world_open(&world);
  graph.length = STORE_GRAPH_BYTES + 1; /* told by the length alone */
  must_fail(ERROR_LIMIT, store_graph_new(world.store, &graph, NULL, &error));
  world_end(&world);
}

/* Every row is sealed: one that somebody changed in the file is not served. */
static void test_damage(void **state) {
  static const char *const harm[] = {"UPDATE graphs SET prompt = 'x'", "UPDATE graph_texts SET json = x'7b7d'", "DELETE FROM graph_texts"};
  (void)state;
  for (int i = 0; i < 3; i++) {
    struct world world;
    struct store_graph got;
    sqlite3 *db;
    world_init(&world);
    world_open(&world);
    assert_int_equal(store_graph_new(world.store, &cat, NULL, NULL), 1);
    world_close(&world);
    assert_int_equal(sqlite3_open(world.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, harm[i], NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    world_open(&world);
    must_fail(ERROR_STORE, store_graph_find(world.store, "tiny", "cat", true, &world.arena, &got, &error));
    world_end(&world);
  }
}

static int64_t put_source(struct world *world) {
  int64_t source;
  must(store_source_put(world->store, &(struct store_source){.model = "tiny", .name = "1-tc", .set = "tc", .n_features = 10}, &source, &error));
  return source;
}

static void test_best(void **state) {
  struct world world;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = put_source(&world);
  struct store_explanation e = {.source = source, .index = 4, .description = "by rule", .score = 0.9};
  must(store_explanation_put(world.store, &e, NULL, &error));
  e = (struct store_explanation){.source = source, .index = 4, .origin = STORE_MANUAL, .description = "by hand", .score = NAN};
  must(store_explanation_put(world.store, &e, NULL, &error));
  e = (struct store_explanation){.source = source, .index = 6, .description = "another", .score = NAN};
  must(store_explanation_put(world.store, &e, NULL, &error));
  const struct store_feature_at at[] = {{source, 6}, {0, 0}, {source, 5}, {source, 4}, {source, 6}};
  const char *out[5];
  must(store_explanation_best(world.store, at, 5, &world.arena, out, &error));
  assert_string_equal(out[0], "another");
  assert_true(!out[1] && !out[2]);
  assert_string_equal(out[3], "by hand");
  assert_string_equal(out[4], "another");
  world_end(&world);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_graphs),    cmocka_unit_test(test_subgraphs), cmocka_unit_test(test_forgotten),
                                     cmocka_unit_test(test_limits),    cmocka_unit_test(test_damage),    cmocka_unit_test(test_best)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
