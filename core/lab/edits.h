/* edits.h: the edits of a request, from their description to lists for the engine. Private to core/lab/.
 *
 *   edits_resolve   names become points, dictionaries, columns, vectors; what is wrong is said here
 *   edits_needs     which further runs must come first: those that are patched from, and those whose mean is asked
 *   edits_run       such a run, for the engine
 *   edits_tapped    takes its rows as they come
 *   edits_lower     the list for one text
 *
 * Nothing is borrowed from the description: all lies in the arena that resolve was given. */
#ifndef STEERD_CORE_LAB_EDITS_H
#define STEERD_CORE_LAB_EDITS_H

#include "core/lab/lab_int.h"
#include "core/laboratory.h"

/* The tokens of one run. */
struct lab_ids {
  int32_t *ids; /* in an arena */
  size_t n;
};

/* Tokens of an input; `room` more positions must remain. Errors carry `field`. */
int lab_input_ids(const struct lab_model *opened, const struct lab_input *input, enum lab_bos bos, int64_t room,
                  const char *field, struct arena *arena, struct lab_ids *out, struct error *error) MUST_CHECK;

struct resolved_edit;
struct edits_plan;

/* A run that edits need: one tap for each that takes something from it. */
struct edit_run {
  struct lab_ids ids;
  const struct edits_plan *edits; /* of this run; NULL: none */
  struct point *taps;             /* [n_taps] */
  struct edit_need **needs;       /* [n_taps] */
  int n_taps;
  int64_t width;                  /* of all taps */
};

/* What is kept of a run for one edit. */
struct edit_need;

struct edits_plan {
  const struct lab *lab;
  const struct lab_model *opened;
  struct arena *arena;
  struct resolved_edit *edits;
  size_t n_edits;
  bool continues;     /* the text goes on: edits apply to generated positions too. Set before edits_needs */
  int32_t more;       /* so many positions at most stand behind the text in the end; rows of scores and patterns have columns for them from
                         the beginning. Read by edits_append alone */
  size_t n_columns;   /* runs of columns in all edits over all texts */
  double bytes;       /* that their lists take, at most, beside vectors and rows */
  struct edit_need *needs;
  size_t n_needs;
  struct edit_run *runs;
  size_t n_runs;
};

/* prefix: "edits". bos: in front of texts that edits run themselves. */
int edits_resolve(struct lab *lab, const struct lab_model_info *info, const struct lab_edit *edits, size_t n,
                  const char *prefix, enum lab_bos bos, struct arena *arena, struct edits_plan *out,
                  struct error *error) MUST_CHECK;

/* Lists the runs that must come first for these texts, and checks the positions that edits name against them. */
int edits_needs(struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, struct error *error) MUST_CHECK;

/* Run number `run`: its edit list is the sequence's. */
int edits_run(const struct edits_plan *plan, size_t run, struct engine_sequence *out, struct error *error) MUST_CHECK;

/* Worker: fresh rows of run number `run`. */
int edits_tapped(const struct edits_plan *plan, size_t run, const struct engine_tapped *tapped, struct error *error) MUST_CHECK;

/* Appends what applies to text `text` to a list. */
int edits_append(const struct edits_plan *plan, size_t text, const struct lab_ids *ids, struct edit_list *list,
                 struct error *error) MUST_CHECK;

/* The list for text `text` of those that edits_needs was given; NULL in *out when there is nothing to do. */
int edits_lower(const struct edits_plan *plan, size_t text, const struct lab_ids *ids, struct edit_list **out,
                struct error *error) MUST_CHECK;

#endif
