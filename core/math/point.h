/* point.h: named activations of the forward pass.
 *
 * A point is a site at a layer. Hot sites are live in every pass at no cost; their width is d_model except
 * attn_z (n_head * d_head) and mlp_post (d_mlp). The order inside a layer, which is the order of the enum:
 *
 *   resid_pre -> [norm, attention] -> attn_z -> attn_out -> + -> resid_mid -> [norm, MLP in] -> mlp_post
 *   -> mlp_out -> + -> resid_post            (resid_pre of the next layer is a point of its own)
 *
 * At every point edits come first, then taps, so that a tap sees what the rest of the model sees. */
#ifndef STEERD_CORE_MATH_POINT_H
#define STEERD_CORE_MATH_POINT_H

#include <stdint.h>

enum site {
  SITE_RESID_PRE, SITE_ATTN_Z, SITE_ATTN_OUT, SITE_RESID_MID, SITE_MLP_POST, SITE_MLP_OUT, SITE_RESID_POST,
  SITE_COUNT
};

struct point {
  int layer; /* 0..n_layer-1 */
  enum site site;
};

/* Dense number of a point: points are numbered in the order they come up in a pass. */
static inline int point_index(struct point p) { return p.layer * SITE_COUNT + (int)p.site; }

#endif
