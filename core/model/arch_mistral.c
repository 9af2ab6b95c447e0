/* arch_mistral.c: Mistral 7B and its kin: Llama with a window that every layer looks through (v0.1), or none. */
#include "core/model/arch_llama.h"

static int read_config(const struct json_node *node, struct arch *out, struct error *error) {
  struct model_config config = {node, "", error, false};
  out->family = "mistral";
  llama_read(&config, &(struct llama_defaults){.n_kv_head = 8, .n_ctx = 131072, .theta = 10000}, out);
  out->window = llama_read_window(&config, "sliding_window", 4096);
  for (int32_t l = 0; l < out->n_layer; l++) out->local[l] = out->window > 0;
  model_config_must_be_absent(&config, "layer_types"); /* that is another family's */
  return config.failed ? -1 : 0;
}

const struct arch_family arch_mistral = {.name = "mistral",
                                         .model_type = "mistral",
                                         .prefixes = llama_prefixes,
                                         .rows = llama_rows,
                                         .n_rows = LLAMA_N_ROWS,
                                         .ignored = llama_ignored,
                                         .read_config = read_config};
