/* unfold.c: gives every op of a segment a place of its own to write to. Knows what ops read and write, no family and no kernel. */
#include "core/model/unfold.h"

#include <stdlib.h>
#include <string.h>

#define NOWHERE SIZE_MAX

struct unfolding {
  const struct plan *plan;
  struct site_sets sets;
  struct memory *memory;
  int32_t rows;
  size_t now[PLAN_BUFFERS]; /* where what a buffer holds at this op lies */
  size_t used;
  struct unfolded *out;
  struct error *error;
  int failed;
};

static void emit(struct unfolding *u, const struct op *op) {
  if (!u->failed) u->failed = op_list_append(&u->out->list, op, 1, u->error);
}

/* ---- places ---- */

static struct rows rows_in(const struct unfolding *u, struct rows rows, struct plan_place place) {
  return (struct rows){{u->memory, u->now[place.buffer] + (size_t)place.column * sizeof(float)}, rows.ld};
}

static void take_place(struct unfolding *u, struct rows rows, int buffer, int32_t n) {
  u->now[buffer] = u->used;
  u->used += (size_t)n * (size_t)rows.ld * sizeof(float);
}

/* Where an op finds what it reads. */
static struct rows read_rows(struct unfolding *u, struct rows rows) {
  if (!rows.at.memory) return rows;
  struct plan_place place = plan_place(u->plan, rows);
  if (u->now[place.buffer] == NOWHERE) take_place(u, rows, place.buffer, u->rows);
  return rows_in(u, rows, place);
}

/* A new place for what an op writes; what it leaves as it was, or changes in place, is copied there first. */
static struct rows write_rows(struct unfolding *u, const struct op *like, struct rows rows, int64_t width, bool changes) {
  struct plan_place place = plan_place(u->plan, rows);
  struct plan_place whole = {place.buffer, 0, place.width};
  bool copies = u->now[place.buffer] != NOWHERE && (changes || place.column > 0 || width < place.width);
  struct op copy = {.code = OP_COPY, .set = like->set, .layer = like->layer, .width = place.width};
  if (copies) copy.u.gather.x = rows_in(u, rows, whole);
  take_place(u, rows, place.buffer, u->rows);
  if (copies) copy.u.gather.y = rows_in(u, rows, whole);
  if (copies) emit(u, &copy);
  return rows_in(u, rows, place);
}

/* ---- ops ---- */

static void point(struct unfolding *u, const struct op *like, enum site site, struct rows x, int64_t column, int64_t width) {
  bool edited = (u->sets.edited & site_bit(site)) != 0, tapped = (u->sets.tapped & site_bit(site)) != 0;
  if (!edited && !tapped) return;
  struct op op = {.code = OP_POINT, .set = like->set, .layer = like->layer, .width = width};
  op.u.point.site = site;
  op.u.point.column = column;
  op.u.point.x = read_rows(u, x);
  if (edited) op.u.point.before = op.u.point.x;
  if (edited) op.u.point.x = write_rows(u, like, x, width, true);
  emit(u, &op);
}

static void unfold_begin(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.begin.embedded = read_rows(u, hot->u.begin.embedded);
  op.u.begin.placed = read_rows(u, hot->u.begin.placed);
  op.u.begin.to = write_rows(u, hot, hot->u.begin.to, hot->width, false);
  emit(u, &op);
  u->out->begin = op.u.begin.to;
  point(u, hot, SITE_RESID_PRE, hot->u.begin.to, 0, hot->width);
}

static void unfold_embed(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.begin.embedded = write_rows(u, hot, hot->u.begin.embedded, hot->width, false);
  op.u.begin.placed = write_rows(u, hot, hot->u.begin.placed, hot->width, false);
  emit(u, &op);
}

static void unfold_norm(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  int32_t parts = hot->u.norm.parts ? hot->u.norm.parts : 1;
  op.u.norm.x = read_rows(u, hot->u.norm.x);
  if (hot->code == OP_NORM_SCALE)
    op.u.norm.scale = write_rows(u, hot, hot->u.norm.scale, parts, false);
  else
    op.u.norm.y = write_rows(u, hot, hot->u.norm.y, parts * hot->width, false);
  if (hot->code == OP_NORMALIZE) op.u.norm.scale = read_rows(u, hot->u.norm.scale);
  emit(u, &op);
}

/* The activation and the cap are ops of their own. */
static void unfold_linear(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  int64_t width = hot->u.linear.w->n_out;
  op.u.linear.x = read_rows(u, hot->u.linear.x);
  op.u.linear.y = write_rows(u, hot, hot->u.linear.y, width, false);
  op.u.linear.act = ACT_NONE;
  op.u.linear.soft_cap = 0;
  op.u.linear.room = 0;
  emit(u, &op);
  if (hot->u.linear.act != ACT_NONE) {
    struct op act = {.code = OP_GATE, .set = hot->set, .layer = hot->layer, .width = width};
    act.u.gate.x = op.u.linear.y;
    act.u.gate.y = write_rows(u, hot, hot->u.linear.y, width, false);
    act.u.gate.act = hot->u.linear.act;
    emit(u, &act);
  }
  if (hot->u.linear.soft_cap <= 0) return;
  op.code = OP_CAP;
  op.u.linear.soft_cap = hot->u.linear.soft_cap;
  emit(u, &op);
}

static void unfold_gate(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.gate.x = read_rows(u, hot->u.gate.x);
  op.u.gate.up = read_rows(u, hot->u.gate.up);
  op.u.gate.y = write_rows(u, hot, hot->u.gate.y, hot->width, false);
  emit(u, &op);
}

/* OP_SOLU, OP_PLACE, and what gathers and copies: x, then y, first in their parts of the union. */
static void unfold_solu(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.solu.x = read_rows(u, hot->u.solu.x);
  op.u.solu.y = write_rows(u, hot, hot->u.solu.y, hot->width, false);
  emit(u, &op);
}

static void unfold_place(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.place.x = read_rows(u, hot->u.place.x);
  op.u.place.y = write_rows(u, hot, hot->u.place.y, hot->width, false);
  emit(u, &op);
}

static void unfold_copy(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.gather.x = read_rows(u, hot->u.gather.x);
  op.u.gather.y = write_rows(u, hot, hot->u.gather.y, hot->width, false);
  emit(u, &op);
}

static void unfold_rotate(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.rotate.x = write_rows(u, hot, hot->u.rotate.x, hot->width, true);
  emit(u, &op);
}

static void unfold_attend(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.attend.qkv = read_rows(u, hot->u.attend.qkv);
  op.u.attend.z = write_rows(u, hot, hot->u.attend.z, hot->width, false);
  op.u.attend.bare = true;
  emit(u, &op);
  if (!hot->u.attend.bare) point(u, hot, SITE_ATTN_Z, hot->u.attend.z, 0, hot->width);
}

static void unfold_sublayer(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  point(u, hot, hot->u.sublayer.out_site, hot->u.sublayer.out, 0, hot->width);
  op.u.sublayer.out = read_rows(u, hot->u.sublayer.out);
  op.u.sublayer.resid = write_rows(u, hot, hot->u.sublayer.resid, hot->width, true);
  op.u.sublayer.out_site = op.u.sublayer.resid_site = 0;
  op.u.sublayer.norm = (struct norm){.kind = NORM_NONE};
  op.u.sublayer.y = (struct rows){{NULL, 0}, 0};
  emit(u, &op);
  if (hot->u.sublayer.resid_site) point(u, hot, hot->u.sublayer.resid_site, hot->u.sublayer.resid, 0, hot->width);
  if (hot->u.sublayer.norm.kind == NORM_NONE) return;
  struct op norm = {.code = OP_NORM, .set = hot->set, .layer = hot->layer, .width = hot->width};
  norm.u.norm.norm = hot->u.sublayer.norm;
  norm.u.norm.x = hot->u.sublayer.resid;
  norm.u.norm.y = hot->u.sublayer.y;
  unfold_norm(u, &norm);
}

static void unfold_delta(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.point.x = read_rows(u, hot->u.point.x);
  op.u.point.before = read_rows(u, hot->u.point.before);
  op.u.point.to = write_rows(u, hot, hot->u.point.to, hot->width, true);
  emit(u, &op);
}

static void unfold_cap(struct unfolding *u, const struct op *hot) {
  struct op op = *hot;
  op.u.linear.y = write_rows(u, hot, hot->u.linear.y, hot->u.linear.w->n_out, true);
  emit(u, &op);
}

static void unfold_op(struct unfolding *u, const struct op *hot) {
  switch (hot->code) {
    case OP_BEGIN: unfold_begin(u, hot); return;
    case OP_EMBED: unfold_embed(u, hot); return;
    case OP_NORM:
    case OP_NORM_SCALE:
    case OP_NORMALIZE:
    case OP_GAIN: unfold_norm(u, hot); return;
    case OP_LINEAR: unfold_linear(u, hot); return;
    case OP_GATE: unfold_gate(u, hot); return;
    case OP_SOLU: unfold_solu(u, hot); return;
    case OP_PLACE: unfold_place(u, hot); return;
    case OP_ROTATE: unfold_rotate(u, hot); return;
    case OP_ATTEND: unfold_attend(u, hot); return;
    case OP_SUBLAYER: unfold_sublayer(u, hot); return;
    case OP_POINT: point(u, hot, hot->u.point.site, hot->u.point.x, hot->u.point.column, hot->width); return;
    case OP_GATHER:
    case OP_COPY:
    case OP_KEEP: unfold_copy(u, hot); return;
    case OP_CAP: unfold_cap(u, hot); return;
    case OP_DELTA: unfold_delta(u, hot); return;
    default:
      u->failed = error_set(u->error, ERROR_UNSUPPORTED, "no gradients go back through edits of attention scores or patterns");
      return;
  }
}

/* The head gathers from all rows of the stream. */
static void place_stream(struct unfolding *u, const struct op *gather, int32_t streams) {
  struct plan_place place = plan_place(u->plan, gather->u.gather.x);
  take_place(u, gather->u.gather.x, place.buffer, streams);
  u->out->begin = rows_in(u, gather->u.gather.x, place);
}

int unfold_segment(const struct plan *plan, int32_t segment, struct site_sets sets, struct memory *memory, int32_t rows, int32_t streams,
                   struct unfolded *out, struct error *error) {
  struct unfolding u = {.plan = plan, .sets = sets, .memory = memory, .rows = rows, .out = out, .error = error};
  struct op_list list = {NULL, 0, 0};
  for (int i = 0; i < PLAN_BUFFERS; i++) u.now[i] = NOWHERE;
  out->list.count = 0;
  u.failed = plan_instrumented(plan, segment, sets, &list, error);
  if (!u.failed && list.ops[0].code == OP_GATHER) place_stream(&u, &list.ops[0], streams);
  for (size_t i = 0; i < list.count && !u.failed; i++) unfold_op(&u, &list.ops[i]);
  if (!u.failed && list.ops[0].code != OP_GATHER) {
    size_t count;
    const struct op *begin = plan_segment(plan, segment, &count);
    out->end = read_rows(&u, begin->u.begin.to);
  }
  out->bytes = u.used;
  free(list.ops);
  return u.failed;
}
