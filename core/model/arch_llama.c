/* arch_llama.c: Llama 1, 2 and 3: RMSNorm, rotary positions in halves, grouped key-value heads, SwiGLU. The weight
 * table is also that of the families that took Llama's names over (arch_llama.h). */
#include "core/model/arch_llama.h"

#include <math.h>
#include <string.h>

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

static int64_t or_required(int64_t value) { return value ? value : MODEL_CONFIG_REQUIRED; }

static void read_sizes(struct model_config *config, const struct llama_defaults *defaults, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "num_hidden_layers", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->n_head = (int32_t)model_config_int(config, "num_attention_heads", 1, 1024, or_required(defaults->n_head));
  out->n_kv_head = (int32_t)model_config_int(config, "num_key_value_heads", 1, 1024,
                                             defaults->n_kv_head ? defaults->n_kv_head : out->n_head);
  out->d_model = model_config_int(config, "hidden_size", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->d_mlp = model_config_int(config, "intermediate_size", 1, 1 << 20, MODEL_CONFIG_REQUIRED);
  out->n_ctx = model_config_int(config, "max_position_embeddings", 1, 1 << 20, defaults->n_ctx);
  out->vocabulary = model_config_int(config, "vocab_size", 1, 1 << 22, or_required(defaults->vocabulary));
  out->d_head = (int32_t)model_config_int(config, "head_dim", 1, 4096, defaults->d_head);
  if (!out->d_head)
    model_config_heads(config, "hidden_size", "num_attention_heads", out->d_model, out->n_head, &out->d_head);
}

void llama_read(struct model_config *config, const struct llama_defaults *defaults, struct arch *out) {
  const struct rotary_defaults turns = {"full_attention", "rope_theta", defaults->part_key, defaults->theta, defaults->part};
  read_sizes(config, defaults, out);
  out->has = HAS_MLP | HAS_NORM2 | HAS_GAINS;
  if (!model_config_bool(config, "tie_word_embeddings", defaults->tied)) out->has |= HAS_UNEMBED;
  out->norm = out->final_norm = NORM_RMS;
  out->norm_eps = (float)model_config_number(config, "rms_norm_eps", 0, 1, 1e-6);
  out->act = model_config_activation(config, "hidden_act", "silu");
  out->gated = true;
  out->embed_scale = 1.0f;
  out->attn_scale = 1.0f / sqrtf((float)out->d_head);
  rotary_read(config, &turns, out, &out->rotary);
  out->rotary_local = out->rotary;
}

int32_t llama_read_window(struct model_config *config, const char *key, int32_t own) {
  if (json_kind(json_get(config->node, key)) == JSON_KIND_NULL) return 0;
  return (int32_t)model_config_int(config, key, own ? 1 : 0, 1 << 20, own);
}

bool llama_read_layer_types(struct model_config *config, struct arch *out) {
  const struct json_node *list = json_get(config->node, "layer_types");
  if (config->failed || !model_config_has(config, "layer_types")) return false;
  if (json_count(list) != (size_t)out->n_layer)
    model_config_refuse(config, "%slayer_types has %zu entries, num_hidden_layers is %d", config->inside, json_count(list),
                        out->n_layer);
  for (int32_t l = 0; l < out->n_layer && !config->failed; l++) {
    const char *type = json_text_or(json_at(list, (size_t)l), "");
    out->local[l] = strcmp(type, "sliding_attention") == 0;
    if (!out->local[l] && strcmp(type, "full_attention") != 0)
      model_config_refuse(config, "%slayer_types: '%.40s' of layer %d is not served; served: full_attention, sliding_attention",
                          config->inside, type, l);
    if (out->local[l] && out->window == 0)
      model_config_refuse(config, "%slayer_types names sliding_attention for layer %d, and no sliding_window is set",
                          config->inside, l);
  }
  return true;
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
