/* run.c: walks a list of ops over a step, all threads together, with a barrier only where rows change hands.
 *
 * Work along rows is shared out by row: a thread owns the same rows of the step in every such op, so that
 * norms, edits, residuals and gates follow each other without meeting. Products and attention are taken in units
 * from a common counter, with a barrier before and after. Every thread decides alike what to skip. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"
#include "core/math/explicit.h"

/* Whose rows were written since the last barrier. */
enum owner {
  OWNER_NONE, /* nothing was written */
  OWNER_STEP, /* rows of the step, each by its thread */
  OWNER_LOGIT, /* compact rows, each by its thread */
  OWNER_UNITS /* anything by anyone */
};

struct run {
  struct cpu_backend *cpu;
  const struct op *list;
  size_t count;
  const struct step *step;
  float *tiles, *scratch;
  size_t scratch_floats; /* of a thread */
};

struct walk {
  const struct run *run;
  const struct step *step;
  const struct kernels *kernels;
  struct pool_worker *worker;
  float *scratch; /* of this thread */
  enum owner pending;
};

/* Before an op that touches only its own rows of kind `owner`: nothing to wait for if so did the last. */
static void enter(struct walk *walk, enum owner owner) {
  bool own = walk->pending == owner && owner != OWNER_UNITS;
  if (!own && walk->pending != OWNER_NONE) pool_barrier(walk->worker);
  walk->pending = owner;
}

/* The part of rows that this thread owns. */
static struct row_range mine(const struct walk *walk, enum row_set set, struct row_range rows) {
  int64_t total = set == ROWS_LOGIT ? walk->step->n_logit_rows : walk->step->n_rows;
  int32_t begin = (int32_t)(total * walk->worker->index / walk->worker->threads);
  int32_t end = (int32_t)(total * (walk->worker->index + 1) / walk->worker->threads);
  return (struct row_range){begin > rows.begin ? begin : rows.begin, end < rows.end ? end : rows.end};
}

static struct row_range enter_rows(struct walk *walk, const struct op *op, struct row_range rows) {
  enter(walk, op->set == ROWS_LOGIT ? OWNER_LOGIT : OWNER_STEP);
  return mine(walk, op->set, rows);
}

/* ---- ops along rows ------------------------------------------------------------------------------------- */

static void run_columns(const struct walk *walk, const struct op *op, enum site site, struct rows x, int64_t column,
                        struct row_range rows) {
  struct point_items items = point_items(walk->step, op->layer, site);
  if (items.n_edits + items.n_taps == 0) return;
  for (int32_t row = rows.begin; row < rows.end; row++)
    point_row(walk->kernels, &items, op_step_row(op, walk->step, row), rows_at(x, row), column, op->width);
}

static void run_points(const struct walk *walk, const struct op *op, enum site site, struct rows x,
                       struct row_range rows) {
  run_columns(walk, op, site, x, 0, rows);
}

static void add_row(float *to, const float *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

static void begin_row(const struct op *op, const struct step *step, int32_t row) {
  float *to = rows_at(op->u.begin.to, row);
  size_t bytes = (size_t)op->width * sizeof *to;
  switch ((enum row_origin)step->origin[row]) {
    case ORIGIN_FORK: memcpy(to, rows_at(op->u.begin.to, step->source[row]), bytes); return;
    case ORIGIN_SAVED: memcpy(to, span_floats(step->saved) + step->source[row] * op->width, bytes); return;
    case ORIGIN_EMBED: break;
  }
  if (op->u.begin.embedded.at.memory) {
    memcpy(to, rows_at(op->u.begin.embedded, row), bytes);
    if (op->u.begin.positions.memory) add_row(to, rows_at(op->u.begin.placed, row), op->width);
    return;
  }
  const float *position = span_floats(op->u.begin.positions);
  cpu_matrix_row(op->u.begin.embed, step->token[row], op->u.begin.embed_scale, to);
  if (position) add_row(to, position + step->position[row] * op->width, op->width);
}

static void run_embed(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  const struct step *step = walk->step;
  const float *positions = span_floats(op->u.begin.positions);
  for (int32_t row = rows.begin; row < rows.end; row++) {
    float *embedded = rows_at(op->u.begin.embedded, row), *placed = rows_at(op->u.begin.placed, row);
    size_t bytes = (size_t)op->width * sizeof *embedded;
    memset(embedded, 0, bytes);
    memset(placed, 0, bytes);
    if (step->origin[row] != ORIGIN_EMBED) continue;
    cpu_matrix_row(op->u.begin.embed, step->token[row], op->u.begin.embed_scale, embedded);
    if (positions) memcpy(placed, positions + step->position[row] * op->width, bytes);
  }
}

static bool has_forks(const struct step *step, int layer) {
  for (int i = 0; i < step->n_slots; i++)
    if (step->slots[i].first == layer)
      for (int32_t row = step->slots[i].rows.begin; row < step->slots[i].rows.end; row++)
        if (step->origin[row] == ORIGIN_FORK) return true;
  return false;
}

/* A fork reads a row of another thread: that row must be there, and must not be edited before it was copied. */
static void run_begin(struct walk *walk, const struct op *op, struct row_range all) {
  const struct step *step = walk->step;
  bool forks = has_forks(step, op->layer);
  if (forks) enter(walk, OWNER_UNITS);
  walk->pending = forks ? OWNER_STEP : walk->pending;
  struct row_range rows = enter_rows(walk, op, all);
  for (int i = 0; i < step->n_slots; i++) {
    const struct step_slot *slot = &step->slots[i];
    if (slot->first != op->layer) continue;
    for (int32_t row = slot->rows.begin; row < slot->rows.end; row++)
      if (rows.begin <= row && row < rows.end) begin_row(op, step, row);
  }
  if (forks) pool_barrier(walk->worker);
  run_points(walk, op, SITE_RESID_PRE, op->u.begin.to, rows);
}

static void run_norm(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  int parts = op->u.norm.parts ? op->u.norm.parts : 1;
  for (int32_t row = rows.begin; row < rows.end; row++) {
    const float *x = rows_at(op->u.norm.x, row);
    float *y = rows_at(op->u.norm.y, row);
    for (int part = 0; part < parts; part++)
      walk->kernels->norm(&op->u.norm.norm, op->width, x + part * op->width, y + part * op->width);
  }
}

static void run_solu(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  for (int32_t row = rows.begin; row < rows.end; row++)
    walk->kernels->solu(op->width, rows_at(op->u.solu.x, row), rows_at(op->u.solu.y, row));
}

static void run_place(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  for (int32_t row = rows.begin; row < rows.end; row++) {
    const float *x = rows_at(op->u.place.x, row);
    const float *place = span_floats(op->u.place.table) + walk->step->position[row] * op->width;
    float *y = rows_at(op->u.place.y, row);
    for (int64_t i = 0; i < op->width; i++) y[i] = x[i] + place[i];
  }
}

static void run_rotate(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  for (int32_t row = rows.begin; row < rows.end; row++) {
    const float *table = span_floats(op->u.rotate.table) + (int64_t)walk->step->position[row] * op->u.rotate.dims;
    float *x = rows_at(op->u.rotate.x, row);
    for (int head = 0; head < op->u.rotate.heads; head++)
      walk->kernels->rotate(op->u.rotate.pairing, op->u.rotate.dims, table, x + head * op->width);
  }
}

static void run_norm_part(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  const struct kernels *kernels = walk->kernels;
  const struct norm *norm = &op->u.norm.norm;
  int parts = op->u.norm.parts ? op->u.norm.parts : 1;
  for (int32_t row = rows.begin; row < rows.end; row++)
    for (int part = 0; part < parts; part++) {
      const float *x = rows_at(op->u.norm.x, row) + part * op->width;
      if (op->code == OP_NORM_SCALE)
        rows_at(op->u.norm.scale, row)[part] = kernels->norm_scale(norm, op->width, x);
      else if (op->code == OP_NORMALIZE)
        kernels->normalize(norm, op->width, x, rows_at(op->u.norm.scale, row)[part],
                           rows_at(op->u.norm.y, row) + part * op->width);
      else
        kernels->gain(norm, op->width, x, rows_at(op->u.norm.y, row) + part * op->width);
    }
}

static void run_copy(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  for (int32_t row = rows.begin; row < rows.end; row++)
    memcpy(rows_at(op->u.gather.y, row), rows_at(op->u.gather.x, row), (size_t)op->width * sizeof(float));
}

static void run_gate(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  for (int32_t row = rows.begin; row < rows.end; row++)
    walk->kernels->gate(op->u.gate.act, op->width, rows_at(op->u.gate.x, row),
                        op->u.gate.up.at.memory ? rows_at(op->u.gate.up, row) : NULL, rows_at(op->u.gate.y, row));
}

static void run_sublayer(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  struct rows out = op->u.sublayer.out, resid = op->u.sublayer.resid;
  if (op->u.sublayer.out_site) run_points(walk, op, op->u.sublayer.out_site, out, rows);
  for (int32_t row = rows.begin; row < rows.end; row++)
    walk->kernels->add_scaled(rows_at(resid, row), 1.0f, rows_at(out, row), op->width);
  if (op->u.sublayer.resid_site) run_points(walk, op, op->u.sublayer.resid_site, resid, rows);
  if (op->u.sublayer.norm.kind == NORM_NONE) return;
  for (int32_t row = rows.begin; row < rows.end; row++)
    walk->kernels->norm(&op->u.sublayer.norm, op->width, rows_at(resid, row), rows_at(op->u.sublayer.y, row));
}

static void run_point(struct walk *walk, const struct op *op, struct row_range all) {
  struct point_items items = point_items(walk->step, op->layer, op->u.point.site);
  if (items.n_edits + items.n_taps == 0) return;
  run_columns(walk, op, op->u.point.site, op->u.point.x, op->u.point.column, enter_rows(walk, op, all));
}

static void run_cap(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  for (int32_t row = rows.begin; row < rows.end; row++)
    walk->kernels->cap(op->u.linear.soft_cap, op->u.linear.w->n_out, rows_at(op->u.linear.y, row));
}

static void run_keep(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  int64_t begin = op->u.gather.begin, end = op->u.gather.end;
  for (int32_t row = rows.begin; row < rows.end; row++) {
    float *y = rows_at(op->u.gather.y, row);
    memset(y, 0, (size_t)op->width * sizeof *y);
    memcpy(y + begin, rows_at(op->u.gather.x, row) + begin, (size_t)(end - begin) * sizeof *y);
  }
}

static void run_delta(struct walk *walk, const struct op *op, struct row_range all) {
  struct row_range rows = enter_rows(walk, op, all);
  struct point_items items = point_items(walk->step, op->layer, op->u.point.site);
  for (int32_t row = rows.begin; row < rows.end; row++) {
    if (!items_edit(&items, op_step_row(op, walk->step, row))) continue;
    const float *x = rows_at(op->u.point.x, row), *before = rows_at(op->u.point.before, row);
    float *to = rows_at(op->u.point.to, row);
    for (int64_t i = 0; i < op->width; i++) to[i] += x[i] - before[i];
  }
}

static void run_gather(struct walk *walk, const struct op *op, struct row_range all) {
  enter(walk, OWNER_UNITS);
  struct row_range rows = mine(walk, ROWS_LOGIT, all);
  for (int32_t i = rows.begin; i < rows.end; i++)
    memcpy(rows_at(op->u.gather.y, i), rows_at(op->u.gather.x, walk->step->logit_row[i]),
           (size_t)op->width * sizeof(float));
  walk->pending = OWNER_LOGIT;
}

/* ---- ops in units ---------------------------------------------------------------------------------------- */

static void run_linear(struct walk *walk, const struct op *op, struct row_range rows) {
  enter(walk, OWNER_UNITS);
  struct product product = {.kernels = walk->kernels,
                            .w = (const struct cpu_matrix *)op->u.linear.w,
                            .x = rows_at(op->u.linear.x, rows.begin),
                            .ld_x = op->u.linear.x.ld,
                            .rows = rows.end - rows.begin,
                            .tiles = walk->run->tiles,
                            .bias = span_floats(op->u.linear.bias),
                            .finish = walk->kernels->finish_linear,
                            .y = rows_at(op->u.linear.y, rows.begin),
                            .ld_y = op->u.linear.y.ld,
                            .act = op->u.linear.act,
                            .soft_cap = op->u.linear.soft_cap};
  if (product.rows > 1) product_pack(&product, walk->worker);
  product_walk(&product, walk->worker, walk->scratch);
}

static void run_attend(struct walk *walk, const struct op *op, struct row_range rows) {
  struct point_items items = point_items(walk->step, op->layer, SITE_ATTN_Z);
  enter(walk, OWNER_UNITS);
  attend_store(op, walk->step, walk->worker);
  pool_barrier(walk->worker);
  attend_walk(op, walk->step, walk->kernels, walk->worker, walk->scratch);
  if (op->u.attend.bare || items.n_edits + items.n_taps == 0) return;
  run_points(walk, op, SITE_ATTN_Z, op->u.attend.z, enter_rows(walk, op, rows));
}

static void run_pattern(struct walk *walk, const struct op *op, struct row_range rows) {
  attend_explicit(op, walk->step, walk->kernels, enter_rows(walk, op, rows), walk->scratch);
}

static void run_op(struct walk *walk, const struct op *op) {
  struct row_range rows = op_rows(op, walk->step);
  if (rows.begin >= rows.end) return;
  switch (op->code) {
    case OP_BEGIN: run_begin(walk, op, rows); return;
    case OP_NORM: run_norm(walk, op, rows); return;
    case OP_NORM_SCALE:
    case OP_NORMALIZE:
    case OP_GAIN: run_norm_part(walk, op, rows); return;
    case OP_LINEAR: run_linear(walk, op, rows); return;
    case OP_GATE: run_gate(walk, op, rows); return;
    case OP_SOLU: run_solu(walk, op, rows); return;
    case OP_PLACE: run_place(walk, op, rows); return;
    case OP_ROTATE: run_rotate(walk, op, rows); return;
    case OP_ATTEND: run_attend(walk, op, rows); return;
    case OP_SUBLAYER: run_sublayer(walk, op, rows); return;
    case OP_POINT: run_point(walk, op, rows); return;
    case OP_GATHER: run_gather(walk, op, rows); return;
    case OP_COPY: run_copy(walk, op, rows); return;
    case OP_EMBED: run_embed(walk, op, rows); return;
    case OP_PATTERN: run_pattern(walk, op, rows); return;
    case OP_KEEP: run_keep(walk, op, rows); return;
    case OP_CAP: run_cap(walk, op, rows); return;
    case OP_DELTA: run_delta(walk, op, rows); return;
    case OP_HOLD:
    case OP_SPLICE:
    case OP_PUT: /* only where ops.splices */
    case OP_CODE_COUNT: break;
  }
  assert(!"unknown op");
}

static void work(struct pool_worker *worker, void *context) {
  const struct run *run = context;
  struct walk walk = {.run = run, .step = run->step, .kernels = run->cpu->kernels, .worker = worker};
  walk.scratch = run->scratch + (size_t)worker->index * run->scratch_floats;
  for (size_t i = 0; i < run->count; i++) run_op(&walk, &run->list[i]);
}

/* ---- scratch --------------------------------------------------------------------------------------------- */

/* Packed rows of the largest product, and what the neediest unit of a thread takes. */
static void measure(const struct run *run, size_t *tiles, size_t *each) {
  *tiles = 0;
  *each = product_scratch_floats();
  for (size_t i = 0; i < run->count; i++) {
    const struct op *op = &run->list[i];
    struct row_range rows = op_rows(op, run->step);
    if (op->code == OP_LINEAR)
      *tiles = size_max(*tiles, product_tile_floats(rows.end - rows.begin, op->u.linear.w->n_in));
    if (op->code == OP_ATTEND) *each = size_max(*each, attend_scratch_floats(op));
    if (op->code == OP_PATTERN) *each = size_max(*each, explicit_scratch_floats(op, run->step));
  }
  *tiles = size_round_up(*tiles, 64);
  *each = size_round_up(*each, 64);
}

int cpu_run(struct backend *backend, const struct op *list, size_t count, const struct step *step,
            struct error *error) {
  struct cpu_backend *cpu = (struct cpu_backend *)backend;
  struct run run = {.cpu = cpu, .list = list, .count = count, .step = step};
  size_t tiles;
  assert(step->n_layer > 0);
  measure(&run, &tiles, &run.scratch_floats);
  run.tiles = cpu_scratch(cpu, tiles + (size_t)pool_threads(cpu->pool) * run.scratch_floats, error);
  if (!run.tiles) return -1;
  run.scratch = run.tiles + tiles;
  pool_run(cpu->pool, work, &run);
  return 0;
}
