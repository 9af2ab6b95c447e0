/* dict_config.c: what the readers of cfg.json and of ini sections share. Knows neither format. */
#include "core/dict/dict_config.h"

#include <stdio.h>

#include "core/model/points.h"

int dict_path(const char *directory, const char *name, char out[DICT_PATH_BYTES], struct error *error) {
  int length = snprintf(out, DICT_PATH_BYTES, "%s/%s", directory, name);
  if (length < 0 || length >= DICT_PATH_BYTES)
    return error_set(error, ERROR_ARGUMENT, "path '%.60s...' is longer than %d bytes", directory,
                     DICT_PATH_BYTES - 1);
  return 0;
}

/* Points whose width is d_model, so that one encoder shape fits all. */
static bool is_served(enum site site) {
  return site == SITE_RESID_PRE || site == SITE_RESID_MID || site == SITE_RESID_POST ||
         site == SITE_ATTN_OUT || site == SITE_MLP_OUT;
}

int dict_config_point(struct dict_config *config, const char *name, const struct dict_host *host,
                      struct error *error) {
  if (point_parse(name, host->n_layer, &config->point, error) != 0)
    return error_prefix(error, "'%s'", config->file);
  if (is_served(config->point.site)) return 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "'%s': dictionaries on '%s' are not served yet (served: hook_resid_pre, hook_resid_mid, "
                   "hook_resid_post, hook_attn_out, hook_mlp_out)",
                   config->file, name);
}

int dict_config_k(struct dict_config *config, int64_t k, struct error *error) {
  if (k < 1 || k > INT32_MAX)
    return error_set(error, ERROR_FORMAT, "'%s': k is %lld, expected 1 to the number of features",
                     config->file, (long long)k);
  config->k = (int32_t)k;
  return 0;
}
