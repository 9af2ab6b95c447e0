/* attend.cu: causal attention over the paged cache.
 *
 * Positions are weighed in chunks of ATTEND_CHUNK at absolute places; chunks are brought together in their order by one formula,
 * whether one block took them in turn or each had its own, so that a row has the same bits alone, in a batch, in a prompt
 * read whole and in one read in pieces. Keys and values are read from the cache as they are kept (cache.cuh), those of this step
 * too. */
#include "core/math/cuda/cache.cuh"

#define CHUNK ATTEND_CHUNK
#define MAX_GROUP 8 /* query heads that share what is read of a KV head */

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

/* ---- one chunk -------------------------------------------------------------------------------------------------------------- */

/* What a block keeps of its row, in shared memory: for G query heads q [G][kv_width], 0 beyond d_head, sums and new sums [G][d_head],
 * weights of a chunk. */
struct room {
  float *q, *sums, *fresh, *weights; /* weights [G][CHUNK] */
};

template <int G> struct chunk_state {
  float most[G], weight[G]; /* largest score and sum of weights; the same in all threads */
};

/* Scores of G heads at this thread's position. */
template <int TYPE, int G>
static __device__ void chunk_scores(const attend_args &a, const room &r, int slot, int kv_head, int j, float s[G]) {
  const int N = piece<TYPE>::n;
  const unsigned char *keys = keys_at(a, slot, j / KV_BLOCK, kv_head);
  int place = j % KV_BLOCK, pieces = a.kv_width / N;
  for (int g = 0; g < G; g++) s[g] = 0;
#pragma unroll 2
  for (int p = 0; p < pieces; p++) {
    float k[8];
    piece<TYPE>::widen(keys, p * KV_BLOCK + place, k);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int g = 0; g < G; g++) s[g] = fmaf(r.q[g * a.kv_width + p * N + n], k[n], s[g]);
  }
  for (int g = 0; g < G; g++) {
    s[g] *= a.scale;
    if (a.soft_cap > 0) s[g] = soft_capped(s[g], a.soft_cap);
  }
}

/* Sums of dimension i of the values of a chunk, by their weights; of the chunk's places [from, to), in their order. */
template <int TYPE, int G>
static __device__ void chunk_values(const attend_args &a, const room &r, int slot, int kv_head, int base, int from, int to, int i,
                                    float sum[G]) {
  const int N = piece<TYPE>::n;
  for (int g = 0; g < G; g++) sum[g] = 0;
  for (int part = from / KV_BLOCK; part * KV_BLOCK < to; part++) {
    const unsigned char *keys = keys_at(a, slot, base / KV_BLOCK + part, kv_head);
    int begin = from > part * KV_BLOCK ? from - part * KV_BLOCK : 0;
    int end = to - part * KV_BLOCK < KV_BLOCK ? to - part * KV_BLOCK : KV_BLOCK;
#pragma unroll 2
    for (int p = begin / N; p * N < end; p++) {
      float v[8];
      piece<TYPE>::widen(keys, (KV_BLOCK / N + p) * a.kv_width + i, v);
#pragma unroll
      for (int n = 0; n < N; n++) {
        int place = p * N + n;
        float value = begin <= place && place < end ? v[n] : 0; /* garbage beside them, whose weights are 0 */
#pragma unroll
        for (int g = 0; g < G; g++) sum[g] = fmaf(r.weights[g * CHUNK + part * KV_BLOCK + place], value, sum[g]);
      }
    }
  }
}

/* Weights of the chunk from position `base`, of keys [begin, end], relative to its own largest score; their weighted values go
 * to r.fresh. */
template <int TYPE, int G>
static __device__ void weigh_chunk(const attend_args &a, const room &r, int slot, int kv_head, int base, int begin, int end,
                                   chunk_state<G> *out, float *shared) {
  int j = base + (int)threadIdx.x;
  bool seen = j >= begin && j <= end;
  float s[G];
  for (int g = 0; g < G; g++) s[g] = -INFINITY;
  if (seen) chunk_scores<TYPE, G>(a, r, slot, kv_head, j, s);
  for (int g = 0; g < G; g++) {
    out->most[g] = block_max(s[g], shared);
    float w = seen ? expf(s[g] - out->most[g]) : 0.0f;
    r.weights[g * CHUNK + threadIdx.x] = w;
    out->weight[g] = block_sum(w, shared);
  }
  __syncthreads();
  int from = begin > base ? begin - base : 0, to = end - base + 1 < CHUNK ? end - base + 1 : CHUNK;
  for (int i = threadIdx.x; i < a.d_head; i += blockDim.x) {
    float sum[G];
    chunk_values<TYPE, G>(a, r, slot, kv_head, base, from, to, i, sum);
    for (int g = 0; g < G; g++) r.fresh[g * a.d_head + i] = sum[g];
  }
  __syncthreads();
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

static __device__ __forceinline__ float *partial_at(const attend_args &a, int row, int head, int chunk) {
  return a.partial + (((int64_t)row * a.n_head + head) * a.chunks + chunk) * (a.d_head + 2);
}

extern "C" size_t attend_partial_floats(const attend_args *args, int32_t rows) {
  return (size_t)rows * (size_t)args->n_head * (size_t)args->chunks * (size_t)(args->d_head + 2);
}

/* ---- one row, some heads of one KV head ---------------------------------------------------------------------------------------- */

template <int TYPE, int G> static __global__ void __launch_bounds__(CHUNK) attend_kernel(attend_args a) {
  DYNAMIC_SHARED(float, memory);
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x, group = a.n_head / a.n_kv_head, tiles = (group + G - 1) / G, slot;
  int kv_head = (int)blockIdx.y / tiles, first = (int)blockIdx.y % tiles * G; /* of the group */
  grid_follow();
  if (row >= a.table->n_rows || !runs_layer(a.table, row, a.layer)) return;
  int position = position_of(a.table, row, &slot), begin = first_seen(position, a.window);
  int chunk = begin / CHUNK, last = position / CHUNK, heads = group - first < G ? group - first : G;
  if (a.partial) {
    if ((int)blockIdx.z < chunk || (int)blockIdx.z > last) return;
    chunk = last = blockIdx.z;
  }
  room r = {memory, memory + G * a.kv_width, memory + 2 * G * a.kv_width, memory + 3 * G * a.kv_width};
  int head = kv_head * group + first;
  const float *q = row_at(a.qkv, row) + a.q + (int64_t)head * a.d_head;
  for (int i = threadIdx.x; i < G * a.kv_width; i += blockDim.x) {
    int g = i / a.kv_width, element = i % a.kv_width;
    r.q[i] = g < heads && element < a.d_head ? q[g * a.d_head + element] : 0;
    r.sums[i] = 0;
  }
  __syncthreads();
  chunk_state<G> all, fresh;
  for (int g = 0; g < G; g++) all.most[g] = fresh.most[g] = -INFINITY, all.weight[g] = fresh.weight[g] = 0;
  for (; chunk <= last; chunk++) {
    weigh_chunk<TYPE, G>(a, r, slot, kv_head, chunk * CHUNK, begin, position, &fresh, shared);
    if (a.partial) break;
    for (int g = 0; g < G; g++) {
      float keep, take;
      join(&all.most[g], &all.weight[g], fresh.most[g], fresh.weight[g], &keep, &take);
      for (int i = threadIdx.x; i < a.d_head; i += blockDim.x)
        r.sums[g * a.d_head + i] = fmaf(r.sums[g * a.d_head + i], keep, r.fresh[g * a.d_head + i] * take);
    }
  }
  for (int g = 0; g < heads; g++) {
    float *z = row_at(a.z, row) + (int64_t)(head + g) * a.d_head;
    float *part = a.partial ? partial_at(a, row, head + g, chunk) : NULL;
    if (part && threadIdx.x == 0) part[a.d_head] = fresh.most[g], part[a.d_head + 1] = fresh.weight[g];
    for (int i = threadIdx.x; i < a.d_head; i += blockDim.x)
      if (part)
        part[i] = r.fresh[g * a.d_head + i];
      else
        z[i] = r.sums[g * a.d_head + i] / all.weight[g];
  }
}

template <int TYPE, int G> static cudaError_t launch_group(cudaStream_t stream, const bucket *bucket, const attend_args &args) {
  int group = args.n_head / args.n_kv_head, tiles = (group + G - 1) / G;
  dim3 grid((unsigned)bucket->rows, (unsigned)(args.n_kv_head * tiles), (unsigned)(args.partial ? args.chunks : 1));
  size_t shared = (size_t)(3 * G * args.kv_width + G * CHUNK) * sizeof(float);
  return launch(attend_kernel<TYPE, G>, args, grid, CHUNK, shared, stream);
}

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, const bucket *bucket, const attend_args &args) {
  int group = args.n_head / args.n_kv_head;
  bool narrow = args.d_head <= 256; /* 8 heads of 256 stay below 48 KiB of shared memory */
  if (group == 1 || args.d_head > 1024) return launch_group<TYPE, 1>(stream, bucket, args);
  if (group == 2 || args.d_head > 512) return launch_group<TYPE, 2>(stream, bucket, args);
  if (group <= 4 || !narrow) return launch_group<TYPE, 4>(stream, bucket, args);
  return launch_group<TYPE, MAX_GROUP>(stream, bucket, args);
}

extern "C" cudaError_t launch_attend(cudaStream_t stream, const bucket *bucket, const attend_args *args) {
  if (args->kv_type == DTYPE_F32) return launch_type<DTYPE_F32>(stream, bucket, *args);
  if (args->kv_type == DTYPE_F16) return launch_type<DTYPE_F16>(stream, bucket, *args);
  return launch_type<DTYPE_BF16>(stream, bucket, *args);
}

/* ---- chunks together, edits, taps ------------------------------------------------------------------------------------------------ */

static __device__ void join_row(const attend_args &a, int row) {
  int slot, position = position_of(a.table, row, &slot), begin = first_seen(position, a.window);
  float *z = row_at(a.z, row);
  for (int64_t i = threadIdx.x; i < (int64_t)a.n_head * a.d_head; i += blockDim.x) {
    int head = (int)(i / a.d_head), element = (int)(i % a.d_head);
    float most = -INFINITY, weight = 0, sum = 0;
    for (int chunk = begin / CHUNK; chunk <= position / CHUNK; chunk++) {
      const float *part = partial_at(a, row, head, chunk);
      float keep, take;
      join(&most, &weight, part[a.d_head], part[a.d_head + 1], &keep, &take);
      sum = fmaf(sum, keep, part[element] * take);
    }
    z[i] = sum / weight;
  }
}

static __global__ void finish_kernel(attend_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x;
  grid_follow();
  if (row >= a.table->n_rows || !runs_layer(a.table, row, a.layer)) return;
  if (a.partial) join_row(a, row);
  __syncthreads();
  point_row(a.table, a.point, row, row_at(a.z, row), 0, (int64_t)a.n_head * a.d_head, shared);
}

extern "C" cudaError_t launch_attend_finish(cudaStream_t stream, const bucket *bucket, const attend_args *args) {
  int threads = row_threads((int64_t)args->n_head * args->d_head);
  return launch(finish_kernel, *args, dim3((unsigned)bucket->rows), threads, 0, stream);
}

/* ---- attention written out, for taps and edits of scores and patterns --------------------------------------------------------------- */

static __device__ bool looked_at(const table *t, int point, int row) {
  if (t->tap_begin)
    for (int i = t->tap_begin[point]; i < t->tap_begin[point + 1]; i++)
      if (row_within(t->tap_rows[i], row)) return true;
  return row_is_edited(t, point, row);
}

/* What the row does not see stays hidden, whatever an edit made of it. */
static __device__ void hide(const attend_args &a, int keys, int begin, int end, float *h, float hidden) {
  for (int64_t i = threadIdx.x; i < (int64_t)a.n_head * keys; i += blockDim.x) {
    int j = (int)(i % keys);
    if (j < begin || j > end) h[i] = hidden;
  }
}

static __device__ void explicit_point(const attend_args &a, int point, int row, int keys, int begin, int end, float *h,
                                      float hidden, float *shared) {
  int64_t width = (int64_t)a.n_head * keys;
  point_edits(a.table, point, row, h, 0, width, shared);
  hide(a, keys, begin, end, h, hidden);
  point_taps(a.table, point, row, h, 0, width);
  __syncthreads();
}

static __device__ void explicit_scores(const attend_args &a, int row, int slot, int keys, int begin, int end, float *h) {
  int group = a.n_head / a.n_kv_head;
  for (int64_t at = threadIdx.x; at < (int64_t)a.n_head * keys; at += blockDim.x) {
    int head = (int)(at / keys), j = (int)(at % keys);
    h[at] = 0; /* what is not seen */
    if (j < begin || j > end) continue;
    const unsigned char *keys_of_block = keys_at(a, slot, j / KV_BLOCK, head / group);
    const float *q = row_at(a.qkv, row) + a.q + (int64_t)head * a.d_head;
    double sum = 0;
    for (int i = 0; i < a.d_head; i++) sum += (double)q[i] * kept_element(a, keys_of_block, key_element(a, j % KV_BLOCK, i));
    sum *= a.scale;
    h[at] = (float)(a.soft_cap > 0 ? a.soft_cap * tanh(sum / a.soft_cap) : sum);
  }
}

/* Scores to weights that sum to 1, all 0 where every score is -inf: a thread for each head. */
static __device__ void soften(const attend_args &a, int keys, int begin, int end, float *h) {
  __syncthreads();
  for (int head = threadIdx.x; head < a.n_head; head += blockDim.x) {
    float *own = h + (int64_t)head * keys;
    double most = -INFINITY, total = 0;
    for (int j = begin; j <= end; j++) most = fmax(most, (double)own[j]);
    if (most == -INFINITY) most = 0;
    for (int j = begin; j <= end; j++) total += exp(own[j] - most);
    for (int j = begin; j <= end; j++) own[j] = total > 0 ? (float)(exp(own[j] - most) / total) : 0;
  }
  __syncthreads();
}

static __device__ void weigh(const attend_args &a, int row, int slot, int keys, int begin, int end, const float *weights) {
  int group = a.n_head / a.n_kv_head;
  for (int64_t at = threadIdx.x; at < (int64_t)a.n_head * a.d_head; at += blockDim.x) {
    int head = (int)(at / a.d_head), i = (int)(at % a.d_head);
    double sum = 0;
    for (int j = begin; j <= end; j++)
      sum += (double)weights[(int64_t)head * keys + j] *
             kept_element(a, keys_at(a, slot, j / KV_BLOCK, head / group), value_element(a, j % KV_BLOCK, i));
    row_at(a.z, row)[at] = (float)sum;
  }
}

static __global__ void pattern_kernel(attend_args a) {
  __shared__ float shared[MAX_WARPS];
  const table *t = a.table;
  int row = a.first + (int)blockIdx.x, slot;
  grid_follow();
  if (!row_within(t->active[a.layer], row)) return;
  if (!looked_at(t, a.scores_point, row) && !looked_at(t, a.pattern_point, row)) return;
  int end = position_of(t, row, &slot), begin = first_seen(end, a.window), keys = t->keys[slot];
  float *h = a.scratch + (int64_t)blockIdx.x * a.n_head * a.most_keys;
  explicit_scores(a, row, slot, keys, begin, end, h);
  __syncthreads();
  explicit_point(a, a.scores_point, row, keys, begin, end, h, -INFINITY, shared);
  soften(a, keys, begin, end, h);
  explicit_point(a, a.pattern_point, row, keys, begin, end, h, 0, shared);
  if (row_is_edited(t, a.scores_point, row) || row_is_edited(t, a.pattern_point, row))
    weigh(a, row, slot, keys, begin, end, h);
}

extern "C" cudaError_t launch_pattern(cudaStream_t stream, int32_t rows, const attend_args *args) {
  return launch(pattern_kernel, *args, dim3((unsigned)rows), 128, 0, stream);
}
