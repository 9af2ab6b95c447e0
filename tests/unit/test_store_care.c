/* A store as a whole: read beside the process that holds it, every row looked through, copied, and kept before it is migrated. */
#include "store_world.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "core/store/care.h"
#include "core/store/connection.h"
#include "core/store/migrations.h"

static void put_explanation(struct world *world, int64_t source, uint32_t index, const char *text) {
  int64_t id = 0;
  struct store_explanation explanation = {.source = source, .index = index, .origin = STORE_MANUAL, .description = text, .score = (double)NAN};
  must(store_explanation_put(world->store, &explanation, &id, &error));
}

static void put_features(struct world *world, int64_t source) {
  struct store_moments moments = {0.5, 2, (double)NAN, -1};
  for (uint32_t i = 0; i < 9; i++) { /* i 0: a whole number in every column of reals */
    struct made made;
    made_fill(&made, i, 1);
    made.feature.groups |= STORE_MOMENTS;
    made.feature.moments = moments;
    must(store_batch_put(world->store, &(struct store_batch){.source = source, .features = &made.feature, .n_features = 1}, &error));
    put_explanation(world, source, i, "the end of a sentence");
  }
}

static void put_lists_and_graphs(struct world *world) {
  static const float values[] = {1, -0.0f, 0.25f};
  int64_t id = 0;
  struct store_vector vector = {.model = "tiny", .source = "0-mine", .label = "calm", .point = "resid_pre.0", .strength = 3, .values = values, .n = 3};
  must(store_vector_new(world->store, &vector, &id, &error));
  struct store_list_feature entry = {.model = "tiny", .source = "7-res", .index = 2};
  must(store_list_new(world->store, &(struct store_list){.name = "mine"}, &entry, 1, &id, &error));
  struct store_graph graph = {.model = "tiny", .slug = "one", .prompt = "a b", .tokens = "[\"a\"]", .n_nodes = 4, .json = "{}", .length = 2};
  must(store_graph_new(world->store, &graph, &id, &error));
  must(store_subgraph_new(world->store, &(struct store_subgraph){.graph = id, .choices = "{}"}, &id, &error));
}

static void put_work(struct world *world, int64_t source) {
  int64_t job = 0;
  char share[STORE_SHARE_ID];
  struct store_evaluation evaluation = {.source = source, .corpus_hash = "abc", .l0 = 12, .mse = 0.5, .cosine = 1, .kl_zero = (double)NAN};
  must(store_evaluation_put(world->store, &evaluation, &error));
  must(store_share_save(world->store, &(struct store_share){.kind = "steer", .model = "tiny", .request = "{}", .reply = "{}"}, share, &error));
  must(store_job_create(world->store, "stats", "{}", &job, &error));
  struct store_job_part part = {.part = 0, .data = "state", .bytes = 5};
  struct store_job_update update = {.state = STORE_RUNNING, .done = 3, .total = -1};
  must(store_batch_put(world->store, &(struct store_batch){.source = source, .job = job, .update = &update, .parts = &part, .n_parts = 1}, &error));
}

/* A store in which every table has rows. */
static void fill(struct world *world) {
  world_init(world);
  world_open(world);
  must(store_model_put(world->store, &(struct store_model){.id = "tiny", .layers = 8}, &error));
  must(store_set_register(world->store, &(struct store_set){.model = "tiny", .name = "res"}, 7, &error));
  int64_t source = world_source(world, "7-res", 9);
  put_features(world, source);
  put_lists_and_graphs(world);
  put_work(world, source);
}

static struct store *beside(const struct world *world) {
  struct error error = ERROR_INIT;
  struct store *store = store_open_beside(world->path, true, &error);
  if (!store) fail_msg("%s", error.text);
  return store;
}

static struct store_findings look(struct store *store) {
  struct store_findings found;
  must(store_look_through(store, STORE_CHECK_FULL, NULL, &found, &error));
  return found;
}

/* Statements of a program that knows nothing of seals. */
static void meddle(const char *path, const char *sql) {
  struct error error = ERROR_INIT;
  struct connection *connection = connection_open(path, path, CONNECTION_WRITER, &error);
  assert_non_null(connection);
  if (connection_exec(connection, sql, &error) != 0) fail_msg("%s: %s", sql, error.text);
  connection_close(connection);
}

/* ---- looking through ---- */

static int64_t tables_with_seals(const char *path) {
  struct error error = ERROR_INIT;
  struct row row;
  struct connection *connection = connection_open(path, path, CONNECTION_READER, &error);
  row_open(&row, connection, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND sql LIKE '% seal INTEGER%'", NULL, &error);
  assert_int_equal(row_next(&row), 1);
  int64_t n = row_int(&row);
  row_close(&row);
  connection_close(connection);
  return n;
}

/* Every table that has a seal is looked at, and what the verbs of the store have written is sound. */
static void test_sound(void **state) {
  struct world world;
  (void)state;
  fill(&world);
  struct store_findings found = look(world.store);
  assert_int_equal(found.n_tables, tables_with_seals(world.path));
  for (size_t i = 0; i < found.n_tables; i++)
    if (!found.tables[i].rows || found.tables[i].damaged) fail_msg("%s: %d rows, %d damaged", found.tables[i].name, (int)found.tables[i].rows, (int)found.tables[i].damaged);
  assert_int_equal(found.damaged, 0);
  assert_int_equal(found.schema, store_schema());
  assert_true(found.bytes > 8192 && found.bytes % 8192 == 0);
  world_end(&world);
}

/* One row of one table changed: it alone is found, and named. */
static void damage_one(const struct world *world, const char *table) {
  char sql[200];
  struct error error = ERROR_INIT;
  struct connection *connection = connection_open(world->path, world->path, CONNECTION_WRITER, &error);
  assert_non_null(connection);
  snprintf(sql, sizeof sql, "UPDATE %s SET seal = seal + 1 WHERE seal = (SELECT min(seal) FROM %s)", table, table);
  assert_int_equal(connection_exec(connection, sql, &error), 0);
  struct store_findings found = look(world->store);
  assert_int_equal(found.damaged, 1);
  assert_int_equal(found.n_named, 1);
  assert_int_equal(strncmp(found.named[0], table, strlen(table)), 0);
  assert_int_equal(found.named[0][strlen(table)], ' ');
  snprintf(sql, sizeof sql, "UPDATE %s SET seal = seal - 1 WHERE seal = (SELECT min(seal) FROM %s)", table, table);
  assert_int_equal(connection_exec(connection, sql, &error), 0);
  connection_close(connection);
}

static void test_each_table(void **state) {
  struct world world;
  (void)state;
  fill(&world);
  struct store_findings found = look(world.store);
  for (size_t i = 0; i < found.n_tables; i++) damage_one(&world, found.tables[i].name);
  assert_int_equal(look(world.store).damaged, 0);
  world_end(&world);
}

static void test_columns(void **state) {
  static const char *const changes[] = {
      "UPDATE features SET maximum = maximum + 1 WHERE id & 4294967295 = 3", "UPDATE features SET n_fired = 7 WHERE id & 4294967295 = 3",
      "UPDATE explanations SET description = description || '.' WHERE id & 4294967295 = 3", "UPDATE explanations SET score = 0 WHERE id & 4294967295 = 3",
      "UPDATE examples SET activations = zeroblob(20) WHERE id = (SELECT max(id) FROM examples)", "UPDATE vectors SET label = NULL",
  };
  (void)state;
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    struct world world;
    fill(&world);
    meddle(world.path, changes[i]);
    struct store_findings found = look(world.store);
    if (found.damaged != 1) fail_msg("%s: %d rows found", changes[i], (int)found.damaged);
    world_end(&world);
  }
}

/* More are counted than named. */
static void test_many(void **state) {
  struct world world;
  (void)state;
  fill(&world);
  meddle(world.path, "UPDATE examples SET position = position + 1");
  struct store_findings found = look(world.store);
  assert_int_equal(found.damaged, 9 * MADE_EXAMPLES);
  assert_int_equal(found.n_named, STORE_NAMED_MAX);
  world_end(&world);
}

static bool stop_at_once(void *context, int64_t done, int64_t total) {
  (void)done, (void)total;
  ++*(int *)context;
  return true;
}

/* ---- beside ---- */

static int64_t explanations_in(struct store *store) {
  int64_t count = -1;
  must(store_explanation_count(store, &(struct store_explanation_query){.model = "tiny"}, &count, &error));
  return count;
}

/* What was there when it was opened, however much is written by the one who holds the store; and the holder notices nothing. */
static void test_one_moment(void **state) {
  struct world world;
  (void)state;
  fill(&world);
  struct store *reading = beside(&world);
  assert_int_equal(explanations_in(reading), 9);
  for (uint32_t i = 0; i < 9; i++) put_explanation(&world, 8, i, "a second one"); /* 7 sources of the set came first */
  assert_int_equal(explanations_in(world.store), 18);
  assert_int_equal(explanations_in(reading), 9);
  assert_int_equal(look(reading).damaged, 0);
  store_close(reading);
  reading = beside(&world);
  assert_int_equal(explanations_in(reading), 18);
  world_close(&world); /* the holder ends first */
  assert_int_equal(explanations_in(reading), 18);
  store_close(reading);
  world_open(&world);
  assert_int_equal(explanations_in(world.store), 18);
  world_end(&world);
}

static void test_writes_nothing(void **state) {
  struct world world;
  (void)state;
  fill(&world);
  struct store *reading = beside(&world);
  struct store_explanation explanation = {.source = 8, .index = 1, .description = "no", .score = (double)NAN};
  int64_t id;
  must_fail(ERROR_ARGUMENT, store_explanation_put(reading, &explanation, &id, &error));
  must_fail(ERROR_ARGUMENT, store_model_put(reading, &(struct store_model){.id = "b"}, &error));
  assert_int_equal(explanations_in(reading), 9);
  store_close(reading);
  put_explanation(&world, 8, 1, "the holder still writes");
  world_end(&world);
}

static bool is_there(const struct world *world, const char *end) {
  char path[128];
  snprintf(path, sizeof path, "%s%s", world->path, end);
  return access(path, F_OK) == 0;
}

/* Alone with a store that nobody holds: the same file, and no others behind it. */
static void test_leaves_no_trace(void **state) {
  struct world world;
  struct stat before, after;
  (void)state;
  fill(&world);
  world_close(&world);
  assert_int_equal(stat(world.path, &before), 0);
  struct store *reading = beside(&world);
  assert_int_equal(look(reading).damaged, 0);
  store_close(reading);
  assert_int_equal(stat(world.path, &after), 0);
  assert_true(before.st_mtim.tv_sec == after.st_mtim.tv_sec && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec && before.st_size == after.st_size);
  assert_false(is_there(&world, "-wal"));
  assert_false(is_there(&world, "-shm"));
  world_end(&world);
}

/* A log that somebody left is read, and left to whoever holds the store next. */
static void test_leaves_the_log(void **state) {
  struct world world;
  (void)state;
  fill(&world);
  world_close(&world);
  meddle(world.path, "DELETE FROM lists"); /* its log is not folded in at closing */
  assert_true(is_there(&world, "-wal"));
  struct store *reading = beside(&world);
  struct store_list *lists;
  size_t n;
  must(store_list_all(reading, &world.arena, &lists, &n, &error));
  assert_int_equal(n, 0);
  store_close(reading);
  assert_true(is_there(&world, "-wal"));
  world_end(&world);
}

static void refused(const char *path, enum error_code code, const char *says) {
  struct error error = ERROR_INIT;
  assert_null(store_open_beside(path, true, &error));
  if (error.code != code || !strstr(error.text, says)) fail_msg("%s: %s: %s", path, error_word(error.code), error.text);
}

static void test_what_is_no_store(void **state) {
  struct world world;
  (void)state;
  world_init(&world);
  refused(world.path, ERROR_NOT_FOUND, "No such file");
  refused(world.folder, ERROR_FORMAT, "not a regular file");
  refused("", ERROR_ARGUMENT, "name of a file");
  assert_int_equal(mkfifo(world.path, 0600), 0); /* which opening would wait at */
  refused(world.path, ERROR_FORMAT, "not a regular file");
  unlink(world.path);
  FILE *file = fopen(world.path, "w");
  refused(world.path, ERROR_NOT_FOUND, "is empty");
  fputs("a page of text, which is no database at all, and long enough for the header of one: 100 bytes and some more", file);
  fclose(file);
  refused(world.path, ERROR_FORMAT, "not a steerd store");
  world_end(&world);
}

static void old_store(const char *path, int schema) {
  struct error error = ERROR_INIT;
  char begin[96];
  close(open(path, O_CREAT | O_RDWR, 0600));
  snprintf(begin, sizeof begin, "PRAGMA page_size=8192; PRAGMA application_id=%d; PRAGMA journal_mode=WAL", APPLICATION_ID);
  struct connection *old = connection_open(path, path, CONNECTION_WRITER, &error);
  assert_non_null(old);
  assert_int_equal(connection_exec(old, begin, &error), 0);
  assert_int_equal(migrations_run(old, schema, &error), 0);
  connection_own(old);
  connection_close(old);
}

static void test_other_schemas(void **state) {
  struct world world;
  struct error error = ERROR_INIT;
  (void)state;
  world_init(&world);
  old_store(world.path, 1);
  meddle(world.path, "INSERT INTO models(id, seal) VALUES('x', 1)");
  assert_null(store_open_beside(world.path, false, &error));
  assert_int_equal(error.code, ERROR_FORMAT);
  assert_non_null(strstr(error.text, "schema 1"));
  struct store *reading = beside(&world);
  struct store_findings found = look(reading);
  assert_int_equal(found.schema, 1);
  assert_int_equal(found.damaged, 1);
  assert_string_equal(found.named[0], "models x");
  store_close(reading);
  meddle(world.path, "PRAGMA user_version=1000");
  refused(world.path, ERROR_FORMAT, "update steerd");
  world_end(&world);
}

/* ---- copies ---- */

static void copy_name(const struct world *world, char out[128]) { snprintf(out, 128, "%s/copy.db", world->folder); }

static int files_in(const char *folder) {
  char command[128];
  int n = -1;
  snprintf(command, sizeof command, "ls '%s' | wc -l", folder);
  FILE *pipe = popen(command, "r");
  assert_int_equal(fscanf(pipe, "%d", &n), 1);
  pclose(pipe);
  return n;
}

struct writing {
  struct world *world;
  volatile bool stop;
};

#define WRITTEN_MOST 20000 /* a copy that never ends must not fill the disk: what is read beside a writer keeps the log growing */

static void *write_on(void *context) {
  struct writing *writing = context;
  for (uint32_t i = 0; !writing->stop && i < WRITTEN_MOST; i++) put_explanation(writing->world, 8, i % 9, "written while a copy is made");
  return NULL;
}

/* A store of its own, with what was there at one moment, while the holder writes. */
static void test_copy(void **state) {
  struct world world, other;
  struct stat status;
  pthread_t writer;
  (void)state;
  fill(&world);
  world_init(&other);
  struct writing writing = {.world = &world};
  pthread_create(&writer, NULL, write_on, &writing);
  struct store *reading = beside(&world);
  int64_t then = explanations_in(reading);
  must(store_copy(reading, other.path, NULL, &error));
  while (explanations_in(world.store) == then) usleep(1000);
  writing.stop = true;
  pthread_join(writer, NULL);
  assert_int_equal(stat(other.path, &status), 0);
  assert_int_equal(status.st_mode & 0777, 0600);
  struct store_findings want = look(reading);
  store_close(reading);
  world_open(&other);
  struct store_findings got = look(other.store);
  assert_int_equal(got.damaged, 0);
  assert_int_equal(got.rows, want.rows);
  assert_int_equal(explanations_in(other.store), then);
  put_explanation(&other, 8, 1, "it may be written to");
  world_end(&other);
  world_end(&world);
}

static void test_copy_refused(void **state) {
  struct world world;
  char path[128], far[128];
  int told = 0;
  (void)state;
  fill(&world);
  copy_name(&world, path);
  snprintf(far, sizeof far, "%s/no/copy.db", world.folder);
  int before = files_in(world.folder);
  must_fail(ERROR_ARGUMENT, store_copy(world.store, world.path, NULL, &error));
  must_fail(ERROR_IO, store_copy(world.store, far, NULL, &error));
  struct world large; /* more pages than are copied between two looks */
  world_init(&large);
  world_open(&large);
  meddle(large.path, "CREATE TABLE t(b); INSERT INTO t VALUES(zeroblob(9000000))");
  must_fail(ERROR_CANCELLED, store_copy(large.store, path, &(struct store_tell){stop_at_once, &told}, &error));
  assert_int_equal(told, 1);
  world_end(&large);
  assert_int_equal(files_in(world.folder), before);
  must(store_copy(world.store, path, NULL, &error));
  assert_int_equal(files_in(world.folder), before + 1);
  must_fail(ERROR_ARGUMENT, store_copy(world.store, path, NULL, &error));
  world_end(&world);
}

/* As it was before it was brought to a schema that earlier builds do not know; the newest of them alone. */
static void test_kept_before_migration(void **state) {
  struct world world;
  char path[128];
  (void)state;
  world_init(&world);
  snprintf(path, sizeof path, "%s.schema-1", world.path);
  for (int round = 0; round < 2; round++) {
    char sql[96];
    unlink(world.path);
    old_store(world.path, 1);
    snprintf(sql, sizeof sql, "INSERT INTO models(id, seal) VALUES('round %d', 1)", round);
    meddle(world.path, sql);
    world_open(&world);
    world_close(&world);
    struct error error = ERROR_INIT;
    struct store *kept = store_open_beside(path, true, &error);
    if (!kept) fail_msg("%s", error.text);
    struct store_findings found = look(kept);
    assert_int_equal(found.schema, 1);
    assert_int_equal(found.rows, 1);
    snprintf(sql, sizeof sql, "models round %d", round);
    assert_string_equal(found.named[0], sql);
    store_close(kept);
  }
  unlink(path);
  world_open(&world); /* of this schema: nothing is kept */
  assert_int_equal(access(path, F_OK), -1);
  world_end(&world);
}

/* Nowhere to keep it: the store is opened all the same. */
static void test_migration_without_a_copy(void **state) {
  struct world world;
  char path[128];
  (void)state;
  world_init(&world);
  old_store(world.path, 1);
  snprintf(path, sizeof path, "%s.schema-1", world.path);
  assert_int_equal(mkdir(path, 0700), 0);
  world_open(&world);
  assert_int_equal(look(world.store).schema, store_schema());
  assert_int_equal(files_in(world.folder), 5); /* file, log, shared memory, lock, folder: no part is left */
  world_end(&world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sound),           cmocka_unit_test(test_each_table),      cmocka_unit_test(test_columns),
      cmocka_unit_test(test_many),            cmocka_unit_test(test_one_moment),      cmocka_unit_test(test_writes_nothing),
      cmocka_unit_test(test_leaves_no_trace), cmocka_unit_test(test_leaves_the_log),  cmocka_unit_test(test_what_is_no_store),
      cmocka_unit_test(test_other_schemas),   cmocka_unit_test(test_copy),            cmocka_unit_test(test_copy_refused),
      cmocka_unit_test(test_kept_before_migration), cmocka_unit_test(test_migration_without_a_copy),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
