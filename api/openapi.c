/* openapi.c: GET /openapi.json: the table of routes as OpenAPI 3.1. What is written here is what validates. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/handlers.h"
#include "api/shapes.h"

/* Numbers of rows are whole or short decimals: written as a whole number where they are one. */
static void write_number(struct json_writer *w, const char *key, double value) {
  if (value == (double)(int64_t)value)
    jw_member_int(w, key, (int64_t)value);
  else
    jw_member_f64(w, key, value);
}

static void write_words(struct json_writer *w, const char *key, const char *words) {
  jw_key(w, key);
  jw_open(w, '[');
  for (const char *at = words; *at;) {
    size_t n = strcspn(at, " ");
    jw_string(w, at, n);
    at += n;
    at += strspn(at, " ");
  }
  jw_close(w, ']');
}

static void write_range(struct json_writer *w, const struct field *field, const struct api_options *options) {
  write_number(w, "minimum", field->min);
  write_number(w, "maximum", field_max(field, options));
}

/* As write_range for lengths: there, 0 means that nothing is set. */
static void write_count(struct json_writer *w, const struct field *field, const struct api_options *options,
                        const char *low, const char *high) {
  double max = field_max(field, options);
  if (field->min > 0) write_number(w, low, field->min);
  if (max > 0) write_number(w, high, max);
}

static void write_string(struct json_writer *w, const struct field *field, const struct api_options *options) {
  jw_member_text(w, "type", "string");
  write_count(w, field, options, "minLength", "maxLength");
}

static void write_index(struct json_writer *w, const struct field *field, const struct api_options *options) {
  jw_key(w, "oneOf");
  jw_open(w, '[');
  jw_open(w, '{');
  jw_member_text(w, "type", "integer");
  write_range(w, field, options);
  jw_close(w, '}');
  jw_open(w, '{');
  jw_member_text(w, "type", "string");
  jw_member_text(w, "pattern", "^[0-9]+$");
  jw_close(w, '}');
  jw_close(w, ']');
}

static void write_texts(struct json_writer *w, const struct field *field, const struct api_options *options) {
  jw_key(w, "oneOf");
  jw_open(w, '[');
  jw_open(w, '{');
  write_string(w, field, options);
  jw_close(w, '}');
  jw_open(w, '{');
  jw_member_text(w, "type", "array");
  jw_member_int(w, "minItems", !field->none);
  jw_member_int(w, "maxItems", field_max_texts(field, options));
  jw_key(w, "items");
  jw_open(w, '{');
  write_string(w, field, options);
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, ']');
}

static void write_sources(struct json_writer *w, const struct field *field) {
  jw_key(w, "oneOf");
  jw_open(w, '[');
  jw_open(w, '{');
  write_words(w, "type", "string integer");
  jw_close(w, '}');
  jw_open(w, '{');
  jw_member_text(w, "type", "array");
  jw_member_int(w, "minItems", 1);
  jw_member_int(w, "maxItems", (int64_t)field->max);
  jw_key(w, "items");
  jw_open(w, '{');
  write_words(w, "type", "string integer");
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, ']');
}

static void write_array_of(struct json_writer *w, const char *type) {
  jw_member_text(w, "type", "array");
  jw_key(w, "items");
  jw_open(w, '{');
  jw_member_text(w, "type", type);
  jw_close(w, '}');
}

/* Arrays of arrays; of tokens, one array alone too. */
static void write_lines(struct json_writer *w, const char *type, bool only) {
  jw_key(w, "oneOf");
  jw_open(w, '[');
  if (!only) {
    jw_open(w, '{');
    write_array_of(w, type);
    jw_close(w, '}');
  }
  jw_open(w, '{');
  jw_member_text(w, "type", "array");
  jw_key(w, "items");
  jw_open(w, '{');
  write_array_of(w, type);
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, ']');
}

static void write_places(struct json_writer *w, const struct field *field) {
  jw_key(w, "oneOf");
  jw_open(w, '[');
  if (field->choices) {
    jw_open(w, '{');
    write_words(w, "enum", field->choices);
    jw_close(w, '}');
  }
  jw_open(w, '{');
  write_array_of(w, "integer");
  jw_close(w, '}');
  jw_close(w, ']');
}

/* A text, texts, tokens, or arrays of tokens. */
static void write_prompts(struct json_writer *w, const struct field *field, const struct api_options *options) {
  jw_key(w, "oneOf");
  jw_open(w, '[');
  jw_open(w, '{');
  write_texts(w, field, options);
  jw_close(w, '}');
  jw_open(w, '{');
  write_lines(w, "integer", false);
  jw_close(w, '}');
  jw_close(w, ']');
}

static void write_weights(struct json_writer *w, const struct field *field, const struct api_options *options) {
  jw_member_text(w, "type", "object");
  jw_key(w, "additionalProperties");
  jw_open(w, '{');
  jw_member_text(w, "type", "number");
  write_range(w, field, options);
  jw_close(w, '}');
}

static void write_content(struct json_writer *w, const struct field *field, const struct api_options *options) {
  jw_key(w, "oneOf");
  jw_open(w, '[');
  jw_open(w, '{');
  write_string(w, field, options);
  jw_close(w, '}');
  jw_open(w, '{');
  write_array_of(w, "object");
  jw_close(w, '}');
  jw_close(w, ']');
}

static void write_object(struct json_writer *w, const struct field *rows, bool strict,
                         const struct api_options *options);

/* The schema of a list's elements, or of the field itself when it is none. */
static void write_type(struct json_writer *w, const struct field *field, bool strict,
                       const struct api_options *options) {
  switch (field->type) {
    case FIELD_BOOL: jw_member_text(w, "type", "boolean"); return;
    case FIELD_INT:
    case FIELD_NUMBER:
      jw_member_text(w, "type", field->type == FIELD_INT ? "integer" : "number");
      write_range(w, field, options);
      return;
    case FIELD_INDEX: write_index(w, field, options); return;
    case FIELD_TEXT: write_string(w, field, options); return;
    case FIELD_TEXTS: write_texts(w, field, options); return;
    case FIELD_SOURCES: write_sources(w, field); return;
    case FIELD_SOURCE:
    case FIELD_NAMES: write_words(w, "type", "string integer"); return;
    case FIELD_CHOICE:
    case FIELD_CHOICES: write_words(w, "enum", field->choices); return;
    case FIELD_INTS:
      jw_member_text(w, "type", "integer");
      jw_member_int(w, "minimum", 0);
      return;
    case FIELD_NUMBERS: jw_member_text(w, "type", "number"); return;
    case FIELD_PLACES: write_places(w, field); return;
    case FIELD_TOKENS: write_lines(w, "integer", false); return;
    case FIELD_PROMPTS: write_prompts(w, field, options); return;
    case FIELD_WEIGHTS: write_weights(w, field, options); return;
    case FIELD_CONTENT: write_content(w, field, options); return;
    case FIELD_REFUSED: jw_member_text(w, "type", "null"); return;
    case FIELD_ROWS: write_lines(w, "number", true); return;
    case FIELD_GROUPS: write_lines(w, "string", true); return;
    default: write_object(w, field->inner, strict || field->strict, options); return;
  }
}

static void write_default(struct json_writer *w, const struct field *field, const struct api_options *options) {
  if (!field->fallback) return;
  if (field->type == FIELD_BOOL)
    jw_member_bool(w, "default", strcmp(field->fallback, "true") == 0);
  else if (field->type == FIELD_INT || field->type == FIELD_NUMBER)
    write_number(w, "default", field_default(field, options));
  else
    jw_member_text(w, "default", field->fallback);
}

static void write_description(struct json_writer *w, const struct field *field) {
  char text[512];
  const char *aliases = field->aliases ? field->aliases : "";
  snprintf(text, sizeof text, "%s%s%s", field->text, aliases[0] ? " Also answers to: " : "", aliases);
  jw_member_text(w, "description", text);
}

static bool is_list(const struct field *field) {
  return field->type == FIELD_CHOICES || field->type == FIELD_NAMES || field->type == FIELD_INTS ||
         field->type == FIELD_NUMBERS || field->type == FIELD_OBJECTS;
}

/* The schema of one field, as an object. */
static void write_schema(struct json_writer *w, const struct field *field, bool strict,
                         const struct api_options *options) {
  bool list = is_list(field);
  jw_open(w, '{');
  if (list) {
    jw_member_text(w, "type", "array");
    if (field->type == FIELD_CHOICES)
      jw_member_int(w, "minItems", 1);
    else
      write_count(w, field, options, "minItems", "maxItems");
    jw_key(w, "items");
    jw_open(w, '{');
  }
  write_type(w, field, strict, options);
  if (list) jw_close(w, '}');
  write_default(w, field, options);
  write_description(w, field);
  jw_close(w, '}');
}

static void write_field(struct json_writer *w, const struct field *field, bool strict,
                        const struct api_options *options) {
  jw_key(w, field->name);
  write_schema(w, field, strict, options);
}

/* At least one of two fields. A schema has one anyOf: no table names two pairs. */
static void write_either(struct json_writer *w, const char *one, const char *other) {
  jw_key(w, "anyOf");
  jw_open(w, '[');
  for (int i = 0; i < 2; i++) {
    jw_open(w, '{');
    write_words(w, "required", i ? other : one);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static void write_object(struct json_writer *w, const struct field *rows, bool strict,
                         const struct api_options *options) {
  bool required = false;
  jw_member_text(w, "type", "object");
  jw_key(w, "properties");
  jw_open(w, '{');
  for (const struct field *row = rows; row->name; row++) {
    write_field(w, row, strict, options);
    required = required || row->required;
  }
  jw_close(w, '}');
  for (const struct field *row = rows; row->name; row++)
    if (row->unless) write_either(w, row->name, row->unless);
  if (strict) jw_member_bool(w, "additionalProperties", false);
  if (!required) return;
  jw_key(w, "required");
  jw_open(w, '[');
  for (const struct field *row = rows; row->name; row++)
    if (row->required) jw_text(w, row->name);
  jw_close(w, ']');
}

/* ---- operations --------------------------------------------------------------------------------------- */

static void write_parameter(struct json_writer *w, const char *name, size_t length, const char *in, bool required) {
  jw_open(w, '{');
  jw_key(w, "name");
  jw_string(w, name, length);
  jw_member_text(w, "in", in);
  jw_member_bool(w, "required", required);
  jw_key(w, "schema");
}

static void write_path_parameters(struct json_writer *w, const char *path) {
  for (const char *at = strchr(path, '{'); at; at = strchr(at, '{')) {
    size_t n = strcspn(++at, "}");
    write_parameter(w, at, n, "path", true);
    jw_open(w, '{');
    jw_member_text(w, "type", "string");
    jw_close(w, '}');
    jw_close(w, '}');
  }
}

static void write_parameters(struct json_writer *w, const struct route *row, const struct api_options *options) {
  bool query = route_takes_query(row) && row->fields;
  if (!strchr(row->path, '{') && !query) return;
  jw_key(w, "parameters");
  jw_open(w, '[');
  write_path_parameters(w, row->path);
  for (const struct field *field = row->fields; query && field->name; field++) {
    write_parameter(w, field->name, strlen(field->name), "query", field->required);
    write_schema(w, field, row->flags & ROUTE_STRICT, options);
    if (is_list(field)) {
      jw_member_text(w, "style", "form");
      jw_member_bool(w, "explode", false);
    }
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static void write_body_schema(struct json_writer *w, const struct route *row, const struct api_options *options) {
  bool strict = row->flags & ROUTE_STRICT;
  jw_open(w, '{');
  if (row->fields->bare) {
    jw_key(w, "oneOf");
    jw_open(w, '[');
    write_schema(w, row->fields, strict, options);
    jw_open(w, '{');
  }
  write_object(w, row->fields, strict, options);
  if (row->fields->bare) {
    jw_close(w, '}');
    jw_close(w, ']');
  }
  jw_close(w, '}');
}

/* A file has no schema but its type. */
static void write_file_body(struct json_writer *w) {
  jw_key(w, "requestBody");
  jw_open(w, '{');
  jw_member_bool(w, "required", true);
  jw_key(w, "content");
  jw_open(w, '{');
  jw_key(w, "application/octet-stream");
  jw_open(w, '{');
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, '}');
}

static void write_body(struct json_writer *w, const struct route *row, const struct api_options *options) {
  if (row->flags & ROUTE_FILE) write_file_body(w);
  if (!row->fields || route_takes_query(row)) return;
  jw_key(w, "requestBody");
  jw_open(w, '{');
  jw_member_bool(w, "required", row->fields->name != NULL);
  jw_key(w, "content");
  jw_open(w, '{');
  jw_key(w, "application/json");
  jw_open(w, '{');
  jw_key(w, "schema");
  write_body_schema(w, row, options);
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, '}');
}

static void write_error_reply(struct json_writer *w, const char *status, const char *text, const char *schema) {
  jw_key(w, status);
  jw_open(w, '{');
  jw_member_text(w, "description", text);
  jw_key(w, "content");
  jw_open(w, '{');
  jw_key(w, "application/json");
  jw_open(w, '{');
  jw_key(w, "schema");
  jw_open(w, '{');
  jw_member_text(w, "$ref", schema);
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, '}');
}

/* One member of "content": the schema is that of JSON, other types have none. OpenAPI 3.1 has no word for what a stream's events
 * carry, hence one of ours. */
static void write_media(struct json_writer *w, const char *type, size_t length, const struct shape *shape) {
  char name[64];
  snprintf(name, sizeof name, "%.*s", (int)length, type);
  jw_key(w, name);
  jw_open(w, '{');
  if (shape->body && strcmp(name, "application/json") == 0) {
    jw_key(w, "schema");
    shape_write(w, shape->body);
  }
  if (strcmp(name, "text/event-stream") == 0) {
    jw_key(w, "x-event-data");
    shape_write(w, shape_event(shape));
  }
  jw_close(w, '}');
}

static void write_answer(struct json_writer *w, const struct route *row) {
  const struct shape *shape = shape_of(row);
  char status[16];
  snprintf(status, sizeof status, "%d", shape && shape->status ? shape->status : 200);
  jw_key(w, status);
  jw_open(w, '{');
  jw_member_text(w, "description", row->summary);
  if (shape) {
    jw_key(w, "content");
    jw_open(w, '{');
    for (const char *at = shape->types ? shape->types : "application/json"; *at;) {
      size_t n = strcspn(at, " ");
      write_media(w, at, n, shape);
      at += n;
      at += strspn(at, " ");
    }
    jw_close(w, '}');
  }
  jw_close(w, '}');
}

static void write_replies(struct json_writer *w, const struct route *row) {
  const char *schema = row->family == FAMILY_OPENAI ? "#/components/schemas/OpenAIError" : "#/components/schemas/Error";
  jw_key(w, "responses");
  jw_open(w, '{');
  write_answer(w, row);
  write_error_reply(w, "default", "Refused or failed.", schema);
  jw_close(w, '}');
}

static void write_operation(struct json_writer *w, const struct route *row, const struct api_options *options) {
  char method[16];
  size_t n = 0;
  for (; row->method[n] && n + 1 < sizeof method; n++) method[n] = (char)tolower((unsigned char)row->method[n]);
  method[n] = '\0';
  jw_key(w, method);
  jw_open(w, '{');
  char id[ROUTE_ID_BYTES];
  route_id(row, id);
  jw_member_text(w, "operationId", id);
  jw_member_text(w, "summary", row->summary);
  jw_key(w, "tags");
  jw_open(w, '[');
  jw_text(w, route_family_word(row->family));
  jw_close(w, ']');
  write_parameters(w, row, options);
  write_body(w, row, options);
  write_replies(w, row);
  jw_close(w, '}');
}

static bool first_of_path(size_t i) {
  for (size_t k = 0; k < i; k++)
    if (strcmp(routes[k].path, routes[i].path) == 0) return false;
  return true;
}

static void write_paths(struct json_writer *w, const struct api_options *options) {
  jw_key(w, "paths");
  jw_open(w, '{');
  for (size_t i = 0; i < n_routes; i++) {
    if (!first_of_path(i)) continue;
    jw_key(w, routes[i].path);
    jw_open(w, '{');
    for (size_t k = i; k < n_routes; k++)
      if (strcmp(routes[k].path, routes[i].path) == 0) write_operation(w, &routes[k], options);
    jw_close(w, '}');
  }
  jw_close(w, '}');
}

/* An object schema of the named members, each a string (or a string and null). */
static void write_strings(struct json_writer *w, const char *members, const char *required) {
  jw_member_text(w, "type", "object");
  jw_key(w, "properties");
  jw_open(w, '{');
  for (const char *at = members; *at;) {
    char name[32];
    size_t n = strcspn(at, " ");
    snprintf(name, sizeof name, "%.*s", (int)n, at);
    jw_key(w, name);
    jw_open(w, '{');
    write_words(w, "type", strcmp(name, "param") == 0 ? "string null" : "string");
    jw_close(w, '}');
    at += n;
    at += strspn(at, " ");
  }
  jw_close(w, '}');
  write_words(w, "required", required);
}

static void write_components(struct json_writer *w) {
  jw_key(w, "components");
  jw_open(w, '{');
  jw_key(w, "schemas");
  jw_open(w, '{');
  jw_key(w, "Error");
  jw_open(w, '{');
  write_strings(w, "error message code field", "error message code");
  jw_close(w, '}');
  const char *body;
  for (size_t i = 0; shape_name(i, &body); i++) {
    jw_key(w, shape_name(i, &body));
    shape_write(w, body);
  }
  jw_key(w, "OpenAIError");
  jw_open(w, '{');
  jw_member_text(w, "type", "object");
  jw_key(w, "properties");
  jw_open(w, '{');
  jw_key(w, "error");
  jw_open(w, '{');
  write_strings(w, "message type param code", "message type param code");
  jw_close(w, '}');
  jw_close(w, '}');
  write_words(w, "required", "error");
  jw_close(w, '}');
  jw_close(w, '}');
  jw_close(w, '}');
}

int openapi_get(struct api_call *call, struct error *error) {
  (void)error;
  const struct api_options *options = &call->api->options;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "openapi", "3.1.0");
  jw_key(&w, "info");
  jw_open(&w, '{');
  jw_member_text(&w, "title", "steerd");
  jw_member_text(&w, "version", STEERD_VERSION);
  jw_member_text(&w, "description", "Opens up a language model while it runs: steering, features, activations.");
  jw_close(&w, '}');
  jw_key(&w, "servers");
  jw_open(&w, '[');
  jw_open(&w, '{');
  jw_member_text(&w, "url", options->base_url ? options->base_url : "/");
  jw_close(&w, '}');
  jw_close(&w, ']');
  write_paths(&w, options);
  write_components(&w);
  jw_close(&w, '}');
  return 0;
}
