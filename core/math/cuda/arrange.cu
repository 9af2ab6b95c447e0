/* arrange.cu: numbers as they lie in a file into the order and type that a matrix is kept in. The device does it at the speed of its
 * memory, where the host would go through them one by one.
 *
 * Conversions are made of bits, by the formulas of dtype.h: every number, NaN included, becomes what the host would make of it. */
#include "core/math/cuda/types.cuh"

#define TILE 32
#define LINES 8 /* of a tile, that the threads of a block take at a time */

static __device__ __forceinline__ unsigned bits_at(const void *from, int dtype, int64_t at) {
  return dtype == DTYPE_F32 ? ((const unsigned *)from)[at] : ((const unsigned short *)from)[at];
}

/* As f32, by its bits. */
static __device__ __forceinline__ unsigned widened(unsigned bits, int dtype) {
  if (dtype == DTYPE_F32) return bits;
  if (dtype == DTYPE_BF16) return bits << 16;
  unsigned sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 0x1F, fraction = bits & 0x3FF;
  if (exponent == 0x1F) return sign | 0x7F800000 | fraction << 13;
  if (exponent) return sign | (exponent + 112) << 23 | fraction << 13;
  return sign | __float_as_uint((float)fraction * 0x1p-24f);
}

static __device__ __forceinline__ void put_bits(void *to, int dtype, int64_t at, unsigned bits) {
  if (dtype == DTYPE_F32)
    ((unsigned *)to)[at] = bits;
  else
    ((unsigned short *)to)[at] = (unsigned short)bits;
}

static __device__ __forceinline__ unsigned converted(unsigned bits, int from, int to) {
  if (from == to) return bits;
  bits = widened(bits, from);
  if (to == DTYPE_F32) return bits;
  return to == DTYPE_F16 ? f16_bits(__uint_as_float(bits)) : bf16_bits(__uint_as_float(bits));
}

/* A tile of TILE lines and TILE numbers of each; the warps of a block read lines and write lines. */
static __global__ void __launch_bounds__(TILE *LINES) arrange_kernel(arrange_args a) {
  __shared__ unsigned tile[TILE][TILE + 1];
  grid_follow();
  int lane = threadIdx.x % TILE, warp = threadIdx.x / TILE;
  int64_t line = (int64_t)(blockIdx.x / (unsigned)a.across) * TILE, at = (int64_t)(blockIdx.x % (unsigned)a.across) * TILE;
  for (int i = warp; i < TILE; i += LINES)
    if (line + i < a.lines && at + lane < a.length)
      tile[i][lane] = converted(bits_at(a.from, a.from_dtype, (line + i) * a.length + at + lane), a.from_dtype, a.to_dtype);
  __syncthreads();
  for (int i = warp; i < TILE; i += LINES) {
    int from_line = a.turned ? lane : i, from_at = a.turned ? i : lane;
    if (line + from_line >= a.lines || at + from_at >= a.length) continue;
    int64_t row = a.turned ? at + i : line + i, column = a.turned ? line + lane : at + lane;
    put_bits(a.to, a.to_dtype, row * a.ld + column, tile[from_line][from_at]);
  }
}

extern "C" cudaError_t launch_arrange(cudaStream_t stream, const arrange_args *args) {
  arrange_args a = *args;
  int64_t across = (a.length + TILE - 1) / TILE, down = (a.lines + TILE - 1) / TILE;
  a.across = (int32_t)across;
  return launch(arrange_kernel, a, dim3((unsigned)(across * down)), TILE * LINES, 0, stream);
}
