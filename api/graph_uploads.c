#include "api/graph_uploads.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/spool.h"

static void give_up(struct graph_upload *place) {
  spool_close(place->spool);
  memset(place, 0, sizeof *place);
}

void graph_uploads_init(struct graph_uploads *uploads) {
  memset(uploads->places, 0, sizeof uploads->places);
  pthread_mutex_init(&uploads->lock, NULL);
  atomic_flag_clear(&uploads->reading);
}

void graph_uploads_clear(struct graph_uploads *uploads) {
  for (int i = 0; i < GRAPH_UPLOADS_MOST; i++) give_up(&uploads->places[i]);
  pthread_mutex_destroy(&uploads->lock);
}

/* Under the lock. A free place has until_ns 0, and so is the oldest. */
static struct graph_upload *oldest(struct graph_uploads *uploads) {
  int64_t now = clock_tick_ns();
  struct graph_upload *found = &uploads->places[0];
  for (int i = 0; i < GRAPH_UPLOADS_MOST; i++) {
    struct graph_upload *place = &uploads->places[i];
    if (place->name[0] && place->until_ns < now) give_up(place);
    if (place->until_ns < found->until_ns) found = place;
  }
  return found;
}

int graph_uploads_new(struct graph_uploads *uploads, size_t announced, char name[SECRET_NAME], struct error *error) {
  if (secret_name(name, error) != 0) return -1;
  pthread_mutex_lock(&uploads->lock);
  struct graph_upload *place = oldest(uploads);
  give_up(place);
  memcpy(place->name, name, SECRET_NAME);
  place->announced = announced;
  place->until_ns = clock_tick_ns() + (int64_t)GRAPH_UPLOAD_SECONDS * 1000000000;
  pthread_mutex_unlock(&uploads->lock);
  return 0;
}

/* Under the lock; NULL with ERROR_NOT_FOUND. */
static struct graph_upload *find(struct graph_uploads *uploads, const char *name, struct error *error) {
  for (int i = 0; *name && i < GRAPH_UPLOADS_MOST; i++) {
    struct graph_upload *place = &uploads->places[i];
    if (strcmp(place->name, name) == 0 && clock_tick_ns() <= place->until_ns) return place;
  }
  error_set_field(error, ERROR_NOT_FOUND, "putRequestId", "there is no upload '%.64s' (any more: an address holds for an hour, and until the server is "
                  "restarted); POST /api/graph/signed-put gives a new one", name);
  return NULL;
}

static int keep(struct graph_upload *place, const char *bytes, size_t length, struct error *error) {
  if (length != place->announced)
    return error_set_field(error, ERROR_ARGUMENT, "contentLength", "%zu bytes came, and %zu were announced as 'contentLength'", length, place->announced);
  if (!place->spool && !(place->spool = spool_open(error))) return -1;
  return spool_write(place->spool, 0, bytes, length, error);
}

int graph_uploads_put(struct graph_uploads *uploads, const char *name, const char *bytes, size_t length, struct error *error) {
  pthread_mutex_lock(&uploads->lock);
  struct graph_upload *place = find(uploads, name, error);
  int result = place ? keep(place, bytes, length, error) : -1;
  if (place && result != 0) {
    spool_close(place->spool); /* half of something is nothing */
    place->spool = NULL;
  }
  pthread_mutex_unlock(&uploads->lock);
  if (error->code == ERROR_IO) error->code = ERROR_STORAGE;
  return result;
}

/* Not written through the buffer: it grows by doubling, and the size is known. */
static int read_all(const struct graph_upload *place, struct buffer *out, struct error *error) {
  if (!place->spool)
    return error_set_field(error, ERROR_CONFLICT, "putRequestId", "nothing was put at the address of upload '%s' yet: PUT the graph there first", place->name);
  char *bytes = malloc(place->announced);
  if (!bytes) return error_memory(error, place->announced);
  int result = spool_read(place->spool, 0, bytes, place->announced, error);
  if (result == 0) buffer_append(out, bytes, place->announced);
  free(bytes);
  return result == 0 ? buffer_check(out, error) : -1;
}

int graph_uploads_read(struct graph_uploads *uploads, const char *name, struct buffer *out, struct error *error) {
  pthread_mutex_lock(&uploads->lock);
  struct graph_upload *place = find(uploads, name, error);
  int result = place ? read_all(place, out, error) : -1;
  pthread_mutex_unlock(&uploads->lock);
  return result;
}

void graph_uploads_end(struct graph_uploads *uploads, const char *name) {
  pthread_mutex_lock(&uploads->lock);
  for (int i = 0; *name && i < GRAPH_UPLOADS_MOST; i++)
    if (strcmp(uploads->places[i].name, name) == 0) give_up(&uploads->places[i]);
  pthread_mutex_unlock(&uploads->lock);
}
