/* tensor.cuh: products with weights of 16 bits on tensor cores, for few rows: the weights are streamed once, x is used as it is.
 *
 * An x is cut into three pieces, which it is the sum of, and each of which has few enough bits to be multiplied: 8 + 8 + 8 bits
 * in bf16, for weights in bf16; 11 + 11 + 2 in tf32, for weights in f16, which are widened. Products of pieces are exact;
 * only sums are rounded (by tensor cores: cut off). Those of the first pieces are summed apart from the others, which are small
 * beside them.
 *
 * A block owns 8 outputs a tile and some tiles. Its 8 warps share the inputs: warp w takes 32 of each 256, in ascending order; a
 * lane reads 8 neighbours, 16 bytes, of one output, and the same 8 of one row of x or more. Which input stands in which
 * place of a fragment does not matter as long as A and B agree. At the end the warps' sums are added in their order. So the order
 * of sums depends on the number of inputs alone: not on how many rows there are, which stand beside, or how many tiles
 * a block has; kernels differ in those only to keep enough bytes on their way. A gate and what it gates are two tiles of the same x. */
#ifndef STEERD_CORE_MATH_CUDA_TENSOR_CUH
#define STEERD_CORE_MATH_CUDA_TENSOR_CUH

#include "core/math/cuda/ptx.cuh"
#include "core/math/cuda/product.cuh"

#define SLICES 8              /* warps of a block */
#define THREADS (SLICES * 32)
#define STEP 32               /* inputs of a warp at a time */
#define TURN (SLICES * STEP)
#define PIECES 3
#define IN_FLIGHT 8           /* copies of 16 bytes that a lane has on their way: 32 KiB a block */

/* ---- operands --------------------------------------------------------------------------------------------------------- */

/* 8 neighbouring inputs as a lane holds them: in N words; two words make one operand of a product. */
template <int TYPE> struct operand;
template <> struct operand<DTYPE_BF16> {
  static const int N = 4;
  static __device__ __forceinline__ void widen(uint4 v, unsigned w[N]) { w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w; }
  static __device__ __forceinline__ void cut(const float x[8], unsigned piece[N]) {
    for (int i = 0; i < N; i++) piece[i] = __byte_perm(__float_as_uint(x[2 * i]), __float_as_uint(x[2 * i + 1]), 0x7632);
  }
  static __device__ __forceinline__ float first(float x) { return __uint_as_float(__float_as_uint(x) & 0xFFFF0000u); }
  static __device__ __forceinline__ void multiply(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                                  const unsigned *b) {
    mma_bf16(d, a0, a1, a2, a3, b[0], b[1]);
  }
};
template <> struct operand<DTYPE_F16> {
  static const int N = 8;
  static __device__ __forceinline__ void widen(uint4 v, unsigned w[N]) {
    unsigned pair[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) {
      w[2 * i] = __float_as_uint(__half2float(__ushort_as_half((unsigned short)(pair[i] & 0xFFFF))));
      w[2 * i + 1] = __float_as_uint(__half2float(__ushort_as_half((unsigned short)(pair[i] >> 16))));
    }
  }
  static __device__ __forceinline__ void cut(const float x[8], unsigned piece[N]) {
    for (int i = 0; i < N; i++) piece[i] = __float_as_uint(first(x[i]));
  }
  static __device__ __forceinline__ float first(float x) { return __uint_as_float(__float_as_uint(x) & 0xFFFFE000u); }
  static __device__ __forceinline__ void multiply(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                                  const unsigned *b) {
    mma_tf32(d, a0, a1, a2, a3, b[0], b[1]);
  }
};

/* Cuts, never rounds: no piece overflows, and what is left is exact. Of an infinity, nothing is left. */
template <int TYPE> static __device__ __forceinline__ void split(float x[8], unsigned piece[PIECES][operand<TYPE>::N]) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) largest = fmaxf(largest, fabsf(x[i]));
  bool infinite = __any_sync(FULL_WARP, largest == INFINITY);
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    operand<TYPE>::cut(x, piece[p]);
    if (p == 0 && infinite) {
      for (int i = 0; i < 8; i++) x[i] = fabsf(x[i]) == INFINITY ? 0 : x[i] - operand<TYPE>::first(x[i]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++) x[i] -= operand<TYPE>::first(x[i]);
    }
  }
}

/* ---- what a warp sums -------------------------------------------------------------------------------------------------- */

/* Up to 8 rows stand in the upper half of A with their first piece and in the lower half with the others, so that one
 * product does two; more rows fill it, and the pieces follow each other. Element for element the same sums. */
template <int TYPE, int TILES, int ROWS> struct sums {
  static const int N = operand<TYPE>::N, GROUPS = ROWS / 8, PAIRS = (GROUPS + 1) / 2, CHAINS = GROUPS == 1 ? 1 : 2;
  float d[PAIRS][TILES][CHAINS][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < PAIRS * TILES * CHAINS * 4; i++) (&d[0][0][0][0])[i] = 0;
  }

  /* p: pieces of the 8 inputs of each of the lane's rows. */
  __device__ __forceinline__ void add_single(const unsigned p[PIECES][N], int tile, const unsigned b[N]) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      operand<TYPE>::multiply(d[0][tile][0], p[0][i], p[1][i], p[0][i + 1], p[1][i + 1], b + i);
      operand<TYPE>::multiply(d[0][tile][0], 0, p[2][i], 0, p[2][i + 1], b + i);
    }
  }

  __device__ __forceinline__ void add_pair(const unsigned p[PIECES][N], const unsigned q[PIECES][N], int pair, int tile,
                                           const unsigned b[N]) {
#pragma unroll
    for (int i = 0; i < N; i += 2)
#pragma unroll
      for (int k = 0; k < PIECES; k++)
        operand<TYPE>::multiply(d[pair][tile][k ? CHAINS - 1 : 0], p[k][i], q[k][i], p[k][i + 1], q[k][i + 1], b + i);
  }

  __device__ __forceinline__ void add(const unsigned p[GROUPS][PIECES][N], const uint4 w[TILES]) {
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      unsigned b[N];
      operand<TYPE>::widen(w[tile], b);
      if (GROUPS == 1) {
        add_single(p[0], tile, b);
      } else {
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair++) add_pair(p[2 * pair], p[(2 * pair + 1) % GROUPS], pair, tile, b);
      }
    }
  }

  /* Sum i (0, 1) of row 8 `half` + group of pair `pair`. */
  __device__ __forceinline__ float at(int pair, int half, int tile, int i) const {
    const float *first = d[pair][tile][0], *rest = d[pair][tile][CHAINS - 1];
    return CHAINS == 1 ? first[i] + first[2 + i] : first[2 * half + i] + rest[2 * half + i];
  }
};

/* ---- what a block does -------------------------------------------------------------------------------------------------- */

/* 8 inputs of the `left` that there are from x on; others count as 0. WIDE: rows begin at multiples of 16 bytes, and there are
 * 8 or none. */
template <bool WIDE> static __device__ __forceinline__ void load_inputs(const float *x, int left, float out[8]) {
  if (WIDE) {
    float4 low = {0, 0, 0, 0}, high = {0, 0, 0, 0};
    if (left > 0) low = *(const float4 *)x, high = *(const float4 *)(x + 4);
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  } else {
    for (int i = 0; i < 8; i++) out[i] = i < left ? x[i] : 0.0f;
  }
}

/* A lane's weights on their way through shared memory, and later the warps' sums. Every lane reads what it copied itself. */
template <int TILES, int ROWS> union tensor_shared {
  static const int DEPTH = IN_FLIGHT / TILES, WIDTH = TILES * 8, PITCH = WIDTH + 8;
  uint4 weights[DEPTH][TILES][THREADS];
  float sums[SLICES][ROWS][PITCH];
};

template <int TILES, int ROWS> static __device__ __forceinline__ float total(const tensor_shared<TILES, ROWS> &shared, int row, int at) {
  float sum = shared.sums[0][row][at];
#pragma unroll
  for (int slice = 1; slice < SLICES; slice++) sum += shared.sums[slice][row][at];
  return sum;
}

/* A block's outputs of ROWS rows from `first` on. */
template <int TYPE, int TILES, int ROWS, bool WIDE> struct tensor_block {
  typedef tensor_shared<TILES, ROWS> lay;
  static const int GROUPS = ROWS / 8, DEPTH = lay::DEPTH, WIDTH = lay::WIDTH;
  /* Turns whose x is on its way: x comes from the second cache, and a turn of few rows and outputs is shorter than that takes. */
  static const int AHEAD = TILES == 1 && GROUPS == 1 ? 4 : 1;
  lay &shared;
  const product_args &a;
  row_range rows;
  int first, width; /* outputs of the block */
  bool gated;
  int64_t out;
  const unsigned short *w[TILES];
  int w_left;

  __device__ __forceinline__ tensor_block(lay &shared, const product_args &a, int row_groups) : shared(shared), a(a) {
    rows = product_rows(a);
    first = rows.begin + (int)(blockIdx.x % row_groups) * ROWS;
    gated = TILES > 1 && a.gate.data;
    width = gated ? WIDTH / 2 : WIDTH;
    out = (int64_t)(blockIdx.x / row_groups) * width;
  }

  static __device__ __forceinline__ int begin(void) { return (int)threadIdx.x / 32 * STEP + (int)threadIdx.x % 4 * 8; }
  static __device__ __forceinline__ int group(void) { return (int)threadIdx.x % 32 / 4; }

  /* Asks for the first weights, which nobody waits for yet. */
  __device__ __forceinline__ void ask(void) {
    int turns = ((int)a.w.ld + TURN - 1) / TURN;
    if (threadIdx.x == 0 && out < a.w.n_out) { /* what is added at the end would be waited for there */
      int64_t n = min((int64_t)width, a.w.n_out - out);
      if (a.bias) fetch_floats(a.bias + out, n);
      if (gated && a.gate_bias) fetch_floats(a.gate_bias + out, n);
    }
    w_left = (int)a.w.ld - begin();
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) { /* beyond the last output: some other one, for nobody */
      const void *data = gated && tile % 2 ? a.gate.data : a.w.data;
      w[tile] = (const unsigned short *)data + min(out + (gated ? tile / 2 : tile) * 8 + group(), a.w.n_out - 1) * a.w.ld + begin();
    }
#pragma unroll
    for (int i = 0; i < DEPTH; i++) {
#pragma unroll
      for (int tile = 0; tile < TILES; tile++)
        if (i < turns) copy_start(&shared.weights[i][tile][threadIdx.x], w[tile] + i * TURN, i * TURN < w_left);
      copy_group();
    }
  }

  /* Once asked for, the weights come: a block that has no rows waits for them too. */
  __device__ __forceinline__ bool works(void) const {
    if (first < rows.end) return true;
    copy_wait<0>();
    return false;
  }

  /* The products with rows of x. The whole block. */
  __device__ __forceinline__ void multiply(const device_rows &from) {
    const float *x[GROUPS];
    int x_left[GROUPS], turns = ((int)a.w.ld + TURN - 1) / TURN;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
      int row = first + 8 * g + group();
      x[g] = row_at(from, min(row, rows.end - 1)) + begin();
      x_left[g] = row < rows.end ? (int)a.w.n_in - begin() : 0;
    }
    float next[AHEAD][GROUPS][8];
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
#pragma unroll
      for (int g = 0; g < GROUPS; g++) load_inputs<WIDE>(x[g] + k * TURN, x_left[g] - k * TURN, next[k][g]);
    sums<TYPE, TILES, ROWS> sum;
    sum.clear();
    uint4 *slot = &shared.weights[0][0][threadIdx.x], *const end = slot + DEPTH * TILES * THREADS;
    int to_start = turns - DEPTH;
#pragma unroll 1
    for (int base = 0; base < turns; base += AHEAD) {
#pragma unroll
      for (int k = 0; k < AHEAD; k++) {
        unsigned pieces[GROUPS][PIECES][operand<TYPE>::N];
        uint4 weights[TILES];
        if (k && base + k == turns) break;
        copy_wait<DEPTH - 1>();
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) weights[tile] = slot[tile * THREADS];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
          if (base + k < to_start) copy_start(slot + tile * THREADS, w[tile] + DEPTH * TURN, DEPTH * TURN < w_left);
          w[tile] += TURN;
        }
        copy_group();
        w_left -= TURN;
        slot += TILES * THREADS;
        if (slot == end) slot -= DEPTH * TILES * THREADS;
#pragma unroll
        for (int g = 0; g < GROUPS; g++) split<TYPE>(next[k][g], pieces[g]);
        sum.add(pieces, weights);
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
          x[g] += TURN, x_left[g] -= TURN;
          load_inputs<WIDE>(x[g] + (AHEAD - 1) * TURN, x_left[g] - (AHEAD - 1) * TURN, next[k][g]);
        }
      }
    }
    copy_wait<0>();
    __syncthreads();
    join(sum);
  }

  /* The warps' sums, added in their order, and what becomes of them. */
  __device__ __forceinline__ void join(const sums<TYPE, TILES, ROWS> &sum) {
    int warp = threadIdx.x / 32, part = threadIdx.x % 4;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
#pragma unroll
      for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int i = 0; i < 2; i++) shared.sums[warp][8 * g + group()][8 * tile + 2 * part + i] = sum.at(g / 2, g % 2, tile, i);
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * width; i += THREADS) {
      int row = i / width, column = i % width, at = gated ? column / 8 * 16 + column % 8 : column;
      if (first + row >= rows.end || out + column >= a.w.n_out) continue;
      if (gated)
        finish_gated(a, first + row, out + column, total<TILES, ROWS>(shared, row, at), total<TILES, ROWS>(shared, row, at + 8));
      else
        finish(a, first + row, out + column, total<TILES, ROWS>(shared, row, at));
    }
  }
};

/* Blocks for all outputs of `rows` rows. */
template <int TILES, int ROWS> static inline unsigned tensor_blocks(const product_args &args, int row_groups) {
  int64_t width = args.gate.data ? TILES * 4 : TILES * 8;
  return (unsigned)((args.w.n_out + width - 1) / width * row_groups);
}

#endif
