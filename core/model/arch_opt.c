/* arch_opt.c: OPT: GPT-2's shape with ReLU and nn.Linear weights, and learned positions whose first two rows no position
 * uses. The 350m model norms the residual stream behind each addition, has no last norm, and narrow rows of tokens. */
#include <math.h>

#include "core/model/arch.h"
#include "core/model/model_config.h"

static const char *const prefixes[] = {"model.decoder.", "decoder.", "", NULL};
static const char *const ignored[] = {"lm_head.weight", NULL};

#define LAYER(name) "layers.%d." name
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_MODEL, .unless = HAS_NARROW_EMBED),
    WEIGHT(SLOT_EMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_EMBED, .needs = HAS_NARROW_EMBED, .factor = "project_in.weight"),
    WEIGHT(SLOT_UNEMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_EMBED, .needs = HAS_NARROW_EMBED,
           .factor = "project_out.weight", .factor_layout = ROWS_ARE_INPUTS),
    WEIGHT(SLOT_POSITIONS, "embed_positions.weight", DIM_CONTEXT, DIM_MODEL, .skip = 2),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("self_attn_layer_norm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM1_BIAS, LAYER("self_attn_layer_norm.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, LAYER("self_attn.q_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.k_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.v_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.q_proj.bias"), DIM_ATTN, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.k_proj.bias"), DIM_ATTN, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.v_proj.bias"), DIM_ATTN, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_O, LAYER("self_attn.out_proj.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_O_BIAS, LAYER("self_attn.out_proj.bias"), DIM_MODEL, DIM_NONE, .needs = HAS_O_BIAS),
    WEIGHT(SLOT_NORM2_GAIN, LAYER("final_layer_norm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM2_BIAS, LAYER("final_layer_norm.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_IN, LAYER("fc1.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN_BIAS, LAYER("fc1.bias"), DIM_MLP, DIM_NONE, .needs = HAS_MLP_BIAS),
    WEIGHT(SLOT_OUT, LAYER("fc2.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_OUT_BIAS, LAYER("fc2.bias"), DIM_MODEL, DIM_NONE, .needs = HAS_MLP_BIAS),
    WEIGHT(SLOT_FINAL_GAIN, "final_layer_norm.weight", DIM_MODEL, DIM_NONE, .needs = HAS_FINAL_NORM),
    WEIGHT(SLOT_FINAL_BIAS, "final_layer_norm.bias", DIM_MODEL, DIM_NONE, .needs = HAS_FINAL_NORM),
};

static void read_sizes(struct model_config *config, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "num_hidden_layers", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->n_head = out->n_kv_head = (int32_t)model_config_int(config, "num_attention_heads", 1, 1024, MODEL_CONFIG_REQUIRED);
  out->d_model = model_config_int(config, "hidden_size", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->d_mlp = model_config_int(config, "ffn_dim", 1, 1 << 20, MODEL_CONFIG_REQUIRED);
  out->n_ctx = model_config_int(config, "max_position_embeddings", 1, 1 << 20, 2048);
  out->vocabulary = model_config_int(config, "vocab_size", 1, 1 << 22, MODEL_CONFIG_REQUIRED);
  model_config_heads(config, "hidden_size", "num_attention_heads", out->d_model, out->n_head, &out->d_head);
}

/* Norms in front of the sublayers and one at the end, or behind each addition and none at the end. */
static void read_norms(struct model_config *config, struct arch *out) {
  bool before = model_config_bool(config, "do_layer_norm_before", true);
  out->norm = out->final_norm = before ? NORM_LAYER : NORM_NONE;
  out->stream_norm = before ? NORM_NONE : NORM_LAYER;
  out->has |= before ? HAS_FINAL_NORM : 0;
  out->norm_eps = 1e-5f;
  if (before) model_config_must_be(config, "_remove_final_layer_norm", false, false);
  model_config_must_be(config, "layer_norm_elementwise_affine", true, true);
}

static void read_embedding(struct model_config *config, struct arch *out) {
  out->embed_scale = 1.0f;
  out->d_embed = model_config_int(config, "word_embed_proj_dim", 1, 65536, out->d_model);
  if (out->d_embed == out->d_model) return;
  out->has |= HAS_NARROW_EMBED | HAS_UNEMBED;
}

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "opt";
  out->has = HAS_MLP | HAS_NORM2 | HAS_GAINS | HAS_POSITIONS;
  read_sizes(&config, out);
  if (model_config_bool(&config, "enable_bias", true)) out->has |= HAS_QKV_BIAS | HAS_O_BIAS | HAS_MLP_BIAS;
  out->act = model_config_activation(&config, "activation_function", "relu");
  read_norms(&config, out);
  read_embedding(&config, out);
  out->attn_scale = 1.0f / sqrtf((float)out->d_head);
  model_config_must_be(&config, "tie_word_embeddings", true, true);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_opt = {.name = "opt",
                                     .model_type = "opt",
                                     .prefixes = prefixes,
                                     .rows = rows,
                                     .n_rows = sizeof rows / sizeof rows[0],
                                     .ignored = ignored,
                                     .read_config = read_config};
