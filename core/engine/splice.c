/* splice.c: dictionary edits of a step as ops of one list, for a backend that splices: the step's own ops, taken apart around the
 * points that are spliced, and between them what the edits do. The list depends on the model, the dictionaries, the points and how
 * many rows there are, rounded up; rows and changes are tables, so that a backend can record the list and repeat it.
 *
 * Rows of one dictionary at one point go together, whichever requests they are of, where no edit between them in the point's order is
 * about the same rows. What a cross-layer transcoder writes is worked out for all its points where it reads, and waits aside; at a
 * point all that waits for it goes together, whichever layers it is of. The list is run in pieces where a dictionary comes up that
 * the backend cannot splice, or whose matrices do not fit beside those of the list so far. How an edit is done depends on its
 * dictionary, on what else its own rows put aside, and on the room that is made when sources are loaded, never on the company. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/engine/slot.h"

enum { OPS, ROWS, GROUPS, DICTS, SPLICES, SERIALS, MARK, TAKEN, MARKED, OF_ROW }; /* of capacity */
#define MOST_ASIDE ((size_t)1 << 30) /* floats, whatever the steps: places are counted in 32 bits */
#define ASIDE_SHARE 32               /* and no more than this part of a device's memory */
#define ASIDE_TIMES 2                /* as often may a row be spliced by all that there is */
#define LEAST_ASIDE ((int64_t)1 << 24) /* floats, of all rows */

struct making {
  struct slots *slots;
  struct spliced_step *list;
  struct backend *backend;
  const struct step *step;
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

static void free_aside(struct aside *aside, struct backend *backend) {
  if (aside) backend->ops->free(backend, aside->memory);
  free(aside);
}

void splices_close(struct spliced_step *list, struct backend *backend) {
  void *all[] = {list->ops, list->rows, list->groups, list->dicts, list->splices, list->serials, list->mark, list->taken, list->marked,
                 list->of_row};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  backend->ops->free(backend, list->aside);
  free_aside(atomic_exchange(&list->coming, NULL), backend);
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

/* ---- rows that wait between two points ---- */

/* Floats of a row that there may be room for at most. */
static int64_t most_aside(struct backend *backend, int32_t max_rows) {
  size_t left, total, most = MOST_ASIDE;
  struct error ignored = ERROR_INIT;
  if (backend->ops->room && backend->ops->room(backend, &left, &total, &ignored) == 0)
    most = size_min(most, total / ASIDE_SHARE / sizeof(float));
  return (int64_t)(most / (size_t)max_rows);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

int splices_make_aside(struct spliced_step *list, struct backend *backend, int64_t floats, size_t *bytes, struct error *error) {
  int64_t limit = backend->ops->splices ? most_aside(backend, list->max_rows) : 0;
  *bytes = 0;
  if (least(floats, limit) <= list->made_share) return 0;
  struct aside *aside = calloc(1, sizeof *aside);
  if (!aside) return error_memory(error, sizeof *aside);
  aside->share = least(most(ASIDE_TIMES * floats, LEAST_ASIDE / list->max_rows), limit);
  *bytes = (size_t)aside->share * (size_t)list->max_rows * sizeof(float);
  if (backend->ops->alloc(backend, *bytes, &aside->memory, error) != 0) {
    free(aside);
    return -1;
  }
  list->made_share = aside->share;
  free_aside(atomic_exchange(&list->coming, aside), backend);
  return 0;
}

/* Between two steps: nothing reads what was there. */
static void take_coming(struct spliced_step *list, struct backend *backend) {
  struct aside *coming = atomic_exchange(&list->coming, NULL);
  if (!coming) return;
  backend->ops->free(backend, list->aside);
  list->aside = coming->memory;
  list->aside_share = coming->share;
  list->aside_serial++;
  free(coming);
}

/* Memory for the rows of an edit that reads at another point than it writes, from *aside on; where that is more than the share of any of
 * its rows, the edit is the host's. of_row: what each row has so far. */
static void take_aside(struct making *m, struct slot_edit *edit, int64_t *aside) {
  int64_t width = dict_splice_aside(edit->what.dict), *of_row = m->list->of_row;
  for (int32_t row = edit->rows.begin; row < edit->rows.end; row++) edit->on_host |= width > m->list->aside_share - of_row[row];
  if (edit->on_host) return;
  for (int32_t row = edit->rows.begin; row < edit->rows.end; row++) of_row[row] += width;
  edit->aside = (int32_t)*aside;
  *aside += width * (edit->rows.end - edit->rows.begin);
}

/* ---- tables ---- */

/* Which item has which mark, and where what it reads waits. */
static int note_marks(struct making *m, struct error *error) {
  struct spliced_step *list = m->list;
  int32_t points = point_count(m->step->n_layer);
  size_t items = (size_t)m->step->edit_begin[points], rows = (size_t)m->step->n_rows;
  int failed = 0;
  list->mark = grown(list, MARK, list->mark, items, sizeof *list->mark, &failed, error);
  list->taken = grown(list, TAKEN, list->taken, items, sizeof *list->taken, &failed, error);
  list->marked = grown(list, MARKED, list->marked, (size_t)points, sizeof *list->marked, &failed, error);
  list->of_row = grown(list, OF_ROW, list->of_row, rows, sizeof *list->of_row, &failed, error);
  if (failed) return -1;
  for (size_t i = 0; i < items; i++) list->mark[i] = -1;
  memset(list->taken, 0, items * sizeof *list->taken);
  memset(list->marked, 0, (size_t)points * sizeof *list->marked);
  memset(list->of_row, 0, rows * sizeof *list->of_row);
  int64_t aside = 0;
  for (int32_t i = 0; i < m->slots->n_marks; i++) {
    const struct slot_mark *mark = &m->slots->marks[i];
    struct slot_edit *edit = &m->slots->edits[mark->edit];
    list->mark[mark->item] = i;
    list->marked[mark->point] = true;
    if (mark->mark == MARK_READ && !edit->on_host) take_aside(m, edit, &aside);
  }
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

static const struct slot_mark *mark_of(const struct making *m, int32_t item) { return &m->slots->marks[m->list->mark[item]]; }

/* What an item is done by: cross-layer transcoders are spliced where they read, others where they write. */
static enum op_code code_of(const struct making *m, int32_t item) {
  enum edit_mark mark = mark_of(m, item)->mark;
  bool cross = dict_info(edit_of(m, item)->what.dict)->cross;
  if (mark == MARK_BOTH || cross == (mark == MARK_READ)) return OP_SPLICE;
  return cross ? OP_PUT : OP_HOLD;
}

/* Whether two items can be rows of one op, as far as the op goes. */
static bool same_op(const struct making *m, int32_t one, int32_t other) {
  const struct dict *a = edit_of(m, one)->what.dict, *b = edit_of(m, other)->what.dict;
  if (edit_of(m, other)->on_host || code_of(m, one) != code_of(m, other)) return false;
  if (code_of(m, one) != OP_PUT) return a == b;
  return dict_info(a)->d_out == dict_info(b)->d_out && dict_info(a)->out_column == dict_info(b)->out_column;
}

/* Rows that an item in front of it is about, and that is not done yet when the group is. */
enum { FREE, OURS, BARRED };

static bool is_free(const struct making *m, struct row_range rows, bool put) {
  for (int32_t row = rows.begin; row < rows.end; row++)
    if (m->list->of_row[row] != FREE && !(put && m->list->of_row[row] == OURS)) return false;
  return true;
}

/* Item `first`, and all before `end` that can be done when it is: the same op, and nothing between them is about their rows. What is
 * put in places may be about rows of the group itself, in the order of the point. Returns how many rows they have. */
static int32_t gather_group(struct making *m, int32_t first, int32_t end) {
  struct spliced_step *list = m->list;
  bool put = code_of(m, first) == OP_PUT;
  int32_t n = 0;
  memset(list->of_row, 0, (size_t)m->step->n_rows * sizeof *list->of_row);
  for (int32_t i = first; i < end; i++) {
    bool marked = list->mark[i] >= 0;
    if (marked && list->taken[i]) continue;
    struct row_range rows = marked ? edit_of(m, i)->rows : m->step->edits[i].rows;
    bool ours = marked && same_op(m, first, i) && is_free(m, rows, put);
    for (int32_t row = rows.begin; row < rows.end; row++)
      if (list->of_row[row] != BARRED) list->of_row[row] = ours ? OURS : BARRED;
    if (ours) n += rows.end - rows.begin;
    if (ours) list->taken[i] = first + 1;
  }
  return n;
}

/* Row `i` of an item in the group's table. */
static struct splice_row row_of(const struct making *m, int32_t item, int32_t i) {
  const struct slot_edit *edit = edit_of(m, item);
  const struct slot_mark *mark = mark_of(m, item);
  const struct dict_info *info = dict_info(edit->what.dict);
  int32_t row = edit->rows.begin + i, aside = edit->aside + i * (int32_t)dict_splice_aside(edit->what.dict);
  if (code_of(m, item) == OP_PUT)
    return (struct splice_row){.x = aside + mark->target * (int32_t)info->d_out, .y = row,
                               .with_error = edit->what.with_error || mark->target > 0};
  return (struct splice_row){.x = mark->mark == MARK_WRITE ? aside : row, .y = mark->mark == MARK_READ ? aside : row,
                             .with_error = edit->what.with_error, .n_changes = edit->what.n_features, .changes = edit->what.features};
}

/* The rows of an item that is in the group of `first`; none of others. */
static struct row_range rows_within(const struct making *m, int32_t item, int32_t first) {
  return m->list->taken[item] == first + 1 ? edit_of(m, item)->rows : (struct row_range){0, 0};
}

static void add_in_turn(struct making *m, int32_t first, int32_t end) {
  struct spliced_step *list = m->list;
  for (int32_t item = first; item < end; item++) {
    struct row_range rows = rows_within(m, item, first);
    for (int32_t row = rows.begin; row < rows.end; row++) list->rows[list->n_rows++] = row_of(m, item, row - rows.begin);
  }
}

/* Those about one row behind each other, in the order of their items. */
static void add_by_row(struct making *m, int32_t first, int32_t end) {
  struct spliced_step *list = m->list;
  int64_t *next = list->of_row;
  memset(next, 0, (size_t)m->step->n_rows * sizeof *next);
  for (int32_t item = first; item < end; item++) {
    struct row_range rows = rows_within(m, item, first);
    for (int32_t row = rows.begin; row < rows.end; row++) next[row]++;
  }
  for (int32_t row = 0; row < m->step->n_rows; row++) {
    int64_t n = next[row];
    next[row] = (int64_t)list->n_rows;
    if (n) list->rows[list->n_rows].n_parts = (int32_t)n;
    list->n_rows += (size_t)n;
  }
  for (int32_t item = first; item < end; item++) {
    struct row_range rows = rows_within(m, item, first);
    for (int32_t row = rows.begin; row < rows.end; row++) {
      struct splice_row *to = &list->rows[next[row]++], entry = row_of(m, item, row - rows.begin);
      entry.n_parts = to->n_parts;
      *to = entry;
    }
  }
}

static struct rows columns_of(struct rows at, int64_t column) {
  at.at = span_at(at.at, (size_t)column * sizeof(float));
  return at;
}

static int emit_group(struct making *m, const struct op *like, int32_t item, struct rows at, int32_t rows, size_t held,
                      struct error *error) {
  struct spliced_step *list = m->list;
  enum edit_mark mark = mark_of(m, item)->mark;
  const struct dict_info *info = dict_info(edit_of(m, item)->what.dict);
  struct rows aside = {{list->aside, 0}, 1}; /* places there are counted in elements */
  struct op *op = emit(m, code_of(m, item), like, error);
  if (!op) return -1;
  op->width = op->code == OP_PUT ? info->d_out : info->d_in;
  op->u.splice.x = mark == MARK_WRITE ? aside : columns_of(at, info->in_column);
  op->u.splice.y = mark == MARK_READ ? aside : columns_of(at, info->out_column);
  op->u.splice.aside = mark == MARK_BOTH ? 0 : list->aside_serial;
  op->u.splice.group = (int32_t)list->n_groups - 1;
  op->u.splice.rows = rounded_up(rows);
  if (op->code != OP_SPLICE) return 0;
  op->u.splice.what = list->splices[held];
  op->u.splice.serial = list->serials[held];
  return 0;
}

static int make_group(struct making *m, const struct op *like, int32_t first, int32_t end, struct rows at, struct error *error) {
  struct spliced_step *list = m->list;
  enum op_code code = code_of(m, first);
  size_t held = 0;
  int failed = 0;
  if (code == OP_SPLICE && hold_one(m, edit_of(m, first)->what.dict, &held, error) != 0) return -1;
  int32_t begin = (int32_t)list->n_rows, n = gather_group(m, first, end);
  list->groups = grown(list, GROUPS, list->groups, list->n_groups + 1, sizeof *list->groups, &failed, error);
  list->rows = grown(list, ROWS, list->rows, list->n_rows + (size_t)n, sizeof *list->rows, &failed, error);
  if (failed) return -1;
  memset(list->rows + begin, 0, (size_t)n * sizeof *list->rows);
  (code == OP_PUT ? add_by_row : add_in_turn)(m, first, end);
  list->groups[list->n_groups++] = (struct row_range){begin, begin + n};
  return emit_group(m, like, first, at, n, held, error);
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
  take_coming(m->list, m->backend);
  if (note_marks(m, error) != 0 || plan_ops(plan, m->step, &ops, &count, error) != 0) return -1;
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
