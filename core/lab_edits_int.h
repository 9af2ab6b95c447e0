/* lab_edits_int.h: a resolved edit, which lab_edits.c makes and lab_edits_lower.c lowers. Private to the two. */
#ifndef STEERD_CORE_LAB_EDITS_INT_H
#define STEERD_CORE_LAB_EDITS_INT_H

#include "core/lab_edits.h"

struct columns {
  int32_t begin, end;
};

struct resolved_edit {
  enum lab_edit_op op;
  char name[64];             /* "edits[3]" */
  struct point point;
  int64_t width;             /* of the point */
  struct columns *columns;   /* runs of selected columns; one of all without heads */
  size_t n_columns;
  enum lab_where where;
  int64_t *positions;
  size_t n_positions;
  bool special, include_error;
  float strength, value;
  float *v;                  /* [width], or the selected columns one behind the other for SET */
  const struct dict *dict;   /* feature edits and splices */
  int64_t index;             /* -1: no feature of its own */
  struct edit_feature *features;
  size_t n_features;
  float *rows;               /* PATCH: [n_rows][width of the selected columns] */
  size_t n_rows;
  bool has_from;
  struct lab_ids from;
  struct edits_plan *from_edits;
  int64_t *from_positions;
  size_t n_from_positions;
  enum lab_over over;
  size_t first_need, n_needs;
};

/* An error in a field of the edit: "edits[3].field: text". */
int edit_at_fault(struct error *error, enum error_code code, const struct resolved_edit *edit, const char *field,
                  const char *text);

int64_t edit_selected_width(const struct resolved_edit *edit);

#endif
