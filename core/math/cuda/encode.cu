/* encode.cu: rows on their way into a dictionary, and what is kept of its pre-activations. One block a row.
 *
 * The k largest are found by their bits: positive floats are ordered as their bits are, so four counts of 256 give the k-th
 * largest value, and how many of those equal to it are taken, lowest index first. */
#include "core/math/cuda/device.cuh"

static __device__ inline float centre_scale(const centre_args &a, const float *x, float mean, float *shared) {
  float square = 0, n = (float)a.width;
  if (a.norm == ENCODE_NORM_NONE) return 1;
  if (a.norm == ENCODE_NORM_SCALE) return a.scale;
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) square = fmaf(x[i] - mean, x[i] - mean, square);
  square = block_sum(square, shared);
  if (a.norm == ENCODE_NORM_STANDARD) return (float)(1 / (sqrt((double)square / (double)(a.width - 1)) + ENCODE_STANDARD_EPS));
  return square > 0 ? sqrtf(n / square) : 1.0f;
}

static __global__ void centre_kernel(centre_args a) {
  __shared__ float shared[MAX_WARPS];
  grid_follow();
  const float *x = row_at(a.x, blockIdx.x);
  float *to = a.to + (int64_t)blockIdx.x * a.width, mean = 0;
  if (a.center_mean || a.norm == ENCODE_NORM_STANDARD) {
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) mean += x[i];
    mean = block_sum(mean, shared) / (float)a.width;
  }
  float scale = centre_scale(a, x, mean, shared);
  for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) to[i] = (x[i] - mean) * scale - (a.subtract ? a.subtract[i] : 0.0f);
}

extern "C" cudaError_t launch_centre(cudaStream_t stream, int64_t rows, const centre_args *args) {
  return launch(centre_kernel, *args, dim3((unsigned)rows), row_threads(args->width), 0, stream);
}

/* ---- selection ------------------------------------------------------------------------------------------------------------ */

#define THREADS 512

/* What a feature is chosen by; 0: it does not fire. */
static __device__ __forceinline__ float rank_value(const select_args &a, const float *p, int64_t f) {
  if (!(p[f] > 0)) return 0;
  return a.fold_selects ? p[f] * a.fold[f] : p[f];
}

/* The bits of the k-th largest value, and how many equal to it are taken; 0 where no more than k fire. */
static __device__ unsigned kth_bits(const select_args &a, const float *p, int *equal) {
  __shared__ int counts[256];
  __shared__ unsigned found;
  __shared__ int left;
  unsigned prefix = 0, mask = 0;
  if (threadIdx.x == 0) left = a.k;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += blockDim.x) counts[i] = 0;
    __syncthreads();
    for (int64_t f = threadIdx.x; f < a.n_feat; f += blockDim.x) {
      unsigned bits = __float_as_uint(rank_value(a, p, f));
      if (bits && (bits & mask) == prefix) atomicAdd(&counts[bits >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 255;
      while (digit > 0 && counts[digit] < left) left -= counts[digit--];
      found = (unsigned)digit;
    }
    __syncthreads();
    prefix |= found << shift;
    mask |= 255u << shift;
  }
  *equal = left;
  __syncthreads();
  return prefix;
}

static __device__ __forceinline__ bool largest_of_group(const select_args &a, const float *p, int64_t f) {
  int64_t size = a.n_feat / a.k, begin = f / size * size;
  for (int64_t i = begin; i < begin + size; i++)
    if (p[i] > p[f] || (p[i] == p[f] && i < f)) return false;
  return true;
}

/* The value that a feature has when it is kept, before the fold; 0: it is not. Ties of the k-th are told apart by the caller. */
static __device__ __forceinline__ float kept_value(const select_args &a, const float *p, int64_t f, unsigned kth) {
  if (!(p[f] > 0)) return 0;
  switch (a.kind) {
    case ENCODE_JUMPRELU: return p[f] > a.threshold[f] ? p[f] : 0;
    case ENCODE_TOPK: return __float_as_uint(rank_value(a, p, f)) >= kth ? p[f] : 0;
    case ENCODE_GROUPMAX: return largest_of_group(a, p, f) ? p[f] : 0;
    case ENCODE_GATED: return fmaf(p[f] - (a.bias ? a.bias[f] : 0.0f), a.gain[f], a.shift[f]);
    default: return p[f];
  }
}

/* How many threads before this one say yes; *all: how many of the block. */
static __device__ __forceinline__ int block_rank(bool yes, int *all, int counts[MAX_WARPS]) {
  unsigned said = __ballot_sync(FULL_WARP, yes);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, before = 0, sum = 0;
  if (lane == 0) counts[warp] = __popc(said);
  __syncthreads();
  for (int i = 0; i < (int)blockDim.x / 32; i++) {
    if (i == warp) before = sum;
    sum += counts[i];
  }
  __syncthreads();
  *all = sum;
  return before + __popc(said & ((1u << lane) - 1));
}

static __global__ void __launch_bounds__(THREADS) select_kernel(select_args a) {
  __shared__ int counts[MAX_WARPS];
  grid_follow();
  const float *p = a.p + (int64_t)blockIdx.x * a.n_feat;
  int32_t *index = a.index + (int64_t)blockIdx.x * a.n_feat;
  float *value = a.value + (int64_t)blockIdx.x * a.n_feat;
  int written = 0, ties = 0, equal = 0;
  bool ranked = a.kind == ENCODE_TOPK, none = ranked && a.k <= 0;
  unsigned kth = ranked && !none ? kth_bits(a, p, &equal) : 0;
  for (int64_t base = 0; base < a.n_feat && !none; base += blockDim.x) {
    int64_t f = base + threadIdx.x;
    float kept = f < a.n_feat ? kept_value(a, p, f, kth) : 0;
    int all;
    if (ranked && kth) {
      bool tie = kept > 0 && __float_as_uint(rank_value(a, p, f)) == kth;
      int rank = ties + block_rank(tie, &all, counts);
      if (tie && rank >= equal) kept = 0;
      ties += all;
    }
    int at = written + block_rank(kept > 0, &all, counts);
    if (kept > 0) {
      index[at] = (int32_t)f;
      value[at] = a.fold ? kept * a.fold[f] : kept;
    }
    written += all;
  }
  if (threadIdx.x == 0) a.count[blockIdx.x] = written;
}

extern "C" cudaError_t launch_select(cudaStream_t stream, int64_t rows, const select_args *args) {
  return launch(select_kernel, *args, dim3((unsigned)rows), args->n_feat < THREADS ? 128 : THREADS, 0, stream);
}
