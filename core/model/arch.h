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

#define ARCH_MAX_LAYERS 1024

/* Rotary positions: pair i of a head turns by position * frequency[i]. Scaling (linear, llama3, yarn, longrope) is in
 * the frequencies and the factor, so that nothing behind the config knows it. */
#define ROTARY_MAX_DIMS 512
struct rotary {
  int32_t dims;               /* the first `dims` elements of each head turn; 0: the family has no rotary positions */
  enum rotary_pairing pairing;
  float factor;               /* cosines and sines are multiplied by it; 1 without yarn and longrope */
  float frequency[ROTARY_MAX_DIMS / 2]; /* radians a position */
};

/* Parts that some models of a family have and others lack. Rows of the weight table name the parts they belong
 * to; the plan compiles what is there. */
enum arch_part {
  HAS_UNEMBED = 1,      /* a matrix of its own, not the embedding */
  HAS_UNEMBED_BIAS = 2,
  HAS_QKV_BIAS = 4,
  HAS_O_BIAS = 8,
  HAS_MLP = 16,         /* attention-only models have none */
  HAS_MLP_BIAS = 32,
  HAS_NORM2 = 64,       /* a norm before the MLP; parallel blocks may share the first one */
  HAS_POST_NORMS = 128, /* norms of what attention and MLP give, before it is added */
  HAS_QK_NORM = 256,    /* RMS of each head of q and k, before rotary positions */
  HAS_GAINS = 512,      /* norms have gains (and biases, where the table has them) */
  HAS_MLP_NORM = 1024,  /* a norm of the hidden activations (solu_ln) */
  HAS_POSITIONS = 2048, /* learned ones */
  HAS_FINAL_BIAS = 4096, /* the last norm has a bias as well (where HAS_GAINS holds and the table asks) */
  HAS_QK_LAYER_NORM = 16384, /* the norm of HAS_QK_NORM takes the mean away, and each head has a gain of its own */
  HAS_FINAL_NORM = 65536, /* asked where a family has models without */
  HAS_NARROW_EMBED = 32768, /* tokens have rows of d_embed elements; a product widens them, another narrows what is unembedded */
  HAS_PLACED_KEYS = 8192 /* learned positions are added to what q and k read and never to the residual (shortformer);
                            v then is a product of its own */
};

struct arch {
  const char *family; /* static: "gpt2", "workshop" */
  int32_t n_layer, n_head, n_kv_head, d_head;
  int64_t d_model, d_mlp, n_ctx, vocabulary; /* d_mlp is 0 in attention-only models */
  int64_t d_embed;       /* with HAS_NARROW_EMBED: elements of a token's row as stored */
  uint32_t has;          /* enum arch_part */
  enum norm_kind norm;   /* before each sublayer */
  enum norm_kind stream_norm; /* of the residual stream itself, behind each addition; `norm` and `final_norm` are NORM_NONE then */
  enum norm_kind final_norm; /* before the unembedding */
  float norm_eps;
  bool parallel;       /* attention and MLP both read the block's input; there is no resid_mid */
  enum activation act;
  bool solu;           /* instead of act: x softmax(x) over the hidden activations */
  bool gated;          /* MLP: act(gate) * up */
  float embed_scale;   /* 1 unless the family scales its embedding */
  bool embed_scale_rounds; /* embed_scale counts in the precision of the weights (Gemma) */
  float attn_scale;    /* scores = attn_scale * q.k, before the next switch */
  bool scale_by_layer; /* and divided by layer + 1 (Stanford CRFM) */
  float attn_soft_cap, logit_soft_cap; /* 0 = none */
  int32_t window;      /* local layers see that many positions, their own included */
  struct rotary rotary, rotary_local;
  bool local[ARCH_MAX_LAYERS]; /* layers that see `window` positions and turn by rotary_local */
};

static inline bool arch_has(const struct arch *arch, uint32_t parts) { return (arch->has & parts) == parts; }

/* Places for weights. Matrices first, then vectors; per layer or once (see weight_row.name). */
enum weight_slot {
  SLOT_EMBED, SLOT_UNEMBED, SLOT_QKV, SLOT_V, SLOT_O, SLOT_IN, SLOT_GATE, SLOT_OUT,
  SLOT_MATRICES,
  SLOT_POSITIONS = SLOT_MATRICES, /* [n_ctx, d_model], read like a vector */
  SLOT_NORM1_GAIN, SLOT_NORM1_BIAS, SLOT_NORM2_GAIN, SLOT_NORM2_BIAS, SLOT_FINAL_GAIN, SLOT_FINAL_BIAS,
  SLOT_POST1_GAIN, SLOT_POST2_GAIN, SLOT_Q_GAIN, SLOT_K_GAIN, SLOT_MLP_NORM_GAIN, SLOT_MLP_NORM_BIAS,
  SLOT_QKV_BIAS, SLOT_O_BIAS, SLOT_IN_BIAS, SLOT_GATE_BIAS, SLOT_OUT_BIAS, SLOT_UNEMBED_BIAS,
  SLOT_COUNT
};

/* Sizes by meaning, so that one table serves every size of a family. */
enum dim { DIM_NONE, DIM_MODEL, DIM_MLP, DIM_HEAD, DIM_ATTN, DIM_KV, DIM_QKV, DIM_VOCABULARY, DIM_CONTEXT, DIM_EMBED };
int64_t arch_dim(const struct arch *arch, enum dim dim); /* 1 for DIM_NONE */

/* How a row's weights lie in their tensor, when they are not all of it. */
enum weight_form {
  FORM_WHOLE,
  FORM_PIECE,      /* outputs are stacked: all of piece 0, all of piece 1 ... (gate_up_proj) */
  FORM_HEAD_PIECE, /* head by head: piece 0 of head 0, piece 1 of head 0 ... (query_key_value of GPT-NeoX) */
  FORM_HEADS_OUT,  /* a matrix [in, d_head] (vector [d_head]) for each head of the outputs (W_Q of TransformerLens) */
  FORM_HEADS_IN,   /* a matrix [d_head, out] for each head of the inputs (W_O) */
  FORM_EACH_HEAD   /* vectors: a tensor [d_head] for each head, whose number is the second "%d" of the name (StableLM 2 12B) */
};

struct weight_row {
  enum weight_slot slot;
  const char *name;          /* with "%d" for the layer: one for each layer. "/name" takes no prefix */
  enum matrix_layout layout; /* of the file; ignored for vectors */
  enum dim out, in;          /* in = DIM_NONE: a vector of `out` elements. SLOT_POSITIONS: out = rows */
  uint32_t needs, unless;    /* parts: the tensor is there when the model has all of `needs` and none of `unless`;
                              * otherwise it must not be */
  bool optional;             /* vectors: may be missing all the same, and then is zero */
  enum weight_form form;
  int piece, pieces;         /* FORM_PIECE, FORM_HEAD_PIECE */
  int skip;                  /* rows of SLOT_POSITIONS in front that no position uses (OPT) */
  const char *factor;        /* of the embedding and the unembedding: what the matrix is multiplied with when it is loaded, a
                              * tensor [d_model, in], or [in, d_model] with ROWS_ARE_INPUTS. Its inputs are DIM_MODEL then */
  enum matrix_layout factor_layout;
  float plus;                /* added to every element of a vector (Gemma keeps gains minus one) */
};
/* Rows with the same slot stand together; they are stacked along the outputs in this order, vectors too. */

/* A row of a table; members beyond the four are given by name. */
#define WEIGHT(slot_, name_, out_, in_, ...) {.slot = slot_, .name = name_, .out = out_, .in = in_, __VA_ARGS__}

struct arch_family {
  const char *name;
  const char *model_type;      /* of config.json */
  const char *const *prefixes; /* put in front of names, tried in order until the first row is found; NULL-ended */
  const struct weight_row *rows;
  size_t n_rows;
  const char *const *ignored;  /* tensors that may be there and are not read: "*end" or "begin*"; NULL-ended or NULL */
  /* Fills *out, zeroed before, from config.json; every number is checked against limits, every switch that is not
   * served is refused by name. NULL where there is no config.json. */
  int (*read_config)(const struct json_node *config, struct arch *out, struct error *error);
};

extern const struct arch_family arch_gpt2, arch_llama, arch_mistral, arch_qwen2, arch_qwen3, arch_gemma, arch_gemma2,
    arch_gemma3_text, arch_gemma3, arch_gpt_neox, arch_gpt_neo, arch_phi3, arch_stablelm, arch_gptj, arch_opt, arch_phi,
    arch_toy;
extern const struct arch_family arch_workshop;

/* The family of a config.json, by model_type. NULL with ERROR_UNSUPPORTED naming what was found, the nearest known
 * one and what is served. */
const struct arch_family *arch_find(const struct json_node *config, struct error *error) MUST_CHECK;

/* 0 when the dimensions agree with each other and with the limits of formats and memory; checked before any
 * weight is read. */
int arch_check(const struct arch *arch, struct error *error) MUST_CHECK;

#endif
