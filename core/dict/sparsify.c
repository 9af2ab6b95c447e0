/* sparsify.c: EleutherAI's sparsify (cfg.json, sae.safetensors): TopK dictionaries and transcoders whose folder is called
 * after the module they belong to. W_dec lies [features, outputs], encoder.weight [features, inputs]; b_dec is subtracted
 * from the input unless it is a transcoder. */
#include <stdio.h>
#include <string.h>

#include "core/dict/dict_json.h"
#include "core/dict/dict_path_words.h"
#include "core/dict/dict_readers.h"

bool sparsify_is_at(const char *path) { return dict_has_file(path, "sae.safetensors"); }

static int read_kind(const struct dict_json *json, struct error *error) {
  struct dict_config *out = json->config;
  const char *activation = "topk";
  bool is_signed = false, skip = false;
  int64_t k = 0;
  if (dict_json_text(json, NAMES("activation"), &activation, error) != 0 ||
      dict_json_bool(json, NAMES("signed"), &is_signed, error) != 0 ||
      dict_json_bool(json, NAMES("transcode"), &out->transcoder, error) != 0 ||
      dict_json_bool(json, NAMES("skip_connection"), &skip, error) != 0 ||
      dict_json_count(json, NAMES("k"), &k, error) != 0)
    return -1;
  if (is_signed) return dict_json_refuse(json, "signed", "true", "false: activations above 0", error);
  if (strcmp(activation, "topk") != 0 && strcmp(activation, "groupmax") != 0)
    return dict_json_refuse(json, "activation", activation, "topk, groupmax", error);
  if (!k) return dict_json_missing(json, "k", "the number of features that are kept", error);
  out->kind = !strcmp(activation, "topk") ? DICT_TOPK : DICT_GROUPMAX;
  out->apply_b_dec_to_input = !out->transcoder;
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, "encoder.weight", true);
  dict_config_tensor(out, ROLE_B_ENC, "encoder.bias", false);
  if (skip) dict_config_tensor(out, ROLE_SKIP, "W_skip", true);
  return dict_config_k(out, k, error);
}

static int read_sizes(const struct dict_json *json, struct error *error) {
  struct dict_config *out = json->config;
  int64_t expansion = 0;
  if (dict_json_count(json, NAMES("d_in"), &out->d_in, error) != 0 ||
      dict_json_index(json, NAMES("num_latents"), &out->n_feat, error) != 0 ||
      dict_json_count(json, NAMES("expansion_factor"), &expansion, error) != 0)
    return -1;
  if (out->n_feat || !out->d_in || !expansion) return 0;
  if (!__builtin_mul_overflow(expansion, out->d_in, &out->n_feat)) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': expansion_factor %lld times d_in %lld is too large", out->file,
                   (long long)expansion, (long long)out->d_in);
}

static int no_module(const char *name, const struct dict_config *out, struct error *error) {
  return error_set(error, ERROR_UNSUPPORTED,
                   "'%s': its folder is called '%.80s', expected the module it belongs to: layers.N, layers.N.mlp, "
                   "layers.N.attn, layers.N.self_attn or embed_tokens (h.N for layers.N)", out->file, name);
}

/* "layers.12.mlp": the output of layer 12's MLP, for a transcoder from what that MLP reads. */
static int read_module(const char *name, struct dict_config *out, const struct dict_host *host, struct error *error) {
  static const struct {
    const char *module, *in, *to;
  } sites[] = {{"", "hook_resid_post", "hook_resid_post"},
               {".mlp", "mlp.hook_in", "mlp.hook_out"},
               {".attn", NULL, "hook_attn_out"},
               {".self_attn", NULL, "hook_attn_out"}};
  const char *at = !strncmp(name, "layers.", 7) ? name + 7 : !strncmp(name, "h.", 2) ? name + 2 : NULL;
  if (!strcmp(name, "embed_tokens")) return dict_config_point(out, "hook_embed", host, error);
  size_t digits = at ? strspn(at, "0123456789") : 0, i = 0, n = sizeof sites / sizeof *sites;
  if (digits < 1 || digits > 9) return no_module(name, out, error);
  int64_t layer = 0;
  for (size_t j = 0; j < digits; j++) layer = layer * 10 + (at[j] - '0');
  while (i < n && strcmp(at + digits, sites[i].module) != 0) i++;
  if (i == n || (out->transcoder && (!sites[i].in || !*sites[i].module))) return no_module(name, out, error);
  dict_config_note(out, "the folder is called '%s'", name);
  if (dict_config_site(out, layer, out->transcoder ? sites[i].in : sites[i].to, host, error) != 0) return -1;
  return dict_config_site_out(out, layer, sites[i].to, host, error);
}

int sparsify_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  struct dict_json json;
  struct path_words words;
  if (dict_path(path, "cfg.json", out->file, error) != 0 ||
      dict_path(path, "sae.safetensors", out->weights, error) != 0 || dict_json_open(&json, out, error) != 0)
    return -1;
  path_words_init(&words, path);
  int result = -1;
  if (read_kind(&json, error) == 0 && read_sizes(&json, error) == 0)
    result = read_module(path_words_name(&words), out, host, error);
  json_free(json.root);
  return result;
}
