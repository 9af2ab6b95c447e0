/* arch_phi3.c: Phi-3: Llama with q, k and v in one tensor and gate and up in another, windows, and longrope scaling,
 * of which the short factors are served (rotary.h). */
#include "core/model/arch_llama.h"

static const char *const prefixes[] = {"model.", "", NULL};

#define LAYER(name) "layers.%d." name
#define PIECE(n) .form = FORM_PIECE, .piece = n, .pieces = 2
static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, LAYER("input_layernorm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, LAYER("self_attn.qkv_proj.weight"), DIM_QKV, DIM_MODEL),
    WEIGHT(SLOT_O, LAYER("self_attn.o_proj.weight"), DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_NORM2_GAIN, LAYER("post_attention_layernorm.weight"), DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_GATE, LAYER("mlp.gate_up_proj.weight"), DIM_MLP, DIM_MODEL, PIECE(0)),
    WEIGHT(SLOT_IN, LAYER("mlp.gate_up_proj.weight"), DIM_MLP, DIM_MODEL, PIECE(1)),
    WEIGHT(SLOT_OUT, LAYER("mlp.down_proj.weight"), DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_FINAL_GAIN, "norm.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_UNEMBED, "/lm_head.weight", DIM_VOCABULARY, DIM_MODEL, .needs = HAS_UNEMBED),
};

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "phi3";
  llama_read(&config, &(struct llama_defaults){.n_ctx = 4096, .theta = 10000, .part_key = "partial_rotary_factor", .part = 1},
             out);
  out->norm_eps = (float)model_config_number(&config, "rms_norm_eps", 0, 1, 1e-5);
  out->window = llama_read_window(&config, "sliding_window", 0);
  for (int32_t l = 0; l < out->n_layer; l++) out->local[l] = out->window > 0;
  model_config_must_be(&config, "attention_bias", false, false);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_phi3 = {.name = "phi3",
                                      .model_type = "phi3",
                                      .prefixes = prefixes,
                                      .rows = rows,
                                      .n_rows = sizeof rows / sizeof rows[0],
                                      .ignored = llama_ignored,
                                      .read_config = read_config};
