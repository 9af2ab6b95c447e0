/* gzip_lines.c: lines in and out of gzip files, over zlib's streams. Knows nothing of what the lines say. */
#include "core/base/gzip_lines.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/base/mapfile.h"

#define CHUNK ((size_t)64 << 10)
#define WINDOW_GZIP (15 + 16) /* zlib's way to say: the largest window, in a gzip wrapper */
#define LEVEL 9

/* ---- reading ---- */

struct gzip_lines {
  char *path;
  struct mapfile file;
  size_t at; /* of what was taken from the file */
  bool packed, open, in_member, ended;
  z_stream stream;
  char *data;               /* [capacity + 1]; begin..end is not yet given */
  size_t capacity, begin, end, limit;
  int64_t number;
};

static bool is_gzip(const struct gzip_lines *l, size_t at) {
  return l->file.size - at >= 2 && l->file.data[at] == 0x1f && l->file.data[at + 1] == 0x8b;
}

struct gzip_lines *gzip_lines_open(const char *path, size_t limit, struct error *error) {
  struct gzip_lines *l = calloc(1, sizeof *l);
  if (!l) return error_memory(error, sizeof *l), NULL;
  l->limit = limit;
  l->path = strdup(path);
  if (!l->path)
    error_memory(error, strlen(path));
  else if (mapfile_open(path, &l->file, error) == 0) {
    l->packed = is_gzip(l, 0);
    if (!l->packed) return l;
    l->open = inflateInit2(&l->stream, WINDOW_GZIP) == Z_OK;
    l->in_member = true;
    if (l->open) return l;
    error_memory(error, sizeof l->stream);
  }
  gzip_lines_close(l);
  return NULL;
}

void gzip_lines_close(struct gzip_lines *l) {
  if (!l) return;
  if (l->open) inflateEnd(&l->stream);
  mapfile_close(&l->file);
  free(l->data);
  free(l->path);
  free(l);
}

int64_t gzip_lines_number(const struct gzip_lines *l) { return l->number; }
const char *gzip_lines_path(const struct gzip_lines *l) { return l->path; }

static int refuse(const struct gzip_lines *l, enum error_code code, const char *what, struct error *error) {
  return error_set(error, code, "'%s': %s after line %lld", l->path, what, (long long)l->number);
}

/* Room behind `end`: what is not yet given moves to the front, then the buffer grows. */
static int make_room(struct gzip_lines *l, struct error *error) {
  if (l->begin > 0) memmove(l->data, l->data + l->begin, l->end - l->begin);
  l->end -= l->begin;
  l->begin = 0;
  if (l->end < l->capacity) return 0;
  size_t capacity = l->capacity ? l->capacity * 2 : CHUNK;
  char *data = realloc(l->data, capacity + 1);
  if (!data) return error_memory(error, capacity);
  l->data = data;
  l->capacity = capacity;
  return 0;
}

/* Behind the end of a member: the end of the file, or another member. */
static int next_member(struct gzip_lines *l, struct error *error) {
  l->ended = l->at == l->file.size;
  if (l->ended) return 0;
  if (!is_gzip(l, l->at)) return refuse(l, ERROR_FORMAT, "something that is not gzip stands behind its end,", error);
  if (inflateReset(&l->stream) != Z_OK) return error_memory(error, sizeof l->stream);
  l->in_member = true;
  return 0;
}

static int unpack(struct gzip_lines *l, struct error *error) {
  if (!l->in_member) return next_member(l, error);
  size_t left = l->file.size - l->at, room = l->capacity - l->end;
  uInt give = left < UINT_MAX ? (uInt)left : UINT_MAX, take = room < UINT_MAX ? (uInt)room : UINT_MAX;
  l->stream.next_in = (Bytef *)(uintptr_t)(l->file.data + l->at);
  l->stream.avail_in = give;
  l->stream.next_out = (Bytef *)l->data + l->end;
  l->stream.avail_out = take;
  int rc = inflate(&l->stream, Z_NO_FLUSH);
  l->at += give - l->stream.avail_in;
  l->end += take - l->stream.avail_out;
  if (rc == Z_MEM_ERROR) return error_memory(error, CHUNK);
  if (rc == Z_STREAM_END)
    l->in_member = false;
  else if (rc == Z_BUF_ERROR || (rc == Z_OK && l->at == l->file.size && l->stream.avail_out > 0))
    return refuse(l, ERROR_FORMAT, "the compressed data is cut off", error);
  else if (rc != Z_OK)
    return refuse(l, ERROR_FORMAT, "the compressed data is damaged", error);
  return 0;
}

static void copy(struct gzip_lines *l) {
  size_t left = l->file.size - l->at, room = l->capacity - l->end, n = left < room ? left : room;
  if (n) memcpy(l->data + l->end, l->file.data + l->at, n);
  l->at += n;
  l->end += n;
  l->ended = l->at == l->file.size;
}

/* More bytes, or `ended`. */
static int fill(struct gzip_lines *l, struct error *error) {
  if (make_room(l, error) != 0) return -1;
  if (l->packed) return unpack(l, error);
  copy(l);
  return 0;
}

int gzip_lines_next(struct gzip_lines *l, char **line, size_t *length, struct error *error) {
  size_t looked = 0; /* bytes of the line in which there is no newline */
  for (;;) {
    size_t held = l->end - l->begin;
    char *newline = held > looked ? memchr(l->data + l->begin + looked, '\n', held - looked) : NULL;
    size_t n = newline ? (size_t)(newline - l->data) - l->begin : held;
    if (n > l->limit)
      return error_set(error, ERROR_LIMIT, "'%s': line %lld is longer than %zu bytes", l->path, (long long)l->number + 1,
                       l->limit);
    if (newline || (l->ended && held > 0)) {
      *line = l->data + l->begin;
      *length = n;
      l->begin += newline ? n + 1 : n;
      (*line)[n] = '\0'; /* there is a byte behind the capacity for it */
      l->number++;
      return 1;
    }
    if (l->ended) return 0;
    looked = held;
    if (fill(l, error) != 0) return -1;
  }
}

/* ---- writing ---- */

struct gzip_writer {
  char *path;
  FILE *file;
  bool open;
  z_stream stream;
  unsigned char out[CHUNK];
};

static int write_error(const struct gzip_writer *w, struct error *error) {
  return error_set(error, ERROR_IO, "'%s' could not be written: %s", w->path, strerror(errno));
}

struct gzip_writer *gzip_writer_open(const char *path, struct error *error) {
  struct gzip_writer *w = calloc(1, sizeof *w);
  if (!w) return error_memory(error, sizeof *w), NULL;
  w->path = strdup(path);
  if (w->path) w->open = deflateInit2(&w->stream, LEVEL, Z_DEFLATED, WINDOW_GZIP, 9, Z_DEFAULT_STRATEGY) == Z_OK;
  if (!w->open)
    error_memory(error, sizeof *w);
  else if ((w->file = fopen(path, "wbxe")))
    return w;
  else if (errno == EEXIST)
    error_set(error, ERROR_ARGUMENT, "'%s' exists already", path);
  else
    write_error(w, error);
  gzip_writer_abandon(w);
  return NULL;
}

/* Packs what the stream was given. */
static int pack(struct gzip_writer *w, int flush, struct error *error) {
  int rc;
  do {
    w->stream.next_out = w->out;
    w->stream.avail_out = CHUNK;
    rc = deflate(&w->stream, flush);
    size_t n = CHUNK - w->stream.avail_out;
    if (n && fwrite(w->out, 1, n, w->file) != n) return write_error(w, error);
  } while (w->stream.avail_out == 0 || (flush == Z_FINISH && rc == Z_OK));
  return 0;
}

static int put(struct gzip_writer *w, const char *text, size_t length, struct error *error) {
  while (length > 0) {
    uInt n = length < UINT_MAX ? (uInt)length : UINT_MAX;
    w->stream.next_in = (Bytef *)(uintptr_t)text;
    w->stream.avail_in = n;
    if (pack(w, Z_NO_FLUSH, error) != 0) return -1;
    text += n;
    length -= n;
  }
  return 0;
}

int gzip_writer_line(struct gzip_writer *w, const char *text, size_t length, struct error *error) {
  return put(w, text, length, error) != 0 ? -1 : put(w, "\n", 1, error);
}

int gzip_writer_close(struct gzip_writer *w, struct error *error) {
  int failed = pack(w, Z_FINISH, error);
  FILE *file = w->file;
  w->file = NULL;
  if (fclose(file) != 0 && !failed) failed = write_error(w, error);
  gzip_writer_abandon(w);
  return failed;
}

void gzip_writer_abandon(struct gzip_writer *w) {
  if (!w) return;
  if (w->open) deflateEnd(&w->stream);
  if (w->file) fclose(w->file);
  free(w->path);
  free(w);
}
