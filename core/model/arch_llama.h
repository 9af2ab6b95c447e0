/* arch_llama.h: what families that took over Llama's names share: its weight table and its config keys. Private to
 * the arch_*.c. */
#ifndef STEERD_CORE_MODEL_ARCH_LLAMA_H
#define STEERD_CORE_MODEL_ARCH_LLAMA_H

#include "core/model/arch.h"
#include "core/model/model_config.h"
#include "core/model/rotary.h"

#define LLAMA_N_ROWS 21
extern const struct weight_row llama_rows[LLAMA_N_ROWS];
extern const char *const llama_prefixes[], *const llama_ignored[];

/* What a family's config class takes when the key is absent. */
struct llama_defaults {
  int64_t n_ctx;
  int32_t n_kv_head, d_head; /* 0: n_head, d_model / n_head */
  bool tied;
  double theta;
};

void llama_read_sizes(struct model_config *config, const struct llama_defaults *defaults, struct arch *out);

/* Sizes, norm, activation, rotary positions, tying. Biases, windows and norms of heads are the family's. */
void llama_read(struct model_config *config, const struct llama_defaults *defaults, struct arch *out);

#endif
