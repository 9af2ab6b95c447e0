/* kernels_avx512.c: the kernels for AVX-512 (F, BW, VL, DQ): 32 registers of 16 floats. */
#if defined(__x86_64__)
#include "core/math/cpu/simd_avx512.h"

#define KERNELS kernels_avx512
#define KERNELS_NAME "cpu-avx512"
#define TILES_1(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(1, 5) T(1, 6) T(1, 7) T(1, 8) T(1, 9) T(1, 10) T(1, 11) T(1, 12)
#define TILES_2(T) T(2, 1) T(2, 2) T(2, 3) T(2, 4) T(2, 5) T(2, 6) T(2, 7) T(2, 8) T(2, 9) T(2, 10) T(2, 11) T(2, 12)
#define TILES_4(T) T(4, 1) T(4, 2) T(4, 3) T(4, 4) T(4, 5) T(4, 6)
#define TILE_ROWS_1 12
#define TILE_ROWS_2 12
#define TILE_ROWS_4 6
#define TILE_MANY 1
#define ATTEND_TILE 6
#define ATTEND_TILES(T) T(1) T(2) T(3) T(4) T(5) T(6)
#define SCORE_VECTORS 4
#define SCORE_ONE_VECTORS 4
#define VALUE_VECTORS 4
#define VALUE_ONE_VECTORS 4

#include "core/math/cpu/kernels.inc.h"
#endif
