/* point.h: named activations of the forward pass.
 *
 * A point is a site at a layer. The order of the enum is the order in which points come up in a layer. At every point
 * edits come first, then taps, so that a tap sees what the rest of the model sees.
 *
 *   embed, pos_embed (layer 0) -> resid_pre -> [norm, attention] -> attn_z -> attn_out -> + -> resid_mid
 *   -> [norm, MLP] -> mlp_post -> mlp_out -> + -> resid_post (resid_pre of the next layer is a point of its own)
 *   and, at layer n_layer, for the rows whose logits are computed: final norm -> logits
 *
 * HOT sites are live in every pass at no cost. All others are cold: a segment of the plan in which a step has an edit
 * or a tap at one runs instrumented, that is with its fused ops split (core/model/instrument.h). The answer has the same
 * bits either way.
 *
 * The three sites of a norm stand together: what it divides by [1 value a row], the normalized row before gain and
 * bias, and the output after gain and bias. */
#ifndef STEERD_CORE_MATH_POINT_H
#define STEERD_CORE_MATH_POINT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

enum site {
  SITE_EMBED, SITE_POS_EMBED, /* at layer 0: a token's row (scaled), a position's row */
  SITE_RESID_PRE,
  SITE_HEAD_IN,               /* derived: resid_pre once for each head, on its way to q, k and v of that head */
  SITE_Q_IN, SITE_K_IN, SITE_V_IN, /* derived: the same for one of the three */
  SITE_LN1_SCALE, SITE_LN1_NORMALIZED, SITE_ATTN_IN,
  SITE_Q, SITE_K, SITE_V,
  SITE_Q_NORM_SCALE, SITE_Q_NORM_NORMALIZED, SITE_Q_NORM_OUT,
  SITE_K_NORM_SCALE, SITE_K_NORM_NORMALIZED, SITE_K_NORM_OUT,
  SITE_ROT_Q, SITE_ROT_K,
  SITE_SCORES, SITE_PATTERN,  /* a row is [n_head][keys]: see step.keys */
  SITE_ATTN_Z,
  SITE_RESULT,                /* derived: what each head adds to attn_out */
  SITE_ATTN_RAW,              /* before the norm that follows attention */
  SITE_LN1_POST_SCALE, SITE_LN1_POST_NORMALIZED, SITE_ATTN_OUT,
  SITE_RESID_MID,
  SITE_MLP_RESID,             /* derived: resid_mid on its way to the second norm alone */
  SITE_LN2_SCALE, SITE_LN2_NORMALIZED, SITE_MLP_IN,
  SITE_MLP_PRE, SITE_MLP_PRE_LINEAR, SITE_MLP_MID, SITE_MLP_POST,
  SITE_MLP_RAW,               /* before the norm that follows the MLP */
  SITE_LN2_POST_SCALE, SITE_LN2_POST_NORMALIZED, SITE_MLP_OUT,
  SITE_RESID_POST,
  SITE_FINAL_SCALE, SITE_FINAL_NORMALIZED, SITE_FINAL_OUT, SITE_LOGITS, /* at layer n_layer */
  SITE_COUNT
};

/* A set of sites, a bit each. */
typedef uint64_t site_set;
static_assert(SITE_COUNT <= 64, "a site_set has room for 64 sites");
static inline site_set site_bit(enum site site) { return (site_set)1 << site; }
#define SITES_HOT                                                                                               \
  (site_bit(SITE_RESID_PRE) | site_bit(SITE_ATTN_Z) | site_bit(SITE_ATTN_OUT) | site_bit(SITE_RESID_MID) |      \
   site_bit(SITE_MLP_POST) | site_bit(SITE_MLP_OUT) | site_bit(SITE_RESID_POST))
static inline bool site_is_hot(enum site site) { return (SITES_HOT & site_bit(site)) != 0; }

struct point {
  int layer; /* 0..n_layer-1; 0 for the embeddings, n_layer for the final norm and the logits */
  enum site site;
};

/* Dense number of a point: points are numbered in the order they come up in a pass. */
static inline int point_index(struct point p) { return p.layer * SITE_COUNT + (int)p.site; }

/* Numbers of all points of a model with n_layer layers: [0, point_count). */
static inline int point_count(int n_layer) { return (n_layer + 1) * SITE_COUNT; }

/* How many layers must run for a point to come up: [0, point_layers). The points in front of a layer's first op come
 * up when rows arrive there. */
static inline int point_layers(struct point p) { return p.layer + (p.site > SITE_RESID_PRE && p.site < SITE_FINAL_SCALE); }

#endif
