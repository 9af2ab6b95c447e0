/* kernels.inc.h: all kernels of one instruction set. The including file has included its simd_*.h and defined
 *   KERNELS          the name of the table        KERNELS_NAME   the name of the backend
 *   TILES_1/2/4(T)   T(panels, rows) for each tile shape, from one row up   TILE_ROWS_1/2/4  how many
 *   TILE_MANY        log2 of the panels of the tile for many rows
 *   ATTEND_TILES(T)  T(queries) from one up        ATTEND_TILE  how many
 *   SCORE_VECTORS, SCORE_ONE_VECTORS, VALUE_VECTORS, VALUE_ONE_VECTORS   shapes of attention */
#include <math.h>
#include <string.h>

#include "core/math/cpu/cpu.h"
#include "core/math/cpu/turn.h"

#include "core/math/cpu/math.inc.h"
#include "core/math/cpu/product.inc.h"
#include "core/math/cpu/keep.inc.h"
#include "core/math/cpu/rows.inc.h"
#include "core/math/cpu/attend.inc.h"
#include "core/math/cpu/back.inc.h"
#include "core/math/cpu/learn.inc.h"

#define TILES(dtype) TILES_1(TILE_##dtype) TILES_2(TILE_##dtype) TILES_4(TILE_##dtype)
TILES(F32)
TILES(F16)
TILES(BF16)
TILES(Q8)

#define NAME_F32(panels, rows) tile_F32_##panels##x##rows,
#define NAME_F16(panels, rows) tile_F16_##panels##x##rows,
#define NAME_BF16(panels, rows) tile_BF16_##panels##x##rows,
#define NAME_Q8(panels, rows) tile_Q8_##panels##x##rows,
#define NAMES(dtype)                                                           \
  static tile_fn *const tiles_1_##dtype[] = {TILES_1(NAME_##dtype) NULL};       \
  static tile_fn *const tiles_2_##dtype[] = {TILES_2(NAME_##dtype) NULL};       \
  static tile_fn *const tiles_4_##dtype[] = {TILES_4(NAME_##dtype) NULL};
NAMES(F32)
NAMES(F16)
NAMES(BF16)
NAMES(Q8)

const struct kernels KERNELS = {
    .name = KERNELS_NAME,
    .tile = {[DTYPE_F32] = {tiles_1_F32, tiles_2_F32, tiles_4_F32},
             [DTYPE_F16] = {tiles_1_F16, tiles_2_F16, tiles_4_F16},
             [DTYPE_BF16] = {tiles_1_BF16, tiles_2_BF16, tiles_4_BF16},
             [DTYPE_Q8] = {tiles_1_Q8, tiles_2_Q8, tiles_4_Q8}},
    .tile_rows = {TILE_ROWS_1, TILE_ROWS_2, TILE_ROWS_4},
    .many = TILE_MANY,
    .stream = stream,
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
    .gate_back = gate_back,
    .norm_back = norm_back,
    .attend_back = attend_back_rows,
    .add_lanes = add_lanes,
    .widen = widen,
    .learn = {learn_gather, learn_feature, learn_adam, add_scaled, dot},
};
