/* rows_tensor.cu: the stages of a row and the product of what their norm gives, in one launch: a hand-over from kernel to kernel less, for
 * models so narrow that a decode step is made of little else.
 *
 * Every block does the rows for itself, a warp each, while its first weights are on their way, and with the bits of rows_kernel
 * (row.cuh); x never leaves the multiprocessor. What is written of the rows is written once: taps, and the rows that the norm
 * gives, by the first block; the residual, which all blocks read, by whichever block is the last to have read it. */
#include "core/math/cuda/rows.cuh"
#include "core/math/cuda/tensor.cuh"

#define MOST_ROWS 8                   /* one for each warp */
#define PROCESSORS 132                /* of an H100 or H200; a little off elsewhere, which costs a launch and no bit */
#define ROOM (227 << 10)              /* of shared memory on one, */
#define MOST_SHARED (99 << 10)        /* what a block may have everywhere from 8.0 on, */
#define OWN_SHARED (34 << 10)         /* and what this one has beside its rows */
#define HELD 6                        /* pieces of 16 bytes that a lane asks for at a time, of each of two rows */

/* ---- rows in shared memory ------------------------------------------------------------------------------------------------- */

/* Rows as the block holds them: the residual, and what the norm makes of it. 4 elements more than their width apart: the lanes of a
 * warp that read 8 rows at once meet in no bank. */
struct held_rows {
  int pitch;
  float *h, *y, *gain, *bias; /* the norm's, 1 and 0 where it has none */
};

static __host__ __device__ __forceinline__ size_t held_floats(int64_t width, int rows) {
  return (size_t)(2 * rows) * (size_t)(width + 4) + 2 * (size_t)width;
}

static __device__ __forceinline__ held_rows hold_rows(float *memory, int width, int rows) {
  held_rows held;
  held.pitch = width + 4;
  held.h = memory;
  held.y = held.h + rows * held.pitch;
  held.gain = held.y + rows * held.pitch;
  held.bias = held.gain + width;
  return held;
}

static __device__ __forceinline__ device_norm hold_norm(const device_norm &norm, int width, const held_rows &held) {
  for (int i = threadIdx.x; i < width; i += THREADS) {
    held.gain[i] = norm.gain ? __ldcg(norm.gain + i) : 1.0f;
    held.bias[i] = norm.bias ? __ldcg(norm.bias + i) : 0.0f;
  }
  device_norm here = {norm.kind, norm.eps, held.gain, held.bias};
  return here;
}

/* Two rows of `width` elements, a multiple of 4, from device memory, all on their way at once; each lane sees what the others fetched.
 * One of them may be NULL. */
static __device__ __forceinline__ void fetch_rows(const float *from, float *to, const float *from2, float *to2, int width, int lane) {
  for (int base = 4 * lane; base < width; base += 128 * HELD) {
    float4 v[HELD], v2[HELD];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if (from && base + 128 * i < width) v[i] = *(const float4 *)(from + base + 128 * i);
      if (from2 && base + 128 * i < width) v2[i] = *(const float4 *)(from2 + base + 128 * i);
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if (from && base + 128 * i < width) *(float4 *)(to + base + 128 * i) = v[i];
      if (from2 && base + 128 * i < width) *(float4 *)(to2 + base + 128 * i) = v2[i];
    }
  }
  __syncwarp();
}

/* A row through its stages, by the warp of its number. Whether its residual has changed. */
static __device__ __forceinline__ bool make_row(warp_team team, const row_args &a, row_stages stages, bool begins, const device_norm &norm,
                                                int row, const point_items<warp_team> *found, float *h, float *y) {
  if (!stages.sums && !stages.arrives && !stages.norms) return false;
  fetch_rows(begins ? NULL : row_at(a.resid, row), h, stages.sums ? row_at(a.out, row) : NULL, y, (int)a.width, team.lane);
  if (begins) begin_row(team, a, row, h);
  change_row(team, a, stages, row, h, y, found);
  if (stages.norms) {
    norm_row(team, norm, a.width, h, y);
    if (team.tells) copy_row(team, y, row_at(a.y, row), a.width);
  }
  return stages.sums || begins || has_point(a, stages);
}

/* ---- the kernel ---------------------------------------------------------------------------------------------------------------- */

struct held_args {
  rows_product_args both;
  int32_t rows; /* that are held */
};

template <int TYPE, int TILES> static __global__ void __launch_bounds__(THREADS, TILES > 1 ? 3 : 2) rows_product_kernel(held_args args) {
  DYNAMIC_SHARED(float, memory);
  __shared__ tensor_shared<TILES, MOST_ROWS> shared;
  __shared__ point_items<warp_team> found[MOST_ROWS][ROW_POINTS];
  __shared__ bool changed[MOST_ROWS], last;
  const row_args &a = args.both.rows;
  int width = (int)a.width, warp = threadIdx.x / 32;
  held_rows held = hold_rows(memory, width, args.rows);
  tensor_block<TYPE, TILES, MOST_ROWS, true> block(shared, args.both.product, 1);
  block.ask();
  device_norm norm = hold_norm(a.norm, width, held);
  warp_team team = {(int)threadIdx.x % 32, blockIdx.x == 0};
  row_stages stages = {false, false, false, false};
  if (warp < args.rows) stages = stages_of(a, warp);
  bool begins = stages.arrives && begins_here(a, warp);
  find_points(team, a, stages, warp, found[warp]);
  grid_follow();
  __syncthreads();
  bool changes = make_row(team, a, stages, begins, norm, warp, found[warp], held.h + warp * held.pitch, held.y + warp * held.pitch);
  if (threadIdx.x % 32 == 0) changed[warp] = changes;
  __syncthreads();
  unsigned before = 0;
  if (threadIdx.x == 0) { /* it has read the residual; the answer is not waited for */
    __threadfence();
    before = atomicAdd(args.both.count, 1u);
  }
  device_rows x = {held.y, held.pitch};
  if (block.works()) block.multiply(x);
  if (threadIdx.x == 0) {
    last = before == gridDim.x - 1;
    if (last) {
      *args.both.count = 0;
      __threadfence();
    }
  }
  __syncthreads();
  if (!last) return;
  for (int row = 0; row < args.rows; row++)
    for (int i = threadIdx.x; i < width && changed[row]; i += THREADS) row_at(a.resid, row)[i] = held.h[row * held.pitch + i];
}

/* ---- launches -------------------------------------------------------------------------------------------------------------------- */

template <int TYPE, int TILES> static cudaError_t launch_tiles(cudaStream_t stream, int32_t rows, const rows_product_args &args) {
  held_args held = {args, rows};
  size_t bytes = held_floats(args.rows.width, rows) * sizeof(float);
  static_assert(sizeof(tensor_shared<TILES, MOST_ROWS>) + sizeof(point_items<warp_team>[MOST_ROWS][ROW_POINTS]) + 64 <= OWN_SHARED, "");
  cudaError_t status = /* always the same: graphs that were recorded go on */
      cudaFuncSetAttribute(rows_product_kernel<TYPE, TILES>, cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_SHARED - OWN_SHARED);
  if (status != cudaSuccess) return status;
  unsigned blocks = tensor_blocks<TILES, MOST_ROWS>(args.product, 1);
  return launch(rows_product_kernel<TYPE, TILES>, held, dim3(blocks), THREADS, bytes, stream);
}

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, int32_t rows, const rows_product_args &args) {
  if (args.product.w.n_out < 2048 && !args.product.gate.data) return launch_tiles<TYPE, 1>(stream, rows, args);
  return launch_tiles<TYPE, 2>(stream, rows, args);
}

extern "C" cudaError_t launch_rows_product(cudaStream_t stream, const bucket *bucket, const rows_product_args *args) {
  if (args->product.w.dtype == DTYPE_F16) return launch_type<DTYPE_F16>(stream, bucket->rows, *args);
  return launch_type<DTYPE_BF16>(stream, bucket->rows, *args);
}

/* About as many blocks as find room at once: a second turn of them would do the rows a second time. Three by their registers. */
static size_t blocks_at_once(size_t bytes) {
  size_t each = ROOM / (OWN_SHARED + bytes);
  return PROCESSORS * (each < 3 ? each : 3);
}

static bool in_pieces(const device_rows &rows) { return (uintptr_t)rows.at % 16 == 0 && rows.ld % 4 == 0; }

extern "C" bool rows_take_product(const bucket *bucket, const rows_product_args *args) {
  const row_args &a = args->rows;
  const device_matrix &w = args->product.w;
  size_t bytes = held_floats(a.width, bucket->rows) * sizeof(float);
  return w.dtype != DTYPE_F32 && bucket->rows <= MOST_ROWS && a.width <= PLAYED_WIDTH && a.width % 8 == 0 && w.n_in == a.width &&
         in_pieces(a.resid) && (a.sub_layer < 0 || in_pieces(a.out)) && bytes <= MOST_SHARED - OWN_SHARED &&
         tensor_blocks<2, MOST_ROWS>(args->product, 1) <= blocks_at_once(bytes);
}
