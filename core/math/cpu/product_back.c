/* product_back.c: the way back through a product, dx += dy W, from the same panels that the way there reads.
 *
 * A panel has its outputs side by side; here the inputs must be lanes. So a block of a few panels of inputs by BLOCK_INPUTS outputs is
 * turned into scratch, in f32, and every tile of rows meets it there with the kernels of the way there: what turning costs is shared by
 * all rows of a unit. An element's sum is one chain over the outputs in their order (cpu.h). */
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

void product_back_pack(const struct product *product, struct pool_worker *worker) {
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
  size_t line = LANES * dtype_size(w->base.dtype);
  product->kernels->widen(w->base.dtype, n * LANES, w->data + (size_t)panel * w->panel_bytes + (size_t)in * line, square);
  memset(square + n * LANES, 0, (size_t)(LANES - n) * LANES * sizeof *square);
  for (int i = 0; i < LANES; i += 4)
    for (int j = 0; j < LANES; j += 4) turn_4x4(square + i * LANES + j, LANES, to + j * LANES + i, LANES);
}

/* Outputs [begin, begin + BLOCK_INPUTS) of some panels of inputs, WIDE_FLOATS apart. */
static void turn_block(const struct product *product, int64_t in_panel, int panels, int64_t begin, float *to) {
  int64_t end = (begin + BLOCK_INPUTS) / LANES < product->w->n_panels ? (begin + BLOCK_INPUTS) / LANES : product->w->n_panels;
  for (int p = 0; p < panels; p++)
    for (int64_t panel = begin / LANES; panel < end; panel++)
      turn_square(product, (in_panel + p) * LANES, panel, to + (size_t)p * WIDE_FLOATS + (size_t)(panel * LANES - begin) * LANES);
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

static void walk_block(const struct back_unit *unit, int64_t panel, int shift, int64_t begin) {
  const struct product *product = unit->product;
  int64_t n_out = product->w->base.n_in, n = n_out - begin < BLOCK_INPUTS ? n_out - begin : BLOCK_INPUTS;
  const struct ahead ahead = {(const unsigned char *)unit->block, 0, 0}; /* it is here already */
  turn_block(unit->from, panel, 1 << shift, begin, unit->block);
  for (int64_t tile = unit->tile; tile < unit->tile_end; tile++) {
    int height;
    int64_t row = product_tile(product, tile, &height);
    const float *x = product->tiles + row * n_out + begin * height;
    product->kernels->tile[DTYPE_F32][shift][height - 1](n, (const unsigned char *)unit->block, WIDE_FLOATS * sizeof(float), x,
                                                         sums_of(unit, panel, tile, 1 << shift), begin > 0, NULL, &ahead);
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
      unit->product->kernels->add_scaled(to + (row + r) * ld + first, 1.0f, c + (size_t)r * (size_t)panels * LANES, n);
    }
  }
}

static void run_unit(const struct back_unit *unit, float *to, int64_t ld) {
  for (int64_t panel = unit->panel; panel < unit->panel_end;) {
    int shift = shift_of(unit, panel);
    for (int64_t begin = 0; begin < unit->product->w->base.n_in; begin += BLOCK_INPUTS) walk_block(unit, panel, shift, begin);
    add_sums(unit, panel, shift, to, ld);
    panel += 1 << shift;
  }
}

void product_back_walk(const struct product *product, float *to, int64_t ld, struct pool_worker *worker, float *scratch) {
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
