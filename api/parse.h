/* parse.h: a request's body or query becomes checked values.
 *
 * parse_body and parse_query validate the whole of it by its rows: the first thing that is wrong is the error, with the field
 * named, what was found and what is allowed. After that the getters cannot fail: a handler names a field as
 * its row does and gets the value, or the row's default. Asking for a field that has no row, or as another
 * type than the row's, is a mistake of the handler and ends in an assertion. */
#ifndef STEERD_API_PARSE_H
#define STEERD_API_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/field.h"
#include "core/base/arena.h"
#include "core/base/error.h"

struct values; /* the fields of one object */

/* Parses and validates; an empty body is {}. `strict` refuses unknown fields and suggests the nearest name.
 * The values live in the arena and refer to the parsed document, which parse_free gives back (before the arena goes). NULL
 * with ERROR_ARGUMENT (or ERROR_MEMORY). */
struct values *parse_body(const char *body, size_t length, const struct field *rows, bool strict,
                          const struct api_options *options, struct arena *arena, struct error *error) MUST_CHECK;

/* As parse_body for the parameters of a query. Numbers are decimals, booleans true, false, 1 or 0, lists separated by
 * commas; an empty parameter counts as left out. */
struct values *parse_query(const struct api_pair *pairs, size_t n, const struct field *rows, bool strict,
                           const struct api_options *options, struct arena *arena, struct error *error) MUST_CHECK;
void parse_free(struct values *values); /* what the two return; NULL is fine */

/* True when the client gave the field and it is not null. */
bool values_has(const struct values *values, const char *name);

bool values_bool(const struct values *values, const char *name); /* absent without default: false */
/* FIELD_INT, FIELD_INDEX; FIELD_NUMBER. Absent: the row's default, 0 where it has none. */
int64_t values_int(const struct values *values, const char *name);
double values_number(const struct values *values, const char *name);

/* FIELD_TEXT, FIELD_SOURCE, FIELD_CHOICE, FIELD_CONTENT: NUL-terminated valid UTF-8 without NUL inside; NULL when absent
 * without default. length may be NULL. */
const char *values_text(const struct values *values, const char *name, size_t *length);

/* Lists. A FIELD_TEXTS given as one string is a list of one; values_is_list tells the two apart. */
size_t values_count(const struct values *values, const char *name);
bool values_is_list(const struct values *values, const char *name);
const char *values_text_at(const struct values *values, const char *name, size_t i, size_t *length);
int64_t values_int_at(const struct values *values, const char *name, size_t i);
double values_number_at(const struct values *values, const char *name, size_t i);

/* FIELD_TOKENS and FIELD_ROWS: how many arrays (one, when the integers stand alone), the elements of array i, element j. */
size_t values_rows(const struct values *values, const char *name);
size_t values_row_count(const struct values *values, const char *name, size_t i);
double values_row_at(const struct values *values, const char *name, size_t i, size_t j);

/* FIELD_GROUPS: values_count of them, values_row_count in each. */
const char *values_group_at(const struct values *values, const char *name, size_t i, size_t j);

/* FIELD_TOKENS: whether arrays were given, not integers. */
bool values_is_nested(const struct values *values, const char *name);

/* FIELD_PROMPTS: whether tokens were given (read like FIELD_TOKENS), not texts (like FIELD_TEXTS). */
bool values_are_tokens(const struct values *values, const char *name);

/* FIELD_WEIGHTS: values_count of them. */
int64_t values_key_at(const struct values *values, const char *name, size_t i);
double values_weight_at(const struct values *values, const char *name, size_t i);

/* The spelling of the client when it gave the field and it is not null, else NULL. */
const char *values_given(const struct values *values, const char *name);

/* Whether the client spelled any of these fields with an underscore. */
bool values_are_snake(const struct values *values);

/* FIELD_OBJECT (i = 0) and FIELD_OBJECTS; NULL when absent. */
const struct values *values_at(const struct values *values, const char *name, size_t i);

#endif
