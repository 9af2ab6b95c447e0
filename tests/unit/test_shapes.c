/* The notation of replies as JSON schemas, and that every endpoint's is well formed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/shapes.h"

static void expect_schema(const char *body, const char *schema) {
  struct buffer out;
  struct json_writer w;
  buffer_init(&out, 0);
  jw_init(&w, &out);
  shape_write(&w, body);
  assert_int_equal(buffer_check(&out, NULL), 0);
  assert_string_equal(out.data, schema);
  buffer_clear(&out);
}

static void test_notation(void **state) {
  (void)state;
  expect_schema("text", "{\"type\":\"string\"}");
  expect_schema("number?", "{\"type\":[\"number\",\"null\"]}");
  expect_schema("any", "{}");
  expect_schema("[integer?]?", "{\"type\":[\"array\",\"null\"],\"items\":{\"type\":[\"integer\",\"null\"]}}");
  expect_schema("text|[text]|null", "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"
                                    "{\"type\":\"null\"}]}");
  expect_schema("{}", "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}");
  expect_schema("{a: text, b?: {c: boolean}?, d: text|integer}",
                "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":[\"object\",\"null\"],\"properties\":"
                "{\"c\":{\"type\":\"boolean\"}},\"required\":[\"c\"],\"additionalProperties\":false},\"d\":{\"anyOf\":[{\"type\":"
                "\"string\"},{\"type\":\"integer\"}]}},\"required\":[\"a\",\"d\"],\"additionalProperties\":false}");
  expect_schema("{a: any, ...}", "{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\"],\"additionalProperties\":true}");
  expect_schema("{*: [number]}", "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":{\"type\":\"array\",\"items\":"
                                 "{\"type\":\"number\"}}}");
  expect_schema("[@Job]", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Job\"}}");
  expect_schema("@Job?", "{\"anyOf\":[{\"$ref\":\"#/components/schemas/Job\"},{\"type\":\"null\"}]}");
}

/* ---- the table ---------------------------------------------------------------------------------------- */

static bool is_named(const char *name, size_t length) {
  const char *known, *body;
  for (size_t i = 0; (known = shape_name(i, &body)); i++)
    if (strlen(known) == length && strncmp(known, name, length) == 0) return true;
  return false;
}

/* Reads one shape strictly, and returns what stands behind it. */
static const char *read_shape(const char *at);

static const char *read_members(const char *at) {
  while (*at != '}') {
    size_t n = *at == '*' ? 1 : strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (strncmp(at, "...}", 4) == 0) return at + 4;
    if (n == 0 || n > 63) fail_msg("no name at '%.40s'", at);
    at += n;
    at += *at == '?';
    if (strncmp(at, ": ", 2) != 0) fail_msg("no ': ' at '%.40s'", at);
    at = read_shape(at + 2);
    if (*at == '}') break;
    if (strncmp(at, ", ", 2) != 0) fail_msg("no ', ' at '%.40s'", at);
    at += 2;
  }
  return at + 1;
}

static const char *read_part(const char *at) {
  static const char *const words[] = {"text", "integer", "number", "boolean", "null", "any"};
  if (*at == '{') return read_members(at + 1);
  if (*at == '[') {
    at = read_shape(at + 1);
    if (*at != ']') fail_msg("no ']' at '%.40s'", at);
    return at + 1;
  }
  size_t n = strspn(at + (*at == '@'), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
  bool known = *at == '@' && is_named(at + 1, n);
  for (size_t i = 0; *at != '@' && i < sizeof words / sizeof words[0]; i++)
    known |= strlen(words[i]) == n && strncmp(words[i], at, n) == 0;
  if (!known) fail_msg("neither a word nor a name at '%.40s'", at);
  return at + n + (*at == '@');
}

static const char *read_shape(const char *at) {
  for (;; at++) {
    at = read_part(at);
    at += *at == '?';
    if (*at != '|') return at;
  }
}

static void expect_well_formed(const char *body) {
  const char *end = read_shape(body);
  if (*end) fail_msg("'%.40s' is left over", end);
  struct buffer out;
  struct json_writer w;
  buffer_init(&out, 0);
  jw_init(&w, &out);
  shape_write(&w, body);
  json_t *schema = json_loadb(out.data, out.length, JSON_REJECT_DUPLICATES, NULL);
  if (!schema) fail_msg("no schema comes of '%.60s'", body);
  json_decref(schema);
  buffer_clear(&out);
}

static void test_table(void **state) {
  (void)state;
  const char *body;
  for (size_t i = 0; shape_name(i, &body); i++) expect_well_formed(body);
  for (size_t i = 0; i < n_routes; i++) {
    const struct shape *shape = shape_of(&routes[i]);
    if (!routes[i].handler) assert_null(shape);
    if (routes[i].handler && !shape)
      fail_msg("%s %s: nobody has written down what it answers (api/shapes.c)", routes[i].method, routes[i].path);
    if (shape && shape->body) expect_well_formed(shape->body);
  }
}

/* Where names are not ours to tell: arguments of jobs, which other versions may have made, graphs that other tools have made, and the
 * specification itself. */
static bool may_be_open(const char *body) {
  return strstr(body, "maxTokens?: integer, ...}") || strstr(body, "prompt_tokens: [text], ...}") || strncmp(body, "{openapi: ", 10) == 0;
}

static void expect_closed(const char *name, const char *body) {
  if (strstr(body, "...") && !may_be_open(body)) fail_msg("%s: '...' says nothing, and finds nothing: %s", name, body);
}

static void test_closed(void **state) {
  (void)state;
  const char *name, *body;
  for (size_t i = 0; (name = shape_name(i, &body)); i++) expect_closed(name, body);
  for (size_t i = 0; i < n_routes; i++) {
    const struct shape *shape = shape_of(&routes[i]);
    if (shape && shape->body) expect_closed(routes[i].path, shape->body);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_notation), cmocka_unit_test(test_table), cmocka_unit_test(test_closed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
