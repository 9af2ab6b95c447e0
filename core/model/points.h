/* points.h: names of points. TransformerLens names ("blocks.7.hook_resid_pre", "blocks.7.attn.hook_z"), their short forms
 * ("resid_pre.7", "z.7", "k7") and the addresses of interp-engine ("mlp_act.7", "attn_probs.7") mean the same points;
 * docs/points.md has the table. */
#ifndef STEERD_CORE_MODEL_POINTS_H
#define STEERD_CORE_MODEL_POINTS_H

#include <stdbool.h>

#include "core/base/error.h"
#include "core/math/point.h"

#define POINT_NAME_BYTES 48

/* Reads a name for a model of n_layer layers. ERROR_ARGUMENT: the name with the nearest known ones, or the
 * layer with the allowed range, or that the point is known and not served. Whether the model has the
 * point is another question: point_find of point_shape.h asks it too, and is what to call where a model is at hand. */
int point_read(const char *name, int n_layer, struct point *out, struct error *error) MUST_CHECK;

/* The same for models without norms after their sublayers, where attn_out.N and mlp_out.N are hook_attn_out and
 * hook_mlp_out. */
int point_parse(const char *name, int n_layer, struct point *out, struct error *error) MUST_CHECK;

/* The TransformerLens name; where that library has none, interp-engine's. Returns out. */
const char *point_name(struct point point, char out[POINT_NAME_BYTES]);

/* The name of a site with "N" for the layer. Static text. */
const char *site_name(enum site site);

/* All names of a site, site_name first; returns how many, at most `most`. Static texts. */
size_t site_spellings(enum site site, const char *out[], size_t most);

/* The point has a name, in whatever spelling, that the pattern matches: '*' stands for any text, dots included, '?' for
 * one character. attn_out.N and mlp_out.N are names of SITE_ATTN_RAW and SITE_MLP_RAW here. */
bool point_matches(struct point point, const char *pattern);

#endif
