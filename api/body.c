/* body.c: the bytes of a body, or the parameters of a query, as one JSON object. Knows what clients send by mistake (a form,
 * a number written 2.0); knows no endpoint and checks no field beyond what it needs to word an error. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/parse_int.h"
#include "core/base/json.h"
#include "core/base/number.h"
#include "core/base/utf8.h"

void body_describe(const json_t *json, char *out, size_t size) {
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
  for (const struct field *row = rows; row->name; row++) none &= !row->required && !row->unless;
  for (const struct field *row = rows; row->name && used < size; row++) {
    if (!row->required && !row->unless && !(none && row == rows)) continue;
    used += (size_t)snprintf(out + used, size - used, "%s\"%s\": %s", used ? ", " : "", row->name, sample_of(row));
  }
}

static void refuse_form(const char *name, size_t length, const struct field *rows, struct error *error) {
  char sample[160] = "";
  print_sample(rows, sample, sizeof sample);
  error_set(error, ERROR_ARGUMENT, "the body is a form ('%.*s=...'), and this server reads JSON: curl -d '{%s}' URL",
            (int)length, name, sample);
}

json_t *body_load(const char *body, size_t length, const struct field *rows, const struct api_options *options,
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
  body_describe(root, found, sizeof found);
  error_set(error, ERROR_ARGUMENT, "the body must be a JSON object, found %s", found);
  json_decref(root);
  return NULL;
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
json_t *body_of_query(const struct api_pair *pairs, size_t n, const struct field *rows, struct error *error) {
  json_t *root = new_object(error);
  for (size_t i = 0; root && i < n; i++) {
    if (add_parameter(root, &pairs[i], rows, error) == 0) continue;
    json_decref(root);
    root = NULL;
  }
  return root;
}
