/* run.c: a list of ops as launches of kernels. Knows which ops go together in one launch, and how large a launch is.
 *
 * Launches depend on the list and on a `struct shape`, never on a number of the step: kernels find those in the tables. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define PATTERN_BYTES ((size_t)64 << 20)
#define HEAD_WIDTH 1024                 /* of heads that attention norms itself: as wide as norms with its number of threads */
#define AHEAD_BYTES ((size_t)16 << 20) /* of keys and values that are asked for before their turn: part of any cache they go to */

/* How keys and values are kept (cache.cuh). Where the order of sums is promised, so is the precision of every term: f32. */
static enum dtype kept_type(const struct cuda_backend *cuda, enum dtype wish) {
  return !cuda->deterministic && (wish == DTYPE_F16 || wish == DTYPE_BF16) ? wish : DTYPE_F32;
}

/* Elements of a head there: whole pieces of 16 bytes. */
static size_t kept_width(int32_t d_head, enum dtype kept) { return size_round_up((size_t)d_head, 16 / dtype_size(kept)); }

size_t cuda_kv_block_bytes(struct backend *backend, int32_t n_kv_head, int32_t d_head, enum dtype wish) {
  enum dtype kept = kept_type((const struct cuda_backend *)backend, wish);
  return (size_t)n_kv_head * 2 * KV_BLOCK * kept_width(d_head, kept) * dtype_size(kept);
}

struct walk {
  struct cuda_backend *cuda;
  const struct op *list;
  size_t count;
  const struct step *step;
  const struct shape *shape;
  const struct table *table; /* on the device */
  const struct op *narrowed; /* a product whose x lies narrowed, the last or the next one */
  enum scratch_name narrow_in; /* and where */
};

/* For who watches: what the next launches are for. */
static void name_op(const struct walk *w, const struct op *op) {
  static const char *const names[] = {
      "begin", "norm", "norm scale", "normalize", "gain", "linear", "gate", "softmax units", "place", "rotate", "attend",
      "sublayer", "point", "embed", "pattern", "keep", "cap", "delta", "gather", "copy", "hold", "splice", "put"};
  _Static_assert(sizeof names / sizeof *names == OP_CODE_COUNT, "an op without a name");
  watch_op(w->cuda->watch, w->cuda->stream, names[op->code], bucket_rows(&w->shape->bucket, op->set),
           op->code == OP_LINEAR ? op->u.linear.w : NULL);
}

static int32_t point_of(const struct op *op, enum site site) { return point_index((struct point){op->layer, site}); }

static struct device_norm norm_view(const struct norm *norm) {
  return (struct device_norm){(int32_t)norm->kind, norm->eps, span_floats(norm->gain), span_floats(norm->bias)};
}

static size_t behind(const struct walk *w, const struct op *op) { return (size_t)(op - w->list) + 1; }

static bool same_rows(struct rows a, struct rows b) {
  return a.at.memory == b.at.memory && a.at.offset == b.at.offset && a.ld == b.ld;
}

/* ---- what the next product reads ------------------------------------------------------------------------------------- */

/* A point that no edit and no tap of the step is at, of those that steps without them do not pass. */
static bool is_idle(const struct walk *w, const struct op *op) {
  return op->code == OP_POINT && op->u.point.site == SITE_MLP_POST && !w->shape->mlp_items;
}

/* Where rows of width `width` at y are to be put once more, narrowed, because what comes at `next` is a product of them; nowhere
 * otherwise. Whoever asks launches the last kernel that changes them. */
static int narrow_for(struct walk *w, int32_t set, int32_t layer, size_t next, struct device_rows y, int64_t width, struct narrow_rows *out,
                      struct error *error) {
  while (next < w->count && is_idle(w, &w->list[next])) next++;
  const struct op *product = &w->list[next];
  *out = (struct narrow_rows){0};
  if (next >= w->count || product->code != OP_LINEAR || (int32_t)product->set != set || product->layer != layer ||
      product->u.linear.w->n_in != width)
    return 0;
  struct device_rows x = device_rows_of(product->u.linear.x);
  struct device_matrix m = cuda_matrix_view(product->u.linear.w);
  if (x.at != y.at || x.ld != y.ld) return 0;
  int64_t rows = bucket_rows(&w->shape->bucket, product->set);
  if (m.dtype == DTYPE_F32 || m.ld != width || cuda_product_few(w->cuda, rows, m.dtype)) return 0;
  w->narrowed = product;
  return cuda_narrow_rows(w->cuda, w->narrow_in, rows, &m, out, error);
}

/* ---- the residual: sublayer, begin and norm in one launch ----------------------------------------------------------- */

static struct row_args no_stages(const struct walk *w, int64_t width, struct rows resid) {
  return (struct row_args){.table = w->table, .width = width, .resid = device_rows_of(resid), .sub_layer = -1, .out_point = -1,
                           .resid_point = -1, .begin_layer = -1, .begin_point = -1, .norm_layer = -1};
}

/* next: the op behind those that it does. */
static int launch_stages(struct walk *w, struct row_args *args, size_t next, struct error *error) {
  if (args->norm_layer >= 0 &&
      narrow_for(w, args->norm_set, args->norm_layer, next, args->y, args->width, &args->narrow, error) != 0)
    return -1;
  return cuda_check(w->cuda, launch_rows(w->cuda->stream, &w->shape->bucket, args), "a step over rows", error);
}

static size_t take_product(const struct walk *w, size_t at, struct rows_product_args *both);

/* The stages of `taken` ops at `at`, and a product behind them that one kernel does along with them. Returns how many ops that are, or -1. */
static int finish_stages(struct walk *w, size_t at, size_t taken, struct row_args *args, struct error *error) {
  struct rows_product_args both = {.rows = *args};
  size_t more = take_product(w, at + taken, &both);
  if (!more) return launch_stages(w, args, at + taken, error) != 0 ? -1 : (int)taken;
  if (w->cuda->watch) name_op(w, &w->list[at + taken]);
  both.count = cuda_scratch(w->cuda, SCRATCH_ARRIVED, sizeof *both.count, error);
  if (!both.count) return -1;
  cudaError_t status = launch_rows_product(w->cuda->stream, &w->shape->bucket, &both);
  return cuda_check(w->cuda, status, "a step over rows and a product", error) != 0 ? -1 : (int)(taken + more);
}

static void stage_begin(const struct op *op, struct row_args *args) {
  args->begin_layer = op->layer;
  args->begin_point = op->u.begin.bare ? -1 : point_of(op, SITE_RESID_PRE);
  args->origins = true;
  args->embed = cuda_matrix_view(op->u.begin.embed);
  args->positions = span_floats(op->u.begin.positions);
  args->embed_scale = op->u.begin.embed_scale;
  args->embedded = device_rows_of(op->u.begin.embedded);
  args->placed = device_rows_of(op->u.begin.placed);
}

static void stage_norm(const struct op *op, const struct norm *norm, struct rows y, struct row_args *args) {
  args->norm_set = (int32_t)op->set;
  args->norm_layer = op->layer;
  args->norm = norm_view(norm);
  args->y = device_rows_of(y);
}

/* A norm of whole rows of `resid`, which the launch before it holds in its hands. */
static bool norm_follows(const struct op *op, struct rows resid, int64_t width) {
  return op->code == OP_NORM && op->u.norm.parts <= 1 && op->width == width && op->set != ROWS_LOGIT &&
         same_rows(op->u.norm.x, resid) && !same_rows(op->u.norm.y, resid);
}

/* The norm at `next`, if it is one of these rows. Returns how many ops that are. */
static size_t take_norm(const struct walk *w, size_t next, struct rows resid, int64_t width, struct row_args *args) {
  if (next >= w->count || !norm_follows(&w->list[next], resid, width)) return 0;
  stage_norm(&w->list[next], &w->list[next].u.norm.norm, w->list[next].u.norm.y, args);
  return 1;
}

/* Rows that begin above layer 0 may copy a row that another block works on: first all copies, then the edits. */
static int run_arrivals(struct walk *w, const struct op *op, struct error *error) {
  struct row_args args = no_stages(w, op->width, op->u.begin.to);
  stage_begin(op, &args);
  args.begin_point = -1;
  if (launch_stages(w, &args, w->count, error) != 0) return -1;
  if (op->u.begin.bare) return 0;
  args.origins = false;
  args.begin_point = point_of(op, SITE_RESID_PRE);
  return launch_stages(w, &args, w->count, error);
}

static int run_begin(struct walk *w, size_t at, struct error *error) {
  const struct op *op = &w->list[at];
  if (w->shape->arrivals && op->layer > 0) return run_arrivals(w, op, error) != 0 ? -1 : 1;
  struct row_args args = no_stages(w, op->width, op->u.begin.to);
  stage_begin(op, &args);
  size_t taken = 1 + take_norm(w, at + 1, op->u.begin.to, op->width, &args);
  return finish_stages(w, at, taken, &args, error);
}

/* A norm of what a sublayer gives, in place, which its sum with the residual follows. */
static bool is_output_norm(const struct walk *w, size_t at) {
  if (at + 1 >= w->count) return false;
  const struct op *op = &w->list[at], *next = op + 1;
  return next->code == OP_SUBLAYER && op->u.norm.parts <= 1 && op->set == next->set && op->layer == next->layer &&
         op->width == next->width && same_rows(op->u.norm.x, next->u.sublayer.out) && same_rows(op->u.norm.y, next->u.sublayer.out);
}

static int run_sublayer(struct walk *w, size_t at, const struct norm *out_norm, struct error *error) {
  const struct op *op = &w->list[at], *next = op + 1;
  struct row_args args = no_stages(w, op->width, op->u.sublayer.resid);
  size_t taken = 1;
  if (out_norm) args.out_norm = norm_view(out_norm);
  args.sub_set = (int32_t)op->set;
  args.sub_layer = op->layer;
  args.out = device_rows_of(op->u.sublayer.out);
  args.out_point = op->u.sublayer.out_site ? point_of(op, op->u.sublayer.out_site) : -1;
  args.resid_point = op->u.sublayer.resid_site ? point_of(op, op->u.sublayer.resid_site) : -1;
  if (op->u.sublayer.norm.kind != NORM_NONE) {
    stage_norm(op, &op->u.sublayer.norm, op->u.sublayer.y, &args);
  } else if (op->set != ROWS_LOGIT) {
    bool begins = at + 1 < w->count && next->code == OP_BEGIN && next->set == ROWS_ARRIVING && next->width == op->width &&
                  same_rows(next->u.begin.to, op->u.sublayer.resid) && !w->shape->arrivals;
    if (begins) stage_begin(next, &args);
    taken += begins;
    taken += take_norm(w, at + taken, op->u.sublayer.resid, op->width, &args);
  }
  return finish_stages(w, at, taken, &args, error);
}

/* from: rows of the step that are gathered for it; NULL: its own. */
static int run_norm(struct walk *w, const struct op *op, const struct rows *from, struct error *error) {
  struct norm_args args = {.table = w->table, .code = (int32_t)op->code, .set = (int32_t)op->set, .layer = op->layer,
                           .parts = op->u.norm.parts ? op->u.norm.parts : 1, .gathers = from, .width = op->width,
                           .x = device_rows_of(from ? *from : op->u.norm.x), .y = device_rows_of(op->u.norm.y),
                           .scale = device_rows_of(op->u.norm.scale), .norm = norm_view(&op->u.norm.norm)};
  if (op->code == OP_NORM && args.parts == 1 &&
      narrow_for(w, args.set, args.layer, behind(w, op), args.y, args.width, &args.narrow, error) != 0)
    return -1;
  return cuda_check(w->cuda, launch_norm(w->cuda->stream, &w->shape->bucket, &args), "a norm", error);
}

static int run_solu(struct walk *w, const struct op *op, struct error *error) {
  struct solu_args args = {w->table, (int32_t)op->set, op->layer, op->width, device_rows_of(op->u.solu.x),
                           device_rows_of(op->u.solu.y)};
  return cuda_check(w->cuda, launch_solu(w->cuda->stream, &w->shape->bucket, &args), "a softmax", error);
}

static int run_point(struct walk *w, const struct op *op, struct error *error) {
  struct point_args args = {w->table, (int32_t)op->set, op->layer, point_of(op, op->u.point.site), op->u.point.column,
                            op->width, device_rows_of(op->u.point.x), op->u.point.part, op->u.point.taps, op->u.point.first,
                            op->u.point.last, {0}};
  if (is_idle(w, op)) return 0;
  if (!args.part && args.column == 0 && narrow_for(w, args.set, args.layer, behind(w, op), args.x, args.width, &args.narrow, error) != 0)
    return -1;
  return cuda_check(w->cuda, launch_point(w->cuda->stream, &w->shape->bucket, &args), "edits and taps", error);
}

/* ---- elements --------------------------------------------------------------------------------------------------------- */

static struct element_args element_args(const struct walk *w, const struct op *op, struct rows x, struct rows y) {
  return (struct element_args){.table = w->table, .code = (int32_t)op->code, .set = (int32_t)op->set, .layer = op->layer,
                               .point = -1, .width = op->width, .x = device_rows_of(x), .y = device_rows_of(y)};
}

static int run_elements(struct walk *w, const struct op *op, struct error *error) {
  struct element_args args;
  switch (op->code) {
    case OP_GATE:
      args = element_args(w, op, op->u.gate.x, op->u.gate.y);
      args.up = device_rows_of(op->u.gate.up);
      args.act = (int32_t)op->u.gate.act;
      break;
    case OP_PLACE:
      args = element_args(w, op, op->u.place.x, op->u.place.y);
      args.places = span_floats(op->u.place.table);
      break;
    case OP_CAP:
      args = element_args(w, op, op->u.linear.y, op->u.linear.y);
      args.width = op->u.linear.w->n_out;
      args.scale = op->u.linear.soft_cap;
      break;
    case OP_DELTA:
      args = element_args(w, op, op->u.point.x, op->u.point.to);
      args.up = device_rows_of(op->u.point.before);
      args.point = point_of(op, op->u.point.site);
      break;
    case OP_EMBED:
      args = element_args(w, op, op->u.begin.embedded, op->u.begin.placed);
      args.places = span_floats(op->u.begin.positions);
      args.scale = op->u.begin.embed_scale;
      args.embed = cuda_matrix_view(op->u.begin.embed);
      break;
    default: /* OP_GATHER, OP_COPY, OP_KEEP */
      args = element_args(w, op, op->u.gather.x, op->u.gather.y);
      args.begin = op->u.gather.begin;
      args.end = op->u.gather.end;
      if (op->code == OP_GATHER) args.set = ROWS_LOGIT;
      break;
  }
  bool puts = op->code == OP_GATE || op->code == OP_PLACE || op->code == OP_GATHER;
  if (puts && narrow_for(w, args.set, args.layer, behind(w, op), args.y, args.width, &args.narrow, error) != 0) return -1;
  return cuda_check(w->cuda, launch_elements(w->cuda->stream, &w->shape->bucket, &args), "a step over elements", error);
}

static int run_rotate(struct walk *w, const struct op *op, struct error *error) {
  struct rotate_args args = {w->table, (int32_t)op->set, op->layer, op->u.rotate.heads, (int32_t)op->width,
                             op->u.rotate.dims, (int32_t)op->u.rotate.pairing, device_rows_of(op->u.rotate.x),
                             span_floats(op->u.rotate.table), false};
  return cuda_check(w->cuda, launch_rotate(w->cuda->stream, &w->shape->bucket, &args), "a rotation", error);
}

/* ---- products and attention ----------------------------------------------------------------------------------------------- */

/* x lies narrowed, for this product or for one before it of the same rows by weights of the same type. */
static bool narrowed_already(const struct walk *w, const struct op *op) {
  const struct op *last = w->narrowed;
  return last && last->u.linear.w->dtype != DTYPE_F32 && last->set == op->set && last->layer == op->layer && same_rows(last->u.linear.x, op->u.linear.x) &&
         last->u.linear.w->n_in == op->u.linear.w->n_in && last->u.linear.w->dtype == op->u.linear.w->dtype;
}

static struct product_args product_args(const struct walk *w, const struct op *op) {
  return (struct product_args){.table = w->table, .set = (int32_t)op->set, .layer = op->layer,
                               .w = cuda_matrix_view(op->u.linear.w), .x = device_rows_of(op->u.linear.x),
                               .y = device_rows_of(op->u.linear.y), .bias = span_floats(op->u.linear.bias),
                               .act = (int32_t)op->u.linear.act, .soft_cap = op->u.linear.soft_cap, .room = op->u.linear.room};
}

static bool is_plain(const struct op *op) { return op->code == OP_LINEAR && op->u.linear.act == ACT_NONE && op->u.linear.soft_cap == 0; }

/* A product, that of its gate from the same x, and what the two make: in one launch, where the kernel can. The gate by itself
 * is never written; lists that look at it have something between the three. What they make must not lie where x does, which
 * blocks still read. */
static bool take_gate(const struct walk *w, size_t at, struct product_args *args) {
  if (at + 3 > w->count) return false;
  const struct op *up = &w->list[at], *gate = up + 1, *join = up + 2;
  if (!is_plain(up) || !is_plain(gate) || join->code != OP_GATE || gate->set != up->set || join->set != up->set ||
      gate->layer != up->layer || join->layer != up->layer || !same_rows(gate->u.linear.x, up->u.linear.x) ||
      !same_rows(join->u.gate.up, up->u.linear.y) || !same_rows(join->u.gate.x, gate->u.linear.y) ||
      same_rows(up->u.linear.y, gate->u.linear.y) || same_rows(join->u.gate.y, up->u.linear.x))
    return false;
  struct device_matrix v = cuda_matrix_view(up->u.linear.w), g = cuda_matrix_view(gate->u.linear.w);
  int64_t rows = bucket_rows(&w->shape->bucket, up->set);
  bool few = cuda_product_few(w->cuda, rows, v.dtype);
  bool takes = few ? v.dtype == DTYPE_F32 || product_takes_gate(&v, &args->x) : cuda_product_small(w->cuda, rows, &v);
  if (v.n_out != g.n_out || v.n_in != g.n_in || v.dtype != g.dtype || join->width != v.n_out || !takes)
    return false;
  args->gate = g;
  args->gate_bias = span_floats(gate->u.linear.bias);
  args->act = (int32_t)join->u.gate.act;
  args->y = device_rows_of(join->u.gate.y);
  return true;
}

/* The product at `at`, with its gate, if it is of what the norm of these rows gives, and may be done with them. Returns how many ops. */
static size_t take_product(const struct walk *w, size_t at, struct rows_product_args *both) {
  const struct row_args *rows = &both->rows;
  const struct op *op = &w->list[at];
  if (w->cuda->apart || at >= w->count || op->code != OP_LINEAR || rows->norm_layer < 0 || (int32_t)op->set != rows->norm_set ||
      op->set == ROWS_LOGIT || op->layer != rows->norm_layer)
    return 0;
  both->product = product_args(w, op);
  const float *x = both->product.x.at;
  bool gated = take_gate(w, at, &both->product);
  const float *y = both->product.y.at;
  bool its = x == rows->y.at && op->u.linear.x.ld == rows->y.ld, aside = y != rows->resid.at && y != rows->out.at && y != x;
  if (!its || !aside || !rows_take_product(&w->shape->bucket, both)) return 0;
  return gated ? 3 : 1;
}

/* How many ops were done, or -1. */
static int run_linear(struct walk *w, size_t at, struct error *error) {
  const struct op *op = &w->list[at];
  struct product_args args = product_args(w, op);
  struct narrow_x x = {w->narrow_in, narrowed_already(w, op)};
  size_t done = take_gate(w, at, &args) ? 3 : 1;
  w->narrowed = op;
  w->narrow_in = x.in == SCRATCH_NARROW ? SCRATCH_NARROW_NEXT : SCRATCH_NARROW; /* its kernel still reads x when it writes y */
  if (narrow_for(w, args.set, args.layer, at + done, args.y, args.w.n_out, &args.narrow, error) != 0) return -1;
  if (!args.narrow.at) w->narrow_in = x.in;
  return cuda_product(w->cuda, bucket_rows(&w->shape->bucket, op->set), &args, x, error) != 0 ? -1 : (int)done;
}

static struct attend_args attend_args(const struct walk *w, const struct op *op) {
  enum dtype kept = kept_type(w->cuda, op->u.attend.kv);
  return (struct attend_args){.table = w->table, .layer = op->layer, .n_head = op->u.attend.n_head,
                              .n_kv_head = op->u.attend.n_kv_head, .d_head = op->u.attend.d_head,
                              .window = op->u.attend.window, .scale = op->u.attend.scale,
                              .soft_cap = op->u.attend.soft_cap, .qkv = device_rows_of(op->u.attend.qkv),
                              .z = device_rows_of(op->u.attend.z), .q = op->u.attend.q, .k = op->u.attend.k,
                              .v = op->u.attend.v, .point = op->u.attend.bare ? -1 : point_of(op, SITE_ATTN_Z),
                              .kv_type = (int32_t)kept, .kv_width = (int32_t)kept_width(op->u.attend.d_head, kept),
                              .kv_element = (int32_t)dtype_size(kept),
                              .block_bytes = cuda_kv_block_bytes(&w->cuda->base, op->u.attend.n_kv_head, op->u.attend.d_head,
                                                                 op->u.attend.kv)};
}

static int run_attend(struct walk *w, const struct op *op, struct attend_args args, struct error *error) {
  const struct bucket *bucket = &w->shape->bucket;
  cudaStream_t stream = w->cuda->stream;
  int64_t width = (int64_t)args.n_head * args.d_head;
  struct point_args z = {.table = w->table, .set = ROWS_ACTIVE, .layer = args.layer, .point = w->shape->z_items ? args.point : -1,
                         .width = width, .x = args.z};
  args.prompts = w->shape->prompts && args.kv_type != DTYPE_F32 && args.d_head <= PROMPT_HEAD;
  args.point = width <= ATTEND_POINT_WIDTH && !args.prompts ? z.point : -1;
  args.work = w->shape->work + (w->shape->prompts && !args.prompts ? bucket->rows : 0);
  if (w->shape->spread) {
    size_t places = size_min((size_t)w->shape->work, WORK_MOST_SPREAD);
    args.partial = cuda_scratch(w->cuda, SCRATCH_PARTIAL, attend_partial_floats(&args, (int32_t)places) * sizeof(float), error);
    if (!args.partial) return -1;
  }
  args.count = cuda_scratch(w->cuda, SCRATCH_ARRIVED, attend_counts(&args, bucket->rows) * sizeof *args.count, error);
  if (!args.count) return -1;
  if (narrow_for(w, ROWS_ACTIVE, args.layer, behind(w, op), args.z, width, z.point == args.point ? &args.narrow : &z.narrow, error) != 0)
    return -1;
  args.own = w->shape->single;
  args.ahead = args.own && (size_t)w->shape->work * args.block_bytes * 2 <= AHEAD_BYTES;
  if (!args.own && cuda_check(w->cuda, launch_attend_store(stream, bucket, &args), "keeping keys and values", error) != 0) return -1;
  if (args.prompts && cuda_check(w->cuda, launch_attend_prompt(stream, bucket, &args), "attention of prompts", error) != 0) return -1;
  if (args.work && cuda_check(w->cuda, launch_attend(stream, &args), "attention", error) != 0) return -1;
  return z.point == args.point ? 0 : cuda_check(w->cuda, launch_point(stream, bucket, &z), "edits and taps", error);
}

/* ---- what is done to the heads of q and k before they meet: one launch with attention where every text has one row ------------- */

static struct rows columns_from(struct rows rows, int64_t column) {
  rows.at = span_at(rows.at, (size_t)column * sizeof(float));
  return rows;
}

/* In place, of the `heads` heads from a column of the attention's rows on. */
static bool is_head_norm(const struct op *op, const struct op *attend, int64_t column, int32_t heads) {
  return op->code == OP_NORM && op->layer == attend->layer && op->set == attend->set && op->u.norm.norm.kind == NORM_RMS &&
         op->u.norm.parts == heads && op->width == attend->u.attend.d_head && same_rows(op->u.norm.x, op->u.norm.y) &&
         same_rows(op->u.norm.x, columns_from(attend->u.attend.qkv, column));
}

static bool is_turn(const struct op *op, const struct op *attend) {
  int32_t n_head = attend->u.attend.n_head, d_head = attend->u.attend.d_head;
  return op->code == OP_ROTATE && op->layer == attend->layer && op->set == attend->set && op->width == d_head &&
         op->u.rotate.heads == n_head + attend->u.attend.n_kv_head && op->u.rotate.dims <= 2 * ATTEND_CHUNK &&
         attend->u.attend.k == attend->u.attend.q + (int64_t)n_head * d_head &&
         same_rows(op->u.rotate.x, columns_from(attend->u.attend.qkv, attend->u.attend.q));
}

/* The attention that follows within the ops of its heads; NULL where there is none, or its heads are read once more afterwards. */
static const struct op *attend_behind(const struct walk *w, size_t at) {
  for (size_t i = at; i < w->count && i <= at + 3; i++) {
    const struct op *op = &w->list[i];
    if (op->code == OP_ATTEND) return op->u.attend.bare || op->u.attend.d_head > HEAD_WIDTH ? NULL : op;
    if (op->code != OP_NORM && op->code != OP_ROTATE) return NULL;
  }
  return NULL;
}

/* Norms of q and k, turns and attention, from whichever stands at `at`. Returns how many ops that are, 0: it is something else. */
static int run_heads(struct walk *w, size_t at, struct error *error) {
  const struct op *attend = w->shape->single ? attend_behind(w, at) : NULL, *op = &w->list[at];
  if (!attend) return 0;
  struct attend_args args = attend_args(w, attend);
  if (is_head_norm(op, attend, attend->u.attend.q, attend->u.attend.n_head)) args.q_norm = norm_view(&op++->u.norm.norm);
  if (is_head_norm(op, attend, attend->u.attend.k, attend->u.attend.n_kv_head)) args.k_norm = norm_view(&op++->u.norm.norm);
  if (is_turn(op, attend)) {
    args.dims = op->u.rotate.dims;
    args.pairing = (int32_t)op->u.rotate.pairing;
    args.turns = span_floats(op++->u.rotate.table);
  }
  if (op != attend) return 0;
  return run_attend(w, attend, args, error) != 0 ? -1 : (int)(attend - &w->list[at]) + 1;
}

/* Never in a graph: it is run for the few steps that look at scores, some rows at a time. */
static int run_pattern(struct walk *w, const struct op *op, struct error *error) {
  struct attend_args args = attend_args(w, op);
  struct row_range rows = op_rows(op, w->step);
  args.scores_point = point_of(op, SITE_SCORES);
  args.pattern_point = point_of(op, SITE_PATTERN);
  for (int i = 0; w->step->keys && i < w->step->n_slots; i++)
    if (w->step->keys[i] > args.most_keys) args.most_keys = w->step->keys[i];
  size_t row = size_max((size_t)args.n_head * (size_t)args.most_keys, 1) * sizeof(float);
  int32_t together = (int32_t)size_min(size_max(PATTERN_BYTES / row, 1), (size_t)w->shape->bucket.rows);
  args.scratch = cuda_scratch(w->cuda, SCRATCH_PATTERN, (size_t)together * row, error);
  if (!args.scratch) return -1;
  for (args.first = rows.begin; args.first < rows.end; args.first += together) {
    int32_t n = rows.end - args.first < together ? rows.end - args.first : together;
    if (cuda_check(w->cuda, launch_pattern(w->cuda->stream, n, &args), "attention written out", error) != 0) return -1;
  }
  return 0;
}

/* ---- the list ----------------------------------------------------------------------------------------------------------------- */

static int one(int failed) { return failed ? -1 : 1; }

/* A norm by itself, or with what stands behind it. */
static int run_norms(struct walk *w, size_t at, struct error *error) {
  const struct op *op = &w->list[at];
  int done = run_heads(w, at, error);
  if (done) return done;
  if (!is_output_norm(w, at)) return one(run_norm(w, op, NULL, error));
  done = run_sublayer(w, at + 1, &op->u.norm.norm, error);
  return done < 0 ? -1 : done + 1;
}

/* Rows that are gathered and then normed where they lie, as those of logits are: in one launch. */
static int run_gather(struct walk *w, size_t at, struct error *error) {
  const struct op *op = &w->list[at], *next = op + 1;
  bool normed = at + 1 < w->count && next->code == OP_NORM && next->set == ROWS_LOGIT && next->u.norm.parts <= 1 && next->width == op->width &&
                same_rows(next->u.norm.x, op->u.gather.y) && same_rows(next->u.norm.y, op->u.gather.y);
  if (!normed) return one(run_elements(w, op, error));
  return run_norm(w, next, &op->u.gather.x, error) != 0 ? -1 : 2;
}

/* How many ops were done together, or -1. */
static int run_op(struct walk *w, size_t at, struct error *error) {
  const struct op *op = &w->list[at];
  int done;
  if (op->code != OP_LINEAR && !is_idle(w, op)) w->narrowed = NULL;
  switch (op->code) {
    case OP_BEGIN: return run_begin(w, at, error);
    case OP_SUBLAYER: return run_sublayer(w, at, NULL, error);
    case OP_NORM: return run_norms(w, at, error);
    case OP_NORM_SCALE:
    case OP_NORMALIZE:
    case OP_GAIN: return one(run_norm(w, op, NULL, error));
    case OP_LINEAR: return run_linear(w, at, error);
    case OP_SOLU: return one(run_solu(w, op, error));
    case OP_ROTATE: done = run_heads(w, at, error); return done ? done : one(run_rotate(w, op, error));
    case OP_ATTEND: return one(run_attend(w, op, attend_args(w, op), error));
    case OP_PATTERN: return one(run_pattern(w, op, error));
    case OP_POINT: return one(run_point(w, op, error));
    case OP_GATHER: return run_gather(w, at, error);
    case OP_HOLD: return one(cuda_hold(w->cuda, w->table, op, error));
    case OP_SPLICE: return one(cuda_splice(w->cuda, w->table, op, error));
    case OP_PUT: return one(cuda_put(w->cuda, w->table, op, error));
    case OP_GATE:
    case OP_PLACE:
    case OP_EMBED:
    case OP_KEEP:
    case OP_CAP:
    case OP_DELTA:
    case OP_COPY: return one(run_elements(w, op, error));
    case OP_CODE_COUNT: break;
  }
  assert(!"unknown op");
  return -1;
}

/* A set that has no rows at all needs no launch; ranges of layers are the kernels' affair. */
static bool set_is_empty(const struct walk *w, const struct op *op) {
  bool logit = op->set == ROWS_LOGIT || op->code == OP_GATHER;
  return (logit ? w->shape->bucket.logit_rows : w->shape->bucket.rows) == 0;
}

int cuda_launch_list(struct cuda_backend *cuda, const struct op *list, size_t count, const struct step *step,
                     const struct shape *shape, struct error *error) {
  struct walk w = {.cuda = cuda, .list = list, .count = count, .step = step, .shape = shape, .table = cuda->tables.device,
                   .narrow_in = SCRATCH_NARROW};
  for (size_t i = 0; i < count;) {
    if (cuda->watch) name_op(&w, &list[i]);
    int done = set_is_empty(&w, &list[i]) ? 1 : run_op(&w, i, error);
    if (done < 0) return -1;
    i += (size_t)done;
  }
  return 0;
}

/* ---- shapes ----------------------------------------------------------------------------------------------------------------------- */

static int32_t power_above(int32_t n) {
  int32_t power = 1;
  while (power < n) power *= 2;
  return power;
}

/* Few graphs for all batches of a running server: powers of two, then steps of 64; large steps are as large as they are. */
static int32_t bucket_of(int32_t rows) {
  if (rows <= 0) return 0;
  if (rows <= 64) return power_above(rows);
  return rows <= 256 ? (rows + 63) / 64 * 64 : rows;
}

/* The same for blocks of attention, which grow with every text; those that find nothing to do cost a little each. */
static int32_t work_bucket(int32_t n, int32_t rows) {
  int32_t power = power_above(n), part = power <= 1024 ? power : power / 8;
  return rows <= 256 ? (n + part - 1) / part * part : n;
}

static bool any_items(const struct step *step, enum site site) {
  for (int32_t layer = 0; layer < step->n_layer; layer++) {
    struct point_items items = point_items(step, layer, site);
    if (items.n_edits + items.n_taps) return true;
  }
  return false;
}

static struct shape shape_of(const struct step *step) {
  struct shape shape;
  struct work_size work = cuda_work_size(step);
  memset(&shape, 0, sizeof shape); /* shapes are compared as bytes */
  shape.single = true;
  shape.bucket.rows = bucket_of(step->n_rows);
  shape.bucket.logit_rows = bucket_of(step->n_logit_rows);
  for (int i = 0; i < step->n_slots; i++) {
    const struct step_slot *s = &step->slots[i];
    shape.arrivals |= s->first > 0;
    shape.single &= s->rows.end - s->rows.begin == 1;
    shape.prompts |= s->rows.end - s->rows.begin >= PROMPT_ROWS;
  }
  shape.work = work_bucket(work.n[WORK_WALKED] + work.n[WORK_SPREAD], step->n_rows);
  shape.spread = work.n[WORK_SPREAD] > 0;
  shape.z_items = any_items(step, SITE_ATTN_Z);
  shape.mlp_items = any_items(step, SITE_MLP_POST);
  return shape;
}

int cuda_run(struct backend *backend, const struct op *list, size_t count, const struct step *step, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  struct shape shape = shape_of(step);
  assert(step->n_layer > 0);
  if (cuda_begin(cuda, error) != 0 || cuda_tables_fill(cuda, step, error) != 0) return -1;
  int done = graphs_run(cuda, list, count, step, &shape, error);
  return done ? done < 0 ? -1 : 0 : cuda_launch_list(cuda, list, count, step, &shape, error);
}
