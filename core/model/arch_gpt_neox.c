/* arch_gpt_neox.c: GPT-NeoX and Pythia: LayerNorm, rotary positions over a part of each head, attention and MLP side by
 * side with a norm each, and q, k and v in one tensor, interleaved head by head. */
#include <math.h>

#include "core/model/arch.h"
#include "core/model/model_config.h"
#include "core/model/rotary.h"

static const char *const prefixes[] = {"gpt_neox.", "", NULL};
static const char *const ignored[] = {"*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq",
                                      "embed_out.weight", NULL};

#define LAYER(name) "layers.%d." name
#define FUSED LAYER("attention.query_key_value")
#define PIECE(n) .form = FORM_HEAD_PIECE, .piece = n, .pieces = 3
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "embed_in.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("input_layernorm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM1_BIAS, LAYER("input_layernorm.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, FUSED ".weight", DIM_ATTN, DIM_MODEL, PIECE(0)),
    WEIGHT(SLOT_QKV, FUSED ".weight", DIM_ATTN, DIM_MODEL, PIECE(1)),
    WEIGHT(SLOT_QKV, FUSED ".weight", DIM_ATTN, DIM_MODEL, PIECE(2)),
    WEIGHT(SLOT_QKV_BIAS, FUSED ".bias", DIM_ATTN, DIM_NONE, PIECE(0), .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, FUSED ".bias", DIM_ATTN, DIM_NONE, PIECE(1), .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, FUSED ".bias", DIM_ATTN, DIM_NONE, PIECE(2), .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_O, LAYER("attention.dense.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_O_BIAS, LAYER("attention.dense.bias"), DIM_MODEL, DIM_NONE, .needs = HAS_O_BIAS),
    WEIGHT(SLOT_NORM2_GAIN, LAYER("post_attention_layernorm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM2_BIAS, LAYER("post_attention_layernorm.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_IN, LAYER("mlp.dense_h_to_4h.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN_BIAS, LAYER("mlp.dense_h_to_4h.bias"), DIM_MLP, DIM_NONE),
    WEIGHT(SLOT_OUT, LAYER("mlp.dense_4h_to_h.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_OUT_BIAS, LAYER("mlp.dense_4h_to_h.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_GAIN, "final_layer_norm.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_BIAS, "final_layer_norm.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_UNEMBED, "/embed_out.weight", DIM_VOCABULARY, DIM_MODEL, .needs = HAS_UNEMBED),
};

static void read_sizes(struct model_config *config, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "num_hidden_layers", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->n_head = out->n_kv_head = (int32_t)model_config_int(config, "num_attention_heads", 1, 1024, MODEL_CONFIG_REQUIRED);
  out->d_model = model_config_int(config, "hidden_size", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->d_mlp = model_config_int(config, "intermediate_size", 1, 1 << 20, MODEL_CONFIG_REQUIRED);
  out->n_ctx = model_config_int(config, "max_position_embeddings", 1, 1 << 20, 2048);
  out->vocabulary = model_config_int(config, "vocab_size", 1, 1 << 22, MODEL_CONFIG_REQUIRED);
  model_config_heads(config, "hidden_size", "num_attention_heads", out->d_model, out->n_head, &out->d_head);
}

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "gpt_neox";
  out->has = HAS_MLP | HAS_MLP_BIAS | HAS_NORM2 | HAS_GAINS;
  read_sizes(&config, out);
  if (model_config_bool(&config, "attention_bias", true)) out->has |= HAS_QKV_BIAS | HAS_O_BIAS;
  if (!model_config_bool(&config, "tie_word_embeddings", false)) out->has |= HAS_UNEMBED;
  out->parallel = model_config_bool(&config, "use_parallel_residual", true);
  out->act = model_config_activation(&config, "hidden_act", "gelu");
  out->norm = out->final_norm = NORM_LAYER;
  out->norm_eps = (float)model_config_number(&config, "layer_norm_eps", 0, 1, 1e-5);
  out->embed_scale = 1.0f;
  out->attn_scale = 1.0f / sqrtf((float)out->d_head);
  rotary_read(&config, &(struct rotary_defaults){NULL, "rotary_emb_base", "rotary_pct", 10000, 0.25}, out, &out->rotary);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_gpt_neox = {.name = "gpt_neox",
                                          .model_type = "gpt_neox",
                                          .prefixes = prefixes,
                                          .rows = rows,
                                          .n_rows = sizeof rows / sizeof rows[0],
                                          .ignored = ignored,
                                          .read_config = read_config};
