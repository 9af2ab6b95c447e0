/* lab_edits_lower.c: resolved edits over given tokens: which positions take part, which runs must come first, and the list
 * that the engine gets. Knows no names any more. */
#include "core/lab_edits_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/point_shape.h"

/* ---- positions ---- */

static int refuse_position(const struct resolved_edit *edit, const char *field, int64_t position, size_t n,
                           struct error *error) {
  char text[128];
  snprintf(text, sizeof text, "position %" PRId64 " is not there, the text has tokens 0 to %zu (-1 is the last)", position,
           n - 1);
  return edit_at_fault(error, ERROR_ARGUMENT, edit, field, text);
}

/* A position counted from either end; -1 when it is outside. */
static int64_t place(int64_t position, size_t n) {
  int64_t at = position < 0 ? position + (int64_t)n : position;
  return at >= 0 && at < (int64_t)n ? at : -1;
}

static bool may_touch(const struct edits_plan *plan, const struct resolved_edit *edit, int32_t id) {
  return edit->special || !tokenizer_is_special(plan->opened->model->tokenizer, id);
}

/* mask [n] of prompt positions that take part; returns how many. */
static size_t select_positions(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                               uint8_t *mask) {
  size_t count = 0;
  memset(mask, edit->where == LAB_EVERYWHERE || edit->where == LAB_PROMPT, ids->n);
  for (size_t i = 0; edit->where == LAB_LISTED && i < edit->n_positions; i++)
    if (place(edit->positions[i], ids->n) >= 0) mask[place(edit->positions[i], ids->n)] = 1;
  for (size_t i = 0; i < ids->n; i++) count += mask[i] = mask[i] && may_touch(plan, edit, ids->ids[i]);
  return count;
}

static int check_patch(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                       struct error *error) {
  char text[160];
  uint8_t *mask = arena_alloc(plan->arena, ids->n, error);
  if (!mask) return -1;
  size_t n = select_positions(plan, edit, ids, mask);
  if (edit->rows && edit->n_rows != n) {
    snprintf(text, sizeof text, "%zu rows for %zu selected positions", edit->n_rows, n);
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "rows", text);
  }
  if (edit->n_from_positions && edit->n_from_positions != n) {
    snprintf(text, sizeof text, "%zu positions to take from for %zu selected ones", edit->n_from_positions, n);
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "from.positions", text);
  }
  for (size_t i = 0; i < edit->n_from_positions; i++)
    if (place(edit->from_positions[i], edit->from.n) < 0)
      return refuse_position(edit, "from.positions", edit->from_positions[i], edit->from.n, error);
  for (size_t i = 0; edit->has_from && !edit->n_from_positions && i < ids->n; i++)
    if (mask[i] && i >= edit->from.n) {
      snprintf(text, sizeof text, "position %zu is patched, but the run it is taken from has only %zu tokens; say "
               "from.positions", i, edit->from.n);
      return edit_at_fault(error, ERROR_ARGUMENT, edit, "from", text);
    }
  return 0;
}

static int check_positions(const struct edits_plan *plan, const struct lab_ids *ids, struct error *error) {
  for (size_t e = 0; e < plan->n_edits; e++) {
    const struct resolved_edit *edit = &plan->edits[e];
    for (size_t i = 0; i < edit->n_positions; i++)
      if (place(edit->positions[i], ids->n) < 0) return refuse_position(edit, "positions", edit->positions[i], ids->n, error);
    if (edit->op == LAB_EDIT_PATCH && check_patch(plan, edit, ids, error) != 0) return -1;
  }
  return 0;
}

/* ---- needs ---- */

static enum edit_kind kind_of(enum lab_edit_op op) {
  switch (op) {
    case LAB_EDIT_ADD: return EDIT_ROW_ADD;
    case LAB_EDIT_PROJECT: return EDIT_ROW_PROJECT;
    case LAB_EDIT_CAP: return EDIT_ROW_CAP;
    case LAB_EDIT_SCALE: return EDIT_ROW_SCALE;
    case LAB_EDIT_ZERO: return EDIT_ROW_FILL;
    case LAB_EDIT_PATCH: return EDIT_ROW_REPLACE;
    default: return EDIT_ROW_COPY; /* SET and MEAN */
  }
}

static int add_need(struct edits_plan *plan, struct resolved_edit *edit, const struct lab_ids *ids, struct error *error) {
  struct edit_need *need = &plan->needs[plan->n_needs++];
  bool patch = edit->op == LAB_EDIT_PATCH, feature = edit->dict && !patch;
  need->edit = edit;
  need->ids = *ids;
  need->edits = edit->from_edits;
  need->owner = plan;
  need->point = feature ? dict_info(edit->dict)->in : edit->point;
  need->width = feature ? 1 : edit->width;
  if (patch)
    need->rows = arena_array(plan->arena, ids->n * (size_t)edit->width, sizeof *need->rows, error);
  else
    need->sum = arena_array(plan->arena, (size_t)need->width, sizeof *need->sum, error);
  edit->n_needs++;
  return need->rows || need->sum ? 0 : -1;
}

/* At most so many bytes of one edit: the rows or sums of the runs that it needs, and its vectors for each text. */
static double edit_bytes(const struct resolved_edit *edit, const struct lab_ids *texts, size_t n_texts) {
  bool patch = edit->op == LAB_EDIT_PATCH, listed = edit->where == LAB_LISTED;
  double width = (double)edit->width, bytes = 0;
  if (edit->has_from) bytes += patch ? (double)edit->from.n * width * sizeof(float) : width * sizeof(double);
  for (size_t t = 0; t < n_texts; t++) {
    double rows = !patch ? 1 : (double)(listed && edit->n_positions < texts[t].n ? edit->n_positions : texts[t].n);
    bytes += rows * width * sizeof(float) + (double)texts[t].n + (double)edit->n_features * sizeof(struct edit_feature);
    if (edit->op == LAB_EDIT_MEAN && !edit->has_from) bytes += width * sizeof(double);
  }
  return bytes;
}

static int check_room(const struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, struct error *error) {
  double bytes = 0;
  for (size_t e = 0; e < plan->n_edits; e++) {
    bytes += edit_bytes(&plan->edits[e], texts, n_texts);
    if (bytes > (double)LABORATORY_MAX_BYTES)
      return error_set_field(error, ERROR_LIMIT, plan->edits[e].name, "%s: the edits up to this one take more than %" PRId64
                             " MiB over all texts; give fewer edits, positions or texts", plan->edits[e].name,
                             LABORATORY_MAX_BYTES >> 20);
  }
  return 0;
}

/* What can be edited at the point, and in which columns. */
static int check_columns(const struct edits_plan *plan, const struct resolved_edit *edit, struct error *error) {
  struct error inner = ERROR_INIT;
  if (edit->dict || point_check_edit(&plan->opened->model->arch, edit->point, kind_of(edit->op), edit->columns[0].begin,
                                     edit->columns[edit->n_columns - 1].end, 0, &inner) == 0)
    return 0;
  return edit_at_fault(error, inner.code, edit, "point", inner.text);
}

static int check_rows(const struct edits_plan *plan, struct error *error) {
  int64_t rows = 0;
  for (size_t i = 0; i < plan->n_needs; i++) rows += (int64_t)plan->needs[i].ids.n;
  if (rows <= LABORATORY_MAX_ROWS) return 0;
  return error_set_field(error, ERROR_LIMIT, plan->edits[0].name, "%s: the runs that edits take values from compute %" PRId64
                         " token positions, at most %" PRId64 " are allowed; take shorter or fewer texts", plan->edits[0].name,
                         rows, LABORATORY_MAX_ROWS);
}

int edits_needs(struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, struct error *error) {
  for (size_t e = 0; e < plan->n_edits; e++)
    if (check_columns(plan, &plan->edits[e], error) != 0) return -1;
  for (size_t t = 0; t < n_texts; t++)
    if (check_positions(plan, &texts[t], error) != 0) return -1;
  if (check_room(plan, texts, n_texts, error) != 0) return -1;
  plan->needs = arena_array(plan->arena, plan->n_edits * n_texts, sizeof *plan->needs, error);
  if (!plan->needs) return -1;
  for (size_t e = 0; e < plan->n_edits; e++) {
    struct resolved_edit *edit = &plan->edits[e];
    edit->first_need = plan->n_needs;
    edit->n_needs = 0;
    if (edit->has_from && add_need(plan, edit, &edit->from, error) != 0) return -1;
    for (size_t t = 0; edit->op == LAB_EDIT_MEAN && !edit->has_from && t < n_texts; t++)
      if (add_need(plan, edit, &texts[t], error) != 0) return -1;
  }
  return check_rows(plan, error);
}

int need_sequence(struct edit_need *need, struct engine_sequence *out, struct error *error) {
  *out = (struct engine_sequence){.tokens = need->ids.ids, .n_tokens = (int32_t)need->ids.n, .taps = &need->point, .n_taps = 1,
                                  .last_layer = point_layers(need->point), .eos = -1, .n_logprobs = -1};
  return edits_lower(need->edits, 0, &need->ids, &out->edits, error);
}

static int sum_features(struct edit_need *need, const struct engine_tapped *tapped, const uint8_t *counts,
                        struct error *error) {
  struct sparse codes;
  sparse_init(&codes);
  int failed = dict_encode(need->edit->dict, tapped->rows, tapped->n_rows, &codes, error);
  for (int32_t i = 0; !failed && i < tapped->n_rows; i++)
    if (counts[i]) need->sum[0] += (double)sparse_find(&codes, (size_t)i, (int32_t)need->edit->index);
  sparse_clear(&codes);
  return failed;
}

static int take_rows(struct edit_need *need, const struct engine_tapped *tapped, const uint8_t *counts, float *rows,
                     struct error *error) {
  size_t n = (size_t)tapped->n_rows * (size_t)tapped->width;
  if (tapped->backend->ops->read(tapped->backend, rows, tapped->rows.at, n * sizeof *rows, error) != 0) return -1;
  for (int32_t i = 0; need->sum && i < tapped->n_rows; i++)
    for (int64_t c = 0; counts[i] && c < tapped->width; c++) need->sum[c] += (double)rows[i * tapped->width + c];
  return 0;
}

int need_tapped(struct edit_need *need, const struct engine_tapped *tapped, struct error *error) {
  bool feature = need->edit->dict && !need->rows;
  size_t n = (size_t)tapped->n_rows;
  uint8_t *counts = malloc(n);
  float *rows = need->rows ? need->rows + (size_t)tapped->position * (size_t)need->width
                           : malloc(n * (size_t)tapped->width * sizeof *rows);
  int failed = counts && rows ? 0 : error_memory(error, n * (size_t)tapped->width * sizeof *rows);
  for (size_t i = 0; !failed && i < n; i++) {
    counts[i] = may_touch(need->owner, need->edit, need->ids.ids[(size_t)tapped->position + i]);
    need->count += counts[i];
  }
  if (!failed) failed = feature ? sum_features(need, tapped, counts, error) : take_rows(need, tapped, counts, rows, error);
  if (!need->rows) free(rows);
  free(counts);
  return failed;
}

/* ---- lowering ---- */

static void add_mean(const struct edit_need *need, double *sum, int64_t *count) {
  for (int64_t c = 0; c < need->width; c++) sum[c] += need->sum[c];
  *count += need->count;
}

/* The mean that is put in place: of the run it is taken from, of this text, or of all. */
static int mean_values(const struct edits_plan *plan, const struct resolved_edit *edit, size_t text, float *out,
                       struct error *error) {
  const struct edit_need *needs = plan->needs + edit->first_need;
  int64_t width = needs[0].width, count = 0;
  double *sum = calloc((size_t)width, sizeof *sum);
  if (!sum) return error_memory(error, (size_t)width * sizeof *sum);
  bool all = edit->has_from || edit->over == LAB_OVER_BATCH;
  for (size_t i = 0; i < edit->n_needs; i++)
    if (all || i == text) add_mean(&needs[i], sum, &count);
  for (int64_t c = 0; c < width; c++) out[c] = count ? (float)(sum[c] / (double)count) : 0;
  free(sum);
  return 0;
}

/* The rows of a patch: [count][width], for the positions of the mask in their order. */
static void patch_rows(const struct edits_plan *plan, const struct resolved_edit *edit, const uint8_t *mask, size_t n,
                       const struct columns *columns, size_t offset, float *out) {
  size_t width = (size_t)(columns->end - columns->begin), k = 0;
  const struct edit_need *need = edit->has_from ? plan->needs + edit->first_need : NULL;
  for (size_t i = 0; i < n; i++) {
    if (!mask[i]) continue;
    size_t from = edit->n_from_positions ? (size_t)place(edit->from_positions[k], edit->from.n) : i;
    const float *row = need ? need->rows + from * (size_t)edit->width + columns->begin
                            : edit->rows + k * (size_t)edit_selected_width(edit) + offset;
    memcpy(out + k++ * width, row, width * sizeof *out);
  }
}

/* A rank-1 edit does where a feature depends on itself alone, at the point it is read from. */
static bool is_rank_one(const struct resolved_edit *edit) {
  const struct dict_info *info = dict_info(edit->dict);
  return edit->op != LAB_EDIT_SPLICE && edit->include_error && dict_has_encoder_row(edit->dict) && info->d_in == info->d_out &&
         point_index(info->in) == point_index(info->out) && info->in_column == info->out_column;
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
    e->features = features;
    e->n_features = (int32_t)edit->n_features;
  }
  if (!failed) failed = edit_list_add(list, e, error);
  free(features);
  free(v);
  free(enc);
  return failed;
}

static int lower_columns(const struct edits_plan *plan, const struct resolved_edit *edit, const float *mean,
                         const uint8_t *mask, size_t n, const struct columns *columns, size_t offset, struct edit *e,
                         struct edit_list *list, struct error *error) {
  float *rows = NULL;
  e->column_begin = columns->begin;
  e->column_end = columns->end;
  if (edit->op == LAB_EDIT_SET) e->v = edit->v + offset;
  if (edit->op == LAB_EDIT_MEAN) e->v = mean + columns->begin;
  if (edit->op == LAB_EDIT_PATCH) {
    size_t floats = n * (size_t)(columns->end - columns->begin);
    rows = malloc(floats * sizeof *rows + 1);
    if (!rows) return error_memory(error, floats * sizeof *rows);
    patch_rows(plan, edit, mask, n, columns, offset, rows);
    e->v = rows;
  }
  int failed = edit_list_add(list, e, error);
  free(rows);
  return failed;
}

static bool is_direction(enum lab_edit_op op) {
  return op == LAB_EDIT_ADD || op == LAB_EDIT_PROJECT || op == LAB_EDIT_CAP;
}

static int lower_one(const struct edits_plan *plan, const struct resolved_edit *edit, size_t text,
                     const struct lab_ids *ids, uint8_t *mask, float *mean, struct edit_list *list, struct error *error) {
  size_t selected = select_positions(plan, edit, ids, mask), offset = 0;
  bool generated = edit->where == LAB_EVERYWHERE || edit->where == LAB_GENERATED;
  if (edit->op == LAB_EDIT_PATCH) generated = false;
  if (!selected && !generated) return 0;
  if (edit->op == LAB_EDIT_MEAN && mean_values(plan, edit, text, mean, error) != 0) return -1;
  struct edit e = {.point = edit->point, .kind = kind_of(edit->op), .column_end = (int32_t)edit->width,
                   .prompt = selected > 0, .generated = generated, .mask = mask, .n_mask = (int32_t)ids->n};
  e.value = is_direction(edit->op) ? edit->strength : edit->op == LAB_EDIT_SCALE ? edit->value : 0;
  if (edit->dict && !is_direction(edit->op))
    return lower_feature(edit, edit->op == LAB_EDIT_MEAN ? mean[0] : edit->op == LAB_EDIT_ABLATE ? 0 : edit->value, &e, list,
                         error);
  if (is_direction(edit->op)) {
    e.v = edit->v;
    return edit_list_add(list, &e, error);
  }
  for (size_t c = 0; c < edit->n_columns; c++) {
    if (lower_columns(plan, edit, mean, mask, ids->n, &edit->columns[c], offset, &e, list, error) != 0) return -1;
    offset += (size_t)(edit->columns[c].end - edit->columns[c].begin);
  }
  return 0;
}

int edits_append(const struct edits_plan *plan, size_t text, const struct lab_ids *ids, struct edit_list *list,
                 struct error *error) {
  int64_t widest = 1;
  for (size_t e = 0; e < plan->n_edits; e++)
    if (plan->edits[e].width > widest) widest = plan->edits[e].width;
  uint8_t *mask = malloc(ids->n + 1);
  float *mean = malloc((size_t)widest * sizeof *mean);
  int failed = mask && mean ? 0 : error_memory(error, ids->n + (size_t)widest * sizeof *mean);
  for (size_t e = 0; !failed && e < plan->n_edits; e++)
    failed = lower_one(plan, &plan->edits[e], text, ids, mask, mean, list, error);
  free(mask);
  free(mean);
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
