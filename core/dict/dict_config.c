/* dict_config.c: what the readers of all formats share, and the defaults of a description. Knows no format. */
#include "core/dict/dict_config.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
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

void dict_config_clear(struct dict_config *config) { buffer_clear(&config->notes); }

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

int dict_config_point_out(struct dict_config *config, const char *name, const struct dict_host *host,
                          struct error *error) {
  if (point_parse(name, host->n_layer, &config->out, error) != 0) return error_prefix(error, "'%s'", config->file);
  return 0;
}

int dict_config_point(struct dict_config *config, const char *name, const struct dict_host *host,
                      struct error *error) {
  if (point_parse(name, host->n_layer, &config->in, error) != 0) return error_prefix(error, "'%s'", config->file);
  config->out = config->in;
  return 0;
}

void dict_config_model(struct dict_config *config, const char *model, const struct dict_host *host) {
  if (!model || !*model) return;
  snprintf(config->model, sizeof config->model, "%.*s", (int)sizeof config->model - 1, model);
  if (host->model_id && strcmp(model, host->model_id) != 0)
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
