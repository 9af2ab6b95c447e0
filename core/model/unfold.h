/* unfold.h: the ops of a plan's segment for a way back: each op writes to memory of its own, what is fused is taken apart, and edits have
 * what was in front of them beside them (ops.h, struct vjp). Private to core/model. */
#ifndef STEERD_CORE_MODEL_UNFOLD_H
#define STEERD_CORE_MODEL_UNFOLD_H

#include "core/model/plan.h"

struct unfolded {
  struct op_list list;
  struct rows begin, end; /* the residual stream in front of the first point, and behind the last op */
  size_t bytes;           /* of memory that the rows lie in */
};

/* rows: of every buffer, but that of the head's first residual, which has `streams`. The list is made anew; freed with free(list.ops).
 * ERROR_UNSUPPORTED where the segment has edits of scores or patterns. */
int unfold_segment(const struct plan *plan, int32_t segment, struct site_sets sets, struct memory *memory, int32_t rows, int32_t streams,
                   struct unfolded *out, struct error *error) MUST_CHECK;

#endif
