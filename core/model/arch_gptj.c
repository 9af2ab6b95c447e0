/* arch_gptj.c: GPT-J: one LayerNorm that attention and MLP both read, rotary positions over neighbouring pairs of the
 * first elements of each head, biases on the MLP and on an unembedding of its own. */
#include <math.h>

#include "core/model/arch.h"
#include "core/model/model_config.h"
#include "core/model/rotary.h"

static const char *const prefixes[] = {"transformer.", "", NULL};
static const char *const ignored[] = {"*.attn.bias", "*.attn.masked_bias", "*.attn.embed_positions", NULL};

#define LAYER(name) "h.%d." name
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "wte.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("ln_1.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_NORM1_BIAS, LAYER("ln_1.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, LAYER("attn.q_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("attn.k_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, LAYER("attn.v_proj.weight"), DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_O, LAYER("attn.out_proj.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_IN, LAYER("mlp.fc_in.weight"), DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN_BIAS, LAYER("mlp.fc_in.bias"), DIM_MLP, DIM_NONE),
    WEIGHT(SLOT_OUT, LAYER("mlp.fc_out.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_OUT_BIAS, LAYER("mlp.fc_out.bias"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_GAIN, "ln_f.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_FINAL_BIAS, "ln_f.bias", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_UNEMBED, "/lm_head.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_UNEMBED_BIAS, "/lm_head.bias", DIM_VOCABULARY, DIM_NONE),
};

static void read_sizes(struct model_config *config, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "n_layer", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->n_head = out->n_kv_head = (int32_t)model_config_int(config, "n_head", 1, 1024, MODEL_CONFIG_REQUIRED);
  out->d_model = model_config_int(config, "n_embd", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->d_mlp = model_config_int(config, "n_inner", 1, 1 << 20, 4 * out->d_model);
  out->n_ctx = model_config_int(config, "n_positions", 1, 1 << 20, 2048);
  out->vocabulary = model_config_int(config, "vocab_size", 1, 1 << 22, MODEL_CONFIG_REQUIRED);
  model_config_heads(config, "n_embd", "n_head", out->d_model, out->n_head, &out->d_head);
}

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "gptj";
  out->has = HAS_MLP | HAS_MLP_BIAS | HAS_GAINS | HAS_UNEMBED | HAS_UNEMBED_BIAS;
  out->parallel = true;
  read_sizes(&config, out);
  int32_t dims = (int32_t)model_config_int(&config, "rotary_dim", 2, ROTARY_MAX_DIMS, 64);
  if (!config.failed && (dims % 2 || dims > out->d_head))
    model_config_refuse(&config, "rotary_dim %d is not an even number up to the head's %d", dims, out->d_head);
  if (!config.failed) rotary_plain(10000, dims, &out->rotary);
  out->rotary.pairing = ROTARY_NEIGHBOURS;
  out->act = model_config_activation(&config, "activation_function", "gelu_new");
  out->norm = out->final_norm = NORM_LAYER;
  out->norm_eps = (float)model_config_number(&config, "layer_norm_epsilon", 0, 1, 1e-5);
  out->embed_scale = 1.0f;
  out->attn_scale = 1.0f / sqrtf((float)out->d_head);
  model_config_must_be(&config, "tie_word_embeddings", false, false);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_gptj = {.name = "gptj",
                                      .model_type = "gptj",
                                      .prefixes = prefixes,
                                      .rows = rows,
                                      .n_rows = sizeof rows / sizeof rows[0],
                                      .ignored = ignored,
                                      .read_config = read_config};
