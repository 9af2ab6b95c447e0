/* kernels_avx2.c: the kernels for AVX2, FMA and F16C: 16 registers of 8 floats, two to a `vf`. */
#if defined(__x86_64__)
#include "core/math/cpu/simd_avx2.h"

#define KERNELS kernels_avx2
#define KERNELS_NAME "cpu-avx2"
#define TILES_1(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(1, 5) T(1, 6)
#define TILES_2(T) T(2, 1) T(2, 2) T(2, 3)
#define TILES_4(T)
#define TILE_ROWS_1 6
#define TILE_ROWS_2 3
#define TILE_ROWS_4 0
#define TILE_MANY 0
#define ATTEND_TILE 3
#define ATTEND_TILES(T) T(1) T(2) T(3)
#define SCORE_VECTORS 2
#define SCORE_ONE_VECTORS 4
#define VALUE_VECTORS 2
#define VALUE_ONE_VECTORS 4

#include "core/math/cpu/kernels.inc.h"
#endif
