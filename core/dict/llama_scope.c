/* llama_scope.c: Llama Scope (hyperparams.json, checkpoints/final.safetensors) and its successor R1-Distill (config.json,
 * sae_weights.safetensors). Their rows are scaled to an average length of sqrt(d_model), one number for the data set:
 * s = sqrt(d_model) / dataset_average_activation_norm. The one threshold of Llama Scope is kept in units of unscaled rows,
 * as SAELens reads it (threshold * s). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/dict/dict_json.h"
#include "core/dict/dict_readers.h"

/* The weights of nn.Linear modules: [outputs, inputs]. */
static void name_tensors(struct dict_config *out) {
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, "encoder.weight", true);
  dict_config_tensor(out, ROLE_W_DEC, "decoder.weight", true);
  dict_config_tensor(out, ROLE_B_ENC, "encoder.bias", false);
  dict_config_tensor(out, ROLE_B_DEC, "decoder.bias", false);
  out->tensors[ROLE_B_DEC].optional = true; /* use_decoder_bias may be false */
}

static int read_points(const struct dict_json *json, const struct dict_host *host, struct error *error) {
  struct dict_config *out = json->config;
  const char *in = NULL, *to = NULL;
  if (dict_json_text(json, NAMES("hook_point_in"), &in, error) != 0 ||
      dict_json_text(json, NAMES("hook_point_out"), &to, error) != 0)
    return -1;
  if (!in) return dict_json_missing(json, "hook_point_in", "a point such as 'blocks.15.hook_resid_post'", error);
  if (dict_config_point(out, in, host, error) != 0 || (to && dict_config_point_out(out, to, host, error) != 0))
    return -1;
  out->transcoder = point_index(out->in) != point_index(out->out);
  return 0;
}

/* s of the input, and of the output where it is another point. */
static int read_scales(const struct dict_json *json, int64_t d_model, struct error *error) {
  static const char in[] = "dataset_average_activation_norm.in", to[] = "dataset_average_activation_norm.out";
  struct dict_config *out = json->config;
  double norm_in = 0, norm_out = 0;
  if (dict_json_real(json, NAMES(in), &norm_in, error) != 0 || dict_json_real(json, NAMES(to), &norm_out, error) != 0)
    return -1;
  if (!(norm_in > 0)) return dict_json_missing(json, in, "the average length of rows in training, above 0", error);
  out->norm = DICT_NORM_SCALE;
  out->scale = sqrt((double)d_model) / norm_in;
  if (!out->transcoder) return 0;
  if (!(norm_out > 0)) return dict_json_missing(json, to, "the average length of rows in training, above 0", error);
  out->out_scale = sqrt((double)d_model) / norm_out;
  return 0;
}

static int read_act(const struct dict_json *json, struct error *error) {
  const char *act = "jumprelu", *norm = "dataset-wise";
  if (dict_json_text(json, NAMES("act_fn"), &act, error) != 0 ||
      dict_json_text(json, NAMES("norm_activation"), &norm, error) != 0)
    return -1;
  if (strcmp(norm, "dataset-wise") != 0) return dict_json_refuse(json, "norm_activation", norm, "dataset-wise", error);
  if (strcmp(act, "jumprelu") != 0) return dict_json_refuse(json, "act_fn", act, "jumprelu", error);
  json->config->kind = DICT_JUMPRELU;
  json->config->apply_b_dec_to_input = false;
  json->config->context = 1024;
  return 0;
}

/* ---- Llama Scope ------------------------------------------------------------------------------------- */

bool llama_scope_is_at(const char *path) { return dict_has_file(path, "hyperparams.json"); }

static int read_hyperparams(const struct dict_json *json, const struct dict_host *host, struct error *error) {
  struct dict_config *out = json->config;
  double threshold = -1;
  if (read_act(json, error) != 0 || read_points(json, host, error) != 0 ||
      dict_json_count(json, NAMES("d_model"), &out->d_in, error) != 0 ||
      dict_json_count(json, NAMES("d_sae"), &out->n_feat, error) != 0 ||
      dict_json_real(json, NAMES("jump_relu_threshold"), &threshold, error) != 0)
    return -1;
  if (!out->d_in) return dict_json_missing(json, "d_model", "the width of the input", error);
  if (threshold < 0) return dict_json_missing(json, "jump_relu_threshold", "one number, 0 or more", error);
  if (read_scales(json, out->d_in, error) != 0) return -1;
  name_tensors(out);
  dict_config_tensor(out, ROLE_THRESHOLD, NULL, false);
  out->threshold = threshold;
  out->threshold_scale = out->scale;
  return 0;
}

int llama_scope_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  struct dict_json json;
  if (dict_path(path, "hyperparams.json", out->file, error) != 0 ||
      dict_path(path, "checkpoints/final.safetensors", out->weights, error) != 0 ||
      dict_json_open(&json, out, error) != 0)
    return -1;
  int result = read_hyperparams(&json, host, error);
  json_free(json.root);
  return result;
}

/* ---- R1-Distill -------------------------------------------------------------------------------------- */

bool llama_scope_r1_is_at(const char *path) {
  return dict_has_file(path, "config.json") && dict_has_file(path, "sae_weights.safetensors") &&
         !dict_has_file(path, "cfg.json");
}

static int read_r1(const struct dict_json *json, const struct dict_host *host, struct error *error) {
  struct dict_config *out = json->config;
  int64_t expansion = 0;
  if (read_act(json, error) != 0 || read_points(json, host, error) != 0 ||
      dict_json_count(json, NAMES("d_model"), &out->d_in, error) != 0 ||
      dict_json_count(json, NAMES("expansion_factor"), &expansion, error) != 0)
    return -1;
  if (!out->d_in) return dict_json_missing(json, "d_model", "the width of the input", error);
  if (!expansion) return dict_json_missing(json, "expansion_factor", "features for each input", error);
  if (__builtin_mul_overflow(expansion, out->d_in, &out->n_feat))
    return error_set(error, ERROR_FORMAT, "'%s': expansion_factor %lld times d_model %lld is too large", out->file,
                     (long long)expansion, (long long)out->d_in);
  name_tensors(out);
  dict_config_tensor(out, ROLE_THRESHOLD, "log_jumprelu_threshold", false);
  out->threshold_is_log = true;
  return read_scales(json, out->d_in, error);
}

int llama_scope_r1_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  struct dict_json json;
  if (dict_path(path, "config.json", out->file, error) != 0 ||
      dict_path(path, "sae_weights.safetensors", out->weights, error) != 0 || dict_json_open(&json, out, error) != 0)
    return -1;
  int result = read_r1(&json, host, error);
  json_free(json.root);
  return result;
}
