/* splice.c: dictionary edits of a step as ops of one list, for a backend that splices: the step's own ops, taken apart around the
 * points that are spliced, and between them what the edits do. The list depends on the model, the dictionaries, the points and how
 * many rows there are, rounded up; rows and changes are tables, so that a backend can record the list and repeat it.
 *
 * Rows of one dictionary at one point go together, whichever requests they are of, where no edit between them in the point's order is
 * about the same rows. The list is run in pieces where a dictionary comes up that the backend cannot splice, or whose matrices do not
 * fit beside those of the list so far. How an edit is done depends on its dictionary alone, never on the company. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/engine/slot.h"

enum { OPS, ROWS, GROUPS, DICTS, SPLICES, SERIALS, MARK, TAKEN, MARKED }; /* of capacity */

struct making {
  struct slots *slots;
  struct spliced_step *list;
  struct backend *backend;
  const struct step *step;
  int64_t width; /* of rows that are put aside */
};

/* The array with room for so many, or as it was with *failed set. */
static void *grown(struct spliced_step *list, int which, void *array, size_t count, size_t size, int *failed, struct error *error) {
  size_t bytes = count * size, *capacity = &list->capacity[which];
  if (bytes <= *capacity) return array;
  size_t room = size_max(bytes, 2 * *capacity);
  void *bigger = realloc(array, room);
  if (!bigger) {
    *failed = error_memory(error, room);
    return array;
  }
  *capacity = room;
  return bigger;
}

void splices_close(struct spliced_step *list, struct backend *backend) {
  void *all[] = {list->ops, list->rows, list->groups, list->dicts, list->splices, list->serials, list->mark, list->taken, list->marked};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  backend->ops->free(backend, list->aside);
}

/* ---- running what there is ---- */

static int flush(struct making *m, struct error *error) {
  struct spliced_step *list = m->list;
  struct step step = *m->step;
  step.n_splice_groups = (int32_t)list->n_groups;
  step.splice_groups = list->groups;
  step.splices = list->rows;
  int failed = list->count ? m->backend->ops->run(m->backend, list->ops, list->count, &step, error) : 0;
  list->count = list->n_rows = list->n_groups = 0;
  return failed;
}

static void release(struct spliced_step *list) {
  while (list->n_dicts) dict_splice_release(list->dicts[--list->n_dicts]);
  list->held_bytes = 0;
}

/* What is let go may be dropped: nothing may work with it any more. */
static int flush_and_release(struct making *m, struct error *error) {
  if (flush(m, error) != 0 || backend_wait(m->backend, error) != 0) return -1;
  release(m->list);
  return 0;
}

/* ---- dictionaries ---- */

static size_t find_dict(const struct spliced_step *list, const struct dict *dict) {
  size_t i = 0;
  while (i < list->n_dicts && list->dicts[i] != dict) i++;
  return i;
}

static int hold(struct making *m, const struct dict *dict, struct error *error) {
  struct spliced_step *list = m->list;
  size_t n = list->n_dicts;
  int failed = 0;
  list->dicts = grown(list, DICTS, list->dicts, n + 1, sizeof *list->dicts, &failed, error);
  list->splices = grown(list, SPLICES, list->splices, n + 1, sizeof *list->splices, &failed, error);
  list->serials = grown(list, SERIALS, list->serials, n + 1, sizeof *list->serials, &failed, error);
  if (failed || dict_splice_hold(dict, &list->splices[n], &list->serials[n], error) != 0) return -1;
  list->dicts[list->n_dicts++] = dict;
  list->held_bytes += dict_splice_bytes(dict);
  return 0;
}

/* The dictionary's place among those held; it takes that of the others where there is no room beside them. */
static int hold_one(struct making *m, const struct dict *dict, size_t *place, struct error *error) {
  struct spliced_step *list = m->list;
  struct error why = ERROR_INIT;
  size_t limit = dict_splice_limit(dict);
  *place = find_dict(list, dict);
  if (*place < list->n_dicts) return 0;
  if (list->n_dicts && limit && dict_splice_bytes(dict) > limit - size_min(limit, list->held_bytes) &&
      flush_and_release(m, error) != 0)
    return -1;
  bool alone = !list->n_dicts;
  *place = list->n_dicts;
  if (hold(m, dict, &why) == 0) return 0;
  if (alone || why.code != ERROR_MEMORY) return error_set(error, why.code, "%s", why.text);
  *place = 0;
  return flush_and_release(m, error) != 0 ? -1 : hold(m, dict, error);
}

/* ---- tables ---- */

/* Which item has which mark, and rows for what is read at another point than it is written. Returns how many of these. */
static int note_marks(struct making *m, struct error *error) {
  struct spliced_step *list = m->list;
  int32_t points = point_count(m->step->n_layer), aside = 0;
  size_t items = (size_t)m->step->edit_begin[points];
  int failed = 0;
  list->mark = grown(list, MARK, list->mark, items, sizeof *list->mark, &failed, error);
  list->taken = grown(list, TAKEN, list->taken, items, sizeof *list->taken, &failed, error);
  list->marked = grown(list, MARKED, list->marked, (size_t)points, sizeof *list->marked, &failed, error);
  if (failed) return -1;
  for (size_t i = 0; i < items; i++) list->mark[i] = -1;
  memset(list->taken, 0, items * sizeof *list->taken);
  memset(list->marked, 0, (size_t)points * sizeof *list->marked);
  m->width = 0;
  for (int32_t i = 0; i < m->slots->n_marks; i++) {
    const struct slot_mark *mark = &m->slots->marks[i];
    struct slot_edit *edit = &m->slots->edits[mark->edit];
    list->mark[mark->item] = i;
    list->marked[mark->point] = true;
    if (mark->mark != MARK_READ || edit->on_host) continue;
    edit->aside = aside;
    aside += edit->rows.end - edit->rows.begin;
    if (dict_info(edit->what.dict)->d_in > m->width) m->width = dict_info(edit->what.dict)->d_in;
  }
  return aside;
}

static int make_aside(struct making *m, int32_t rows, struct error *error) {
  struct spliced_step *list = m->list;
  struct backend *backend = m->backend;
  size_t bytes = (size_t)rows * (size_t)m->width * sizeof(float);
  if (bytes <= list->aside_bytes) return 0;
  backend->ops->free(backend, list->aside);
  list->aside = NULL;
  list->aside_bytes = 0;
  if (backend->ops->alloc(backend, 2 * bytes, &list->aside, error) != 0) return -1;
  list->aside_bytes = 2 * bytes;
  return 0;
}

/* ---- ops ---- */

/* The list is compared by its bytes: what an op does not use is 0. */
static struct op *emit(struct making *m, enum op_code code, const struct op *like, struct error *error) {
  struct spliced_step *list = m->list;
  int failed = 0;
  list->ops = grown(list, OPS, list->ops, list->count + 1, sizeof *list->ops, &failed, error);
  if (failed) return NULL;
  struct op *op = &list->ops[list->count++];
  memset(op, 0, sizeof *op);
  op->code = code;
  op->set = like->set;
  op->layer = like->layer;
  op->width = like->width;
  return op;
}

static int emit_copy(struct making *m, const struct op *op, struct op **out, struct error *error) {
  if (!(*out = emit(m, op->code, op, error))) return -1;
  memcpy(*out, op, sizeof *op);
  return 0;
}

/* Edits [begin, end) of the step, all of one point, where any of them has rows; and the point's taps where asked. */
static int emit_items(struct making *m, const struct op *like, enum site site, struct rows at, int32_t begin, int32_t end, bool taps,
                      struct error *error) {
  int32_t point = point_index((struct point){like->layer, site});
  bool any = taps && m->step->tap_begin && m->step->tap_begin[point] < m->step->tap_begin[point + 1];
  for (int32_t i = begin; i < end && !any; i++) any = m->step->edits[i].rows.begin < m->step->edits[i].rows.end;
  if (!any) return 0;
  struct op *op = emit(m, OP_POINT, like, error);
  if (!op) return -1;
  op->u.point.x = at;
  op->u.point.site = site;
  op->u.point.part = true;
  op->u.point.taps = taps;
  op->u.point.first = begin - m->step->edit_begin[point];
  op->u.point.last = end - m->step->edit_begin[point];
  return 0;
}

static int32_t rounded_up(int32_t rows) {
  int32_t power = 1;
  if (rows > 64) return (rows + 63) / 64 * 64;
  while (power < rows) power *= 2;
  return power;
}

/* ---- groups ---- */

static const struct slot_edit *edit_of(const struct making *m, int32_t item) {
  return &m->slots->edits[m->slots->marks[m->list->mark[item]].edit];
}

static bool overlap(struct row_range a, struct row_range b) { return a.begin < b.end && b.begin < a.end; }

/* Whether item i may be done when item `first` is: the same at the same point, and nothing between them is about its rows. */
static bool goes_together(const struct making *m, int32_t first, int32_t i) {
  const struct slot_mark *one = &m->slots->marks[m->list->mark[first]], *other = &m->slots->marks[m->list->mark[i]];
  struct row_range rows = edit_of(m, i)->rows;
  if (one->mark != other->mark || edit_of(m, first)->what.dict != edit_of(m, i)->what.dict) return false;
  for (int32_t k = first; k < i; k++)
    if (overlap(rows, m->list->mark[k] < 0 ? m->step->edits[k].rows : edit_of(m, k)->rows)) return false;
  return true;
}

static int add_rows(struct making *m, int32_t item, struct error *error) {
  struct spliced_step *list = m->list;
  const struct slot_edit *edit = edit_of(m, item);
  enum edit_mark mark = m->slots->marks[list->mark[item]].mark;
  int32_t n = edit->rows.end - edit->rows.begin;
  int failed = 0;
  list->rows = grown(list, ROWS, list->rows, list->n_rows + (size_t)n, sizeof *list->rows, &failed, error);
  if (failed) return -1;
  for (int32_t i = 0; i < n; i++) {
    int32_t row = edit->rows.begin + i;
    list->rows[list->n_rows++] = (struct splice_row){mark == MARK_WRITE ? edit->aside + i : row,
                                                     mark == MARK_READ ? edit->aside + i : row, edit->what.with_error,
                                                     edit->what.n_features, edit->what.features};
  }
  list->taken[item] = true;
  return 0;
}

static struct rows columns_of(struct rows at, int64_t column) {
  at.at = span_at(at.at, (size_t)column * sizeof(float));
  return at;
}

static int emit_group(struct making *m, const struct op *like, const struct slot_mark *mark, struct rows at, int32_t rows,
                      size_t held, struct error *error) {
  struct spliced_step *list = m->list;
  const struct dict_info *info = dict_info(m->slots->edits[mark->edit].what.dict);
  struct rows aside = {{list->aside, 0}, m->width};
  bool reads = mark->mark == MARK_READ;
  struct op *op = emit(m, reads ? OP_HOLD : OP_SPLICE, like, error);
  if (!op) return -1;
  op->width = info->d_in;
  op->u.splice.x = mark->mark == MARK_WRITE ? aside : columns_of(at, info->in_column);
  op->u.splice.y = reads ? aside : columns_of(at, info->out_column);
  op->u.splice.group = (int32_t)list->n_groups - 1;
  op->u.splice.rows = rounded_up(rows);
  if (reads) return 0;
  op->u.splice.what = list->splices[held];
  op->u.splice.serial = list->serials[held];
  return 0;
}

/* Item `first`, and all before `end` that can go with it. */
static int make_group(struct making *m, const struct op *like, int32_t first, int32_t end, struct rows at, struct error *error) {
  struct spliced_step *list = m->list;
  const struct slot_mark *mark = &m->slots->marks[list->mark[first]];
  size_t held = 0;
  int failed = 0;
  if (mark->mark != MARK_READ && hold_one(m, m->slots->edits[mark->edit].what.dict, &held, error) != 0) return -1;
  int32_t begin = (int32_t)list->n_rows;
  list->groups = grown(list, GROUPS, list->groups, list->n_groups + 1, sizeof *list->groups, &failed, error);
  if (failed || add_rows(m, first, error) != 0) return -1;
  for (int32_t i = first + 1; i < end; i++)
    if (list->mark[i] >= 0 && !list->taken[i] && goes_together(m, first, i) && add_rows(m, i, error) != 0) return -1;
  list->groups[list->n_groups++] = (struct row_range){begin, (int32_t)list->n_rows};
  return emit_group(m, like, mark, at, (int32_t)list->n_rows - begin, held, error);
}

static int make_mark(struct making *m, const struct op *like, int32_t item, int32_t end, struct rows at, struct error *error) {
  if (!edit_of(m, item)->on_host) return make_group(m, like, item, end, at, error);
  if (flush(m, error) != 0) return -1;
  return slots_run_mark(m->slots, &m->slots->marks[m->list->mark[item]], m->backend, at, error);
}

/* All of one point: plain edits and dictionary edits in their order, then the taps. */
static int make_point(struct making *m, const struct op *like, enum site site, struct rows at, struct error *error) {
  int32_t point = point_index((struct point){like->layer, site}), from = m->step->edit_begin[point];
  int32_t end = m->step->edit_begin[point + 1];
  for (int32_t i = from; i < end; i++) {
    if (m->list->mark[i] < 0 || m->list->taken[i]) continue;
    if (emit_items(m, like, site, at, from, i, false, error) != 0 || make_mark(m, like, i, end, at, error) != 0) return -1;
    from = i + 1;
  }
  return emit_items(m, like, site, at, from, end, true, error);
}

/* ---- the list ---- */

static bool is_marked(const struct making *m, int layer, enum site site) {
  return m->list->marked[point_index((struct point){layer, site})];
}

/* 0 says that a sublayer has no point there. */
static int make_sublayer_point(struct making *m, const struct op *op, enum site site, struct rows at, struct error *error) {
  return site ? make_point(m, op, site, at, error) : 0;
}

/* out's point, the sum, the residual's point, the norm: each by itself. */
static int make_sublayer(struct making *m, const struct op *op, struct error *error) {
  struct op *sum, *norm;
  if (make_sublayer_point(m, op, op->u.sublayer.out_site, op->u.sublayer.out, error) != 0 || emit_copy(m, op, &sum, error) != 0)
    return -1;
  memset(&sum->u.sublayer.norm, 0, sizeof sum->u.sublayer.norm); /* NORM_NONE */
  sum->u.sublayer.out_site = sum->u.sublayer.resid_site = 0;
  if (make_sublayer_point(m, op, op->u.sublayer.resid_site, op->u.sublayer.resid, error) != 0) return -1;
  if (op->u.sublayer.norm.kind == NORM_NONE) return 0;
  if (!(norm = emit(m, OP_NORM, op, error))) return -1;
  norm->u.norm.x = op->u.sublayer.resid;
  norm->u.norm.y = op->u.sublayer.y;
  norm->u.norm.norm = op->u.sublayer.norm;
  return 0;
}

static int make_op(struct making *m, const struct op *op, struct error *error) {
  struct op *copy;
  switch (op->code) {
    case OP_SUBLAYER: {
      enum site out = op->u.sublayer.out_site, resid = op->u.sublayer.resid_site;
      if (!(out && is_marked(m, op->layer, out)) && !(resid && is_marked(m, op->layer, resid))) break;
      return make_sublayer(m, op, error);
    }
    case OP_BEGIN:
      if (!is_marked(m, op->layer, SITE_RESID_PRE)) break;
      if (emit_copy(m, op, &copy, error) != 0) return -1;
      copy->u.begin.bare = true;
      return make_point(m, op, SITE_RESID_PRE, op->u.begin.to, error);
    case OP_ATTEND:
      if (op->u.attend.bare || !is_marked(m, op->layer, SITE_ATTN_Z)) break;
      if (emit_copy(m, op, &copy, error) != 0) return -1;
      copy->u.attend.bare = true;
      return make_point(m, op, SITE_ATTN_Z, op->u.attend.z, error);
    case OP_POINT:
      if (!is_marked(m, op->layer, op->u.point.site)) break;
      return make_point(m, op, op->u.point.site, op->u.point.x, error);
    default: break;
  }
  return emit_copy(m, op, &copy, error);
}

static int make_list(struct making *m, struct plan *plan, struct error *error) {
  const struct op *ops;
  size_t count;
  int32_t aside = note_marks(m, error);
  if (aside < 0 || make_aside(m, aside, error) != 0 || plan_ops(plan, m->step, &ops, &count, error) != 0) return -1;
  m->list->count = m->list->n_rows = m->list->n_groups = 0;
  for (size_t i = 0; i < count; i++)
    if (make_op(m, &ops[i], error) != 0) return -1;
  return flush(m, error);
}

int splices_run(struct slots *slots, struct plan *plan, const struct step *step, struct error *error) {
  struct making making = {.slots = slots, .list = &slots->spliced, .backend = plan_backend(plan), .step = step};
  bool any = false;
  for (int32_t i = 0; i < slots->n_edits; i++) {
    slots->edits[i].on_host = !dict_splices(slots->edits[i].what.dict);
    any |= !slots->edits[i].on_host;
  }
  if (!any) return 0;
  int failed = make_list(&making, plan, error);
  release(&slots->spliced); /* whoever runs the step waits for it before anything else is prepared or dropped */
  return failed ? -1 : 1;
}
