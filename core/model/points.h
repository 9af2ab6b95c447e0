/* points.h: names of points. TransformerLens names ("blocks.7.hook_resid_pre", "blocks.7.attn.hook_z") and the
 * short forms of interp-engine ("resid_pre.7", "z.7", "mlp_act.7") mean the same point. */
#ifndef STEERD_CORE_MODEL_POINTS_H
#define STEERD_CORE_MODEL_POINTS_H

#include "core/base/error.h"
#include "core/math/point.h"

#define POINT_NAME_BYTES 48

/* Reads a name for a model of n_layer layers. ERROR_ARGUMENT: the name with the nearest known ones, or the
 * layer with the allowed range; ERROR_UNSUPPORTED for points that TransformerLens knows and steerd does not
 * serve yet. */
int point_parse(const char *name, int n_layer, struct point *out, struct error *error) MUST_CHECK;

/* The TransformerLens name. Returns out. */
const char *point_name(struct point point, char out[POINT_NAME_BYTES]);

#endif
