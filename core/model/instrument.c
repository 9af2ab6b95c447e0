/* instrument.c: splits fused ops around cold points. Knows the ops and the sites, no family and no kernel. */
#include "core/model/instrument.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

site_set step_sites(const struct step *step, int32_t layer) {
  site_set sites = 0;
  for (int site = 0; site < SITE_COUNT; site++) {
    int p = point_index((struct point){layer, (enum site)site});
    if ((step->edit_begin && step->edit_begin[p] < step->edit_begin[p + 1]) ||
        (step->tap_begin && step->tap_begin[p] < step->tap_begin[p + 1]))
      sites |= site_bit((enum site)site);
  }
  return sites;
}

/* ---- the list ---- */

static int make_room(struct op_list *list, size_t more, struct error *error) {
  if (list->count + more <= list->capacity) return 0;
  size_t capacity = size_max(list->count + more, list->capacity * 2);
  struct op *ops = realloc(list->ops, capacity * sizeof *ops);
  if (!ops) return error_memory(error, capacity * sizeof *ops);
  list->ops = ops;
  list->capacity = capacity;
  return 0;
}

int op_list_append(struct op_list *list, const struct op *ops, size_t count, struct error *error) {
  if (make_room(list, count, error) != 0) return -1;
  memcpy(list->ops + list->count, ops, count * sizeof *ops);
  list->count += count;
  return 0;
}

/* ---- one segment ---- */

/* Most ops that one hot op becomes, so that room is made once for each. */
#define MOST_PARTS 16

struct pass {
  const struct instrument *in;
  const struct op *hot;
  size_t count;
  site_set wanted;
  struct op_list *list; /* has room for MOST_PARTS more */
};

static bool wants(const struct pass *pass, enum site site) { return (pass->wanted & site_bit(site)) != 0; }

/* An op over the rows and the layer of `like`. */
static struct op *emit(const struct pass *pass, const struct op *like, enum op_code code, int64_t width) {
  struct op *op = &pass->list->ops[pass->list->count++];
  memset(op, 0, sizeof *op);
  op->code = code;
  op->set = like->set;
  op->layer = like->layer;
  op->width = width;
  return op;
}

static void emit_point(const struct pass *pass, const struct op *like, enum site site, struct rows x, int64_t width) {
  if (!wants(pass, site)) return;
  struct op *op = emit(pass, like, OP_POINT, width);
  op->u.point.x = x;
  op->u.point.site = site;
}

/* Pieces of a row that a norm takes for themselves. */
static int32_t parts_of(const struct op *op) { return op->code == OP_NORM && op->u.norm.parts ? op->u.norm.parts : 1; }

static struct op *emit_norm(const struct pass *pass, const struct op *like, enum op_code code, const struct norm *norm,
                            struct rows x, struct rows y) {
  struct op *op = emit(pass, like, code, like->width);
  if (like->code == OP_NORM) op->u.norm.parts = like->u.norm.parts;
  op->u.norm.x = x;
  op->u.norm.y = y;
  op->u.norm.scale = pass->in->buffers.scale;
  op->u.norm.norm = *norm;
  return op;
}

/* y = norm(x), in as many pieces as the sites of this norm need. */
static void emit_norm_parts(const struct pass *pass, const struct op *like, const struct norm *norm, struct rows x,
                            struct rows y) {
  enum site scale = norm->site, normalized = norm->site + 1, out = norm->site + 2;
  struct rows middle = pass->in->buffers.normed;
  int32_t parts = parts_of(like);
  bool sited = norm->site && norm->kind != NORM_NONE;
  if (sited && (wants(pass, scale) || wants(pass, normalized))) {
    emit_norm(pass, like, OP_NORM_SCALE, norm, x, y);
    emit_point(pass, like, scale, pass->in->buffers.scale, parts);
    emit_norm(pass, like, OP_NORMALIZE, norm, x, middle);
    emit_point(pass, like, normalized, middle, parts * like->width);
    emit_norm(pass, like, OP_GAIN, norm, middle, y);
  } else {
    emit_norm(pass, like, OP_NORM, norm, x, y);
  }
  /* What a post-norm gives is the sublayer's output, a hot point that the op which adds it serves. */
  if (norm->site && !site_is_hot(out)) emit_point(pass, like, out, y, parts * like->width);
}

static bool wants_norm(const struct pass *pass, const struct norm *norm) {
  return norm->site && (wants(pass, norm->site) || wants(pass, norm->site + 1) || wants(pass, norm->site + 2));
}

static void pass_sublayer(const struct pass *pass, const struct op *op) {
  struct rows resid = op->u.sublayer.resid;
  const struct norm *norm = &op->u.sublayer.norm;
  bool derived = norm->site == SITE_LN2_SCALE && wants(pass, SITE_MLP_RESID);
  struct op *sum = emit(pass, op, OP_SUBLAYER, op->width);
  *sum = *op;
  if (norm->kind == NORM_NONE || (!derived && !wants_norm(pass, norm))) return;
  sum->u.sublayer.norm.kind = NORM_NONE;
  if (derived) {
    struct op *copy = emit(pass, op, OP_COPY, op->width);
    copy->u.gather.x = resid;
    resid = copy->u.gather.y = pass->in->buffers.resid;
    emit_point(pass, op, SITE_MLP_RESID, resid, op->width);
  }
  emit_norm_parts(pass, op, norm, resid, op->u.sublayer.y);
}

static struct rows columns(struct rows rows, int64_t first) {
  rows.at = span_at(rows.at, (size_t)first * sizeof(float));
  return rows;
}

static const struct op *find_attend(const struct pass *pass) {
  for (size_t i = 0; i < pass->count; i++)
    if (pass->hot[i].code == OP_ATTEND) return &pass->hot[i];
  return NULL;
}

/* q, k and v as the product gives them; where they lie in its rows, the attention says. */
static void emit_qkv(const struct pass *pass, const struct op *op) {
  const struct op *attend = find_attend(pass);
  int64_t kv = (int64_t)attend->u.attend.n_kv_head * attend->u.attend.d_head;
  bool whole = attend->u.attend.v + kv <= op->u.linear.w->n_out; /* else v has a product of its own */
  emit_point(pass, op, SITE_Q, columns(op->u.linear.y, attend->u.attend.q), attend->width);
  emit_point(pass, op, SITE_K, columns(op->u.linear.y, attend->u.attend.k), kv);
  if (whole) emit_point(pass, op, SITE_V, columns(op->u.linear.y, attend->u.attend.v), kv);
}

/* The heads of q and k are turned together. */
static void pass_rotate(const struct pass *pass, const struct op *op) {
  const struct op *attend = find_attend(pass);
  int64_t kv = (int64_t)attend->u.attend.n_kv_head * attend->u.attend.d_head;
  *emit(pass, op, op->code, op->width) = *op;
  emit_point(pass, op, SITE_ROT_Q, columns(op->u.rotate.x, attend->u.attend.q), attend->width);
  emit_point(pass, op, SITE_ROT_K, columns(op->u.rotate.x, attend->u.attend.k), kv);
}

/* A norm of its own follows in the MLP. */
static void pass_solu(const struct pass *pass, const struct op *op) {
  *emit(pass, op, op->code, op->width) = *op;
  emit_point(pass, op, SITE_MLP_MID, op->u.solu.y, op->width);
}

static void pass_linear(const struct pass *pass, const struct op *op) {
  enum site site = op->u.linear.site;
  int64_t width = op->u.linear.w->n_out;
  bool split = site && wants(pass, site) && op->u.linear.act != ACT_NONE;
  struct op *product = emit(pass, op, OP_LINEAR, op->width);
  *product = *op;
  if (site == SITE_Q) emit_qkv(pass, op);
  else if (site) emit_point(pass, op, site, op->u.linear.y, width);
  if (!split) return;
  product->u.linear.act = ACT_NONE;
  struct op *act = emit(pass, op, OP_GATE, width);
  act->u.gate.x = act->u.gate.y = op->u.linear.y;
  act->u.gate.act = op->u.linear.act;
}

static void pass_op(const struct pass *pass, const struct op *op) {
  switch (op->code) {
    case OP_NORM: emit_norm_parts(pass, op, &op->u.norm.norm, op->u.norm.x, op->u.norm.y); return;
    case OP_SUBLAYER: pass_sublayer(pass, op); return;
    case OP_LINEAR: pass_linear(pass, op); return;
    case OP_ROTATE: pass_rotate(pass, op); return;
    case OP_SOLU: pass_solu(pass, op); return;
    default: *emit(pass, op, op->code, op->width) = *op; return;
  }
}

int instrument_segment(const struct instrument *instrument, const struct op *hot, size_t count, site_set wanted,
                       struct op_list *list, struct error *error) {
  struct pass pass = {instrument, hot, count, wanted, list};
  for (size_t i = 0; i < count; i++) {
    if (make_room(list, MOST_PARTS, error) != 0) return -1;
    pass_op(&pass, &hot[i]);
  }
  return 0;
}
