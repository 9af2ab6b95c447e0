/* edits_lower.c: resolved edits become the list that the engine gets for one text. Knows no names any more; what other runs
 * gave lies in the needs. */
#include "core/lab/edits_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum edit_kind edit_kind_of(const struct resolved_edit *edit) {
  switch (edit->op) {
    case LAB_EDIT_ADD: return EDIT_ROW_ADD;
    case LAB_EDIT_PROJECT: return EDIT_ROW_PROJECT;
    case LAB_EDIT_CAP: return EDIT_ROW_CAP;
    case LAB_EDIT_SCALE: return EDIT_ROW_SCALE;
    case LAB_EDIT_ZERO:
    case LAB_EDIT_KNOCKOUT: return EDIT_ROW_FILL;
    case LAB_EDIT_PATCH: return EDIT_ROW_REPLACE;
    case LAB_EDIT_MEAN: return edit->per_position ? EDIT_ROW_REPLACE : EDIT_ROW_COPY;
    default: return edit->uniform ? EDIT_ROW_FILL : EDIT_ROW_COPY; /* SET */
  }
}

/* One edit over one text. */
struct lowering {
  const struct edits_plan *plan;
  const struct resolved_edit *edit;
  size_t text;
  const struct lab_ids *ids;
  uint8_t *mask;          /* [places] */
  size_t places, selected;
  float *mean;            /* MEAN: [width], or a row for each position */
  struct edit_list *list;
};

/* ---- means ---- */

/* Which of the edit's needs count for the text: the one of this text, or all. */
static bool counts_for(const struct lowering *l, size_t need) {
  const struct resolved_edit *edit = l->edit;
  return edit->has_from || edit->n_texts || edit->over == LAB_OVER_BATCH || need == l->text;
}

static void mean_of_sums(const struct lowering *l, double *sum, int64_t width) {
  const struct edit_need *needs = l->plan->needs + l->edit->first_need;
  int64_t count = 0;
  for (size_t i = 0; i < l->edit->n_needs; i++) {
    if (!counts_for(l, i)) continue;
    for (int64_t c = 0; c < width; c++) sum[c] += needs[i].sum[c];
    count += needs[i].count;
  }
  for (int64_t c = 0; c < width; c++) l->mean[c] = count ? (float)(sum[c] / (double)count) : 0;
}

/* In the order of the texts, whatever order their runs came in. */
static void mean_of_rows(const struct lowering *l, double *sum, int64_t width) {
  const struct edit_need *needs = l->plan->needs + l->edit->first_need;
  for (size_t p = 0; p < l->ids->n; p++) {
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (size_t i = 0; i < l->edit->n_needs; i++)
      for (int64_t c = 0; c < width; c++) sum[c] += (double)needs[i].rows[(int64_t)p * width + c];
    for (int64_t c = 0; c < width; c++) l->mean[(int64_t)p * width + c] = (float)(sum[c] / (double)l->edit->n_needs);
  }
}

static int take_mean(struct lowering *l, struct error *error) {
  if (l->edit->op != LAB_EDIT_MEAN || l->edit->known) return 0;
  int64_t width = l->plan->needs[l->edit->first_need].width;
  size_t rows = l->edit->per_position ? l->ids->n : 1;
  double *sum = calloc((size_t)width, sizeof *sum);
  l->mean = malloc(rows * (size_t)width * sizeof *l->mean);
  int failed = sum && l->mean ? 0 : error_memory(error, (rows + 2) * (size_t)width * sizeof *l->mean);
  if (!failed) (l->edit->per_position ? mean_of_rows : mean_of_sums)(l, sum, width);
  free(sum);
  return failed;
}

/* ---- features ---- */

/* A rank-1 edit does where a feature depends on itself alone, at the point it is read from. */
static bool is_rank_one(const struct resolved_edit *edit) {
  const struct dict_info *info = dict_info(edit->dict);
  return edit->op != LAB_EDIT_SPLICE && edit->include_error && dict_has_encoder_row(edit->dict) && info->d_in == info->d_out &&
         point_index(info->in) == point_index(info->out) && info->in_column == info->out_column;
}

/* A neuron is a column of its point: a constant, or a factor, and nothing of the others. */
static int lower_neurons(const struct resolved_edit *edit, float value, struct edit *e, struct edit_list *list, struct error *error) {
  for (size_t i = 0; i < edit->n_features; i++) {
    const struct edit_feature *f = &edit->features[i];
    e->kind = f->change == FEATURE_SCALE ? EDIT_ROW_SCALE : EDIT_ROW_FILL;
    e->value = edit->op == LAB_EDIT_MEAN && i + 1 == edit->n_features ? value : f->value;
    e->column_begin = f->index;
    e->column_end = f->index + 1;
    if (edit_list_add(list, e, error) != 0) return -1;
  }
  return 0;
}

static int lower_feature(const struct resolved_edit *edit, float value, struct edit *e, struct edit_list *list,
                         struct error *error) {
  const struct dict_info *info = dict_info(edit->dict);
  struct edit_feature *features = NULL;
  float *v = NULL, *enc = NULL;
  int failed = 0;
  if (is_rank_one(edit)) {
    v = malloc((size_t)info->d_out * sizeof *v);
    enc = malloc((size_t)info->d_in * sizeof *enc);
    if (!v || !enc) failed = error_memory(error, (size_t)(info->d_in + info->d_out) * sizeof *v);
    if (!failed) dict_decoder_row(edit->dict, edit->index, v);
    struct dict_encoder row = {0, 0, 0};
    if (!failed) row = dict_encoder_row(edit->dict, edit->index, enc);
    e->kind = edit->op == LAB_EDIT_SCALE ? EDIT_ROW_FEATURE_SCALE : EDIT_ROW_FEATURE_SET;
    e->value = value;
    e->column_begin = (int32_t)info->out_column;
    e->column_end = (int32_t)(info->out_column + info->d_out);
    e->v = v;
    e->enc = enc;
    e->bias = row.bias;
    e->threshold = row.threshold;
    e->fold = row.fold;
  } else {
    features = malloc((edit->n_features + 1) * sizeof *features);
    if (!features) failed = error_memory(error, edit->n_features * sizeof *features);
    for (size_t i = 0; !failed && i < edit->n_features; i++) features[i] = edit->features[i];
    if (!failed && edit->op == LAB_EDIT_MEAN) features[edit->n_features - 1].value = value;
    e->dict = edit->dict;
    e->with_error = edit->include_error;
    e->n_targets = edit->n_targets;
    e->features = features;
    e->n_features = (int32_t)edit->n_features;
  }
  if (!failed) failed = edit_list_add(list, e, error);
  free(features);
  free(v);
  free(enc);
  return failed;
}

/* ---- columns ---- */

/* The row that belongs to position i, the k-th of those that take part; from where `columns` begin. */
static const float *row_for(const struct lowering *l, size_t i, size_t k, const struct columns *columns, size_t offset) {
  const struct resolved_edit *edit = l->edit;
  if (edit->op == LAB_EDIT_MEAN) return l->mean + i * (size_t)edit_width(l->plan, edit, l->ids->n) + columns->from;
  if (edit->rows) return edit->rows + k * edit->row_width + offset;
  const struct edit_need *need = l->plan->needs + edit->first_need;
  size_t from = edit->n_from_positions ? (size_t)edit_place(edit->from_positions[k], edit->from.n) : i;
  return need->rows + from * (size_t)need->width + columns->from;
}

/* [selected][width of the columns], for the positions of the mask in their order. */
static int take_rows(const struct lowering *l, const struct columns *columns, size_t offset, float **out, struct error *error) {
  size_t width = (size_t)(columns->end - columns->begin), k = 0;
  *out = malloc(l->selected * width * sizeof **out + 1);
  if (!*out) return error_memory(error, l->selected * width * sizeof **out);
  for (size_t i = 0; i < l->places; i++) {
    if (!l->mask[i]) continue;
    memcpy(*out + k * width, row_for(l, i, k, columns, offset), width * sizeof **out);
    k++;
  }
  return 0;
}

static int take_constant(const struct lowering *l, const struct columns *columns, float **out, struct error *error) {
  size_t width = (size_t)(columns->end - columns->begin);
  *out = malloc(width * sizeof **out);
  if (!*out) return error_memory(error, width * sizeof **out);
  for (size_t i = 0; i < width; i++) (*out)[i] = l->edit->value;
  return 0;
}

/* One run of columns; offset: numbers of the client's vector that belong to earlier ones. */
static int lower_columns(const struct lowering *l, const struct columns *columns, size_t offset, struct edit *e,
                         struct error *error) {
  const struct resolved_edit *edit = l->edit;
  float *own = NULL;
  int failed = 0;
  e->column_begin = columns->begin;
  e->column_end = columns->end;
  e->v = edit->v ? edit->v + offset : edit->op == LAB_EDIT_MEAN ? l->mean + columns->begin : NULL;
  if (edit_has_rows(edit))
    failed = take_rows(l, columns, offset, &own, error);
  else if (edit->op == LAB_EDIT_ADD && edit->uniform)
    failed = take_constant(l, columns, &own, error);
  if (own) e->v = own;
  if (!failed) failed = edit_list_add(l->list, e, error);
  free(own);
  return failed;
}

static int lower_all_columns(const struct lowering *l, struct edit *e, struct error *error) {
  const struct resolved_edit *edit = l->edit;
  struct columns *columns;
  size_t n, offset = 0, from = edit->has_from ? edit->from.n : l->ids->n;
  if (edit_columns(l->plan, edit, l->ids->n, from, &columns, &n, error) != 0) return -1;
  int failed = 0;
  for (size_t c = 0; !failed && c < n; c++) {
    failed = lower_columns(l, &columns[c], offset, e, error);
    offset += (size_t)(columns[c].end - columns[c].begin);
  }
  free(columns);
  return failed;
}

/* ---- edits ---- */

static bool is_direction(const struct resolved_edit *edit) {
  return edit->op == LAB_EDIT_ADD || edit->op == LAB_EDIT_PROJECT || edit->op == LAB_EDIT_CAP;
}

static float scalar_of(const struct resolved_edit *edit) {
  if (edit->op == LAB_EDIT_KNOCKOUT) return -INFINITY;
  if (is_direction(edit)) return edit->strength;
  return edit->op == LAB_EDIT_SCALE || (edit->op == LAB_EDIT_SET && edit->uniform) ? edit->value : 0;
}

/* What a feature is set to, or multiplied with. */
static float feature_value(const struct lowering *l) {
  if (l->edit->op == LAB_EDIT_MEAN && !l->edit->known) return l->mean[0] + l->edit->value;
  return l->edit->op == LAB_EDIT_ABLATE ? 0 : l->edit->value;
}

static bool goes_on(const struct lowering *l) {
  if (edit_has_rows(l->edit)) return l->places > l->ids->n;
  return l->edit->where == LAB_EVERYWHERE || l->edit->where == LAB_GENERATED;
}

static int lower_one(struct lowering *l, struct error *error) {
  const struct resolved_edit *edit = l->edit;
  bool prompt = false, generated = goes_on(l);
  l->selected = edit_select(l->plan, edit, l->ids, l->mask);
  for (size_t i = 0; i < l->ids->n; i++) prompt |= l->mask[i];
  if (!prompt && !generated) return 0;
  if (take_mean(l, error) != 0) return -1;
  struct edit e = {.point = edit->point, .kind = edit_kind_of(edit), .column_end = (int32_t)edit->width, .value = scalar_of(edit),
                   .prompt = prompt, .generated = generated, .mask = l->mask, .n_mask = (int32_t)l->places};
  bool neurons = edit->dict && dict_info(edit->dict)->kind == DICT_NEURONS;
  if (neurons && !is_direction(edit)) return lower_neurons(edit, feature_value(l), &e, l->list, error);
  if (edit->dict && !is_direction(edit)) return lower_feature(edit, feature_value(l), &e, l->list, error);
  if (!is_direction(edit) || edit->square) return lower_all_columns(l, &e, error);
  if (neurons) {
    e.column_begin = (int32_t)edit->index;
    e.column_end = e.column_begin + 1;
    e.v = edit->v;
    return edit_list_add(l->list, &e, error);
  }
  for (int32_t t = 0; t < edit->n_targets; t++) {
    if (edit->dict) e.point = dict_target(edit->dict, t);
    e.v = edit->v + t * edit->width;
    if (edit_list_add(l->list, &e, error) != 0) return -1;
  }
  return 0;
}

int edits_append(const struct edits_plan *plan, size_t text, const struct lab_ids *ids, struct edit_list *list,
                 struct error *error) {
  int failed = 0;
  for (size_t e = 0; !failed && e < plan->n_edits; e++) {
    struct lowering l = {.plan = plan, .edit = &plan->edits[e], .text = text, .ids = ids, .list = list,
                         .places = edit_places(plan, &plan->edits[e], ids->n)};
    l.mask = malloc(l.places);
    failed = l.mask ? lower_one(&l, error) : error_memory(error, l.places);
    free(l.mean);
    free(l.mask);
  }
  return failed;
}

int edits_lower(const struct edits_plan *plan, size_t text, const struct lab_ids *ids, struct edit_list **out,
                struct error *error) {
  *out = NULL;
  if (!plan || !plan->n_edits) return 0;
  struct edit_list *list = edit_list_new(error);
  int failed = list ? edits_append(plan, text, ids, list, error) : -1;
  if (failed || !edit_list_count(list)) {
    edit_list_free(list, plan->opened->model->backend);
    list = NULL;
  }
  *out = list;
  return failed;
}
