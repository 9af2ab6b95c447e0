/* test_store.c: models, sources, vectors, shares and jobs with every field, migrations, two processes, and readers beside a
 * writer. Features are in test_store_features.c, explanations and searches in test_store_search.c, disks and processes
 * that fail in test_store_faults.c. */
#include "tests/unit/store_world.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/base/clock.h"
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
                               .n_dead = 1, .below = {4, 3, 2, 1}, .cosine = 0.5, .l2_ratio = 0.75, .bias = 1.25,
                               .kl_spliced = 0.125, .kl_zero = NAN, .made_at = "2026-01-01T00:00:00.000Z"};
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
  assert_true(rows[1].cosine == 0.5 && rows[1].l2_ratio == 0.75 && rows[1].bias == 1.25 && rows[1].kl_spliced == 0.125 && isnan(rows[1].kl_zero));
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
  assert_true(store_schema() >= 4);
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

/* A number that was changed: what it says, what this build knows and what to do, and the number stays. */
static void test_false_number(void **state) {
  (void)state;
  for (int real = 1; real <= store_schema(); real += store_schema() - 1) {
    struct world world;
    struct error error = ERROR_INIT;
    int said = real == 1 ? store_schema() : store_schema() - 2;
    char pragma[48], schema[48];
    world_init(&world);
    old_file(world.path, real);
    snprintf(pragma, sizeof pragma, "PRAGMA user_version=%d", said);
    snprintf(schema, sizeof schema, "it has schema %d", said);
    schema_of(world.path, pragma);
    struct store_options options = {.path = world.path, .set_aside = true}; /* which is for damage: this may be another version's */
    assert_null(store_open(&options, &error));
    assert_int_equal(error.code, ERROR_FORMAT);
    assert_non_null(strstr(error.text, world.path));
    assert_non_null(strstr(error.text, schema));
    assert_non_null(strstr(error.text, "use another file"));
    assert_null(strstr(error.text, "SQL"));
    assert_int_equal(schema_of(world.path, NULL), said);
    world_end(&world);
  }
}

/* Our mark and no number, and tables that nobody here made: not ours to build on, and not ours to rename. */
static void test_strange_tables(void **state) {
  struct world world;
  struct error error = ERROR_INIT;
  (void)state;
  world_init(&world);
  old_file(world.path, 0);
  schema_of(world.path, "CREATE TABLE recipes(a); INSERT INTO recipes VALUES('soup')");
  struct store_options options = {.path = world.path, .set_aside = true};
  assert_null(store_open(&options, &error));
  assert_int_equal(error.code, ERROR_FORMAT);
  assert_non_null(strstr(error.text, "not a steerd store"));
  assert_int_equal(schema_of(world.path, "INSERT INTO recipes VALUES('bread')"), 0);
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
      cmocka_unit_test(test_vectors),
      cmocka_unit_test(test_shares),
      cmocka_unit_test(test_evaluations),
      cmocka_unit_test(test_jobs),
      cmocka_unit_test(test_job_parts),
      cmocka_unit_test(test_file_mode_and_options),
      cmocka_unit_test(test_odd_names),
      cmocka_unit_test(test_migration),
      cmocka_unit_test(test_migration_is_whole),
      cmocka_unit_test(test_false_number), cmocka_unit_test(test_strange_tables),
      cmocka_unit_test(test_newer_refused),
      cmocka_unit_test(test_second_open),
      cmocka_unit_test(test_waiting_open),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
