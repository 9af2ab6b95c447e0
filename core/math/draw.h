/* draw.h: from a row of logits in the host's memory to a token: what ops.sample promises, for backends that live there and for
 * whoever draws without one. A pure function of the row and the draw. */
#ifndef STEERD_CORE_MATH_DRAW_H
#define STEERD_CORE_MATH_DRAW_H

#include <stdint.h>

#include "core/math/ops.h"

struct draw_candidate {
  float logit;
  int32_t token;
};

/* One draw of `draw` (but for its row) from logits [vocabulary] f32. desk: [vocabulary] of scratch, aligned to 8 bytes. */
void draw_from(const struct sample_draw *draw, const float *logits, int64_t vocabulary, struct draw_candidate *desk,
               struct sample_result *out);

/* The largest logit, the first of equals. vocabulary >= 1. */
int32_t draw_largest(const float *logits, int64_t vocabulary);

/* Sum of exp(logit - top), in double, by index. */
double draw_sum(const float *logits, int64_t vocabulary, float top);

#endif
