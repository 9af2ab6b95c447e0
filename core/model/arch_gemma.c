/* arch_gemma.c: Gemma 1, 2 and 3 (text). RMSNorm whose gains are stored less one, an embedding scaled by the root of
 * its width, tanh-GELU gates. Gemma 2 adds norms behind each sublayer, soft caps, and a window on every other layer;
 * Gemma 3 trades the caps for norms of heads, and its local layers turn by a base of their own. The text half of the
 * multimodal Gemma 3 is read from its text_config. */
#include <math.h>
#include <string.h>

#include "core/model/arch_llama.h"

static const char *const prefixes[] = {"model.", "model.language_model.", "language_model.model.", "", NULL};
static const char *const ignored[] = {"*.rotary_emb.inv_freq", "*lm_head.weight", "vision_tower.*",
                                      "multi_modal_projector.*", "model.vision_tower.*", "model.multi_modal_projector.*",
                                      NULL};

#define LAYER(name) "layers.%d." name
#define GAIN(slot, name, dim, ...) WEIGHT(slot, name, dim, DIM_NONE, .plus = 1.0f, __VA_ARGS__)
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_MODEL),
    GAIN(SLOT_NORM1_GAIN, LAYER("input_layernorm.weight"), DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.q_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.k_proj.weight"), DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("self_attn.v_proj.weight"), DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.q_proj.bias"), DIM_ATTN, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.k_proj.bias"), DIM_KV, DIM_NONE, .needs = HAS_QKV_BIAS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("self_attn.v_proj.bias"), DIM_KV, DIM_NONE, .needs = HAS_QKV_BIAS),
    GAIN(SLOT_Q_GAIN, LAYER("self_attn.q_norm.weight"), DIM_HEAD, .needs = HAS_QK_NORM),
    GAIN(SLOT_K_GAIN, LAYER("self_attn.k_norm.weight"), DIM_HEAD, .needs = HAS_QK_NORM),
    WEIGHT(SLOT_O, LAYER("self_attn.o_proj.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_O_BIAS, LAYER("self_attn.o_proj.bias"), DIM_MODEL, DIM_NONE, .needs = HAS_O_BIAS),
    /* one name, two places: before the MLP in Gemma 1, behind attention since Gemma 2 */
    GAIN(SLOT_NORM2_GAIN, LAYER("post_attention_layernorm.weight"), DIM_MODEL, .unless = HAS_POST_NORMS),
    GAIN(SLOT_NORM2_GAIN, LAYER("pre_feedforward_layernorm.weight"), DIM_MODEL, .needs = HAS_POST_NORMS),
    GAIN(SLOT_POST1_GAIN, LAYER("post_attention_layernorm.weight"), DIM_MODEL, .needs = HAS_POST_NORMS),
    GAIN(SLOT_POST2_GAIN, LAYER("post_feedforward_layernorm.weight"), DIM_MODEL, .needs = HAS_POST_NORMS),
    WEIGHT(SLOT_GATE, LAYER("mlp.gate_proj.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN, LAYER("mlp.up_proj.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_OUT, LAYER("mlp.down_proj.weight"), DIM_MODEL, DIM_MLP),
    GAIN(SLOT_FINAL_GAIN, "norm.weight", DIM_MODEL),
};

/* What the three have in common. */
static void read_common(struct model_config *config, const struct llama_defaults *defaults, struct arch *out) {
  llama_read(config, defaults, out);
  model_config_must_be(config, "tie_word_embeddings", true, true);
  model_config_must_be(config, "use_bidirectional_attention", false, false);
  if (model_config_bool(config, "attention_bias", false)) out->has |= HAS_QKV_BIAS | HAS_O_BIAS;
  out->embed_scale = sqrtf((float)out->d_model);
  out->embed_scale_rounds = true;
}

/* The first Gemma said "gelu" and meant the tanh form; files that say hidden_activation say what they mean. */
static int read_gemma(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "gemma";
  read_common(&config, &(struct llama_defaults){.n_ctx = 8192, .d_head = 256, .tied = true, .theta = 10000}, out);
  const char *old = model_config_text(&config, "hidden_act", "gelu_pytorch_tanh");
  out->act = model_config_activation(&config, "hidden_activation", strcmp(old, "gelu") ? old : "gelu_pytorch_tanh");
  return config.failed ? -1 : 0;
}

/* null means no cap; the family's own holds where the key is absent. */
static float read_cap(struct model_config *config, const char *key, double own) {
  if (json_kind(json_get(config->node, key)) == JSON_KIND_NULL) return 0;
  return (float)model_config_number(config, key, 0, 1e6, own);
}

/* Gemma 2 and 3: norms behind the sublayers, a scale of its own for scores, caps, local layers. Every layer but the
 * last of each `pattern` is local where the config has no list. */
static void read_later(struct model_config *config, double attn_cap, double logit_cap, int64_t pattern, struct arch *out) {
  out->has |= HAS_POST_NORMS;
  out->act = model_config_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  out->attn_scale = (float)pow(model_config_number(config, "query_pre_attn_scalar", 1e-6, 1e6, 256), -0.5);
  out->attn_soft_cap = read_cap(config, "attn_logit_softcapping", attn_cap);
  out->logit_soft_cap = read_cap(config, "final_logit_softcapping", logit_cap);
  out->window = llama_read_window(config, "sliding_window", 4096);
  if (llama_read_layer_types(config, out)) return;
  for (int32_t l = 0; l < out->n_layer; l++) out->local[l] = out->window > 0 && (l + 1) % pattern != 0;
}

static int read_gemma2(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "gemma2";
  read_common(&config, &(struct llama_defaults){.n_kv_head = 4, .n_ctx = 8192, .d_head = 256, .tied = true, .theta = 10000},
              out);
  read_later(&config, 50, 30, 2, out);
  return config.failed ? -1 : 0;
}

/* Local layers have a base of their own, and no scaling in the older way of writing, where rope_scaling is that of the
 * others. */
static void read_local_rotary(struct model_config *config, struct arch *out) {
  static const struct rotary_defaults local = {"sliding_attention", "rope_local_base_freq", NULL, 10000, 1};
  const struct json_node *all = json_get(config->node, "rope_parameters");
  if (config->failed) return;
  if (json_kind(all) != JSON_KIND_OBJECT) {
    rotary_plain(model_config_number(config, "rope_local_base_freq", 1, 1e12, local.theta), out->d_head, &out->rotary_local);
    return;
  }
  if (!json_get(all, "full_attention") || !json_get(all, "sliding_attention"))
    model_config_refuse(config, "rope_parameters needs 'full_attention' and 'sliding_attention' in this family");
  rotary_read(config, &local, out, &out->rotary_local);
}

static void read_gemma3_node(struct model_config *config, struct arch *out) {
  const struct llama_defaults defaults = {.n_head = 8, .n_kv_head = 4, .d_head = 256, .n_ctx = 131072, .vocabulary = 262208,
                                          .tied = true, .theta = 1e6};
  out->family = "gemma3";
  read_common(config, &defaults, out);
  out->has |= HAS_QK_NORM;
  read_later(config, 0, 0, model_config_int(config, "sliding_window_pattern", 1, ARCH_MAX_LAYERS, 6), out);
  read_local_rotary(config, out);
}

static int read_gemma3_text(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  read_gemma3_node(&config, out);
  return config.failed ? -1 : 0;
}

static int read_gemma3(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {json_get(node, "text_config"), "text_config.", error, false};
  if (json_kind(config.node) != JSON_KIND_OBJECT)
    return error_set(error, ERROR_FORMAT, "config.json: 'text_config' is %s, expected an object",
                     json_kind_word(json_kind(config.node)));
  read_gemma3_node(&config, out);
  return config.failed ? -1 : 0;
}

#define FAMILY(type, read)                                                                     \
  {                                                                                            \
    .name = #type, .model_type = #type, .prefixes = prefixes, .rows = rows,                    \
    .n_rows = sizeof rows / sizeof rows[0], .ignored = ignored, .read_config = read            \
  }
const struct arch_family arch_gemma = FAMILY(gemma, read_gemma);
const struct arch_family arch_gemma2 = FAMILY(gemma2, read_gemma2);
const struct arch_family arch_gemma3_text = FAMILY(gemma3_text, read_gemma3_text);
const struct arch_family arch_gemma3 = FAMILY(gemma3, read_gemma3);
