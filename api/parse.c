/* parse.c: the body's JSON, or the query made into the same, read by the rows of its route. The only file of this room that knows jansson.
 *
 * Strict where a mistake could hide: no coercion between strings and numbers (but for an index), no boolean
 * as a number, no fraction where an integer is meant (2.0 is the integer 2, as JavaScript has it), no key twice in any
 * spelling. */
#include "api/parse.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/number.h"
#include "core/base/utf8.h"

/* Members of one object: far more than any endpoint has fields, few enough that looking each up costs nothing. */
#define MEMBERS_MOST 1000

/* One field that was given. */
struct value {
  const json_t *json;     /* NULL: absent or null */
  const char *given;      /* its spelling in the body */
  const char **texts;     /* FIELD_SOURCE and FIELD_NAMES: integers written out */
  struct values **inner;  /* FIELD_OBJECT, FIELD_OBJECTS */
};

struct values {
  json_t *root; /* owned by the outermost only */
  const struct api_options *options;
  const struct field *rows;
  struct value *given; /* beside rows */
};

/* What a validation carries down. */
struct parser {
  const struct api_options *options;
  struct arena *arena;
  struct error *error;
  bool strict;
};

/* ---- errors ------------------------------------------------------------------------------------------- */

/* What stands there, short enough for a message: `the string "hot"`, `1000`, `null`. */
static void describe(const json_t *json, char *out, size_t size) {
  switch (json_typeof(json)) {
    case JSON_OBJECT: snprintf(out, size, "an object"); return;
    case JSON_ARRAY: snprintf(out, size, "an array of %zu", json_array_size(json)); return;
    case JSON_STRING: {
      const char *text = json_string_value(json);
      size_t shown = 0, length = json_string_length(json);
      for (uint32_t point; shown < length && shown < 40;) {
        int n = utf8_next(text + shown, length - shown, &point);
        if (n <= 0) break;
        shown += (size_t)n;
      }
      snprintf(out, size, "the string \"%.*s\"%s", (int)shown, text, shown < length ? "..." : "");
      return;
    }
    case JSON_INTEGER: snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(json)); return;
    case JSON_REAL: number_f64(json_real_value(json), out); return;
    case JSON_TRUE: snprintf(out, size, "true"); return;
    case JSON_FALSE: snprintf(out, size, "false"); return;
    default: snprintf(out, size, "null"); return;
  }
}

static int refuse(struct parser *p, const struct field *row, const char *path, const char *found) {
  char allowed[200];
  field_allowed(row, p->options, allowed, sizeof allowed);
  return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' must be %s, found %s", path, allowed, found);
}

static int refuse_json(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  char found[256];
  describe(json, found, sizeof found);
  return refuse(p, row, path, found);
}

static int refuse_missing(struct parser *p, const struct field *row, const char *path) {
  char allowed[200];
  field_allowed(row, p->options, allowed, sizeof allowed);
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

static int check_text(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_string(json)) return refuse_json(p, row, path, json);
  size_t count = count_characters(json_string_value(json), json_string_length(json));
  double max = field_max(row, p->options);
  if ((double)count >= row->min && (max <= 0 || (double)count <= max)) return 0;
  char found[64];
  snprintf(found, sizeof found, count == 0 ? "an empty string" : "%zu characters", count);
  return refuse(p, row, path, found);
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

static int check_texts(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_array(json)) return check_text(p, row, path, json);
  int most = field_max_texts(p->options);
  size_t count = json_array_size(json);
  if (count < 1 || count > (size_t)most)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' may hold 1 to %d texts, found %zu", path, most,
                           count);
  for (size_t i = 0; i < count; i++) {
    char element[64];
    element_path(element, sizeof element, path, i);
    if (check_text(p, row, element, json_array_get(json, i)) != 0) return -1;
  }
  return 0;
}

static int check_choices(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_array(json) || json_array_size(json) == 0) return refuse_json(p, row, path, json);
  for (size_t i = 0; i < json_array_size(json); i++)
    if (check_choice(p, row, path, json_array_get(json, i)) != 0) return -1;
  return 0;
}

static int check_names(struct parser *p, const struct field *row, const char *path, struct value *value) {
  if (check_length(p, row, path, value->json) != 0) return -1;
  size_t count = json_array_size(value->json);
  value->texts = arena_array(p->arena, count, sizeof *value->texts, p->error);
  if (!value->texts) return -1;
  for (size_t i = 0; i < count; i++) {
    if (name_text(p, json_array_get(value->json, i), &value->texts[i]) != 0) return -1;
    if (!value->texts[i]) return refuse_json(p, row, path, json_array_get(value->json, i));
  }
  return 0;
}

static int check_ints(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (check_length(p, row, path, json) != 0) return -1;
  for (size_t i = 0; i < json_array_size(json); i++) {
    const json_t *element = json_array_get(json, i);
    if (!json_is_integer(element) || json_integer_value(element) < 0) return refuse_json(p, row, path, element);
  }
  return 0;
}

static int check_numbers(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (check_length(p, row, path, json) != 0) return -1;
  for (size_t i = 0; i < json_array_size(json); i++)
    if (!json_is_number(json_array_get(json, i))) return refuse_json(p, row, path, json_array_get(json, i));
  return 0;
}

static int check_places(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (json_is_string(json) && row->choices) return check_choice(p, row, path, json);
  if (check_length(p, row, path, json) != 0) return -1;
  for (size_t i = 0; i < json_array_size(json); i++)
    if (!json_is_integer(json_array_get(json, i))) return refuse_json(p, row, path, json_array_get(json, i));
  return 0;
}

static int check_tokens(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (!json_is_array(json_array_get(json, 0))) return check_ints(p, row, path, json);
  size_t most = (size_t)field_max_texts(p->options), count = json_array_size(json);
  if (count > most)
    return error_set_field(p->error, ERROR_ARGUMENT, path, "'%s' may hold 1 to %zu arrays, found %zu", path, most, count);
  for (size_t i = 0; i < count; i++) {
    char element[64];
    element_path(element, sizeof element, path, i);
    if (check_ints(p, row, element, json_array_get(json, i)) != 0) return -1;
  }
  return 0;
}

static int check_rows(struct parser *p, const struct field *row, const char *path, const json_t *json) {
  if (check_length(p, row, path, json) != 0) return -1;
  size_t width = json_array_size(json_array_get(json, 0));
  for (size_t i = 0; i < json_array_size(json); i++) {
    const json_t *line = json_array_get(json, i);
    if (!json_is_array(line) || json_array_size(line) != width) return refuse_json(p, row, path, line);
    for (size_t j = 0; j < width; j++)
      if (!json_is_number(json_array_get(line, j))) return refuse_json(p, row, path, json_array_get(line, j));
  }
  return 0;
}

/* ---- objects ------------------------------------------------------------------------------------------ */

static struct values *check_object(struct parser *p, const struct field *rows, const char *path,
                                   const json_t *json);

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
    case FIELD_TEXTS: return check_texts(p, row, path, json);
    case FIELD_CHOICE: return check_choice(p, row, path, json);
    case FIELD_CHOICES: return check_choices(p, row, path, json);
    case FIELD_NAMES: return check_names(p, row, path, value);
    case FIELD_INTS: return check_ints(p, row, path, json);
    case FIELD_NUMBERS: return check_numbers(p, row, path, json);
    case FIELD_PLACES: return check_places(p, row, path, json);
    case FIELD_TOKENS: return check_tokens(p, row, path, json);
    case FIELD_ROWS: return check_rows(p, row, path, json);
    default: return check_inner(p, row, path, value);
  }
}

static size_t count_rows(const struct field *rows) {
  size_t count = 0;
  while (rows[count].name) count++;
  return count;
}

/* Edit distance of two short names (letters changed, added or left out), at most `most`. */
static int name_distance(const char *a, const char *b, int most) {
  enum { LONGEST = 40 };
  size_t n = strlen(a), m = strlen(b);
  if (n > LONGEST || m > LONGEST) return most;
  int row[LONGEST + 1];
  for (size_t j = 0; j <= m; j++) row[j] = (int)j;
  for (size_t i = 1; i <= n; i++) {
    int diagonal = row[0];
    row[0] = (int)i;
    for (size_t j = 1; j <= m; j++) {
      int change = diagonal + (a[i - 1] != b[j - 1]), add = row[j - 1] + 1, drop = row[j] + 1;
      diagonal = row[j];
      row[j] = change < add ? (change < drop ? change : drop) : (add < drop ? add : drop);
    }
  }
  return row[m] < most ? row[m] : most;
}

static int refuse_unknown(struct parser *p, const struct field *rows, const char *path, const char *given) {
  const char *nearest = NULL;
  int best = 4; /* farther than three letters is no typing mistake */
  for (const struct field *row = rows; row->name; row++) {
    int distance = name_distance(given, row->name, best);
    if (distance < best) best = distance, nearest = row->name;
  }
  char field[64];
  snprintf(field, sizeof field, "%s%s%.40s", path, path[0] ? "." : "", given);
  if (nearest)
    return error_set_field(p->error, ERROR_ARGUMENT, field, "unknown field '%s': did you mean '%s'", field, nearest);
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
    describe(json, found, sizeof found);
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
    if (!values->given[i].json && !rows[i].required) continue;
    if (!values->given[i].json) return refuse_missing(p, &rows[i], field), NULL;
    if (check_value(p, &rows[i], field, &values->given[i]) != 0) return NULL;
  }
  return values;
}

/* ---- the body ----------------------------------------------------------------------------------------- */

static int refuse_syntax(const json_error_t *why, struct error *error) {
  const char *text = why->text;
  if (why->line < 1) return error_set(error, ERROR_MEMORY, "out of memory while reading the body");
  switch (json_error_code(why)) {
    case json_error_out_of_memory: return error_set(error, ERROR_MEMORY, "out of memory while reading the body");
    case json_error_null_character: text = "the character \\u0000 is not allowed in a text"; break;
    case json_error_invalid_utf8: text = "the bytes are not UTF-8"; break;
    default: break;
  }
  return error_set(error, ERROR_ARGUMENT, "the body is not valid JSON at line %d column %d: %s", why->line,
                   why->column, text);
}

static json_t *new_object(struct error *error) {
  json_t *object = json_object();
  if (!object) error_memory(error, sizeof(void *));
  return object;
}

/* {name: array}, which takes the array. */
static json_t *wrap(json_t *array, const char *name, struct error *error) {
  json_t *object = new_object(error);
  if (object && json_object_set_new(object, name, array) == 0) return object;
  if (object)
    error_memory(error, sizeof(void *)); /* the failed call gave the array back */
  else
    json_decref(array);
  json_decref(object);
  return NULL;
}

/* The largest number up to which every integer is a double of its own. */
#define EXACT_MOST 9007199254740992.0

/* The integer that stands for a number without a fraction, or NULL. */
static json_t *as_integer(const json_t *json) {
  double number = json_is_real(json) ? json_real_value(json) : 0.5;
  return number == floor(number) && fabs(number) <= EXACT_MOST ? json_integer((json_int_t)number) : NULL;
}

/* 2.0 becomes 2 everywhere. As deep as json_check_depth let through. */
static void settle_integers(json_t *json) {
  json_t *integer;
  if (json_is_object(json))
    for (void *at = json_object_iter(json); at; at = json_object_iter_next(json, at)) {
      json_t *member = json_object_iter_value(at);
      if ((integer = as_integer(member))) json_object_iter_set_new(json, at, integer);
      else settle_integers(member);
    }
  for (size_t i = 0; json_is_array(json) && i < json_array_size(json); i++) {
    json_t *element = json_array_get(json, i);
    if ((integer = as_integer(element))) json_array_set_new(json, i, integer);
    else settle_integers(element);
  }
}

/* Bytes of the name in front of the first '=' of a form ("a=b&c=d", what curl -d sends when it is given no JSON), else 0. */
static size_t form_name(const char *body, size_t length) {
  size_t n = 0;
  while (n < length && n < 40 && (body[n] == '_' || body[n] == '.' || ((body[n] | 32) >= 'a' && (body[n] | 32) <= 'z') ||
                                  (n && body[n] >= '0' && body[n] <= '9')))
    n++;
  return n < length && body[n] == '=' ? n : 0;
}

static const char *sample_of(const struct field *row) {
  switch (row->type) {
    case FIELD_INT:
    case FIELD_INDEX:
    case FIELD_NUMBER: return "1";
    case FIELD_BOOL: return "true";
    case FIELD_NAMES:
    case FIELD_CHOICES: return "[\"...\"]";
    case FIELD_INTS:
    case FIELD_NUMBERS: return "[1]";
    case FIELD_OBJECT: return "{...}";
    case FIELD_OBJECTS: return "[{...}]";
    default: return "\"...\"";
  }
}

/* What the body would look like: the required fields, or the first one. */
static void print_sample(const struct field *rows, char *out, size_t size) {
  size_t used = 0;
  bool none = true;
  for (const struct field *row = rows; row->name; row++) none &= !row->required;
  for (const struct field *row = rows; row->name && used < size; row++) {
    if (!row->required && !(none && row == rows)) continue;
    used += (size_t)snprintf(out + used, size - used, "%s\"%s\": %s", used ? ", " : "", row->name, sample_of(row));
  }
}

static void refuse_form(const char *name, size_t length, const struct field *rows, struct error *error) {
  char sample[160] = "";
  print_sample(rows, sample, sizeof sample);
  error_set(error, ERROR_ARGUMENT, "the body is a form ('%.*s=...'), and this server reads JSON: curl -d '{%s}' URL",
            (int)length, name, sample);
}

static json_t *load(const char *body, size_t length, const struct field *rows, const struct api_options *options,
                    struct error *error) {
  if (length == 0) return new_object(error);
  struct error deep = ERROR_INIT;
  if (json_check_depth(body, length, (int)options->max_json_depth, &deep) != 0) {
    error_set(error, ERROR_ARGUMENT, "%s", deep.text);
    return NULL;
  }
  size_t name = form_name(body, length);
  if (name) return refuse_form(body, name, rows, error), NULL;
  json_error_t why;
  json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
  if (!root) return refuse_syntax(&why, error), NULL;
  settle_integers(root);
  if (json_is_object(root)) return root;
  if (json_is_array(root) && rows->bare) return wrap(root, rows->name, error);
  char found[256];
  describe(root, found, sizeof found);
  error_set(error, ERROR_ARGUMENT, "the body must be a JSON object, found %s", found);
  json_decref(root);
  return NULL;
}

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
  json_t *root = load(body, length, rows, options, error);
  if (!root) return NULL;
  struct parser parser = {options, arena, error, strict};
  return check_root(&parser, rows, root);
}

/* ---- the query ---------------------------------------------------------------------------------------- */

static json_t *number_of(const char *text) {
  int64_t integer;
  double real;
  if (number_parse_int(text, &integer)) return json_integer(integer);
  return number_parse_double(text, &real) ? json_real(real) : json_string(text);
}

static json_t *bool_of(const char *text) {
  if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0) return json_true();
  return strcmp(text, "false") == 0 || strcmp(text, "0") == 0 ? json_false() : json_string(text);
}

static json_t *names_of(const char *text) {
  json_t *array = json_array();
  for (size_t n; array && *text; text += n + (text[n] == ',')) {
    n = strcspn(text, ",");
    if (n && json_array_append_new(array, json_stringn(text, n)) != 0) {
      json_decref(array);
      return NULL;
    }
  }
  return array;
}

/* What a parameter would be in a body; text that does not fit stays text, and the check words the error. */
static json_t *parameter_of(const struct field *row, const char *text) {
  if (!*text) return json_null();
  switch (row->name ? row->type : FIELD_TEXT) {
    case FIELD_BOOL: return bool_of(text);
    case FIELD_INT:
    case FIELD_NUMBER: return number_of(text);
    case FIELD_CHOICES:
    case FIELD_NAMES: return names_of(text);
    default: return json_string(text);
  }
}

static int add_parameter(json_t *root, const struct api_pair *pair, const struct field *rows, struct error *error) {
  const struct field *row = rows;
  while (row->name && !field_answers(row, pair->name)) row++;
  if (row->name && json_object_get(root, pair->name))
    return error_set_field(error, ERROR_ARGUMENT, row->name, "'%s' is given twice", row->name);
  if (json_object_set_new(root, pair->name, parameter_of(row, pair->value)) == 0) return 0;
  return error_memory(error, strlen(pair->value));
}

struct values *parse_query(const struct api_pair *pairs, size_t n, const struct field *rows, bool strict,
                           const struct api_options *options, struct arena *arena, struct error *error) {
  json_t *root = new_object(error);
  for (size_t i = 0; root && i < n; i++) {
    if (add_parameter(root, &pairs[i], rows, error) == 0) continue;
    json_decref(root);
    root = NULL;
  }
  if (!root) return NULL;
  struct parser parser = {options, arena, error, strict};
  return check_root(&parser, rows, root);
}

void parse_free(struct values *values) {
  if (values) json_decref(values->root);
}

/* ---- getters ------------------------------------------------------------------------------------------ */

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

const char *values_given(const struct values *values, const char *name) {
  const struct value *value = &values->given[find(values, name)];
  return value->json ? value->given : NULL;
}

const struct values *values_at(const struct values *values, const char *name, size_t i) {
  const struct value *value = &values->given[find(values, name)];
  return value->json && value->inner ? value->inner[i] : NULL;
}
