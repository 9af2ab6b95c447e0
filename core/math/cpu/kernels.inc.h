/* kernels.inc.h: all kernels of one instruction set. The including file has included its simd_*.h and defined
 *   KERNELS          the name of the table        KERNELS_NAME   the name of the backend
 *   TILES_1/2/4(T)   T(panels, rows) for each tile shape, from one row up   TILE_ROWS_1/2/4  how many
 *   TILE_MANY        log2 of the panels of the tile for many rows
 *   ATTEND_TILE, SCORE_VECTORS, SCORE_ONE_VECTORS, VALUE_VECTORS, VALUE_ONE_VECTORS   shapes of attention */
#include <math.h>
#include <string.h>

#include "core/math/cpu/cpu.h"

#include "core/math/cpu/math.inc.h"
#include "core/math/cpu/product.inc.h"
#include "core/math/cpu/keep.inc.h"
#include "core/math/cpu/rows.inc.h"
#include "core/math/cpu/attend.inc.h"

TILES_1(TILE)
TILES_2(TILE)
TILES_4(TILE)

#define TILE_NAME(panels, rows) tile_##panels##x##rows,
static tile_fn *const tiles_1[] = {TILES_1(TILE_NAME) NULL};
static tile_fn *const tiles_2[] = {TILES_2(TILE_NAME) NULL};
static tile_fn *const tiles_4[] = {TILES_4(TILE_NAME) NULL};

const struct kernels KERNELS = {
    .name = KERNELS_NAME,
    .tile = {tiles_1, tiles_2, tiles_4},
    .tile_rows = {TILE_ROWS_1, TILE_ROWS_2, TILE_ROWS_4},
    .many = TILE_MANY,
    .stream = stream,
    .widen = widen,
    .chain = chain,
    .finish_linear = finish_linear,
    .finish_encode = finish_encode,
    .dot = dot,
    .mean = mean_of,
    .add_scaled = add_scaled,
    .norm = norm_row,
    .norm_scale = norm_scale,
    .normalize = normalize_row,
    .gain = gain_row,
    .cap = cap_row,
    .solu = solu_row,
    .rotate = rotate_head,
    .gate = gate_row,
    .attend = attend_rows,
    .kth_largest = kth_largest,
};
