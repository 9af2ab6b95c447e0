/* dict_json.h: fields of a JSON description. Private to core/dict.
 *
 * Every getter leaves *out alone where the key is absent or null, refuses a value of another kind by name, and notes what
 * it read (dict_config_note). `names` are a key and its other spellings; "a.b" is b inside the object a. */
#ifndef STEERD_CORE_DICT_DICT_JSON_H
#define STEERD_CORE_DICT_DICT_JSON_H

#include "core/base/json.h"
#include "core/dict/dict_config.h"

struct dict_json {
  struct json_node *root;
  const struct json_node *inner; /* an object that is looked into first (SAELens' metadata), or NULL */
  struct dict_config *config;    /* file and notes */
};

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Reads config->file: an object of at most 1 MiB, 32 levels deep. Freed with json_free(root). */
int dict_json_open(struct dict_json *json, struct dict_config *config, struct error *error) MUST_CHECK;

/* The node of the first name that is there and not null, and that name; NULL where there is none. */
const struct json_node *dict_json_find(const struct dict_json *json, const char *const *names, const char **name);

int dict_json_text(const struct dict_json *json, const char *const *names, const char **out,
                   struct error *error) MUST_CHECK;
int dict_json_bool(const struct dict_json *json, const char *const *names, bool *out, struct error *error) MUST_CHECK;
/* An integer, 1 or more. */
int dict_json_count(const struct dict_json *json, const char *const *names, int64_t *out,
                    struct error *error) MUST_CHECK;
/* An integer, 0 or more. */
int dict_json_index(const struct dict_json *json, const char *const *names, int64_t *out,
                    struct error *error) MUST_CHECK;
/* A finite number. */
int dict_json_real(const struct dict_json *json, const char *const *names, double *out,
                   struct error *error) MUST_CHECK;

int dict_json_wrong_kind(const struct dict_json *json, const char *name, const struct json_node *node,
                         const char *expected, struct error *error);
int dict_json_missing(const struct dict_json *json, const char *name, const char *expected, struct error *error);
/* "KEY 'found' is not served (served: ...)" */
int dict_json_refuse(const struct dict_json *json, const char *key, const char *found, const char *served,
                     struct error *error);

#endif
