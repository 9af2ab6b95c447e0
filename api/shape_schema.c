/* shape_schema.c: the notation of shapes.h as JSON schemas. The texts are our own and tested to be well formed, so nothing here
 * can fail. */
#include <stdio.h>
#include <string.h>

#include "api/shapes.h"

/* Behind one part without its '?': "[{a: text}?]?|null" -> "?|null". */
static const char *part_end(const char *at) {
  for (int depth = 0; *at && (depth || !strchr("?|,}]", *at)); at++) {
    depth += *at == '{' || *at == '[';
    depth -= *at == '}' || *at == ']';
  }
  return at;
}

/* Behind the whole shape. */
static const char *shape_end(const char *at) {
  for (;;) {
    at = part_end(at);
    at += *at == '?';
    if (*at != '|') return at;
    at++;
  }
}

struct member {
  const char *name, *shape;
  size_t length;
  bool optional;
};

/* The member at `at` (behind '{' or ", "), and where the next one begins; NULL at the end. */
static const char *member_next(const char *at, struct member *out) {
  if (*at == '}' || !*at) return NULL;
  size_t n = strcspn(at, "?:,}");
  *out = (struct member){.name = at, .length = n, .optional = at[n] == '?'};
  const char *end = at + n;
  if (strncmp(at, "...", 3) != 0) {
    out->shape = end + out->optional + strlen(": ");
    end = shape_end(out->shape);
  }
  return *end == ',' ? end + strlen(", ") : end;
}

static bool is_rest(const struct member *member) { return !member->shape; }
static bool is_any_name(const struct member *member) { return member->length == 1 && *member->name == '*'; }

static void write_members(struct json_writer *w, const char *body) {
  struct member member;
  bool open = false, required = false;
  const char *values = NULL;
  jw_key(w, "properties");
  jw_open(w, '{');
  for (const char *at = body; (at = member_next(at, &member));) {
    open |= is_rest(&member);
    if (is_any_name(&member)) values = member.shape;
    if (is_rest(&member) || is_any_name(&member)) continue;
    required |= !member.optional;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)member.length, member.name);
    jw_key(w, name);
    shape_write(w, member.shape);
  }
  jw_close(w, '}');
  if (required) {
    jw_key(w, "required");
    jw_open(w, '[');
    for (const char *at = body; (at = member_next(at, &member));)
      if (!member.optional && !is_rest(&member) && !is_any_name(&member)) jw_string(w, member.name, member.length);
    jw_close(w, ']');
  }
  jw_key(w, "additionalProperties");
  if (values)
    shape_write(w, values);
  else
    jw_bool(w, open);
}

static void write_type(struct json_writer *w, const char *type, size_t length, bool nullable) {
  jw_key(w, "type");
  if (nullable) jw_open(w, '[');
  jw_string(w, type, length);
  if (nullable) jw_text(w, "null");
  if (nullable) jw_close(w, ']');
}

static void write_reference(struct json_writer *w, const char *name, size_t length) {
  char path[96];
  snprintf(path, sizeof path, "#/components/schemas/%.*s", (int)length, name);
  jw_member_text(w, "$ref", path);
}

/* "@Name?": a reference cannot be nullable by itself. */
static void write_named(struct json_writer *w, const char *name, size_t length, bool nullable) {
  if (!nullable) {
    write_reference(w, name, length);
    return;
  }
  jw_key(w, "anyOf");
  jw_open(w, '[');
  jw_open(w, '{');
  write_reference(w, name, length);
  jw_close(w, '}');
  jw_open(w, '{');
  jw_member_text(w, "type", "null");
  jw_close(w, '}');
  jw_close(w, ']');
}

static void write_part(struct json_writer *w, const char *at) {
  const char *end = part_end(at);
  size_t length = (size_t)(end - at);
  bool nullable = *end == '?', text = strncmp(at, "text", length) == 0;
  jw_open(w, '{');
  if (*at == '{') {
    write_type(w, "object", strlen("object"), nullable);
    write_members(w, at + 1);
  } else if (*at == '[') {
    write_type(w, "array", strlen("array"), nullable);
    jw_key(w, "items");
    shape_write(w, at + 1);
  } else if (*at == '@') {
    write_named(w, at + 1, length - 1, nullable);
  } else if (strncmp(at, "any", length) != 0) {
    write_type(w, text ? "string" : at, text ? strlen("string") : length, nullable);
  }
  jw_close(w, '}');
}

void shape_write(struct json_writer *w, const char *body) {
  const char *end = part_end(body);
  if (end[*end == '?'] != '|') {
    write_part(w, body);
    return;
  }
  jw_open(w, '{');
  jw_key(w, "anyOf");
  jw_open(w, '[');
  for (const char *at = body;; at = end + 1) {
    write_part(w, at);
    end = part_end(at);
    end += *end == '?';
    if (*end != '|') break;
  }
  jw_close(w, ']');
  jw_close(w, '}');
}
