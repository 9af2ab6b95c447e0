/* static_files.h: the dashboard's own files, read once at the start.
 *
 * What was in the folder then is all that is ever served: a request names an entry of a list in memory and never
 * a path, so nothing outside the folder can be reached and nothing on the disk is opened later. */
#ifndef STEERD_API_STATIC_FILES_H
#define STEERD_API_STATIC_FILES_H

#include <stddef.h>

#include "core/base/arena.h"
#include "core/base/error.h"

struct static_file {
  const char *name; /* "app.js": [a-z0-9][a-z0-9._-]* with an ending that has a type */
  const char *type; /* "text/javascript; charset=utf-8" */
  const char *body;
  size_t length;    /* bytes */
  const char *etag; /* W/"16 hex digits" of a hash over the body: weak, because the reply may be gzipped */
};

struct static_files {
  struct static_file *files; /* [count] by name */
  size_t count;
};

/* The shell of every page. A folder without it is refused. */
#define STATIC_SHELL "index.html"

/* Reads the folder into the arena; files whose name or ending is unknown are left out. Errors: ERROR_NOT_FOUND or
 * ERROR_IO (the folder or a file), ERROR_LIMIT (a file beyond 1 MiB, more than 128 files), ERROR_MEMORY. */
int static_files_load(struct static_files *out, const char *folder, struct arena *arena,
                      struct error *error) MUST_CHECK;

/* By exact name; NULL when it is not among them. */
const struct static_file *static_files_find(const struct static_files *files, const char *name);

/* The policy of pages that may stand in a frame: of this machine, of VS Code, and of the comma-separated origins
 * (NULL: none). In the arena; NULL when out of memory. */
const char *static_embed_policy(const char *origins, struct arena *arena, struct error *error) MUST_CHECK;

#endif
