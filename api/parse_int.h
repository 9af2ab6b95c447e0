/* parse_int.h: what parse.c, body.c and values.c share: checked values as they lie beside the parsed document. The only files
 * of this room that know jansson include it. */
#ifndef STEERD_API_PARSE_INT_H
#define STEERD_API_PARSE_INT_H

#include <jansson.h>

#include "api/parse.h"

struct weight {
  int64_t key;
  double value;
};

/* One field that was given. */
struct value {
  const json_t *json;    /* NULL: absent or null */
  const char *given;     /* its spelling in the body */
  const char **texts;    /* FIELD_SOURCE, FIELD_SOURCES, FIELD_NAMES: integers written out; FIELD_CONTENT: its parts as one */
  struct weight *weights; /* FIELD_WEIGHTS, as many as the object has members */
  struct values **inner; /* FIELD_OBJECT, FIELD_OBJECTS */
};

struct values {
  json_t *root; /* owned by the outermost only */
  const struct api_options *options;
  const struct field *rows;
  struct value *given; /* beside rows */
};

/* A body (empty: {}), or a query, as an object: numbers without a fraction are integers, no field is checked yet. NULL with
 * ERROR_ARGUMENT or ERROR_MEMORY. The caller gives it back with json_decref. */
json_t *body_load(const char *body, size_t length, const struct field *rows, const struct api_options *options,
                  struct error *error) MUST_CHECK;
json_t *body_of_query(const struct api_pair *pairs, size_t n, const struct field *rows, struct error *error) MUST_CHECK;

/* What stands there, short enough for a message: `the string "hot"`, `1000`, `null`. size is at least 32; a long string
 * is cut between characters. */
void body_describe(const json_t *json, char *out, size_t size);

#endif
