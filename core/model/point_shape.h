/* point_shape.h: points as one model has them: whether it has them at all, and the shape of what they hold. */
#ifndef STEERD_CORE_MODEL_POINT_SHAPE_H
#define STEERD_CORE_MODEL_POINT_SHAPE_H

#include "core/model/arch.h"

/* How a point is served (docs/architecture.md, "Points"). */
enum point_kind { POINT_HOT, POINT_COLD, POINT_DERIVED };

/* What a point holds for a sequence of p positions: [p, width]; [p, heads, width] where there are heads;
 * [heads, p, keys] where it is square, keys being the positions so far. */
struct point_shape {
  enum point_kind kind;
  int32_t heads; /* 0: none */
  int64_t width; /* elements of a head, or of the row; 0 where square */
  bool square;   /* scores and pattern: a row is [heads][keys] */
};
struct point_shape point_shape(const struct arch *arch, enum site site);

/* Elements of a row of the point; keys (step.keys) is used where it is square. */
int64_t point_width(const struct arch *arch, enum site site, int32_t keys);

/* NULL when models of this architecture have the point, otherwise why they have not: "its MLP is not gated". Static. */
const char *point_missing(const struct arch *arch, enum site site);

/* point_parse for a model: ERROR_ARGUMENT with the reason, and the points there are, where the model has no such
 * point. */
int point_find(const char *name, const struct arch *arch, struct point *out, struct error *error) MUST_CHECK;

/* The points a name or a pattern ("blocks.*.hook_resid_post", "resid_post.*", "*hook_z") stands for, in the order of the
 * pass; *out is freed by the caller. A name is one point (errors as point_find); a pattern that matches none is refused. */
int points_select(const char *pattern, const struct arch *arch, struct point **out, size_t *count,
                  struct error *error) MUST_CHECK;

/* 0 when the edit makes sense at the point: columns [column_begin, column_end) inside the row (keys as for point_width),
 * and the kind can be done there. ERROR_ARGUMENT with the reason. */
int point_check_edit(const struct arch *arch, struct point point, enum edit_kind kind, int64_t column_begin,
                     int64_t column_end, int32_t keys, struct error *error) MUST_CHECK;

#endif
