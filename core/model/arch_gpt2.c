/* arch_gpt2.c: GPT-2 (Radford et al. 2019) as Hugging Face publishes it: learned positions, LayerNorm before
 * each sublayer, tanh GELU, Conv1D weights (rows are inputs) with q, k and v in one matrix. Covers distilgpt2
 * and the Stanford CRFM models, whose scores are also divided by layer + 1. */
#include <math.h>
#include <string.h>

#include "core/model/arch.h"

/* The original gpt2 file has no prefix, files saved by transformers have "transformer.". */
static const char *const prefixes[] = {"transformer.", "", NULL};

static const struct weight_row rows[] = {
    {SLOT_EMBED, "wte.weight", false, ROWS_ARE_OUTPUTS, DIM_VOCABULARY, DIM_MODEL, false},
    {SLOT_POSITIONS, "wpe.weight", false, ROWS_ARE_OUTPUTS, DIM_CONTEXT, DIM_MODEL, false},
    {SLOT_NORM1_GAIN, "h.%d.ln_1.weight", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_NORM1_BIAS, "h.%d.ln_1.bias", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_QKV, "h.%d.attn.c_attn.weight", true, ROWS_ARE_INPUTS, DIM_QKV, DIM_MODEL, false},
    {SLOT_QKV_BIAS, "h.%d.attn.c_attn.bias", true, ROWS_ARE_OUTPUTS, DIM_QKV, DIM_NONE, false},
    {SLOT_O, "h.%d.attn.c_proj.weight", true, ROWS_ARE_INPUTS, DIM_MODEL, DIM_ATTN, false},
    {SLOT_O_BIAS, "h.%d.attn.c_proj.bias", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_NORM2_GAIN, "h.%d.ln_2.weight", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_NORM2_BIAS, "h.%d.ln_2.bias", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_IN, "h.%d.mlp.c_fc.weight", true, ROWS_ARE_INPUTS, DIM_MLP, DIM_MODEL, false},
    {SLOT_IN_BIAS, "h.%d.mlp.c_fc.bias", true, ROWS_ARE_OUTPUTS, DIM_MLP, DIM_NONE, false},
    {SLOT_OUT, "h.%d.mlp.c_proj.weight", true, ROWS_ARE_INPUTS, DIM_MODEL, DIM_MLP, false},
    {SLOT_OUT_BIAS, "h.%d.mlp.c_proj.bias", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_FINAL_GAIN, "ln_f.weight", false, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_FINAL_BIAS, "ln_f.bias", false, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
};

static int read_activation(const struct json_node *config, enum activation *out, struct error *error) {
  static const struct {
    const char *name;
    enum activation act;
  } known[] = {{"gelu_new", ACT_GELU_TANH}, {"gelu_pytorch_tanh", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH},
               {"gelu", ACT_GELU_ERF},      {"relu", ACT_RELU},                   {"silu", ACT_SILU},
               {"swish", ACT_SILU}};
  const char *name = json_text_or(json_get(config, "activation_function"), "gelu_new");
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(known[i].name, name) == 0) return *out = known[i].act, 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "config.json: activation_function '%s' is not served; served: gelu_new, gelu, relu, silu", name);
}

static int read_sizes(const struct json_node *config, struct arch *out, struct error *error) {
  int64_t layers, heads;
  if (arch_config_int(config, "n_layer", 1, 1024, -1, &layers, error) != 0 ||
      arch_config_int(config, "n_head", 1, 1024, -1, &heads, error) != 0 ||
      arch_config_int(config, "n_embd", 1, 65536, -1, &out->d_model, error) != 0 ||
      arch_config_int(config, "n_positions", 1, 1 << 20, 1024, &out->n_ctx, error) != 0 ||
      arch_config_int(config, "vocab_size", 1, 1 << 22, -1, &out->vocabulary, error) != 0 ||
      arch_config_int(config, "n_inner", 1, 1 << 20, 4 * out->d_model, &out->d_mlp, error) != 0)
    return -1;
  if (out->d_model % heads)
    return error_set(error, ERROR_FORMAT, "config.json: n_embd %lld is not a multiple of n_head %lld",
                     (long long)out->d_model, (long long)heads);
  out->n_layer = (int32_t)layers;
  out->n_head = out->n_kv_head = (int32_t)heads;
  out->d_head = (int32_t)(out->d_model / heads);
  return 0;
}

static int read_config(const struct json_node *config, struct arch *out, struct error *error) {
  memset(out, 0, sizeof *out);
  out->family = "gpt2";
  if (read_sizes(config, out, error) != 0 || read_activation(config, &out->act, error) != 0) return -1;
  out->norm = NORM_LAYER;
  out->norm_eps = (float)json_number_or(json_get(config, "layer_norm_epsilon"), 1e-5);
  out->learned_positions = true;
  out->tied = json_bool_or(json_get(config, "tie_word_embeddings"), true);
  if (!out->tied)
    return error_set(error, ERROR_UNSUPPORTED, "config.json: tie_word_embeddings false is not served for gpt2");
  out->embed_scale = 1.0f;
  bool scaled = json_bool_or(json_get(config, "scale_attn_weights"), true);
  out->attn_scale = scaled ? 1.0f / sqrtf((float)out->d_head) : 1.0f;
  out->scale_by_layer = json_bool_or(json_get(config, "scale_attn_by_inverse_layer_idx"), false);
  return 0;
}

const struct arch_family arch_gpt2 = {.name = "gpt2",
                                      .model_type = "gpt2",
                                      .prefixes = prefixes,
                                      .rows = rows,
                                      .n_rows = sizeof rows / sizeof rows[0],
                                      .read_config = read_config};
