/* gemma_scope.c: Gemma Scope (params.npz) and Gemma Scope 2 (config.json, params.safetensors): JumpReLU dictionaries whose
 * folders say most of what is to be known. */
#include <stdio.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/dict/cross_files.h"
#include "core/dict/dict_json.h"
#include "core/dict/dict_path_words.h"
#include "core/dict/dict_readers.h"
#include "core/model/tensors.h"

static void common(struct dict_config *out) {
  out->kind = DICT_JUMPRELU;
  out->apply_b_dec_to_input = false;
  out->context = 1024;
}

/* ---- Gemma Scope ------------------------------------------------------------------------------------- */

bool gemma_scope_is_at(const char *path) { return dict_has_file(path, "params.npz"); }

/* A few files spell w_enc, w_dec. */
static int name_tensors(struct dict_config *out, struct error *error) {
  struct tensors *tensors = tensors_open_lazy(out->weights, error);
  if (!tensors) return -1;
  bool lower = !tensors_find(tensors, "W_enc") && tensors_find(tensors, "w_enc");
  tensors_close(tensors);
  dict_config_tensors(out);
  if (!lower) return 0;
  dict_config_tensor(out, ROLE_W_ENC, "w_enc", false);
  dict_config_tensor(out, ROLE_W_DEC, "w_dec", false);
  return 0;
}

/* Those of the embedding were trained on rows of the table as they lie there, before the model multiplies them: by what it
 * does multiply with, which is the square root of its width, rounded where its weights are. */
static int read_embedding(struct dict_config *out, const struct dict_host *host, struct error *error) {
  if (host->arch && host->arch->embed_scale > 0) {
    out->norm = DICT_NORM_SCALE;
    out->scale = 1 / (double)host->arch->embed_scale;
  }
  dict_config_note(out, "the folder says 'embedding': rows of the embedding as they lie in its table, before the model multiplies "
                   "them by the square root of its width");
  return dict_config_point(out, "hook_embed", host, error);
}

static int read_site(const struct path_words *words, struct dict_config *out, const struct dict_host *host,
                     struct error *error) {
  int64_t layer;
  bool known = path_words_number(words, "layer_", &layer);
  if (path_words_has(words, "/embedding/")) return read_embedding(out, host, error);
  if (known && path_words_has(words, "-transcoders")) {
    out->transcoder = true;
    dict_config_note(out, "the folder says 'transcoders', layer %lld: the normalized input of the MLP before the gain to what "
                     "the MLP adds", (long long)layer);
    if (dict_config_site(out, layer, "ln2.hook_normalized", host, error) != 0) return -1;
    return dict_config_site_out(out, layer, "hook_mlp_out", host, error);
  }
  static const struct {
    const char *word, *site;
  } sites[] = {{"-res/", "hook_resid_post"}, {"-mlp/", "hook_mlp_out"}, {"-att/", "attn.hook_z"}};
  for (size_t i = 0; known && i < sizeof sites / sizeof *sites; i++)
    if (path_words_has(words, sites[i].word)) {
      dict_config_note(out, "the folder says '%.4s', layer %lld", sites[i].word, (long long)layer);
      return dict_config_site(out, layer, sites[i].site, host, error);
    }
  return error_set(error, ERROR_ARGUMENT,
                   "'%s': no folder above it says which point it belongs to, expected one such as "
                   "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71 (res, mlp, att or transcoders); keep that name, or "
                   "describe it in an .ini", out->weights);
}

int gemma_scope_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  struct path_words words;
  int64_t l0 = 0;
  common(out);
  if (dict_path(path, "params.npz", out->weights, error) != 0) return -1;
  memcpy(out->file, out->weights, sizeof out->file);
  path_words_init(&words, out->weights);
  /* a cache calls the repository's folder models--google--gemma-scope-2b-pt-res/snapshots/REVISION */
  if (path_words_number(&words, "average_l0_", &l0)) out->l0 = (double)l0;
  if (read_site(&words, out, host, error) != 0) return -1;
  return name_tensors(out, error);
}

/* ---- Gemma Scope 2 ----------------------------------------------------------------------------------- */

bool gemma_scope_2_is_at(const char *path) { return dict_has_file(path, "params.safetensors"); }

/* The names of the Hugging Face modules of Gemma, whose sublayers are followed by norms. */
static const char *site_of(const char *hook) {
  static const struct {
    const char *end, *site;
  } sites[] = {{".pre_feedforward_layernorm.output", "mlp.hook_in"},
               {".post_feedforward_layernorm.output", "hook_mlp_out"},
               {".post_attention_layernorm.output", "hook_attn_out"},
               {".self_attn.o_proj.input", "attn.hook_z"}};
  const char *at = strstr(hook, "layers.");
  if (!at) return NULL;
  at += strlen("layers.");
  at += strspn(at, "0123456789");
  if (!strcmp(at, ".output")) return "hook_resid_post";
  for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
    if (!strcmp(at, sites[i].end)) return sites[i].site;
  return NULL;
}

static int read_hook(const struct dict_json *json, const char *key, bool out, const struct dict_host *host,
                     struct error *error) {
  const char *hook = NULL;
  struct path_words words;
  int64_t layer;
  if (dict_json_text(json, NAMES(key), &hook, error) != 0) return -1;
  if (!hook) return dict_json_missing(json, key, "a module such as 'model.layers.12.output'", error);
  const char *site = site_of(hook);
  snprintf(words.text, sizeof words.text, "%.200s", hook);
  if (!site || !path_words_number(&words, "layers.", &layer))
    return dict_json_refuse(json, key, hook,
                            "model.layers.N.output, .self_attn.o_proj.input, .pre_feedforward_layernorm.output, "
                            ".post_feedforward_layernorm.output, .post_attention_layernorm.output", error);
  return (out ? dict_config_site_out : dict_config_site)(json->config, layer, site, host, error);
}

static int read_description(const struct dict_json *json, const struct dict_host *host, struct error *error) {
  struct dict_config *out = json->config;
  const char *architecture = "", *model = NULL, *to = NULL;
  if (dict_json_text(json, NAMES("architecture"), &architecture, error) != 0 ||
      dict_json_text(json, NAMES("model_name"), &model, error) != 0 ||
      dict_json_text(json, NAMES("hf_hook_point_out"), &to, error) != 0)
    return -1;
  if (strcmp(architecture, "jump_relu") != 0)
    return dict_json_refuse(json, "architecture", architecture, "jump_relu; cross-layer transcoders and crosscoders are not",
                            error);
  dict_config_model(out, model, host);
  out->l0 = json_number_or(json_get(json->root, "l0"), 0); /* some say "medium" */
  if (read_hook(json, "hf_hook_point_in", false, host, error) != 0) return -1;
  if (!to) return 0;
  if (read_hook(json, "hf_hook_point_out", true, host, error) != 0) return -1;
  out->transcoder = point_index(out->in) != point_index(out->out);
  return 0;
}

/* Some folders come without config.json: then their names say which of the five they are. */
static int read_names(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  static const struct {
    const char *word, *site;
  } sites[] = {{"resid_post", "hook_resid_post"}, {"attn_out", "attn.hook_z"}, {"mlp_out", "hook_mlp_out"},
               {"transcoder", "mlp.hook_in"}};
  struct path_words words;
  int64_t layer;
  path_words_init(&words, path);
  for (size_t i = 0; path_words_number(&words, "layer_", &layer) && i < sizeof sites / sizeof *sites; i++) {
    if (!path_words_has(&words, sites[i].word)) continue;
    dict_config_note(out, "no config.json; the folder says '%s', layer %lld", sites[i].word, (long long)layer);
    if (dict_config_site(out, layer, sites[i].site, host, error) != 0) return -1;
    out->transcoder = i == 3;
    return out->transcoder ? dict_config_site_out(out, layer, "hook_mlp_out", host, error) : 0;
  }
  return error_set(error, ERROR_ARGUMENT,
                   "'%s' has no config.json beside it, and no folder above it says which point it belongs to, expected one such "
                   "as resid_post/layer_12_width_16k_l0_medium", out->weights);
}

int gemma_scope_2_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  struct dict_json json;
  common(out);
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, "w_enc", false);
  dict_config_tensor(out, ROLE_W_DEC, "w_dec", false);
  /* [d_in, d_out], used as it lies: x S. */
  dict_config_tensor(out, ROLE_SKIP, "affine_skip_connection", false);
  out->tensors[ROLE_SKIP].optional = true;
  if (dict_path(path, "params.safetensors", out->weights, error) != 0 ||
      dict_path(path, "config.json", out->file, error) != 0)
    return -1;
  if (!dict_has_file(path, "config.json")) return read_names(path, host, out, error);
  if (dict_json_open(&json, out, error) != 0) return -1;
  int result = read_description(&json, host, error);
  json_free(json.root);
  return result;
}

/* ---- Gemma Scope 2 across layers --------------------------------------------------------------------- */

#define CROSS_FILE "params_layer_"

/* Crosscoders have files of the same names. */
bool gemma_scope_2_cross_is_at(const char *path) {
  int64_t layer;
  return dict_has_file(path, CROSS_FILE "0.safetensors") || (path_is_file(path) && cross_file_layer(path, CROSS_FILE, &layer));
}

/* config.json says which model and, where it is there, must name the architecture of all these. */
static int read_cross_description(const char *folder, const struct dict_host *host, struct dict_config *out, struct error *error) {
  struct dict_json json;
  const char *architecture = "jump_relu", *model = NULL;
  if (!dict_has_file(folder, "config.json")) return 0;
  if (dict_path(folder, "config.json", out->file, error) != 0 || dict_json_open(&json, out, error) != 0) return -1;
  int failed = dict_json_text(&json, NAMES("architecture"), &architecture, error) != 0 ||
               dict_json_text(&json, NAMES("model_name"), &model, error) != 0;
  if (!failed && strcmp(architecture, "jump_relu") != 0)
    failed = dict_json_refuse(&json, "architecture", architecture, "jump_relu", error);
  if (!failed) dict_config_model(out, model, host);
  json_free(json.root);
  return failed ? -1 : 0;
}

int gemma_scope_2_cross_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  static const char *const files[] = {CROSS_FILE, NULL};
  struct path_words words;
  char folder[DICT_PATH_BYTES];
  int64_t layer = 0;
  common(out);
  out->transcoder = out->cross = true;
  out->fold = false;
  if (snprintf(out->weights, sizeof out->weights, "%s", path) >= (int)sizeof out->weights || !cross_file_layer(path, CROSS_FILE, &layer))
    return error_set(error, ERROR_ARGUMENT, "path '%.60s' names no layer", path);
  memcpy(out->file, out->weights, sizeof out->file);
  path_words_init(&words, path);
  if (!path_words_has(&words, "/clt/"))
    return error_set(error, ERROR_UNSUPPORTED, "'%s': no folder above it is called 'clt', as those of cross-layer transcoders are; "
                     "crosscoders, whose files bear the same names, are not served", path);
  if (dict_folder_of(path, folder, error) != 0 || cross_files_check(folder, files, layer, host, out, error) != 0 ||
      read_cross_description(folder, host, out, error) != 0)
    return -1;
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, "w_enc", false);
  dict_config_tensor(out, ROLE_W_DEC, "w_dec", false);
  dict_config_tensor(out, ROLE_SKIP, "affine_skip_connection", false);
  out->tensors[ROLE_SKIP].optional = true;
  out->first_plane = (int32_t)layer; /* w_dec has a row for every layer of the model; those in front of its own are 0 */
  dict_config_note(out, "the folder says 'clt': what the MLP reads, behind the gain, to what the MLPs add");
  if (dict_config_site(out, layer, "mlp.hook_in", host, error) != 0) return -1;
  return dict_config_site_out(out, layer, "hook_mlp_out", host, error);
}
