/* dictionary_learning.c: folders of that library's trainers (config.json with "trainer", ae.pt). dict_class says the
 * formula; the classes differ in whether they subtract the bias and in the names of everything. */
#include <stdio.h>
#include <string.h>

#include "core/dict/dict_json.h"
#include "core/dict/dict_readers.h"
#include "core/model/tensors.h"

bool dictionary_learning_is_at(const char *path) {
  return dict_has_file(path, "ae.pt") && dict_has_file(path, "config.json");
}

enum style { MODULES, MATRICES }; /* encoder.weight [F, d]; W_enc [d, F] */

static const struct class {
  const char *name;
  enum dict_kind kind;
  enum style style;
  bool subtracts;
  const char *b_dec;
} classes[] = {
    {"AutoEncoder", DICT_RELU, MODULES, true, "bias"},
    {"AutoEncoderNew", DICT_RELU, MODULES, false, "decoder.bias"},
    {"GatedAutoEncoder", DICT_GATED, MODULES, true, "decoder_bias"},
    {"JumpReluAutoEncoder", DICT_JUMPRELU, MATRICES, false, "b_dec"},
    {"AutoEncoderTopK", DICT_TOPK, MODULES, true, "b_dec"},
    {"BatchTopKSAE", DICT_JUMPRELU, MODULES, true, "b_dec"},
    {"MatryoshkaBatchTopKSAE", DICT_JUMPRELU, MATRICES, true, "b_dec"},
};
#define CLASSES "AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder, AutoEncoderTopK, BatchTopKSAE, " \
                "MatryoshkaBatchTopKSAE"

static void name_tensors(struct dict_config *out, const struct class *class) {
  static const char *const training[] = {"k", "group_sizes", "threshold", NULL};
  static const char *const sizes[] = {"k", "group_sizes", NULL};
  bool modules = class->style == MODULES;
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, modules ? "encoder.weight" : "W_enc", modules);
  dict_config_tensor(out, ROLE_W_DEC, modules ? "decoder.weight" : "W_dec", modules);
  dict_config_tensor(out, ROLE_B_ENC, modules ? "encoder.bias" : "b_enc", false);
  dict_config_tensor(out, ROLE_B_DEC, class->b_dec, false);
  out->unused = class->kind == DICT_TOPK ? training : sizes; /* a TopK's threshold is not what it was trained to use */
  if (class->kind != DICT_GATED) return;
  dict_config_tensor(out, ROLE_B_ENC, "gate_bias", false);
  dict_config_tensor(out, ROLE_SHIFT, "mag_bias", false);
}

static int read_class(const struct dict_json *json, struct error *error) {
  struct dict_config *out = json->config;
  const char *name = "";
  int64_t k = 0;
  size_t n = sizeof classes / sizeof *classes, i = 0;
  if (dict_json_text(json, NAMES("trainer.dict_class"), &name, error) != 0 ||
      dict_json_count(json, NAMES("trainer.k"), &k, error) != 0)
    return -1;
  while (i < n && strcmp(name, classes[i].name) != 0) i++;
  if (i == n) return dict_json_refuse(json, "trainer.dict_class", name, CLASSES, error);
  out->kind = classes[i].kind;
  out->apply_b_dec_to_input = classes[i].subtracts;
  name_tensors(out, &classes[i]);
  if (out->kind != DICT_TOPK) return 0;
  return k ? dict_config_k(out, k, error) : dict_json_missing(json, "trainer.k", "the number of features TopK keeps", error);
}

/* "resid_post_layer_3", or the layer beside it. */
static int read_submodule(const struct dict_json *json, const struct dict_host *host, struct error *error) {
  static const struct {
    const char *word, *site;
  } sites[] = {{"resid_post", "hook_resid_post"}, {"resid_pre", "hook_resid_pre"}, {"mlp_out", "hook_mlp_out"},
               {"attention_out", "hook_attn_out"}, {"attn_out", "hook_attn_out"}};
  const char *name = "resid_post";
  int64_t layer = -1;
  if (dict_json_text(json, NAMES("trainer.submodule_name"), &name, error) != 0 ||
      dict_json_index(json, NAMES("trainer.layer"), &layer, error) != 0)
    return -1;
  if (layer < 0) return dict_json_missing(json, "trainer.layer", "the number of a layer", error);
  for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
    if (!strncmp(name, sites[i].word, strlen(sites[i].word)))
      return dict_config_site(json->config, layer, sites[i].site, host, error);
  return dict_json_refuse(json, "trainer.submodule_name", name, "resid_post, resid_pre, mlp_out, attn_out (with _layer_N)",
                          error);
}

static int read_trainer(const struct dict_json *json, const struct dict_host *host, struct error *error) {
  struct dict_config *out = json->config;
  const char *model = NULL;
  if (json_kind(json_get(json->root, "trainer")) != JSON_KIND_OBJECT)
    return dict_json_missing(json, "trainer", "an object with dict_class, layer, submodule_name", error);
  if (read_class(json, error) != 0 || read_submodule(json, host, error) != 0 ||
      dict_json_count(json, NAMES("trainer.activation_dim"), &out->d_in, error) != 0 ||
      dict_json_count(json, NAMES("trainer.dict_size"), &out->n_feat, error) != 0 ||
      dict_json_count(json, NAMES("buffer.ctx_len"), &out->context, error) != 0 ||
      dict_json_text(json, NAMES("trainer.lm_name"), &model, error) != 0)
    return -1;
  dict_config_model(out, model, host);
  return 0;
}

int dictionary_learning_read(const char *path, const struct dict_host *host, struct dict_config *out,
                             struct error *error) {
  struct dict_json json;
  if (dict_path(path, "config.json", out->file, error) != 0 || dict_path(path, "ae.pt", out->weights, error) != 0 ||
      dict_json_open(&json, out, error) != 0)
    return -1;
  int result = read_trainer(&json, host, error);
  json_free(json.root);
  return result;
}
