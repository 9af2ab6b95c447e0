/* rotary.c: frequencies of rotary positions and their scalings. Knows config keys and formulas, no model. */
#include "core/model/rotary.h"

#include <math.h>
#include <string.h>

void rotary_plain(double theta, int32_t dims, struct rotary *out) {
  out->dims = dims;
  out->factor = 1.0f;
  for (int32_t i = 0; i < dims / 2; i++) out->frequency[i] = (float)pow(theta, -2.0 * i / dims);
}

/* The angle is rounded to f32 before its cosine is taken, as PyTorch does: far from the start that is what a model
 * was trained with, and what its published numbers show. */
void rotary_row(const struct rotary *rotary, int32_t position, float *out) {
  int32_t half = rotary->dims / 2;
  for (int32_t i = 0; i < half; i++) {
    float angle = (float)position * rotary->frequency[i];
    out[i] = (float)cos(angle) * rotary->factor;
    out[half + i] = (float)sin(angle) * rotary->factor;
  }
}

/* ---- scalings ---- */

static void scale_linear(struct model_config *rope, struct rotary *out) {
  double factor = model_config_number(rope, "factor", 1e-3, 1e6, MODEL_CONFIG_REQUIRED);
  for (int32_t i = 0; i < out->dims / 2; i++) out->frequency[i] = (float)(out->frequency[i] / factor);
}

/* Long waves are stretched, short ones kept, those between blended. */
static void scale_llama3(struct model_config *rope, const struct arch *arch, struct rotary *out) {
  double factor = model_config_number(rope, "factor", 1e-3, 1e6, MODEL_CONFIG_REQUIRED);
  double low = model_config_number(rope, "low_freq_factor", 1e-3, 1e6, MODEL_CONFIG_REQUIRED);
  double high = model_config_number(rope, "high_freq_factor", 1e-3, 1e6, MODEL_CONFIG_REQUIRED);
  double context = model_config_number(rope, "original_max_position_embeddings", 1, 1 << 30, (double)arch->n_ctx);
  for (int32_t i = 0; i < out->dims / 2; i++) {
    double f = out->frequency[i], wave = 2 * M_PI / f;
    double blend = (context / wave - low) / (high - low);
    if (wave > context / low)
      f /= factor;
    else if (wave >= context / high)
      f = (1 - blend) * f / factor + blend * f;
    out->frequency[i] = (float)f;
  }
}

static double yarn_growth(double factor, double by) { return factor <= 1 ? 1 : 0.1 * by * log(factor) + 1; }

/* Which pair turns `turns` times over the original context. */
static double yarn_pair(double turns, double dims, double theta, double context) {
  return dims * log(context / (turns * 2 * M_PI)) / (2 * log(theta));
}

static void scale_yarn(struct model_config *rope, const struct arch *arch, double theta, struct rotary *out) {
  double context = model_config_number(rope, "original_max_position_embeddings", 1, 1 << 30, (double)arch->n_ctx);
  double factor = model_config_number(rope, "factor", 1e-3, 1e6, (double)arch->n_ctx / context);
  double fast = model_config_number(rope, "beta_fast", 1e-3, 1e6, 32);
  double slow = model_config_number(rope, "beta_slow", 1e-3, 1e6, 1);
  double mscale = model_config_number(rope, "mscale", 0, 1e3, 0), all = model_config_number(rope, "mscale_all_dim", 0, 1e3, 0);
  double growth = mscale > 0 && all > 0 ? yarn_growth(factor, mscale) / yarn_growth(factor, all) : yarn_growth(factor, 1);
  double low = yarn_pair(fast, out->dims, theta, context), high = yarn_pair(slow, out->dims, theta, context);
  if (model_config_bool(rope, "truncate", true)) low = floor(low), high = ceil(high);
  low = fmax(low, 0);
  high = fmin(high, out->dims - 1);
  if (low == high) high += 0.001;
  for (int32_t i = 0; i < out->dims / 2; i++) {
    double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
    out->frequency[i] = (float)(out->frequency[i] * (ramp / factor + 1 - ramp));
  }
  out->factor = (float)model_config_number(rope, "attention_factor", 0, 1e3, growth);
}

/* The factors change with the length of the text: short ones up to the original context, long ones beyond, which
 * would turn keys that are cached already. The short ones are served, and the context ends where they do. */
static void scale_longrope(struct model_config *config, struct model_config *rope, struct arch *arch, struct rotary *out) {
  int64_t most = 1 << 20;
  int64_t context = model_config_int(rope, "original_max_position_embeddings", 1, most, arch->n_ctx);
  context = model_config_int(config, "original_max_position_embeddings", 1, most, context);
  double factor = model_config_number(rope, "factor", 1e-3, 1e6, (double)arch->n_ctx / (double)context);
  double growth = factor <= 1 ? 1 : sqrt(1 + log(factor) / log((double)context));
  const struct json_node *list = json_get(rope->node, "short_factor");
  if (json_count(list) != (size_t)out->dims / 2) {
    model_config_refuse(rope, "'%sshort_factor' has %zu numbers, expected %d, one for each pair that turns", rope->inside,
                        json_count(list), out->dims / 2);
    return;
  }
  for (int32_t i = 0; i < out->dims / 2; i++) {
    double by = json_number_or(json_at(list, (size_t)i), 0);
    if (!(by > 0)) model_config_refuse(rope, "'%sshort_factor' holds %g, only numbers above 0 are allowed", rope->inside, by);
    out->frequency[i] = (float)(out->frequency[i] / by);
  }
  out->factor = (float)model_config_number(rope, "attention_factor", 0, 1e3, growth);
  if (context < arch->n_ctx) arch->n_ctx = context;
}

static void scale(struct model_config *config, struct model_config *rope, double theta, struct arch *arch,
                  struct rotary *out) {
  const char *type = model_config_text(rope, "rope_type", model_config_text(rope, "type", "default"));
  if (strcmp(type, "linear") == 0)
    scale_linear(rope, out);
  else if (strcmp(type, "llama3") == 0)
    scale_llama3(rope, arch, out);
  else if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0 || model_config_has(rope, "short_factor"))
    scale_longrope(config, rope, arch, out); /* the first Phi-3 files called it "su", and a kin of it "yarn" */
  else if (strcmp(type, "yarn") == 0)
    scale_yarn(rope, arch, theta, out);
  else if (strcmp(type, "default") != 0 && strcmp(type, "dynamic") != 0) /* dynamic begins beyond the context */
    model_config_refuse(rope, "rope_type '%.40s' is not served; served: default, linear, dynamic, llama3, yarn, longrope",
                        type);
}

/* Numbers within their ranges can still make a scaling that means nothing: a base of 1, a context of 1. */
static void check_finite(struct model_config *rope, const struct rotary *rotary) {
  bool finite = isfinite(rotary->factor);
  for (int32_t i = 0; i < rotary->dims / 2; i++) finite = finite && isfinite(rotary->frequency[i]);
  if (!finite) model_config_refuse(rope, "the numbers of '%s' give frequencies that are not finite", rope->inside);
}

/* ---- config.json ---- */

/* rope_parameters, where transformers 5 keeps everything (perhaps by kind of layer), or the older rope_scaling. */
static struct model_config rope_of(struct model_config *config, const char *layers) {
  const struct json_node *all = json_get(config->node, "rope_parameters");
  if (json_kind(all) != JSON_KIND_OBJECT)
    return (struct model_config){json_get(config->node, "rope_scaling"), "rope_scaling.", config->error, config->failed};
  const struct json_node *own = layers ? json_get(all, layers) : NULL;
  return (struct model_config){own ? own : all, "rope_parameters.", config->error, config->failed};
}

void rotary_read(struct model_config *config, const struct rotary_defaults *defaults, struct arch *arch,
                 struct rotary *out) {
  struct model_config rope = rope_of(config, defaults->layers);
  double theta = model_config_number(config, defaults->theta_key, 1, 1e12, defaults->theta);
  double part = defaults->part_key ? model_config_number(config, defaults->part_key, 0, 1, defaults->part) : 1;
  rope.failed = config->failed;
  theta = model_config_number(&rope, "rope_theta", 1, 1e12, theta);
  part = model_config_number(&rope, "partial_rotary_factor", 0, 1, part);
  int32_t dims = (int32_t)(arch->d_head * part);
  if (!rope.failed && (dims % 2 || dims < 2 || dims > ROTARY_MAX_DIMS))
    model_config_refuse(&rope, "%d of %d elements of a head turn (%s); even numbers from 2 to %d are served", dims,
                        arch->d_head, "partial_rotary_factor", ROTARY_MAX_DIMS);
  if (!rope.failed) {
    rotary_plain(theta, dims, out);
    scale(config, &rope, theta, arch, out);
    check_finite(&rope, out);
  }
  config->failed = config->failed || rope.failed;
}
