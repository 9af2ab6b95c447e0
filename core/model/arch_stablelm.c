/* arch_stablelm.c: StableLM (3B, 2, 2 Zephyr): Llama with LayerNorm, rotary positions over a part of each head, perhaps
 * biases on q, k and v, perhaps norms of their heads, perhaps attention and MLP side by side behind one norm. */
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
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.q_proj.bias"), DIM_ATTN, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.k_proj.bias"), DIM_KV, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.v_proj.bias"), DIM_KV, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_Q_GAIN, LAYER("self_attn.q_layernorm.norms.%d.weight"), DIM_ATTN, DIM_NONE, .needs = HAS_QK_LAYER_NORM,
           .form = FORM_EACH_HEAD),
    WEIGHT(SLOT_K_GAIN, LAYER("self_attn.k_layernorm.norms.%d.weight"), DIM_KV, DIM_NONE, .needs = HAS_QK_LAYER_NORM,
           .form = FORM_EACH_HEAD),
    WEIGHT(SLOT_O, LAYER("self_attn.o_proj.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_NORM2_GAIN, LAYER("post_attention_layernorm.weight"), DIM_MODEL, DIM_NONE, .needs = HAS_NORM2),
    WEIGHT(SLOT_NORM2_BIAS, LAYER("post_attention_layernorm.bias"), DIM_MODEL, DIM_NONE, .needs = HAS_NORM2),
    WEIGHT(SLOT_GATE, LAYER("mlp.gate_proj.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN, LAYER("mlp.up_proj.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_OUT, LAYER("mlp.down_proj.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_FINAL_GAIN, "norm.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_BIAS, "norm.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_UNEMBED, "/lm_head.weight", DIM_VOCABULARY, DIM_MODEL, .needs = HAS_UNEMBED),
};

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "stablelm";
  llama_read(&config, &(struct llama_defaults){.n_kv_head = 32, .n_ctx = 4096, .theta = 10000,
                                               .part_key = "partial_rotary_factor", .part = 0.25}, out);
  out->norm = out->final_norm = NORM_LAYER;
  out->norm_eps = (float)model_config_number(&config, "layer_norm_eps", 0, 1, 1e-5);
  if (model_config_bool(&config, "use_qkv_bias", false)) out->has |= HAS_QKV_BIAS;
  out->parallel = model_config_bool(&config, "use_parallel_residual", false);
  if (out->parallel) out->has &= ~(uint32_t)HAS_NORM2;
  if (model_config_bool(&config, "qk_layernorm", false)) out->has |= HAS_QK_NORM | HAS_QK_LAYER_NORM;
  return config.failed ? -1 : 0;
}

const struct arch_family arch_stablelm = {.name = "stablelm",
                                          .model_type = "stablelm",
                                          .prefixes = prefixes,
                                          .rows = rows,
                                          .n_rows = sizeof rows / sizeof rows[0],
                                          .ignored = llama_ignored,
                                          .read_config = read_config};
