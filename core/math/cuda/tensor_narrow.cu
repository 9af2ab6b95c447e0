/* tensor_narrow.cu: products of 33 rows and more with small matrices of 16 bits on tensor cores: one launch, x rounded to their type.
 *
 * A block owns 64 rows and 8 outputs a tile; blocks of the same outputs stand side by side, so that all but one find the weights in the
 * second cache. Its 8 warps share the inputs as in tensor.cu: warp w takes 32 of each 256, a lane 8 neighbours of one output and the
 * same 8 of eight rows, and the warps' sums are added in their order: an order that depends on the number of inputs alone. What
 * is read most is x, once for each block, in the type of the weights: it is put there by whoever makes it. */
#include "core/math/cuda/product.cuh"
#include "core/math/cuda/ptx.cuh"

#define SLICES 8 /* warps of a block */
#define THREADS (SLICES * 32)
#define STEP 32 /* inputs of a warp at a time */
#define TURN (SLICES * STEP)
#define ROWS 64
#define GROUPS (ROWS / 8)
#define PAIRS (GROUPS / 2) /* of 16 rows: those of a product */
#define IN_FLIGHT 8        /* copies of 16 bytes that a lane has on their way: 32 KiB a block */
#define WIDE_OUTPUTS 2048  /* from here on there are blocks enough with 4 tiles each */

template <int TYPE> static __device__ __forceinline__ void multiply(float d[4], const uint4 &p, const uint4 &q, const uint4 &b) {
  if (TYPE == DTYPE_F16) {
    mma_f16(d, p.x, q.x, p.y, q.y, b.x, b.y);
    mma_f16(d, p.z, q.z, p.w, q.w, b.z, b.w);
  } else {
    mma_bf16(d, p.x, q.x, p.y, q.y, b.x, b.y);
    mma_bf16(d, p.z, q.z, p.w, q.w, b.z, b.w);
  }
}

struct narrowed_args {
  product_args product;
  const unsigned short *x; /* [rows][w.ld] */
  int32_t row_groups;      /* of ROWS rows */
};

/* Weights on their way, each lane's own, and later the warps' sums of a pair. */
template <int TILES> union narrowed_shared {
  static const int DEPTH = IN_FLIGHT / TILES, WIDTH = TILES * 8, PITCH = WIDTH + 8;
  uint4 weights[DEPTH][TILES][THREADS];
  float sums[SLICES][16][PITCH];
};

template <int TILES> static __device__ __forceinline__ float total(const narrowed_shared<TILES> &shared, int row, int at) {
  float sum = shared.sums[0][row][at];
#pragma unroll
  for (int slice = 1; slice < SLICES; slice++) sum += shared.sums[slice][row][at];
  return sum;
}

/* 8 inputs of each of the lane's rows, which begin at `row`. */
static __device__ __forceinline__ void load_rows(const unsigned short *x, const int row[GROUPS], int input, bool wanted, uint4 v[GROUPS]) {
  const uint4 none = {0, 0, 0, 0};
#pragma unroll
  for (int g = 0; g < GROUPS; g++) v[g] = wanted ? *(const uint4 *)(x + row[g] + input) : none;
}

template <int TYPE, int TILES> static __global__ void __launch_bounds__(THREADS, 2) narrowed_kernel(narrowed_args n) {
  typedef narrowed_shared<TILES> lay;
  const int DEPTH = lay::DEPTH, WIDTH = lay::WIDTH;
  __shared__ lay shared;
  const product_args &a = n.product;
  row_range rows = product_rows(a);
  int first = rows.begin + (int)(blockIdx.x % n.row_groups) * ROWS;
  bool gated = a.gate.data; /* every second tile is the gate's then: the outputs of two tiles are one */
  int width = gated ? WIDTH / 2 : WIDTH;
  int64_t out = (int64_t)(blockIdx.x / n.row_groups) * width;
  int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, part = threadIdx.x % 4, begin = warp * STEP + part * 8;
  int turns = ((int)a.w.ld + TURN - 1) / TURN, left = (int)a.w.ld - begin;

  const unsigned short *const even = (const unsigned short *)a.w.data, *const odd = gated ? (const unsigned short *)a.gate.data : even;
  int w[TILES]; /* where the lane's outputs begin; beyond the last one: some other, for nobody */
#pragma unroll
  for (int tile = 0; tile < TILES; tile++)
    w[tile] = (int)(min(out + (gated ? tile / 2 : tile) * 8 + group, a.w.n_out - 1) * a.w.ld) + begin;
#pragma unroll
  for (int i = 0; i < DEPTH; i++) {
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
      if (i < turns) copy_start(&shared.weights[i][tile][threadIdx.x], (tile % 2 ? odd : even) + w[tile] + i * TURN, i * TURN < left);
    copy_group();
  }
  grid_follow();
  if (first >= rows.end) {
    copy_wait<0>();
    return;
  }

  int row[GROUPS]; /* likewise */
#pragma unroll
  for (int g = 0; g < GROUPS; g++) row[g] = min(first + 8 * g + group, rows.end - 1) * (int)a.w.ld + begin;
  float d[PAIRS][TILES][4];
#pragma unroll
  for (int i = 0; i < PAIRS * TILES * 4; i++) (&d[0][0][0])[i] = 0;
  uint4 v[GROUPS], *slot = &shared.weights[0][0][threadIdx.x], *const end = slot + DEPTH * TILES * THREADS;
  load_rows(n.x, row, 0, left > 0, v);
  int to_start = turns - DEPTH;
#pragma unroll 1
  for (int turn = 0; turn < turns; turn++) {
    copy_wait<DEPTH - 1>();
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      uint4 weights = slot[tile * THREADS];
      if (turn < to_start) copy_start(slot + tile * THREADS, (tile % 2 ? odd : even) + w[tile] + (turn + DEPTH) * TURN, DEPTH * TURN < left);
#pragma unroll
      for (int pair = 0; pair < PAIRS; pair++) multiply<TYPE>(d[pair][tile], v[2 * pair], v[2 * pair + 1], weights);
    }
    copy_group();
    left -= TURN;
    slot += TILES * THREADS;
    if (slot == end) slot -= DEPTH * TILES * THREADS;
    load_rows(n.x, row, (turn + 1) * TURN, left > 0, v);
  }
  copy_wait<0>();

#pragma unroll
  for (int pair = 0; pair < PAIRS; pair++) {
    __syncthreads();
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
      for (int i = 0; i < 4; i++) shared.sums[warp][i / 2 * 8 + group][8 * tile + 2 * part + i % 2] = d[pair][tile][i];
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * width; i += THREADS) {
      int r = i / width, column = i % width, at = gated ? column / 8 * 16 + column % 8 : column, to = first + 16 * pair + r;
      if (to >= rows.end || out + column >= a.w.n_out) continue;
      if (gated)
        finish_gated(a, to, out + column, total(shared, r, at), total(shared, r, at + 8));
      else
        finish(a, to, out + column, total(shared, r, at));
    }
  }
}

template <int TYPE, int TILES> static cudaError_t launch_tiles(cudaStream_t stream, int64_t rows, const product_args &args, const void *x) {
  narrowed_args n = {args, (const unsigned short *)x, (int32_t)((rows + ROWS - 1) / ROWS)};
  int64_t width = args.gate.data ? TILES * 4 : TILES * 8, blocks = (args.w.n_out + width - 1) / width * n.row_groups;
  return launch(narrowed_kernel<TYPE, TILES>, n, dim3((unsigned)blocks), THREADS, 0, stream);
}

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, int64_t rows, const product_args &args, const void *x) {
  bool wide = (args.gate.data ? 2 : 1) * args.w.n_out >= WIDE_OUTPUTS;
  return wide ? launch_tiles<TYPE, 4>(stream, rows, args, x) : launch_tiles<TYPE, 2>(stream, rows, args, x);
}

extern "C" cudaError_t launch_product_narrowed(cudaStream_t stream, int64_t rows, const product_args *args, const void *x) {
  if (args->w.dtype == DTYPE_F16) return launch_type<DTYPE_F16>(stream, rows, *args, x);
  return launch_type<DTYPE_BF16>(stream, rows, *args, x);
}
