/* live.h: which ops of an unfolded layer a way back goes through, when what is written at one of its points is a constant. An op that nothing
 * flows through is left out: most of a layer is its MLP. Knows what ops read and write, no numbers. Private to core/model. */
#ifndef STEERD_CORE_MODEL_LIVE_H
#define STEERD_CORE_MODEL_LIVE_H

#include "core/model/unfold.h"

/* Nowhere: the index of no op. */
#define LIVE_NONE SIZE_MAX

/* What begins and ends on the way. Indices of OP_POINTs in the list. */
struct live_ends {
  size_t wall;    /* nothing goes on from the rows of this one; LIVE_NONE */
  size_t source;  /* something may begin in the rows of this one; LIVE_NONE */
  bool hold_pattern; /* struct vjp */
};

/* live [tape->list.count]: whether anything may flow through the op, from the layer's end or from `source`. With norms held (struct vjp).
 * ERROR_MEMORY. */
int live_ops(const struct unfolded *tape, int64_t d_model, const struct live_ends *ends, bool *live, struct error *error) MUST_CHECK;

#endif
