/* backward_int.h: the memory, the tables and the tapes of a way back, shared by its two drivers: backward.c, which takes the gradient of one
 * number once, and direct.c, which goes back through a frozen model as often as somebody wants. Private to core/model. */
#ifndef STEERD_CORE_MODEL_BACKWARD_INT_H
#define STEERD_CORE_MODEL_BACKWARD_INT_H

#include "core/model/backward.h"
#include "core/model/unfold.h"

#define ZEROS ((size_t)256 << 10) /* bytes that are cleared at a time */
#define HEAD_ROWS 8 /* rows of logits at a time */

enum phase { THERE, HEAD, HEAD_BACK, AGAIN, CLEAR, BACK, DONE };

struct layer {
  struct unfolded tape;
  struct memory *values;
};

struct backward {
  struct plan *plan;
  const struct model *model;
  struct backend *backend;
  struct backward_args args;
  int32_t n_texts, rows, lowest; /* rows: of all texts */
  bool keeps;                    /* the values of all layers */
  bool flies;                    /* the backend may do what it is asked later */
  int64_t asked;                 /* of it, since it was waited for */
  struct layer *layers;          /* [n_layer + 1], the head last */
  struct memory *values, *cotangents, *head, *head_cotangents, *streams, *carry, *kv, *zeros;
  size_t most;                   /* bytes of the largest layer */
  struct step step, plain;       /* plain: without edits */
  int32_t *token, *position, *source, *blocks, logit_row[HEAD_ROWS];
  uint8_t *origin;
  struct row_range *active;
  struct step_slot slots[2];
  struct kv_pages pages[2];
  float *logits, *gradient;
  /* where it is */
  enum phase phase;
  int32_t layer, row;
  size_t op, cleared;
  int text;
};

static inline struct rows rows_in_memory(struct rows rows, struct memory *memory) {
  rows.at.memory = memory;
  return rows;
}

static inline int32_t backward_layers(const struct backward *b) { return b->model->arch.n_layer; }

/* A piece of what comes next. */
int backward_piece(struct backward *b, struct error *error) MUST_CHECK;

/* Calls `piece` for some milliseconds, until it says 0 (all is done) or -1; it says 1 while there is more. Nothing is in flight behind it. */
int backward_run_slice(struct backward *b, int (*piece)(void *context, struct error *error), void *context, struct error *error) MUST_CHECK;

/* n rows of [d_model]. */
int backward_copy_rows(struct backward *b, struct rows to, struct rows from, int32_t n, struct error *error) MUST_CHECK;

/* Rows [begin, end) of one text, or of several where no op looks at texts, as the step of an op of a layer. Those in front of them have no
 * part in it. */
void backward_set_rows(struct backward *b, int32_t layer, int32_t begin, int32_t end);

/* Where a piece of an op's way back ends that begins at a row, of `all`; *cost: what it counts for in b->asked. */
int32_t backward_piece_end(const struct backward *b, const struct op *op, int32_t row, int32_t all, int64_t *cost);

#endif
