/* arch_qwen.c: Qwen 2 and 2.5 (Llama with biases on q, k and v) and Qwen 3 (norms of the heads of q and k, heads whose
 * width stands for itself). Layers from max_window_layers on may look through a window. */
#include "core/model/arch_llama.h"

static void read_windows(struct model_config *config, struct arch *out) {
  int64_t from = model_config_int(config, "max_window_layers", 0, 1 << 20, 28);
  out->window = llama_read_window(config, "sliding_window", 4096);
  if (!model_config_bool(config, "use_sliding_window", false)) out->window = 0;
  if (llama_read_layer_types(config, out)) return;
  for (int32_t l = 0; l < out->n_layer; l++) out->local[l] = out->window > 0 && l >= from;
}

static int read_qwen2(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "qwen2";
  llama_read(&config, &(struct llama_defaults){.n_ctx = 32768, .theta = 10000}, out);
  out->has |= HAS_QKV_BIAS;
  read_windows(&config, out);
  model_config_must_be(&config, "use_mrope", false, false);
  return config.failed ? -1 : 0;
}

static int read_qwen3(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "qwen3";
  llama_read(&config, &(struct llama_defaults){.n_ctx = 32768, .d_head = 128, .theta = 10000}, out);
  out->has |= HAS_QK_NORM;
  if (model_config_bool(&config, "attention_bias", false)) out->has |= HAS_QKV_BIAS | HAS_O_BIAS;
  read_windows(&config, out);
  return config.failed ? -1 : 0;
}

const struct arch_family arch_qwen2 = {.name = "qwen2",
                                       .model_type = "qwen2",
                                       .prefixes = llama_prefixes,
                                       .rows = llama_rows,
                                       .n_rows = LLAMA_N_ROWS,
                                       .ignored = llama_ignored,
                                       .read_config = read_qwen2};

const struct arch_family arch_qwen3 = {.name = "qwen3",
                                       .model_type = "qwen3",
                                       .prefixes = llama_prefixes,
                                       .rows = llama_rows,
                                       .n_rows = LLAMA_N_ROWS,
                                       .ignored = llama_ignored,
                                       .read_config = read_qwen3};
