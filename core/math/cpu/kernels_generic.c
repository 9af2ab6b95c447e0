/* kernels_generic.c: the kernels for any machine: four floats to a register, products rounded before they are
 * added (simd_generic.h). Right everywhere, fast nowhere. */
#include "core/math/cpu/simd_generic.h"

#define KERNELS kernels_generic
#define KERNELS_NAME "cpu-generic"
#define TILES_1(T) T(1, 1) T(1, 2)
#define TILES_2(T)
#define TILES_4(T)
#define TILE_ROWS_1 2
#define TILE_ROWS_2 0
#define TILE_ROWS_4 0
#define TILE_MANY 0
#define ATTEND_TILE 2
#define ATTEND_TILES(T) T(1) T(2)
#define SCORE_VECTORS 1
#define SCORE_ONE_VECTORS 2
#define VALUE_VECTORS 1
#define VALUE_ONE_VECTORS 2

#include "core/math/cpu/kernels.inc.h"
