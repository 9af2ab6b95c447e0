/* torch_dictionaries.c: dictionaries that are one torch file each: OpenAI's autoencoders, the attention SAEs of Kissane and
 * others (with a description beside), and bare pairs of an encoder and a decoder module (Goodfire, qresearch). */
#include <stdio.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/dict/dict_json.h"
#include "core/dict/dict_path_words.h"
#include "core/dict/dict_readers.h"
#include "core/model/tensors.h"
#include "core/model/torch_fields.h"

static bool ends_in(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && !strcmp(text + n - m, end);
}

static bool is_torch_name(const char *path) { return (ends_in(path, ".pt") || ends_in(path, ".pth")) && path_is_file(path); }

static int set_paths(const char *path, struct dict_config *out, struct error *error) {
  int length = snprintf(out->weights, sizeof out->weights, "%s", path);
  if (length >= (int)sizeof out->weights)
    return error_set(error, ERROR_ARGUMENT, "path '%.60s...' is longer than %d bytes", path, DICT_PATH_BYTES - 1);
  memcpy(out->file, out->weights, sizeof out->file);
  return 0;
}

/* ---- OpenAI ------------------------------------------------------------------------------------------ */

/* .../gpt2-small/resid_post_mlp/v5_32k/autoencoders/7.pt */
bool openai_is_at(const char *path) {
  struct path_words words;
  if (!is_torch_name(path)) return false;
  path_words_init(&words, path);
  return path_words_has(&words, "/autoencoders/");
}

static int read_openai_site(const char *path, struct dict_config *out, const struct dict_host *host,
                            struct error *error) {
  static const struct {
    const char *word, *site;
  } sites[] = {{"/mlp_post_act/", "mlp.hook_post"}, {"/resid_delta_mlp/", "hook_mlp_out"},
               {"/resid_delta_attn/", "hook_attn_out"}, {"/resid_post_attn/", "hook_resid_mid"},
               {"/resid_post_mlp/", "hook_resid_post"}};
  struct path_words words;
  int64_t layer;
  path_words_init(&words, path);
  for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
    if (path_words_has(&words, sites[i].word) && path_words_number(&words, "/autoencoders/", &layer)) {
      dict_config_note(out, "the folders say '%s', layer %lld", sites[i].word, (long long)layer);
      return dict_config_site(out, layer, sites[i].site, host, error);
    }
  return error_set(error, ERROR_ARGUMENT,
                   "'%s': its folders do not say which point it belongs to, expected LOCATION/VERSION/autoencoders/LAYER.pt with "
                   "one of mlp_post_act, resid_delta_mlp, resid_delta_attn, resid_post_attn, resid_post_mlp", path);
}

/* The activation stands in the file, beside the tensors. TopK autoencoders were trained on normalised rows. */
static int read_openai_kind(struct dict_config *out, struct error *error) {
  char activation[32] = "ReLU";
  int64_t k = 0;
  if (torch_field_text(out->weights, "activation", activation, sizeof activation, error) != 0 ||
      torch_field_int(out->weights, "activation_state_dict.k", &k, error) != 0)
    return -1;
  dict_config_note(out, "activation = %s", activation);
  if (!strcmp(activation, "ReLU")) return 0;
  if (strcmp(activation, "TopK") != 0)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': activation '%.30s' is not served (served: ReLU, TopK)", out->weights,
                     activation);
  dict_config_note(out, "activation_state_dict.k = %lld: rows are brought to mean 0 and deviation 1 first", (long long)k);
  out->kind = DICT_TOPK;
  out->norm = DICT_NORM_STANDARD;
  return dict_config_k(out, k, error);
}

int openai_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  static const char *const unused[] = {"stats_last_nonzero", NULL};
  if (set_paths(path, out, error) != 0 || read_openai_kind(out, error) != 0 ||
      read_openai_site(path, out, host, error) != 0)
    return -1;
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, "encoder.weight", true);
  dict_config_tensor(out, ROLE_W_DEC, "decoder.weight", true);
  dict_config_tensor(out, ROLE_B_ENC, "latent_bias", false);
  dict_config_tensor(out, ROLE_B_DEC, "pre_bias", false);
  out->unused = unused;
  out->context = 64;
  return 0;
}

/* ---- attention SAEs ---------------------------------------------------------------------------------- */

/* NAME.pt -> NAME_cfg.json */
static bool description_beside(const char *path, char out[DICT_PATH_BYTES]) {
  if (!is_torch_name(path)) return false;
  int n = snprintf(out, DICT_PATH_BYTES, "%.*s_cfg.json", (int)(strrchr(path, '.') - path), path);
  return n < DICT_PATH_BYTES && path_is_file(out);
}

bool attention_saes_is_at(const char *path) {
  char description[DICT_PATH_BYTES];
  return description_beside(path, description);
}

static int read_attention(const struct dict_json *json, const struct dict_host *host, struct error *error) {
  const char *point = NULL;
  if (dict_json_text(json, NAMES("act_name"), &point, error) != 0 ||
      dict_json_count(json, NAMES("act_size"), &json->config->d_in, error) != 0 ||
      dict_json_count(json, NAMES("dict_size"), &json->config->n_feat, error) != 0)
    return -1;
  if (!point) return dict_json_missing(json, "act_name", "a point such as 'blocks.7.attn.hook_z'", error);
  dict_config_tensors(json->config);
  return dict_config_point(json->config, point, host, error);
}

int attention_saes_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  struct dict_json json;
  if (set_paths(path, out, error) != 0) return -1;
  description_beside(path, out->file);
  if (dict_json_open(&json, out, error) != 0) return -1;
  int result = read_attention(&json, host, error);
  json_free(json.root);
  return result;
}

/* ---- an encoder and a decoder module ----------------------------------------------------------------- */

static const struct pair {
  const char *w_enc, *b_enc, *w_dec, *b_dec;
} pairs[] = {{"encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight", "decoder_linear.bias"},
             {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}};

/* Which pair the file holds; NULL when neither. Only asked of files whose names hold a layer ("-l19"). */
static const struct pair *pair_of(const char *path) {
  struct error ignored = ERROR_INIT;
  struct tensors *tensors = tensors_open_lazy(path, &ignored);
  const struct pair *found = NULL;
  for (int i = 0; tensors && !found && i < 2; i++)
    if (tensors_find(tensors, pairs[i].w_enc) && tensors_find(tensors, pairs[i].w_dec)) found = &pairs[i];
  tensors_close(tensors);
  return found;
}

/* "Llama-3.1-8B-Instruct-SAE-l19.pth": the last "l" with digits behind it, in the name alone. */
static bool layer_in_name(const char *path, int64_t *layer) {
  struct path_words words, name;
  path_words_init(&words, path);
  snprintf(name.text, sizeof name.text, "%s", path_words_name(&words));
  return path_words_number(&name, "-l", layer) || path_words_number(&name, "_l", layer);
}

bool linear_pair_is_at(const char *path) {
  int64_t layer;
  return is_torch_name(path) && layer_in_name(path, &layer) && pair_of(path) != NULL;
}

int linear_pair_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  const struct pair *pair = pair_of(path);
  int64_t layer = 0;
  if (set_paths(path, out, error) != 0) return -1;
  if (!pair || !layer_in_name(path, &layer))
    return error_set(error, ERROR_FORMAT, "'%s' holds no encoder.weight and decoder.weight", path);
  out->apply_b_dec_to_input = false;
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, pair->w_enc, true);
  dict_config_tensor(out, ROLE_W_DEC, pair->w_dec, true);
  dict_config_tensor(out, ROLE_B_ENC, pair->b_enc, false);
  dict_config_tensor(out, ROLE_B_DEC, pair->b_dec, false);
  dict_config_note(out, "the file's name says layer %lld: the residual stream behind it", (long long)layer);
  return dict_config_site(out, layer, "hook_resid_post", host, error);
}
