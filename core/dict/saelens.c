/* saelens.c: cfg.json -> struct dict_config. Knows no tensor: the shapes that cfg.json claims are checked
 * against the weights by dict.c. */
#include "core/dict/saelens.h"

#include <string.h>

#include "core/base/mapfile.h"

/* ---- what it computes ------------------------------------------------------------------------------- */

static int read_k(const struct dict_json *cfg, struct error *error) {
  int64_t k = 0, other = 0;
  if (dict_json_count(cfg, NAMES("k"), &k, error) != 0 ||
      dict_json_count(cfg, NAMES("activation_fn_kwargs.k"), &other, error) != 0)
    return -1;
  if (k && other && other != k)
    return error_set(error, ERROR_FORMAT, "'%s': k is %lld, but activation_fn_kwargs.k is %lld",
                     cfg->config->file, (long long)k, (long long)other);
  if (!k && !other) return dict_json_missing(cfg, "k", "the number of features TopK keeps", error);
  return dict_config_k(cfg->config, k ? k : other, error);
}

/* The names that SAELens gives to what a dictionary computes at inference. BatchTopK and Matryoshka dictionaries are
 * saved as jumprelu; one that still calls itself so (a checkpoint in training) may have no threshold, which is then
 * found missing. */
static const struct {
  const char *name;
  enum dict_kind kind;
  bool transcoder, skip;
} architectures[] = {
    {"standard", DICT_RELU, false, false},
    {"jumprelu", DICT_JUMPRELU, false, false},
    {"topk", DICT_TOPK, false, false},
    {"gated", DICT_GATED, false, false},
    {"batchtopk", DICT_JUMPRELU, false, false},
    {"matryoshka_batchtopk", DICT_JUMPRELU, false, false},
    {"transcoder", DICT_RELU, true, false},
    {"topk_transcoder", DICT_TOPK, true, false}, /* steerd's own: SAELens has none, and would read "transcoder" as one with ReLU */
    {"skip_transcoder", DICT_RELU, true, true},
    {"jumprelu_transcoder", DICT_JUMPRELU, true, false},
    {"jumprelu_skip_transcoder", DICT_JUMPRELU, true, true},
};
#define ARCHITECTURES "standard, gated, jumprelu, topk, batchtopk, matryoshka_batchtopk, transcoder, skip_transcoder, " \
                      "topk_transcoder, jumprelu_transcoder, jumprelu_skip_transcoder"

/* The activation function has the last word: old TopK files say "standard" and name topk only there. */
static int read_activation(const struct dict_json *cfg, const char *architecture, struct error *error) {
  const char *activation = "relu";
  struct dict_config *out = cfg->config;
  if (dict_json_text(cfg, NAMES("activation_fn", "activation_fn_str"), &activation, error) != 0) return -1;
  bool top = !strcmp(activation, "topk"), open = out->kind == DICT_RELU || out->kind == DICT_TOPK;
  if (top && open) out->kind = DICT_TOPK;
  if (!strcmp(activation, "relu") || (top && open)) return out->kind == DICT_TOPK ? read_k(cfg, error) : 0;
  if (open) return dict_json_refuse(cfg, "activation_fn", activation, "relu, topk", error);
  return error_set(error, ERROR_UNSUPPORTED, "'%s': architecture %s with activation_fn '%.60s' is not served (served: relu)",
                   out->file, architecture, activation);
}

static int read_kind(const struct dict_json *cfg, struct error *error) {
  const char *architecture = "standard";
  if (dict_json_text(cfg, NAMES("architecture"), &architecture, error) != 0) return -1;
  size_t n = sizeof architectures / sizeof *architectures, i = 0;
  while (i < n && strcmp(architecture, architectures[i].name) != 0) i++;
  if (i == n) return dict_json_refuse(cfg, "architecture", architecture, ARCHITECTURES, error);
  cfg->config->kind = architectures[i].kind;
  cfg->config->transcoder = architectures[i].transcoder;
  if (read_activation(cfg, architecture, error) != 0) return -1;
  dict_config_tensors(cfg->config);
  if (architectures[i].skip) dict_config_tensor(cfg->config, ROLE_SKIP, "W_skip", true);
  return 0;
}

/* ---- normalisation ---------------------------------------------------------------------------------- */

/* The scale that training estimated, left beside a checkpoint. */
static int read_scaler(const struct dict_json *cfg, const char *folder, struct error *error) {
  struct dict_config *beside = cfg->config;
  char cfg_path[DICT_PATH_BYTES];
  memcpy(cfg_path, beside->file, sizeof cfg_path);
  if (dict_path(folder, "activation_scaler.json", beside->file, error) != 0) return -1;
  struct dict_json json = {.root = NULL};
  int failed = 0;
  if (path_is_file(beside->file)) {
    failed = dict_json_open(&json, beside, error);
    if (!failed) failed = dict_json_real(&json, NAMES("scaling_factor"), &beside->scale, error);
    json_free(json.root);
  }
  if (!failed) memcpy(beside->file, cfg_path, sizeof cfg_path);
  return failed;
}

static int read_scale(const struct dict_json *cfg, const char *folder, struct error *error) {
  struct dict_config *out = cfg->config;
  out->scale = 0;
  if (dict_json_real(cfg, NAMES("norm_scaling_factor"), &out->scale, error) != 0 ||
      (out->scale == 0 && read_scaler(cfg, folder, error) != 0))
    return -1;
  if (out->scale > 0) return 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "'%s': normalize_activations is expected_average_only_in, but no scale above 0 is given: put "
                   "norm_scaling_factor into it, or \"none\" where the scale was folded into the weights",
                   out->file);
}

static int read_normalisation(const struct dict_json *cfg, const char *folder, struct error *error) {
  static const char *const names[] = {"normalize_activations", NULL};
  static const struct {
    const char *name;
    enum dict_norm norm;
  } modes[] = {{"none", DICT_NORM_NONE}, {"expected_average_only_in", DICT_NORM_SCALE},
               {"constant_scalar_rescale", DICT_NORM_SCALE}, {"constant_norm_rescale", DICT_NORM_LENGTH},
               {"layer_norm", DICT_NORM_STANDARD}};
  const char *name, *mode = "none";
  const struct json_node *node = dict_json_find(cfg, names, &name);
  if (json_kind(node) == JSON_KIND_BOOL)
    mode = json_bool_or(node, false) ? "expected_average_only_in" : "none";
  else if (dict_json_text(cfg, names, &mode, error) != 0)
    return -1;
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (!strcmp(mode, modes[i].name)) {
      cfg->config->norm = modes[i].norm;
      return modes[i].norm == DICT_NORM_SCALE ? read_scale(cfg, folder, error) : 0;
    }
  return dict_json_refuse(cfg, name, mode,
                          "none, expected_average_only_in, constant_scalar_rescale, constant_norm_rescale, layer_norm",
                          error);
}

static int read_arithmetic(const struct dict_json *cfg, const char *folder, struct error *error) {
  struct dict_config *out = cfg->config;
  if (read_kind(cfg, error) != 0 || read_normalisation(cfg, folder, error) != 0) return -1;
  out->apply_b_dec_to_input = !out->transcoder;
  dict_config_tensor(out, ROLE_SCALING, "scaling_factor", false);
  out->tensors[ROLE_SCALING].optional = true;
  if (dict_json_bool(cfg, NAMES("apply_b_dec_to_input"), &out->apply_b_dec_to_input, error) != 0 ||
      dict_json_bool(cfg, NAMES("finetuning_scaling_factor"), &out->scales_decoder, error) != 0)
    return -1;
  if (out->transcoder && out->apply_b_dec_to_input)
    return error_set(error, ERROR_UNSUPPORTED,
                     "'%s': a transcoder with apply_b_dec_to_input is not served: its b_dec belongs to the output",
                     out->file);
  if (out->kind != DICT_TOPK) return 0;
  return dict_json_bool(cfg, NAMES("rescale_acts_by_decoder_norm"), &out->selects_folded, error);
}

/* ---- where it sits ---------------------------------------------------------------------------------- */

static int read_output(const struct dict_json *cfg, const char *hook, const struct dict_host *host,
                       struct error *error) {
  struct dict_config *out = cfg->config;
  const char *hook_out = hook;
  if (dict_json_text(cfg, NAMES("hook_name_out", "hook_point_out"), &hook_out, error) != 0) return -1;
  if (hook_out == hook && out->transcoder)
    return dict_json_missing(cfg, "hook_name_out", "the point that the transcoder writes", error);
  if (hook_out == hook) return 0;
  if (dict_config_point_out(out, hook_out, host, error) != 0) return -1;
  if (out->transcoder || point_index(out->in) == point_index(out->out)) return 0;
  return error_set(error, ERROR_FORMAT,
                   "'%s': it reads '%.80s' and writes '%.80s', but its architecture is no transcoder's", out->file, hook,
                   hook_out);
}

static int read_head(const struct dict_json *cfg, const char *hook, struct error *error) {
  const char *reshape = "none";
  bool z = strstr(hook, "hook_z") != NULL;
  if (dict_json_text(cfg, NAMES("reshape_activations"), &reshape, error) != 0) return -1;
  if (strcmp(reshape, "none") != 0 && strcmp(reshape, "hook_z") != 0)
    return dict_json_refuse(cfg, "reshape_activations", reshape, "none, hook_z", error);
  if (!strcmp(reshape, "hook_z") && !z)
    return error_set(error, ERROR_FORMAT, "'%s': reshape_activations is hook_z, but the point is '%.80s'",
                     cfg->config->file, hook);
  if (dict_json_index(cfg, NAMES("hook_head_index", "hook_point_head_index"), &cfg->config->head, error) != 0) return -1;
  if (cfg->config->head < 0 || z) return 0;
  return error_set(error, ERROR_UNSUPPORTED, "'%s': hook_head_index is %lld, but '%.80s' has no heads (served: hook_z)",
                   cfg->config->file, (long long)cfg->config->head, hook);
}

#define LAYERS_MOST 9999 /* more than any model has */

/* The number of a layer that SAELens writes beside a point: nothing here needs it, but where it is another than the point's, one of the two
 * is wrong. */
static int check_layer(const struct dict_json *cfg, const char *const *names, const char *hook, struct point at, struct error *error) {
  const char *name;
  const struct json_node *node = dict_json_find(cfg, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_INT) return dict_json_wrong_kind(cfg, name, node, "the number of a layer", error);
  int64_t layer = json_int_or(node, -1);
  if (layer < 0 || layer > LAYERS_MOST)
    return error_set(error, ERROR_FORMAT, "'%s': '%s' is %lld, expected the number of a layer, 0 to %d", cfg->config->file, name,
                     (long long)layer, LAYERS_MOST);
  if (strncmp(hook, "blocks.", 7) != 0 || layer == at.layer) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': '%s' is %lld, but its point is '%.80s': correct the one that is wrong", cfg->config->file, name,
                   (long long)layer, hook);
}

static int check_rest(const struct dict_json *cfg, const char *hook, struct error *error) {
  const char *name, *hook_out = hook;
  const struct json_node *node = dict_json_find(cfg, NAMES("dtype"), &name);
  if (node && json_kind(node) != JSON_KIND_STRING) return dict_json_wrong_kind(cfg, name, node, "a string such as \"float32\"", error);
  if (dict_json_text(cfg, NAMES("hook_name_out", "hook_point_out"), &hook_out, error) != 0 ||
      check_layer(cfg, NAMES("hook_layer", "hook_point_layer"), hook, cfg->config->in, error) != 0)
    return -1;
  return check_layer(cfg, NAMES("hook_layer_out"), hook_out, cfg->config->out, error);
}

static int read_point(const struct dict_json *cfg, const struct dict_host *host, struct error *error) {
  const char *hook = NULL;
  if (dict_json_text(cfg, NAMES("hook_name", "hook_point"), &hook, error) != 0) return -1;
  if (!hook) return dict_json_missing(cfg, "hook_name", "a point such as 'blocks.7.hook_resid_pre'", error);
  if (dict_config_point(cfg->config, hook, host, error) != 0 || read_output(cfg, hook, host, error) != 0 || check_rest(cfg, hook, error) != 0)
    return -1;
  return read_head(cfg, hook, error);
}

static int read_sizes(const struct dict_json *cfg, struct error *error) {
  struct dict_config *out = cfg->config;
  if (dict_json_count(cfg, NAMES("d_in"), &out->d_in, error) != 0 ||
      dict_json_count(cfg, NAMES("d_out"), &out->d_out, error) != 0 ||
      dict_json_count(cfg, NAMES("d_sae"), &out->n_feat, error) != 0)
    return -1;
  int64_t expansion = 0;
  if (out->n_feat || !out->d_in) return 0;
  if (dict_json_count(cfg, NAMES("expansion_factor"), &expansion, error) != 0) return -1;
  if (__builtin_mul_overflow(expansion, out->d_in, &out->n_feat))
    return error_set(error, ERROR_FORMAT, "'%s': expansion_factor %lld times d_in %lld is too large",
                     out->file, (long long)expansion, (long long)out->d_in);
  return 0;
}

/* ---- what it was trained on ------------------------------------------------------------------------- */

static int read_training(const struct dict_json *cfg, const struct dict_host *host, struct error *error) {
  struct dict_config *out = cfg->config;
  const char *model = NULL;
  if (dict_json_bool(cfg, NAMES("prepend_bos"), &out->prepend_bos, error) != 0 ||
      dict_json_count(cfg, NAMES("context_size"), &out->context, error) != 0 ||
      dict_json_text(cfg, NAMES("model_name"), &model, error) != 0)
    return -1;
  dict_config_model(out, model, host);
  if (saelens_read_positions(cfg, error) != 0) return -1;
  return dict_json_bool(cfg, NAMES("model_from_pretrained_kwargs.center_writing_weights"), &out->center_mean, error);
}

/* Newer files keep what training knew in `metadata`, older ones beside it. A field that is in both is read there; what the two say
 * differently, nobody can know. */
static int check_both(const struct dict_json *cfg, struct error *error) {
  void *iterator = NULL;
  const char *key;
  const struct json_node *inside;
  static const char *const read[] = {
      "architecture", "activation_fn", "activation_fn_str", "activation_fn_kwargs", "k", "d_in", "d_out", "d_sae", "expansion_factor",
      "normalize_activations", "norm_scaling_factor", "apply_b_dec_to_input", "finetuning_scaling_factor", "rescale_acts_by_decoder_norm",
      "hook_name", "hook_point", "hook_name_out", "hook_point_out", "hook_layer", "hook_point_layer", "hook_layer_out", "hook_head_index",
      "hook_point_head_index", "reshape_activations", "prepend_bos", "context_size", "model_name", "model_from_pretrained_kwargs",
      "seqpos_slice", "exclude_special_tokens"};
  while (json_next(cfg->inner, &iterator, &key, &inside)) {
    const struct json_node *outside = json_get(cfg->root, key);
    bool counts = false;
    for (size_t i = 0; i < sizeof read / sizeof *read && !counts; i++) counts = strcmp(key, read[i]) == 0;
    if (!counts || json_kind(inside) == JSON_KIND_NULL || json_kind(outside) == JSON_KIND_NONE || json_kind(outside) == JSON_KIND_NULL ||
        json_same(inside, outside))
      continue;
    return error_set(error, ERROR_FORMAT, "'%s': '%s' inside 'metadata' is another than beside it: keep the one that is right", cfg->config->file, key);
  }
  return 0;
}

int saelens_read(const char *folder, const struct dict_host *host, struct dict_config *out,
                 struct error *error) {
  struct dict_json cfg;
  if (dict_path(folder, "cfg.json", out->file, error) != 0 ||
      dict_path(folder, "sae_weights.safetensors", out->weights, error) != 0 ||
      dict_json_open(&cfg, out, error) != 0)
    return -1;
  cfg.inner = json_get(cfg.root, "metadata");
  int result = -1;
  if (check_both(&cfg, error) == 0 && read_arithmetic(&cfg, folder, error) == 0 && read_point(&cfg, host, error) == 0 &&
      read_sizes(&cfg, error) == 0)
    result = read_training(&cfg, host, error);
  json_free(cfg.root);
  return result;
}
