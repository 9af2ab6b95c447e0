/* arch_toy.c: the toy models of TransformerLens (attn-only, gelu, solu): config.json in that library's words, without a
 * model_type, and weights under its own names, with a matrix for each head. Norms may have lost their gains to folding
 * ("LNPre"), the last one may be RMS, and shortformer models add positions to what queries and keys read. */
#include <math.h>
#include <string.h>

#include "core/model/arch.h"
#include "core/model/model_config.h"

static const char *const prefixes[] = {"", NULL};
static const char *const ignored[] = {"*.attn.mask", "*.attn.IGNORE", NULL};

#define LAYER(name) "blocks.%d." name
#define HEADS_OUT .form = FORM_HEADS_OUT
#define INPUTS .layout = ROWS_ARE_INPUTS
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "embed.W_E", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_POSITIONS, "pos_embed.W_pos", DIM_CONTEXT, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("ln1.w"), DIM_MODEL, DIM_NONE, .needs = HAS_GAINS),
    WEIGHT(SLOT_NORM1_BIAS, LAYER("ln1.b"), DIM_MODEL, DIM_NONE, .needs = HAS_GAINS),
    WEIGHT(SLOT_QKV, LAYER("attn.W_Q"), DIM_ATTN, DIM_MODEL, HEADS_OUT),
    WEIGHT(SLOT_QKV, LAYER("attn.W_K"), DIM_ATTN, DIM_MODEL, HEADS_OUT),
    WEIGHT(SLOT_QKV, LAYER("attn.W_V"), DIM_ATTN, DIM_MODEL, HEADS_OUT, .unless = HAS_PLACED_KEYS),
    WEIGHT(SLOT_V, LAYER("attn.W_V"), DIM_ATTN, DIM_MODEL, HEADS_OUT, .needs = HAS_PLACED_KEYS),
    WEIGHT(SLOT_QKV_BIAS, LAYER("attn.b_Q"), DIM_ATTN, DIM_NONE, HEADS_OUT, .optional = true),
    WEIGHT(SLOT_QKV_BIAS, LAYER("attn.b_K"), DIM_ATTN, DIM_NONE, HEADS_OUT, .optional = true),
    WEIGHT(SLOT_QKV_BIAS, LAYER("attn.b_V"), DIM_ATTN, DIM_NONE, HEADS_OUT, .optional = true),
    WEIGHT(SLOT_O, LAYER("attn.W_O"), DIM_MODEL, DIM_ATTN, .form = FORM_HEADS_IN),
    WEIGHT(SLOT_O_BIAS, LAYER("attn.b_O"), DIM_MODEL, DIM_NONE, .optional = true),
    WEIGHT(SLOT_NORM2_GAIN, LAYER("ln2.w"), DIM_MODEL, DIM_NONE, .needs = HAS_MLP | HAS_GAINS),
    WEIGHT(SLOT_NORM2_BIAS, LAYER("ln2.b"), DIM_MODEL, DIM_NONE, .needs = HAS_MLP | HAS_GAINS),
    WEIGHT(SLOT_IN, LAYER("mlp.W_in"), DIM_MLP, DIM_MODEL, INPUTS, .needs = HAS_MLP),
    WEIGHT(SLOT_IN_BIAS, LAYER("mlp.b_in"), DIM_MLP, DIM_NONE, .needs = HAS_MLP, .optional = true),
    WEIGHT(SLOT_MLP_NORM_GAIN, LAYER("mlp.ln.w"), DIM_MLP, DIM_NONE, .needs = HAS_MLP | HAS_MLP_NORM | HAS_GAINS),
    WEIGHT(SLOT_MLP_NORM_BIAS, LAYER("mlp.ln.b"), DIM_MLP, DIM_NONE, .needs = HAS_MLP | HAS_MLP_NORM | HAS_GAINS),
    WEIGHT(SLOT_OUT, LAYER("mlp.W_out"), DIM_MODEL, DIM_MLP, INPUTS, .needs = HAS_MLP),
    WEIGHT(SLOT_OUT_BIAS, LAYER("mlp.b_out"), DIM_MODEL, DIM_NONE, .needs = HAS_MLP, .optional = true),
    WEIGHT(SLOT_FINAL_GAIN, "ln_final.w", DIM_MODEL, DIM_NONE, .needs = HAS_GAINS),
    WEIGHT(SLOT_FINAL_BIAS, "ln_final.b", DIM_MODEL, DIM_NONE, .needs = HAS_GAINS | HAS_FINAL_BIAS),
    WEIGHT(SLOT_UNEMBED, "unembed.W_U", DIM_VOCABULARY, DIM_MODEL, INPUTS),
    WEIGHT(SLOT_UNEMBED_BIAS, "unembed.b_U", DIM_VOCABULARY, DIM_NONE, .optional = true),
};

static void read_sizes(struct model_config *config, struct arch *out) {
  out->n_layer = (int32_t)model_config_int(config, "n_layers", 1, ARCH_MAX_LAYERS, MODEL_CONFIG_REQUIRED);
  out->d_model = model_config_int(config, "d_model", 1, 65536, MODEL_CONFIG_REQUIRED);
  out->d_head = (int32_t)model_config_int(config, "d_head", 1, 4096, MODEL_CONFIG_REQUIRED);
  int64_t heads = config->failed ? 1 : out->d_model / out->d_head;
  out->n_head = out->n_kv_head = (int32_t)model_config_int(config, "n_heads", 1, 1024, heads ? heads : 1);
  out->n_ctx = model_config_int(config, "n_ctx", 1, 1 << 20, 1024);
  out->vocabulary = model_config_int(config, "d_vocab", 1, 1 << 22, MODEL_CONFIG_REQUIRED);
  /* attention-only models may carry a d_mlp and an act_fn that mean nothing */
  if (!model_config_bool(config, "attn_only", false)) {
    out->has |= HAS_MLP | HAS_NORM2;
    out->d_mlp = model_config_int(config, "d_mlp", 1, 1 << 20, 4 * out->d_model);
  }
}

static void read_activation(struct model_config *config, struct arch *out) {
  const char *name = model_config_text(config, "act_fn", "gelu");
  if (!arch_has(out, HAS_MLP)) return;
  out->solu = strcmp(name, "solu") == 0 || strcmp(name, "solu_ln") == 0;
  if (strcmp(name, "solu_ln") == 0) out->has |= HAS_MLP_NORM;
  if (!out->solu) out->act = model_config_activation(config, "act_fn", "gelu");
}

static void read_norms(struct model_config *config, struct arch *out) {
  const char *key = model_config_has(config, "normalization_type") ? "normalization_type" : "normalization";
  const char *name = model_config_text(config, key, "none");
  if (strcmp(name, "LN") == 0 || strcmp(name, "LNPre") == 0) {
    out->norm = out->final_norm = NORM_LAYER;
    out->has |= HAS_FINAL_BIAS | (strcmp(name, "LN") == 0 ? HAS_GAINS : 0);
  } else if (strcmp(name, "none") != 0) {
    model_config_refuse(config, "%s '%.40s' is not served; served: LN, LNPre, none", key, name);
  }
  if (model_config_bool(config, "final_rms", false) && out->norm != NORM_NONE) {
    out->final_norm = NORM_RMS;
    out->has &= ~(uint32_t)HAS_FINAL_BIAS;
  }
}

static void read_positions(struct model_config *config, struct arch *out) {
  const char *type = model_config_text(config, "positional_embedding_type", "standard");
  bool shortformer = strcmp(type, "shortformer") == 0;
  if (!shortformer && strcmp(type, "standard") != 0)
    model_config_refuse(config, "positional_embedding_type '%.40s' is not served; served: standard, shortformer", type);
  out->has |= HAS_POSITIONS;
  if (model_config_bool(config, "shortformer_pos", shortformer)) out->has |= HAS_PLACED_KEYS;
}

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "transformer_lens";
  out->has = HAS_UNEMBED;
  read_sizes(&config, out);
  read_activation(&config, out);
  read_norms(&config, out);
  read_positions(&config, out);
  out->norm_eps = (float)model_config_number(&config, "eps", 0, 1, 1e-5);
  out->embed_scale = 1.0f;
  out->attn_scale = model_config_bool(&config, "use_attn_scale", true) ? 1.0f / sqrtf((float)out->d_head) : 1.0f;
  out->scale_by_layer = model_config_bool(&config, "scale_attn_by_inverse_layer_idx", false);
  static const char *const off[] = {"gated_mlp", "parallel_attn_mlp", "use_local_attn", "post_embedding_ln"};
  for (size_t i = 0; i < sizeof off / sizeof *off; i++) model_config_must_be(&config, off[i], false, false);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_toy = {.name = "transformer_lens",
                                     .model_type = "transformer_lens",
                                     .prefixes = prefixes,
                                     .rows = rows,
                                     .n_rows = sizeof rows / sizeof rows[0],
                                     .ignored = ignored,
                                     .read_config = read_config};
