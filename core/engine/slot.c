/* slot.c: runs a step that holds dictionary edits. Owns how an op is taken apart around a point, and what an edit does to
 * the codes of a row. Knows no session: rows and marks are all it sees. */
#include "core/engine/slot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

int slots_open(struct slots *slots, int32_t n_points, int32_t max_rows, struct error *error) {
  slots->spliced.max_rows = max_rows;
  atomic_init(&slots->spliced.coming, NULL);
  slots->begin = calloc((size_t)n_points + 1, sizeof *slots->begin);
  return slots->begin ? 0 : error_memory(error, (size_t)n_points * sizeof *slots->begin);
}

void slots_close(struct slots *slots, struct backend *backend) {
  splices_close(&slots->spliced, backend);
  for (int32_t i = 0; i < slots->edits_capacity; i++) {
    sparse_clear(&slots->edits[i].codes);
    sparse_clear(&slots->edits[i].changed);
    free(slots->edits[i].x);
  }
  free(slots->marks);
  free(slots->edits);
  free(slots->begin);
  free(slots->rows);
  free(slots->was);
  free(slots->now);
  memset(slots, 0, sizeof *slots);
}

void slots_reset(struct slots *slots) { slots->n_marks = slots->n_edits = 0; }

/* ---- noting ---- */

static int grow_edits(struct slots *slots, struct error *error) {
  if (slots->n_edits < slots->edits_capacity) return 0;
  int32_t capacity = slots->edits_capacity ? 2 * slots->edits_capacity : 8;
  struct slot_edit *edits = realloc(slots->edits, (size_t)capacity * sizeof *edits);
  if (!edits) return error_memory(error, (size_t)capacity * sizeof *edits);
  memset(edits + slots->edits_capacity, 0, (size_t)(capacity - slots->edits_capacity) * sizeof *edits);
  slots->edits = edits;
  slots->edits_capacity = capacity;
  return 0;
}

static int grow_marks(struct slots *slots, struct error *error) {
  if (slots->n_marks < slots->marks_capacity) return 0;
  int32_t capacity = slots->marks_capacity ? 2 * slots->marks_capacity : 16;
  struct slot_mark *marks = realloc(slots->marks, (size_t)capacity * sizeof *marks);
  if (!marks) return error_memory(error, (size_t)capacity * sizeof *marks);
  slots->marks = marks;
  slots->marks_capacity = capacity;
  return 0;
}

int slots_add(struct slots *slots, const struct edit_placed *placed, int32_t item, struct error *error) {
  if (placed->slot.with_error && !placed->slot.n_features) return 0;
  if (grow_marks(slots, error) != 0) return -1;
  if (placed->mark != MARK_WRITE) {
    if (grow_edits(slots, error) != 0) return -1;
    struct slot_edit *edit = &slots->edits[slots->n_edits++];
    edit->what = placed->slot;
    edit->rows = placed->item.rows;
  }
  slots->marks[slots->n_marks++] = (struct slot_mark){item, placed->mark, slots->n_edits - 1, placed->slot.target,
                                                           placed->point};
  return 0;
}

/* ---- one edit at one point ---- */

static int grow_floats(float **array, size_t *capacity, size_t floats, struct error *error) {
  if (floats <= *capacity) return 0;
  float *bigger = realloc(*array, floats * sizeof **array);
  if (!bigger) return error_memory(error, floats * sizeof **array);
  *array = bigger;
  *capacity = floats;
  return 0;
}

static int make_scratch(struct slots *slots, size_t floats, struct error *error) {
  return grow_floats(&slots->rows, &slots->capacity[0], floats, error) != 0 ||
                 grow_floats(&slots->was, &slots->capacity[1], floats, error) != 0 ||
                 grow_floats(&slots->now, &slots->capacity[2], floats, error) != 0
             ? -1
             : 0;
}

static int copy_rows(struct backend *backend, struct rows at, int32_t row, int32_t n, int64_t width, float *host, bool in,
                     struct error *error) {
  size_t bytes = (size_t)width * sizeof(float);
  for (int32_t i = 0; i < n; i++) {
    struct span span = span_at(at.at, (size_t)(row + i) * (size_t)at.ld * sizeof(float));
    float *to = host + (size_t)i * (size_t)width;
    if (in ? backend->ops->read(backend, to, span, bytes, error) : backend->ops->write(backend, span, to, bytes, error))
      return -1;
  }
  return 0;
}

/* One activation after its changes, which are features [*f, ...) with that index. */
static float change_one(const struct edit_slot *what, int32_t *f, float value) {
  int32_t index = what->features[*f].index;
  for (; *f < what->n_features && what->features[*f].index == index; (*f)++)
    value = what->features[*f].change == FEATURE_SET ? what->features[*f].value : what->features[*f].value * value;
  return value;
}

/* The activations of one row after the changes. Both are in ascending order, and so is what comes out. */
static int change_row(const struct edit_slot *what, const struct sparse *codes, size_t row, struct sparse *out,
                      struct error *error) {
  size_t e = codes->start[row], end = codes->start[row + 1];
  if (sparse_row(out, end - e + (size_t)what->n_features, error) != 0) return -1;
  for (int32_t f = 0; f < what->n_features;) {
    int32_t index = what->features[f].index;
    for (; e < end && codes->index[e] < index; e++) sparse_push(out, codes->index[e], codes->value[e]);
    bool fires = e < end && codes->index[e] == index;
    float value = change_one(what, &f, fires ? codes->value[e++] : 0);
    if (fires || value != 0) sparse_push(out, index, value);
  }
  for (; e < end; e++) sparse_push(out, codes->index[e], codes->value[e]);
  return 0;
}

static int change_codes(struct slot_edit *edit, struct error *error) {
  for (size_t row = 0; row < edit->codes.n_rows; row++)
    if (change_row(&edit->what, &edit->codes, row, &edit->changed, error) != 0) return -1;
  return 0;
}

/* Only what changed: sum over the changed features of (new - old) times its row. Nothing changed adds nothing, so that a
 * splice with the error term keeps every bit. h: the columns that the dictionary writes. */
static void add_changes(const struct edit_slot *what, const struct sparse *was, const struct sparse *now, size_t row,
                        int32_t target, float *direction, float *h, int64_t width) {
  for (int32_t f = 0; f < what->n_features; f++) {
    int32_t index = what->features[f].index;
    if (f && what->features[f - 1].index == index) continue;
    float step = sparse_find(now, row, index) - sparse_find(was, row, index);
    if (step == 0) continue;
    dict_target_row(what->dict, index, target, direction);
    for (int64_t i = 0; i < width; i++) h[i] += step * direction[i];
  }
}

/* Where a row's own norm stands between activations and reconstruction, the difference of two reconstructions: the same
 * bits twice, where nothing changed. */
static bool norms_rows(const struct dict_info *info) {
  return info->norm == DICT_NORM_LENGTH || info->norm == DICT_NORM_STANDARD;
}

static int read_codes(struct slot_edit *edit, struct backend *backend, struct rows at,
                      struct error *error) {
  const struct dict_info *info = dict_info(edit->what.dict);
  int32_t n = edit->rows.end - edit->rows.begin;
  struct rows x = {span_at(at.at, (size_t)edit->rows.begin * (size_t)at.ld * sizeof(float)), at.ld};
  sparse_clear(&edit->codes);
  sparse_clear(&edit->changed);
  if (grow_floats(&edit->x, &edit->x_capacity, (size_t)n * (size_t)info->in_width, error) != 0 ||
      copy_rows(backend, at, edit->rows.begin, n, info->in_width, edit->x, true, error) != 0)
    return -1;
  return dict_encode(edit->what.dict, x, n, &edit->codes, error) != 0 ? -1 : change_codes(edit, error);
}

/* Across layers, without the error: the row of the edit's own layer makes way for b_dec and what is written here; to the rows of
 * others, which have made way already or will, it is added. */
static void make_cross_delta(struct slots *slots, const struct slot_edit *edit, int32_t target, size_t n) {
  const struct dict_info *info = dict_info(edit->what.dict);
  const float *bias = dict_output_bias(edit->what.dict);
  size_t width = (size_t)info->d_out, ld = (size_t)info->out_width;
  for (size_t i = 0; i < n; i++)
    for (size_t c = 0; c < width; c++)
      slots->now[i * width + c] = target ? 0 : bias[c] - slots->rows[i * ld + (size_t)info->out_column + c];
  dict_target_add(edit->what.dict, &edit->changed, 0, n, target, slots->now);
  if (target == 0) dict_skip_add(edit->what.dict, edit->x, n, slots->now);
}

/* What is added to row i of the output point, into slots->now. */
static void make_delta(struct slots *slots, struct slot_edit *edit, int32_t target, size_t n) {
  const struct dict_info *info = dict_info(edit->what.dict);
  const struct sparse *changed = &edit->changed;
  size_t width = (size_t)info->d_out;
  if (!edit->what.with_error && info->cross) {
    make_cross_delta(slots, edit, target, n);
  } else if (!edit->what.with_error) {
    dict_errors(edit->what.dict, changed, 0, n, edit->x, slots->rows, slots->now);
    for (size_t i = 0; i < n * width; i++) slots->now[i] = -slots->now[i];
  } else if (norms_rows(info)) {
    dict_decode(edit->what.dict, changed, 0, n, edit->x, slots->now);
    dict_decode(edit->what.dict, &edit->codes, 0, n, edit->x, slots->was);
    for (size_t i = 0; i < n * width; i++) slots->now[i] -= slots->was[i];
  } else {
    memset(slots->now, 0, n * width * sizeof *slots->now);
    for (size_t i = 0; i < n; i++)
      add_changes(&edit->what, &edit->codes, changed, i, target, slots->was, slots->now + i * width, info->d_out);
  }
}

static int write_rows(struct slots *slots, struct slot_edit *edit, int32_t target, struct backend *backend, struct rows at,
                      struct error *error) {
  const struct dict_info *info = dict_info(edit->what.dict);
  size_t n = (size_t)(edit->rows.end - edit->rows.begin), width = (size_t)info->out_width, d_out = (size_t)info->d_out;
  int failed = make_scratch(slots, n * width, error);
  if (!failed) failed = copy_rows(backend, at, edit->rows.begin, (int32_t)n, info->out_width, slots->rows, true, error);
  if (!failed) make_delta(slots, edit, target, n);
  for (size_t i = 0; !failed && i < n; i++)
    for (size_t c = 0; c < d_out; c++) slots->rows[i * width + (size_t)info->out_column + c] += slots->now[i * d_out + c];
  if (!failed) failed = copy_rows(backend, at, edit->rows.begin, (int32_t)n, info->out_width, slots->rows, false, error);
  return failed;
}

int slots_run_mark(struct slots *slots, const struct slot_mark *mark, struct backend *backend, struct rows at, struct error *error) {
  struct slot_edit *edit = &slots->edits[mark->edit];
  if (mark->mark != MARK_WRITE && read_codes(edit, backend, at, error) != 0) return -1;
  return mark->mark == MARK_READ ? 0 : write_rows(slots, edit, mark->target, backend, at, error);
}

/* ---- walking the ops ---- */

struct walk {
  struct slots *slots;
  struct plan *plan;
  struct backend *backend;
  const struct step *step;
  const struct op *pending; /* ops that wait to be run as they are */
  size_t n_pending;
};

static int flush(struct walk *walk, struct error *error) {
  size_t n = walk->n_pending;
  walk->n_pending = 0;
  return n ? walk->backend->ops->run(walk->backend, walk->pending, n, walk->step, error) : 0;
}

/* Runs one op that the plan does not have, with or without the step's edits and taps. */
static int run_alone(struct walk *walk, const struct op *op, bool bare, struct error *error) {
  struct step step = *walk->step;
  if (flush(walk, error) != 0) return -1;
  if (bare) step.edit_begin = step.tap_begin = NULL;
  return walk->backend->ops->run(walk->backend, op, 1, &step, error);
}

/* Edits [begin, end) of the step at one point, or its taps, and nothing else. */
static int run_items(struct walk *walk, const struct op *op, int32_t begin, int32_t end, bool taps, struct error *error) {
  int32_t points = point_count(walk->step->n_layer);
  int32_t point = point_index((struct point){op->layer, op->u.point.site});
  struct step step = *walk->step;
  if (begin == end) return 0;
  for (int32_t p = 0; p <= points; p++) walk->slots->begin[p] = p <= point ? begin : end;
  step.edit_begin = taps ? NULL : walk->slots->begin;
  step.tap_begin = taps ? walk->slots->begin : NULL;
  return walk->backend->ops->run(walk->backend, op, 1, &step, error);
}

static const struct slot_mark *mark_of(const struct slots *slots, int32_t item) {
  for (int32_t i = 0; i < slots->n_marks; i++)
    if (slots->marks[i].item == item) return &slots->marks[i];
  return NULL;
}

/* All of one point: plain edits and dictionary edits in their order, then the taps. */
static int run_point(struct walk *walk, const struct op *like, enum site site, struct rows at, struct error *error) {
  struct op op = {.code = OP_POINT, .set = like->set, .layer = like->layer, .width = like->width};
  op.u.point.x = at;
  op.u.point.site = site;
  int32_t point = point_index((struct point){op.layer, site}), from = walk->step->edit_begin[point], i;
  if (flush(walk, error) != 0) return -1;
  for (i = from; i < walk->step->edit_begin[point + 1]; i++) {
    const struct slot_mark *mark = mark_of(walk->slots, i);
    if (!mark) continue;
    if (run_items(walk, &op, from, i, false, error) != 0 || slots_run_mark(walk->slots, mark, walk->backend, at, error) != 0)
      return -1;
    from = i + 1;
  }
  if (run_items(walk, &op, from, i, false, error) != 0) return -1;
  if (!walk->step->tap_begin) return 0;
  return run_items(walk, &op, walk->step->tap_begin[point], walk->step->tap_begin[point + 1], true, error);
}

static bool has_mark(const struct walk *walk, int layer, enum site site) {
  int32_t point = point_index((struct point){layer, site});
  for (int32_t i = 0; i < walk->slots->n_marks; i++) {
    int32_t item = walk->slots->marks[i].item;
    if (walk->step->edit_begin[point] <= item && item < walk->step->edit_begin[point + 1]) return true;
  }
  return false;
}

/* The one point that an op ends with, and its buffer; false for ops without a point and for sublayers. */
static bool ends_with_point(const struct op *op, enum site *site, struct rows *at) {
  switch (op->code) {
    case OP_BEGIN: *site = SITE_RESID_PRE, *at = op->u.begin.to; return true;
    case OP_ATTEND: *site = SITE_ATTN_Z, *at = op->u.attend.z; return !op->u.attend.bare;
    case OP_POINT: *site = op->u.point.site, *at = op->u.point.x; return true;
    default: return false;
  }
}

/* 0 says that a sublayer has no point there (the residual in the middle of a parallel block). Elsewhere 0 is hook_embed. */
static bool sublayer_has_mark(const struct walk *walk, const struct op *op) {
  const enum site sites[] = {op->u.sublayer.out_site, op->u.sublayer.resid_site};
  return (sites[0] && has_mark(walk, op->layer, sites[0])) || (sites[1] && has_mark(walk, op->layer, sites[1]));
}

static int run_sublayer_point(struct walk *walk, const struct op *op, enum site site, struct rows at, struct error *error) {
  return site ? run_point(walk, op, site, at, error) : 0;
}

/* out's point, the sum, the residual's point, the norm: each by itself. */
static int run_sublayer(struct walk *walk, const struct op *op, struct error *error) {
  struct op sum = *op, norm = {.code = OP_NORM, .set = op->set, .layer = op->layer, .width = op->width};
  sum.u.sublayer.norm.kind = NORM_NONE;
  norm.u.norm.x = op->u.sublayer.resid;
  norm.u.norm.y = op->u.sublayer.y;
  norm.u.norm.norm = op->u.sublayer.norm;
  if (run_sublayer_point(walk, op, op->u.sublayer.out_site, op->u.sublayer.out, error) != 0 ||
      run_alone(walk, &sum, true, error) != 0 ||
      run_sublayer_point(walk, op, op->u.sublayer.resid_site, op->u.sublayer.resid, error) != 0)
    return -1;
  return norm.u.norm.norm.kind == NORM_NONE ? 0 : run_alone(walk, &norm, true, error);
}

static int run_op(struct walk *walk, const struct op *op, struct error *error) {
  enum site site;
  struct rows at;
  if (op->code == OP_SUBLAYER && sublayer_has_mark(walk, op))
    return run_sublayer(walk, op, error);
  if (ends_with_point(op, &site, &at) && has_mark(walk, op->layer, site)) {
    if (op->code != OP_POINT && run_alone(walk, op, true, error) != 0) return -1;
    return run_point(walk, op, site, at, error);
  }
  if (!walk->n_pending) walk->pending = op;
  walk->n_pending++;
  return 0;
}

int slots_run(struct slots *slots, struct plan *plan, const struct step *step, struct error *error) {
  struct walk walk = {.slots = slots, .plan = plan, .backend = plan_backend(plan), .step = step};
  const struct op *ops;
  size_t count;
  if (step->n_rows == 0) return 0;
  int spliced = splices_run(slots, plan, step, error);
  if (spliced) return spliced < 0 ? -1 : 0;
  if (plan_ops(plan, step, &ops, &count, error) != 0) return -1;
  for (size_t i = 0; i < count; i++)
    if (run_op(&walk, &ops[i], error) != 0) return -1;
  return flush(&walk, error);
}
