/* vjp.h: the way back through ops that go row by row and cost little beside products and attention: one function for the backends of host
 * memory, in double. Private to core/math. What products, norms, activations and attention do is each backend's own. */
#ifndef STEERD_CORE_MATH_VJP_H
#define STEERD_CORE_MATH_VJP_H

#include "core/math/host.h"

/* One op on its way back. */
struct way_back {
  const struct op *op;
  const struct step *step;
  const struct vjp *vjp;
  /* How the backend edits a row: for edits that ask what was in front of them. */
  void (*point)(const void *context, const struct point_items *items, int32_t row, float *h, int64_t column, int64_t width);
  const void *context;
};

/* The cotangents of a row. */
static inline float *cotangents_at(const struct vjp *vjp, struct rows rows, int64_t row) {
  rows.at.memory = rows.at.memory ? vjp->cotangents : NULL;
  return rows_at(rows, row);
}

/* What stood in n cotangents, which are 0 now. */
void cotangents_take(float *from, int64_t n, float *to);

/* The op is one of those here. */
bool vjp_goes_by_rows(enum op_code code);

/* Floats of scratch that a row needs. */
size_t vjp_scratch_floats(const struct op *op);

/* Row `row` of the op's buffers. Rows of OP_GATHER may meet in one that they read: by one thread. */
void vjp_row(const struct way_back *back, int32_t row, float *scratch);

/* How an activation grows at x. */
double activation_slope(enum activation act, double x);

#endif
