/* saelens_positions.c: where SAELens trained a dictionary: seqpos_slice and exclude_special_tokens. */
#include <stdlib.h>

#include "core/dict/saelens.h"

#define EXCLUDED_MOST 4096 /* ids; a list of ordinary length has fewer than ten */

/* ---- the slice -------------------------------------------------------------------------------------- */

#define SLICE "a list of 1 to 3 integers or nulls, as Python's slice(...) takes them, such as [5, -5]"

static int read_bound(const struct dict_json *cfg, const char *name, const struct json_node *list, size_t i, int64_t *out,
                      struct error *error) {
  const struct json_node *node = json_at(list, i);
  if (json_kind(node) == JSON_KIND_NULL) return 0;
  if (json_kind(node) != JSON_KIND_INT)
    return error_set(error, ERROR_FORMAT, "'%s': element %zu of '%s' is %s, expected an integer or null", cfg->config->file, i, name,
                     json_kind_word(json_kind(node)));
  *out = json_int_or(node, 0);
  if (*out >= -SLICE_MOST && *out <= SLICE_MOST) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': element %zu of '%s' is %lld, expected -%d to %d, or null", cfg->config->file, i, name,
                   (long long)*out, SLICE_MOST, SLICE_MOST);
}

/* A slice of one number is its stop, of two or three start, stop and step. */
static int read_bounds(const struct dict_json *cfg, const char *name, const struct json_node *list, struct slice *out,
                       struct error *error) {
  size_t n = json_count(list);
  *out = (struct slice){true, SLICE_OPEN, SLICE_OPEN, 1};
  if (n == 1) return read_bound(cfg, name, list, 0, &out->stop, error);
  if (read_bound(cfg, name, list, 0, &out->start, error) != 0 || read_bound(cfg, name, list, 1, &out->stop, error) != 0) return -1;
  if (n == 3 && read_bound(cfg, name, list, 2, &out->step, error) != 0) return -1;
  if (out->step != 0) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': the step of '%s' is 0, expected another integer or null", cfg->config->file, name);
}

static bool takes_all(const struct slice *slice) {
  bool forth = slice->step == 1 && (slice->start == SLICE_OPEN || slice->start == 0) && slice->stop == SLICE_OPEN;
  return forth || (slice->step == -1 && slice->start == SLICE_OPEN && slice->stop == SLICE_OPEN);
}

static int check_slice(const struct dict_json *cfg, const char *name, const struct slice *slice, struct error *error) {
  int64_t context = cfg->config->context;
  if (!context || context > INT32_MAX || slice_count(slice, (int32_t)context) > 0) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': '%s' leaves no position of a context of context_size %lld", cfg->config->file, name,
                   (long long)context);
}

static int read_slice(const struct dict_json *cfg, struct error *error) {
  const char *name;
  const struct json_node *node = dict_json_find(cfg, NAMES("seqpos_slice"), &name);
  struct slice slice;
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_ARRAY) return dict_json_wrong_kind(cfg, name, node, SLICE, error);
  if (json_count(node) < 1 || json_count(node) > 3)
    return error_set(error, ERROR_FORMAT, "'%s': '%s' has %zu elements, expected " SLICE, cfg->config->file, name, json_count(node));
  if (read_bounds(cfg, name, node, &slice, error) != 0 || check_slice(cfg, name, &slice, error) != 0) return -1;
  if (!takes_all(&slice)) cfg->config->slice = slice;
  return 0;
}

/* ---- tokens ----------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return x < y ? -1 : x > y;
}

static int read_id(const struct dict_json *cfg, const char *name, const struct json_node *list, size_t i, int32_t *out,
                   struct error *error) {
  const struct json_node *node = json_at(list, i);
  int64_t id = json_int_or(node, -1);
  if (json_kind(node) != JSON_KIND_INT)
    return error_set(error, ERROR_FORMAT, "'%s': element %zu of '%s' is %s, expected a token id", cfg->config->file, i, name,
                     json_kind_word(json_kind(node)));
  if (id < 0 || id > INT32_MAX)
    return error_set(error, ERROR_FORMAT, "'%s': element %zu of '%s' is %lld, expected a token id, 0 to %d", cfg->config->file, i, name,
                     (long long)id, INT32_MAX);
  *out = (int32_t)id;
  return 0;
}

static int read_ids(const struct dict_json *cfg, const char *name, const struct json_node *list, struct error *error) {
  struct dict_config *out = cfg->config;
  size_t n = json_count(list);
  if (n > EXCLUDED_MOST)
    return error_set(error, ERROR_FORMAT, "'%s': '%s' has %zu elements, expected %d at most", out->file, name, n, EXCLUDED_MOST);
  out->excluded = malloc((n + 1) * sizeof *out->excluded);
  if (!out->excluded) return error_memory(error, (n + 1) * sizeof *out->excluded);
  for (size_t i = 0; i < n; i++)
    if (read_id(cfg, name, list, i, &out->excluded[i], error) != 0) return -1;
  qsort(out->excluded, n, sizeof *out->excluded, by_id);
  for (size_t i = 0; i < n; i++)
    if (!i || out->excluded[i] != out->excluded[i - 1]) out->excluded[out->n_excluded++] = out->excluded[i];
  return 0;
}

static int read_excluded(const struct dict_json *cfg, struct error *error) {
  const char *name;
  const struct json_node *node = dict_json_find(cfg, NAMES("exclude_special_tokens"), &name);
  if (!node) return 0;
  if (json_kind(node) == JSON_KIND_ARRAY) return read_ids(cfg, name, node, error);
  if (json_kind(node) != JSON_KIND_BOOL) return dict_json_wrong_kind(cfg, name, node, "true, false or a list of token ids", error);
  cfg->config->excludes_special = json_bool_or(node, false);
  return 0;
}

/* ---- both ------------------------------------------------------------------------------------------- */

int saelens_read_positions(const struct dict_json *cfg, struct error *error) {
  return read_slice(cfg, error) != 0 || read_excluded(cfg, error) != 0 ? -1 : 0;
}
