/* instrument.h: the instrumented list of a plan segment: the hot list with fused ops split where a step has an edit
 * or a tap at a cold point between their parts, and with that point put in.
 *
 * Only what the step asks for is split: the list for no cold site is the hot list. Every split keeps the bits of the
 * fused op (ops.h promises it for norms; an activation is a function of one stored number). What the hot list cannot
 * know by itself, which linear gives which site, plan.c has written into the ops (norm.site, linear.site). */
#ifndef STEERD_CORE_MODEL_INSTRUMENT_H
#define STEERD_CORE_MODEL_INSTRUMENT_H

#include "core/math/ops.h"
#include "core/model/arch.h"

/* A list that grows. Zero is an empty one; freed with free(list.ops). */
struct op_list {
  struct op *ops;
  size_t count, capacity;
};

/* Scratch of cold points, [rows of a step or logit rows, width] each; planned with the other buffers. */
struct instrument_buffers {
  struct rows scale;  /* 1, or one for each head that is normed */
  struct rows normed; /* the widest row that a norm reads */
  struct rows resid;  /* d_model: a copy of the residual */
};

struct instrument {
  const struct arch *arch;
  struct instrument_buffers buffers;
};

/* The sites of a layer at which the step has edits or taps. */
site_set step_sites(const struct step *step, int32_t layer);

/* Appends ops of a segment as they are. ERROR_MEMORY. */
int op_list_append(struct op_list *list, const struct op *ops, size_t count, struct error *error) MUST_CHECK;

/* Appends the instrumented list of the ops of one segment, for edits and taps at `wanted`. */
int instrument_segment(const struct instrument *instrument, const struct op *hot, size_t count, site_set wanted,
                       struct op_list *list, struct error *error) MUST_CHECK;

#endif
