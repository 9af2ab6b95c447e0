/* parse.c: a body or a query is checked by the rows of its route, value by value, and worded where it is wrong.
 *
 * Strict where a mistake could hide: no coercion between strings and numbers (but for an index), no boolean
 * as a number, no fraction where an integer is meant (2.0 is the integer 2, as JavaScript has it), no key twice in any
 * spelling. Knows no endpoint: what is allowed stands in the rows. */
#include "api/parse.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/parse_int.h"
#include "core/base/nearest.h"
#include "core/base/number.h"

/* Members of one object: far more than any endpoint has fields, few enough that looking each up costs nothing. */
#define MEMBERS_MOST 1000

/* What a validation carries down. */
struct parser {
  const struct api_options *options;
  struct arena *arena;
  struct error *error;
  bool strict;
};

/* ---- errors ------------------------------------------------------------------------------------------- */

static int refuse(struct parser *p, const struct field *row, const char *path, const char *found) {
  char allowed[200];
  field_allowed(row, p->options, allowed, sizeof allowed);
  return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' must be %s, found %s", path, allowed, found);
}

static int refuse_json(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  char found[256];
  body_describe(json, found, sizeof found);
  return refuse(p, row, path, found);
}

static int refuse_missing(struct parser *p, const struct field *row, const char *path) {
  char allowed[200];
  field_allowed(row, p->options, allowed, sizeof allowed);
  if (row->unless)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' or '%s' is required; '%s' is %s", path, row->unless, path,
                           allowed);
  return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' is required: %s", path, allowed);
}

/* ---- one value ---------------------------------------------------------------------------------------- */

static int check_number(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  bool kind = row->type == FIELD_NUMBER ? json_is_number(json) : json_is_integer(json);
  double number = kind ? json_number_value(json) : NAN;
  if (!(number >= row->min && number <= field_max(row, p->options))) return refuse_json(p, row, path, json);
  return 0;
}

/* Digits only: no sign, no space, nothing that overflows. */
static bool parse_digits(const char *text, int64_t *out) {
  return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0' && number_parse_int(text, out);
}

static int check_index(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_string(json)) return check_number(p, row, path, json);
  int64_t number;
  if (!parse_digits(json_string_value(json), &number) || (double)number > field_max(row, p->options))
    return refuse_json(p, row, path, json);
  return 0;
}

static size_t count_characters(const char *text, size_t length) {
  size_t count = 0;
  for (size_t i = 0; i < length; i++) count += ((unsigned char)text[i] & 0xC0) != 0x80;
  return count;
}

static int check_characters(struct parser *p, const struct field *row, const char *path, const char *text, size_t length) {
  size_t count = count_characters(text, length);
  double max = field_max(row, p->options);
  if ((double)count >= row->min && (max <= 0 || (double)count <= max)) return 0;
  char found[64];
  snprintf(found, sizeof found, count == 0 ? "an empty string" : "%zu characters", count);
  return refuse(p, row, path, found);
}

static int check_text(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_string(json)) return refuse_json(p, row, path, json);
  return check_characters(p, row, path, json_string_value(json), json_string_length(json));
}

/* The text of a string, or of an integer written out; *out is NULL when it is neither. */
static int name_text(struct parser *p, const json_t *json, const char **out) {
  *out = NULL;
  if (json_is_string(json)) *out = json_string_value(json);
  if (!json_is_integer(json) || json_integer_value(json) < 0) return 0;
  *out = arena_printf(p->arena, p->error, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
  return *out ? 0 : -1;
}

static int check_source(struct parser *p, const struct field *row, const char *path, struct value *value) {
  value->texts = arena_array(p->arena, 1, sizeof *value->texts, p->error);
  if (!value->texts || name_text(p, value->json, &value->texts[0]) != 0) return -1;
  if (!value->texts[0] || !value->texts[0][0]) return refuse_json(p, row, path, value->json);
  return 0;
}

static int check_choice(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (json_is_string(json) && field_word_in(row->choices, json_string_value(json), json_string_length(json)))
    return 0;
  return refuse_json(p, row, path, json);
}

/* ---- lists -------------------------------------------------------------------------------------------- */

static int check_length(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_array(json)) return refuse_json(p, row, path, json);
  double count = (double)json_array_size(json), max = field_max(row, p->options);
  if (count < row->min || (max > 0 && count > max)) return refuse_json(p, row, path, json);
  return 0;
}

static void element_path(char *out, size_t size, const char *path, size_t i) {
  snprintf(out, size, "%.40s[%zu]", path, i);
}

/* An element of a list is named by its place: of a thousand integers, "found -1" alone would be no help. `must` is what it
 * has to be. */
static int refuse_element(struct parser *p, const char *path, size_t i, const char *must, const json_t *list) {
  char element[64], found[256];
  element_path(element, sizeof element, path, i);
  body_describe(json_array_get(list, i), found, sizeof found);
  return error_set_field(p->error, ERROR_ARGUMENT, element, "'%s' must be %s, found %s", element, must, found);
}

/* Every element is an integer, from 0 up unless negative ones count from the end. */
static int check_integers(struct parser *p, const char *path, bool negative, const json_t *list) {
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *element = json_array_get(list, i);
    if (!json_is_integer(element) || (!negative && json_integer_value(element) < 0))
      return refuse_element(p, path, i, negative ? "an integer" : "an integer from 0 up", list);
  }
  return 0;
}

static int check_texts(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_array(json)) return check_text(p, row, path, json);
  int most = field_max_texts(row, p->options);
  size_t count = json_array_size(json);
  if (count == 0 && row->none) return 0;
  if (count < 1 || count > (size_t)most)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' may hold %s %d texts, found %zu", path,
                           row->none ? "up to" : "1 to", most, count);
  struct field one = *row; /* an element is no list again */
  one.type = FIELD_TEXT;
  for (size_t i = 0; i < count; i++) {
    char element[64];
    element_path(element, sizeof element, path, i);
    if (check_text(p, &one, element, json_array_get(json, i)) != 0) return -1;
  }
  return 0;
}

static int check_choices(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_array(json) || json_array_size(json) == 0) return refuse_json(p, row, path, json);
  struct field one = *row;
  one.type = FIELD_CHOICE;
  for (size_t i = 0; i < json_array_size(json); i++) {
    char element[64];
    element_path(element, sizeof element, path, i);
    if (check_choice(p, &one, element, json_array_get(json, i)) != 0) return -1;
  }
  return 0;
}

static int check_names(struct parser *p, const struct field *row, const char *path, struct value *value) {
  if (check_length(p, row, path, value->json) != 0) return -1;
  size_t count = json_array_size(value->json);
  value->texts = arena_array(p->arena, count, sizeof *value->texts, p->error);
  if (!value->texts) return -1;
  for (size_t i = 0; i < count; i++) {
    if (name_text(p, json_array_get(value->json, i), &value->texts[i]) != 0) return -1;
    if (!value->texts[i]) return refuse_element(p, path, i, "a string, or the integer of a layer", value->json);
  }
  return 0;
}

static int check_sources(struct parser *p, const struct field *row, const char *path, struct value *value) {
  if (!json_is_array(value->json)) return check_source(p, row, path, value);
  struct field list = *row;
  list.min = 1;
  if (check_names(p, &list, path, value) != 0) return -1;
  for (size_t i = 0; i < json_array_size(value->json); i++)
    if (!value->texts[i][0]) return refuse_element(p, path, i, "a string such as '7-res-jb', or the integer of a layer", value->json);
  return 0;
}

static int check_ints(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  return check_length(p, row, path, json) == 0 ? check_integers(p, path, false, json) : -1;
}

static int check_numbers(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (check_length(p, row, path, json) != 0) return -1;
  for (size_t i = 0; i < json_array_size(json); i++)
    if (!json_is_number(json_array_get(json, i))) return refuse_element(p, path, i, "a number", json);
  return 0;
}

static int check_places(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (json_is_string(json) && row->choices) return check_choice(p, row, path, json);
  return check_length(p, row, path, json) == 0 ? check_integers(p, path, true, json) : -1;
}

static int check_tokens(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_array(json_array_get(json, 0))) return check_ints(p, row, path, json);
  size_t most = (size_t)field_max_texts(row, p->options), count = json_array_size(json);
  if (count > most)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' may hold 1 to %zu arrays, found %zu", path, most, count);
  struct field one = *row; /* an element holds no arrays again */
  one.type = FIELD_INTS;
  for (size_t i = 0; i < count; i++) {
    char element[64];
    element_path(element, sizeof element, path, i);
    if (check_ints(p, &one, element, json_array_get(json, i)) != 0) return -1;
  }
  return 0;
}

static int check_rows(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (check_length(p, row, path, json) != 0) return -1;
  size_t width = json_array_size(json_array_get(json, 0));
  for (size_t i = 0; i < json_array_size(json); i++) {
    const json_t *line = json_array_get(json, i);
    char element[64], must[80] = "an array of numbers";
    if (i) snprintf(must, sizeof must, "an array of numbers, %zu as in the first", width);
    if (!json_is_array(line) || json_array_size(line) != width) return refuse_element(p, path, i, must, json);
    element_path(element, sizeof element, path, i);
    for (size_t j = 0; j < width; j++)
      if (!json_is_number(json_array_get(line, j))) return refuse_element(p, element, j, "a number", line);
  }
  return 0;
}

static int check_groups(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (check_length(p, row, path, json) != 0) return -1;
  for (size_t i = 0; i < json_array_size(json); i++) {
    const json_t *group = json_array_get(json, i);
    char element[64], must[80];
    snprintf(must, sizeof must, "an array of at most %d strings", row->most);
    if (!json_is_array(group) || json_array_size(group) > (size_t)row->most) return refuse_element(p, path, i, must, json);
    element_path(element, sizeof element, path, i);
    for (size_t j = 0; j < json_array_size(group); j++)
      if (!json_is_string(json_array_get(group, j))) return refuse_element(p, element, j, "a string", group);
  }
  return 0;
}

static int check_prompts(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  const json_t *first = json_array_get(json, 0);
  if (!json_is_array(json) || json_is_string(first)) return check_texts(p, row, path, json);
  if (json_is_integer(first) || json_is_array(first)) return check_tokens(p, row, path, json);
  if (first) return refuse_element(p, path, 0, "a string, an integer from 0 up or an array of such integers", json);
  return refuse_json(p, row, path, json);
}

static int check_weight(struct parser *p, const struct field *row, const char *path, const char *key, const json_t *json,
                        struct weight *out) {
  char element[64];
  snprintf(element, sizeof element, "%.30s[\"%.20s\"]", path, key);
  if (!parse_digits(key, &out->key))
    return error_set_field(p->error, ERROR_ARGUMENT, element, "'%s' does not name a token: names must be token ids, such as \"50256\"",
                           element);
  struct field one = *row;
  one.type = FIELD_NUMBER;
  if (check_number(p, &one, element, json) != 0) return -1;
  out->value = json_number_value(json);
  return 0;
}

static int check_weights(struct parser *p, const struct field *row, const char *path, struct value *value) {
  json_t *object = (json_t *)(uintptr_t)value->json; /* as in collect */
  if (!json_is_object(value->json)) return refuse_json(p, row, path, value->json);
  size_t n = 0;
  const char *key;
  json_t *member;
  if (json_object_size(value->json) > MEMBERS_MOST)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' may have at most %d members, found %zu", path, MEMBERS_MOST,
                           json_object_size(value->json));
  value->weights = arena_array(p->arena, json_object_size(value->json) + 1, sizeof *value->weights, p->error);
  if (!value->weights) return -1;
  json_object_foreach(object, key, member) {
    if (check_weight(p, row, path, key, member, &value->weights[n]) != 0) return -1;
    for (size_t i = 0; i < n; i++)
      if (value->weights[i].key == value->weights[n].key)
        return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' names token %.20s twice", path, key);
    n++;
  }
  return 0;
}

/* One part of a content: its text, or NULL with an error. */
static const char *part_text(struct parser *p, const char *path, size_t i, const json_t *part) {
  const char *type = json_string_value(json_object_get(part, "type")), *text = json_string_value(json_object_get(part, "text"));
  char element[64];
  element_path(element, sizeof element, path, i);
  if (type && strcmp(type, "text") != 0)
    error_set_field(p->error, ERROR_ARGUMENT, element, "'%s' is of type '%.40s': this server reads text only", element, type);
  else if (!type || !text)
    error_set_field(p->error, ERROR_ARGUMENT, element, "'%s' must be {\"type\": \"text\", \"text\": ...}", element);
  else
    return text;
  return NULL;
}

static int check_content(struct parser *p, const struct field *row, const char *path, struct value *value) {
  if (!json_is_array(value->json)) return check_text(p, row, path, value->json);
  size_t length = 0, n = json_array_size(value->json);
  for (size_t i = 0; i < n; i++) {
    const char *text = part_text(p, path, i, json_array_get(value->json, i));
    if (!text) return -1;
    length += strlen(text);
  }
  char *all = arena_alloc(p->arena, length + 1, p->error);
  value->texts = arena_array(p->arena, 1, sizeof *value->texts, p->error);
  if (!all || !value->texts) return -1;
  value->texts[0] = all;
  for (size_t i = 0; i < n; i++) {
    const char *text = json_string_value(json_object_get(json_array_get(value->json, i), "text"));
    memcpy(all, text, strlen(text));
    all += strlen(text);
  }
  return check_characters(p, row, path, value->texts[0], length);
}

static int refuse_field(struct parser *p, const struct field *row, const char *path) {
  return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' is not served: %s", path, row->text);
}

/* ---- objects ------------------------------------------------------------------------------------------ */

/* Whether a row without a value should have one. */
static bool is_missing(const struct values *values, const struct field *row) {
  if (!row->unless) return row->required;
  size_t i = 0;
  while (values->rows[i].name && strcmp(values->rows[i].name, row->unless) != 0) i++;
  return !values->rows[i].name || !values->given[i].json;
}

static struct values *check_object(struct parser *p, const struct field *rows, const char *path,
                                   const json_t *json);

/* "an object with 'tokens' and 'values'": what an object without an example must at least have. */
static void list_required(const struct field *rows, char *out, size_t size) {
  size_t n = 0, at = 0;
  for (const struct field *row = rows; row->name; row++) n += row->required;
  snprintf(out, size, "an object");
  for (const struct field *row = rows; row->name; row++) {
    if (!row->required) continue;
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s'%s'", at == 0 ? " with " : at + 1 == n ? " and " : ", ", row->name);
    at++;
  }
}

static int refuse_member(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  char found[256], must[128];
  body_describe(json, found, sizeof found);
  list_required(row->inner, must, sizeof must);
  if (row->example)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' must be an object such as %s, found %s", path, row->example, found);
  return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' must be %s, found %s", path, must, found);
}

static int check_inner(struct parser *p, const struct field *row, const char *path, struct value *value) {
  bool list = row->type == FIELD_OBJECTS;
  if (list && check_length(p, row, path, value->json) != 0) return -1;
  if (!list && !json_is_object(value->json)) return refuse_json(p, row, path, value->json);
  size_t count = list ? json_array_size(value->json) : 1;
  struct parser inner = *p;
  inner.strict = p->strict || row->strict;
  value->inner = arena_array(p->arena, count, sizeof *value->inner, p->error);
  if (!value->inner) return -1;
  for (size_t i = 0; i < count; i++) {
    char element[64];
    if (list)
      element_path(element, sizeof element, path, i);
    else
      snprintf(element, sizeof element, "%s", path);
    const json_t *json = list ? json_array_get(value->json, i) : value->json;
    if (!json_is_object(json)) return refuse_member(p, row, element, json);
    value->inner[i] = check_object(&inner, row->inner, element, json);
    if (!value->inner[i]) return -1;
  }
  return 0;
}

static int check_value(struct parser *p, const struct field *row, const char *path, struct value *value) {
  const json_t *json = value->json;
  switch (row->type) {
    case FIELD_BOOL: return json_is_boolean(json) ? 0 : refuse_json(p, row, path, json);
    case FIELD_INT:
    case FIELD_NUMBER: return check_number(p, row, path, json);
    case FIELD_INDEX: return check_index(p, row, path, json);
    case FIELD_TEXT: return check_text(p, row, path, json);
    case FIELD_SOURCE: return check_source(p, row, path, value);
    case FIELD_SOURCES: return check_sources(p, row, path, value);
    case FIELD_TEXTS: return check_texts(p, row, path, json);
    case FIELD_CHOICE: return check_choice(p, row, path, json);
    case FIELD_CHOICES: return check_choices(p, row, path, json);
    case FIELD_NAMES: return check_names(p, row, path, value);
    case FIELD_INTS: return check_ints(p, row, path, json);
    case FIELD_NUMBERS: return check_numbers(p, row, path, json);
    case FIELD_PLACES: return check_places(p, row, path, json);
    case FIELD_TOKENS: return check_tokens(p, row, path, json);
    case FIELD_PROMPTS: return check_prompts(p, row, path, json);
    case FIELD_WEIGHTS: return check_weights(p, row, path, value);
    case FIELD_CONTENT: return check_content(p, row, path, value);
    case FIELD_REFUSED: return refuse_field(p, row, path);
    case FIELD_ROWS: return check_rows(p, row, path, json);
    case FIELD_GROUPS: return check_groups(p, row, path, json);
    default: return check_inner(p, row, path, value);
  }
}

static size_t count_rows(const struct field *rows) {
  size_t count = 0;
  while (rows[count].name) count++;
  return count;
}

/* The row that was probably meant: by a word that others use for it, else by its letters. NULL: none. */
static const char *meant_field(const struct field *rows, const char *given) {
  const char *names[MEMBERS_MOST];
  size_t n = 0;
  for (const struct field *row = rows; row->name && n < MEMBERS_MOST; row++) {
    if (row->meant && field_word_in(row->meant, given, strlen(given))) return row->name;
    names[n++] = row->name;
  }
  return nearest_name(given, names, n);
}

static int refuse_unknown(struct parser *p, const struct field *rows, const char *path, const char *given) {
  const char *meant = meant_field(rows, given);
  char field[64];
  snprintf(field, sizeof field, "%s%s%.40s", path, path[0] ? "." : "", given);
  if (meant) return error_set_field(p->error, ERROR_ARGUMENT, field, "unknown field '%s': did you mean '%s'", field, meant);
  return error_set_field(p->error, ERROR_ARGUMENT, field, "unknown field '%s': GET /docs lists the fields", field);
}

/* Finds the row of every member; a field may be spelled in one way only. */
static int collect(struct parser *p, struct values *values, const char *path, const json_t *json) {
  const char *key;
  json_t *member, *object = (json_t *)(uintptr_t)json; /* jansson's iterator wants it writable, and writes not */
  if (json_object_size(json) > MEMBERS_MOST)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "an object may have at most %d members, found %zu",
                           MEMBERS_MOST, json_object_size(json));
  json_object_foreach(object, key, member) {
    size_t i = 0;
    while (values->rows[i].name && !field_answers(&values->rows[i], key)) i++;
    if (!values->rows[i].name) {
      if (p->strict) return refuse_unknown(p, values->rows, path, key);
      continue;
    }
    if (values->given[i].given)
      return error_set_field(p->error, ERROR_ARGUMENT, values->rows[i].name,
                             "'%s' is given twice, as '%.40s' and as '%.40s'", values->rows[i].name,
                             values->given[i].given, key);
    values->given[i].given = key;
    if (!json_is_null(member)) values->given[i].json = member;
  }
  return 0;
}

static struct values *check_object(struct parser *p, const struct field *rows, const char *path,
                                   const json_t *json) {
  if (!json_is_object(json)) {
    char found[256];
    body_describe(json, found, sizeof found);
    error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' must be an object, found %s", path, found);
    return NULL;
  }
  struct values *values = arena_alloc(p->arena, sizeof *values, p->error);
  if (!values) return NULL;
  values->options = p->options;
  values->rows = rows;
  values->given = arena_array(p->arena, count_rows(rows), sizeof *values->given, p->error);
  if (!values->given || collect(p, values, path, json) != 0) return NULL;
  for (size_t i = 0; rows[i].name; i++) {
    char field[64];
    snprintf(field, sizeof field, "%s%s%s", path, path[0] ? "." : "", rows[i].name);
    if (!values->given[i].json && !is_missing(values, &rows[i])) continue;
    if (!values->given[i].json) return refuse_missing(p, &rows[i], field), NULL;
    if (check_value(p, &rows[i], field, &values->given[i]) != 0) return NULL;
  }
  return values;
}

/* ---- requests ----------------------------------------------------------------------------------------- */

/* Takes root. */
static struct values *check_root(struct parser *p, const struct field *rows, json_t *root) {
  struct values *values = check_object(p, rows, "", root);
  if (values)
    values->root = root;
  else
    json_decref(root);
  return values;
}

struct values *parse_body(const char *body, size_t length, const struct field *rows, bool strict,
                          const struct api_options *options, struct arena *arena, struct error *error) {
  json_t *root = body_load(body, length, rows, options, error);
  if (!root) return NULL;
  struct parser parser = {options, arena, error, strict};
  return check_root(&parser, rows, root);
}

struct values *parse_query(const struct api_pair *pairs, size_t n, const struct field *rows, bool strict,
                           const struct api_options *options, struct arena *arena, struct error *error) {
  json_t *root = body_of_query(pairs, n, rows, error);
  if (!root) return NULL;
  struct parser parser = {options, arena, error, strict};
  return check_root(&parser, rows, root);
}

void parse_free(struct values *values) {
  if (values) json_decref(values->root);
}
