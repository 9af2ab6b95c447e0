/* encode.cu: rows on their way into a dictionary, and what is kept of its pre-activations.
 *
 * A row of pre-activations is cut into pieces of CHOOSE_PIECE features, a block each, so that a single row has work for many
 * processors. Each block gathers what its piece keeps, in order, at the front of the piece: what is multiplied is read once. Then
 * the pieces of all rows are packed behind each other. Counts are added by atomics, places come from sums of counts: the order is
 * that of rows and features, whatever ran first.
 *
 * The k largest are found by their bits: positive floats are ordered as their bits are. A histogram of the leading bits of a row
 * says above which the k-th is; only what is there or above is gathered, and one block a row finds the exact border
 * among those few, lowest index first among equals. */
#include "core/math/cuda/splice.cuh"

/* *back: what undoes it. Of a standard deviation that is without the little that keeps it off 0, as dictionaries are trained. */
static __device__ inline float centre_scale(const centre_args &a, const float *x, float mean, float *back, float *shared) {
  float square, n = (float)a.width;
  *back = 1;
  if (a.norm == ENCODE_NORM_NONE) return 1;
  if (a.norm == ENCODE_NORM_SCALE) return a.scale;
  block_team team = {shared};
  square = team.sum(0, a.width, [=](int i) { return x[i]; }, [=](float sum, float own) { return fmaf(own - mean, own - mean, sum); });
  if (a.norm == ENCODE_NORM_STANDARD) {
    double deviation = sqrt((double)square / (double)(a.width - 1));
    *back = (float)deviation;
    return (float)(1 / (deviation + ENCODE_STANDARD_EPS));
  }
  if (square > 0) *back = sqrtf(square / n);
  return square > 0 ? sqrtf(n / square) : 1.0f;
}

static __device__ inline float row_mean(const float *x, int64_t width, float *shared) {
  block_team team = {shared};
  return team.sum(0, width, [=](int i) { return x[i]; }, [](float sum, float own) { return sum + own; }) / (float)width;
}

static __global__ void centre_kernel(centre_args a) {
  __shared__ float shared[MAX_WARPS];
  grid_follow();
  for (int i = threadIdx.x; i < a.n_counters; i += blockDim.x) a.counters[(int64_t)blockIdx.x * a.n_counters + i] = 0;
  float *to = a.to + (int64_t)blockIdx.x * a.width, *raw = a.raw ? a.raw + (int64_t)blockIdx.x * a.width : NULL, mean = 0, back;
  const table_splice *splice = a.of.table ? group_row(a.of, (int)blockIdx.x) : NULL;
  if (a.of.table && !splice) {
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) {
      to[i] = 0;
      if (raw) raw[i] = 0;
    }
    return;
  }
  const float *x = row_at(a.x, splice ? splice->x : (int)blockIdx.x);
  if (a.center_mean || a.norm == ENCODE_NORM_STANDARD) mean = row_mean(x, a.width, shared);
  float scale = centre_scale(a, x, mean, &back, shared);
  const float *subtract = a.subtract;
  block_team team = {shared};
  team.each(0, a.width, [=](int i) { return make_float2(x[i], subtract ? subtract[i] : 0.0f); },
            [=](int i, float2 own) {
              to[i] = (own.x - mean) * scale - own.y;
              if (raw) raw[i] = own.x;
            });
  if (!a.frame) return;
  if (splice && a.kept.at) {
    mean = row_mean(row_at(a.kept, splice->y), a.kept_width, shared);
    back = 1;
  }
  if (threadIdx.x) return;
  a.frame[2 * blockIdx.x] = back;
  a.frame[2 * blockIdx.x + 1] = mean;
}

extern "C" cudaError_t launch_centre(cudaStream_t stream, int64_t rows, const centre_args *args) {
  return launch(centre_kernel, *args, dim3((unsigned)rows), row_threads(args->width), 0, stream);
}

/* ---- what fires ----------------------------------------------------------------------------------------------------------- */

#define THREADS 256
#define LAPS (CHOOSE_PIECE / (4 * THREADS)) /* a thread has four neighbours of each lap */
static_assert(LAPS == 4, "four counts of a warp, 128 at most, lie in one word");

/* What a feature is chosen by, one more than its bits; 0: it does not fire. */
static __device__ __forceinline__ unsigned rank_bits(const choose_args &a, float p, int64_t f) {
  if (!(p > 0)) return 0;
  return __float_as_uint(a.fold_selects ? fabsf(fmaxf(p * a.fold[f], 0.0f)) : p) + 1;
}

/* The value that a feature has when it is kept, before the fold; 0: it is not. */
static __device__ __forceinline__ float kept_value(const choose_args &a, float p, int64_t f, unsigned least) {
  if (!(p > 0)) return 0;
  switch (a.kind) {
    case ENCODE_JUMPRELU: return p > a.threshold[f] ? p : 0;
    case ENCODE_TOPK: return rank_bits(a, p, f) >= least ? p : 0;
    case ENCODE_GATED: return fmaf(p - (a.bias ? a.bias[f] : 0.0f), a.gain[f], a.shift[f]);
    default: return p; /* ENCODE_RELU, and ENCODE_GROUPMAX once the others of each group are gone */
  }
}

/* Four neighbours of the row from f on, with their biases; rows have room for a multiple of four. */
static __device__ __forceinline__ void load_four(const choose_args &a, const float *p, int64_t f, float to[4]) {
  float4 v = {0, 0, 0, 0}, bias = {0, 0, 0, 0};
  bool wide = a.bias && (uintptr_t)a.bias % 16 == 0 && f + 4 <= a.n_feat;
  if (f < a.n_feat) v = *(const float4 *)(p + f);
  if (wide) bias = *(const float4 *)(a.bias + f);
  to[0] = v.x + bias.x, to[1] = v.y + bias.y, to[2] = v.z + bias.z, to[3] = v.w + bias.w;
  for (int c = 0; c < 4; c++) {
    if (a.bias && !wide && f + c < a.n_feat) to[c] += a.bias[f + c];
    if (f + c >= a.n_feat) to[c] = 0;
  }
}

static __device__ __forceinline__ int32_t *counters_of(const choose_args &a, int row) { return a.counters + (int64_t)row * a.n_counters; }

/* ---- counts over a block ---------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ unsigned lanes_before(unsigned x, int lane) {
  unsigned sum = x;
  for (int step = 1; step < 32; step *= 2) {
    unsigned other = __shfl_up_sync(FULL_WARP, sum, step);
    if (lane >= step) sum += other;
  }
  return sum - x;
}

/* The sum over the threads before this one; *all: over all of them. `shared` is free again when it returns. */
static __device__ __forceinline__ int block_before(int x, int *all, int shared[MAX_WARPS]) {
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, before = (int)lanes_before((unsigned)x, lane), sum = 0;
  if (lane == 31) shared[warp] = before + x;
  __syncthreads();
  for (int i = 0; i < (int)blockDim.x / 32; i++) {
    if (i == warp) before += sum;
    sum += shared[i];
  }
  __syncthreads();
  *all = sum;
  return before;
}

/* ---- groups -------------------------------------------------------------------------------------------------------------- */

/* A warp for each group of neighbours: all but the largest become -infinity, which no bias brings back. */
static __global__ void __launch_bounds__(THREADS) groups_kernel(choose_args a) {
  grid_follow();
  int64_t size = a.n_feat / a.k, group = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  if (group >= a.k) return;
  const float *bias = a.bias ? a.bias + group * size : NULL;
  float *p = a.p + (int64_t)blockIdx.y * a.ld + group * size, most = 0;
  int64_t lane = threadIdx.x % 32, best = size;
  for (int64_t i = lane; i < size; i += 32) {
    float with = p[i] + (bias ? bias[i] : 0.0f);
    if (with > most) most = with, best = i;
  }
  for (int step = 16; step; step >>= 1) {
    float other = __shfl_xor_sync(FULL_WARP, most, step);
    int64_t at = __shfl_xor_sync(FULL_WARP, best, step);
    if (other > most || (other == most && at < best)) most = other, best = at;
  }
  for (int64_t i = lane; i < size; i += 32)
    if (i != best) p[i] = -INFINITY;
}

/* ---- the k largest: leading bits ------------------------------------------------------------------------------------------- */

#define BIN_SHIFT 20 /* sign (0), exponent and three bits more */
static_assert(CHOOSE_BINS == 1 << (31 - BIN_SHIFT), "a bin for all leading bits");

static __global__ void __launch_bounds__(THREADS) histogram_kernel(choose_args a) {
  __shared__ int counts[CHOOSE_BINS];
  __shared__ int warps[MAX_WARPS];
  grid_follow();
  const float *p = a.p + (int64_t)blockIdx.y * a.ld;
  int32_t *to = counters_of(a, blockIdx.y);
  int fire = 0, all;
  for (int i = threadIdx.x; i < CHOOSE_BINS; i += THREADS) counts[i] = 0;
  __syncthreads();
#pragma unroll
  for (int lap = 0; lap < LAPS; lap++) {
    float v[4];
    int64_t f = (int64_t)blockIdx.x * CHOOSE_PIECE + (lap * THREADS + (int)threadIdx.x) * 4;
    load_four(a, p, f, v);
    for (int c = 0; c < 4; c++) {
      unsigned bits = rank_bits(a, v[c], f + c);
      if (bits) atomicAdd(&counts[bits >> BIN_SHIFT], 1);
      fire += bits != 0;
    }
  }
  block_before(fire, &all, warps); /* waits for all counts as well */
  if (threadIdx.x == 0) atomicAdd(to, all);
  for (int i = threadIdx.x; i < CHOOSE_BINS; i += THREADS)
    if (counts[i]) atomicAdd(to + 1 + i, counts[i]);
}

/* Where `k` is come to when bins are added from the last on, and *above: how many are in those behind it. Bin 0 with fewer than k. */
static __device__ int kth_bin(const int *counts, int n_bins, int k, int *above, int shared[MAX_WARPS]) {
  __shared__ int found, found_above;
  int each = n_bins / (int)blockDim.x, last = n_bins - 1 - (int)threadIdx.x * each, own = 0, all;
  if (threadIdx.x == 0) found = found_above = 0;
  for (int i = 0; i < each; i++) own += counts[last - i];
  int before = block_before(own, &all, shared); /* waits for found as well */
  if (before < k && before + own >= k) {
    while (before + counts[last] < k) before += counts[last--];
    found = last;
    found_above = before;
  }
  __syncthreads();
  int bin = found;
  *above = found_above;
  __syncthreads();
  return bin;
}

/* Ranks below it are not among the k largest. */
static __device__ __forceinline__ unsigned least_rank(const choose_args &a, int row, int shared[MAX_WARPS]) {
  int above;
  unsigned least = (unsigned)kth_bin(counters_of(a, row) + 1, CHOOSE_BINS, a.k, &above, shared) << BIN_SHIFT;
  return least ? least : 1;
}

/* ---- gathering ------------------------------------------------------------------------------------------------------------- */

/* Moves what a piece keeps to its front: values stay in p, features go beside them. */
static __global__ void __launch_bounds__(THREADS) gather_kernel(choose_args a) {
  __shared__ int shared[MAX_WARPS];
  grid_follow();
  int row = (int)blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int64_t begin = (int64_t)blockIdx.x * CHOOSE_PIECE;
  float *p = a.p + (int64_t)row * a.ld, v[LAPS][4];
  unsigned least = a.kind == ENCODE_TOPK ? least_rank(a, row, shared) : 0;
  unsigned count = 0;
  int all[LAPS] = {0}, at[LAPS] = {0};
#pragma unroll
  for (int lap = 0; lap < LAPS; lap++) load_four(a, p, begin + (lap * THREADS + (int)threadIdx.x) * 4, v[lap]);
#pragma unroll
  for (int lap = 0; lap < LAPS; lap++)
#pragma unroll
    for (int c = 0; c < 4; c++) {
      v[lap][c] = kept_value(a, v[lap][c], begin + (lap * THREADS + (int)threadIdx.x) * 4 + c, least);
      count += (v[lap][c] > 0 ? 1u : 0u) << 8 * lap;
    }
  unsigned before = lanes_before(count, lane);
  if (lane == 31) shared[warp] = (int)(before + count);
  __syncthreads(); /* and all of the piece has been read */
  for (int i = 0; i < THREADS / 32; i++)
#pragma unroll
    for (int lap = 0; lap < LAPS; lap++) {
      int n = (int)((unsigned)shared[i] >> 8 * lap & 255);
      all[lap] += n;
      at[lap] += i < warp ? n : 0;
    }
  int total = 0;
#pragma unroll
  for (int lap = 0; lap < LAPS; lap++) {
    int to = total + at[lap] + (int)(before >> 8 * lap & 255);
    total += all[lap];
#pragma unroll
    for (int c = 0; c < 4; c++)
      if (v[lap][c] > 0) {
        p[begin + to] = v[lap][c];
        a.feature[(int64_t)row * a.ld + begin + to++] = (int32_t)(begin + (lap * THREADS + (int)threadIdx.x) * 4 + c);
      }
  }
  if (threadIdx.x) return;
  a.counts[(int64_t)row * gridDim.x + blockIdx.x] = total;
  if (total && a.kind != ENCODE_TOPK) atomicAdd(counters_of(a, row), total);
}

/* ---- packing --------------------------------------------------------------------------------------------------------------- */

/* Entries of all rows before this one. */
static __device__ __forceinline__ int kept_before(const choose_args &a, int row) {
  int sum = 0;
  for (int i = threadIdx.x; i < row; i += blockDim.x) {
    int kept = *counters_of(a, i);
    sum += a.kind == ENCODE_TOPK && kept > a.k ? a.k : kept;
  }
  return sum;
}

static __device__ __forceinline__ void put(const choose_args &a, int64_t at, int32_t feature, float value) {
  if (a.fold) value *= a.fold[feature];
  if (at < a.first) {
    a.index[at] = feature;
    a.value[at] = value;
  } else {
    a.more_index[at - a.first] = feature;
    a.more_value[at - a.first] = value;
  }
}

static __device__ __forceinline__ void put_start(const choose_args &a, int row, int end) {
  if (row == 0) a.start[0] = 0;
  a.start[row + 1] = end;
}

/* A block for each piece. */
static __global__ void __launch_bounds__(THREADS) pack_kernel(choose_args a) {
  __shared__ int shared[MAX_WARPS];
  grid_follow();
  int row = (int)blockIdx.y, piece = (int)blockIdx.x, pieces = (int)gridDim.x, at;
  const int32_t *counts = a.counts + (int64_t)row * pieces;
  int64_t from = (int64_t)row * a.ld + (int64_t)piece * CHOOSE_PIECE;
  int n = counts[piece], sum = kept_before(a, row);
  if (!n && piece != pieces - 1) return;
  for (int i = threadIdx.x; i < piece; i += THREADS) sum += counts[i];
  block_before(sum, &at, shared);
  for (int i = threadIdx.x; i < n; i += THREADS) put(a, at + i, a.feature[from + i], a.p[from + i]);
  if (piece == pieces - 1 && threadIdx.x == 0) put_start(a, row, at + n);
}

/* ---- the k largest: among those that were gathered -------------------------------------------------------------------------- */

#define LARGEST_THREADS 512
#define FINE_BITS (BIN_SHIFT / 2)
#define FINE_BINS (1 << FINE_BITS)

/* Where the gathered ones of a row lie, without the gaps between pieces. Returns how many they are. */
static __device__ int list_gathered(const choose_args &a, int row, int32_t *order, int shared[MAX_WARPS]) {
  __shared__ int begin[LARGEST_THREADS], length[LARGEST_THREADS];
  int pieces = (int)((a.n_feat + CHOOSE_PIECE - 1) / CHOOSE_PIECE), n = 0, all;
  for (int base = 0; base < pieces; base += LARGEST_THREADS) {
    int piece = base + (int)threadIdx.x, own = piece < pieces ? a.counts[(int64_t)row * pieces + piece] : 0;
    begin[threadIdx.x] = n + block_before(own, &all, shared);
    length[threadIdx.x] = own;
    __syncthreads();
    for (int i = threadIdx.x / 32; i < LARGEST_THREADS && base + i < pieces; i += LARGEST_THREADS / 32)
      for (int j = threadIdx.x % 32; j < length[i]; j += 32) order[begin[i] + j] = (base + i) * CHOOSE_PIECE + j;
    n += all;
    __syncthreads();
  }
  return n;
}

static __device__ __forceinline__ unsigned listed_rank(const choose_args &a, int64_t from, const int32_t *order, int i) {
  return rank_bits(a, a.p[from + order[i]], a.feature[from + order[i]]);
}

/* The rank of the k-th largest, and how many equal to it are taken. */
static __device__ unsigned kth_rank(const choose_args &a, int row, const int32_t *order, int n, int *equal, int shared[MAX_WARPS]) {
  __shared__ int counts[FINE_BINS];
  int64_t from = (int64_t)row * a.ld;
  int above, left = a.k, shift = BIN_SHIFT;
  unsigned rank = (unsigned)kth_bin(counters_of(a, row) + 1, CHOOSE_BINS, left, &above, shared);
  for (left -= above; shift > 0; left -= above) {
    shift -= FINE_BITS;
    for (int i = threadIdx.x; i < FINE_BINS; i += LARGEST_THREADS) counts[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += LARGEST_THREADS) {
      unsigned bits = listed_rank(a, from, order, i);
      if (bits >> (shift + FINE_BITS) == rank) atomicAdd(&counts[bits >> shift & (FINE_BINS - 1)], 1);
    }
    __syncthreads();
    rank = rank << FINE_BITS | (unsigned)kth_bin(counts, FINE_BINS, left, &above, shared);
  }
  *equal = left;
  return rank;
}

/* One block a row. */
static __global__ void __launch_bounds__(LARGEST_THREADS) largest_kernel(choose_args a) {
  __shared__ int shared[MAX_WARPS];
  grid_follow();
  int row = (int)blockIdx.x, written, all, ties = 0, equal = 0;
  int64_t from = (int64_t)row * a.ld;
  int32_t *order = a.order + from;
  bool crowded = *counters_of(a, row) > a.k;
  int n = list_gathered(a, row, order, shared);
  unsigned kth = crowded ? kth_rank(a, row, order, n, &equal, shared) : 0;
  block_before(kept_before(a, row), &written, shared);
  for (int base = 0; base < n; base += LARGEST_THREADS) {
    int i = base + (int)threadIdx.x;
    unsigned bits = i < n ? listed_rank(a, from, order, i) : 0;
    bool tie = crowded && bits == kth;
    int rank = ties + block_before(tie, &all, shared);
    ties += all;
    bool kept = bits > kth || (tie && rank < equal);
    int at = written + block_before(kept, &all, shared);
    if (kept) put(a, at, a.feature[from + order[i]], a.p[from + order[i]]);
    written += all;
  }
  if (threadIdx.x == 0) put_start(a, row, written);
}

extern "C" cudaError_t launch_choose(cudaStream_t stream, int64_t rows, const choose_args *args) {
  dim3 pieces((unsigned)choose_pieces(args->n_feat), (unsigned)rows);
  dim3 groups((unsigned)((args->k + THREADS / 32 - 1) / (THREADS / 32)), (unsigned)rows);
  bool ranked = args->kind == ENCODE_TOPK;
  cudaError_t status = cudaSuccess;
  if (args->kind == ENCODE_GROUPMAX) status = launch(groups_kernel, *args, groups, THREADS, 0, stream);
  if (ranked) status = launch(histogram_kernel, *args, pieces, THREADS, 0, stream);
  if (status == cudaSuccess) status = launch(gather_kernel, *args, pieces, THREADS, 0, stream);
  if (status != cudaSuccess) return status;
  return ranked ? launch(largest_kernel, *args, dim3((unsigned)rows), LARGEST_THREADS, 0, stream)
                : launch(pack_kernel, *args, pieces, THREADS, 0, stream);
}
