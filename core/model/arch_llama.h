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
  int32_t n_kv_head, d_head;  /* 0: n_head, d_model / n_head */
  int32_t n_head;             /* 0: the key is required */
  int64_t vocabulary;         /* 0: the key is required */
  bool tied;
  double theta;
  const char *part_key;       /* of the share of a head that turns; NULL: all of it does */
  double part;
};

/* Sizes, norm, activation, rotary positions, tying. Biases, windows and norms of heads are the family's. */
void llama_read(struct model_config *config, const struct llama_defaults *defaults, struct arch *out);

/* A window: `own` where the key is absent, 0 (none) where it is null. */
int32_t llama_read_window(struct model_config *config, const char *key, int32_t own);

/* Fills out->local from layer_types ("full_attention", "sliding_attention"); false when there is no such list. */
bool llama_read_layer_types(struct model_config *config, struct arch *out);

#endif
