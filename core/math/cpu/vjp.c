/* vjp.c: the way back through one op, all threads together: rows are shared out as in run.c, products and attention go in units. */
#include "core/math/vjp.h"

#include <string.h>

#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"

struct way {
  struct way_back back;
  struct cpu_backend *cpu;
  struct row_range rows;
  float *tiles, *scratch;
  size_t scratch_floats; /* of a thread */
};

static struct row_range mine(const struct way *way, const struct pool_worker *worker) {
  int64_t n = way->rows.end - way->rows.begin, index = worker->index;
  return (struct row_range){way->rows.begin + (int32_t)(n * index / worker->threads),
                            way->rows.begin + (int32_t)(n * (index + 1) / worker->threads)};
}

static void clear_rows(const struct way *way, struct rows rows, int64_t width, const struct pool_worker *worker) {
  struct row_range own = mine(way, worker);
  for (int32_t row = own.begin; row < own.end; row++)
    memset(cotangents_at(way->back.vjp, rows, row), 0, (size_t)width * sizeof(float));
}

/* How many of the rows in front of `row` count. */
static int64_t used_before(const struct vjp *vjp, int64_t row) {
  if (!vjp->period) return row;
  int64_t rest = row % vjp->period;
  return row / vjp->period * vjp->used + (rest < vjp->used ? rest : vjp->used);
}

static void back_linear(const struct way *way, struct pool_worker *worker, float *scratch) {
  const struct op *op = way->back.op;
  const struct vjp *vjp = way->back.vjp;
  int64_t first = used_before(vjp, way->rows.begin);
  struct product product = {.kernels = way->cpu->kernels,
                            .w = (const struct cpu_matrix *)op->u.linear.w,
                            .x = cotangents_at(vjp, op->u.linear.y, 0),
                            .ld_x = op->u.linear.y.ld,
                            .rows = used_before(vjp, way->rows.end) - first,
                            .tiles = way->tiles,
                            .period = vjp->period,
                            .used = vjp->used,
                            .first = first,
                            .begin = vjp->outputs_from / LANES * LANES};
  float *to = cotangents_at(vjp, op->u.linear.x, 0);
  bool packed = product.rows > 1;
  if (product.rows == 0) return; /* what is to be cleared is 0 */
  product_back_pack(&product, worker);
  if (packed) clear_rows(way, op->u.linear.y, op->u.linear.w->n_out, worker);
  product_back_walk(&product, to, op->u.linear.x.ld, worker, scratch);
  if (packed) return;
  pool_barrier(worker);
  clear_rows(way, op->u.linear.y, op->u.linear.w->n_out, worker);
}

static void back_gate(const struct way *way, struct pool_worker *worker, float *g) {
  const struct op *op = way->back.op;
  const struct vjp *vjp = way->back.vjp;
  struct row_range rows = mine(way, worker);
  bool gated = op->u.gate.up.at.memory != NULL;
  for (int32_t row = rows.begin; row < rows.end; row++) {
    if (!vjp_has_row(vjp, row)) continue;
    cotangents_take(cotangents_at(vjp, op->u.gate.y, row), op->width, g);
    way->cpu->kernels->gate_back(op->u.gate.act, op->width, rows_at(op->u.gate.x, row), gated ? rows_at(op->u.gate.up, row) : NULL, g,
                                 cotangents_at(vjp, op->u.gate.x, row), gated ? cotangents_at(vjp, op->u.gate.up, row) : NULL);
  }
}

static void back_norm(const struct way *way, struct pool_worker *worker, float *g) {
  const struct op *op = way->back.op;
  const struct vjp *vjp = way->back.vjp;
  struct row_range rows = mine(way, worker);
  int parts = op->u.norm.parts ? op->u.norm.parts : 1;
  for (int32_t row = rows.begin; row < rows.end; row++)
    for (int part = 0; part < parts && vjp_has_row(vjp, row); part++) {
      int64_t at = part * op->width;
      cotangents_take(cotangents_at(vjp, op->u.norm.y, row) + at, op->width, g);
      way->cpu->kernels->norm_back(&op->u.norm.norm, op->width, rows_at(op->u.norm.x, row) + at, g, vjp->hold_norms,
                                   cotangents_at(vjp, op->u.norm.x, row) + at);
    }
}

/* Cotangents of keys and values come from many rows: a KV head of a slot is one thread's. */
static void back_attend(const struct way *way, struct pool_worker *worker, float *scratch) {
  const struct op *op = way->back.op;
  const struct step *step = way->back.step;
  size_t heads = (size_t)op->u.attend.n_kv_head, at, end;
  struct attend_back unit = {.op = op, .vjp = way->back.vjp, .room = (int64_t)way->scratch_floats / 3,
                             .hold_pattern = way->back.vjp->hold_pattern};
  while (pool_take(worker, (size_t)step->n_slots * heads, 1, &at, &end)) {
    const struct step_slot *slot = &step->slots[at / heads];
    unit.kv_head = (int)(at % heads);
    unit.rows = slot->rows;
    unit.first = slot->rows.begin - slot->position;
    if (slot_active(slot, op->layer)) way->cpu->kernels->attend_back(&unit, scratch);
  }
  pool_barrier(worker);
  clear_rows(way, op->u.attend.z, op->width, worker);
}

static void back_rows(const struct way *way, struct pool_worker *worker, float *scratch) {
  bool alone = way->back.op->code == OP_GATHER; /* two rows may come from one */
  struct row_range rows = alone ? way->rows : mine(way, worker);
  if (alone && worker->index > 0) return;
  for (int32_t row = rows.begin; row < rows.end; row++)
    if (vjp_has_row(way->back.vjp, row)) vjp_row(&way->back, row, scratch);
}

static void work(struct pool_worker *worker, void *context) {
  const struct way *way = context;
  float *scratch = way->scratch + (size_t)worker->index * way->scratch_floats;
  switch (way->back.op->code) {
    case OP_LINEAR: back_linear(way, worker, scratch); return;
    case OP_GATE: back_gate(way, worker, scratch); return;
    case OP_NORM: back_norm(way, worker, scratch); return;
    case OP_ATTEND: back_attend(way, worker, scratch); return;
    default: back_rows(way, worker, scratch); return;
  }
}

static size_t scratch_of(const struct way *way) {
  const struct op *op = way->back.op;
  const struct step *step = way->back.step;
  size_t keys = 0;
  if (op->code == OP_LINEAR) return product_scratch_floats();
  if (op->code != OP_ATTEND) return size_round_up(size_max(vjp_scratch_floats(op), 1), LANES);
  for (int i = 0; i < step->n_slots; i++)
    keys = size_max(keys, (size_t)(step->slots[i].position + step->slots[i].rows.end - step->slots[i].rows.begin));
  return 3 * size_round_up(keys, LANES);
}

static void edit_row(const void *context, const struct point_items *items, int32_t row, float *h, int64_t column, int64_t width) {
  point_row(context, items, row, h, column, width);
}

int cpu_vjp(struct backend *backend, const struct op *op, const struct step *step, const struct vjp *vjp, struct error *error) {
  struct cpu_backend *cpu = (struct cpu_backend *)backend;
  struct way way = {.back = {.op = op, .step = step, .vjp = vjp, .point = edit_row, .context = cpu->kernels}, .cpu = cpu,
                    .rows = op_rows(op, step)};
  if (way.rows.begin >= way.rows.end) return 0;
  size_t tiles = op->code == OP_LINEAR ? (size_t)(way.rows.end - way.rows.begin) * (size_t)op->u.linear.w->n_out : 0;
  tiles = size_round_up(tiles, LANES);
  way.scratch_floats = scratch_of(&way);
  way.tiles = cpu_scratch(cpu, tiles + (size_t)pool_threads(cpu->pool) * way.scratch_floats, error);
  if (!way.tiles) return -1;
  way.scratch = way.tiles + tiles;
  pool_run(cpu->pool, work, &way);
  return 0;
}
