/* values.c: the getters of a checked request. Nothing here can fail: parse.c has looked at every value by its row, so a name
 * without a row is a mistake of the handler. */
#include <assert.h>
#include <string.h>

#include "api/parse_int.h"
#include "core/base/number.h"

static size_t find(const struct values *values, const char *name) {
  size_t i = 0;
  while (values->rows[i].name && strcmp(values->rows[i].name, name) != 0) i++;
  assert(values->rows[i].name);
  return i;
}

bool values_has(const struct values *values, const char *name) { return values->given[find(values, name)].json; }

bool values_bool(const struct values *values, const char *name) {
  size_t i = find(values, name);
  assert(values->rows[i].type == FIELD_BOOL);
  if (values->given[i].json) return json_is_true(values->given[i].json);
  return values->rows[i].fallback && strcmp(values->rows[i].fallback, "true") == 0;
}

int64_t values_int(const struct values *values, const char *name) {
  size_t i = find(values, name);
  const struct field *row = &values->rows[i];
  assert(row->type == FIELD_INT || row->type == FIELD_INDEX);
  const json_t *json = values->given[i].json;
  int64_t number = 0;
  if (!json) return (int64_t)field_default(row, values->options);
  if (json_is_integer(json)) return (int64_t)json_integer_value(json);
  return number_parse_int(json_string_value(json), &number) ? number : 0;
}

double values_number(const struct values *values, const char *name) {
  size_t i = find(values, name);
  const json_t *json = values->given[i].json;
  assert(values->rows[i].type == FIELD_NUMBER);
  return json ? json_number_value(json) : field_default(&values->rows[i], values->options);
}

static const char *string_text(const json_t *json, size_t *length) {
  if (length) *length = json_string_length(json);
  return json_string_value(json);
}

static const char *plain_text(const char *text, size_t *length) {
  if (length) *length = text ? strlen(text) : 0;
  return text;
}

const char *values_text(const struct values *values, const char *name, size_t *length) {
  size_t i = find(values, name);
  const struct value *value = &values->given[i];
  if (!value->json) return plain_text(values->rows[i].fallback, length);
  return value->texts ? plain_text(value->texts[0], length) : string_text(value->json, length);
}

bool values_is_list(const struct values *values, const char *name) {
  return json_is_array(values->given[find(values, name)].json);
}

size_t values_count(const struct values *values, const char *name) {
  const json_t *json = values->given[find(values, name)].json;
  if (!json) return 0;
  if (values->given[find(values, name)].weights) return json_object_size(json);
  return json_is_array(json) ? json_array_size(json) : 1;
}

const char *values_text_at(const struct values *values, const char *name, size_t i, size_t *length) {
  const struct value *value = &values->given[find(values, name)];
  assert(i < values_count(values, name));
  if (value->texts) return plain_text(value->texts[i], length);
  return string_text(json_is_array(value->json) ? json_array_get(value->json, i) : value->json, length);
}

int64_t values_int_at(const struct values *values, const char *name, size_t i) {
  return (int64_t)json_integer_value(json_array_get(values->given[find(values, name)].json, i));
}

double values_number_at(const struct values *values, const char *name, size_t i) {
  return json_number_value(json_array_get(values->given[find(values, name)].json, i));
}

bool values_is_nested(const struct values *values, const char *name) {
  return json_is_array(json_array_get(values->given[find(values, name)].json, 0));
}

bool values_are_tokens(const struct values *values, const char *name) {
  const json_t *json = values->given[find(values, name)].json, *first = json_array_get(json, 0);
  return json_is_array(json) && !json_is_string(first);
}

int64_t values_key_at(const struct values *values, const char *name, size_t i) {
  return values->given[find(values, name)].weights[i].key;
}

double values_weight_at(const struct values *values, const char *name, size_t i) {
  return values->given[find(values, name)].weights[i].value;
}

/* Array i of a list of arrays, or the list itself. */
static const json_t *row_of(const struct values *values, const char *name, size_t i) {
  const json_t *json = values->given[find(values, name)].json;
  return values_is_nested(values, name) ? json_array_get(json, i) : json;
}

size_t values_rows(const struct values *values, const char *name) {
  if (!values_has(values, name)) return 0;
  return values_is_nested(values, name) ? values_count(values, name) : 1;
}

size_t values_row_count(const struct values *values, const char *name, size_t i) {
  return json_array_size(row_of(values, name, i));
}

double values_row_at(const struct values *values, const char *name, size_t i, size_t j) {
  return json_number_value(json_array_get(row_of(values, name, i), j));
}

const char *values_group_at(const struct values *values, const char *name, size_t i, size_t j) {
  return json_string_value(json_array_get(row_of(values, name, i), j));
}

const char *values_given(const struct values *values, const char *name) {
  const struct value *value = &values->given[find(values, name)];
  return value->json ? value->given : NULL;
}

bool values_are_snake(const struct values *values) {
  for (size_t i = 0; values->rows[i].name; i++)
    if (values->given[i].given && strchr(values->given[i].given, '_')) return true;
  return false;
}

const struct values *values_at(const struct values *values, const char *name, size_t i) {
  const struct value *value = &values->given[find(values, name)];
  return value->json && value->inner ? value->inner[i] : NULL;
}
