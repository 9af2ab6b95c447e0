/* arch_gpt_neo.c: GPT-Neo and TinyStories: GPT-2's shape with nn.Linear weights under nearly the same names, scores that
 * are not scaled, and layers that alternate between all positions and a window. */
#include <string.h>

#include "core/model/arch.h"
#include "core/model/model_config.h"

static const char *const prefixes[] = {"transformer.", "", NULL};
static const char *const ignored[] = {"*.attn.attention.bias", "*.attn.attention.masked_bias", "lm_head.weight", NULL};

#define LAYER(name) "h.%d." name
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "wte.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_POSITIONS, "wpe.weight", DIM_CONTEXT, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("ln_1.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM1_BIAS, LAYER("ln_1.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, LAYER("attn.attention.q_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("attn.attention.k_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("attn.attention.v_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_O, LAYER("attn.attention.out_proj.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_O_BIAS, LAYER("attn.attention.out_proj.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM2_GAIN, LAYER("ln_2.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM2_BIAS, LAYER("ln_2.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_IN, LAYER("mlp.c_fc.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN_BIAS, LAYER("mlp.c_fc.bias"), DIM_MLP, DIM_NONE),
    WEIGHT(SLOT_OUT, LAYER("mlp.c_proj.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_OUT_BIAS, LAYER("mlp.c_proj.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_GAIN, "ln_f.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_BIAS, "ln_f.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_UNEMBED, "/lm_head.weight", DIM_VOCABULARY, DIM_MODEL, .needs = HAS_UNEMBED),
};

/* One layer's kind; `l` counts on. */
static void take_kind(struct model_config *config, const struct json_node *kind, int32_t *l, struct arch *out) {
  const char *name = json_text_or(kind, "");
  bool local = strcmp(name, "local") == 0;
  if (!local && strcmp(name, "global") != 0)
    model_config_refuse(config, "attention kind '%.40s' of layer %d is not served; served: global, local", name, *l);
  if (*l < out->n_layer) out->local[*l] = local;
  (*l)++;
}

/* attention_layers is the list itself; attention_types [[[kinds], times], ...] expands to it. */
static void read_layers(struct model_config *config, struct arch *out) {
  const struct json_node *list = json_get(config->node, "attention_layers"), *types = json_get(config->node, "attention_types");
  int32_t l = 0;
  if (config->failed) return;
  for (size_t i = 0; i < json_count(list) && l <= out->n_layer; i++) take_kind(config, json_at(list, i), &l, out);
  for (size_t i = 0; !list && i < json_count(types); i++) {
    const struct json_node *kinds = json_at(json_at(types, i), 0);
    int64_t times = json_int_or(json_at(json_at(types, i), 1), 0);
    for (int64_t t = 0; t < times && l <= out->n_layer; t++)
      for (size_t k = 0; k < json_count(kinds) && l <= out->n_layer; k++) take_kind(config, json_at(kinds, k), &l, out);
  }
  if (l != out->n_layer)
    model_config_refuse(config, "attention_types describes %s%d layers, num_layers is %d",
                        l > out->n_layer ? "more than " : "", l > out->n_layer ? out->n_layer : l, out->n_layer);
}

static void read_sizes(struct model_config *config, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "num_layers", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->n_head = out->n_kv_head = (int32_t)model_config_int(config, "num_heads", 1, 1024, MODEL_CONFIG_REQUIRED);
  out->d_model = model_config_int(config, "hidden_size", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->d_mlp = model_config_int(config, "intermediate_size", 1, 1 << 20, 4 * out->d_model);
  out->n_ctx = model_config_int(config, "max_position_embeddings", 1, 1 << 20, 2048);
  out->vocabulary = model_config_int(config, "vocab_size", 1, 1 << 22, MODEL_CONFIG_REQUIRED);
  out->window = (int32_t)model_config_int(config, "window_size", 1, 1 << 20, 256);
  model_config_heads(config, "hidden_size", "num_heads", out->d_model, out->n_head, &out->d_head);
}

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "gpt_neo";
  out->has = HAS_MLP | HAS_MLP_BIAS | HAS_O_BIAS | HAS_NORM2 | HAS_GAINS | HAS_POSITIONS;
  read_sizes(&config, out);
  read_layers(&config, out);
  if (!model_config_bool(&config, "tie_word_embeddings", true)) out->has |= HAS_UNEMBED;
  out->act = model_config_activation(&config, "activation_function", "gelu_new");
  out->norm = out->final_norm = NORM_LAYER;
  out->norm_eps = (float)model_config_number(&config, "layer_norm_epsilon", 0, 1, 1e-5);
  out->embed_scale = out->attn_scale = 1.0f;
  return config.failed ? -1 : 0;
}

const struct arch_family arch_gpt_neo = {.name = "gpt_neo",
                                         .model_type = "gpt_neo",
                                         .prefixes = prefixes,
                                         .rows = rows,
                                         .n_rows = sizeof rows / sizeof rows[0],
                                         .ignored = ignored,
                                         .read_config = read_config};
