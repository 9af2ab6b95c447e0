/* arch_phi.c: Phi-1, 1.5 and 2: one LayerNorm that attention and MLP both read, rotary positions over a part of each
 * head, biases everywhere, the unembedding's included. */
#include <math.h>

#include "core/model/arch_llama.h"

static const char *const prefixes[] = {"model.", "", NULL};

#define LAYER(name) "layers.%d." name
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("input_layernorm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM1_BIAS, LAYER("input_layernorm.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, LAYER("self_attn.q_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.k_proj.weight"), DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.v_proj.weight"), DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.q_proj.bias"), DIM_ATTN, DIM_NONE),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.k_proj.bias"), DIM_KV, DIM_NONE),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.v_proj.bias"), DIM_KV, DIM_NONE),
    WEIGHT(SLOT_O, LAYER("self_attn.dense.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_O_BIAS, LAYER("self_attn.dense.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_IN, LAYER("mlp.fc1.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN_BIAS, LAYER("mlp.fc1.bias"), DIM_MLP, DIM_NONE),
    WEIGHT(SLOT_OUT, LAYER("mlp.fc2.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_OUT_BIAS, LAYER("mlp.fc2.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_GAIN, "final_layernorm.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_BIAS, "final_layernorm.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_UNEMBED, "/lm_head.weight", DIM_VOCABULARY, DIM_MODEL, .needs = HAS_UNEMBED),
    WEIGHT(SLOT_UNEMBED_BIAS, "/lm_head.bias", DIM_VOCABULARY, DIM_NONE),
};

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "phi";
  llama_read(&config, &(struct llama_defaults){.n_ctx = 2048, .theta = 10000, .part_key = "partial_rotary_factor", .part = 0.5},
             out);
  out->has &= ~(uint32_t)HAS_NORM2;
  out->has |= HAS_QKV_BIAS | HAS_O_BIAS | HAS_MLP_BIAS | HAS_UNEMBED_BIAS;
  out->norm = out->final_norm = NORM_LAYER;
  out->norm_eps = (float)model_config_number(&config, "layer_norm_eps", 0, 1, 1e-5);
  out->act = model_config_activation(&config, "hidden_act", "gelu_new");
  out->gated = false;
  out->parallel = true;
  model_config_must_be(&config, "qk_layernorm", false, false);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_phi = {.name = "phi",
                                     .model_type = "phi",
                                     .prefixes = prefixes,
                                     .rows = rows,
                                     .n_rows = sizeof rows / sizeof rows[0],
                                     .ignored = llama_ignored,
                                     .read_config = read_config};
