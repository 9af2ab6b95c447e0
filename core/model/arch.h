/* arch.h: what a model family is, as data: its dimensions and switches (struct arch), and where its weights
 * lie in published files (struct weight_row). A new family is one arch_*.c with a config mapping and such a
 * table; the forward pass (plan.c) does not change. */
#ifndef STEERD_CORE_MODEL_ARCH_H
#define STEERD_CORE_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/math/ops.h"

struct arch {
  const char *family; /* static: "gpt2", "workshop" */
  int32_t n_layer, n_head, n_kv_head, d_head;
  int64_t d_model, d_mlp, n_ctx, vocabulary;
  enum norm_kind norm; /* before each sublayer and before the unembedding */
  float norm_eps;
  bool learned_positions;
  enum activation act;
  bool gated;          /* MLP: act(gate) * up */
  bool tied;           /* the unembedding is the embedding */
  float embed_scale;   /* 1 unless the family scales its embedding */
  float attn_scale;    /* scores = attn_scale * q.k, before the next switch */
  bool scale_by_layer; /* and divided by layer + 1 (Stanford CRFM) */
  int32_t window;      /* 0 = every earlier position is seen */
  float attn_soft_cap; /* 0 = none */
};

/* Places for weights. Matrices first, then vectors; per layer or once (see weight_row.per_layer). */
enum weight_slot {
  SLOT_EMBED, SLOT_UNEMBED, SLOT_QKV, SLOT_O, SLOT_IN, SLOT_GATE, SLOT_OUT,
  SLOT_MATRICES,
  SLOT_POSITIONS = SLOT_MATRICES, /* [n_ctx, d_model], read like a vector */
  SLOT_NORM1_GAIN, SLOT_NORM1_BIAS, SLOT_NORM2_GAIN, SLOT_NORM2_BIAS, SLOT_FINAL_GAIN, SLOT_FINAL_BIAS,
  SLOT_QKV_BIAS, SLOT_O_BIAS, SLOT_IN_BIAS, SLOT_GATE_BIAS, SLOT_OUT_BIAS, SLOT_UNEMBED_BIAS,
  SLOT_COUNT
};

/* Sizes by meaning, so that one table serves every size of a family. */
enum dim { DIM_NONE, DIM_MODEL, DIM_MLP, DIM_ATTN, DIM_KV, DIM_QKV, DIM_VOCABULARY, DIM_CONTEXT };
int64_t arch_dim(const struct arch *arch, enum dim dim); /* 1 for DIM_NONE */

struct weight_row {
  enum weight_slot slot;
  const char *name;          /* "%d" stands for the layer in rows that are per layer */
  bool per_layer;
  enum matrix_layout layout; /* of the file; ignored for vectors */
  enum dim out, in;          /* in = DIM_NONE: a vector of `out` elements. SLOT_POSITIONS: out = rows */
  bool optional;             /* may be absent: no bias, or the tied embedding */
};
/* Rows with the same slot stand together; their matrices are stacked along the outputs in this order. */

struct arch_family {
  const char *name;
  const char *model_type;      /* of config.json */
  const char *const *prefixes; /* put in front of names, tried in order until the first row is found; NULL-ended */
  const struct weight_row *rows;
  size_t n_rows;
  /* Fills *out from config.json; every number is checked against limits. NULL where there is no config.json. */
  int (*read_config)(const struct json_node *config, struct arch *out, struct error *error);
};

extern const struct arch_family arch_gpt2;
extern const struct arch_family arch_workshop;

/* The family of a config.json, by model_type (then by architectures[0]). NULL with ERROR_UNSUPPORTED naming
 * what was found and what is served. */
const struct arch_family *arch_find(const struct json_node *config, struct error *error) MUST_CHECK;

/* An integer of config.json within [low, high]; absent: fallback, or an error when fallback is -1. */
int arch_config_int(const struct json_node *config, const char *key, int64_t low, int64_t high, int64_t fallback,
                    int64_t *out, struct error *error) MUST_CHECK;

/* 0 when the dimensions agree with each other and with the limits of formats and memory; checked before any
 * weight is read. */
int arch_check(const struct arch *arch, struct error *error) MUST_CHECK;

#endif
