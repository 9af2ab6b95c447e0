/* store.h: the archive: one SQLite file that remembers models, sources, features with their examples,
 * explanations, vectors, lists, share links and jobs. The only room that knows sqlite3.h.
 *
 * One process at a time owns a store: an advisory lock on the side file PATH.lock says who. Inside the process
 * one connection writes and checkpoints, a few others only read. Every verb of the store may be called from any
 * thread: writers take turns, readers do not wait for them and see the last committed state. A verb that reads
 * in several steps sees one moment. A verb that writes has written everything or nothing. A store does not survive
 * fork: the child may only exec or exit.
 *
 * Everything stored is derived from files that exist elsewhere, except explanations, vectors, lists, uploads, share links
 * and jobs. Every row carries a seal, a 64-bit hash over its key and columns: a row whose bytes have changed on
 * disk is reported (ERROR_STORE), never served.
 *
 * Results are plain structs in the caller's arena and stay valid until it is cleared. Input structs borrow
 * everything they point to until the verb returns. Texts are UTF-8; "or NULL" is said where NULL is allowed, and
 * NULL comes back as NULL. A float that is NaN means "not known" and comes back as NaN. -0 comes back as 0.
 *
 * Errors of every verb, besides those it names: ERROR_STORAGE (the disk is full or broken, a limit was met, or
 * the file is read-only; reads go on, see store_degraded), ERROR_STORE (the file is damaged), ERROR_MEMORY, ERROR_LIMIT (from the arena), ERROR_BUSY
 * (a foreign program holds the file's lock). */
#ifndef STEERD_CORE_STORE_STORE_H
#define STEERD_CORE_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/error.h"

struct store;

enum store_check {
  STORE_CHECK_QUICK, /* b-tree structure of every page; about a second for a gigabyte in memory */
  STORE_CHECK_FULL,  /* also every index entry against its row */
  STORE_CHECK_NONE   /* the header only */
};

struct store_options {
  const char *path;       /* the database file; made with mode 0600 when it does not exist */
  const char *holder;     /* who opens it, for the error of the next one: "serve", "stats"; NULL: "steerd" */
  int64_t wait_ms;        /* how long to wait for another process to let go: 0 = not at all, -1 = for ever */
  enum store_check check; /* at opening */
  bool set_aside;         /* rename a damaged file to PATH.corrupt-TIME and begin a new one; see store_open */
  bool allow_network;     /* use a file on NFS or SMB although locks there cannot be trusted */
  int readers;            /* connections that read at the same time, 1..32; 0 = 4 */
};

/* Opens or makes a store and brings its schema up to date, each migration in one transaction.
 *
 * Refused, with not one byte of the file or its log changed: a file that is not SQLite's or not steerd's
 * (ERROR_FORMAT), one with a newer schema than this build knows or with tables that are not those of the schema it
 * says it has (ERROR_FORMAT), one that fails the check (ERROR_STORE). With set_aside a damaged file of ours (or one that has lost its header) is renamed, log
 * included, and a new one begun; a foreign or newer one never is. ERROR_BUSY: another process holds it; the
 * text says which. NULL on failure. */
struct store *store_open(const struct store_options *options, struct error *error) MUST_CHECK;

/* Folds the log into the file and lets go of the lock. Every verb must have returned. NULL is fine. */
void store_close(struct store *store);

/* True after a write failed because the disk is full or broken, until one succeeds again, and while the file or its log is not
 * where it was opened (deleted, moved, replaced): every write is ERROR_STORAGE then. Writing may be tried again at any time: nothing
 * of the failed write was kept. */
bool store_degraded(struct store *store);

/* A number that grows whenever anything stored may have changed: what was read after asking for it is what is stored as
 * long as it stays the same. A write of this process counts before its verb returns; one of a foreign program (the
 * sqlite3 shell: other steerds are kept out) within a second of being asked for. 0 is never given. */
uint64_t store_generation(struct store *store);

/* Checks a store that is open, in a reader: 0 when it is sound, else ERROR_STORE with the first finding, or ERROR_FORMAT
 * where a table or an index of this build's schema is missing or another. */
int store_verify(struct store *store, enum store_check check, struct error *error) MUST_CHECK;

/* The number of migrations this build knows, which is the schema number it writes. */
int store_schema(void);

/* Text that may hold any byte, also NUL (a token). */
struct store_text {
  const char *text; /* NUL-terminated behind length bytes when it comes from the store */
  size_t length;    /* bytes */
};

#include "core/store/evaluations.h"
#include "core/store/explanations.h"
#include "core/store/features.h"
#include "core/store/forget.h"
#include "core/store/jobs.h"
#include "core/store/graphs.h"
#include "core/store/lists.h"
#include "core/store/maps.h"
#include "core/store/shares.h"
#include "core/store/sources.h"
#include "core/store/subgraphs.h"
#include "core/store/uploads.h"
#include "core/store/vectors.h"

#endif
