/* dict_json.c: typed fields out of a description, each noted. Knows no format's keys. */
#include "core/dict/dict_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FILE_LIMIT (1 << 20)
#define FILE_DEPTH 32

int dict_json_open(struct dict_json *json, struct dict_config *config, struct error *error) {
  *json = (struct dict_json){json_load(config->file, FILE_LIMIT, FILE_DEPTH, error), NULL, config};
  if (!json->root) return -1;
  if (json_kind(json->root) == JSON_KIND_OBJECT) return 0;
  error_set(error, ERROR_FORMAT, "'%s' is %s, expected an object", config->file, json_kind_word(json_kind(json->root)));
  json_free(json->root);
  json->root = NULL;
  return -1;
}

/* "a.b.c" below a node. */
static const struct json_node *walk(const struct json_node *node, const char *path) {
  char key[64];
  for (;;) {
    size_t length = strcspn(path, ".");
    if (length >= sizeof key) return NULL;
    snprintf(key, sizeof key, "%.*s", (int)length, path);
    node = json_get(node, key);
    if (!path[length]) return node;
    path += length + 1;
  }
}

const struct json_node *dict_json_find(const struct dict_json *json, const char *const *names, const char **name) {
  const struct json_node *places[] = {json->inner, json->root};
  for (; *names; names++)
    for (int i = 0; i < 2; i++) {
      const struct json_node *node = walk(places[i], *names);
      if (json_kind(node) == JSON_KIND_NONE || json_kind(node) == JSON_KIND_NULL) continue;
      *name = *names;
      return node;
    }
  *name = *names;
  return NULL;
}

/* ---- complaints -------------------------------------------------------------------------------------- */

int dict_json_wrong_kind(const struct dict_json *json, const char *name, const struct json_node *node,
                         const char *expected, struct error *error) {
  return error_set(error, ERROR_FORMAT, "'%s': '%s' is %s, expected %s", json->config->file, name,
                   json_kind_word(json_kind(node)), expected);
}

int dict_json_missing(const struct dict_json *json, const char *name, const char *expected, struct error *error) {
  return error_set(error, ERROR_FORMAT, "'%s': '%s' is missing, expected %s", json->config->file, name, expected);
}

int dict_json_refuse(const struct dict_json *json, const char *key, const char *found, const char *served,
                     struct error *error) {
  return error_set(error, ERROR_UNSUPPORTED, "'%s': %s '%.60s' is not served (served: %s)", json->config->file,
                   key, found, served);
}

/* ---- getters ----------------------------------------------------------------------------------------- */

int dict_json_text(const struct dict_json *json, const char *const *names, const char **out, struct error *error) {
  const char *name;
  const struct json_node *node = dict_json_find(json, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_STRING) return dict_json_wrong_kind(json, name, node, "a string", error);
  *out = json_text(node, NULL);
  dict_config_note(json->config, "%s = %.120s", name, *out);
  return 0;
}

int dict_json_bool(const struct dict_json *json, const char *const *names, bool *out, struct error *error) {
  const char *name;
  const struct json_node *node = dict_json_find(json, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_BOOL) return dict_json_wrong_kind(json, name, node, "true or false", error);
  *out = json_bool_or(node, *out);
  dict_config_note(json->config, "%s = %s", name, *out ? "true" : "false");
  return 0;
}

static int get_int(const struct dict_json *json, const char *const *names, int64_t least, int64_t *out,
                   struct error *error) {
  const char *name;
  const struct json_node *node = dict_json_find(json, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_INT) return dict_json_wrong_kind(json, name, node, "an integer", error);
  int64_t value = json_int_or(node, 0);
  if (value < least)
    return error_set(error, ERROR_FORMAT, "'%s': '%s' is %lld, expected %lld or more", json->config->file, name,
                     (long long)value, (long long)least);
  *out = value;
  dict_config_note(json->config, "%s = %lld", name, (long long)value);
  return 0;
}

int dict_json_count(const struct dict_json *json, const char *const *names, int64_t *out, struct error *error) {
  return get_int(json, names, 1, out, error);
}

int dict_json_index(const struct dict_json *json, const char *const *names, int64_t *out, struct error *error) {
  return get_int(json, names, 0, out, error);
}

int dict_json_real(const struct dict_json *json, const char *const *names, double *out, struct error *error) {
  const char *name;
  const struct json_node *node = dict_json_find(json, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_INT && json_kind(node) != JSON_KIND_REAL)
    return dict_json_wrong_kind(json, name, node, "a number", error);
  double value = json_number_or(node, 0);
  if (!isfinite(value))
    return error_set(error, ERROR_FORMAT, "'%s': '%s' is no finite number", json->config->file, name);
  *out = value;
  dict_config_note(json->config, "%s = %g", name, value);
  return 0;
}
