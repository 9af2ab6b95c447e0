#include "core/base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

void buffer_init(struct buffer *buffer, size_t limit) {
  memset(buffer, 0, sizeof *buffer);
  buffer->limit = limit;
}

void buffer_clear(struct buffer *buffer) {
  free(buffer->data);
  buffer_init(buffer, buffer->limit);
}

/* Room for `more` bytes and a NUL behind them; false sets `failed`. */
static bool make_room(struct buffer *buffer, size_t more) {
  if (buffer->failed) return false;
  size_t need;
  bool fits = checked_add(buffer->length, more, &need) && checked_add(need, 1, &need);
  if (!fits || (buffer->limit && need - 1 > buffer->limit)) return !(buffer->failed = true);
  if (need <= buffer->capacity) return true;
  size_t capacity = size_max(buffer->capacity ? buffer->capacity * 2 : 256, need);
  char *data = realloc(buffer->data, capacity);
  if (!data) return !(buffer->failed = true);
  buffer->data = data;
  buffer->capacity = capacity;
  return true;
}

void buffer_append(struct buffer *buffer, const void *data, size_t length) {
  if (!make_room(buffer, length)) return;
  if (length) memcpy(buffer->data + buffer->length, data, length);
  buffer->length += length;
  buffer->data[buffer->length] = '\0';
}

void buffer_text(struct buffer *buffer, const char *text) { buffer_append(buffer, text, strlen(text)); }

void buffer_char(struct buffer *buffer, char c) {
  if (!make_room(buffer, 1)) return;
  buffer->data[buffer->length++] = c;
  buffer->data[buffer->length] = '\0';
}

void buffer_printf(struct buffer *buffer, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int length = vsnprintf(NULL, 0, format, args);
  va_end(args);
  if (length < 0 || !make_room(buffer, (size_t)length)) {
    buffer->failed = true;
    return;
  }
  va_start(args, format);
  vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, args);
  va_end(args);
  buffer->length += (size_t)length;
}

int buffer_check(const struct buffer *buffer, struct error *error) {
  if (!buffer->failed) return 0;
  if (buffer->limit && buffer->length >= buffer->limit / 2)
    return error_set(error, ERROR_LIMIT, "the result is larger than the limit of %zu bytes", buffer->limit);
  return error_memory(error, buffer->capacity * 2);
}
