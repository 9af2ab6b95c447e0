/* test_store_search.c: explanations, walks over them, and searching, with hostile words and under a time limit. */
#include "tests/unit/store_world.h"

#include "core/base/random.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_explanations),
      cmocka_unit_test(test_explanation_walk),
      cmocka_unit_test(test_search),
      cmocka_unit_test(test_search_any_pages),
      cmocka_unit_test(test_search_hostile),
      cmocka_unit_test(test_search_time_limit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
