/* copy.c: copies through SQLite's own backup verbs, page by page from one transaction, so that whoever writes meanwhile neither
 * waits nor shows. */
#include "core/store/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/folder.h"

#define STEP_PAGES 1024 /* 8 MiB between two looks at whoever wants to stop */

bool store_told(const struct store_tell *tell, int64_t done, int64_t total) {
  return tell && tell->tell && tell->tell(tell->context, done, total);
}

/* An empty file beside `path`, with a name that nobody else has. */
static int part_make(const char *path, char part[PATH_MAX], struct error *error) {
  if (snprintf(part, PATH_MAX, "%s.part-XXXXXX", path) >= PATH_MAX)
    return error_set(error, ERROR_ARGUMENT, "the path '%.100s...' is too long", path);
  int descriptor = mkostemp(part, O_CLOEXEC); /* mode 0600 */
  if (descriptor < 0) return error_set(error, ERROR_IO, "cannot write '%.300s': %s", path, strerror(errno));
  close(descriptor);
  return 0;
}

static int steps_run(sqlite3_backup *backup, const struct store_tell *tell, struct error *error) {
  int rc;
  while ((rc = sqlite3_backup_step(backup, STEP_PAGES)) == SQLITE_OK) {
    int total = sqlite3_backup_pagecount(backup);
    if (store_told(tell, total - sqlite3_backup_remaining(backup), total))
      return error_set(error, ERROR_CANCELLED, "stopped; nothing is kept of the copy"), SQLITE_ABORT;
  }
  return rc;
}

/* Whichever of both files failed is named: the copy only where its disk did, which the original is not written to. */
static int pages_fail(struct connection *from, const char *path, int rc, struct error *error) {
  int kind = rc & 0xff;
  if (kind == SQLITE_FULL || kind == SQLITE_CANTOPEN || kind == SQLITE_READONLY || (kind == SQLITE_IOERR && rc != SQLITE_IOERR_READ))
    return error_set(error, ERROR_STORAGE, "cannot write '%.300s': %s", path, kind == SQLITE_FULL ? "its disk is full" : sqlite3_errstr(rc));
  return connection_fail(from, rc, error);
}

/* Nobody sees the part before it is whole, so that it needs no journal. */
static int pages_into(struct connection *from, const char *part, const char *path, const struct store_tell *tell, struct error *error) {
  sqlite3 *into = NULL;
  int rc = sqlite3_open_v2(part, &into, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_exec(into, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL, NULL, NULL);
  sqlite3_backup *backup = rc == SQLITE_OK ? sqlite3_backup_init(into, "main", from->db, "main") : NULL;
  if (rc == SQLITE_OK && !backup) rc = sqlite3_errcode(into);
  if (backup) {
    rc = steps_run(backup, tell, error);
    sqlite3_backup_finish(backup);
  }
  sqlite3_close(into);
  if (rc == SQLITE_DONE) return 0;
  return rc == SQLITE_ABORT ? -1 : pages_fail(from, path, rc, error);
}

/* A name that is taken is taken by whoever came first, also when that was a moment ago. */
static int part_name(const char *part, const char *path, enum copy_over over, struct error *error) {
  if (over == COPY_REPLACES) return file_settle(part, path, error);
  if (file_settle(part, part, error) != 0) return -1; /* to the disk */
  if (link(part, path) == 0) return unlink(part), 0;
  if (errno == EEXIST) return error_set(error, ERROR_ARGUMENT, "'%.300s' is there already: name a new file for the copy", path);
  return error_set(error, ERROR_IO, "cannot write '%.300s': %s", path, strerror(errno));
}

int copy_pages(struct connection *from, const char *path, enum copy_over over, const struct store_tell *tell, struct error *error) {
  char part[PATH_MAX];
  if (over == COPY_REFUSES && access(path, F_OK) == 0)
    return error_set(error, ERROR_ARGUMENT, "'%.300s' is there already: name a new file for the copy", path);
  if (part_make(path, part, error) != 0) return -1;
  bool own = sqlite3_get_autocommit(from->db);
  int failed = own ? connection_exec(from, "BEGIN", error) : 0;
  if (!failed) failed = pages_into(from, part, path, tell, error);
  if (own) sqlite3_exec(from->db, "ROLLBACK", NULL, NULL, NULL);
  if (!failed) failed = part_name(part, path, over, error);
  if (failed) unlink(part);
  return failed;
}
