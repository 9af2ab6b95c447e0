/* graph_uploads.h: graphs on their way in: places that were asked for, and what was put there, until it is saved. Lost with the process, as an
 * address that nobody has used for a while is. */
#ifndef STEERD_API_GRAPH_UPLOADS_H
#define STEERD_API_GRAPH_UPLOADS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "core/base/secret.h"

struct spool;

enum { GRAPH_UPLOADS_MOST = 16, GRAPH_UPLOAD_SECONDS = 3600 };

struct graph_upload {
  char name[SECRET_NAME]; /* "": a free place */
  int64_t until_ns;       /* clock_tick_ns */
  size_t announced;       /* bytes */
  struct spool *spool;    /* NULL: nothing was put yet */
};

struct graph_uploads {
  pthread_mutex_t lock; /* guards the places */
  struct graph_upload places[GRAPH_UPLOADS_MOST];
  atomic_flag reading; /* one graph is unpacked and checked at a time: it takes many times its bytes */
};

void graph_uploads_init(struct graph_uploads *uploads);
void graph_uploads_clear(struct graph_uploads *uploads);

/* A place for so many bytes, whose name nobody can guess. Where all are taken the one that was asked for first is given up: whoever asked can ask again,
 * and nobody can keep the others from it. ERROR_IO. */
int graph_uploads_new(struct graph_uploads *uploads, size_t announced, char name[SECRET_NAME], struct error *error) MUST_CHECK;

/* Keeps the bytes, in a temporary file; they replace what was there. ERROR_NOT_FOUND, ERROR_ARGUMENT: more or fewer than were announced; ERROR_STORAGE. */
int graph_uploads_put(struct graph_uploads *uploads, const char *name, const char *bytes, size_t length, struct error *error) MUST_CHECK;

/* Appends what was put. ERROR_NOT_FOUND, ERROR_CONFLICT: nothing yet; ERROR_IO, ERROR_MEMORY. */
int graph_uploads_read(struct graph_uploads *uploads, const char *name, struct buffer *out, struct error *error) MUST_CHECK;

/* Gives a place back. */
void graph_uploads_end(struct graph_uploads *uploads, const char *name);

#endif
