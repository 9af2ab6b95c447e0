#include "core/base/json_writer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/number.h"
#include "core/base/utf8.h"

void jw_init(struct json_writer *writer, struct buffer *out) {
  *writer = (struct json_writer){.out = out};
}

static void separate(struct json_writer *w) {
  if (w->comma) buffer_char(w->out, ',');
  w->comma = true;
}

void jw_open(struct json_writer *w, char bracket) {
  separate(w);
  buffer_char(w->out, bracket);
  w->comma = false;
}

void jw_close(struct json_writer *w, char bracket) {
  buffer_char(w->out, bracket);
  w->comma = true;
}

/* A character that must not stand as it is in a JSON string or inside HTML. */
static bool must_escape(uint32_t point) {
  return point < 0x20 || point == '"' || point == '\\' || point == '<' || point == '>' || point == '&' ||
         point == 0x7F || point == 0x2028 || point == 0x2029;
}

static void write_escape(struct buffer *out, uint32_t point) {
  switch (point) {
    case '"': buffer_text(out, "\\\""); return;
    case '\\': buffer_text(out, "\\\\"); return;
    case '\n': buffer_text(out, "\\n"); return;
    case '\r': buffer_text(out, "\\r"); return;
    case '\t': buffer_text(out, "\\t"); return;
    default: buffer_printf(out, "\\u%04x", (unsigned)point);
  }
}

/* Most text is this: bytes that are characters of their own and stand as they are. */
static bool is_plain(unsigned char c) {
  return c >= 0x20 && c < 0x7F && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
}

static void write_quoted(struct buffer *out, const char *text, size_t length) {
  buffer_char(out, '"');
  size_t plain = 0; /* start of the run that can be copied as it is */
  for (size_t i = 0; i < length;) {
    uint32_t point = 0;
    if (is_plain((unsigned char)text[i])) {
      i++;
      continue;
    }
    int n = utf8_next(text + i, length - i, &point);
    if (n > 0 && !must_escape(point)) {
      i += (size_t)n;
      continue;
    }
    buffer_append(out, text + plain, i - plain);
    if (n > 0)
      write_escape(out, point);
    else
      buffer_text(out, "\xEF\xBF\xBD");
    i += n > 0 ? (size_t)n : n < 0 ? length - i : 1;
    plain = i;
  }
  buffer_append(out, text + plain, length - plain);
  buffer_char(out, '"');
}

/* "maxValue" as "max_value". */
static void key_in_snake_case(struct json_writer *w, const char *key) {
  separate(w);
  buffer_char(w->out, '"');
  for (; *key; key++) {
    bool upper = *key >= 'A' && *key <= 'Z';
    if (upper) buffer_char(w->out, '_');
    buffer_char(w->out, upper ? (char)(*key - 'A' + 'a') : *key);
  }
  buffer_text(w->out, "\":");
  w->comma = false;
}

void jw_key(struct json_writer *w, const char *key) {
  if (w->snake)
    key_in_snake_case(w, key);
  else
    jw_key_as_it_is(w, key);
}

void jw_key_as_it_is(struct json_writer *w, const char *key) {
  separate(w);
  write_quoted(w->out, key, strlen(key));
  buffer_char(w->out, ':');
  w->comma = false;
}

void jw_string(struct json_writer *w, const char *text, size_t length) {
  separate(w);
  write_quoted(w->out, text, length);
}

void jw_text(struct json_writer *w, const char *text) {
  if (text)
    jw_string(w, text, strlen(text));
  else
    jw_null(w);
}

void jw_int(struct json_writer *w, int64_t value) {
  char text[24];
  separate(w);
  buffer_append(w->out, text, (size_t)number_int(value, text));
}

void jw_f32(struct json_writer *w, float value) {
  if (!isfinite(value)) {
    jw_null(w);
    return;
  }
  char text[24];
  separate(w);
  buffer_append(w->out, text, (size_t)number_f32(value, text));
}

void jw_f64(struct json_writer *w, double value) {
  if (!isfinite(value)) {
    jw_null(w);
    return;
  }
  char text[32];
  separate(w);
  buffer_append(w->out, text, (size_t)number_f64(value, text));
}

void jw_bool(struct json_writer *w, bool value) {
  separate(w);
  buffer_text(w->out, value ? "true" : "false");
}

void jw_null(struct json_writer *w) {
  separate(w);
  buffer_text(w->out, "null");
}

void jw_f32_array(struct json_writer *w, const float *values, size_t count) {
  jw_open(w, '[');
  for (size_t i = 0; i < count; i++) jw_f32(w, values[i]);
  jw_close(w, ']');
}

static void write_members(struct json_writer *w, const struct json_node *object) {
  void *iterator = NULL;
  const char *key;
  const struct json_node *value;
  jw_open(w, '{');
  while (json_next(object, &iterator, &key, &value)) {
    jw_key(w, key);
    jw_node(w, value);
  }
  jw_close(w, '}');
}

void jw_node(struct json_writer *w, const struct json_node *node) {
  size_t length;
  switch (json_kind(node)) {
    case JSON_KIND_BOOL: jw_bool(w, json_bool_or(node, false)); return;
    case JSON_KIND_INT: jw_int(w, json_int_or(node, 0)); return;
    case JSON_KIND_REAL: jw_f64(w, json_number_or(node, 0)); return;
    case JSON_KIND_STRING: {
      const char *text = json_text(node, &length);
      jw_string(w, text, length);
      return;
    }
    case JSON_KIND_ARRAY:
      jw_open(w, '[');
      for (size_t i = 0; i < json_count(node); i++) jw_node(w, json_at(node, i));
      jw_close(w, ']');
      return;
    case JSON_KIND_OBJECT: write_members(w, node); return;
    default: jw_null(w); return;
  }
}

void jw_member_text(struct json_writer *w, const char *key, const char *text) {
  jw_key(w, key);
  jw_text(w, text);
}

void jw_member_int(struct json_writer *w, const char *key, int64_t value) {
  jw_key(w, key);
  jw_int(w, value);
}

void jw_member_f32(struct json_writer *w, const char *key, float value) {
  jw_key(w, key);
  jw_f32(w, value);
}

void jw_member_f64(struct json_writer *w, const char *key, double value) {
  jw_key(w, key);
  jw_f64(w, value);
}

void jw_member_bool(struct json_writer *w, const char *key, bool value) {
  jw_key(w, key);
  jw_bool(w, value);
}

void jw_member_null(struct json_writer *w, const char *key) {
  jw_key(w, key);
  jw_null(w);
}
