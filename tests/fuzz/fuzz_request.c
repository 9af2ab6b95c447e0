/* A request before any handler sees it; the first byte says what the others are: a body for rows of every kind of field; the target of a GET,
 * split and read by the same rows; a head of lines for the guard. What is accepted is read through every getter, and must keep what the
 * rows promise. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/parse.h"
#include "core/base/utf8.h"
#include "server/guard.h"

static const struct field inner_rows[] = {
    {"index", INDEX_MEANT, FIELD_INDEX, .required = true, .max = 1e6, .text = "i"},
    {"strength", NULL, FIELD_NUMBER, .fallback = "1", .min = -300, .max = 300, .text = "s"},
    {.name = NULL}};

static const struct field rows[] = {
    {"flag", NULL, FIELD_BOOL, .fallback = "true", .text = "b"},
    {"count", "n_tokens num", FIELD_INT, .fallback = "3", .min = -5, .max = 100, .text = "i"},
    {"number", NULL, FIELD_NUMBER, .min = -2.5, .max = 1e6, .text = "n"},
    {"index", NULL, FIELD_INDEX, .max = 1e9, .text = "x"},
    {"text", "prompt", FIELD_TEXT, .min = 1, .max = 12, .text = "t"},
    {"source", "layer", FIELD_SOURCE, .max = 64, .text = "s"},
    {"sources", NULL, FIELD_SOURCES, .max = 3, .text = "s"},
    {"texts", NULL, FIELD_TEXTS, .min = 1, .max = 9, .none = true, .text = "t"},
    {"choice", NULL, FIELD_CHOICE, .fallback = "one", .choices = "one two", .text = "c"},
    {"choices", NULL, FIELD_CHOICES, .choices = "one two", .text = "c"},
    {"names", NULL, FIELD_NAMES, .max = 4, .text = "n"},
    {"ints", NULL, FIELD_INTS, .min = 1, .max = 4, .text = "i"},
    {"numbers", NULL, FIELD_NUMBERS, .min = 1, .max = 4, .text = "n"},
    {"places", NULL, FIELD_PLACES, .min = 1, .max = 4, .choices = "all last", .text = "p"},
    {"tokens", NULL, FIELD_TOKENS, .min = 1, .max = 4, .text = "t"},
    {"prompts", NULL, FIELD_PROMPTS, .min = 1, .max = 9, .text = "p"},
    {"weights", NULL, FIELD_WEIGHTS, .min = -100, .max = 100, .text = "w"},
    {"content", NULL, FIELD_CONTENT, .min = 1, .max = 12, .text = "c"},
    {"refused", NULL, FIELD_REFUSED, .text = "not here"},
    {"grid", NULL, FIELD_ROWS, .min = 1, .max = 3, .text = "r"},
    {"one", NULL, FIELD_OBJECT, .inner = inner_rows, .text = "o"},
    {"many", NULL, FIELD_OBJECTS, .max = 3, .inner = inner_rows, .strict = true, .text = "o"},
    {.name = NULL}};

static const struct api_options options = {.max_body = 8192, .max_json_depth = 16, .max_texts = 5, .max_features = 4, .max_new_tokens = 50,
                                           .max_prompt_chars = 100};

static void must(bool holds) {
  if (!holds) abort();
}

static void check_within(double value, const struct field *row) { must(value >= row->min && value <= field_max(row, &options)); }

static void check_text(const char *text, size_t length) { must(text && strlen(text) == length && utf8_valid(text, length, NULL)); }

static void check_texts(const struct values *values, const struct field *row) {
  for (size_t i = 0; i < values_count(values, row->name); i++) {
    size_t length;
    const char *text = values_text_at(values, row->name, i, &length);
    if (text) check_text(text, length); /* of FIELD_NAMES and FIELD_SOURCES a layer may stand there */
  }
}

static void check_rows(const struct values *values, const struct field *row) {
  for (size_t i = 0; i < values_rows(values, row->name); i++)
    for (size_t j = 0; j < values_row_count(values, row->name, i); j++) must(isfinite(values_row_at(values, row->name, i, j)));
}

static void check_values(const struct values *values, const struct field *list);

static void check_lists(const struct values *values, const struct field *row) {
  size_t n = values_count(values, row->name);
  switch (row->type) {
    case FIELD_INTS: case FIELD_PLACES:
      for (size_t i = 0; i < n && values_is_list(values, row->name); i++) must(row->type == FIELD_PLACES || values_int_at(values, row->name, i) >= 0);
      break;
    case FIELD_NUMBERS:
      for (size_t i = 0; i < n; i++) must(isfinite(values_number_at(values, row->name, i)));
      break;
    case FIELD_WEIGHTS:
      for (size_t i = 0; i < n; i++) {
        must(values_key_at(values, row->name, i) >= 0);
        must(fabs(values_weight_at(values, row->name, i)) <= 100);
      }
      break;
    case FIELD_OBJECT: case FIELD_OBJECTS:
      for (size_t i = 0; i < (row->type == FIELD_OBJECT ? (size_t)values_has(values, row->name) : n); i++)
        check_values(values_at(values, row->name, i), row->inner);
      break;
    default: break;
  }
}

static void check_value(const struct values *values, const struct field *row) {
  size_t length;
  switch (row->type) {
    case FIELD_BOOL: (void)values_bool(values, row->name); break;
    case FIELD_INT: case FIELD_INDEX: check_within((double)values_int(values, row->name), row); break;
    case FIELD_NUMBER: check_within(values_number(values, row->name), row); break;
    case FIELD_TEXT: case FIELD_SOURCE: case FIELD_CHOICE: case FIELD_CONTENT: {
      const char *text = values_text(values, row->name, &length);
      if (text) check_text(text, length);
      must(row->type != FIELD_CHOICE || strcmp(text, "one") == 0 || strcmp(text, "two") == 0);
      break;
    }
    case FIELD_SOURCES: case FIELD_TEXTS: case FIELD_CHOICES: case FIELD_NAMES: check_texts(values, row); break;
    case FIELD_TOKENS: case FIELD_ROWS: check_rows(values, row); break;
    case FIELD_PROMPTS:
      if (values_are_tokens(values, row->name)) check_rows(values, row);
      else check_texts(values, row);
      break;
    case FIELD_REFUSED: must(!values_has(values, row->name)); break;
    default: check_lists(values, row); break;
  }
}

static void check_values(const struct values *values, const struct field *list) {
  must(values != NULL);
  for (const struct field *row = list; row->name; row++) check_value(values, row);
  (void)values_are_snake(values);
}

static void settle(struct values *values, const struct error *error) {
  if (values) check_values(values, rows);
  else must(error->code == ERROR_ARGUMENT && error->text[0] && utf8_valid(error->text, strlen(error->text), NULL));
  parse_free(values);
}

/* ---- the three ---- */

static void read_body(const char *data, size_t size, bool strict) {
  struct arena arena;
  struct error error = ERROR_INIT;
  arena_init(&arena, 1 << 22);
  settle(parse_body(data, size, rows, strict, &options, &arena, &error), &error);
  arena_clear(&arena);
}

static void read_target(const char *data, size_t size) {
  struct arena arena;
  struct error error = ERROR_INIT;
  struct guard_target target;
  struct guard_refusal refusal = {0};
  char *text = malloc(size + 1);
  memcpy(text, data, size);
  text[size] = '\0';
  arena_init(&arena, 1 << 22);
  if (guard_split(text, &arena, &target, &refusal) != 0) {
    must(refusal.status == 400 && refusal.text[0]);
  } else {
    must(target.path[0] == '/' && utf8_valid(target.path, strlen(target.path), NULL) && !strstr(target.path, "/../"));
    settle(parse_query(target.query, target.n_query, rows, true, &options, &arena, &error), &error);
  }
  arena_clear(&arena);
  free(text);
}

enum { FIELDS = 12 };

/* "METHOD\nname:value\nname:value": lines are what the library hands over. */
static void read_head(const char *data, size_t size) {
  static const struct guard_limits limits = {4096, 10};
  struct api_pair fields[FIELDS];
  struct guard_body body;
  struct guard_refusal refusal = {0};
  char *text = malloc(size + 1), *next = text;
  memcpy(text, data, size);
  text[size] = '\0';
  size_t n = 0;
  const char *method = strsep(&next, "\n");
  while (next && n < FIELDS) {
    char *value = strsep(&next, "\n"), *name = strsep(&value, ":");
    fields[n++] = (struct api_pair){name, value ? value : ""};
  }
  const struct guard_head head = {method, size & 1 ? "HTTP/1.1" : "HTTP/1.0", "/", fields, n, size};
  if (guard_check(&head, &limits, &body, &refusal) != 0) must(refusal.status >= 400 && refusal.text[0]);
  else must(n <= 10 && !(body.chunked && body.length));
  const char *id = guard_header(fields, n, "X-Request-Id");
  must(!id || !guard_is_request_id(id) || strlen(id) <= 64);
  (void)guard_accepts_gzip(guard_header(fields, n, "accept-encoding"));
  (void)guard_is_seamless(text, text + size, fields, n);
  free(text);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size == 0) return 0;
  const char *rest = (const char *)data + 1;
  switch (data[0] & 3) {
    case 0: read_body(rest, size - 1, false); break;
    case 1: read_target(rest, size - 1); break;
    case 2: read_head(rest, size - 1); break;
    default: read_body(rest, size - 1, true); break;
  }
  return 0;
}
