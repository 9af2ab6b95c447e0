/* slot.h: dictionary edits inside a step. A step that holds one is run in pieces: up to the point, then the rows that
 * ask are encoded, changed and decoded here, then on. Other rows of the step pass through the same ops on the same
 * buffers and keep their bits. */
#ifndef STEERD_CORE_ENGINE_SLOT_H
#define STEERD_CORE_ENGINE_SLOT_H

#include "core/engine/edit.h"
#include "core/model/plan.h"

/* A mark of the step: beside step.edits[item], which has no rows. */
struct slot_mark {
  int32_t item;
  enum edit_mark mark;
  int32_t edit;          /* index into slots.edits; READ and WRITE of one edit share it */
  int32_t target;        /* of the edit's dictionary; what is written here */
};

/* A dictionary edit of the step and the codes that wait between the point it reads and those it writes. */
struct slot_edit {
  struct edit_slot what;
  struct row_range rows;
  struct sparse codes, changed; /* as encoded, and after the changes */
  float *x;            /* the rows that were encoded, on the host */
  size_t x_capacity;
};

struct slots {
  struct slot_mark *marks;
  struct slot_edit *edits;
  int32_t n_marks, n_edits, marks_capacity, edits_capacity;
  int32_t *begin;      /* [n_points + 1] scratch: the table of a step with one point */
  float *rows, *was, *now; /* host scratch */
  size_t capacity[3];  /* floats in each */
};

int slots_open(struct slots *slots, int32_t n_points, struct error *error) MUST_CHECK;
void slots_close(struct slots *slots);

/* Forgets the marks of the last step. */
void slots_reset(struct slots *slots);

/* Notes the dictionary edit of placed item `item`. Marks WRITE belong to the READ noted before them. */
int slots_add(struct slots *slots, const struct edit_placed *placed, int32_t item, struct error *error) MUST_CHECK;

/* Runs the step with its marks. */
int slots_run(struct slots *slots, struct plan *plan, const struct step *step, struct error *error) MUST_CHECK;

#endif
