/* slot.h: dictionary edits inside a step. Where the backend splices (splice.c) they are ops of the step's list. Elsewhere a step that
 * holds one is run in pieces: up to the point, then the rows that ask are encoded, changed and decoded here, then on. Other rows of
 * the step pass through the same ops on the same buffers and keep their bits. */
#ifndef STEERD_CORE_ENGINE_SLOT_H
#define STEERD_CORE_ENGINE_SLOT_H

#include <stdatomic.h>

#include "core/engine/edit.h"
#include "core/model/plan.h"

/* A mark of the step: beside step.edits[item], which has no rows. */
struct slot_mark {
  int32_t item;
  enum edit_mark mark;
  int32_t edit;          /* index into slots.edits; READ and WRITE of one edit share it */
  int32_t target;        /* of the edit's dictionary; what is written here */
  int32_t point;         /* point_index */
};

/* A dictionary edit of the step and the codes that wait between the point it reads and those it writes. */
struct slot_edit {
  struct edit_slot what;
  struct row_range rows;
  struct sparse codes, changed; /* as encoded, and after the changes */
  float *x;            /* the rows that were encoded, on the host */
  size_t x_capacity;
  /* of splice.c: */
  bool on_host;        /* the step is taken apart for it */
  int32_t aside;       /* where what is between reading and writing is put, one row behind the other: floats in front of it */
};

/* Memory for what waits between two points. */
struct aside {
  struct memory *memory;
  int64_t share; /* floats for each row of a step */
};

/* The list of a step with splices, while it is made (splice.c). Capacities are bytes. */
struct spliced_step {
  struct op *ops;
  struct splice_row *rows;
  struct row_range *groups;
  const struct dict **dicts; /* held for the ops of the list, each once */
  const struct splice **splices;
  uint64_t *serials;
  int32_t *mark;  /* of each item of the step's edits; -1: none */
  int32_t *taken; /* of each item: 1 + the first item of the group that it is in, 0: not yet */
  bool *marked;   /* of each point */
  int64_t *of_row; /* scratch, one for each row of the step */
  size_t count, n_rows, n_groups, n_dicts;
  size_t held_bytes; /* of dicts */
  size_t capacity[10];
  struct memory *aside;
  uint64_t aside_serial; /* another whenever aside is */
  int64_t aside_share;   /* floats of it that a row may have */
  int32_t max_rows;
  int64_t made_share;    /* of what was made last; not the worker's */
  _Atomic(struct aside *) coming; /* that, until the worker has taken it */
};

struct slots {
  struct slot_mark *marks;
  struct slot_edit *edits;
  int32_t n_marks, n_edits, marks_capacity, edits_capacity;
  int32_t *begin;      /* [n_points + 1] scratch: the table of a step with one point */
  float *rows, *was, *now; /* host scratch */
  size_t capacity[3];  /* floats in each */
  struct spliced_step spliced;
};

/* max_rows: of a step. */
int slots_open(struct slots *slots, int32_t n_points, int32_t max_rows, struct error *error) MUST_CHECK;
void slots_close(struct slots *slots, struct backend *backend);

/* Forgets the marks of the last step. */
void slots_reset(struct slots *slots);

/* Notes the dictionary edit of placed item `item`. Marks WRITE belong to the READ noted before them. One that keeps the error and
 * changes nothing keeps every bit: it is not noted. */
int slots_add(struct slots *slots, const struct edit_placed *placed, int32_t item, struct error *error) MUST_CHECK;

/* Runs the step with its marks. */
int slots_run(struct slots *slots, struct plan *plan, const struct step *step, struct error *error) MUST_CHECK;

/* What a mark is about, between two pieces of a step: at: the rows of its point. */
int slots_run_mark(struct slots *slots, const struct slot_mark *mark, struct backend *backend, struct rows at,
                   struct error *error) MUST_CHECK;

/* splice.c: as ops of the step's list: 1. 0: there is nothing to splice so; nothing has been run. */
int splices_run(struct slots *slots, struct plan *plan, const struct step *step, struct error *error) MUST_CHECK;

/* Makes room for `floats` of each row that wait between points, for some more, and never for more than a small part of the device's memory;
 * *bytes: what it took, 0 where there was enough. What a row puts aside beyond the room goes through the host. -1: it stays as it was. One
 * thread at a time, beside the worker. */
int splices_make_aside(struct spliced_step *spliced, struct backend *backend, int64_t floats, size_t *bytes,
                       struct error *error) MUST_CHECK;
void splices_close(struct spliced_step *spliced, struct backend *backend);

#endif
