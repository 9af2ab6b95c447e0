/* vjp.c: the way back through one op (struct vjp of ops.h): which kernel it is, and with which rows. Never part of a graph, so the host knows
 * the rows of the step. Products and attention: vjp_product.c. */
#include <assert.h>

#include "core/base/checked.h"
#include "core/math/cuda/vjp.h"

#define ROW_BYTES ((size_t)16 << 20) /* of rows that edits are made again in */

/* The cotangents of rows that an op has, absent where they are. */
struct device_rows cotangents_of(const struct way_back *back, struct rows rows) {
  if (rows.at.memory) rows.at.memory = back->vjp->cotangents;
  return device_rows_of(rows);
}

static struct back_args back_args(const struct way_back *back, int64_t width, struct rows y, struct rows to) {
  const struct op *op = back->op;
  return (struct back_args){.table = back->cuda->tables.device, .code = (int32_t)op->code, .set = (int32_t)op->set, .layer = op->layer,
                            .point = -1, .first = back->rows.begin, .rows = back->rows.end - back->rows.begin, .width = width,
                            .y = cotangents_of(back, y), .to = cotangents_of(back, to)};
}

static int elements(const struct way_back *back, const struct back_args *args, struct error *error) {
  return cuda_check(back->cuda, launch_back_elements(back->cuda->stream, args), "the way back through elements", error);
}

int vjp_clear(const struct way_back *back, struct rows rows, int64_t width, struct error *error) {
  struct back_args args = back_args(back, width, rows, rows);
  args.code = OP_CODE_COUNT;
  return elements(back, &args, error);
}

/* ---- elements ---------------------------------------------------------------------------------------------------------------- */

static int back_gate(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  struct back_args args = back_args(back, op->width, op->u.gate.y, op->u.gate.x);
  args.act = (int32_t)op->u.gate.act;
  args.x = device_rows_of(op->u.gate.x);
  args.up = device_rows_of(op->u.gate.up);
  args.to_up = cotangents_of(back, op->u.gate.up);
  return elements(back, &args, error);
}

static int back_begin(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  if (!op->u.begin.embedded.at.memory) return 0;
  struct back_args args = back_args(back, op->width, op->u.begin.to, op->u.begin.embedded);
  if (op->u.begin.positions.memory) args.to_up = cotangents_of(back, op->u.begin.placed);
  return elements(back, &args, error);
}

static int back_cap(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  struct back_args args = back_args(back, op->u.linear.w->n_out, op->u.linear.y, op->u.linear.y);
  args.x = device_rows_of(op->u.linear.y);
  args.cap = op->u.linear.soft_cap;
  return elements(back, &args, error);
}

static int back_delta(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  struct back_args args = back_args(back, op->width, op->u.point.to, op->u.point.x);
  args.point = point_index((struct point){op->layer, op->u.point.site});
  args.to_up = cotangents_of(back, op->u.point.before);
  return elements(back, &args, error);
}

/* OP_COPY and OP_KEEP. */
static int back_copy(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  struct back_args args = back_args(back, op->width, op->u.gather.y, op->u.gather.x);
  args.begin = op->u.gather.begin;
  args.end = op->u.gather.end;
  return elements(back, &args, error);
}

static int back_place(const struct way_back *back, struct error *error) {
  struct back_args args = back_args(back, back->op->width, back->op->u.place.y, back->op->u.place.x);
  return elements(back, &args, error);
}

static int back_sublayer(const struct way_back *back, struct error *error) {
  struct back_args args = back_args(back, back->op->width, back->op->u.sublayer.resid, back->op->u.sublayer.out);
  return elements(back, &args, error);
}

static int back_gather(const struct way_back *back, struct error *error) {
  struct back_args args = back_args(back, back->op->width, back->op->u.gather.y, back->op->u.gather.x);
  return cuda_check(back->cuda, launch_back_gather(back->cuda->stream, &args), "the way back through gathered rows", error);
}

static int back_rotate(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  struct rotate_args args = {back->cuda->tables.device, (int32_t)op->set, op->layer, op->u.rotate.heads, (int32_t)op->width,
                             op->u.rotate.dims, (int32_t)op->u.rotate.pairing, cotangents_of(back, op->u.rotate.x),
                             span_floats(op->u.rotate.table), true};
  return cuda_check(back->cuda, launch_back_rotate(back->cuda->stream, back->rows.end, &args), "the way back through a rotation", error);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------------- */

/* OP_NORM and its three pieces. */
static int back_norm(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  const struct norm *norm = &op->u.norm.norm;
  bool scale = op->code == OP_NORM_SCALE;
  int64_t width = op->width * (op->u.norm.parts ? op->u.norm.parts : 1);
  struct back_args args = back_args(back, width, scale ? op->u.norm.scale : op->u.norm.y, op->u.norm.x);
  args.piece = op->width;
  args.norm = (struct device_norm){(int32_t)norm->kind, norm->eps, span_floats(norm->gain), NULL};
  args.hold = back->vjp->hold_norms;
  args.x = device_rows_of(op->u.norm.x);
  if (op->code == OP_GAIN || (op->code == OP_NORM && norm->kind == NORM_NONE)) return elements(back, &args, error);
  if (op->code != OP_NORM) args.up = device_rows_of(op->u.norm.scale);
  if (op->code != OP_NORM) args.to_up = cotangents_of(back, op->u.norm.scale);
  return cuda_check(back->cuda, launch_back_norm(back->cuda->stream, &args), "the way back through a norm", error);
}

static int back_solu(const struct way_back *back, struct error *error) {
  struct back_args args = back_args(back, back->op->width, back->op->u.solu.y, back->op->u.solu.x);
  args.x = device_rows_of(back->op->u.solu.x);
  return cuda_check(back->cuda, launch_back_solu(back->cuda->stream, &args), "the way back through a softmax", error);
}

static bool any_asks(const struct point_items *items) {
  for (int i = 0; i < items->n_edits; i++)
    if (edit_asks(items->edits[i].kind)) return true;
  return false;
}

/* As many rows together as have room for what was in front of their edits. */
static int back_point(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  struct point_items items = point_items(back->step, op->layer, op->u.point.site);
  struct back_args args = back_args(back, op->width, op->u.point.x, op->u.point.x);
  if (!items.n_edits) return 0;
  args.point = point_index((struct point){op->layer, op->u.point.site});
  args.begin = op->u.point.column;
  if (any_asks(&items)) {
    size_t row = (size_t)op->width * sizeof(float), together = size_max(ROW_BYTES / row, 1);
    assert(op->u.point.before.at.memory);
    args.up = device_rows_of(op->u.point.before);
    args.rows = (int32_t)size_min(together, (size_t)args.rows);
    args.scratch = cuda_scratch(back->cuda, SCRATCH_BACK, (size_t)args.rows * row, error);
    if (!args.scratch) return -1;
  }
  for (int32_t each = args.rows; args.first < back->rows.end; args.first += each) {
    args.rows = back->rows.end - args.first < each ? back->rows.end - args.first : each;
    if (cuda_check(back->cuda, launch_back_point(back->cuda->stream, &args), "the way back through edits", error) != 0) return -1;
  }
  return 0;
}

/* ---- one op ------------------------------------------------------------------------------------------------------------------------ */

/* Its kernels read the step's tables. */
static bool looks_up(enum op_code code) { return code == OP_GATHER || code == OP_ROTATE || code == OP_POINT || code == OP_DELTA; }

static int go_back(const struct way_back *back, struct error *error) {
  switch (back->op->code) {
    case OP_BEGIN: return back_begin(back, error);
    case OP_EMBED: return 0;
    case OP_NORM:
    case OP_NORM_SCALE:
    case OP_NORMALIZE:
    case OP_GAIN: return back_norm(back, error);
    case OP_LINEAR: return vjp_linear(back, error);
    case OP_GATE: return back_gate(back, error);
    case OP_SOLU: return back_solu(back, error);
    case OP_PLACE: return back_place(back, error);
    case OP_ROTATE: return back_rotate(back, error);
    case OP_ATTEND: return vjp_attend(back, error);
    case OP_SUBLAYER: return back_sublayer(back, error);
    case OP_POINT: return back_point(back, error);
    case OP_COPY:
    case OP_KEEP: return back_copy(back, error);
    case OP_CAP: return back_cap(back, error);
    case OP_DELTA: return back_delta(back, error);
    case OP_GATHER: return back_gather(back, error);
    default: break;
  }
  assert(!"an op without a way back");
  return -1;
}

int cuda_vjp(struct backend *backend, const struct op *op, const struct step *step, const struct vjp *vjp, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  struct way_back back = {cuda, op, step, vjp, op_rows(op, step)};
  if (back.rows.begin >= back.rows.end) return 0;
  if (cuda_begin(cuda, error) != 0 || (looks_up(op->code) && cuda_tables_fill(cuda, step, error) != 0)) return -1;
  if (cuda->watch)
    watch_op(cuda->watch, cuda->stream, "way back", back.rows.end - back.rows.begin, op->code == OP_LINEAR ? op->u.linear.w : NULL);
  return go_back(&back, error);
}
