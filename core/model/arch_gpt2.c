/* arch_gpt2.c: GPT-2 (Radford et al. 2019) as Hugging Face publishes it: learned positions, LayerNorm before
 * each sublayer, tanh GELU, Conv1D weights (rows are inputs) with q, k and v in one matrix. Covers distilgpt2
 * and the Stanford CRFM models, whose scores are also divided by layer + 1. */
#include <math.h>

#include "core/model/arch.h"
#include "core/model/model_config.h"

/* The original gpt2 file has no prefix, files saved by transformers have "transformer.". */
static const char *const prefixes[] = {"transformer.", "", NULL};
static const char *const ignored[] = {"*.attn.bias", "*.attn.masked_bias", "lm_head.weight", NULL};

static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "wte.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_POSITIONS, "wpe.weight", DIM_CONTEXT, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, "h.%d.ln_1.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM1_BIAS, "h.%d.ln_1.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, "h.%d.attn.c_attn.weight", DIM_QKV, DIM_MODEL, .layout = ROWS_ARE_INPUTS),
    WEIGHT(SLOT_QKV_BIAS, "h.%d.attn.c_attn.bias", DIM_QKV, DIM_NONE),
    WEIGHT(SLOT_O, "h.%d.attn.c_proj.weight", DIM_MODEL, DIM_ATTN, .layout = ROWS_ARE_INPUTS),
    WEIGHT(SLOT_O_BIAS, "h.%d.attn.c_proj.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM2_GAIN, "h.%d.ln_2.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM2_BIAS, "h.%d.ln_2.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_IN, "h.%d.mlp.c_fc.weight", DIM_MLP, DIM_MODEL, .layout = ROWS_ARE_INPUTS),
    WEIGHT(SLOT_IN_BIAS, "h.%d.mlp.c_fc.bias", DIM_MLP, DIM_NONE),
    WEIGHT(SLOT_OUT, "h.%d.mlp.c_proj.weight", DIM_MODEL, DIM_MLP, .layout = ROWS_ARE_INPUTS),
    WEIGHT(SLOT_OUT_BIAS, "h.%d.mlp.c_proj.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_GAIN, "ln_f.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_BIAS, "ln_f.bias", DIM_MODEL, DIM_NONE),
};

static void read_sizes(struct model_config *config, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "n_layer", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->n_head = out->n_kv_head = (int32_t)model_config_int(config, "n_head", 1, 1024, MODEL_CONFIG_REQUIRED);
  out->d_model = model_config_int(config, "n_embd", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->n_ctx = model_config_int(config, "n_positions", 1, 1 << 20, 1024);
  out->vocabulary = model_config_int(config, "vocab_size", 1, 1 << 22, MODEL_CONFIG_REQUIRED);
  out->d_mlp = model_config_int(config, "n_inner", 1, 1 << 20, 4 * out->d_model);
  model_config_heads(config, "n_embd", "n_head", out->d_model, out->n_head, &out->d_head);
}

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "gpt2";
  out->has = HAS_MLP | HAS_MLP_BIAS | HAS_QKV_BIAS | HAS_O_BIAS | HAS_NORM2 | HAS_GAINS | HAS_POSITIONS;
  read_sizes(&config, out);
  out->act = model_config_activation(&config, "activation_function", "gelu_new");
  out->norm = out->final_norm = NORM_LAYER;
  out->norm_eps = (float)model_config_number(&config, "layer_norm_epsilon", 0, 1, 1e-5);
  out->embed_scale = 1.0f;
  out->attn_scale = model_config_bool(&config, "scale_attn_weights", true) ? 1.0f / sqrtf((float)out->d_head) : 1.0f;
  out->scale_by_layer = model_config_bool(&config, "scale_attn_by_inverse_layer_idx", false);
  model_config_must_be(&config, "tie_word_embeddings", true, true);
  model_config_must_be(&config, "add_cross_attention", false, false);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_gpt2 = {.name = "gpt2",
                                      .model_type = "gpt2",
                                      .prefixes = prefixes,
                                      .rows = rows,
                                      .n_rows = sizeof rows / sizeof rows[0],
                                      .ignored = ignored,
                                      .read_config = read_config};
