/* edits_int.h: a resolved edit, which edits.c and edits_values.c make, edits_place.c sets into a text, and
 * edits_needs.c and edits_lower.c use. Private to these. */
#ifndef STEERD_CORE_LAB_EDITS_INT_H
#define STEERD_CORE_LAB_EDITS_INT_H

#include "core/lab/edits.h"

/* Columns [begin, end) of a point's row; `from`: where they begin in a row of the run that values are taken from. */
struct columns {
  int32_t begin, end, from;
};

struct resolved_edit {
  enum lab_edit_op op;
  char name[64];             /* "edits[3]" */
  struct point point;
  bool square;               /* scores or a pattern: its row has columns for every position of a text */
  int64_t width;             /* of the point; 0 where square */
  struct columns *columns;   /* runs of selected columns, one of all without heads; where square, of heads (begin, end) */
  size_t n_columns;
  int64_t *keys;             /* square: as given; none: all */
  size_t n_keys;
  enum lab_where where;
  int64_t *positions;
  size_t n_positions;
  bool special, include_error, uniform;
  float strength, value;
  float *v;                  /* [width], or the n_v numbers of the selected columns one behind the other: SET, and where square;
                                of a direction that is written to several points [n_targets][width] */
  int32_t n_targets;         /* points that are written, the dictionary's first: 1 but for a cross-layer transcoder */
  size_t n_v;
  const struct dict *dict;   /* feature edits and splices */
  int64_t index;             /* -1: no feature of its own */
  struct edit_feature *features;
  size_t n_features;
  float *rows;               /* PATCH: [n_rows][row_width], the selected columns one behind the other */
  size_t n_rows, row_width;
  bool has_from;
  struct lab_ids from;
  struct edits_plan *from_edits;
  int64_t *from_positions;
  size_t n_from_positions;
  enum lab_over over;
  bool per_position;
  struct lab_ids *texts;     /* LAB_OVER_CORPUS */
  size_t n_texts;
  bool known;                /* MEAN of a feature: `value` is it, from the statistics */
  size_t first_need, n_needs;
};

/* What is kept of a run for one edit. */
struct edit_need {
  struct resolved_edit *edit;
  const struct lab_ids *ids;      /* of the run */
  struct point point;             /* tapped */
  uint8_t *counted;               /* [ids->n]: positions that the sum is over */
  float *rows;                    /* where it takes rows: [ids->n][width] */
  double *sum;                    /* else: [width], or [1] of a feature; over `count` positions */
  int64_t width, count;
};

/* An error in a field of the edit: "edits[3].field: text". */
int edit_at_fault(struct error *error, enum error_code code, const struct resolved_edit *edit, const char *field,
                  const char *text);
int edit_wrong_length(const struct resolved_edit *edit, const char *field, size_t found, int64_t expected, struct error *error);

void *edits_keep(struct arena *arena, const void *from, size_t count, size_t size, struct error *error);

/* Of the selected columns; not where square. */
int64_t edit_selected_width(const struct resolved_edit *edit);

/* ---- edits_values.c: what is put in ---- */

int resolve_dict(struct lab *lab, const struct lab_model_info *model, const struct lab_edit *from, struct resolved_edit *edit,
                 struct error *error) MUST_CHECK;
int resolve_features(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                     struct error *error) MUST_CHECK;
int resolve_vector(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                   struct error *error) MUST_CHECK;
int resolve_rows(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                 struct error *error) MUST_CHECK;

/* ---- edits_cross.c ---- */

/* Checks and orders the edits that splice layers of a cross-layer transcoder without their error, and says how many points each
 * writes. */
int edits_order_layers(struct edits_plan *plan, struct error *error) MUST_CHECK;

/* ---- edits_place.c: an edit over given tokens ---- */

/* A position counted from either end; -1 when it is outside. */
int64_t edit_place(int64_t position, size_t n);

/* A token that the edit may touch. */
bool edit_may_touch(const struct edits_plan *plan, const struct resolved_edit *edit, int32_t id);

/* The edit puts in a row of its own at each position: those of a patch, or means by position. */
static inline bool edit_has_rows(const struct resolved_edit *edit) { return edit->op == LAB_EDIT_PATCH || edit->per_position; }

/* Positions that a mask of the edit covers: those of the text, and behind them those that it has rows for. */
size_t edit_places(const struct edits_plan *plan, const struct resolved_edit *edit, size_t n);

/* mask [edit_places]: 1 where it takes part; returns how many do. */
size_t edit_select(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids, uint8_t *mask);

/* Numbers in a row of the edit's point in a text of n tokens. */
int64_t edit_width(const struct edits_plan *plan, const struct resolved_edit *edit, size_t n);

/* The runs of columns that change in a row of a text of n tokens, ascending, to be freed; n_from: tokens of the run that values
 * are taken from. */
int edit_columns(const struct edits_plan *plan, const struct resolved_edit *edit, size_t n, size_t n_from, struct columns **out, size_t *count,
                 struct error *error) MUST_CHECK;

/* Everything that edits name in a text, against that text. */
int edits_check_place(struct edits_plan *plan, const struct lab_ids *ids, struct error *error) MUST_CHECK;

/* ---- edits_lower.c ---- */

enum edit_kind edit_kind_of(const struct resolved_edit *edit);

#endif
