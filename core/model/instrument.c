/* instrument.c: splits fused ops around cold points, and makes derived ones. Knows the ops and the sites, no family and
 * no kernel. */
#include "core/model/instrument.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

struct site_sets step_sites(const struct step *step, int32_t layer) {
  struct site_sets sets = {0, 0};
  if (!step->edit_begin && !step->tap_begin) return sets;
  for (int site = 0; site < SITE_COUNT; site++) {
    int p = point_index((struct point){layer, (enum site)site});
    if (step->edit_begin && step->edit_begin[p] < step->edit_begin[p + 1]) sets.edited |= site_bit((enum site)site);
    if (step->tap_begin && step->tap_begin[p] < step->tap_begin[p + 1]) sets.tapped |= site_bit((enum site)site);
  }
  return sets;
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

/* ---- emitting ---- */

struct pass {
  const struct instrument *in;
  const struct op *hot;
  size_t count;
  struct site_sets sets;
  struct op_list *list;
  struct error *error;
  bool failed;
  struct op spare; /* where ops go that there is no room for */
};

static bool edits(const struct pass *pass, enum site site) { return (pass->sets.edited & site_bit(site)) != 0; }
static bool wants(const struct pass *pass, enum site site) {
  return ((pass->sets.edited | pass->sets.tapped) & site_bit(site)) != 0;
}

/* An op over the rows and the layer of `like`. It may move when the next one is emitted. */
static struct op *emit(struct pass *pass, const struct op *like, enum op_code code, int64_t width) {
  struct op *op = &pass->spare;
  if (make_room(pass->list, 1, pass->error) != 0)
    pass->failed = true;
  else
    op = &pass->list->ops[pass->list->count++];
  memset(op, 0, sizeof *op);
  op->code = code;
  op->set = like->set;
  op->layer = like->layer;
  op->width = width;
  return op;
}

static struct op *emit_as_is(struct pass *pass, const struct op *op) {
  struct op *copy = emit(pass, op, op->code, op->width);
  *copy = *op;
  return copy;
}

/* Edits and taps of columns [column, column + width) of a point, which x holds. */
static void emit_columns(struct pass *pass, const struct op *like, enum site site, struct rows x, int64_t column,
                         int64_t width) {
  if (!wants(pass, site)) return;
  struct op *op = emit(pass, like, OP_POINT, width);
  op->u.point.x = x;
  op->u.point.site = site;
  op->u.point.column = column;
}

static void emit_point(struct pass *pass, const struct op *like, enum site site, struct rows x, int64_t width) {
  emit_columns(pass, like, site, x, 0, width);
}

static void emit_copy(struct pass *pass, const struct op *like, struct rows x, struct rows y, int64_t width) {
  struct op *op = emit(pass, like, OP_COPY, width);
  op->u.gather.x = x;
  op->u.gather.y = y;
}

static struct rows columns(struct rows rows, int64_t first) {
  rows.at = span_at(rows.at, (size_t)first * sizeof(float));
  return rows;
}

/* The op of the segment that has the code, and for norms and products the site. */
static const struct op *find(const struct pass *pass, enum op_code code, enum site site) {
  for (size_t i = 0; i < pass->count; i++) {
    const struct op *op = &pass->hot[i];
    if (op->code != code) continue;
    if (code == OP_NORM && op->u.norm.norm.site != site) continue;
    if (code == OP_LINEAR && op->u.linear.site != site) continue;
    return op;
  }
  return NULL;
}

/* ---- norms ---- */

/* Pieces of a row that a norm takes for themselves. */
static int32_t parts_of(const struct op *op) { return op->code == OP_NORM && op->u.norm.parts ? op->u.norm.parts : 1; }

static void emit_norm(struct pass *pass, const struct op *like, enum op_code code, const struct norm *norm,
                      struct rows x, struct rows y) {
  struct op *op = emit(pass, like, code, like->width);
  if (like->code == OP_NORM) op->u.norm.parts = like->u.norm.parts;
  op->u.norm.x = x;
  op->u.norm.y = y;
  op->u.norm.scale = pass->in->buffers.scale;
  op->u.norm.norm = *norm;
}

static bool wants_norm(const struct pass *pass, const struct norm *norm) {
  enum site scale = norm->site, normalized = norm->site + 1, out = norm->site + 2;
  return norm->site && (wants(pass, scale) || wants(pass, normalized) || (wants(pass, out) && !site_is_hot(out)));
}

/* y = norm(x), in as many pieces as the sites of this norm need. */
static void emit_norm_parts(struct pass *pass, const struct op *like, const struct norm *norm, struct rows x,
                            struct rows y) {
  enum site scale = norm->site, normalized = norm->site + 1, out = norm->site + 2;
  struct rows middle = pass->in->buffers.normed;
  int32_t parts = parts_of(like);
  if (norm->kind != NORM_NONE && wants_norm(pass, norm) && (wants(pass, scale) || wants(pass, normalized))) {
    emit_norm(pass, like, OP_NORM_SCALE, norm, x, y);
    emit_point(pass, like, scale, pass->in->buffers.scale, parts);
    emit_norm(pass, like, OP_NORMALIZE, norm, x, middle);
    emit_point(pass, like, normalized, middle, parts * like->width);
    emit_norm(pass, like, OP_GAIN, norm, middle, y);
  } else {
    emit_norm(pass, like, OP_NORM, norm, x, y);
  }
  /* What a post-norm gives is the sublayer's output, a hot point that the op which adds it serves. */
  if (norm->site && !norm->gain_apart && !site_is_hot(out)) emit_point(pass, like, out, y, parts * like->width);
}

/* The gain of a norm that has none itself. */
static void pass_gain(struct pass *pass, const struct op *op) {
  emit_as_is(pass, op);
  emit_point(pass, op, op->u.norm.norm.site + 2, op->u.norm.y, op->width);
}

/* Taps of the residual once for each head; with edits of theirs, emit_split_inputs has the points. */
static void emit_head_taps(struct pass *pass, const struct op *like, enum site site, struct rows resid, int32_t heads) {
  for (int32_t head = 0; head < heads && wants(pass, site) && !edits(pass, site); head++)
    emit_columns(pass, like, site, resid, head * like->width, like->width);
}

static void pass_norm(struct pass *pass, const struct op *op) {
  const struct norm *norm = &op->u.norm.norm;
  const struct arch *arch = pass->in->arch;
  if (norm->site == SITE_LN1_SCALE) {
    emit_head_taps(pass, op, SITE_HEAD_IN, op->u.norm.x, arch->n_head);
    emit_head_taps(pass, op, SITE_Q_IN, op->u.norm.x, arch->n_head);
    emit_head_taps(pass, op, SITE_K_IN, op->u.norm.x, arch->n_kv_head);
    emit_head_taps(pass, op, SITE_V_IN, op->u.norm.x, arch->n_kv_head);
  }
  bool derived = norm->site == SITE_LN2_SCALE && wants(pass, SITE_MLP_RESID); /* else it is the sublayer's */
  struct rows x = op->u.norm.x, copy = pass->in->buffers.resid;
  if (derived) {
    emit_copy(pass, op, x, copy, op->width);
    emit_point(pass, op, SITE_MLP_RESID, copy, op->width);
    x = copy;
  }
  if (derived || wants_norm(pass, norm))
    emit_norm_parts(pass, op, norm, x, op->u.norm.y);
  else
    emit_as_is(pass, op);
}

static void pass_sublayer(struct pass *pass, const struct op *op) {
  struct rows resid = op->u.sublayer.resid, copy = pass->in->buffers.resid;
  const struct norm *norm = &op->u.sublayer.norm;
  bool derived = norm->site == SITE_LN2_SCALE && wants(pass, SITE_MLP_RESID);
  if (norm->kind == NORM_NONE || (!derived && !wants_norm(pass, norm))) {
    emit_as_is(pass, op);
    return;
  }
  emit_as_is(pass, op)->u.sublayer.norm.kind = NORM_NONE;
  if (derived) {
    emit_copy(pass, op, resid, copy, op->width);
    emit_point(pass, op, SITE_MLP_RESID, copy, op->width);
    resid = copy;
  }
  emit_norm_parts(pass, op, norm, resid, op->u.sublayer.y);
}

/* ---- attention ---- */

/* Where q, k or v lie in a row of all three, and the points of their inputs. */
struct input {
  enum site site;
  int64_t first;
  int32_t heads;
};

/* The norm and the product once more, for the rows of one head's input; only that head's columns are kept. */
static void emit_head_input(struct pass *pass, const struct op *op, const struct op *norm, const struct input *inputs,
                            int n_inputs, int32_t head) {
  const struct instrument_buffers *to = &pass->in->buffers;
  int64_t d_head = pass->in->arch->d_head;
  struct op like = *op;
  like.width = norm->width;
  emit_copy(pass, &like, norm->u.norm.x, to->resid, norm->width);
  emit_columns(pass, &like, SITE_HEAD_IN, to->resid, head * norm->width, norm->width);
  if (n_inputs == 1) emit_columns(pass, &like, inputs->site, to->resid, head * norm->width, norm->width);
  emit_norm(pass, &like, OP_NORM, &norm->u.norm.norm, to->resid, to->normed);
  struct op *product = emit_as_is(pass, op);
  product->u.linear.x = to->normed;
  product->u.linear.y = to->qkv;
  for (int i = 0; i < n_inputs; i++) {
    int64_t column = inputs[i].first + head * d_head;
    emit_copy(pass, op, columns(to->qkv, column), columns(op->u.linear.y, column), d_head);
  }
}

/* Edited inputs of heads. hook_attn_in is the input of all three and the split ones are of one each; a request has the
 * former or the latter. */
static void emit_split_inputs(struct pass *pass, const struct op *op, const struct op *attend) {
  const struct arch *arch = pass->in->arch;
  const struct op *norm = find(pass, OP_NORM, SITE_LN1_SCALE);
  const struct input inputs[] = {{SITE_Q_IN, attend->u.attend.q, arch->n_head},
                                 {SITE_K_IN, attend->u.attend.k, arch->n_kv_head},
                                 {SITE_V_IN, attend->u.attend.v, arch->n_kv_head}};
  bool all = edits(pass, SITE_HEAD_IN);
  for (int32_t head = 0; all && head < arch->n_kv_head; head++) emit_head_input(pass, op, norm, inputs, 3, head);
  for (int i = 0; i < 3; i++)
    for (int32_t head = 0; edits(pass, inputs[i].site) && head < inputs[i].heads; head++)
      emit_head_input(pass, op, norm, &inputs[i], 1, head);
}

/* q, k and v as the product gives them; where they lie in its rows, the attention says. */
static void pass_qkv(struct pass *pass, const struct op *op) {
  const struct op *attend = find(pass, OP_ATTEND, 0);
  int64_t kv = (int64_t)attend->u.attend.n_kv_head * attend->u.attend.d_head;
  bool whole = attend->u.attend.v + kv <= op->u.linear.w->n_out; /* else v has a product of its own */
  emit_as_is(pass, op);
  emit_split_inputs(pass, op, attend);
  emit_point(pass, op, SITE_Q, columns(op->u.linear.y, attend->u.attend.q), attend->width);
  emit_point(pass, op, SITE_K, columns(op->u.linear.y, attend->u.attend.k), kv);
  if (whole) emit_point(pass, op, SITE_V, columns(op->u.linear.y, attend->u.attend.v), kv);
}

/* The heads of q and k are turned together. */
static void pass_rotate(struct pass *pass, const struct op *op) {
  const struct op *attend = find(pass, OP_ATTEND, 0);
  int64_t kv = (int64_t)attend->u.attend.n_kv_head * attend->u.attend.d_head;
  emit_as_is(pass, op);
  emit_point(pass, op, SITE_ROT_Q, columns(op->u.rotate.x, attend->u.attend.q), attend->width);
  emit_point(pass, op, SITE_ROT_K, columns(op->u.rotate.x, attend->u.attend.k), kv);
}

/* A norm of its own follows in the MLP. */
static void pass_solu(struct pass *pass, const struct op *op) {
  emit_as_is(pass, op);
  emit_point(pass, op, SITE_MLP_MID, op->u.solu.y, op->width);
}

static void pass_attend(struct pass *pass, const struct op *op) {
  bool open = wants(pass, SITE_SCORES) || wants(pass, SITE_PATTERN);
  emit_as_is(pass, op)->u.attend.bare = open;
  if (!open) return;
  emit(pass, op, OP_PATTERN, op->width)->u = op->u;
  emit_point(pass, op, SITE_ATTN_Z, op->u.attend.z, op->width);
}

/* What each head adds: z of that head alone through W_O. An edit goes to the sum as a difference. */
static void emit_results(struct pass *pass, const struct op *op) {
  const struct instrument_buffers *to = &pass->in->buffers;
  const struct arch *arch = pass->in->arch;
  int64_t d = op->u.linear.w->n_out;
  for (int32_t head = 0; head < arch->n_head; head++) {
    struct op *keep = emit(pass, op, OP_KEEP, op->u.linear.w->n_in);
    keep->u.gather.x = op->u.linear.x;
    keep->u.gather.y = to->heads;
    keep->u.gather.begin = (int64_t)head * arch->d_head;
    keep->u.gather.end = keep->u.gather.begin + arch->d_head;
    struct op *product = emit_as_is(pass, op);
    product->u.linear.x = to->heads;
    product->u.linear.y = to->resid;
    product->u.linear.bias.memory = NULL;
    if (edits(pass, SITE_RESULT)) emit_copy(pass, op, to->resid, to->normed, d);
    emit_columns(pass, op, SITE_RESULT, to->resid, head * d, d);
    if (!edits(pass, SITE_RESULT)) continue;
    struct op *delta = emit(pass, op, OP_DELTA, d);
    delta->u.point.x = to->resid;
    delta->u.point.before = to->normed;
    delta->u.point.to = op->u.linear.y;
    delta->u.point.site = SITE_RESULT;
  }
}

/* ---- the rest ---- */

static void pass_linear(struct pass *pass, const struct op *op) {
  enum site site = op->u.linear.site;
  int64_t width = op->u.linear.w->n_out;
  if (site == SITE_Q) {
    pass_qkv(pass, op);
    return;
  }
  bool split = site && wants(pass, site);
  struct op *product = emit_as_is(pass, op);
  if (split) {
    product->u.linear.act = ACT_NONE;
    product->u.linear.soft_cap = 0;
  }
  if (site == SITE_ATTN_RAW && wants(pass, SITE_RESULT)) emit_results(pass, op);
  if (site) emit_point(pass, op, site, op->u.linear.y, width);
  if (split && op->u.linear.act != ACT_NONE) {
    struct op *act = emit(pass, op, OP_GATE, width);
    act->u.gate.x = act->u.gate.y = op->u.linear.y;
    act->u.gate.act = op->u.linear.act;
  }
  if (split && op->u.linear.soft_cap > 0) emit(pass, op, OP_CAP, 0)->u = op->u;
}

static void pass_begin(struct pass *pass, const struct op *op) {
  bool split = op->layer == 0 && (wants(pass, SITE_EMBED) || wants(pass, SITE_POS_EMBED));
  struct op begin = *op;
  if (split) {
    begin.u.begin.embedded = pass->in->buffers.resid;
    begin.u.begin.placed = pass->in->buffers.normed;
    struct op *embed = emit(pass, op, OP_EMBED, op->width);
    embed->u = begin.u;
    embed->u.begin.positions = pass->in->positions;
    emit_point(pass, op, SITE_EMBED, begin.u.begin.embedded, op->width);
    emit_point(pass, op, SITE_POS_EMBED, begin.u.begin.placed, op->width);
  }
  emit_as_is(pass, &begin);
}

static void pass_op(struct pass *pass, const struct op *op) {
  switch (op->code) {
    case OP_BEGIN: pass_begin(pass, op); return;
    case OP_NORM: pass_norm(pass, op); return;
    case OP_GAIN: pass_gain(pass, op); return;
    case OP_SUBLAYER: pass_sublayer(pass, op); return;
    case OP_LINEAR: pass_linear(pass, op); return;
    case OP_ROTATE: pass_rotate(pass, op); return;
    case OP_SOLU: pass_solu(pass, op); return;
    case OP_ATTEND: pass_attend(pass, op); return;
    default: emit_as_is(pass, op); return;
  }
}

int instrument_segment(const struct instrument *instrument, const struct op *hot, size_t count, struct site_sets sets,
                       struct op_list *list, struct error *error) {
  struct pass pass = {.in = instrument, .hot = hot, .count = count, .sets = sets, .list = list, .error = error};
  for (size_t i = 0; i < count && !pass.failed; i++) pass_op(&pass, &hot[i]);
  return pass.failed ? -1 : 0;
}
