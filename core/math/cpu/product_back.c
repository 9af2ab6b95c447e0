/* product_back.c: the way back through a product, dx += dy W, from the same panels that the way there reads.
 *
 * A panel has its outputs side by side; here the inputs must be lanes. So a block of a few panels of inputs by BLOCK_INPUTS outputs is
 * turned into scratch, in f32, and every tile of rows meets it there with the kernels of the way there: what turning costs is shared by
 * all rows of a unit. An element's sum is one chain over the outputs in their order (cpu.h); of a row by itself it is sixteen, one for
 * each output of a panel, so that one row has not the bits that it has among others. Rows of a text are never alone but in the head,
 * and there by what is asked, not by what else runs. */
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"
#include "core/math/cpu/turn.h"

#define BACK_ROWS 192 /* of a unit, at most */
#define BACK_PANELS 4 /* panels of inputs of a unit, and of a block */

/* The matrix that dy is cut into tiles for: its inputs are W's outputs. */
static struct cpu_matrix turned(const struct product *product) {
  return (struct cpu_matrix){.base = {.n_in = product->w->base.n_out, .n_out = product->w->base.n_in}};
}

/* One row goes as it is: whoever clears it does so behind the walk. */
void product_back_pack(const struct product *product, struct pool_worker *worker) {
  if (product->rows == 1) return;
  struct cpu_matrix w = turned(product);
  struct product as = *product;
  as.w = &w;
  product_pack(&as, worker);
}

/* Sixteen inputs by up to sixteen outputs of one panel: to[out][in]. */
static void turn_square(const struct product *product, int64_t in, int64_t panel, float *to) {
  const struct cpu_matrix *w = product->w;
  float square[LANES * LANES];
  int64_t n = w->base.n_in - in < LANES ? w->base.n_in - in : LANES;
  product->kernels->widen(w->base.dtype, w->data + (size_t)panel * w->panel_bytes, in, n, square);
  memset(square + n * LANES, 0, (size_t)(LANES - n) * LANES * sizeof *square);
  for (int i = 0; i < LANES; i += 4)
    for (int j = 0; j < LANES; j += 4) turn_4x4(square + i * LANES + j, LANES, to + j * LANES + i, LANES);
}

/* A block: outputs [begin, begin + BLOCK_INPUTS) by some panels of inputs. */
struct block {
  int64_t in_panel, begin;
  int panels;
};

static int64_t block_end(const struct product *product, struct block block) {
  int64_t end = (block.begin + BLOCK_INPUTS) / LANES;
  return end < product->w->n_panels ? end : product->w->n_panels;
}

/* Into scratch, panels of inputs WIDE_FLOATS apart. In the file's panels they lie side by side. */
static void turn_block(const struct product *product, struct block block, float *to) {
  for (int64_t panel = block.begin / LANES; panel < block_end(product, block); panel++)
    for (int p = 0; p < block.panels; p++)
      turn_square(product, (block.in_panel + p) * LANES, panel, to + (size_t)p * WIDE_FLOATS + (size_t)(panel * LANES - block.begin) * LANES);
}

/* Asks for part i of n of a block that comes next: it lies in pieces that no prefetcher of the hardware expects. */
static void fetch_part(const struct product *product, struct block block, int64_t i, int64_t n) {
  const struct cpu_matrix *w = product->w;
  int64_t first = block.begin / LANES, outputs = block_end(product, block) - first;
  int64_t line = (int64_t)panel_line(w->base.dtype), lines = block.panels * LANES * line / 64, all = outputs * lines;
  const unsigned char *data = w->data + (size_t)(block.in_panel * LANES * line);
  for (int64_t at = all * i / n; at < all * (i + 1) / n; at++)
    __builtin_prefetch(data + (size_t)(first + at / lines) * w->panel_bytes + (size_t)(at % lines) * 64, 0, 2);
}

/* Tiles [tile, tile_end) by panels [panel, panel_end) of inputs. */
struct back_unit {
  const struct product *product; /* its w is turned(): for tiles */
  const struct product *from;
  int64_t tile, tile_end, panel, panel_end;
  float *sums, *block;
};

static float *sums_of(const struct back_unit *unit, int64_t panel, int64_t tile, int panels) {
  int height;
  int64_t first = product_tile(unit->product, unit->tile, &height), row = product_tile(unit->product, tile, &height);
  int64_t rows = product_tile(unit->product, unit->tile_end - 1, &height) + height - first;
  return unit->sums + ((panel - unit->panel) * rows + (row - first) * panels) * LANES;
}

/* The widest of 1, 2, 4 panels that a tile of this height has a kernel for and that fits. */
static int shift_of(const struct back_unit *unit, int64_t panel) {
  int height, shift = 2;
  product_tile(unit->product, unit->tile, &height);
  while (shift > 0 && (unit->product->kernels->tile_rows[shift] < height || panel + (1 << shift) > unit->panel_end)) shift--;
  return shift;
}

/* next: the block that follows. */
static void walk_block(const struct back_unit *unit, struct block block, struct block next) {
  const struct product *product = unit->product;
  int64_t n_out = product->w->base.n_in, n = n_out - block.begin < BLOCK_INPUTS ? n_out - block.begin : BLOCK_INPUTS;
  int shift = block.panels / 2;
  const struct ahead ahead = {(const unsigned char *)unit->block, 0, 0}; /* it is here already */
  turn_block(unit->from, block, unit->block);
  for (int64_t tile = unit->tile; tile < unit->tile_end; tile++) {
    int height;
    int64_t row = product_tile(product, tile, &height);
    const float *x = product->tiles + row * n_out + block.begin * height;
    if (next.panels) fetch_part(unit->from, next, tile - unit->tile, unit->tile_end - unit->tile);
    product->kernels->tile[DTYPE_F32][shift][height - 1](n, (const unsigned char *)unit->block, WIDE_FLOATS * sizeof(float), x,
                                                         sums_of(unit, block.in_panel, tile, block.panels), block.begin > product->begin, NULL, &ahead);
  }
}

static void add_sums(const struct back_unit *unit, int64_t panel, int shift, float *to, int64_t ld) {
  int64_t n_in = unit->from->w->base.n_in;
  for (int64_t tile = unit->tile; tile < unit->tile_end; tile++) {
    int height, panels = 1 << shift;
    int64_t row = product_tile(unit->product, tile, &height);
    const float *c = sums_of(unit, panel, tile, panels);
    for (int r = 0; r < height; r++) {
      int64_t first = panel * LANES, n = n_in - first < panels * LANES ? n_in - first : panels * LANES;
      unit->product->kernels->add_scaled(to + product_row(unit->from, row + r) * ld + first, 1.0f, c + (size_t)r * (size_t)panels * LANES, n);
    }
  }
}

static struct block block_at(const struct back_unit *unit, int64_t panel, int64_t begin) {
  struct block block = {panel, begin, 0};
  if (panel < unit->panel_end) block.panels = 1 << shift_of(unit, panel);
  return block;
}

static void run_unit(const struct back_unit *unit, float *to, int64_t ld) {
  int64_t n_out = unit->product->w->base.n_in;
  for (int64_t panel = unit->panel; panel < unit->panel_end;) {
    int shift = shift_of(unit, panel);
    for (int64_t first = unit->from->begin, begin = first; begin < n_out; begin += BLOCK_INPUTS) {
      bool last = begin + BLOCK_INPUTS >= n_out;
      walk_block(unit, block_at(unit, panel, begin), last ? block_at(unit, panel + (1 << shift), first) : block_at(unit, panel, begin + BLOCK_INPUTS));
    }
    add_sums(unit, panel, shift, to, ld);
    panel += 1 << shift;
  }
}

/* ---- one row ---- */

/* Inputs [begin, end), BACK_PANELS panels of them at most: a lane of sums for each of the sixteen outputs of a panel, folded at the end.
 * Nothing is turned, which one row alone would have to pay for. */
static void row_inputs(const struct product *product, int64_t begin, int64_t end, float *to, float *scratch) {
  const struct cpu_matrix *w = product->w;
  size_t line = panel_line(w->base.dtype);
  const float *x = product->x + product_row(product, 0) * product->ld_x;
  float *sums = scratch, *wide = scratch + BACK_PANELS * LANES * LANES;
  memset(sums, 0, (size_t)(end - begin) * LANES * sizeof *sums);
  for (int64_t panel = product->begin / LANES; panel < w->n_panels; panel++) {
    const unsigned char *from = w->data + (size_t)panel * w->panel_bytes + (size_t)begin * line;
    int64_t left = w->base.n_out - panel * LANES;
    float g[LANES] = {0};
    memcpy(g, x + panel * LANES, (size_t)(left < LANES ? left : LANES) * sizeof *g);
    for (size_t i = 0; panel + 2 < w->n_panels && i < (size_t)(end - begin) * line; i += 64)
      __builtin_prefetch(from + 2 * w->panel_bytes + i, 0, 3);
    if (w->base.dtype != DTYPE_F32) product->kernels->widen(w->base.dtype, w->data + (size_t)panel * w->panel_bytes, begin, end - begin, wide);
    product->kernels->add_lanes(end - begin, g, w->base.dtype == DTYPE_F32 ? (const float *)(const void *)from : wide, sums);
  }
  for (int64_t i = 0; i < end - begin; i++) {
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += sums[i * LANES + lane];
    to[begin + i] = (float)(to[begin + i] + sum);
  }
}

static void walk_one(const struct product *product, float *to, struct pool_worker *worker, float *scratch) {
  size_t begin, end;
  while (pool_take(worker, (size_t)product->w->base.n_in, BACK_PANELS * LANES, &begin, &end))
    row_inputs(product, (int64_t)begin, (int64_t)end, to, scratch);
}

void product_back_walk(const struct product *product, float *to, int64_t ld, struct pool_worker *worker, float *scratch) {
  if (product->rows == 1) {
    walk_one(product, to + product_row(product, 0) * ld, worker, scratch);
    return;
  }
  struct cpu_matrix w = turned(product);
  struct product as = *product;
  as.w = &w;
  int64_t n_tiles = product_tiles(&as), n_panels = (product->w->base.n_in + LANES - 1) / LANES;
  int64_t row_blocks = (n_tiles + BACK_ROWS / TILE_ROWS - 1) / (BACK_ROWS / TILE_ROWS), groups = (n_panels + BACK_PANELS - 1) / BACK_PANELS;
  struct back_unit unit = {.product = &as, .from = product, .sums = scratch, .block = scratch + BACK_ROWS * BACK_PANELS * LANES};
  size_t at, end;
  while (pool_take(worker, (size_t)(groups * row_blocks), 1, &at, &end)) {
    int64_t rows = (int64_t)at % row_blocks;
    unit.panel = (int64_t)at / row_blocks * BACK_PANELS;
    unit.panel_end = unit.panel + BACK_PANELS < n_panels ? unit.panel + BACK_PANELS : n_panels;
    unit.tile = n_tiles * rows / row_blocks;
    unit.tile_end = n_tiles * (rows + 1) / row_blocks;
    run_unit(&unit, to, ld);
  }
}
