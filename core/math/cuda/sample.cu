/* sample.cu: from rows of logits to tokens.
 *
 * Probabilities are whole numbers of 2^-40 of the likeliest one, so that their sums do not depend on an order. Tokens stand in
 * one total order: larger logit first, lower index first among equals. What a filter leaves is then a beginning of that order:
 * all tokens above a key (the bits of a logit, as a number that is ordered as logits are) and the first few of those at it. Every
 * question is asked the same way: at which token of the order does the sum of what is left reach an amount?
 *
 * A row is cut into parts, a block each, so that all of the device reads it: SURVEY changes logits and finds the largest; WEIGH
 * adds up amounts by part, or by bins below the largest; GATHER brings together what lies in the bins that a filter may leave, as a
 * rule a few hundred tokens, in the order of their indices; FINISH, one block a job, asks the questions of those alone. Where they
 * are too many for it, it asks them of the whole row: the same answer, slower. */
#include "core/math/cuda/device.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
#define EACH (SAMPLE_PART / THREADS) /* elements of a thread */
#define LIST 4096                    /* gathered tokens that one block takes */
#define MOST_PARTS 1024              /* whose tokens it takes */
#define ONE 1099511627776.0          /* 2^40 */
#define NOTHING -29.0                /* exp of it is less than half of 2^-40 */

typedef unsigned long long whole;

/* Where tokens are looked for: a row, or what was gathered of it. */
struct pile {
  const float *logit;
  const int32_t *index; /* NULL: their places */
  int64_t n;
  float top;
  double temperature;
};

/* The tokens with keys above `key`, and `ties` of those with it. */
struct beginning {
  unsigned key;
  whole ties;
};

/* Amounts by digit, sums by warp, and the results of the one thread that has them. */
struct desk {
  whole amount[256], warp[WARPS], above;
  double part[WARPS];
  unsigned key;
  int32_t at;
};

/* NaN stands behind everything. */
static __device__ __forceinline__ unsigned key_of(float logit) {
  unsigned bits = __float_as_uint(logit + 0.0f); /* -0 is 0 */
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static __device__ __forceinline__ float logit_of(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

/* Key and index in one number, which is larger the earlier a token stands in the order. */
static __device__ __forceinline__ whole place_of(float logit, int64_t index) {
  return (whole)key_of(logit) << 32 | (unsigned)~(unsigned)index;
}
static __device__ __forceinline__ int32_t index_of(whole place) { return (int32_t)~(unsigned)place; }

/* From the likeliest one, at most 0. */
static __device__ __forceinline__ double distance_of(float logit, float top, double temperature) {
  return ((double)logit - top) / temperature;
}
static __device__ __forceinline__ whole amount_at(double distance) {
  return distance > NOTHING ? (whole)(exp(distance) * ONE + 0.5) : 0; /* NaN: 0 */
}
static __device__ __forceinline__ whole amount_of(float logit, float top, double temperature) {
  return amount_at(distance_of(logit, top, temperature));
}

/* counts: every token amounts to one. */
static __device__ __forceinline__ whole amount_in(const pile &p, float logit, bool counts) {
  return counts ? 1 : amount_of(logit, p.top, p.temperature);
}

/* ---- a block together ------------------------------------------------------------------------------------------------ */

static __device__ whole block_top(whole own, desk *d) {
  for (int step = 16; step; step >>= 1) own = max(own, __shfl_xor_sync(FULL_WARP, own, step));
  if (threadIdx.x % 32 == 0) d->warp[threadIdx.x / 32] = own;
  __syncthreads();
  own = d->warp[0];
  for (int i = 1; i < WARPS; i++) own = max(own, d->warp[i]);
  __syncthreads();
  return own;
}

/* What the threads in front have together; *all: what all have. */
static __device__ whole block_before(whole own, whole *all, desk *d) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  whole sum = own, before = 0, total = 0;
  for (int step = 1; step < 32; step *= 2) {
    whole other = __shfl_up_sync(FULL_WARP, sum, (unsigned)step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) d->warp[warp] = sum;
  __syncthreads();
  for (int i = 0; i < WARPS; i++) {
    if (i < warp) before += d->warp[i];
    total += d->warp[i];
  }
  __syncthreads();
  *all = total;
  return before + sum - own;
}

/* In one order. */
static __device__ double block_total(double own, desk *d) {
  for (int step = 16; step; step >>= 1) own += __shfl_xor_sync(FULL_WARP, own, step);
  if (threadIdx.x % 32 == 0) d->part[threadIdx.x / 32] = own;
  __syncthreads();
  own = 0;
  for (int i = 0; i < WARPS; i++) own += d->part[i];
  __syncthreads();
  return own;
}

/* ---- a job ------------------------------------------------------------------------------------------------------------ */

/* The scratch of a job. */
struct job_place {
  whole *top, *sum, *bins;
  float *changed;
  int32_t *n_found, *found_index;
  float *found_logit;
};

static __device__ job_place place_of_job(const sample_args &a, int job) {
  size_t parts = (size_t)a.parts;
  unsigned char *at = a.scratch + (size_t)job * a.job_bytes;
  job_place p;
  p.top = (whole *)at;
  p.sum = p.top + parts;
  p.bins = p.sum + parts;
  p.n_found = (int32_t *)(p.bins + SAMPLE_BINS);
  p.found_index = p.n_found + parts;
  p.found_logit = (float *)(p.found_index + parts * SAMPLE_SEGMENT);
  p.changed = p.found_logit + parts * SAMPLE_SEGMENT;
  return p;
}

static __device__ __forceinline__ bool is_changed(const sample_job &job) { return job.n_penalties || job.n_biases; }
static __device__ __forceinline__ bool filters_k(const sample_args &a, const sample_job &job) {
  return job.top_k > 0 && job.top_k < a.vocabulary;
}
/* Its bins are filled: with one for each token, or with their amounts. */
static __device__ __forceinline__ bool is_binned(const sample_args &a, const sample_job &job) {
  if (job.kind == SAMPLE_LIKELY) return job.top_k > 0;
  return job.kind == SAMPLE_ORDERED && (filters_k(a, job) || job.top_p < 1);
}
static __device__ __forceinline__ bool bins_count(const sample_args &a, const sample_job &job) {
  return job.kind == SAMPLE_LIKELY || filters_k(a, job);
}

static __device__ __forceinline__ const float *row_of(const sample_args &a, const sample_job &job, const job_place &p) {
  return is_changed(job) ? p.changed : row_at(a.logits, job.row);
}

/* The first of the largest, from those of the parts. */
static __device__ whole top_of(const sample_args &a, const job_place &p, desk *d) {
  whole top = 0;
  for (int i = threadIdx.x; i < a.parts; i += THREADS) top = max(top, p.top[i]);
  return block_top(top, d);
}

/* By distance from the largest; the last one holds what weighs nothing, and more. Larger logits never have later bins. */
static __device__ __forceinline__ int bin_at(double distance) {
  double bin = distance * ((SAMPLE_BINS - 1) / NOTHING);
  return bin < SAMPLE_BINS - 1 ? (int)bin : SAMPLE_BINS - 1;
}

/* The logits of a thread in a part, all asked for at once: those at begin + THREADS * turn + its own place. Returns how many. */
static __device__ __forceinline__ int load(const float *row, int64_t begin, int64_t end, float logit[EACH]) {
  int64_t left = end - begin - threadIdx.x;
#pragma unroll
  for (int turn = 0; turn < EACH; turn++) logit[turn] = turn * THREADS < left ? row[begin + turn * THREADS + threadIdx.x] : 0;
  return left > 0 ? (int)((left + THREADS - 1) / THREADS) : 0;
}

/* ---- survey -------------------------------------------------------------------------------------------------------------- */

/* Each token stands in a list once. */
static __device__ void change(float *row, const sample_change *list, int32_t n, int64_t begin, int64_t end) {
  for (int32_t i = threadIdx.x; i < n; i += THREADS) {
    sample_change c = list[i];
    if (begin <= c.token && c.token < end) row[c.token] += c.add;
  }
  __syncthreads();
}

static __global__ void __launch_bounds__(THREADS) survey_kernel(const __grid_constant__ sample_args a) {
  __shared__ desk d;
  const sample_job &job = a.jobs[blockIdx.y];
  job_place p = place_of_job(a, blockIdx.y);
  const float *row = row_at(a.logits, job.row);
  int64_t begin = (int64_t)blockIdx.x * SAMPLE_PART, end = min(begin + SAMPLE_PART, a.vocabulary);
  float logit[EACH];
  whole top = 0;
  grid_follow();
  if (is_changed(job)) {
    for (int64_t i = begin + threadIdx.x; i < end; i += THREADS) p.changed[i] = row[i];
    __syncthreads();
    change(p.changed, a.changes + job.changes, job.n_penalties, begin, end);
    change(p.changed, a.changes + job.changes + job.n_penalties, job.n_biases, begin, end);
    row = p.changed;
  }
  if (blockIdx.x == 0 && is_binned(a, job))
    for (int i = threadIdx.x; i < SAMPLE_BINS; i += THREADS) p.bins[i] = 0;
  int own = load(row, begin, end, logit);
#pragma unroll
  for (int turn = 0; turn < EACH; turn++)
    if (turn < own) top = max(top, place_of(logit[turn], begin + turn * THREADS + threadIdx.x));
  top = block_top(top, &d);
  if (threadIdx.x == 0) p.top[blockIdx.x] = top;
}

/* ---- weigh --------------------------------------------------------------------------------------------------------------- */

/* The next token is drawn by index: the amount of each part. */
static __device__ void weigh_part(const sample_job &job, const job_place &p, const float logit[EACH], int own, float top, desk *d) {
  whole sum = 0, all;
#pragma unroll
  for (int turn = 0; turn < EACH; turn++)
    if (turn < own) sum += amount_of(logit[turn], top, job.temperature);
  block_before(sum, &all, d);
  if (threadIdx.x == 0) p.sum[blockIdx.x] = all;
}

/* The sum of exponentials of a row, a part each, as doubles. */
static __device__ void weigh_model(const job_place &p, const float logit[EACH], int own, float top, desk *d) {
  double sum = 0;
#pragma unroll
  for (int turn = 0; turn < EACH; turn++)
    if (turn < own) sum += exp((double)logit[turn] - top);
  sum = block_total(sum, d);
  if (threadIdx.x == 0) ((double *)p.sum)[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS) weigh_kernel(const __grid_constant__ sample_args a) {
  __shared__ desk d;
  __shared__ whole bins[SAMPLE_BINS];
  float logit[EACH];
  const sample_job &job = a.jobs[blockIdx.y];
  job_place p = place_of_job(a, blockIdx.y);
  int64_t begin = (int64_t)blockIdx.x * SAMPLE_PART, end = min(begin + SAMPLE_PART, a.vocabulary);
  grid_follow();
  if (job.kind == SAMPLE_GREEDY) return;
  int own = load(row_of(a, job, p), begin, end, logit);
  float top = logit_of((unsigned)(top_of(a, p, &d) >> 32));
  if (job.kind == SAMPLE_BY_INDEX) weigh_part(job, p, logit, own, top, &d);
  if (job.kind == SAMPLE_LIKELY) weigh_model(p, logit, own, top, &d);
  if (!is_binned(a, job)) return;
  for (int i = threadIdx.x; i < SAMPLE_BINS; i += THREADS) bins[i] = 0;
  __syncthreads();
  for (int turn = 0; turn < EACH; turn++) {
    double distance = distance_of(logit[turn], top, job.temperature);
    whole amount = bins_count(a, job) ? 1 : amount_at(distance);
    if (turn < own && amount) atomicAdd(&bins[bin_at(distance)], amount);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < SAMPLE_BINS; i += THREADS)
    if (bins[i]) atomicAdd(&p.bins[i], bins[i]);
}

/* ---- gather ------------------------------------------------------------------------------------------------------------------ */

/* What must be reached of a sum, for a share of it. */
static __device__ __forceinline__ whole share_of(whole total, double share) {
  double enough = ceil(share * (double)total);
  return enough < 1 ? 1 : enough > (double)total ? total : (whole)enough;
}

static __device__ whole bins_total(const job_place &p, desk *d) {
  whole own = 0, all;
  for (int i = threadIdx.x; i < SAMPLE_BINS; i += THREADS) own += p.bins[i];
  block_before(own, &all, d);
  return all;
}

/* The last bin in which anything may be left. */
static __device__ int last_bin(const sample_args &a, const sample_job &job, const job_place &p, desk *d) {
  if (!is_binned(a, job)) return max(0, min(bin_at(log(job.min_p)) + 1, SAMPLE_BINS - 1)); /* a bin more: log rounds */
  whole own = 0, all, before;
  const whole *mine = p.bins + threadIdx.x * (SAMPLE_BINS / THREADS);
  for (int i = 0; i < SAMPLE_BINS / THREADS; i++) own += mine[i];
  before = block_before(own, &all, d);
  whole want = bins_count(a, job) ? min((whole)job.top_k, all) : share_of(all, job.top_p);
  if (threadIdx.x == 0) d->at = SAMPLE_BINS - 1;
  __syncthreads();
  if (before < want && want <= before + own) {
    int bin = threadIdx.x * (SAMPLE_BINS / THREADS);
    for (before += mine[0]; before < want; before += *++mine) bin++;
    d->at = bin;
  }
  __syncthreads();
  return d->at;
}

/* In the order of their indices: counted by warp and turn first. */
static __global__ void __launch_bounds__(THREADS) gather_kernel(const __grid_constant__ sample_args a) {
  __shared__ desk d;
  __shared__ int32_t places[EACH * WARPS];
  const sample_job &job = a.jobs[blockIdx.y];
  job_place p = place_of_job(a, blockIdx.y);
  int64_t begin = (int64_t)blockIdx.x * SAMPLE_PART, end = min(begin + SAMPLE_PART, a.vocabulary);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  grid_follow();
  if (job.kind != SAMPLE_ORDERED && !(job.kind == SAMPLE_LIKELY && job.top_k > 0)) return;
  float logit[EACH];
  int own = load(row_of(a, job, p), begin, end, logit);
  float top = logit_of((unsigned)(top_of(a, p, &d) >> 32));
  int last = last_bin(a, job, p, &d);
  unsigned said[EACH];
#pragma unroll
  for (int turn = 0; turn < EACH; turn++) {
    said[turn] = __ballot_sync(FULL_WARP, turn < own && bin_at(distance_of(logit[turn], top, job.temperature)) <= last);
    if (lane == 0) places[turn * WARPS + warp] = __popc(said[turn]);
  }
  __syncthreads();
  whole all, before = block_before(threadIdx.x < EACH * WARPS ? (whole)places[threadIdx.x] : 0, &all, &d);
  if (threadIdx.x < EACH * WARPS) places[threadIdx.x] = (int32_t)before;
  if (threadIdx.x == 0) p.n_found[blockIdx.x] = (int32_t)all;
  __syncthreads();
#pragma unroll
  for (int turn = 0; turn < EACH; turn++) {
    int32_t at = places[turn * WARPS + warp] + __popc(said[turn] & ((1u << lane) - 1));
    if (!(said[turn] >> lane & 1) || at >= SAMPLE_SEGMENT) continue;
    p.found_index[blockIdx.x * SAMPLE_SEGMENT + at] = (int32_t)(begin + turn * THREADS + threadIdx.x);
    p.found_logit[blockIdx.x * SAMPLE_SEGMENT + at] = logit[turn];
  }
}

/* ---- finish: questions to a pile ------------------------------------------------------------------------------------------ */

/* Where the sum over what is left, from the largest on, reaches `want` (at least 1, at most that sum). */
static __device__ beginning reach(const pile &p, beginning left, whole want, bool counts, desk *d) {
  unsigned key = 0, mask = 0;
  whole above = 0, all;
  for (int shift = 24; shift >= 0; shift -= 8) {
    d->amount[threadIdx.x] = 0;
    __syncthreads();
    if (threadIdx.x == 0 && left.ties && (left.key & mask) == key)
      atomicAdd(&d->amount[left.key >> shift & 255], left.ties * amount_in(p, logit_of(left.key), counts));
    for (int64_t i = threadIdx.x; i < p.n; i += THREADS) {
      unsigned own = key_of(p.logit[i]);
      if (own > left.key && (own & mask) == key) atomicAdd(&d->amount[own >> shift & 255], amount_in(p, p.logit[i], counts));
    }
    __syncthreads();
    unsigned digit = 255 - threadIdx.x;
    whole own = d->amount[digit], before = above + block_before(own, &all, d);
    if (before < want && (want <= before + own || digit == 0)) {
      d->key = key | digit << shift;
      d->above = before;
    }
    __syncthreads();
    key = d->key;
    above = d->above;
    mask |= 255u << shift;
    __syncthreads();
  }
  whole each = amount_in(p, logit_of(key), counts);
  beginning found = {key, each ? (want - above + each - 1) / each : 1};
  return found;
}

/* The sum over what is left. */
static __device__ whole sum_of(const pile &p, beginning left, desk *d) {
  whole own = threadIdx.x == 0 && left.ties ? left.ties * amount_in(p, logit_of(left.key), false) : 0, all;
  for (int64_t i = threadIdx.x; i < p.n; i += THREADS)
    if (key_of(p.logit[i]) > left.key) own += amount_in(p, p.logit[i], false);
  block_before(own, &all, d);
  return all;
}

/* Without what is less likely than min_p times the likeliest one. */
static __device__ beginning without_unlikely(const pile &p, beginning left, double min_p, desk *d) {
  unsigned most = 0; /* key of such a token */
  for (int64_t i = threadIdx.x; i < p.n; i += THREADS)
    if (exp(((double)p.logit[i] - p.top) / p.temperature) < min_p) most = max(most, key_of(p.logit[i]));
  most = (unsigned)block_top((whole)most, d);
  unsigned top = key_of(p.top); /* stays, whatever min_p is */
  if (most >= top) most = top - 1;
  beginning fewer = {most, 0};
  return most >= left.key ? fewer : left;
}

/* The place in the pile of the `which`-th token (from 1) with this key. */
static __device__ int64_t tie_at(const pile &p, unsigned key, whole which, desk *d) {
  whole before = 0, all;
  if (threadIdx.x == 0) d->at = 0;
  for (int64_t base = 0; base < p.n; base += THREADS) {
    int64_t i = base + threadIdx.x;
    bool tie = i < p.n && key_of(p.logit[i]) == key;
    whole rank = before + block_before(tie ? 1 : 0, &all, d) + 1;
    if (tie && rank == which) d->at = (int32_t)i;
    before += all;
  }
  __syncthreads();
  return d->at;
}

static __device__ int32_t draw(const sample_args &a, const sample_job &job, const job_place &place, const pile &p, desk *d) {
  beginning left = {0, 0}; /* every key is above 0, but that of NaN */
  bool some_k = filters_k(a, job);
  if (some_k) left = reach(p, left, (whole)job.top_k, true, d);
  if (job.top_p < 1) {
    whole total = some_k ? sum_of(p, left, d) : bins_total(place, d);
    left = reach(p, left, share_of(total, job.top_p), false, d);
  }
  if (job.min_p > 0) left = without_unlikely(p, left, job.min_p, d);
  whole total = sum_of(p, left, d), mark = (whole)(job.unit * (double)total);
  if (mark >= total) mark = total - 1;
  beginning at = reach(p, left, total - mark, false, d);
  int64_t i = tie_at(p, at.key, at.ties, d);
  return p.index ? p.index[i] : (int32_t)i;
}

/* Where nothing was left out: by index. First the part in which the sum is reached, then the token. */
static __device__ int32_t by_index(const sample_args &a, const sample_job &job, const job_place &place, const float *row, float top,
                                   desk *d) {
  whole own = 0, all, before, amount[EACH];
  int each = (a.parts + THREADS - 1) / THREADS, first = threadIdx.x * each;
  for (int i = first; i < first + each && i < a.parts; i++) own += place.sum[i];
  before = block_before(own, &all, d);
  whole mark = (whole)(job.unit * (double)all);
  if (threadIdx.x == 0) d->at = -1;
  __syncthreads();
  if (before <= mark && mark < before + own) {
    int part = first;
    for (; mark >= before + place.sum[part]; part++) before += place.sum[part];
    d->at = part;
    d->above = before;
  }
  __syncthreads();
  int part = d->at;
  if (part < 0) return (int32_t)a.vocabulary - 1; /* nothing weighs anything */
  mark -= d->above;
  int64_t begin = (int64_t)part * SAMPLE_PART + threadIdx.x * EACH;
  own = 0;
  for (int i = 0; i < EACH; i++) {
    amount[i] = begin + i < a.vocabulary ? amount_of(row[begin + i], top, job.temperature) : 0;
    own += amount[i];
  }
  before = block_before(own, &all, d);
  if (before <= mark && mark < before + own)
    for (int i = 0; i < EACH; i++) {
      if (before <= mark && mark < before + amount[i]) d->at = (int32_t)(begin + i);
      before += amount[i];
    }
  __syncthreads();
  return d->at;
}

/* ---- finish: answers ------------------------------------------------------------------------------------------------------- */

/* The last of n starts that is not behind `at`. */
static __device__ __forceinline__ int part_of(const int32_t *start, int n, int32_t at) {
  int low = 0, high = n;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (start[middle] <= at) low = middle;
    else high = middle;
  }
  return low;
}

/* What was gathered, side by side in shared memory, or the whole row where that is too much. */
struct gathered {
  float logit[LIST];
  int32_t index[LIST], start[MOST_PARTS];
};
static __device__ pile pile_of(const sample_args &a, const sample_job &job, const job_place &place, const float *row, float top,
                               gathered *g, desk *d) {
  pile p = {row, NULL, a.vocabulary, top, job.temperature};
  int each = (a.parts + THREADS - 1) / THREADS, first = threadIdx.x * each, behind = min(first + each, a.parts);
  whole own = 0, all;
  for (int i = first; i < behind; i++) own += place.n_found[i] > SAMPLE_SEGMENT ? LIST + 1 : place.n_found[i];
  whole before = block_before(own, &all, d);
  if (all > LIST || a.parts > MOST_PARTS) return p;
  for (int i = first; i < behind; i++) {
    g->start[i] = (int32_t)before;
    before += place.n_found[i];
  }
  __syncthreads();
  for (int32_t i = threadIdx.x; i < (int32_t)all; i += THREADS) {
    int part = part_of(g->start, a.parts, i), from = part * SAMPLE_SEGMENT + i - g->start[part];
    g->logit[i] = place.found_logit[from];
    g->index[i] = place.found_index[from];
  }
  __syncthreads();
  p.logit = g->logit;
  p.index = g->index;
  p.n = (int64_t)all;
  return p;
}

/* The most likely ones in their order, and what the probability of any token takes. */
static __device__ void tell_likely(const sample_args &a, const sample_job &job, const job_place &place, const pile &p, desk *d,
                                   whole *chosen) {
  sample_result *result = &a.results[job.result];
  int32_t want = (int32_t)min((int64_t)job.top_k, a.vocabulary);
  double sum = 0;
  for (int i = threadIdx.x; i < a.parts; i += THREADS) sum += ((const double *)place.sum)[i];
  sum = block_total(sum, d);
  if (threadIdx.x == 0) {
    result->top = p.top;
    result->sum = sum;
    result->n_likely = want;
    d->at = 0;
  }
  if (want == 0) return;
  beginning left = {0, 0};
  left = reach(p, left, (whole)want, true, d);
  whole before = 0, all;
  for (int64_t base = 0; base < p.n; base += THREADS) {
    int64_t i = base + threadIdx.x;
    unsigned key = i < p.n ? key_of(p.logit[i]) : 0;
    bool tie = i < p.n && key == left.key, in = i < p.n && key > left.key;
    whole rank = before + block_before(tie ? 1 : 0, &all, d) + 1;
    before += all;
    if (in || (tie && rank <= left.ties)) chosen[atomicAdd(&d->at, 1)] = place_of(p.logit[i], p.index ? p.index[i] : i);
  }
  __syncthreads();
  if ((int)threadIdx.x >= want) return;
  whole own = chosen[threadIdx.x];
  int rank = 0;
  for (int i = 0; i < want; i++) rank += chosen[i] > own;
  result->likely[rank].token = index_of(own);
  result->likely[rank].logit = logit_of((unsigned)(own >> 32));
}

static __global__ void __launch_bounds__(THREADS) finish_kernel(const __grid_constant__ sample_args a) {
  __shared__ desk d;
  __shared__ gathered g;
  __shared__ whole chosen[SAMPLE_MOST_LIKELY];
  const sample_job &job = a.jobs[blockIdx.x];
  job_place place = place_of_job(a, blockIdx.x);
  pile p = {NULL, NULL, 0, 0, 1};
  grid_follow();
  const float *row = row_of(a, job, place);
  whole first = top_of(a, place, &d);
  float top = logit_of((unsigned)(first >> 32));
  int32_t token = index_of(first);
  p.top = top;
  if (job.kind == SAMPLE_ORDERED || (job.kind == SAMPLE_LIKELY && job.top_k > 0)) p = pile_of(a, job, place, row, top, &g, &d);
  if (job.kind == SAMPLE_LIKELY) {
    tell_likely(a, job, place, p, &d, chosen);
    return;
  }
  if (job.kind == SAMPLE_BY_INDEX) token = by_index(a, job, place, row, top, &d);
  if (job.kind == SAMPLE_ORDERED) token = draw(a, job, place, p, &d);
  if (threadIdx.x == 0) {
    a.results[job.result].token = token;
    a.results[job.result].logit = row_at(a.logits, job.row)[token];
  }
}

/* ---- launching -------------------------------------------------------------------------------------------------------------- */

extern "C" size_t sample_job_bytes(int64_t vocabulary, bool changed) {
  size_t parts = (size_t)sample_parts(vocabulary);
  size_t bytes = parts * 16 + SAMPLE_BINS * 8 + parts * 4 + parts * SAMPLE_SEGMENT * 8;
  if (changed) bytes += (size_t)vocabulary * sizeof(float);
  return (bytes + 255) / 256 * 256;
}

extern "C" cudaError_t launch_sample(cudaStream_t stream, const sample_args *args) {
  dim3 parts((unsigned)args->parts, (unsigned)args->n_jobs);
  bool weighs = false, gathers = false;
  for (int i = 0; i < args->n_jobs; i++) {
    const sample_job *job = &args->jobs[i];
    weighs |= job->kind != SAMPLE_GREEDY;
    gathers |= job->kind == SAMPLE_ORDERED || (job->kind == SAMPLE_LIKELY && job->top_k > 0);
  }
  cudaError_t status = launch(survey_kernel, *args, parts, THREADS, 0, stream);
  if (status == cudaSuccess && weighs) status = launch(weigh_kernel, *args, parts, THREADS, 0, stream);
  if (status == cudaSuccess && gathers) status = launch(gather_kernel, *args, parts, THREADS, 0, stream);
  return status == cudaSuccess ? launch(finish_kernel, *args, dim3((unsigned)args->n_jobs), THREADS, 0, stream) : status;
}
