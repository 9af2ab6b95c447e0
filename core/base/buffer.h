/* buffer.h: bytes that grow. Used for bodies and replies.
 *
 * A failed or over-limit append sets `failed` and later appends do nothing, so that a writer of many small
 * pieces checks once at the end. Not thread-safe. */
#ifndef STEERD_CORE_BASE_BUFFER_H
#define STEERD_CORE_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

struct buffer {
  char *data;      /* always NUL-terminated once anything was appended; owned */
  size_t length;   /* bytes, without the NUL */
  size_t capacity;
  size_t limit;    /* most bytes it may hold; 0 = no limit */
  bool failed;
};

void buffer_init(struct buffer *buffer, size_t limit);
void buffer_clear(struct buffer *buffer); /* frees; the buffer can be used again */
void buffer_append(struct buffer *buffer, const void *data, size_t length);
void buffer_text(struct buffer *buffer, const char *text);
void buffer_char(struct buffer *buffer, char c);
void buffer_printf(struct buffer *buffer, const char *format, ...) ERROR_PRINTF(2, 3);

/* 0, or -1 with ERROR_MEMORY / ERROR_LIMIT when an append failed. */
int buffer_check(const struct buffer *buffer, struct error *error) MUST_CHECK;

#endif
