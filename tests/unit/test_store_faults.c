/* test_store_faults.c: what a store survives: flipped bits, foreign files, kill -9, a full disk, every write and every
 * allocation of SQLite failing once. What is read afterwards is right, or refused. */
#include "tests/unit/store_world.h"
#include "tests/unit/failing_sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>

#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/random.h"
#include "core/store/store_int.h"

#define FEATURES 40 /* in the stores below: feature i is made_fill(i, seed) with an explanation "seed N" */

/* ---- a store whose content follows from one number -------------------------------------------------- */

static int put_features(struct store *store, int64_t source, int64_t job, uint32_t first, uint32_t n, int seed,
                        struct error *error) {
  struct made *made = calloc(n, sizeof *made);
  struct store_feature *features = calloc(n, sizeof *features);
  struct store_explanation *explanations = calloc(n, sizeof *explanations);
  char text[32], state[32];
  assert_true(made && features && explanations);
  snprintf(text, sizeof text, "seed %d", seed);
  snprintf(state, sizeof state, "%d", seed);
  for (uint32_t i = 0; i < n; i++) {
    made_fill(made + i, first + i, seed);
    features[i] = made[i].feature;
    explanations[i] = (struct store_explanation){.source = source, .index = first + i, .description = text,
                                                 .score = NAN, .created_at = "2020-01-01T00:00:00Z"};
  }
  struct store_job_part part = {0, state, strlen(state)};
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  update.done = seed;
  struct store_batch batch = {.source = source, .features = features, .n_features = n, .explanations = explanations,
                              .n_explanations = n, .job = job, .update = &update, .parts = &part, .n_parts = 1};
  int result = store_batch_put(store, &batch, error);
  free(made);
  free(features);
  free(explanations);
  return result;
}

/* 1: feature `index` is what `seed` made it; 0: it is not stored; -1: refused, or hidden by a damaged index. Anything else ends the test. */
static int check_feature(struct store *store, int64_t source, uint32_t index, int seed) {
  struct error error = ERROR_INIT;
  struct store_feature got;
  struct made made;
  struct arena arena;
  char text[32];
  arena_init(&arena, 0);
  int found = store_feature_get(store, source, index, 99, &arena, &got, &error);
  if (found == 1) {
    made_fill(&made, index, seed);
    snprintf(text, sizeof text, "seed %d", seed);
    if (!same_feature(&got, &made.feature)) fail_msg("feature %u is not what was put", index);
    /* Entries of an index have no seal: one that is changed hides its row from whoever looks there, until a full check. */
    bool hidden = got.n_explanations == 0 && store_verify(store, STORE_CHECK_FULL, NULL) != 0;
    if (!hidden && (got.n_explanations != 1 || strcmp(got.explanations[0].description, text) != 0))
      fail_msg("feature %u: wrong explanation", index);
    if (hidden) found = -1;
  } else if (found < 0) {
    assert_int_equal(error.code, ERROR_STORE);
  }
  arena_clear(&arena);
  return found;
}

static int64_t make_store(struct world *world) {
  world_open(world);
  int64_t source = world_source(world, "7-res", FEATURES), job;
  must(store_job_create(world->store, "stats", "{}", &job, &error));
  must(put_features(world->store, source, job, 0, FEATURES, 1, &error));
  return source;
}

/* ---- files -------------------------------------------------------------------------------------------- */

struct bytes {
  char *data;
  size_t length;
};

static struct bytes read_bytes(const char *path) {
  struct bytes bytes = {NULL, 0};
  struct error error = ERROR_INIT;
  if (file_read(path, 1 << 30, &bytes.data, &bytes.length, &error) != 0) fail_msg("%s", error.text);
  return bytes;
}

static void write_bytes(const char *path, const void *data, size_t length) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, length, file), length);
  assert_int_equal(fclose(file), 0);
}

static void assert_bytes(const char *path, const void *data, size_t length) {
  struct bytes now = read_bytes(path);
  if (now.length != length || memcmp(now.data, data, length) != 0) fail_msg("'%s' was changed", path);
  free(now.data);
}

static void remove_side_files(const struct world *world) {
  char name[128];
  snprintf(name, sizeof name, "%s-wal", world->path);
  unlink(name);
  snprintf(name, sizeof name, "%s-shm", world->path);
  unlink(name);
}

/* Opens what was written: refused with every byte kept, or each row is right or refused. */
static bool judge_damaged(struct world *world, int64_t source, const char *data, size_t length) {
  struct error error = ERROR_INIT;
  if (!world_try(world, &error)) {
    assert_true(error.code == ERROR_STORE || error.code == ERROR_FORMAT);
    assert_null(strchr(error.text, '\n'));
    assert_bytes(world->path, data, length);
    return false;
  }
  for (uint32_t i = 0; i < FEATURES; i++)
    if (check_feature(world->store, source, i, 1) == 0) fail_msg("feature %u is gone without a word", i);
  world_close(world);
  return true;
}

static void test_header_flips(void **state) {
  struct world world;
  int opened = 0;
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  world_close(&world);
  struct bytes good = read_bytes(world.path), bad = read_bytes(world.path);
  for (size_t at = 0; at < 100; at++)
    for (int bit = (int)(at % 2); bit < 8; bit += 2) {
      bad.data[at] ^= (char)(1 << bit);
      write_bytes(world.path, bad.data, bad.length);
      opened += judge_damaged(&world, source, bad.data, bad.length);
      bad.data[at] = good.data[at];
      remove_side_files(&world);
    }
  assert_in_range(opened, 1, 399); /* some fields mean nothing, and others everything */
  write_bytes(world.path, good.data, good.length);
  assert_true(judge_damaged(&world, source, good.data, good.length));
  free(good.data);
  free(bad.data);
  world_end(&world);
}

/* One flip in every kind of page, pages of zeroes, and files cut short. */
static void test_page_damage(void **state) {
  struct world world;
  int opened = 0, refused = 0;
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  world_close(&world);
  struct bytes good = read_bytes(world.path), bad = read_bytes(world.path);
  for (uint64_t round = 0; round < 300; round++) {
    uint32_t words[4];
    size_t length = good.length;
    random_words(11, 0, round, words);
    size_t at = 100 + words[0] % (good.length - 100), page = at / 8192 * 8192;
    if (round % 10 == 8) memset(bad.data + page, 0, 8192);
    else if (round % 10 == 9) length = at;
    else bad.data[at] ^= (char)(1 << words[1] % 8);
    write_bytes(world.path, bad.data, length);
    if (judge_damaged(&world, source, bad.data, length)) opened++;
    else refused++;
    memcpy(bad.data, good.data, good.length);
    remove_side_files(&world);
  }
  assert_true(opened > 10 && refused > 10); /* both answers were seen */
  free(good.data);
  free(bad.data);
  world_end(&world);
}

/* A blob that changes where no page structure notices is caught by the seal of its row. */
static void test_flipped_blob(void **state) {
  struct world world;
  int refused = 0;
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  world_close(&world);
  struct bytes bytes = read_bytes(world.path);
  char *token = memmem(bytes.data, bytes.length, " w3.1.0", 7);
  assert_non_null(token);
  token[1] = 'v';
  write_bytes(world.path, bytes.data, bytes.length);
  world_open(&world);
  for (uint32_t i = 0; i < FEATURES; i++) refused += check_feature(world.store, source, i, 1) == -1;
  assert_int_equal(refused, 1);
  free(bytes.data);
  world_end(&world);
}

/* A log whose file cannot be trusted is not folded in, and one that is damaged ends where it is. */
static void test_damage_with_log(void **state) {
  struct world world;
  char wal[128];
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  snprintf(wal, sizeof wal, "%s-wal", world.path);
  must(put_features(world.store, source, 1, 0, FEATURES, 2, &error));
  struct bytes file = read_bytes(world.path), log = read_bytes(wal); /* as kill -9 would leave them */
  world_close(&world);
  assert_true(log.length > 100000);

  write_bytes(world.path, file.data, file.length);
  write_bytes(wal, log.data, log.length);
  world_open(&world);
  for (uint32_t i = 0; i < FEATURES; i++) assert_int_equal(check_feature(world.store, source, i, 2), 1);
  world_close(&world);

  log.data[log.length / 2] ^= 1; /* the last commit is not whole any more: the ones before count */
  write_bytes(world.path, file.data, file.length);
  write_bytes(wal, log.data, log.length);
  if (world_try(&world, NULL)) {
    struct store_source found;
    must(store_source_at(world.store, source, &world.arena, &found, &error));
    world_close(&world);
  }
  file.data[21] ^= 1; /* the header: refused, both files kept */
  write_bytes(world.path, file.data, file.length);
  write_bytes(wal, log.data, log.length);
  assert_null(world_try(&world, NULL));
  assert_bytes(world.path, file.data, file.length);
  assert_bytes(wal, log.data, log.length);
  free(file.data);
  free(log.data);
  world_end(&world);
}

/* A newer schema that stands only in the log: refused, and the log is not folded in. */
static void test_newer_log(void **state) {
  struct world world;
  struct error error = ERROR_INIT;
  char wal[128];
  sqlite3 *db;
  (void)state;
  world_init(&world);
  make_store(&world);
  world_close(&world);
  assert_int_equal(sqlite3_open(world.path, &db), SQLITE_OK);
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  snprintf(wal, sizeof wal, "%s-wal", world.path);
  struct bytes file = read_bytes(world.path), log = read_bytes(wal);
  assert_true(log.length > 8192);
  assert_null(world_try(&world, &error));
  assert_int_equal(error.code, ERROR_FORMAT);
  assert_bytes(world.path, file.data, file.length);
  assert_bytes(wal, log.data, log.length);
  free(file.data);
  free(log.data);
  world_end(&world);
}

static void test_foreign_files(void **state) {
  struct world world;
  static const char text[] = "Paris is the capital of France.\nBerlin is not, although the line is long enough for a "
                             "header of a hundred bytes.\n";
  (void)state;
  world_init(&world);
  struct store_options options = {.path = world.path, .set_aside = true}; /* which must not touch what is not ours */
  size_t lengths[] = {1, 16, 99, sizeof text - 1};
  for (size_t i = 0; i < 4; i++) {
    struct error error = ERROR_INIT;
    write_bytes(world.path, text, lengths[i]);
    assert_null(store_open(&options, &error));
    assert_int_equal(error.code, ERROR_FORMAT);
    assert_non_null(strstr(error.text, world.path));
    assert_bytes(world.path, text, lengths[i]);
  }
  unlink(world.path);
  sqlite3 *db;
  assert_int_equal(sqlite3_open(world.path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  struct bytes other = read_bytes(world.path);
  struct error error = ERROR_INIT;
  assert_null(store_open(&options, &error));
  assert_int_equal(error.code, ERROR_FORMAT);
  assert_bytes(world.path, other.data, other.length);
  free(other.data);
  world_end(&world);
}

static void drop_line(void *context, enum log_level level, const char *text) {
  (void)level;
  snprintf(context, 512, "%s", text);
}

static void test_set_aside(void **state) {
  struct world world;
  char line[512] = "", command[256];
  (void)state;
  world_init(&world);
  make_store(&world);
  world_close(&world);
  struct bytes bytes = read_bytes(world.path);
  bytes.data[0] ^= 1; /* the first byte of the header; it is still known as ours */
  write_bytes(world.path, bytes.data, bytes.length);
  struct error error = ERROR_INIT;
  assert_null(world_try(&world, &error));
  assert_int_equal(error.code, ERROR_STORE);
  log_set_sink(drop_line, line);
  struct store_options options = {.path = world.path, .set_aside = true};
  world.store = store_open(&options, &error);
  log_set_sink(NULL, NULL);
  assert_non_null(world.store);
  assert_non_null(strstr(line, "set aside"));
  world_source(&world, "new", 1);
  char *aside = strstr(line, "aside=");
  assert_non_null(aside);
  assert_bytes(aside + 6, bytes.data, bytes.length);
  snprintf(command, sizeof command, "test $(ls '%s' | grep -c corrupt-) = 1", world.folder);
  assert_int_equal(system(command), 0);
  free(bytes.data);
  world_end(&world);
}

/* ---- kill -9 ------------------------------------------------------------------------------------------ */

#define STEP 4 /* features in a step of the job */
#define STEPS_MAX 100000

/* The job: writes step after step from where the store says it was, and tells each number once it is kept. */
static void job_child(const char *path, int64_t source, int64_t job, int tell) {
  struct store_options options = {.path = path};
  struct store *store = store_open(&options, NULL);
  struct store_job found;
  struct arena arena;
  arena_init(&arena, 0);
  if (!store || store_job_find(store, job, &arena, &found, NULL) != 1) _exit(2);
  for (int step = (int)found.done + 1; step < STEPS_MAX; step++) {
    if (put_features(store, source, job, (uint32_t)step * STEP, STEP, step, NULL) != 0) _exit(3);
    if (write(tell, &step, sizeof step) != sizeof step) _exit(4);
  }
  _exit(5);
}

/* The last step the child told, after it was killed at a random moment. */
static int kill_once(struct world *world, int64_t source, int64_t job, int round, int last) {
  int tell[2], step, status;
  uint32_t words[4];
  random_words(5, 0, (uint64_t)round, words);
  assert_int_equal(pipe(tell), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) job_child(world->path, source, job, tell[1]);
  close(tell[1]);
  if (round % 4) { /* most rounds: some way into the writing; the others: also while it opens */
    assert_int_equal(read(tell[0], &step, sizeof step), sizeof step);
    last = step;
  }
  usleep(words[0] % 40000);
  kill(child, SIGKILL);
  assert_int_equal(waitpid(child, &status, 0), child);
  if (!WIFSIGNALED(status)) fail_msg("the job ended by itself: %d", WEXITSTATUS(status));
  while (read(tell[0], &step, sizeof step) == sizeof step) last = step;
  close(tell[0]);
  return last;
}

static void check_steps(struct world *world, int64_t source, int first, int last) {
  for (int step = first; step <= last; step++)
    for (uint32_t i = 0; i < STEP; i++)
      assert_int_equal(check_feature(world->store, source, (uint32_t)step * STEP + i, step), 1);
  assert_int_equal(check_feature(world->store, source, (uint32_t)(last + 1) * STEP, last + 1), 0);
}

/* Killed between the first page and the end of the first transaction: the page is there, and a journal that says the file
 * was empty before. */
static void test_killed_while_made(void **state) {
  (void)state;
  static const unsigned char header[512] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, /* a journal's first bytes */
                                            [22] = 2, /* sectors of 512 bytes; no page in it, none in the file before */
                                            [26] = 0x20 /* pages of 8192 */};
  struct world world;
  char journal[256];
  sqlite3 *db;
  world_init(&world);
  assert_int_equal(sqlite3_open(world.path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, "PRAGMA page_size=8192; PRAGMA application_id=0x73746472", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  snprintf(journal, sizeof journal, "%s-journal", world.path);
  FILE *file = fopen(journal, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(header, 1, sizeof header, file), sizeof header);
  assert_int_equal(fclose(file), 0);
  for (int i = 0; i < 2; i++) { /* made anew, and one of ours from then on */
    world_open(&world);
    assert_int_not_equal(access(journal, F_OK), 0);
    world_close(&world);
  }
  world_end(&world);
}

static void test_kill(void **state) {
  struct world world;
  struct store_job found;
  const void *data;
  size_t bytes;
  char want[16];
  int64_t job;
  int kept = 0;
  (void)state;
  world_init(&world);
  world_open(&world);
  int64_t source = world_source(&world, "7-res", 1000000);
  must(store_job_create(world.store, "stats", "{}", &job, &error));
  world_close(&world);
  for (int round = 0; round < 25; round++) {
    int told = kill_once(&world, source, job, round, kept), before = kept;
    world_open(&world); /* runs the quick check */
    must(store_job_find(world.store, job, &world.arena, &found, &error));
    kept = (int)found.done;
    if (kept != told && kept != told + 1) fail_msg("told %d steps, kept %d", told, kept);
    if (kept) {
      assert_int_equal(store_job_part(world.store, job, 0, &world.arena, &data, &bytes, NULL), 1);
      snprintf(want, sizeof want, "%d", kept);
      assert_true(bytes == strlen(want) && memcmp(data, want, bytes) == 0);
    }
    check_steps(&world, source, before + 1, kept);
    world_close(&world);
  }
  assert_true(kept > 25);
  struct store_options options = {.path = world.path, .check = STORE_CHECK_FULL};
  world.store = store_open(&options, NULL);
  assert_non_null(world.store);
  check_steps(&world, source, 1, kept); /* all of it is what an unbroken run would have written */
  int64_t count;
  must(store_explanation_count(world.store, &(struct store_explanation_query){.limit = -1}, &count, &error));
  assert_int_equal(count, kept * STEP);
  world_end(&world);
}

/* ---- files that go while they are open ------------------------------------------------------------------ */

static void count_line(void *context, enum log_level level, const char *text) {
  (void)text;
  if (level <= LOG_LEVEL_WARN) ++*(int *)context;
}

/* Writes are refused with the remedy and told once in the log, reads go on; a file that is back is written again. */
static void taken_away(const char *end, bool replaced) {
  struct world world;
  char file[128], away[136];
  int lines = 0;
  world_init(&world);
  int64_t source = make_store(&world);
  snprintf(file, sizeof file, "%s%s", world.path, end);
  snprintf(away, sizeof away, "%s.away", file);
  assert_int_equal(rename(file, away), 0);
  if (replaced) write_bytes(file, "x", 1);
  log_set_sink(count_line, &lines);
  for (int i = 0; i < 2; i++) {
    struct error error = ERROR_INIT;
    assert_int_equal(put_features(world.store, source, 1, 0, FEATURES, 2, &error), -1);
    assert_int_equal(error.code, ERROR_STORAGE);
    assert_non_null(strstr(error.text, world.path));
    assert_non_null(strstr(error.text, *end ? "its log" : "put the file back"));
    assert_true(store_degraded(world.store));
  }
  assert_int_equal(lines, 1);
  log_set_sink(NULL, NULL);
  for (uint32_t i = 0; i < FEATURES; i++) assert_int_equal(check_feature(world.store, source, i, 1), 1);
  assert_int_equal(rename(away, file), 0);
  must(put_features(world.store, source, 1, 0, FEATURES, 3, &error));
  assert_false(store_degraded(world.store));
  world_close(&world);
  world_open(&world);
  for (uint32_t i = 0; i < FEATURES; i++) assert_int_equal(check_feature(world.store, source, i, 3), 1);
  world_end(&world);
}

static void test_taken_away(void **state) {
  (void)state;
  taken_away("", false);
  taken_away("", true);
  taken_away("-wal", false);
}

/* Readers that nobody has used yet stay with the log that is there at opening: what takes its name is not theirs. */
static void test_log_lost(void **state) {
  struct world world;
  char file[128];
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  snprintf(file, sizeof file, "%s-wal", world.path);
  assert_int_equal(unlink(file), 0);
  struct connection *held[4];
  for (int i = 0; i < 3; i++) assert_non_null(held[i] = store_reader(world.store, NULL));
  for (uint32_t i = 0; i < FEATURES; i++) assert_int_equal(check_feature(world.store, source, i, 1), 1);
  for (int i = 0; i < 3; i++) store_reader_end(world.store, held[i], 0);
  world_close(&world); /* folds in what the log had */
  world_open(&world);
  for (uint32_t i = 0; i < FEATURES; i++) assert_int_equal(check_feature(world.store, source, i, 1), 1);
  world_end(&world);
}

/* ---- what SQLite's codes mean to a reader --------------------------------------------------------------- */

static void test_texts_of_codes(void **state) {
  static const struct {
    int code;
    enum error_code expected;
    const char *remedy;
  } cases[] = {{SQLITE_READONLY_DBMOVED, ERROR_STORAGE, "allow writing to the file and its folder"},
               {SQLITE_READONLY_DIRECTORY, ERROR_STORAGE, "allow writing to the file and its folder"},
               {SQLITE_CANTOPEN, ERROR_STORAGE, "more open files"},
               {SQLITE_FULL, ERROR_STORAGE, "free some space"},
               {SQLITE_IOERR_WRITE, ERROR_STORAGE, "its disk failed"},
               {SQLITE_IOERR_NOMEM, ERROR_MEMORY, "out of memory"},
               {SQLITE_BUSY_SNAPSHOT, ERROR_BUSY, "close it and try again"},
               {SQLITE_LOCKED, ERROR_BUSY, "close it and try again"},
               {SQLITE_CORRUPT_VTAB, ERROR_STORE, "restore it from a copy"},
               {SQLITE_NOTADB, ERROR_STORE, "restore it from a copy"}};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct connection connection = {.name = "lab.db"};
    struct error error = ERROR_INIT;
    assert_int_equal(connection_fail(&connection, cases[i].code, &error), -1);
    assert_int_equal(error.code, cases[i].expected);
    assert_int_equal(connection.io_failed, cases[i].expected == ERROR_STORAGE);
    if (!strstr(error.text, cases[i].remedy) || !strstr(error.text, "'lab.db'")) fail_msg("%s", error.text);
  }
}

/* Another program that writes: the store waits a moment, says so, and goes on when it is gone. */
static void test_locked(void **state) {
  struct world world;
  struct error locked = ERROR_INIT;
  sqlite3 *other;
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  assert_int_equal(sqlite3_open(world.path, &other), SQLITE_OK);
  assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  assert_int_equal(put_features(world.store, source, 1, 0, FEATURES, 2, &locked), -1);
  assert_int_equal(locked.code, ERROR_BUSY);
  assert_non_null(strstr(locked.text, "locked by another program"));
  assert_false(store_degraded(world.store));
  assert_int_equal(check_feature(world.store, source, 0, 1), 1);
  sqlite3_close(other);
  must(put_features(world.store, source, 1, 0, FEATURES, 2, &error));
  world_end(&world);
}

/* A file system that may only be read, or folders of others: the opening says which file and why, and changes nothing. */
static void test_read_only(void **state) {
  struct world world;
  struct error error = ERROR_INIT;
  (void)state;
  world_init(&world);
  if (mount("tmpfs", world.folder, "tmpfs", 0, "size=4m") != 0) {
    world_end(&world);
    printf("skip: a read-only file system (mounting a tmpfs needs root)\n");
    skip();
  }
  make_store(&world);
  world_close(&world);
  assert_int_equal(mount("tmpfs", world.folder, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=4m"), 0);
  assert_null(world_try(&world, &error));
  assert_int_equal(error.code, ERROR_IO);
  assert_non_null(strstr(error.text, world.path));
  assert_non_null(strstr(error.text, strerror(EROFS)));
  assert_int_equal(mount("tmpfs", world.folder, "tmpfs", MS_REMOUNT, "size=4m"), 0);
  world_open(&world);
  world_close(&world);
  assert_int_equal(umount(world.folder), 0);
  world_end(&world);
}

/* ---- a full disk -------------------------------------------------------------------------------------- */

static void fill_disk(const char *path) {
  char block[4096] = {1};
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  assert_true(file >= 0);
  while (write(file, block, sizeof block) == sizeof block) {
  }
  close(file);
}

static void test_full_disk(void **state) {
  struct world world;
  char filler[128];
  (void)state;
  world_init(&world);
  if (mount("tmpfs", world.folder, "tmpfs", 0, "size=4m") != 0) {
    world_end(&world);
    printf("skip: a full disk (mounting a tmpfs needs root)\n");
    skip();
  }
  snprintf(filler, sizeof filler, "%s/filler", world.folder);
  int64_t source = make_store(&world);
  int seed = 1;
  for (int cycle = 0; cycle < 5; cycle++) {
    struct error full = ERROR_INIT;
    int writes = 0;
    fill_disk(filler);
    while (put_features(world.store, source, 1, 0, FEATURES, seed + 1, &full) == 0) { /* the log has room it may use */
      seed++;
      if (writes++ > 200) fail_msg("the disk is full and the store writes on");
    }
    assert_int_equal(full.code, ERROR_STORAGE);
    assert_true(store_degraded(world.store));
    for (uint32_t i = 0; i < FEATURES; i++) assert_int_equal(check_feature(world.store, source, i, seed), 1);
    unlink(filler);
    seed++;
    must(put_features(world.store, source, 1, 0, FEATURES, seed, &error));
    assert_false(store_degraded(world.store));
    for (uint32_t i = 0; i < FEATURES; i++) assert_int_equal(check_feature(world.store, source, i, seed), 1);
    must(store_verify(world.store, STORE_CHECK_FULL, &error));
  }
  world_close(&world);
  assert_int_equal(umount(world.folder), 0);
  world_end(&world);
}

/* ---- every call to the disk fails once ---------------------------------------------------------------- */

/* Two writes in a store that holds seed 1; *kept is the last that was acknowledged. The store may not open. */
static void scenario(struct world *world, int64_t source, int *kept) {
  struct error error = ERROR_INIT;
  *kept = 1;
  if (!world_try(world, &error)) {
    assert_true(error.code == ERROR_STORAGE || error.code == ERROR_MEMORY || error.code == ERROR_STORE);
    return;
  }
  for (int seed = 2; seed <= 3; seed++)
    if (put_features(world->store, source, 1, 0, 4, seed, NULL) == 0) *kept = seed;
}

/* After a fault: one state of the features, the acknowledged one; writing works again without opening anew; and the
 * file is sound. */
static void recover(struct world *world, int64_t source, int kept, bool written) {
  if (!world->store) world_open(world);
  for (uint32_t i = 0; i < 4; i++) assert_int_equal(check_feature(world->store, source, i, kept), 1);
  if (written) {
    must(put_features(world->store, source, 1, 0, 4, 9, &error));
    assert_false(store_degraded(world->store));
    kept = 9;
  }
  world_close(world);
  struct store_options options = {.path = world->path, .check = STORE_CHECK_FULL};
  struct error error = ERROR_INIT;
  if (!(world->store = store_open(&options, &error))) fail_msg("%s", error.text);
  for (uint32_t i = 0; i < 4; i++) assert_int_equal(check_feature(world->store, source, i, kept), 1);
  world_close(world);
}

static void test_every_write_fails(void **state) {
  static const int codes[] = {SQLITE_FULL, SQLITE_IOERR_WRITE};
  struct world world;
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  world_close(&world);
  struct bytes good = read_bytes(world.path);
  for (int way = 0; way < 4; way++)
    for (int n = 0;; n++) {
      int kept;
      write_bytes(world.path, good.data, good.length);
      remove_side_files(&world);
      shim.countdown = n;
      shim.forever = way / 2;
      shim.hit = false;
      shim.code = codes[way % 2];
      scenario(&world, source, &kept);
      bool hit = shim.hit, opened = world.store != NULL, degraded = opened && store_degraded(world.store);
      if (hit && opened && kept < 3 && shim.forever) assert_true(degraded);
      for (uint32_t i = 0; opened && i < 4; i++) /* reads go on while the disk still fails */
        assert_int_equal(check_feature(world.store, source, i, kept), 1);
      shim.code = 0;
      recover(&world, source, kept, true);
      if (!hit) {
        assert_true(n > 20); /* the scenario did reach the disk */
        break;
      }
    }
  free(good.data);
  world_end(&world);
}

/* ---- every allocation of SQLite fails once ------------------------------------------------------------ */

static void test_allocations_fail(void **state) {
  struct world world;
  (void)state;
  world_init(&world);
  int64_t source = make_store(&world);
  world_close(&world);
  struct bytes good = read_bytes(world.path);
  for (long n = 0;; n += 1 + n / 40) { /* dense where everything is opened, then thinner: about 300 places */
    int kept;
    write_bytes(world.path, good.data, good.length);
    remove_side_files(&world);
    memory.countdown = n;
    scenario(&world, source, &kept);
    bool over = memory.countdown >= 0;
    memory.countdown = -1;
    recover(&world, source, kept, true);
    if (over) {
      assert_true(n > 500);
      break;
    }
  }
  free(good.data);
  world_end(&world);
}

int main(void) {
  memory_install();
  sqlite3_initialize();
  shim_install();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_header_flips),
      cmocka_unit_test(test_page_damage),
      cmocka_unit_test(test_flipped_blob),
      cmocka_unit_test(test_damage_with_log),
      cmocka_unit_test(test_newer_log),
      cmocka_unit_test(test_foreign_files),
      cmocka_unit_test(test_set_aside),
      cmocka_unit_test(test_killed_while_made), cmocka_unit_test(test_kill),
      cmocka_unit_test(test_taken_away), cmocka_unit_test(test_log_lost),
      cmocka_unit_test(test_texts_of_codes), cmocka_unit_test(test_locked), cmocka_unit_test(test_read_only),
      cmocka_unit_test(test_full_disk),
      cmocka_unit_test(test_every_write_fails),
      cmocka_unit_test(test_allocations_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
