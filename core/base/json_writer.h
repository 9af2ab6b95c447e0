/* json_writer.h: writes JSON straight into a buffer: replies, exports, specifications.
 *
 * Commas and colons are placed by the writer; a caller names members and values in order:
 *   jw_open(&w, '{');  jw_key(&w, "tokens");  jw_open(&w, '[');  jw_string(&w, "a", 1);  jw_close(&w, ']'); ...
 * Floats are written as the shortest text that reads back to the same value; NaN and infinities are null.
 * Bytes that are not UTF-8 become U+FFFD. `<`, `>`, `&`, U+2028 and U+2029 are escaped, so that the text can
 * stand inside an HTML page. Errors (memory, limit) stay in the buffer: check once with buffer_check. */
#ifndef STEERD_CORE_BASE_JSON_WRITER_H
#define STEERD_CORE_BASE_JSON_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"

struct json_node;

struct json_writer {
  struct buffer *out; /* borrowed */
  bool comma;         /* a value was written at this level */
  bool snake;         /* names are written in snake_case that are given in camelCase; false to begin with */
};

void jw_init(struct json_writer *writer, struct buffer *out);
void jw_open(struct json_writer *writer, char bracket);  /* '{' or '[' */
void jw_close(struct json_writer *writer, char bracket); /* '}' or ']' */
void jw_key(struct json_writer *writer, const char *key);
void jw_key_as_it_is(struct json_writer *writer, const char *key); /* also in snake_case */
void jw_string(struct json_writer *writer, const char *text, size_t length);
void jw_text(struct json_writer *writer, const char *text); /* NUL-terminated; NULL writes null */
void jw_int(struct json_writer *writer, int64_t value);
void jw_f32(struct json_writer *writer, float value);
void jw_f64(struct json_writer *writer, double value);
void jw_bool(struct json_writer *writer, bool value);
void jw_null(struct json_writer *writer);
void jw_f32_array(struct json_writer *writer, const float *values, size_t count);
void jw_node(struct json_writer *writer, const struct json_node *node); /* a parsed value (json.h); NULL writes null */

/* A member in one call. */
void jw_member_text(struct json_writer *writer, const char *key, const char *text);
void jw_member_int(struct json_writer *writer, const char *key, int64_t value);
void jw_member_f32(struct json_writer *writer, const char *key, float value);
void jw_member_f64(struct json_writer *writer, const char *key, double value);
void jw_member_bool(struct json_writer *writer, const char *key, bool value);
void jw_member_null(struct json_writer *writer, const char *key);

#endif
