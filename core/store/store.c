/* store.c: opening, checking, taking turns, closing. Knows the file and its connections, and no table.
 *
 * One connection writes and checkpoints. That is a rule of safety, not of speed: SQLite before 3.51.3 could corrupt a
 * log that two connections reset at the same time. A process is kept out by lock.c, a thread by `turn`. */
#include "core/store/store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/store/copy.h"
#include "core/store/lock.h"
#include "core/store/migrations.h"

#define READERS_DEFAULT 4
#define READERS_MAX 32
#define FOREIGN_LOOK_NS 1000000000 /* between two looks for commits of a foreign program */

/* Which file it is, whatever name it has now. */
struct identity {
  dev_t device;
  ino_t inode;
};

struct store {
  char *name; /* as its user gave it */
  char *file; /* as SQLite gets it: a name such as ":memory:" means nothing special here */
  int lock;
  pthread_mutex_t turn; /* held from store_writer to store_writer_end */
  struct connection *writer;
  struct identity itself, log; /* as they were at opening */
  bool beside;                 /* another process may write: one reader, in one transaction from opening to closing */
  atomic_bool gone;            /* the last look did not find them in their places */
  atomic_bool degraded;
  _Atomic uint64_t generation;
  _Atomic int64_t next_look_ns; /* for foreign commits */
  pthread_mutex_t readers_mutex;
  pthread_cond_t readers_free;
  struct connection *readers; /* the idle ones */
};

int store_schema(void) { return migrations_count(); }

/* ---- looking at the file before SQLite does --------------------------------------------------------- */

enum verdict { VERDICT_FINE, VERDICT_EMPTY, VERDICT_FOREIGN, VERDICT_DAMAGED, VERDICT_FAILED };

static uint32_t big_endian(const unsigned char *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The fields of the 100-byte header that SQLite takes on trust. The encoding is 0 until the first table is folded in. */
static bool header_sound(const unsigned char header[100]) {
  uint32_t page = (uint32_t)header[16] << 8 | header[17];
  return memcmp(header, "SQLite format 3", 16) == 0 && page == 8192 && header[18] == header[19] &&
         (header[18] == 1 || header[18] == 2) && header[20] == 0 && header[21] == 64 && header[22] == 32 &&
         header[23] == 32 && big_endian(header + 56) <= 1;
}

static enum verdict header_look(const char *name, const char *file, struct error *error) {
  unsigned char header[100];
  int descriptor = open(file, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    error_set(error, ERROR_IO, "cannot open store '%s': %s", name, strerror(errno));
    return VERDICT_FAILED;
  }
  ssize_t length = read(descriptor, header, sizeof header);
  close(descriptor);
  if (length == 0) return VERDICT_EMPTY;
  bool whole = length == sizeof header;
  bool magic = whole && memcmp(header, "SQLite format 3", 16) == 0;
  bool ours = whole && big_endian(header + 68) == APPLICATION_ID;
  if (ours && header_sound(header)) return VERDICT_FINE;
  if (ours) {
    error_set(error, ERROR_STORE, "store '%s' has a damaged header: restore it from a copy or begin a new one", name);
    return VERDICT_DAMAGED;
  }
  error_set(error, ERROR_FORMAT, "'%s' is %s: name another file for the store", name,
            magic ? "an SQLite database, but not one of steerd's" : "not a steerd store");
  return VERDICT_FOREIGN;
}

/* Makes the file when there is none. SQLite gives its log and shared memory the same mode. */
static int file_make(const struct store *store, struct error *error) {
  int descriptor = open(store->file, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
  struct stat status;
  if (descriptor < 0) return error_set(error, ERROR_IO, "cannot open store '%s': %s", store->name, strerror(errno));
  int result = fstat(descriptor, &status);
  close(descriptor);
  if (result != 0 || !S_ISREG(status.st_mode))
    return error_set(error, ERROR_FORMAT, "store '%s' is not a regular file", store->name);
  return 0;
}

/* Locks of SQLite and ours are only as good as the file system's. */
static int file_local(const struct store *store, struct error *error) {
  struct statfs status;
  if (statfs(store->file, &status) != 0) return 0;
  switch ((uint32_t)status.f_type) {
  case 0x6969:     /* NFS */
  case 0x517b:     /* SMB */
  case 0xff534d42: /* CIFS */
  case 0xfe534d42: /* SMB 2 */
    return error_set(error, ERROR_UNSUPPORTED, "store '%s' is on a network file system, where locks cannot be trusted: "
                     "put it on a local disk", store->name);
  default: return 0;
  }
}

/* ---- checking --------------------------------------------------------------------------------------- */

int store_verify(struct store *store, enum store_check check, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  int result = connection_check(reader, check, error);
  if (result == 0) result = migrations_verify(reader, error);
  return store_reader_end(store, reader, result);
}

/* A process that was killed while it made the file leaves a journal, and SQLite undoes the making when it looks: what had our
 * header a moment ago is empty then. */
static int find_empty(struct connection *connection, bool *empty, struct error *error) {
  struct row row;
  row_open(&row, connection, "PRAGMA page_count", NULL, error);
  if (row_next(&row) == 1) *empty = row_int(&row) == 0;
  row_close(&row);
  return row_check(&row);
}

/* Earlier steerds cannot read what they are brought to here. Without room for a copy there is none: the steps themselves are safe. */
static int keep_older(struct store *store, struct error *error) {
  char path[PATH_MAX];
  int schema = 0;
  struct error inner = ERROR_INIT;
  if (migrations_schema(store->writer, &schema, error) != 0) return -1;
  if (schema == 0 || schema == migrations_count()) return 0;
  snprintf(path, sizeof path, "%s.schema-%d", store->file, schema);
  if (copy_pages(store->writer, path, COPY_REPLACES, NULL, &inner) == 0)
    log_warn("the store is brought from schema %d to %d, which earlier steerds cannot read; as it was it stays in path=%s", schema,
             migrations_count(), path);
  else
    log_warn("the store is brought from schema %d to %d, which earlier steerds cannot read; no copy of it as it was could be kept: %s", schema,
             migrations_count(), inner.text);
  return 0;
}

/* Opens the writer on a file whose header is sound or that is empty. Nothing is written before every check has
 * passed, and the log is not folded in when one fails. */
static int writer_open(struct store *store, bool empty, enum store_check check, struct error *error) {
  char begin[128];
  snprintf(begin, sizeof begin, "PRAGMA page_size=8192; PRAGMA application_id=%d", APPLICATION_ID);
  store->writer = connection_open(store->file, store->name, CONNECTION_WRITER, error);
  if (!store->writer || (!empty && find_empty(store->writer, &empty, error) != 0)) return -1;
  if (empty && connection_exec(store->writer, begin, error) != 0) return -1;
  if (migrations_run(store->writer, 0, error) != 0) return -1; /* only looks at the schema number */
  if (!empty && connection_check(store->writer, check, error) != 0) return -1;
  if (keep_older(store, error) != 0) return -1;
  if (connection_exec(store->writer, "PRAGMA journal_mode=WAL; PRAGMA journal_size_limit=67108864", error) != 0 ||
      migrations_run(store->writer, migrations_count(), error) != 0 || migrations_verify(store->writer, error) != 0)
    return -1;
  connection_own(store->writer);
  return 0;
}

/* Each reads once, which opens the log: later its name may stand for another file. */
static int readers_open(struct store *store, int count, struct error *error) {
  for (int i = 0; i < count; i++) {
    struct connection *reader = connection_open(store->file, store->name, CONNECTION_READER, error);
    if (!reader) return -1;
    reader->next = store->readers;
    store->readers = reader;
    if (connection_exec(reader, "PRAGMA user_version", error) != 0) return -1;
  }
  return 0;
}

/* ---- are the files still there? --------------------------------------------------------------------- */

static struct identity identity_of(const char *file, const char *end) {
  char path[PATH_MAX];
  struct stat status;
  snprintf(path, sizeof path, "%s%s", file, end);
  return stat(path, &status) == 0 ? (struct identity){status.st_dev, status.st_ino} : (struct identity){0, 0};
}

static bool is_there(const struct store *store, const char *end, struct identity opened) {
  struct identity now = identity_of(store->file, end);
  return opened.inode == 0 || (now.device == opened.device && now.inode == opened.inode);
}

/* The kernel writes to a file that was deleted as if nothing had happened, and forgets it with the last who has it open. What would be
 * lost so is refused. Said once in the log each time that it comes or goes. */
static int files_look(struct store *store, struct error *error) {
  bool itself = is_there(store, "", store->itself), whole = itself && is_there(store, "-wal", store->log);
  if (atomic_exchange(&store->gone, !whole) != !whole) {
    if (whole) log_info("the store is in its place again path=%s", store->name);
    else log_error("%s of the store was deleted, moved or replaced: nothing more is kept path=%s", itself ? "the log (-wal)" : "the file", store->name);
  }
  if (whole) return 0;
  if (itself)
    return error_set(error, ERROR_STORAGE, "store '%s': its log ('-wal' behind its name) was deleted or moved while in use, and what is written now "
                     "could be lost: end steerd, which folds in what the log had, and start it again", store->name);
  return error_set(error, ERROR_STORAGE, "store '%s' was deleted, moved or replaced while in use, and what is written now would be lost: put the file "
                   "back, or start steerd again with what is there then", store->name);
}

bool store_degraded(struct store *store) {
  return files_look(store, NULL) != 0 || atomic_load(&store->degraded);
}

static enum verdict database_open(struct store *store, const struct store_options *options, struct error *error) {
  if (file_make(store, error) != 0) return VERDICT_FAILED;
  if (!options->allow_network && file_local(store, error) != 0) return VERDICT_FAILED;
  enum verdict verdict = header_look(store->name, store->file, error);
  if (verdict != VERDICT_FINE && verdict != VERDICT_EMPTY) return verdict;
  struct error inner = ERROR_INIT;
  int readers = options->readers > 0 && options->readers <= READERS_MAX ? options->readers : READERS_DEFAULT;
  if (writer_open(store, verdict == VERDICT_EMPTY, options->check, &inner) == 0 &&
      readers_open(store, readers, &inner) == 0) {
    store->itself = identity_of(store->file, "");
    store->log = identity_of(store->file, "-wal");
    return VERDICT_FINE;
  }
  connection_close(store->writer);
  store->writer = NULL;
  error_set(error, inner.code, "%s", inner.text);
  return inner.code == ERROR_STORE ? VERDICT_DAMAGED : VERDICT_FAILED;
}

/* PATH, PATH-wal -> PATH.corrupt-TIME, PATH.corrupt-TIME-wal; the shared memory file means nothing without them. */
static int database_set_aside(const struct store *store, struct error *error) {
  static const char *const ends[] = {"-wal", ""};
  char now[25], from[PATH_MAX], to[PATH_MAX];
  clock_iso(now);
  for (size_t i = 0; i < 2; i++) {
    snprintf(from, sizeof from, "%s%s", store->file, ends[i]);
    snprintf(to, sizeof to, "%s.corrupt-%s%s", store->file, now, ends[i]);
    if (rename(from, to) != 0 && errno != ENOENT)
      return error_set(error, ERROR_IO, "cannot rename store '%s': %s", store->name, strerror(errno));
  }
  snprintf(from, sizeof from, "%s-shm", store->file);
  unlink(from);
  log_warn("a damaged store was set aside and a new one begun path=%s aside=%s", store->name, to);
  return 0;
}

/* ---- opening and closing ---------------------------------------------------------------------------- */

static struct store *store_new(const char *path, struct error *error) {
  if (!path || !*path) return error_set(error, ERROR_ARGUMENT, "the store needs the name of a file"), NULL;
  if (strlen(path) > PATH_MAX - 64)
    return error_set(error, ERROR_ARGUMENT, "the path of the store is longer than %d bytes", PATH_MAX - 64), NULL;
  struct store *store = calloc(1, sizeof *store);
  if (!store) return error_memory(error, sizeof *store), NULL;
  pthread_mutex_init(&store->turn, NULL);
  pthread_mutex_init(&store->readers_mutex, NULL);
  pthread_cond_init(&store->readers_free, NULL);
  store->lock = -1;
  atomic_store(&store->generation, 1);
  store->name = strdup(path);
  store->file = malloc(strlen(path) + 3);
  if (!store->name || !store->file) {
    store_close(store);
    return error_memory(error, strlen(path) + 3), NULL;
  }
  sprintf(store->file, "%s%s", *path == '/' ? "" : "./", path);
  return store;
}

struct store *store_open(const struct store_options *options, struct error *error) {
  struct error inner = ERROR_INIT;
  struct store *store = store_new(options->path, error);
  if (!store) return NULL;
  store->lock = lock_take(store->file, store->name, options->holder ? options->holder : "steerd", options->wait_ms,
                          error);
  if (store->lock < 0) goto fail;
  enum verdict verdict = database_open(store, options, &inner);
  if (verdict == VERDICT_DAMAGED && options->set_aside) {
    if (database_set_aside(store, error) != 0) goto fail;
    error_clear(&inner);
    verdict = database_open(store, options, &inner);
  }
  if (verdict == VERDICT_FINE) return store;
  error_set(error, inner.code, "%s", inner.text);
fail:
  store_close(store);
  return NULL;
}

/* The file as it stands, before SQLite sees it. */
static int beside_look(const struct store *store, struct error *error) {
  struct stat status;
  if (stat(store->file, &status) != 0)
    return error_set(error, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_IO, "cannot open store '%s': %s", store->name, strerror(errno));
  if (!S_ISREG(status.st_mode)) return error_set(error, ERROR_FORMAT, "store '%s' is not a regular file", store->name);
  if (file_local(store, error) != 0) return -1;
  enum verdict verdict = header_look(store->name, store->file, error);
  if (verdict == VERDICT_EMPTY) return error_set(error, ERROR_NOT_FOUND, "store '%s' is empty", store->name);
  return verdict == VERDICT_FINE ? 0 : -1;
}

/* The schema is the first thing that is read in the transaction, which begins with that. */
static int beside_open(struct store *store, bool older, struct error *error) {
  int schema = 0;
  struct connection *reader = connection_open(store->file, store->name, CONNECTION_READER, error);
  store->readers = reader;
  if (!reader || connection_exec(reader, "BEGIN", error) != 0 || migrations_run(reader, 0, error) != 0 || migrations_schema(reader, &schema, error) != 0)
    return -1;
  if (schema == 0) return error_set(error, ERROR_NOT_FOUND, "store '%s' is empty", store->name);
  if (older) return 0;
  if (schema < migrations_count())
    return error_set(error, ERROR_FORMAT, "store '%s' has schema %d, and this steerd reads %d: the next 'steerd serve' with it, once nobody holds it, "
                     "brings it there", store->name, schema, migrations_count());
  return connection_check(reader, STORE_CHECK_QUICK, error) != 0 ? -1 : migrations_verify(reader, error);
}

struct store *store_open_beside(const char *path, bool older, struct error *error) {
  struct store *store = store_new(path, error);
  if (!store) return NULL;
  store->beside = true;
  if (beside_look(store, error) == 0 && beside_open(store, older, error) == 0) return store;
  store_close(store);
  return NULL;
}

/* An empty log is one that our own opening made: the last who closes removes it, and there is nothing to fold in. */
static void beside_close(const struct store *store) {
  char log[PATH_MAX];
  struct stat status;
  snprintf(log, sizeof log, "%s-wal", store->file);
  if (store->readers && stat(log, &status) == 0 && status.st_size == 0) connection_own(store->readers);
}

void store_close(struct store *store) {
  if (!store) return;
  if (store->beside) beside_close(store);
  for (struct connection *reader = store->readers, *next; reader; reader = next) {
    next = reader->next;
    connection_close(reader);
  }
  connection_close(store->writer); /* last, so that it is the one that folds the log in */
  lock_release(store->lock);
  pthread_cond_destroy(&store->readers_free);
  pthread_mutex_destroy(&store->readers_mutex);
  pthread_mutex_destroy(&store->turn);
  free(store->file);
  free(store->name);
  free(store);
}

/* ---- taking turns ----------------------------------------------------------------------------------- */

/* What SQLite's word index keeps in memory can be wrong after an allocation failed, and the next write would be told of damage that the
 * file does not have (seen in 3.40.1): a connection that starved writes no more. */
static int writer_renew(struct store *store, struct error *error) {
  struct connection *fresh = connection_open(store->file, store->name, CONNECTION_WRITER, error);
  if (!fresh) return -1;
  connection_own(fresh);
  connection_close(store->writer);
  store->writer = fresh;
  return 0;
}

struct connection *store_writer(struct store *store, struct error *error) {
  if (store->beside) return error_set(error, ERROR_ARGUMENT, "store '%s' was opened for reading", store->name), NULL;
  if (files_look(store, error) != 0) return NULL;
  pthread_mutex_lock(&store->turn);
  if (store->writer->starved && writer_renew(store, error) != 0) {
    pthread_mutex_unlock(&store->turn);
    return NULL;
  }
  struct connection *writer = store->writer;
  struct row row;
  writer->io_failed = false;
  row_open(&row, writer, "BEGIN IMMEDIATE", NULL, error);
  if (row_run(&row) == 0) return writer;
  if (writer->io_failed) atomic_store(&store->degraded, true);
  pthread_mutex_unlock(&store->turn);
  return NULL;
}

int store_writer_end(struct store *store, struct connection *writer, int result, struct error *error) {
  struct row row;
  if (result >= 0) {
    row_open(&row, writer, "COMMIT", NULL, error);
    if (row_run(&row) != 0) result = -1;
    else atomic_fetch_add(&store->generation, 1);
  }
  /* SQLite has already rolled back after some errors. */
  if (!sqlite3_get_autocommit(writer->db)) sqlite3_exec(writer->db, "ROLLBACK", NULL, NULL, NULL);
  if (result >= 0) atomic_store(&store->degraded, false);
  else if (writer->io_failed) atomic_store(&store->degraded, true);
  pthread_mutex_unlock(&store->turn);
  return result;
}

void store_fold(struct store *store) {
  pthread_mutex_lock(&store->turn);
  if (connection_exec(store->writer, "PRAGMA wal_checkpoint(TRUNCATE)", NULL) != 0)
    log_info("store '%s': the log is folded in later", store->name);
  pthread_mutex_unlock(&store->turn);
}

static void reader_free(struct store *store, struct connection *reader) {
  pthread_mutex_lock(&store->readers_mutex);
  reader->next = store->readers;
  store->readers = reader;
  pthread_cond_signal(&store->readers_free);
  pthread_mutex_unlock(&store->readers_mutex);
}

struct connection *store_reader(struct store *store, struct error *error) {
  if (store->beside) return store->readers;
  pthread_mutex_lock(&store->readers_mutex);
  while (!store->readers) pthread_cond_wait(&store->readers_free, &store->readers_mutex);
  struct connection *reader = store->readers;
  store->readers = reader->next;
  pthread_mutex_unlock(&store->readers_mutex);
  struct row row;
  row_open(&row, reader, "BEGIN", NULL, error);
  if (row_run(&row) == 0) return reader;
  reader_free(store, reader);
  return NULL;
}

int store_reader_end(struct store *store, struct connection *reader, int result) {
  if (store->beside) return result; /* it goes on seeing its moment */
  sqlite3_exec(reader->db, "ROLLBACK", NULL, NULL, NULL); /* nothing was written: only ends the moment it saw */
  reader_free(store, reader);
  return result;
}

/* ---- has anything changed? -------------------------------------------------------------------------- */

static struct connection *reader_if_free(struct store *store) {
  pthread_mutex_lock(&store->readers_mutex);
  struct connection *reader = store->readers;
  if (reader) store->readers = reader->next;
  pthread_mutex_unlock(&store->readers_mutex);
  return reader;
}

/* Whether anybody has committed since this connection was asked last. Our own commits count as well, and are counted
 * twice then: that costs a few look-ups and no wrong answer. */
static bool version_moved(struct connection *reader) {
  struct row row;
  int64_t version = reader->data_version;
  row_open(&row, reader, "PRAGMA data_version", NULL, NULL);
  if (row_next(&row) == 1) version = row_int(&row);
  row_close(&row);
  bool moved = row_check(&row) != 0 || version != reader->data_version;
  reader->data_version = version;
  return moved;
}

/* One thread looks; while all readers are busy nobody does, and the next one that asks tries again. */
static void look_for_foreigners(struct store *store, int64_t now) {
  int64_t due = atomic_load(&store->next_look_ns);
  if (store->beside || now < due || !atomic_compare_exchange_strong(&store->next_look_ns, &due, now + FOREIGN_LOOK_NS)) return;
  struct connection *reader = reader_if_free(store);
  if (!reader) {
    atomic_store(&store->next_look_ns, now);
    return;
  }
  if (version_moved(reader)) atomic_fetch_add(&store->generation, 1);
  reader_free(store, reader);
}

uint64_t store_generation(struct store *store) {
  look_for_foreigners(store, clock_tick_ns());
  return atomic_load(&store->generation);
}

/* ---- small things the room shares ------------------------------------------------------------------- */

const char *time_or_now(const char *given, char now[25]) {
  if (given) return given;
  clock_iso(now);
  return now;
}
