/* gzip_lines.h: text files of many lines, compressed or not: read line by line, and written.
 *
 * A file that begins as gzip is unpacked, several members behind one another too; any other is read as it is. Memory is
 * bounded by the longest line that is allowed, whatever the file unpacks to. Not thread-safe. */
#ifndef STEERD_CORE_BASE_GZIP_LINES_H
#define STEERD_CORE_BASE_GZIP_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

#define GZIP_LINE_MOST ((size_t)16 << 20) /* bytes of a line */

struct gzip_lines;

/* limit: bytes of a line at most (GZIP_LINE_MOST). NULL: ERROR_NOT_FOUND, ERROR_IO, ERROR_FORMAT (not a regular file); each
 * names the path. */
struct gzip_lines *gzip_lines_open(const char *path, size_t limit, struct error *error) MUST_CHECK;
void gzip_lines_close(struct gzip_lines *lines); /* NULL is fine */

/* 1 and the next line, without its newline and NUL-terminated; the caller may write in it, and it is valid until the next
 * call. 0 at the end; a last line needs no newline. -1: ERROR_FORMAT (the compressed data is cut off or damaged, or something
 * else stands behind it), ERROR_LIMIT (a line is too long), ERROR_MEMORY; each names path and line. */
int gzip_lines_next(struct gzip_lines *lines, char **line, size_t *length, struct error *error) MUST_CHECK;

/* Number of the line that gzip_lines_next gave last, from 1. */
int64_t gzip_lines_number(const struct gzip_lines *lines);
const char *gzip_lines_path(const struct gzip_lines *lines);

/* ---- writing ---- */

struct gzip_writer;

/* Begins a new file, which must not exist. The same lines give the same bytes: no name and no time is kept. NULL:
 * ERROR_ARGUMENT when the file exists, ERROR_IO. */
struct gzip_writer *gzip_writer_open(const char *path, struct error *error) MUST_CHECK;

/* One line; the newline is added. ERROR_IO names the path. */
int gzip_writer_line(struct gzip_writer *writer, const char *text, size_t length, struct error *error) MUST_CHECK;

/* Ends the file and frees the writer. Only after 0 is everything written. */
int gzip_writer_close(struct gzip_writer *writer, struct error *error) MUST_CHECK;

/* After a failure: frees the writer; the file stays as it is. NULL is fine. */
void gzip_writer_abandon(struct gzip_writer *writer);

#endif
