/* sample.cu: from a row of logits to a token. One block a row.
 *
 * Probabilities are whole numbers of 2^-40 of the likeliest one, so that their sums do not depend on an order. Tokens stand in
 * one total order: larger logit first, lower index first among equals. What a filter leaves is then a beginning of that order:
 * all tokens above a key (the bits of a logit, as a number that is ordered as logits are) and the first few of those at it. Every
 * question is asked the same way: at which token of the order does the sum of what is left reach an amount? */
#include "core/math/cuda/device.cuh"

#define THREADS 512
#define WARPS (THREADS / 32)
#define ONE 1099511627776.0 /* 2^40 */

typedef unsigned long long whole;

struct row {
  const float *logits;
  int64_t n;
  float top;
  double temperature;
};

/* The tokens with keys above `key`, and `ties` of those with it. */
struct beginning {
  unsigned key;
  whole ties;
};

/* Amounts by digit, and the results of the one thread that adds them up. */
struct desk {
  whole amount[256], above;
  unsigned key;
  float best[WARPS];
  int64_t at[WARPS];
};

static __device__ __forceinline__ unsigned key_of(float logit) {
  unsigned bits = __float_as_uint(logit + 0.0f); /* -0 is 0 */
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static __device__ __forceinline__ float logit_of(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

/* counts: every token amounts to one. */
static __device__ __forceinline__ whole amount_of(const row &r, float logit, bool counts) {
  return counts ? 1 : (whole)(exp(((double)logit - r.top) / r.temperature) * ONE + 0.5);
}

/* The first of the largest. */
static __device__ int64_t find_top(const row &r, desk *d) {
  float best = -INFINITY;
  int64_t at = r.n;
  for (int64_t i = threadIdx.x; i < r.n; i += THREADS)
    if (r.logits[i] > best || at == r.n) best = r.logits[i], at = i;
  for (int step = 16; step; step >>= 1) {
    float other = __shfl_xor_sync(FULL_WARP, best, step);
    int64_t where = __shfl_xor_sync(FULL_WARP, at, step);
    if (other > best || (other == best && where < at)) best = other, at = where;
  }
  if (threadIdx.x % 32 == 0) d->best[threadIdx.x / 32] = best, d->at[threadIdx.x / 32] = at;
  __syncthreads();
  best = d->best[0], at = d->at[0];
  for (int i = 1; i < WARPS; i++)
    if (d->best[i] > best || (d->best[i] == best && d->at[i] < at)) best = d->best[i], at = d->at[i];
  __syncthreads();
  return at;
}

/* Where the sum over what is left, from the largest on, reaches `want` (at least 1, at most that sum). */
static __device__ beginning reach(const row &r, beginning left, whole want, bool counts, desk *d) {
  unsigned key = 0, mask = 0;
  whole above = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += THREADS) d->amount[i] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < r.n; i += THREADS) {
      unsigned own = key_of(r.logits[i]);
      if (own > left.key && (own & mask) == key) atomicAdd(&d->amount[own >> shift & 255], amount_of(r, r.logits[i], counts));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 255;
      if (left.ties && (left.key & mask) == key)
        d->amount[left.key >> shift & 255] += left.ties * amount_of(r, logit_of(left.key), counts);
      while (digit > 0 && above + d->amount[digit] < want) above += d->amount[digit--];
      d->key = key | (unsigned)digit << shift;
      d->above = above;
    }
    __syncthreads();
    key = d->key;
    above = d->above;
    mask |= 255u << shift;
    __syncthreads();
  }
  whole each = amount_of(r, logit_of(key), counts);
  beginning found = {key, each ? (want - above + each - 1) / each : 1};
  return found;
}

/* The sum over what is left. */
static __device__ whole sum_of(const row &r, beginning left, desk *d) {
  if (threadIdx.x == 0) d->above = left.ties * amount_of(r, logit_of(left.key), false);
  __syncthreads();
  whole own = 0;
  for (int64_t i = threadIdx.x; i < r.n; i += THREADS)
    if (key_of(r.logits[i]) > left.key) own += amount_of(r, r.logits[i], false);
  atomicAdd(&d->above, own);
  __syncthreads();
  whole sum = d->above;
  __syncthreads();
  return sum;
}

/* The index of the `which`-th token (from 1) with this key. */
static __device__ int64_t tie_at(const row &r, unsigned key, whole which, desk *d) {
  if (threadIdx.x == 0) d->at[0] = 0;
  whole before = 0;
  for (int64_t base = 0; base < r.n; base += THREADS) {
    int64_t i = base + threadIdx.x;
    bool tie = i < r.n && key_of(r.logits[i]) == key;
    unsigned said = __ballot_sync(FULL_WARP, tie);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) d->amount[warp] = (whole)__popc(said);
    __syncthreads();
    whole rank = before + (whole)__popc(said & ((1u << lane) - 1)) + 1;
    for (int k = 0; k < WARPS; k++) {
      if (k < warp) rank += d->amount[k];
      before += d->amount[k];
    }
    if (tie && rank == which) d->at[0] = i;
    __syncthreads();
  }
  return d->at[0];
}

/* Where nothing was left out: by index. Each warp adds up a part of its own, the one in which the sum is reached looks closer. */
static __device__ int64_t by_index(const row &r, double unit, desk *d) {
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int64_t part = (r.n + WARPS - 1) / WARPS, begin = warp * part, end = begin + part < r.n ? begin + part : r.n;
  whole own = 0;
  for (int64_t i = begin + lane; i < end; i += 32) own += amount_of(r, r.logits[i], false);
  for (int step = 16; step; step >>= 1) own += __shfl_xor_sync(FULL_WARP, own, step);
  if (lane == 0) d->amount[warp] = own;
  if (threadIdx.x == 0) d->at[0] = r.n - 1;
  __syncthreads();
  whole total = 0, before = 0;
  for (int k = 0; k < WARPS; k++) {
    if (k < warp) before += d->amount[k];
    total += d->amount[k];
  }
  whole mark = (whole)(unit * (double)total);
  if (before <= mark && mark < before + own)
    for (int64_t base = begin; base < end; base += 32) {
      int64_t i = base + lane;
      whole amount = i < end ? amount_of(r, r.logits[i], false) : 0, sum = amount;
      for (int step = 1; step < 32; step *= 2) {
        whole other = __shfl_up_sync(FULL_WARP, sum, (unsigned)step);
        if (lane >= step) sum += other;
      }
      if (mark >= before + sum - amount && mark < before + sum) d->at[0] = i;
      before += __shfl_sync(FULL_WARP, sum, 31);
    }
  __syncthreads();
  return d->at[0];
}

static __device__ int64_t draw(const row &r, const sample_draw &how, desk *d) {
  beginning left = {0, 0}; /* every key is above 0, but that of one NaN */
  bool some_k = how.top_k > 0 && how.top_k < r.n, some_p = how.top_p < 1;
  if (!some_k && !some_p) return by_index(r, how.unit, d);
  if (some_k) left = reach(r, left, (whole)how.top_k, true, d);
  whole total = sum_of(r, left, d);
  if (some_p) {
    double enough = ceil(how.top_p * (double)total);
    whole want = enough < 1 ? 1 : enough > (double)total ? total : (whole)enough;
    left = reach(r, left, want, false, d);
    total = sum_of(r, left, d);
  }
  whole mark = (whole)(how.unit * (double)total);
  if (mark >= total) mark = total - 1;
  beginning at = reach(r, left, total - mark, false, d);
  return tie_at(r, at.key, at.ties, d);
}

static __global__ void __launch_bounds__(THREADS) sample_kernel(sample_args a) {
  __shared__ desk d;
  grid_follow();
  sample_draw how = a.draws[blockIdx.x];
  row r = {row_at(a.logits, how.row), a.vocabulary, 0, how.temperature};
  int64_t top = find_top(r, &d);
  r.top = top < r.n ? r.logits[top] : 0;
  int64_t token = how.temperature > 0 ? draw(r, how, &d) : top;
  if (threadIdx.x == 0) a.tokens[blockIdx.x] = (int32_t)token;
}

extern "C" cudaError_t launch_sample(cudaStream_t stream, int32_t n, const sample_args *args) {
  return launch(sample_kernel, *args, dim3((unsigned)n), THREADS, 0, stream);
}
