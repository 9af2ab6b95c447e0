/* product.c: cuts a product into units of work and walks a unit through the caches.
 *
 * Few rows stream the weights once. Many rows are cut into tiles; a unit is a block of tiles by a group of
 * panels. Inside, the inputs go in blocks: a block of a panel pair (16 KiB) stays in the first cache while the
 * tiles, packed [input][row], come by from the second and the next block is fetched; sums wait in scratch between
 * blocks, which changes no bit of them (cpu.h). Every number here is a matter of speed alone. */
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"

#define FAR 4096        /* bytes that a panel is fetched ahead where one tile meets it */
#define BLOCK_ROWS 192   /* rows of a unit: 192 packed rows of a block are 96 KiB */
#define UNIT_TILES (BLOCK_ROWS / TILE_ROWS)
#define MAX_PANELS 4     /* of the widest tile */

/* Rows cut into tiles of nearly equal height: `extra` tiles of height + 1, then tiles of `height`. */
struct tiling {
  int shift; /* tiles are 2^shift panels wide */
  int64_t n_tiles, height, extra;
};

static struct tiling tiling_of(const struct kernels *kernels, int64_t rows) {
  int shift = kernels->many;
  for (int i = 2; i > shift; i--)
    if (rows <= kernels->tile_rows[i]) shift = i;
  int64_t tallest = kernels->tile_rows[shift], n = (rows + tallest - 1) / tallest;
  return (struct tiling){shift, n, rows / n, rows % n};
}

static int64_t tile_row(const struct tiling *tiling, int64_t tile) {
  return tile * tiling->height + (tile < tiling->extra ? tile : tiling->extra);
}

static int tile_height(const struct tiling *tiling, int64_t tile) {
  return (int)(tiling->height + (tile < tiling->extra));
}

int64_t product_tiles(const struct product *product) { return tiling_of(product->kernels, product->rows).n_tiles; }

int64_t product_tile(const struct product *product, int64_t tile, int *height) {
  struct tiling tiling = tiling_of(product->kernels, product->rows);
  *height = tile_height(&tiling, tile);
  return tile_row(&tiling, tile);
}

size_t product_tile_floats(int64_t rows, int64_t n_in) { return rows > 1 ? (size_t)(rows * n_in) : 0; }

size_t product_scratch_floats(void) {
  return (size_t)BLOCK_ROWS * GROUP_PANELS * LANES + (size_t)MAX_PANELS * BLOCK_INPUTS * LANES;
}

/* ---- packing rows ------------------------------------------------------------------------------------- */

/* Inputs [begin, end) of a tile: to[k][r] = x[r][k]. Four rows at a time, so that the reads are few streams. */
static void pack_tile(const struct product *product, int64_t row, int height, int64_t begin, int64_t end, float *to) {
  const float *x[TILE_ROWS];
  int r = 0;
  for (int i = 0; i < height; i++) x[i] = product->x + product_row(product, row + i) * product->ld_x;
  for (; r + 4 <= height; r += 4) {
    const float *a = x[r], *b = x[r + 1], *c = x[r + 2], *d = x[r + 3];
    for (int64_t k = begin; k < end; k++) {
      float *at = to + k * height + r;
      at[0] = a[k];
      at[1] = b[k];
      at[2] = c[k];
      at[3] = d[k];
    }
  }
  for (; r < height; r++)
    for (int64_t k = begin; k < end; k++) to[k * height + r] = x[r][k];
}

void product_pack(const struct product *product, struct pool_worker *worker) {
  struct tiling tiling = tiling_of(product->kernels, product->rows);
  int64_t n_in = product->w->base.n_in;
  size_t blocks = (size_t)((n_in - product->begin + BLOCK_INPUTS - 1) / BLOCK_INPUTS), unit, end;
  while (pool_take(worker, blocks * (size_t)tiling.n_tiles, 1, &unit, &end)) {
    int64_t tile = (int64_t)(unit / blocks), begin = product->begin + (int64_t)(unit % blocks) * BLOCK_INPUTS;
    int64_t row = tile_row(&tiling, tile), stop = begin + BLOCK_INPUTS < n_in ? begin + BLOCK_INPUTS : n_in;
    pack_tile(product, row, tile_height(&tiling, tile), begin, stop, product->tiles + row * n_in);
  }
  pool_barrier(worker);
}

/* ---- one row ------------------------------------------------------------------------------------------- */

/* An encode's entries of rows from `row` on, of a group that begins at `panel`, have their log there. */
static void open_log(const struct product *product, int64_t row, int64_t panel) {
  if (product->keeper) product->keeper->at = (panel / GROUP_PANELS * product->rows + row) * GROUP;
}

/* Panels [begin, end), and what this thread will most likely take next. */
static void row_panels(const struct product *product, size_t begin, size_t end, size_t next) {
  const struct cpu_matrix *w = product->w;
  float c[STREAM_PANELS * LANES];
  next = size_min((size_t)w->n_panels - 1, next);
  product->kernels->stream(w->base.dtype, w->base.n_in, w->data + begin * w->panel_bytes, w->panel_bytes,
                           (int)(end - begin), w->data + next * w->panel_bytes, product->x, c);
  product->finish(product, 0, 1, (int64_t)begin, (int)(end - begin), c);
}

/* A thread takes a few panels; in an encode all of a group, whose log has one writer. */
static void walk_row(const struct product *product, struct pool_worker *worker) {
  size_t panels = (size_t)product->w->n_panels, chunk = product->keeper ? GROUP_PANELS : STREAM_PANELS;
  size_t begin, end;
  while (pool_take(worker, panels, chunk, &begin, &end)) {
    open_log(product, 0, (int64_t)begin);
    for (size_t at = begin; at < end; at += STREAM_PANELS) {
      size_t stop = size_min(at + STREAM_PANELS, end);
      row_panels(product, at, stop, stop < end ? stop : begin + (size_t)worker->threads * chunk);
    }
  }
}

/* ---- tiles --------------------------------------------------------------------------------------------- */

/* One unit: tiles [tile, tile_end) by panels [panel, panel_end). */
struct unit {
  const struct product *product;
  struct tiling tiling;
  int64_t tile, tile_end, panel, panel_end;
  float *sums;  /* [panel][row][..]: 16 floats for each row and panel of the unit */
  float *block; /* a block of weights in f32 */
};

/* How many panels the next tile takes: the widest of 1, 2, 4 that fits. */
static int tile_shift(const struct unit *unit, int64_t panel) {
  int shift = unit->tiling.shift;
  while (panel + (1 << shift) > unit->panel_end) shift--;
  return shift;
}

static float *unit_sums(const struct unit *unit, int64_t panel, int64_t tile, int panels) {
  int64_t first = tile_row(&unit->tiling, unit->tile), rows = tile_row(&unit->tiling, unit->tile_end) - first;
  return unit->sums + ((panel - unit->panel) * rows + (tile_row(&unit->tiling, tile) - first) * panels) * LANES;
}

/* What tile number i of a block fetches: its share of the block that comes next. Without it a core waits for
 * memory at the start of every block; the prefetchers of the hardware stop at the end of a page. */
static struct ahead ahead_of(const struct unit *unit, int64_t panel, int64_t begin, int64_t n, int64_t i) {
  const struct cpu_matrix *w = unit->product->w;
  size_t line = panel_line(w->base.dtype), tiles = (size_t)(unit->tile_end - unit->tile);
  if (panel >= unit->panel_end && begin + n < w->base.n_in) {
    panel = unit->panel;
    begin += n;
  }
  if (panel >= w->n_panels) panel = w->n_panels - 1;
  const unsigned char *at = w->data + (size_t)panel * w->panel_bytes + (size_t)begin * line;
  return (struct ahead){at + (size_t)i * ((size_t)n * line / tiles), w->panel_bytes, line / tiles};
}

/* The first tile reads the weights as they are kept and leaves them in f32 for the others. */
static void unit_panels(const struct unit *unit, int64_t panel, int shift, int64_t begin, int64_t n) {
  const struct cpu_matrix *w = unit->product->w;
  enum dtype dtype = w->base.dtype;
  int panels = 1 << shift;
  const unsigned char *data = w->data + (size_t)panel * w->panel_bytes + (size_t)begin * panel_line(dtype);
  size_t stride = w->panel_bytes;
  for (int64_t tile = unit->tile; tile < unit->tile_end; tile++) {
    int height = tile_height(&unit->tiling, tile);
    const float *x = unit->product->tiles + tile_row(&unit->tiling, tile) * w->base.n_in + begin * height;
    struct ahead ahead = ahead_of(unit, panel + panels, begin, n, tile - unit->tile);
    bool shared = dtype != DTYPE_F32 && tile + 1 < unit->tile_end;
    unit->product->kernels->tile[dtype][shift][height - 1](n, data, stride, x, unit_sums(unit, panel, tile, panels), begin > 0,
                                                           tile == unit->tile && shared ? unit->block : NULL, &ahead);
    if (!shared || tile > unit->tile) continue;
    dtype = DTYPE_F32;
    data = (const unsigned char *)unit->block;
    stride = WIDE_FLOATS * sizeof(float);
  }
}

static void unit_block(const struct unit *unit, int64_t begin, int64_t n) {
  for (int64_t panel = unit->panel; panel < unit->panel_end;) {
    int shift = tile_shift(unit, panel);
    unit_panels(unit, panel, shift, begin, n);
    panel += 1 << shift;
  }
}

/* Tile by tile: what an encode keeps of one lies together (cpu.h). */
static void unit_finish(const struct unit *unit) {
  open_log(unit->product, tile_row(&unit->tiling, unit->tile), unit->panel);
  for (int64_t tile = unit->tile; tile < unit->tile_end; tile++) {
    for (int64_t panel = unit->panel; panel < unit->panel_end;) {
      int panels = 1 << tile_shift(unit, panel);
      unit->product->finish(unit->product, tile_row(&unit->tiling, tile), tile_height(&unit->tiling, tile), panel,
                            panels, unit_sums(unit, panel, tile, panels));
      panel += panels;
    }
  }
}

/* One tile: its panels go by as those of a single row do, each fetched FAR bytes ahead of itself, and over its last piece the
 * beginnings of those that follow. */
static void stream_panels(const struct unit *unit, int64_t panel, int shift, int64_t next) {
  const struct product *product = unit->product;
  const struct cpu_matrix *w = product->w;
  size_t line = panel_line(w->base.dtype);
  int64_t far = FAR / (int64_t)line, n_in = w->base.n_in, first = n_in > far ? (n_in - far) / Q8_INPUTS * Q8_INPUTS : 0;
  const unsigned char *data = w->data + (size_t)panel * w->panel_bytes, *follow = w->data + (size_t)next * w->panel_bytes;
  const float *x = product->tiles + tile_row(&unit->tiling, unit->tile) * n_in;
  int height = tile_height(&unit->tiling, unit->tile);
  float *sums = unit_sums(unit, panel, unit->tile, 1 << shift);
  tile_fn *tile = product->kernels->tile[w->base.dtype][shift][height - 1];
  tile(first, data, w->panel_bytes, x, sums, false, NULL, &(struct ahead){data + FAR, w->panel_bytes, line});
  tile(n_in - first, data + (size_t)first * line, w->panel_bytes, x + first * height, sums, true, NULL,
       &(struct ahead){follow, w->panel_bytes, line});
}

/* after: the panel that this thread will most likely take behind those of the unit. */
static void unit_stream(const struct unit *unit, int64_t after) {
  for (int64_t panel = unit->panel; panel < unit->panel_end;) {
    int shift = tile_shift(unit, panel);
    int64_t next = panel + (1 << shift), most = unit->product->w->n_panels - 1;
    if (next >= unit->panel_end) next = after;
    stream_panels(unit, panel, shift, next < most ? next : most);
    panel += 1 << shift;
  }
}

static void unit_run(const struct unit *unit, int64_t after) {
  int64_t n_in = unit->product->w->base.n_in;
  if (unit->tile_end - unit->tile == 1)
    unit_stream(unit, after);
  else
    for (int64_t begin = 0; begin < n_in; begin += BLOCK_INPUTS)
      unit_block(unit, begin, begin + BLOCK_INPUTS < n_in ? BLOCK_INPUTS : n_in - begin);
  unit_finish(unit);
}

/* Panels of a unit: fewer where there would be too few units to share out evenly. The groups of an encode are
 * fixed. */
static int64_t group_of(const struct product *product, const struct tiling *tiling, int64_t row_blocks, int threads) {
  int64_t group = GROUP_PANELS;
  if (product->keeper) return group;
  while (group > 1 << tiling->shift && row_blocks * (product->w->n_panels / group) < 4 * threads) group /= 2;
  return group;
}

static void walk_tiles(const struct product *product, struct pool_worker *worker, float *scratch) {
  struct unit unit = {.product = product, .tiling = tiling_of(product->kernels, product->rows)};
  int64_t row_blocks = (unit.tiling.n_tiles + UNIT_TILES - 1) / UNIT_TILES;
  int64_t group = group_of(product, &unit.tiling, row_blocks, worker->threads);
  int64_t n_panels = product->w->n_panels, n_groups = (n_panels + group - 1) / group;
  size_t at, end;
  unit.sums = scratch;
  unit.block = scratch + BLOCK_ROWS * GROUP_PANELS * LANES;
  while (pool_take(worker, (size_t)(n_groups * row_blocks), 1, &at, &end)) {
    int64_t rows = (int64_t)at % row_blocks;
    unit.panel = (int64_t)at / row_blocks * group;
    unit.panel_end = unit.panel + group < n_panels ? unit.panel + group : n_panels;
    unit.tile = unit.tiling.n_tiles * rows / row_blocks;
    unit.tile_end = unit.tiling.n_tiles * (rows + 1) / row_blocks;
    unit_run(&unit, unit.panel + group * worker->threads);
  }
}

void product_walk(const struct product *product, struct pool_worker *worker, float *scratch) {
  if (product->rows == 1)
    walk_row(product, worker);
  else
    walk_tiles(product, worker, scratch);
}
