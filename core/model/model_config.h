/* model_config.h: strict reading of config.json. The first error wins and makes every later getter return its
 * fallback, so that a family reads all it needs and asks once whether it went well.
 *
 * A key that is absent or null has the fallback. Texts name the key, what was found and what is allowed. */
#ifndef STEERD_CORE_MODEL_MODEL_CONFIG_H
#define STEERD_CORE_MODEL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/math/ops.h"

struct model_config {
  const struct json_node *node; /* an object, or NULL: every key is absent */
  const char *inside;           /* "" or "rope_scaling.": in front of keys in error texts */
  struct error *error;
  bool failed;
};

#define MODEL_CONFIG_REQUIRED (-1) /* as the fallback of int and number: the key must be there */

bool model_config_has(const struct model_config *config, const char *key); /* present and not null */
int64_t model_config_int(struct model_config *config, const char *key, int64_t low, int64_t high, int64_t fallback);
double model_config_number(struct model_config *config, const char *key, double low, double high, double fallback);
bool model_config_bool(struct model_config *config, const char *key, bool fallback);
const char *model_config_text(struct model_config *config, const char *key, const char *fallback);

/* An activation by its name in transformers; the softmax one of TransformerLens is not among them. */
enum activation model_config_activation(struct model_config *config, const char *key, const char *fallback);

/* d_model / n_head; fails, naming both keys, when that leaves a rest. 0 after any failure. */
void model_config_heads(struct model_config *config, const char *d_model_key, const char *n_head_key, int64_t d_model,
                        int32_t n_head, int32_t *d_head);

/* Switches that are served at one value only: another value is ERROR_UNSUPPORTED, naming key and value. */
void model_config_must_be(struct model_config *config, const char *key, bool value, bool fallback);
void model_config_must_be_absent(struct model_config *config, const char *key); /* or null */

/* Fails with this text, behind "config.json: ". */
#define model_config_refuse(config, ...)                                                              \
  do {                                                                                                \
    if (!(config)->failed) {                                                                          \
      (config)->failed = true;                                                                        \
      (void)error_set((config)->error, ERROR_UNSUPPORTED, "config.json: " __VA_ARGS__);               \
    }                                                                                                 \
  } while (0)

#endif
