/* attend_pattern.cu: attention written out, for taps and edits of scores and patterns: every score and every weight of a row stands in
 * memory, sums are in double. For the few steps that look at them, some rows at a time, in launches one after the other: scores, edits
 * and taps of them, weights, edits and taps of those, and what edited weights make of the values.
 *
 * A row's sums have an order that depends on the positions that it sees alone. */
#include "core/math/cuda/cache.cuh"
#include "core/math/cuda/row.cuh"

#define THREADS 256

/* A row that is looked at; what it sees is [begin, end]. Its scores are h [n_head][keys]. */
struct open_row {
  int row, slot, begin, end, keys;
  float *h;
};

static __device__ bool looked_at(const table *t, int point, int row) {
  if (t->tap_begin)
    for (int i = t->tap_begin[point]; i < t->tap_begin[point + 1]; i++)
      if (row_within(t->tap_rows[i], row)) return true;
  return row_is_edited(t, point, row);
}

/* The row of this block, blockIdx.x; false: nobody looks at it. */
static __device__ bool find_row(const attend_args &a, open_row *r) {
  const table *t = a.table;
  r->row = a.first + (int)blockIdx.x;
  if (!row_within(t->active[a.layer], r->row)) return false;
  if (!looked_at(t, a.scores_point, r->row) && !looked_at(t, a.pattern_point, r->row)) return false;
  r->end = position_of(t, r->row, &r->slot);
  r->begin = first_seen(r->end, a.window);
  r->keys = t->keys[r->slot];
  r->h = a.scratch + (int64_t)blockIdx.x * a.n_head * a.most_keys;
  return true;
}

/* ---- scores: a thread for each position of a head ------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) scores_kernel(attend_args a) {
  open_row r;
  int head = blockIdx.y, j = (int)blockIdx.z * THREADS + (int)threadIdx.x;
  grid_follow();
  if (!find_row(a, &r) || j >= r.keys) return;
  float *h = r.h + (int64_t)head * r.keys + j;
  *h = 0; /* what is not seen */
  if (j < r.begin || j > r.end) return;
  const unsigned char *keys = keys_at(a, r.slot, j / KV_BLOCK, head / (a.n_head / a.n_kv_head));
  const float *q = row_at(a.qkv, r.row) + a.q + (int64_t)head * a.d_head;
  double sum = 0;
  for (int i = 0; i < a.d_head; i++) sum += (double)q[i] * kept_element(a, keys, key_element(a, j % KV_BLOCK, i));
  sum *= a.scale;
  *h = (float)(a.soft_cap > 0 ? a.soft_cap * tanh(sum / a.soft_cap) : sum);
}

/* ---- edits and taps: a block for each row ---------------------------------------------------------------------------------------- */

struct open_point {
  attend_args attend;
  int32_t point;
  float hidden; /* what the row does not see, whatever an edit made of it */
};

static __global__ void __launch_bounds__(THREADS) open_point_kernel(open_point p) {
  __shared__ float shared[MAX_WARPS];
  const attend_args &a = p.attend;
  open_row r;
  grid_follow();
  if (!find_row(a, &r)) return;
  int64_t width = (int64_t)a.n_head * r.keys;
  block_team team = {shared};
  point_edits(team, a.table, p.point, r.row, r.h, 0, width);
  for (int head = 0; head < a.n_head; head++) /* by the threads that own the elements */
    team.each((int64_t)head * r.keys, (int64_t)(head + 1) * r.keys, [&](int64_t i) {
      int j = (int)(i - (int64_t)head * r.keys);
      if (j < r.begin || j > r.end) r.h[i] = p.hidden;
    });
  point_taps(team, a.table, p.point, r.row, r.h, 0, width);
}

/* ---- weights: a block for each head of a row ---------------------------------------------------------------------------------------- */

/* The same in every thread, in an order of their numbers. */
template <bool MOST> static __device__ double gather(double x, double shared[THREADS]) {
  __syncthreads();
  shared[threadIdx.x] = x;
  for (int n = THREADS / 2; n; n /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < n) {
      double a = shared[threadIdx.x], b = shared[threadIdx.x + n];
      shared[threadIdx.x] = MOST ? fmax(a, b) : a + b;
    }
  }
  __syncthreads();
  return shared[0];
}

/* Scores to weights that sum to 1, all 0 where every score is -inf. */
static __global__ void __launch_bounds__(THREADS) soften_kernel(attend_args a) {
  __shared__ double shared[THREADS];
  open_row r;
  grid_follow();
  if (!find_row(a, &r)) return;
  float *h = r.h + (int64_t)blockIdx.y * r.keys;
  double most = -INFINITY, total = 0;
  for (int j = r.begin + (int)threadIdx.x; j <= r.end; j += THREADS) most = fmax(most, (double)h[j]);
  most = gather<true>(most, shared);
  if (most == -INFINITY) most = 0;
  for (int j = r.begin + (int)threadIdx.x; j <= r.end; j += THREADS) total += exp(h[j] - most);
  total = gather<false>(total, shared);
  for (int j = r.begin + (int)threadIdx.x; j <= r.end; j += THREADS) h[j] = total > 0 ? (float)(exp(h[j] - most) / total) : 0;
}

/* ---- values by edited weights: a block for each head of a row ------------------------------------------------------------------------ */

/* Element i of what positions [from, to) of a head add. */
static __device__ double weigh_part(const attend_args &a, const open_row &r, int kv_head, const float *weights, int from, int to, int i) {
  double sum = 0;
  for (int block = from / KV_BLOCK; block * KV_BLOCK < to; block++) {
    const unsigned char *keys = keys_at(a, r.slot, block, kv_head);
    for (int j = max(from, block * KV_BLOCK); j < min(to, (block + 1) * KV_BLOCK); j++)
      sum += (double)weights[j] * kept_element(a, keys, value_element(a, j % KV_BLOCK, i));
  }
  return sum;
}

/* Positions are shared out to the threads that a narrow head leaves over. */
static __global__ void __launch_bounds__(THREADS) weigh_kernel(attend_args a) {
  __shared__ double shared[THREADS];
  open_row r;
  int head = blockIdx.y;
  grid_follow();
  if (!find_row(a, &r)) return;
  if (!row_is_edited(a.table, a.scores_point, r.row) && !row_is_edited(a.table, a.pattern_point, r.row)) return;
  int lanes = min((a.d_head + 31) / 32 * 32, THREADS), parts = THREADS / lanes, each = (r.end - r.begin + parts) / parts;
  int part = (int)threadIdx.x / lanes, from = r.begin + part * each, to = min(from + each, r.end + 1);
  const float *weights = r.h + (int64_t)head * r.keys;
  for (int base = 0; base < a.d_head; base += lanes) {
    int i = base + (int)threadIdx.x % lanes;
    bool mine = part < parts && i < a.d_head;
    __syncthreads();
    shared[threadIdx.x] = mine ? weigh_part(a, r, head / (a.n_head / a.n_kv_head), weights, from, to, i) : 0;
    __syncthreads();
    if (part || !mine) continue;
    double sum = 0;
    for (int k = 0; k < parts; k++) sum += shared[k * lanes + (int)threadIdx.x];
    row_at(a.z, r.row)[(int64_t)head * a.d_head + i] = (float)sum;
  }
}

extern "C" cudaError_t launch_pattern(cudaStream_t stream, int32_t rows, const attend_args *args) {
  dim3 each((unsigned)rows), heads((unsigned)rows, (unsigned)args->n_head);
  dim3 positions((unsigned)rows, (unsigned)args->n_head, (unsigned)((args->most_keys + THREADS - 1) / THREADS));
  open_point scores = {*args, args->scores_point, -INFINITY}, pattern = {*args, args->pattern_point, 0};
  cudaError_t status = launch(scores_kernel, *args, positions, THREADS, 0, stream);
  if (status == cudaSuccess) status = launch(open_point_kernel, scores, each, THREADS, 0, stream);
  if (status == cudaSuccess) status = launch(soften_kernel, *args, heads, THREADS, 0, stream);
  if (status == cudaSuccess) status = launch(open_point_kernel, pattern, each, THREADS, 0, stream);
  return status == cudaSuccess ? launch(weigh_kernel, *args, heads, THREADS, 0, stream) : status;
}
