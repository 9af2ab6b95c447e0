/* saelens.c: cfg.json -> struct dict_config. Knows no tensor: the shapes that cfg.json claims are checked
 * against the weights by dict.c. */
#include "core/dict/saelens.h"

#include <stdio.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/log.h"

#define CFG_LIMIT (1 << 20)
#define CFG_DEPTH 32

struct cfg {
  const struct json_node *root;
  struct dict_config *out;
};

/* The first of `names` (a key and its older spellings) that is there and not null, in metadata or at the
 * top; *name is the spelling found. */
static const struct json_node *find(const struct cfg *cfg, const char *const *names, const char **name) {
  const struct json_node *places[] = {json_get(cfg->root, "metadata"), cfg->root};
  for (; *names; names++)
    for (int i = 0; i < 2; i++) {
      const struct json_node *node = json_get(places[i], *names);
      if (json_kind(node) == JSON_KIND_NONE || json_kind(node) == JSON_KIND_NULL) continue;
      *name = *names;
      return node;
    }
  *name = *names;
  return NULL;
}
#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static int wrong_kind(const struct cfg *cfg, const char *name, const struct json_node *node,
                      const char *expected, struct error *error) {
  return error_set(error, ERROR_FORMAT, "'%s': '%s' is %s, expected %s", cfg->out->file, name,
                   json_kind_word(json_kind(node)), expected);
}

/* The getters leave *out alone when the key is absent. */
static int get_text(const struct cfg *cfg, const char *const *names, const char **out, struct error *error) {
  const char *name;
  const struct json_node *node = find(cfg, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_STRING) return wrong_kind(cfg, name, node, "a string", error);
  *out = json_text(node, NULL);
  return 0;
}

static int get_bool(const struct cfg *cfg, const char *const *names, bool *out, struct error *error) {
  const char *name;
  const struct json_node *node = find(cfg, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_BOOL) return wrong_kind(cfg, name, node, "true or false", error);
  *out = json_bool_or(node, *out);
  return 0;
}

static int get_int(const struct cfg *cfg, const char *const *names, int64_t *out, struct error *error) {
  const char *name;
  const struct json_node *node = find(cfg, names, &name);
  if (!node) return 0;
  if (json_kind(node) != JSON_KIND_INT) return wrong_kind(cfg, name, node, "an integer", error);
  int64_t value = json_int_or(node, 0);
  if (value < 1)
    return error_set(error, ERROR_FORMAT, "'%s': '%s' is %lld, expected 1 or more", cfg->out->file, name,
                     (long long)value);
  *out = value;
  return 0;
}

static int refuse(const struct cfg *cfg, const char *key, const char *found, const char *served,
                  struct error *error) {
  return error_set(error, ERROR_UNSUPPORTED, "'%s': %s '%.60s' is not served (served: %s)", cfg->out->file,
                   key, found, served);
}

/* ---- what it computes ------------------------------------------------------------------------------- */

static int read_k(const struct cfg *cfg, struct error *error) {
  int64_t k = 0;
  if (get_int(cfg, NAMES("k"), &k, error) != 0) return -1;
  const char *name;
  const struct json_node *more = find(cfg, NAMES("activation_fn_kwargs"), &name), *node = json_get(more, "k");
  if (node && json_kind(node) != JSON_KIND_INT)
    return wrong_kind(cfg, "activation_fn_kwargs.k", node, "an integer", error);
  int64_t other = json_int_or(node, k);
  if (k && other != k)
    return error_set(error, ERROR_FORMAT, "'%s': k is %lld, but activation_fn_kwargs.k is %lld",
                     cfg->out->file, (long long)k, (long long)other);
  if (!node && !k)
    return error_set(error, ERROR_FORMAT, "'%s': 'k' is missing, expected the number of features TopK keeps",
                     cfg->out->file);
  return dict_config_k(cfg->out, other, error);
}

/* The activation function has the last word: old TopK files say "standard" and name topk only there. */
static int read_kind(const struct cfg *cfg, struct error *error) {
  const char *architecture = "standard", *activation = NULL;
  if (get_text(cfg, NAMES("architecture"), &architecture, error) != 0 ||
      get_text(cfg, NAMES("activation_fn", "activation_fn_str"), &activation, error) != 0)
    return -1;
  bool standard = !strcmp(architecture, "standard"), jump = !strcmp(architecture, "jumprelu");
  bool top = !strcmp(architecture, "topk");
  if (!standard && !jump && !top)
    return refuse(cfg, "architecture", architecture,
                  "standard, jumprelu, topk; BatchTopK as saved for inference: jumprelu", error);
  if (activation && strcmp(activation, "relu") != 0 && (jump || strcmp(activation, "topk") != 0))
    return refuse(cfg, jump ? "architecture jumprelu with activation_fn" : "activation_fn", activation,
                  jump ? "relu" : "relu, topk", error);
  if (top || (activation && !strcmp(activation, "topk"))) {
    cfg->out->kind = DICT_TOPK;
    return read_k(cfg, error);
  }
  cfg->out->kind = jump ? DICT_JUMPRELU : DICT_RELU;
  return 0;
}

static int read_normalisation(const struct cfg *cfg, struct error *error) {
  static const char *const names[] = {"normalize_activations", NULL};
  const char *name, *mode = "none";
  const struct json_node *node = find(cfg, names, &name);
  if (json_kind(node) == JSON_KIND_BOOL)
    mode = json_bool_or(node, false) ? "expected_average_only_in" : "none";
  else if (get_text(cfg, names, &mode, error) != 0)
    return -1;
  return !strcmp(mode, "none") ? 0 : refuse(cfg, name, mode, "none", error);
}

static int read_arithmetic(const struct cfg *cfg, struct error *error) {
  struct dict_config *out = cfg->out;
  if (read_kind(cfg, error) != 0 || read_normalisation(cfg, error) != 0 ||
      get_bool(cfg, NAMES("apply_b_dec_to_input"), &out->apply_b_dec_to_input, error) != 0)
    return -1;
  if (out->kind != DICT_TOPK) return 0;
  return get_bool(cfg, NAMES("rescale_acts_by_decoder_norm"), &out->selects_folded, error);
}

/* ---- where it sits ---------------------------------------------------------------------------------- */

static int read_output(const struct cfg *cfg, const char *hook, struct error *error) {
  const char *hook_out = hook;
  if (get_text(cfg, NAMES("hook_name_out"), &hook_out, error) != 0) return -1;
  if (!strcmp(hook_out, hook)) return 0;
  return error_set(
      error, ERROR_UNSUPPORTED,
      "'%s': a transcoder from '%.80s' to '%.80s' is not served yet (served: one point, in and out)",
      cfg->out->file, hook, hook_out);
}

static int read_head(const struct cfg *cfg, struct error *error) {
  const char *reshape = "none", *name;
  if (get_text(cfg, NAMES("reshape_activations"), &reshape, error) != 0) return -1;
  if (strcmp(reshape, "none") != 0) return refuse(cfg, "reshape_activations", reshape, "none", error);
  if (!find(cfg, NAMES("hook_head_index", "hook_point_head_index"), &name)) return 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "'%s': '%s' is set: dictionaries on a single head are not served (served: whole points)",
                   cfg->out->file, name);
}

static int read_point(const struct cfg *cfg, const struct dict_host *host, struct error *error) {
  const char *hook = NULL;
  if (get_text(cfg, NAMES("hook_name", "hook_point"), &hook, error) != 0) return -1;
  if (!hook)
    return error_set(error, ERROR_FORMAT,
                     "'%s': 'hook_name' is missing, expected a point such as 'blocks.7.hook_resid_pre'",
                     cfg->out->file);
  if (read_output(cfg, hook, error) != 0 || dict_config_point(cfg->out, hook, host, error) != 0) return -1;
  return read_head(cfg, error);
}

static int read_sizes(const struct cfg *cfg, struct error *error) {
  struct dict_config *out = cfg->out;
  if (get_int(cfg, NAMES("d_in"), &out->d_in, error) != 0 ||
      get_int(cfg, NAMES("d_sae"), &out->n_feat, error) != 0)
    return -1;
  int64_t expansion = 0;
  if (out->n_feat || !out->d_in) return 0;
  if (get_int(cfg, NAMES("expansion_factor"), &expansion, error) != 0) return -1;
  if (__builtin_mul_overflow(expansion, out->d_in, &out->n_feat))
    return error_set(error, ERROR_FORMAT, "'%s': expansion_factor %lld times d_in %lld is too large",
                     out->file, (long long)expansion, (long long)out->d_in);
  return 0;
}

/* ---- what it was trained on ------------------------------------------------------------------------- */

static int read_model(const struct cfg *cfg, const struct dict_host *host, struct error *error) {
  const char *model = NULL, *name;
  if (get_text(cfg, NAMES("model_name"), &model, error) != 0) return -1;
  if (model && strcmp(model, host->model_id) != 0)
    log_warn("'%s': trained on model '%s', opened for '%s'", cfg->out->file, model, host->model_id);
  const struct json_node *how = find(cfg, NAMES("model_from_pretrained_kwargs"), &name);
  const struct json_node *center = json_get(how, "center_writing_weights");
  if (center && json_kind(center) != JSON_KIND_BOOL)
    return wrong_kind(cfg, "model_from_pretrained_kwargs.center_writing_weights", center, "true or false",
                      error);
  cfg->out->center_mean = json_bool_or(center, false);
  return 0;
}

static int read_training(const struct cfg *cfg, const struct dict_host *host, struct error *error) {
  if (get_bool(cfg, NAMES("prepend_bos"), &cfg->out->prepend_bos, error) != 0 ||
      get_int(cfg, NAMES("context_size"), &cfg->out->context, error) != 0)
    return -1;
  return read_model(cfg, host, error);
}

int saelens_read(const char *folder, const struct dict_host *host, struct dict_config *out,
                 struct error *error) {
  memset(out, 0, sizeof *out);
  out->apply_b_dec_to_input = out->prepend_bos = out->fold = true;
  out->format = "saelens";
  if (dict_path(folder, "cfg.json", out->file, error) != 0 ||
      dict_path(folder, "sae_weights.safetensors", out->weights, error) != 0)
    return -1;
  struct json_node *root = json_load(out->file, CFG_LIMIT, CFG_DEPTH, error);
  if (!root) return -1;
  struct cfg cfg = {root, out};
  int result = -1;
  if (json_kind(root) != JSON_KIND_OBJECT)
    error_set(error, ERROR_FORMAT, "'%s' is %s, expected an object", out->file,
              json_kind_word(json_kind(root)));
  else if (read_arithmetic(&cfg, error) == 0 && read_point(&cfg, host, error) == 0 &&
           read_sizes(&cfg, error) == 0)
    result = read_training(&cfg, host, error);
  json_free(root);
  return result;
}
