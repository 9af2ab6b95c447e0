/* backward.h: the gradient of a number that somebody makes from a model's logits, with respect to its points.
 *
 * The ops of the plan are run once more, layer by layer, in memory where every op writes to a place of its own, so that what the way back
 * needs is still there; then they are walked backwards with the backend's vjp. Bits of the way there are those of a step: the same ops
 * on the same rows. The residual stream is kept as each layer begins. A layer's values stay where all layers' fit into
 * BACKWARD_KEPT; else each layer is run again on its way back.
 *
 * A second text of as many tokens may run beside the first, for differences: nothing flows back through it, and it has no edits.
 *
 * All of it goes in pieces: backward_slice runs for some milliseconds, and behind it nothing is in flight. Worker thread only. */
#ifndef STEERD_CORE_MODEL_BACKWARD_H
#define STEERD_CORE_MODEL_BACKWARD_H

#include "core/model/plan.h"

#define BACKWARD_KEPT ((size_t)512 << 20) /* bytes */

/* Rows r of the first text are rows r, those of the second n_tokens + r. Valid during the call, in backend memory. */
struct backward_seen {
  struct point point;
  struct rows values, gradients; /* behind the point's edits, as a tap sees it; gradients of the first text's rows alone */
  int64_t width;
};

struct backward_events {
  /* The row of logits of a position. gradient [vocabulary], zeroed: how the number grows with each of them; NULL for the second text. */
  int (*logits)(void *context, int text, int32_t position, const float *logits, float *gradient, struct error *error);
  /* A point on the way back: later points first. 0; 1 to be called once more, in a piece to come; -1 with an error. */
  int (*seen)(void *context, const struct backward_seen *seen, struct error *error);
};

struct backward_args {
  const int32_t *ids[2]; /* [n_tokens]; the second may be NULL */
  int32_t n_tokens;
  const struct edit_item *edits; /* of rows [0, n_tokens), as in struct step; NULL: none. None at scores and patterns */
  const int32_t *edit_begin;
  bool hold_norms, hold_pattern; /* struct vjp */
  const struct point *points;    /* to be seen: backward_has each */
  int n_points;
  int32_t first, last;           /* logits of positions [first, last] */
  size_t most_bytes;             /* that all of this may take */
  int32_t copies;                /* of the first text, one behind the other, where there is no second; 0: itself alone. For direct.c */
  size_t kept_bytes;             /* in place of BACKWARD_KEPT; 0: that */
  const struct backward_events *events;
  void *context;
};

struct backward;

/* Whether there are gradients of a site: not of scores and patterns, of derived points but hook_mlp_in, and of the head. */
bool backward_has(enum site site);

/* Everything in args is borrowed until backward_free. ERROR_LIMIT, or ERROR_MEMORY of a device that has not so much left, names the bytes
 * and about how many tokens would fit. */
struct backward *backward_new(struct plan *plan, const struct backward_args *args, struct error *error) MUST_CHECK;
void backward_free(struct backward *backward); /* NULL is fine */

/* 1 while there is more to do, 0 when all has been seen, -1 with an error. */
int backward_slice(struct backward *backward, struct error *error) MUST_CHECK;

/* During `seen`: the values of another point of the same layer that is to be seen. */
struct rows backward_values(const struct backward *backward, struct point point);

#endif
