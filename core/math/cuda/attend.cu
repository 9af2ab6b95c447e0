/* attend.cu: causal attention over the paged cache.
 *
 * Positions are weighed in chunks of ATTEND_CHUNK at absolute places; chunks are brought together in their order by one formula,
 * whether one block took them in turn or each had its own, so that a row has the same bits alone, in a batch, in a prompt
 * read whole and in one read in pieces. Which of the two it is stands in the step's tables (work.c). Keys and values are read from the cache as they are kept (cache.cuh), those of this step
 * too.
 *
 * Where every text has one row in the step (attend_args.own), one launch does all that is attention's: norms and turns of the heads
 * of q and k, keeping the new key and value, the chunks, bringing them together, edits and taps of z. What blocks leave for
 * each other goes to the one that comes last. */
#include "core/math/cuda/cache.cuh"
#include "core/math/cuda/row.cuh"

#define CHUNK ATTEND_CHUNK
#define MAX_GROUP 8 /* query heads that share what is read of a KV head */
#define PARTS (CHUNK / KV_BLOCK)
#define SCORE_WARPS (CHUNK / 32)
#define JOINED 32 /* chunks that are brought together at a time */

static __global__ void store_kernel(attend_args a) {
  int row = blockIdx.x, kv_head = blockIdx.y, slot;
  grid_follow();
  if (row >= a.table->n_rows || !runs_layer(a.table, row, a.layer)) return;
  int position = position_of(a.table, row, &slot), place = position % KV_BLOCK;
  unsigned char *head = keys_at(a, slot, position / KV_BLOCK, kv_head);
  const float *k = row_at(a.qkv, row) + a.k + kv_head * a.d_head, *v = row_at(a.qkv, row) + a.v + kv_head * a.d_head;
  for (int i = threadIdx.x; i < a.kv_width; i += blockDim.x) {
    keep_element(a, head, key_element(a, place, i), i < a.d_head ? k[i] : 0);
    if (i < a.d_head) keep_element(a, head, value_element(a, place, i), v[i]);
  }
}

extern "C" cudaError_t launch_attend_store(cudaStream_t stream, const bucket *bucket, const attend_args *args) {
  return launch(store_kernel, *args, dim3((unsigned)bucket->rows, (unsigned)args->n_kv_head), 64, 0, stream);
}

/* ---- what a block has to do -------------------------------------------------------------------------------------------------- */

/* Some query heads of one KV head, of one row, and the chunks that it sees from `chunk` on, or that one alone. */
struct unit {
  int row, slot, position, begin; /* it sees positions [begin, position] */
  int kv_head, head, heads;
  int first, final; /* the chunks that it sees */
  int chunk;
  bool own;    /* the row's own key and value are this block's */
  int place;   /* where what is found of chunk 0 would be left; -1: the row is this block's alone */
  unsigned char *part[PARTS]; /* keys of the KV head in the blocks of the current chunk; where it sees none of them, NULL */
};

static __device__ __forceinline__ void find_parts(const attend_args &a, unit *u) {
  const table *t = a.table;
  const table_pages *pages = table_pointer(&t->pages) + u->slot;
  const int32_t *numbers = table_pointer(&pages->block) + (int64_t)a.layer * __ldcg(&pages->stride);
  for (int i = 0; i < PARTS; i++) {
    int block = u->chunk * PARTS + i;
    bool seen = block * KV_BLOCK <= u->position && (block + 1) * KV_BLOCK > u->begin;
    u->part[i] = seen ? head_at(a, table_pointer(&t->kv), __ldcg(numbers + block), u->kv_head) : NULL;
  }
}

/* From the tables alone, in front of grid_follow. False: there is nothing to do. */
template <int G> static __device__ __forceinline__ bool find_unit(const attend_args &a, unit *u) {
  const table *t = a.table;
  int group = a.n_head / a.n_kv_head, tiles = (group + G - 1) / G, before = (int)blockIdx.y % tiles * G;
  int at = (int)blockIdx.x + (a.prompts ? __ldcg(&t->n_prompt_work) : 0);
  u->kv_head = (int)blockIdx.y / tiles;
  u->head = u->kv_head * group + before;
  u->heads = group - before < G ? group - before : G;
  if (at >= __ldcg(&t->n_work)) return false;
  int4 work = __ldcg((const int4 *)(table_pointer(&t->work) + at)); /* struct table_work */
  u->row = work.x;
  u->slot = work.y;
  const step_slot *s = table_pointer(&t->slots) + u->slot;
  if (a.layer < __ldcg(&s->first) || a.layer >= __ldcg(&s->last)) return false;
  u->position = __ldcg(&s->position) + u->row - __ldcg(&s->rows.begin);
  u->begin = first_seen(u->position, a.window);
  u->first = u->chunk = u->begin / CHUNK;
  u->final = u->position / CHUNK;
  u->place = -1;
  if (work.z >= 0) {
    if (work.z < u->first) return false; /* the layer looks back less far */
    u->chunk = work.z;
    if (u->first < u->final) u->place = work.w;
  }
  u->own = a.own && (u->place < 0 || u->chunk == u->final);
  find_parts(a, u);
  return true;
}

/* What a block keeps in shared memory: for G query heads and the own key q [G + 1][kv_width], 0 beyond d_head; sums [G][kv_width]; new
 * sums by the parts of a chunk [PARTS][G][kv_width]; weights of a chunk [G][CHUNK]; what warps tell each other [2][G + 1][SCORE_WARPS]. */
struct room {
  float *q, *sums, *fresh, *weights, *desk;
};

template <int G> static __host__ __device__ size_t room_floats(int width) {
  return (size_t)width * (2 * G + 1 + PARTS * G) + G * CHUNK + 2 * (G + 1) * SCORE_WARPS;
}

template <int G> static __device__ __forceinline__ room room_in(float *memory, int width) {
  room r;
  r.q = memory;
  r.sums = r.q + (G + 1) * width;
  r.fresh = r.sums + G * width;
  r.weights = r.fresh + PARTS * G * width;
  r.desk = r.weights + G * CHUNK;
  return r;
}

/* ---- heads: norms and turns ------------------------------------------------------------------------------------------------------ */

static __device__ __forceinline__ void load_head(const attend_args &a, const float *from, float *to) {
#pragma unroll 1
  for (int i = threadIdx.x; i < a.kv_width; i += blockDim.x) to[i] = i < a.d_head ? from[i] : 0;
}

/* The same bits as norm_kernel with its threads (row_threads), all heads at once. */
template <int G> static __device__ __forceinline__ void norm_heads(const attend_args &a, const room &r, int heads) {
  int warp = threadIdx.x / 32;
#pragma unroll 1
  for (int h = 0; h < heads; h++) {
    const float *x = r.q + h * a.kv_width;
    float square = 0;
    if (warp < SCORE_WARPS)
#pragma unroll 1
      for (int i = threadIdx.x; i < a.d_head; i += CHUNK) square = fmaf(x[i], x[i], square);
    square = warp_sum(square);
    if (warp < SCORE_WARPS && threadIdx.x % 32 == 0) r.desk[h * SCORE_WARPS + warp] = square;
  }
  __syncthreads();
#pragma unroll 1
  for (int h = 0; h < heads; h++) {
    const device_norm &norm = h < G ? a.q_norm : a.k_norm;
    float *x = r.q + h * a.kv_width, sum = 0;
    for (int i = 0; i < SCORE_WARPS; i++) sum += r.desk[h * SCORE_WARPS + i];
    float scale = sqrtf(sum / (float)a.d_head + norm.eps);
    if (norm.kind != NORM_NONE)
#pragma unroll 1
      for (int i = threadIdx.x; i < a.d_head; i += blockDim.x) x[i] = gained(norm_element_at(norm, i, x[i]), x[i] / scale);
  }
  __syncthreads();
}

/* As rotate_kernel; a thread for each pair, with its cosine and sine. */
static __device__ __forceinline__ void turn_heads(const attend_args &a, const room &r, int heads, float cosine, float sine) {
  int half = a.dims / 2, i = threadIdx.x;
#pragma unroll 1
  for (int h = 0; h < heads && i < half; h++) {
    float *x = r.q + h * a.kv_width, *p = a.pairing == ROTARY_HALVES ? x + i : x + 2 * i;
    float *q = a.pairing == ROTARY_HALVES ? p + half : p + 1, was = *p, other = *q;
    *p = was * cosine - other * sine;
    *q = other * cosine + was * sine;
  }
  __syncthreads();
}

/* Query heads into r.q, and where they are this block's, the own key and value into the cache. */
template <int G>
static __device__ __forceinline__ void make_heads(const attend_args &a, const unit &u, const room &r, float cosine, float sine) {
  const float *row = row_at(a.qkv, u.row);
  const float *k = row + a.k + u.kv_head * a.d_head, *v = row + a.v + u.kv_head * a.d_head;
  for (int g = 0; g < G; g++) {
    float *to = r.q + g * a.kv_width;
    if (g < u.heads)
      load_head(a, row + a.q + (int64_t)(u.head + g) * a.d_head, to);
    else
#pragma unroll 1
      for (int i = threadIdx.x; i < a.kv_width; i += blockDim.x) to[i] = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.kv_width; i += blockDim.x) r.sums[g * a.kv_width + i] = 0;
  }
  float *key = r.q + G * a.kv_width;
  if (u.own) load_head(a, k, key);
  __syncthreads();
  if (a.q_norm.kind != NORM_NONE || a.k_norm.kind != NORM_NONE) norm_heads<G>(a, r, G + u.own);
  if (a.dims) turn_heads(a, r, G + u.own, cosine, sine);
  if (!u.own) return;
  int place = u.position % KV_BLOCK;
  unsigned char *kept = keys_at(a, u.slot, u.position / KV_BLOCK, u.kv_head);
#pragma unroll 1
  for (int i = threadIdx.x; i < a.kv_width; i += blockDim.x) {
    keep_element(a, kept, key_element(a, place, i), key[i]);
    if (i < a.d_head) keep_element(a, kept, value_element(a, place, i), v[i]);
  }
  __syncthreads();
}

/* ---- one chunk -------------------------------------------------------------------------------------------------------------- */

template <int G> struct chunk_state {
  float most[G], weight[G]; /* largest score and sum of weights; the same in all threads */
};

template <int N> static __device__ __forceinline__ void load_shared(const float *from, float to[8]) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    float4 v = *(const float4 *)(from + i);
    to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
  }
}

/* Scores of G heads at a position, by the keys of its block. */
template <int TYPE, int G>
static __device__ __forceinline__ void chunk_scores(const attend_args &a, const room &r, const unsigned char *keys, int place, float s[G]) {
  const int N = piece<TYPE>::n;
  int pieces = a.kv_width / N;
  __builtin_assume(__isGlobal(keys)); /* it comes from a table, which does not say */
  for (int g = 0; g < G; g++) s[g] = 0;
#pragma unroll 8
  for (int p = 0; p < pieces; p++) {
    float k[8], q[8];
    piece<TYPE>::widen(keys, p * KV_BLOCK + place, k);
#pragma unroll
    for (int g = 0; g < G; g++) {
      load_shared<N>(r.q + g * a.kv_width + p * N, q);
#pragma unroll
      for (int n = 0; n < N; n++) s[g] = fmaf(q[n], k[n], s[g]);
    }
  }
  for (int g = 0; g < G; g++) {
    s[g] *= a.scale;
    if (a.soft_cap > 0) s[g] = soft_capped(s[g], a.soft_cap);
  }
}

/* Sums of dimension i of the values of a block, by their weights; of places [begin, end), in their order. */
template <int TYPE, int G>
static __device__ __forceinline__ void part_values(const attend_args &a, const float *weights, const unsigned char *keys, int begin, int end,
                                                   int i, float sum[G]) {
  const int N = piece<TYPE>::n;
  __builtin_assume(__isGlobal(keys));
  for (int g = 0; g < G; g++) sum[g] = 0;
#pragma unroll (G > 2 ? 4 : 8)
  for (int p = begin / N; p < (end + N - 1) / N; p++) {
    float v[8], w[8];
    piece<TYPE>::widen(keys, (KV_BLOCK / N + p) * a.kv_width + i, v);
#pragma unroll
    for (int n = 0; n < N; n++)
      if (p * N + n < begin || p * N + n >= end) v[n] = 0; /* garbage beside them, whose weights are 0 */
#pragma unroll
    for (int g = 0; g < G; g++) {
      load_shared<N>(weights + g * CHUNK + p * N, w);
#pragma unroll
      for (int n = 0; n < N; n++) sum[g] = fmaf(w[n], v[n], sum[g]);
    }
  }
}

/* Weights of the unit's chunk relative to its own largest score; its weighted values go to r.fresh, by parts. Scores are the affair of
 * the first CHUNK threads, values of all. */
template <int TYPE, int G>
static __device__ __forceinline__ void weigh_chunk(const attend_args &a, const unit &u, const room &r, chunk_state<G> *out) {
  int base = u.chunk * CHUNK, at = threadIdx.x, warp = at / 32, j = base + at;
  bool weighs = at < CHUNK, seen = weighs && j >= u.begin && j <= u.position;
  float s[G], *tops = r.desk, *weights = r.desk + (G + 1) * SCORE_WARPS;
  for (int g = 0; g < G; g++) s[g] = -INFINITY;
  if (seen) chunk_scores<TYPE, G>(a, r, at < KV_BLOCK ? u.part[0] : u.part[1], at % KV_BLOCK, s);
  for (int g = 0; g < G && weighs; g++) {
    float top = warp_max(s[g]);
    if (at % 32 == 0) tops[g * SCORE_WARPS + warp] = top;
  }
  __syncthreads();
  for (int g = 0; g < G; g++) {
    out->most[g] = tops[g * SCORE_WARPS];
    for (int i = 1; i < SCORE_WARPS; i++) out->most[g] = fmaxf(out->most[g], tops[g * SCORE_WARPS + i]);
    if (!weighs) continue;
    float w = seen ? expf(s[g] - out->most[g]) : 0.0f;
    r.weights[g * CHUNK + at] = w;
    w = warp_sum(w);
    if (at % 32 == 0) weights[g * SCORE_WARPS + warp] = w;
  }
  __syncthreads();
  for (int g = 0; g < G; g++) {
    out->weight[g] = 0;
    for (int i = 0; i < SCORE_WARPS; i++) out->weight[g] += weights[g * SCORE_WARPS + i];
  }
#pragma unroll 1
  for (int item = at; item < PARTS * a.d_head; item += blockDim.x) {
    int part = item >= a.d_head, i = item - part * a.d_head, first = base + part * KV_BLOCK;
    int begin = u.begin > first ? u.begin - first : 0, end = u.position - first + 1 < KV_BLOCK ? u.position - first + 1 : KV_BLOCK;
    float sum[G];
    part_values<TYPE, G>(a, r.weights + part * KV_BLOCK, part ? u.part[1] : u.part[0], begin, end, i, sum);
    for (int g = 0; g < G; g++) r.fresh[(part * G + g) * a.kv_width + i] = sum[g];
  }
  __syncthreads();
}

template <int G> static __device__ __forceinline__ float fresh_at(const attend_args &a, const room &r, int g, int i) {
  return r.fresh[g * a.kv_width + i] + r.fresh[(G + g) * a.kv_width + i];
}

/* The one formula by which chunks come together. */
static __device__ __forceinline__ void join(float *most, float *weight, float fresh_most, float fresh_weight, float *keep,
                                            float *take) {
  float top = fmaxf(*most, fresh_most);
  *keep = expf(*most - top);
  *take = expf(fresh_most - top);
  *weight = fmaf(*weight, *keep, fresh_weight * *take);
  *most = top;
}

/* ---- chunks that blocks weighed for one another ---------------------------------------------------------------------------------- */

static __device__ __forceinline__ int64_t partial_stride(const attend_args &a) { return (int64_t)a.n_head * (a.d_head + 2); }

static __device__ __forceinline__ float *partial_at(const attend_args &a, const unit &u, int head, int chunk) {
  return a.partial + (u.place + chunk) * partial_stride(a) + (int64_t)head * (a.d_head + 2);
}

extern "C" size_t attend_partial_floats(const attend_args *args, int32_t places) {
  return (size_t)places * (size_t)args->n_head * (size_t)(args->d_head + 2);
}

template <int G>
static __device__ __forceinline__ void leave_chunk(const attend_args &a, const unit &u, const room &r, const chunk_state<G> &fresh) {
#pragma unroll
  for (int g = 0; g < G; g++) {
    if (g >= u.heads) continue;
    float *part = partial_at(a, u, u.head + g, u.chunk);
    if (threadIdx.x == 0) part[a.d_head] = fresh.most[g], part[a.d_head + 1] = fresh.weight[g];
#pragma unroll 1
    for (int i = threadIdx.x; i < a.d_head; i += blockDim.x) part[i] = fresh_at<G>(a, r, g, i);
  }
}

/* Whether this block is the last of `n` to come here: then it sees what all of them have written. The count is 0 again afterwards. */
static __device__ __forceinline__ bool comes_last(unsigned *count, unsigned n) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(count, 1u) == n - 1;
    if (last) {
      *count = 0;
      __threadfence(); /* of the others nobody reads what this block did not write */
    }
  }
  __syncthreads();
  return last;
}

static __device__ __forceinline__ void put_z(const attend_args &a, int row, int64_t i, float z) {
  row_at(a.z, row)[i] = z;
  if (a.point < 0) narrow_element(a.narrow, row, i, z); /* else there may be edits to come */
}

/* z of the unit's heads from what was left of their chunks. */
static __device__ __forceinline__ void join_chunks(const attend_args &a, const unit &u, const room &r) {
  float *keep = r.weights, *take = r.weights + JOINED; /* [heads][2][JOINED]; first the largest scores and the weights */
  float most = -INFINITY, weight = 0;
  for (int base = u.first; base <= u.final; base += JOINED) {
    int n = u.final - base + 1 < JOINED ? u.final - base + 1 : JOINED, g = threadIdx.x;
#pragma unroll 1
    for (int at = threadIdx.x; at < u.heads * n; at += blockDim.x) { /* all at once: one thread would wait for each of them */
      const float *part = partial_at(a, u, u.head + at / n, base + at % n) + a.d_head;
      keep[at / n * 2 * JOINED + at % n] = __ldcg(part);
      take[at / n * 2 * JOINED + at % n] = __ldcg(part + 1);
    }
    __syncthreads();
#pragma unroll 4
    for (int c = 0; c < n && g < u.heads; c++) {
      float *k = &keep[g * 2 * JOINED + c], *t = &take[g * 2 * JOINED + c];
      join(&most, &weight, *k, *t, k, t);
    }
    __syncthreads();
#pragma unroll 1
    for (int at = threadIdx.x; at < u.heads * a.d_head; at += blockDim.x) {
      int head = at / a.d_head, i = at % a.d_head;
      const float *part = partial_at(a, u, u.head + head, base) + i;
      float sum = r.sums[head * a.kv_width + i];
#pragma unroll 8
      for (int c = 0; c < n; c++)
        sum = fmaf(sum, keep[head * 2 * JOINED + c], __ldcg(part + c * partial_stride(a)) * take[head * 2 * JOINED + c]);
      r.sums[head * a.kv_width + i] = sum;
    }
    __syncthreads();
  }
  if ((int)threadIdx.x < u.heads) r.desk[threadIdx.x] = weight;
  __syncthreads();
#pragma unroll 1
  for (int at = threadIdx.x; at < u.heads * a.d_head; at += blockDim.x) {
    int head = at / a.d_head, i = at % a.d_head;
    put_z(a, u.row, (int64_t)u.head * a.d_head + at, r.sums[head * a.kv_width + i] / r.desk[head]);
  }
}

/* ---- one row, some heads of one KV head ---------------------------------------------------------------------------------------- */

template <int G>
static __device__ __forceinline__ void add_chunk(const attend_args &a, const room &r, chunk_state<G> *all, const chunk_state<G> &fresh) {
#pragma unroll
  for (int g = 0; g < G; g++) {
    float keep, take, *sums = r.sums + g * a.kv_width;
    join(&all->most[g], &all->weight[g], fresh.most[g], fresh.weight[g], &keep, &take);
#pragma unroll 1
    for (int i = threadIdx.x; i < a.d_head; i += blockDim.x) sums[i] = fmaf(sums[i], keep, fresh_at<G>(a, r, g, i) * take);
  }
}

template <int G>
static __device__ __forceinline__ void finish_heads(const attend_args &a, const unit &u, const room &r, const chunk_state<G> &all) {
#pragma unroll
  for (int g = 0; g < G; g++) {
    int64_t first = (int64_t)(u.head + g) * a.d_head;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.d_head && g < u.heads; i += blockDim.x)
      put_z(a, u.row, first + i, r.sums[g * a.kv_width + i] / all.weight[g]);
  }
}

#define MOST_THREADS 256 /* row_threads(ATTEND_POINT_WIDTH) */

template <int TYPE, int G> static __global__ void __launch_bounds__(MOST_THREADS, 1) attend_kernel(attend_args a) {
  DYNAMIC_SHARED(float, memory);
  __shared__ float shared[MAX_WARPS];
  room r = room_in<G>(memory, a.kv_width);
  unit u = {};
  float cosine = 0, sine = 0;
  bool works = find_unit<G>(a, &u);
  if (works && (int)threadIdx.x < a.dims / 2) {
    cosine = __ldcg(a.turns + (int64_t)u.position * a.dims + threadIdx.x);
    sine = __ldcg(a.turns + (int64_t)u.position * a.dims + a.dims / 2 + threadIdx.x);
  }
  const void *part = threadIdx.x == 0 ? u.part[0] : threadIdx.x == 1 ? u.part[1] : NULL;
  if (works && a.ahead && part) fetch_ahead(part, 2 * KV_BLOCK * a.kv_width * a.kv_element);
  grid_follow();
  if (!works) return;
  unsigned *count = a.count + (int64_t)u.row * (gridDim.y + 1);
  make_heads<G>(a, u, r, cosine, sine);
  chunk_state<G> all, fresh;
  for (int g = 0; g < G; g++) all.most[g] = -INFINITY, all.weight[g] = 0;
  while (true) {
    weigh_chunk<TYPE, G>(a, u, r, &fresh);
    if (u.place >= 0) break;
    add_chunk<G>(a, r, &all, fresh);
    if (u.chunk == u.final) break;
    u.chunk++;
    find_parts(a, &u);
  }
  if (u.place >= 0) {
    leave_chunk<G>(a, u, r, fresh);
    if (!comes_last(count + blockIdx.y, (unsigned)(u.final - u.first + 1))) return;
    join_chunks(a, u, r);
  } else {
    finish_heads<G>(a, u, r, all);
  }
  if (a.point < 0 || !comes_last(count + gridDim.y, gridDim.y)) return;
  block_team team = {shared};
  point_row(team, a.table, a.point, u.row, row_at(a.z, u.row), 0, (int64_t)a.n_head * a.d_head);
  narrow_row(team, a.narrow, u.row, row_at(a.z, u.row), (int64_t)a.n_head * a.d_head);
}

/* Threads: one for each position of a chunk; where edits and taps follow, as many as wherever else this point is looked at. */
template <int TYPE, int G> static cudaError_t launch_group(cudaStream_t stream, const attend_args &args) {
  int group = args.n_head / args.n_kv_head, tiles = (group + G - 1) / G;
  int threads = args.point < 0 ? CHUNK : row_threads((int64_t)args.n_head * args.d_head);
  dim3 grid((unsigned)args.work, (unsigned)(args.n_kv_head * tiles));
  return launch(attend_kernel<TYPE, G>, args, grid, threads, room_floats<G>(args.kv_width) * sizeof(float), stream);
}

extern "C" size_t attend_counts(const attend_args *args, int32_t rows) { return (size_t)rows * (size_t)(args->n_head + 1); }

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, const attend_args &args) {
  int group = args.n_head / args.n_kv_head;
  bool narrow = args.d_head <= 256; /* 8 heads of 256 stay below 48 KiB of shared memory */
  if (group == 1 || args.d_head > 1024) return launch_group<TYPE, 1>(stream, args);
  if (group == 2 || args.d_head > 512) return launch_group<TYPE, 2>(stream, args);
  if (group <= 4 || !narrow) return launch_group<TYPE, 4>(stream, args);
  return launch_group<TYPE, MAX_GROUP>(stream, args);
}

extern "C" cudaError_t launch_attend(cudaStream_t stream, const attend_args *args) {
  if (args->kv_type == DTYPE_F32) return launch_type<DTYPE_F32>(stream, *args);
  if (args->kv_type == DTYPE_F16) return launch_type<DTYPE_F16>(stream, *args);
  return launch_type<DTYPE_BF16>(stream, *args);
}
