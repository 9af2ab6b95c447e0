/* dict_config.c: what the readers of all formats share, and the defaults of a description. Knows no format. */
#include "core/dict/dict_config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/dict/dict_readers.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

#define NOTES_LIMIT 65536

void dict_config_init(struct dict_config *config, const char *format) {
  memset(config, 0, sizeof *config);
  config->format = format;
  config->apply_b_dec_to_input = config->prepend_bos = config->fold = true;
  config->head = -1;
  config->scale = config->threshold_scale = 1;
  config->prefix = "";
  buffer_init(&config->notes, NOTES_LIMIT);
}

void dict_config_clear(struct dict_config *config) {
  free(config->excluded);
  config->excluded = NULL;
  config->n_excluded = 0;
  buffer_clear(&config->notes);
}

void dict_config_note(struct dict_config *config, const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  buffer_printf(&config->notes, "%s\n", line);
}

int dict_path(const char *directory, const char *name, char out[DICT_PATH_BYTES], struct error *error) {
  int length = snprintf(out, DICT_PATH_BYTES, "%s/%s", directory, name);
  if (length < 0 || length >= DICT_PATH_BYTES)
    return error_set(error, ERROR_ARGUMENT, "path '%.60s...' is longer than %d bytes", directory,
                     DICT_PATH_BYTES - 1);
  return 0;
}

/* ---- points ------------------------------------------------------------------------------------------ */

/* Without a model any layer will do. */
#define MANY_LAYERS 1000000

static int find_point(const struct dict_config *config, const char *name, const struct dict_host *host,
                      struct point *out, struct error *error) {
  int failed = host->arch ? point_find(name, host->arch, out, error) : point_read(name, MANY_LAYERS, out, error);
  return failed ? error_prefix(error, "'%s'", config->file) : 0;
}

/* What is decoded must be rows that something is added to: the residual stream's or of its width, what W_O or W_out carries there,
 * or queries, keys and values, which have no logits to show. Scores, scales and the like are no such rows. */
bool dict_writes(const struct arch *arch, enum site site) {
  struct point_shape shape = point_shape(arch, site);
  bool mlp = site == SITE_MLP_PRE || site == SITE_MLP_PRE_LINEAR || site == SITE_MLP_MID || site == SITE_MLP_POST;
  bool heads = site == SITE_Q || site == SITE_K || site == SITE_V || site == SITE_ATTN_Z;
  return heads || mlp || (!shape.heads && !shape.square && shape.width == arch->d_model);
}

int dict_config_check(const struct dict_config *config, const struct dict_host *host, struct error *error) {
  char name[POINT_NAME_BYTES];
  if (!host->arch || dict_writes(host->arch, config->out.site)) return 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "'%s': dictionaries that write '%s' are not served (served: rows of the residual stream's width, "
                   "hook_q, hook_k, hook_v, hook_z and the inside of the MLP)", config->file, point_name(config->out, name));
}

int dict_config_point_out(struct dict_config *config, const char *name, const struct dict_host *host,
                          struct error *error) {
  return find_point(config, name, host, &config->out, error);
}

int dict_config_point(struct dict_config *config, const char *name, const struct dict_host *host,
                      struct error *error) {
  if (find_point(config, name, host, &config->in, error) != 0) return -1;
  config->out = config->in;
  if (!host->arch || !point_shape(host->arch, config->in.site).square) return 0;
  return error_set(error, ERROR_UNSUPPORTED, "'%s': dictionaries that read '%s' are not served: its width grows with the text",
                   config->file, name);
}

static const char *site_at(int64_t layer, const char *site, char out[POINT_NAME_BYTES]) {
  snprintf(out, POINT_NAME_BYTES, "blocks.%lld.%s", (long long)layer, site);
  return out;
}

int dict_config_site(struct dict_config *config, int64_t layer, const char *site, const struct dict_host *host,
                     struct error *error) {
  char name[POINT_NAME_BYTES];
  return dict_config_point(config, site_at(layer, site, name), host, error);
}

int dict_config_site_out(struct dict_config *config, int64_t layer, const char *site, const struct dict_host *host,
                         struct error *error) {
  char name[POINT_NAME_BYTES];
  return dict_config_point_out(config, site_at(layer, site, name), host, error);
}

void dict_config_model(struct dict_config *config, const char *model, const struct dict_host *host) {
  if (!model || !*model) return;
  snprintf(config->model, sizeof config->model, "%.*s", (int)sizeof config->model - 1, model);
  const char *slash = strrchr(model, '/'), *name = slash ? slash + 1 : model; /* google/gemma-2-2b: the owner is no matter */
  if (host->model_id && strcmp(model, host->model_id) != 0 && strcmp(name, host->model_id) != 0)
    log_warn("'%s': trained on model '%s', opened for '%s'", config->file, model, host->model_id);
}

int dict_config_k(struct dict_config *config, int64_t k, struct error *error) {
  if (k < 1 || k > INT32_MAX)
    return error_set(error, ERROR_FORMAT, "'%s': k is %lld, expected 1 to the number of features",
                     config->file, (long long)k);
  config->k = k;
  return 0;
}

/* ---- tensors ----------------------------------------------------------------------------------------- */

void dict_config_tensor(struct dict_config *config, enum dict_role role, const char *name, bool transposed) {
  config->tensors[role].name = name;
  config->tensors[role].transposed = transposed;
}

void dict_config_tensors(struct dict_config *config) {
  bool gated = config->kind == DICT_GATED;
  dict_config_tensor(config, ROLE_W_ENC, "W_enc", false);
  dict_config_tensor(config, ROLE_W_DEC, "W_dec", false);
  dict_config_tensor(config, ROLE_B_ENC, gated ? "b_gate" : "b_enc", false);
  dict_config_tensor(config, ROLE_B_DEC, "b_dec", false);
  dict_config_tensor(config, ROLE_THRESHOLD, config->kind == DICT_JUMPRELU ? "threshold" : NULL, false);
  dict_config_tensor(config, ROLE_GAIN, gated ? "r_mag" : NULL, false);
  dict_config_tensor(config, ROLE_SHIFT, gated ? "b_mag" : NULL, false);
}
