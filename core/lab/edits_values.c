/* edits_values.c: what an edit puts in, resolved: dictionaries, features, directions, rows, and their units. Owns what of the
 * stored statistics an edit may count in. */
#include "core/lab/edits_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/store/features.h"

/* ---- dictionaries and features ---- */

static int check_feature(const struct resolved_edit *edit, const char *field, int64_t index, struct error *error) {
  char text[128];
  const struct dict_info *info = dict_info(edit->dict);
  if (index >= 0 && index < info->n_feat) return 0;
  snprintf(text, sizeof text, "there is no feature %" PRId64 ", the source has 0 to %" PRId64, index, info->n_feat - 1);
  return edit_at_fault(error, ERROR_NOT_FOUND, edit, field, text);
}

/* What the statistics have seen of a feature: its largest activation, and its mean over all counted positions; NaN where
 * they know nothing. */
static int stored(struct lab *lab, const struct lab_source_info *info, int64_t index, double *max, double *mean,
                  struct error *error) {
  struct arena arena;
  struct store_feature feature;
  struct lab_source *source = lab_source_of(lab, info);
  arena_init(&arena, 0);
  int found = lab->store && source->store_id
                  ? store_feature_get(lab->store, source->store_id, (uint32_t)index, 0, &arena, &feature, error)
                  : 0;
  bool known = found > 0 && (feature.groups & STORE_STATISTICS);
  *max = known ? (double)feature.max : (double)NAN;
  *mean = known ? (feature.n_fired == 0 ? 0 : feature.mean * feature.rate) : (double)NAN;
  arena_clear(&arena);
  return found < 0 ? -1 : 0;
}

static int stored_maximum(struct lab *lab, const struct lab_source_info *info, const struct resolved_edit *edit, double *out,
                          struct error *error) {
  double mean;
  if (stored(lab, info, edit->index, out, &mean, error) != 0) return -1;
  if (*out > 0) return 0;
  return edit_at_fault(error, ERROR_ARGUMENT, edit, "unit",
                  "no largest activation of this feature is stored, so 'max' has no meaning; collect statistics (POST "
                  "/v1/jobs), or use 'raw'");
}

/* The mean over the corpus of the statistics, positions at which the feature does not fire included. */
static int stored_mean(struct lab *lab, const struct lab_source_info *info, struct resolved_edit *edit, struct error *error) {
  double max, mean;
  if (stored(lab, info, edit->index, &max, &mean, error) != 0) return -1;
  if (isnan(mean))
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "texts",
                    "no statistics of this feature are stored to take its mean from; collect them (POST /v1/jobs), or give the "
                    "texts that the mean is over");
  edit->known = true;
  edit->value += (float)mean;
  return 0;
}

int resolve_features(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                          struct error *error) {
  bool own = edit->index >= 0 && (from->op == LAB_EDIT_CLAMP || from->op == LAB_EDIT_ABLATE || from->op == LAB_EDIT_SCALE ||
                                  from->op == LAB_EDIT_MEAN);
  edit->features = arena_array(plan->arena, from->n_features + 1, sizeof *edit->features, error);
  if (!edit->features) return -1;
  for (size_t i = 0; i < from->n_features; i++) {
    const struct lab_feature_edit *f = &from->features[i];
    char field[48];
    snprintf(field, sizeof field, "features[%zu].index", i);
    if (check_feature(edit, field, f->index, error) != 0) return -1;
    edit->features[edit->n_features++] =
        (struct edit_feature){(int32_t)f->index, f->op == LAB_EDIT_SCALE ? FEATURE_SCALE : FEATURE_SET,
                              f->op == LAB_EDIT_ABLATE ? 0 : (float)f->value};
  }
  if (own)
    edit->features[edit->n_features++] =
        (struct edit_feature){(int32_t)edit->index, from->op == LAB_EDIT_SCALE ? FEATURE_SCALE : FEATURE_SET,
                              from->op == LAB_EDIT_ABLATE ? 0 : edit->value};
  return 0;
}

int resolve_dict(struct lab *lab, const struct lab_model_info *model, const struct lab_edit *from,
                        struct resolved_edit *edit, struct error *error) {
  char field[80];
  double unit = 1;
  snprintf(field, sizeof field, "%s.source", edit->name);
  if (!from->source_id) return 0;
  const struct lab_source_info *info = lab_find_source(lab, model, from->source_id, field, error);
  if (!info) return -1;
  edit->dict = lab_source_of(lab, info)->dict;
  if (from->op != LAB_EDIT_SPLICE && from->index < 0)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "index", "the feature's number is needed beside its source");
  if (from->index >= 0 && check_feature(edit, "index", from->index, error) != 0) return -1;
  if (from->max_unit && stored_maximum(lab, info, edit, &unit, error) != 0) return -1;
  edit->strength = (float)(from->strength * unit);
  edit->value = (float)(from->value * (from->op == LAB_EDIT_SCALE ? 1 : unit));
  if (from->op != LAB_EDIT_MEAN || from->over != LAB_OVER_CORPUS || from->n_texts) return 0;
  if (dict_info(edit->dict)->kind == DICT_NEURONS)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "texts", "statistics of a neuron count where it is above 0, and its mean is over all "
                         "positions; give the texts that the mean is over");
  return stored_mean(lab, info, edit, error);
}

/* ---- vectors and rows ---- */

int edit_wrong_length(const struct resolved_edit *edit, const char *field, size_t found, int64_t expected, struct error *error) {
  char text[128];
  const char *whose = edit->square ? "'s chosen heads times their keys"
                      : edit_selected_width(edit) < edit->width ? "'s chosen heads"
                                                                : "";
  snprintf(text, sizeof text, "%zu numbers, expected %" PRId64 " (the width of the point%s)", found, expected, whose);
  return edit_at_fault(error, ERROR_ARGUMENT, edit, field, text);
}

static int check_finite(const struct resolved_edit *edit, const char *field, const float *v, size_t n, struct error *error) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(v[i])) return edit_at_fault(error, ERROR_ARGUMENT, edit, field, "a number is too large for float32");
  return 0;
}

/* Spread over the whole width, zero outside of the chosen heads: so that a direction stays one direction. */
static void spread(const struct resolved_edit *edit, const float *from, float *to) {
  for (size_t c = 0; c < edit->n_columns; c++) {
    size_t n = (size_t)(edit->columns[c].end - edit->columns[c].begin);
    memcpy(to + edit->columns[c].begin, from, n * sizeof *to);
    from += n;
  }
}

static int make_unit(const struct resolved_edit *edit, struct error *error) {
  double square = 0;
  for (int64_t i = 0; i < edit->width; i++) square += (double)edit->v[i] * edit->v[i];
  if (square == 0)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, edit->dict ? "index" : "vector", "it is zero, so it has no direction");
  for (int64_t i = 0; i < edit->width; i++) edit->v[i] = (float)(edit->v[i] / sqrt(square));
  return 0;
}

/* Where every column gets the same number. */
static int resolve_uniform(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                           struct error *error) {
  if (from->vector || edit->dict)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "value", edit->dict
                         ? "the feature says the direction, and 'strength' how far; leave it out"
                         : "the vector says the values; leave one of them out");
  if (edit->square || from->op == LAB_EDIT_SET) return 0; /* a fill; where square the columns are not known yet */
  edit->v = arena_array(plan->arena, (size_t)edit->width, sizeof *edit->v, error);
  for (size_t c = 0; edit->v && c < edit->n_columns; c++)
    for (int32_t i = edit->columns[c].begin; i < edit->columns[c].end; i++) edit->v[i] = edit->value;
  return edit->v ? 0 : -1;
}

static int given_vector(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit, bool direction,
                        struct error *error) {
  if (!from->vector)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "vector", from->op == LAB_EDIT_SET
                         ? "a vector is needed, or a value for every column"
                         : "a vector is needed, or source and index");
  if (!edit->square && (int64_t)from->n_vector != edit_selected_width(edit))
    return edit_wrong_length(edit, "vector", from->n_vector, edit_selected_width(edit), error);
  if (check_finite(edit, "vector", from->vector, from->n_vector, error) != 0) return -1;
  edit->n_v = from->n_vector;
  edit->v = edits_keep(plan->arena, from->vector, from->n_vector, sizeof *edit->v, error);
  if (!edit->v || !direction || edit->square) return edit->v ? 0 : -1;
  edit->v = arena_array(plan->arena, (size_t)edit->width, sizeof *edit->v, error);
  if (edit->v) spread(edit, from->vector, edit->v);
  return edit->v ? 0 : -1;
}

/* The direction of a neuron is its own column (edits_lower.c). */
static int resolve_neuron(const struct edits_plan *plan, struct resolved_edit *edit, struct error *error) {
  edit->v = arena_array(plan->arena, 1, sizeof *edit->v, error);
  if (edit->v) edit->v[0] = 1;
  return edit->v ? 0 : -1;
}

/* ADD, PROJECT, CAP: a full-width direction. SET, and where square: the chosen columns. */
int resolve_vector(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                   struct error *error) {
  bool direction = from->op == LAB_EDIT_ADD || from->op == LAB_EDIT_PROJECT || from->op == LAB_EDIT_CAP;
  if (!direction && from->op != LAB_EDIT_SET) return 0;
  if (edit->uniform) return resolve_uniform(plan, from, edit, error);
  if (edit->dict && from->vector)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "vector", "the feature says the direction; leave one of them out");
  if (edit->dict && direction && from->op != LAB_EDIT_ADD && dict_info(edit->dict)->cross)
    return edit_at_fault(error, ERROR_UNSUPPORTED, edit, "source",
                         "a feature of a cross-layer transcoder writes a row to each of its layers and has no one direction; 'add', "
                         "'clamp', 'ablate' and 'scale' are served");
  if (edit->dict && dict_info(edit->dict)->kind == DICT_NEURONS) return resolve_neuron(plan, edit, error);
  if (edit->dict) {
    edit->v = arena_array(plan->arena, (size_t)edit->width * (size_t)edit->n_targets, sizeof *edit->v, error);
    if (!edit->v) return -1;
    for (int32_t t = 0; t < edit->n_targets; t++)
      dict_target_row(edit->dict, edit->index, t, edit->v + t * edit->width + dict_info(edit->dict)->out_column);
  } else if (given_vector(plan, from, edit, direction, error) != 0) {
    return -1;
  }
  return from->op == LAB_EDIT_PROJECT || from->op == LAB_EDIT_CAP ? make_unit(edit, error) : 0;
}

int resolve_rows(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                 struct error *error) {
  if (from->op != LAB_EDIT_PATCH) return 0;
  if (!from->from == !from->rows)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "from", "a patch takes its values from 'from' or from 'rows', one of them");
  if (!from->rows) return 0;
  if (!edit->square && (int64_t)from->row_width != edit_selected_width(edit))
    return edit_wrong_length(edit, "rows", from->row_width, edit_selected_width(edit), error);
  edit->n_rows = from->n_rows;
  edit->row_width = from->row_width;
  edit->rows = edits_keep(plan->arena, from->rows, from->n_rows * from->row_width, sizeof *edit->rows, error);
  return edit->rows ? check_finite(edit, "rows", edit->rows, from->n_rows * from->row_width, error) : -1;
}
