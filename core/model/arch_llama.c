/* arch_llama.c: Llama 1, 2 and 3: RMSNorm, rotary positions in halves, grouped key-value heads, SwiGLU. The weight
 * table is also that of the families that took Llama's names over (arch_llama.h). */
#include "core/model/arch_llama.h"

#include <math.h>

const char *const llama_prefixes[] = {"model.", "", NULL};
const char *const llama_ignored[] = {"*.rotary_emb.inv_freq", "lm_head.weight", NULL};

#define LAYER(name) "layers.%d." name
const struct weight_row llama_rows[] = {
    WEIGHT(SLOT_EMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("input_layernorm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, LAYER("self_attn.q_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.k_proj.weight"), DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.v_proj.weight"), DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.q_proj.bias"), DIM_ATTN, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.k_proj.bias"), DIM_KV, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.v_proj.bias"), DIM_KV, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_Q_GAIN, LAYER("self_attn.q_norm.weight"), DIM_HEAD, DIM_NONE, .needs = HAS_QK_NORM),
    WEIGHT(SLOT_K_GAIN, LAYER("self_attn.k_norm.weight"), DIM_HEAD, DIM_NONE, .needs = HAS_QK_NORM),
    WEIGHT(SLOT_O, LAYER("self_attn.o_proj.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_O_BIAS, LAYER("self_attn.o_proj.bias"), DIM_MODEL, DIM_NONE, .needs = HAS_O_BIAS),
    WEIGHT(SLOT_NORM2_GAIN, LAYER("post_attention_layernorm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_GATE, LAYER("mlp.gate_proj.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN, LAYER("mlp.up_proj.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_OUT, LAYER("mlp.down_proj.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_GATE_BIAS, LAYER("mlp.gate_proj.bias"), DIM_MLP, DIM_NONE, .needs = HAS_MLP_BIAS),
    WEIGHT(SLOT_IN_BIAS, LAYER("mlp.up_proj.bias"), DIM_MLP, DIM_NONE, .needs = HAS_MLP_BIAS),
    WEIGHT(SLOT_OUT_BIAS, LAYER("mlp.down_proj.bias"), DIM_MODEL, DIM_NONE, .needs = HAS_MLP_BIAS),
    WEIGHT(SLOT_FINAL_GAIN, "norm.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_UNEMBED, "/lm_head.weight", DIM_VOCABULARY, DIM_MODEL, .needs = HAS_UNEMBED),
};
_Static_assert(sizeof llama_rows / sizeof llama_rows[0] == LLAMA_N_ROWS, "arch_llama.h says how many rows there are");

void llama_read_sizes(struct model_config *config, const struct llama_defaults *defaults, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "num_hidden_layers", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->n_head = (int32_t)model_config_int(config, "num_attention_heads", 1, 1024, MODEL_CONFIG_REQUIRED);
  out->n_kv_head = (int32_t)model_config_int(config, "num_key_value_heads", 1, 1024,
                                             defaults->n_kv_head ? defaults->n_kv_head : out->n_head);
  out->d_model = model_config_int(config, "hidden_size", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->d_mlp = model_config_int(config, "intermediate_size", 1, 1 << 20, MODEL_CONFIG_REQUIRED);
  out->n_ctx = model_config_int(config, "max_position_embeddings", 1, 1 << 20, defaults->n_ctx);
  out->vocabulary = model_config_int(config, "vocab_size", 1, 1 << 22, MODEL_CONFIG_REQUIRED);
  out->d_head = (int32_t)model_config_int(config, "head_dim", 1, 4096, defaults->d_head);
  if (config->failed || out->d_head) return;
  if (out->d_model % out->n_head)
    model_config_refuse(config, "hidden_size %lld is not a multiple of num_attention_heads %d and head_dim is not given",
                        (long long)out->d_model, out->n_head);
  else
    out->d_head = (int32_t)(out->d_model / out->n_head);
}

void llama_read(struct model_config *config, const struct llama_defaults *defaults, struct arch *out) {
  static const char *const plain = "full_attention";
  llama_read_sizes(config, defaults, out);
  out->has = HAS_MLP | HAS_NORM2 | HAS_GAINS;
  if (!model_config_bool(config, "tie_word_embeddings", defaults->tied)) out->has |= HAS_UNEMBED;
  out->norm = out->final_norm = NORM_RMS;
  out->norm_eps = (float)model_config_number(config, "rms_norm_eps", 0, 1, 1e-6);
  out->act = model_config_activation(config, "hidden_act", "silu");
  out->gated = true;
  out->embed_scale = 1.0f;
  out->attn_scale = 1.0f / sqrtf((float)out->d_head);
  rotary_read(config, &(struct rotary_defaults){plain, "rope_theta", NULL, defaults->theta, 1}, out, &out->rotary);
  out->rotary_local = out->rotary;
}

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "llama";
  llama_read(&config, &(struct llama_defaults){.n_ctx = 2048, .theta = 10000}, out);
  if (model_config_bool(&config, "attention_bias", false)) out->has |= HAS_QKV_BIAS | HAS_O_BIAS;
  if (model_config_bool(&config, "mlp_bias", false)) out->has |= HAS_MLP_BIAS;
  return config.failed ? -1 : 0;
}

const struct arch_family arch_llama = {.name = "llama",
                                       .model_type = "llama",
                                       .prefixes = llama_prefixes,
                                       .rows = llama_rows,
                                       .n_rows = LLAMA_N_ROWS,
                                       .ignored = llama_ignored,
                                       .read_config = read_config};
