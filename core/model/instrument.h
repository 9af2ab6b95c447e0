/* instrument.h: the instrumented list of a plan segment: the hot list with fused ops split where a step has an edit
 * or a tap at a cold point between their parts, and with that point put in.
 *
 * Only what the step asks for is split or added: the list for hot sites alone is the hot list. Every split keeps the
 * bits of the fused op (ops.h promises it for norms; an activation is a function of one stored number). What the hot list
 * cannot know by itself, which op gives which site, plan.c has written into the ops (norm.site, linear.site).
 *
 * Derived points are made from what is there. Taps: the residual once more for each head; the product of one head's z
 * with W_O. Edits: the difference goes to attn_out (hook_result), or the norm and the product are done again for the head
 * whose input was edited, and its q, k or v replaced (hook_q_input and kin): no approximation either way. */
#ifndef STEERD_CORE_MODEL_INSTRUMENT_H
#define STEERD_CORE_MODEL_INSTRUMENT_H

#include "core/math/ops.h"
#include "core/model/arch.h"

/* A list that grows. Zero is an empty one; freed with free(list.ops). */
struct op_list {
  struct op *ops;
  size_t count, capacity;
};

/* Scratch of cold points, [rows of a step or logit rows, width] each; planned with the other buffers. Nothing in them
 * outlives the points of one hot op. */
struct instrument_buffers {
  struct rows scale;  /* n_head */
  struct rows normed; /* the widest row that is normed */
  struct rows resid;  /* d_model */
  struct rows heads;  /* n_head * d_head */
  struct rows qkv;    /* as the rows of q, k and v */
};

struct instrument {
  const struct arch *arch;
  struct span positions; /* the table of learned positions, wherever the model adds them; may be absent */
  struct instrument_buffers buffers;
};

/* The sites of a layer at which a step has edits, and taps. */
struct site_sets {
  site_set edited, tapped;
};
struct site_sets step_sites(const struct step *step, int32_t layer);
static inline bool site_sets_cold(struct site_sets sets) { return ((sets.edited | sets.tapped) & ~SITES_HOT) != 0; }

/* Appends ops of a segment as they are. ERROR_MEMORY. */
int op_list_append(struct op_list *list, const struct op *ops, size_t count, struct error *error) MUST_CHECK;

/* Appends the instrumented list of the ops of one segment. */
int instrument_segment(const struct instrument *instrument, const struct op *hot, size_t count, struct site_sets sets,
                       struct op_list *list, struct error *error) MUST_CHECK;

#endif
