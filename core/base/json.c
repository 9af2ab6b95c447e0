#include "core/base/json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"

static const json_t *node_json(const struct json_node *node) { return (const json_t *)node; }
static const struct json_node *json_node(const json_t *json) { return (const struct json_node *)json; }

int json_check_depth(const char *text, size_t length, int depth, struct error *error) {
  int level = 0;
  bool string = false;
  for (size_t i = 0; i < length; i++) {
    char c = text[i];
    if (string) {
      if (c == '\\')
        i++;
      else if (c == '"')
        string = false;
    } else if (c == '"') {
      string = true;
    } else if (c == '[' || c == '{') {
      if (++level > depth)
        return error_set(error, ERROR_FORMAT, "JSON nests deeper than %d levels at byte %zu", depth, i);
    } else if (c == ']' || c == '}') {
      level--;
    }
  }
  return 0;
}

/* In words that do not name a flag of a library. */
static const char *reason_of(const json_error_t *why) {
  return json_error_code(why) == json_error_null_character ? "\\u0000 has no place in a string here" : why->text;
}

struct json_node *json_parse(const char *text, size_t length, int depth, struct error *error) {
  if (json_check_depth(text, length, depth, error) != 0) return NULL;
  json_error_t why;
  json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
  if (!root) error_set(error, ERROR_FORMAT, "invalid JSON at line %d column %d: %s", why.line, why.column, reason_of(&why));
  return (struct json_node *)root;
}

struct json_node *json_load(const char *path, size_t limit, int depth, struct error *error) {
  char *text;
  size_t length;
  if (file_read(path, limit, &text, &length, error) != 0) return NULL;
  struct error inner = ERROR_INIT;
  struct json_node *root = json_parse(text, length, depth, &inner);
  free(text);
  if (!root) error_set(error, inner.code, "'%s': %s", path, inner.text);
  return root;
}

void json_free(struct json_node *root) { json_decref((json_t *)root); }

enum json_kind json_kind(const struct json_node *node) {
  if (!node) return JSON_KIND_NONE;
  switch (json_typeof(node_json(node))) {
    case JSON_NULL: return JSON_KIND_NULL;
    case JSON_TRUE:
    case JSON_FALSE: return JSON_KIND_BOOL;
    case JSON_INTEGER: return JSON_KIND_INT;
    case JSON_REAL: return JSON_KIND_REAL;
    case JSON_STRING: return JSON_KIND_STRING;
    case JSON_ARRAY: return JSON_KIND_ARRAY;
    default: return JSON_KIND_OBJECT;
  }
}

const char *json_kind_word(enum json_kind kind) {
  static const char *const words[] = {"nothing",     "null",     "a boolean", "an integer",
                                      "a number",    "a string", "an array",  "an object"};
  return words[kind];
}

const struct json_node *json_get(const struct json_node *object, const char *key) {
  return json_node(json_object_get(node_json(object), key));
}

size_t json_count(const struct json_node *node) {
  const json_t *json = node_json(node);
  return json_is_array(json) ? json_array_size(json) : json_object_size(json);
}

const struct json_node *json_at(const struct json_node *array, size_t i) {
  return json_node(json_array_get(node_json(array), i));
}

const char *json_text(const struct json_node *node, size_t *length) {
  const json_t *json = node_json(node);
  if (!json || !json_is_string(json)) return NULL;
  if (length) *length = json_string_length(json);
  return json_string_value(json);
}

int64_t json_int_or(const struct json_node *node, int64_t fallback) {
  const json_t *json = node_json(node);
  return json && json_is_integer(json) ? (int64_t)json_integer_value(json) : fallback;
}

double json_number_or(const struct json_node *node, double fallback) {
  const json_t *json = node_json(node);
  return json && json_is_number(json) ? json_number_value(json) : fallback;
}

bool json_bool_or(const struct json_node *node, bool fallback) {
  const json_t *json = node_json(node);
  return json && json_is_boolean(json) ? json_is_true(json) : fallback;
}

const char *json_text_or(const struct json_node *node, const char *fallback) {
  const char *text = json_text(node, NULL);
  return text ? text : fallback;
}

bool json_same(const struct json_node *a, const struct json_node *b) {
  const json_t *one = node_json(a), *other = node_json(b);
  if (!one || !other) return one == other;
  if (json_is_number(one) && json_is_number(other) && json_typeof(one) != json_typeof(other)) return json_number_value(one) == json_number_value(other);
  return json_equal(one, other) == 1;
}

bool json_next(const struct json_node *object, void **iterator, const char **key,
               const struct json_node **value) {
  json_t *json = (json_t *)(uintptr_t)node_json(object);
  *iterator = *iterator ? json_object_iter_next(json, *iterator) : json_object_iter(json);
  if (!*iterator) return false;
  *key = json_object_iter_key(*iterator);
  *value = json_node(json_object_iter_value(*iterator));
  return true;
}
