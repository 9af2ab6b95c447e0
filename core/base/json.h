/* json.h: reading the JSON files of models and dictionaries (config.json, cfg.json, tokenizer.json,
 * safetensors headers). Outside api/, the only code that knows jansson.
 *
 * Strict: UTF-8, no duplicate keys, no trailing text, nesting at most `depth`. Nodes are borrowed from the
 * document and valid until json_free. A NULL node is accepted by every getter and means "absent". */
#ifndef STEERD_CORE_BASE_JSON_H
#define STEERD_CORE_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct json_node; /* opaque */

/* Parses; NULL with ERROR_FORMAT (what, line, column). Freed with json_free on the root. */
struct json_node *json_parse(const char *text, size_t length, int depth, struct error *error) MUST_CHECK;

/* Reads and parses a file of at most `limit` bytes; errors name the path. */
struct json_node *json_load(const char *path, size_t limit, int depth, struct error *error) MUST_CHECK;
void json_free(struct json_node *root);

/* 0 when text nests at most `depth` arrays and objects, else ERROR_FORMAT with the offset. Strings are
 * skipped; the text need not be valid otherwise. Used before every parse, so that hostile nesting costs no
 * stack. */
int json_check_depth(const char *text, size_t length, int depth, struct error *error) MUST_CHECK;

enum json_kind { JSON_KIND_NONE, JSON_KIND_NULL, JSON_KIND_BOOL, JSON_KIND_INT, JSON_KIND_REAL, JSON_KIND_STRING,
                 JSON_KIND_ARRAY, JSON_KIND_OBJECT };
enum json_kind json_kind(const struct json_node *node); /* JSON_KIND_NONE for NULL */
const char *json_kind_word(enum json_kind kind);        /* "a string", "an array", ... */

const struct json_node *json_get(const struct json_node *object, const char *key); /* NULL when absent */
size_t json_count(const struct json_node *array_or_object);                        /* 0 for others */
const struct json_node *json_at(const struct json_node *array, size_t i);

/* Text of a string node (NUL-terminated, *length may be NULL), or NULL when it is not one. */
const char *json_text(const struct json_node *node, size_t *length);

/* Value with a default when the node is absent, null or of another kind. */
int64_t json_int_or(const struct json_node *node, int64_t fallback);
double json_number_or(const struct json_node *node, double fallback);
bool json_bool_or(const struct json_node *node, bool fallback);
const char *json_text_or(const struct json_node *node, const char *fallback);

/* Whether two nodes say the same: 1 and 1.0 do, and members in another order. NULL is only NULL's like. */
bool json_same(const struct json_node *a, const struct json_node *b);

/* Walks an object's members in file order: start with *iterator = NULL; false at the end. */
bool json_next(const struct json_node *object, void **iterator, const char **key, const struct json_node **value);

#endif
