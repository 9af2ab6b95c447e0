/* care.h: looking after a store as a whole: opening one that another process holds, checking every row, copying it. Public;
 * included by store.h's users who need it. */
#ifndef STEERD_CORE_STORE_CARE_H
#define STEERD_CORE_STORE_CARE_H

#include "core/store/store.h"

/* Opens what is there for reading, whoever holds it, without their noticing: no lock is taken, nothing is written or folded in, and all
 * verbs see the one moment at which it was opened. For one thread. Verbs that write answer ERROR_ARGUMENT. While it is open the log of
 * whoever writes grows. `older`: also a store of an earlier schema, from which only the verbs of this page read; else it is
 * ERROR_FORMAT, as a newer one always is. ERROR_NOT_FOUND: there is no such file, or nothing is in it yet; further as store_open.
 * NULL on failure. */
struct store *store_open_beside(const char *path, bool older, struct error *error) MUST_CHECK;

/* Called now and then with what is done; true stops the work (ERROR_CANCELLED). NULL: nobody is told. */
struct store_tell {
  bool (*tell)(void *context, int64_t done, int64_t total);
  void *context;
};
bool store_told(const struct store_tell *tell, int64_t done, int64_t total);

/* What is in a table; `damaged` rows are not what they were when they were written. */
struct store_table {
  const char *name;
  int64_t rows, damaged;
};

#define STORE_TABLES_MAX 32
#define STORE_NAMED_MAX 20

struct store_findings {
  int schema;    /* of the file */
  int64_t bytes; /* of all pages at that moment, those in the log too */
  struct store_table tables[STORE_TABLES_MAX];
  size_t n_tables;
  int64_t rows, damaged; /* in all tables */
  /* The first damaged rows: "examples 8589934593", by the columns of the key. */
  char named[STORE_NAMED_MAX][96];
  size_t n_named;
};

/* Reads everything: the b-trees of every page (with STORE_CHECK_FULL every index entry too), the schema's tables, and every row beside
 * its seal. Damaged rows are findings; damage of the b-trees is ERROR_STORE, what was found until then in *out. `total` for `tell` is
 * not known beforehand: 0. */
int store_look_through(struct store *store, enum store_check check, const struct store_tell *tell, struct store_findings *out,
                       struct error *error) MUST_CHECK;

/* A copy of the store as it is at this moment, in the new file `path`, which is a store of its own: with mode 0600, on the disk when
 * this returns, under another name until it is whole. Writers go on meanwhile. `done` and `total` are pages. ERROR_ARGUMENT: `path` is
 * there already; ERROR_IO: its folder. */
int store_copy(struct store *store, const char *path, const struct store_tell *tell, struct error *error) MUST_CHECK;

#endif
