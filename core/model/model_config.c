/* model_config.c: typed getters over config.json. Knows kinds and ranges, no family. */
#include "core/model/model_config.h"

#include <string.h>

static enum json_kind kind_of(const struct model_config *config, const char *key) {
  enum json_kind kind = json_kind(json_get(config->node, key));
  return kind == JSON_KIND_NULL ? JSON_KIND_NONE : kind;
}

bool model_config_has(const struct model_config *config, const char *key) {
  return kind_of(config, key) != JSON_KIND_NONE;
}

static void wrong_kind(struct model_config *config, const char *key, const char *wanted) {
  config->failed = true;
  (void)error_set(config->error, ERROR_FORMAT, "config.json: '%s%s' is %s, expected %s", config->inside, key,
                  json_kind_word(kind_of(config, key)), wanted);
}

int64_t model_config_int(struct model_config *config, const char *key, int64_t low, int64_t high, int64_t fallback) {
  enum json_kind kind = kind_of(config, key);
  if (config->failed || (kind == JSON_KIND_NONE && fallback != MODEL_CONFIG_REQUIRED)) return fallback;
  if (kind != JSON_KIND_INT) return wrong_kind(config, key, "an integer"), fallback;
  int64_t value = json_int_or(json_get(config->node, key), 0);
  if (value >= low && value <= high) return value;
  config->failed = true;
  (void)error_set(config->error, ERROR_FORMAT, "config.json: '%s%s' is %lld, allowed are %lld to %lld", config->inside,
                  key, (long long)value, (long long)low, (long long)high);
  return fallback;
}

double model_config_number(struct model_config *config, const char *key, double low, double high, double fallback) {
  enum json_kind kind = kind_of(config, key);
  if (config->failed || (kind == JSON_KIND_NONE && fallback != MODEL_CONFIG_REQUIRED)) return fallback;
  if (kind != JSON_KIND_INT && kind != JSON_KIND_REAL) return wrong_kind(config, key, "a number"), fallback;
  double value = json_number_or(json_get(config->node, key), 0);
  if (value >= low && value <= high) return value;
  config->failed = true;
  (void)error_set(config->error, ERROR_FORMAT, "config.json: '%s%s' is %g, allowed are %g to %g", config->inside, key,
                  value, low, high);
  return fallback;
}

bool model_config_bool(struct model_config *config, const char *key, bool fallback) {
  enum json_kind kind = kind_of(config, key);
  if (config->failed || kind == JSON_KIND_NONE) return fallback;
  if (kind != JSON_KIND_BOOL) return wrong_kind(config, key, "true or false"), fallback;
  return json_bool_or(json_get(config->node, key), fallback);
}

const char *model_config_text(struct model_config *config, const char *key, const char *fallback) {
  enum json_kind kind = kind_of(config, key);
  if (config->failed || kind == JSON_KIND_NONE) return fallback;
  if (kind != JSON_KIND_STRING) return wrong_kind(config, key, "a string"), fallback;
  return json_text_or(json_get(config->node, key), fallback);
}

enum activation model_config_activation(struct model_config *config, const char *key, const char *fallback) {
  static const struct {
    const char *name;
    enum activation act;
  } known[] = {{"gelu_new", ACT_GELU_TANH}, {"gelu_pytorch_tanh", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH},
               {"gelu", ACT_GELU_ERF},      {"relu", ACT_RELU},                   {"silu", ACT_SILU},
               {"swish", ACT_SILU}};
  const char *name = model_config_text(config, key, fallback);
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(known[i].name, name) == 0) return known[i].act;
  model_config_refuse(config, "%s '%.40s' is not served; served: gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu",
                      key, name);
  return ACT_NONE;
}

void model_config_heads(struct model_config *config, const char *d_model_key, const char *n_head_key, int64_t d_model,
                        int32_t n_head, int32_t *d_head) {
  *d_head = 0;
  if (config->failed) return;
  if (d_model % n_head)
    model_config_refuse(config, "%s%s %lld is not a multiple of %s %d", config->inside, d_model_key, (long long)d_model,
                        n_head_key, n_head);
  else
    *d_head = (int32_t)(d_model / n_head);
}

void model_config_must_be(struct model_config *config, const char *key, bool value, bool fallback) {
  if (model_config_bool(config, key, fallback) == value || config->failed) return;
  model_config_refuse(config, "%s%s %s is not served, only %s is", config->inside, key, value ? "false" : "true",
                      value ? "true" : "false");
}

void model_config_must_be_absent(struct model_config *config, const char *key) {
  if (model_config_has(config, key)) model_config_refuse(config, "%s%s is not served", config->inside, key);
}
