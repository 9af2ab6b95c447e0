/* edits_needs.c: the runs that must come before edited ones, and what is kept of them: rows that are put in elsewhere, sums
 * for means. Edits that take something from the same text share its run. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/edits_int.h"

/* At most so many bytes of one edit: the rows or sums of the runs that it needs, and its vectors for each text. */
static double edit_bytes(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *texts,
                         size_t n_texts) {
  bool rows = edit_has_rows(edit), listed = edit->where == LAB_LISTED, mean = edit->op == LAB_EDIT_MEAN && !edit->known;
  double bytes = 0, sum = (double)edit_width(plan, edit, 1) * sizeof(double);
  if (edit->has_from)
    bytes += rows ? (double)edit->from.n * (double)edit_width(plan, edit, edit->from.n) * sizeof(float) : sum;
  for (size_t i = 0; i < edit->n_texts; i++)
    bytes += rows ? (double)edit->texts[i].n * (double)edit_width(plan, edit, edit->texts[i].n) * sizeof(float) : sum;
  for (size_t t = 0; t < n_texts; t++) {
    double width = (double)edit_width(plan, edit, texts[t].n), places = (double)edit_places(plan, edit, texts[t].n);
    double n = !rows ? edit->n_targets : listed && (double)edit->n_positions < places ? (double)edit->n_positions : places;
    bytes += n * width * sizeof(float) + (double)edit->n_features * sizeof(struct edit_feature);
    if (edit->dict) bytes += places;
    if (mean && !edit->has_from && !edit->n_texts) bytes += edit->per_position ? n * width * sizeof(float) : sum;
  }
  return bytes;
}

static int check_room(const struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, struct error *error) {
  double bytes = plan->bytes;
  for (size_t e = 0; e < plan->n_edits; e++) {
    bytes += edit_bytes(plan, &plan->edits[e], texts, n_texts);
    if (bytes > (double)LABORATORY_MAX_BYTES)
      return error_set_field(error, ERROR_LIMIT, plan->edits[e].name, "%s: the edits up to this one take more than %" PRId64
                             " MiB over all texts; give fewer edits, positions or texts", plan->edits[e].name,
                             LABORATORY_MAX_BYTES >> 20);
  }
  return 0;
}

/* Where each position is averaged by itself over the texts of the request. */
static int check_batch(const struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, struct error *error) {
  for (size_t e = 0; e < plan->n_edits; e++)
    for (size_t t = 1; plan->edits[e].per_position && plan->edits[e].over == LAB_OVER_BATCH && t < n_texts; t++)
      if (texts[t].n != texts[0].n)
        return edit_at_fault(error, ERROR_ARGUMENT, &plan->edits[e], "perPosition", "the texts of the request differ in length; each "
                             "position by itself is averaged over texts of as many tokens");
  return 0;
}

static int check_rows(const struct edits_plan *plan, struct error *error) {
  int64_t rows = 0;
  for (size_t i = 0; i < plan->n_runs; i++) rows += (int64_t)plan->runs[i].ids.n;
  if (rows <= LABORATORY_MAX_ROWS) return 0;
  return error_set_field(error, ERROR_LIMIT, plan->edits[0].name, "%s: the runs that edits take values from compute %" PRId64
                         " token positions, at most %" PRId64 " are allowed; take shorter or fewer texts", plan->edits[0].name,
                         rows, LABORATORY_MAX_ROWS);
}

/* ---- needs ---- */

/* Tokens that the edit may touch and, of a run whose positions are named, those alone. */
static int mark_counted(const struct edits_plan *plan, struct edit_need *need, struct error *error) {
  const struct resolved_edit *edit = need->edit;
  bool listed = edit->op == LAB_EDIT_MEAN && edit->n_from_positions > 0;
  need->counted = arena_alloc(plan->arena, need->ids->n, error);
  if (!need->counted) return -1;
  memset(need->counted, !listed, need->ids->n);
  for (size_t i = 0; listed && i < edit->n_from_positions; i++) need->counted[edit_place(edit->from_positions[i], need->ids->n)] = 1;
  for (size_t i = 0; i < need->ids->n; i++) need->counted[i] = need->counted[i] && edit_may_touch(plan, edit, need->ids->ids[i]);
  return 0;
}

static int add_need(struct edits_plan *plan, struct resolved_edit *edit, const struct lab_ids *ids, struct error *error) {
  struct edit_need *need = &plan->needs[plan->n_needs++];
  bool rows = edit_has_rows(edit), feature = edit->dict && !rows;
  *need = (struct edit_need){.edit = edit, .ids = ids};
  need->point = feature ? dict_info(edit->dict)->in : edit->point;
  need->width = feature ? 1 : edit_width(plan, edit, ids->n);
  if (rows)
    need->rows = arena_array(plan->arena, ids->n * (size_t)need->width, sizeof *need->rows, error);
  else
    need->sum = arena_array(plan->arena, (size_t)need->width, sizeof *need->sum, error);
  edit->n_needs++;
  return need->rows || need->sum ? mark_counted(plan, need, error) : -1;
}

/* The texts whose runs an edit takes from. */
static const struct lab_ids *texts_of(const struct resolved_edit *edit, const struct lab_ids *texts, size_t n_texts, size_t *n) {
  *n = edit->has_from ? 1 : 0;
  if (edit->has_from) return &edit->from;
  if (edit->op != LAB_EDIT_MEAN || edit->known) return NULL;
  *n = edit->n_texts ? edit->n_texts : n_texts;
  return edit->n_texts ? edit->texts : texts;
}

/* ---- runs ---- */

static bool same_tokens(const struct lab_ids *a, const struct lab_ids *b) {
  return a->n == b->n && (a->ids == b->ids || memcmp(a->ids, b->ids, a->n * sizeof *a->ids) == 0);
}

/* Edits one after the other usually take from the same texts in the same order: the run of the edit before, at the same place,
 * is shared where it is the same text without edits, and has room for one more tap. One point's width always has room in a step,
 * so what is not wider than the widest of them has, too. */
static struct edit_run *shared_run(const struct edits_plan *plan, const struct edit_need *need, const struct edits_plan *edits,
                                   struct edit_run *before) {
  int64_t most = plan->opened->model->arch.vocabulary, width = edit_width(plan, need->edit, need->ids->n);
  if (!before || edits || before->edits || !same_tokens(&before->ids, need->ids)) return NULL;
  return before->width + width <= most ? before : NULL;
}

static int add_tap(struct edits_plan *plan, struct edit_run *run, struct edit_need *need, struct error *error) {
  if (run->n_taps == 0) {
    run->taps = arena_array(plan->arena, plan->n_edits, sizeof *run->taps, error);
    run->needs = arena_array(plan->arena, plan->n_edits, sizeof *run->needs, error);
    if (!run->taps || !run->needs) return -1;
  }
  run->taps[run->n_taps] = need->point;
  run->needs[run->n_taps++] = need;
  run->width += need->edit->dict ? dict_info(need->edit->dict)->in_width : need->width;
  return 0;
}

/* before [n]: the runs that the edit before took from; becomes those of this one. */
static int add_runs(struct edits_plan *plan, struct resolved_edit *edit, struct edit_run **before, size_t n, struct error *error) {
  for (size_t i = 0; i < n; i++) {
    struct edit_need *need = &plan->needs[edit->first_need + i];
    struct edit_run *run = shared_run(plan, need, edit->from_edits, before[i]);
    if (!run) {
      run = &plan->runs[plan->n_runs++];
      *run = (struct edit_run){.ids = *need->ids, .edits = edit->from_edits};
    }
    if (add_tap(plan, run, need, error) != 0) return -1;
    before[i] = run;
  }
  return 0;
}

static int add_all(struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, size_t most, struct error *error) {
  struct edit_run **before = arena_array(plan->arena, most, sizeof *before, error);
  if (!before) return -1;
  for (size_t e = 0; e < plan->n_edits; e++) {
    struct resolved_edit *edit = &plan->edits[e];
    size_t n;
    const struct lab_ids *from = texts_of(edit, texts, n_texts, &n);
    edit->first_need = plan->n_needs;
    edit->n_needs = 0;
    for (size_t i = 0; i < n; i++)
      if (add_need(plan, edit, &from[i], error) != 0) return -1;
    if (add_runs(plan, edit, before, n, error) != 0) return -1;
  }
  return 0;
}

int edits_needs(struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, struct error *error) {
  size_t all = 0, most = 0, n;
  for (size_t t = 0; t < n_texts; t++)
    if (edits_check_place(plan, &texts[t], error) != 0) return -1;
  if (check_batch(plan, texts, n_texts, error) != 0 || check_room(plan, texts, n_texts, error) != 0) return -1;
  for (size_t e = 0; e < plan->n_edits; e++) {
    texts_of(&plan->edits[e], texts, n_texts, &n);
    all += n;
    if (n > most) most = n;
  }
  plan->needs = arena_array(plan->arena, all, sizeof *plan->needs, error);
  plan->runs = arena_array(plan->arena, all, sizeof *plan->runs, error);
  if (!plan->needs || !plan->runs || add_all(plan, texts, n_texts, most, error) != 0) return -1;
  return check_rows(plan, error);
}

int edits_run(const struct edits_plan *plan, size_t run, struct engine_sequence *out, struct error *error) {
  const struct edit_run *r = &plan->runs[run];
  *out = (struct engine_sequence){.tokens = r->ids.ids, .n_tokens = (int32_t)r->ids.n, .taps = r->taps, .n_taps = r->n_taps,
                                  .eos = -1, .n_logprobs = -1};
  for (int i = 0; i < r->n_taps; i++)
    if (point_layers(r->taps[i]) > out->last_layer) out->last_layer = point_layers(r->taps[i]);
  return edits_lower(r->edits, 0, &r->ids, &out->edits, error);
}

/* ---- while they run ---- */

/* One feature by itself where that can be had: rows [n_rows][width] on the host. */
static int sum_one_feature(struct edit_need *need, const struct engine_tapped *tapped, const uint8_t *counts, const float *rows,
                           struct error *error) {
  float *values = malloc((size_t)tapped->n_rows * sizeof *values);
  if (!values) return error_memory(error, (size_t)tapped->n_rows * sizeof *values);
  dict_feature_values(need->edit->dict, need->edit->index, rows, (size_t)tapped->n_rows, values);
  for (int32_t i = 0; i < tapped->n_rows; i++)
    if (counts[i]) need->sum[0] += (double)values[i];
  free(values);
  return 0;
}

static int sum_features(struct edit_need *need, const struct engine_tapped *tapped, const uint8_t *counts, float *rows,
                        struct error *error) {
  struct sparse codes;
  if (dict_features_independent(need->edit->dict)) {
    size_t n = (size_t)tapped->n_rows * (size_t)tapped->width;
    if (tapped->backend->ops->read(tapped->backend, rows, tapped->rows.at, n * sizeof *rows, error) != 0) return -1;
    return sum_one_feature(need, tapped, counts, rows, error);
  }
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

int edits_tapped(const struct edits_plan *plan, size_t run, const struct engine_tapped *tapped, struct error *error) {
  struct edit_need *need = plan->runs[run].needs[tapped->tap];
  bool feature = need->edit->dict && !need->rows;
  size_t n = (size_t)tapped->n_rows;
  const uint8_t *counts = need->counted + tapped->position;
  float *rows = need->rows ? need->rows + (size_t)tapped->position * (size_t)need->width
                           : malloc(n * (size_t)tapped->width * sizeof *rows);
  int failed = rows ? 0 : error_memory(error, n * (size_t)tapped->width * sizeof *rows);
  for (size_t i = 0; !failed && i < n; i++) need->count += counts[i];
  if (!failed) failed = feature ? sum_features(need, tapped, counts, rows, error) : take_rows(need, tapped, counts, rows, error);
  if (!need->rows) free(rows);
  return failed;
}
