/* explicit.h: attention written out for one row, for taps and edits of scores and patterns. Private to core/math.
 *
 * The attention of the backends never holds a whole row of scores. This one does, head by head, in double and in the
 * order of the positions, for the few rows that somebody looks at; both host backends use it. */
#ifndef STEERD_CORE_MATH_EXPLICIT_H
#define STEERD_CORE_MATH_EXPLICIT_H

#include "core/math/host.h"

/* How a backend's cache lies and how it edits rows. */
struct explicit_ways {
  /* Keys of a block of positions; the values are value_offset elements further on. */
  const float *(*keys)(const struct op *op, const struct step *step, int slot, int block, int kv_head);
  int64_t key_position, key_element;    /* elements from key to key, and inside one */
  int64_t value_offset, value_position; /* values are contiguous */
  void (*point)(const void *context, const struct point_items *items, int32_t row, float *h, int64_t width);
  const void *context;
};

/* Elements of scratch that explicit_row needs for any row of the step. */
size_t explicit_scratch_floats(const struct op *op, const struct step *step);

/* A row has edits or taps at the scores or the pattern of the op's layer. */
bool explicit_wanted(const struct op *op, const struct step *step, int32_t row);

/* The edits and taps of scores and pattern of a row; where one edits, z is made from the edited pattern. */
void explicit_row(const struct op *op, const struct step *step, int32_t row, const struct explicit_ways *ways,
                  float *scratch);

#endif
