/* attend_prompt.cu: attention of the rows of a prompt, on tensor cores, over keys and values of 16 bits.
 *
 * A block takes a tile of queries (a few rows of a slot by the query heads of one KV head, or some of them), brings the keys
 * and values of 64 positions after the other into shared memory, once for all of them, and weighs them with a running maximum.
 * A warp has 16 queries. Operands that are f32, queries and weights, are cut into two pieces of the cache's type, which leaves
 * 2^-18 of them away (f16: 2^-22); keys and values are used as they are kept. Blocks of positions lie in shared memory as they lie in the cache
 * (cache.cuh): a word there is a word of an operand.
 *
 * The order of sums depends on where tiles begin, so this is for plain mode. Short slots of the same step (decodes) and all
 * else are attend.cu's.
 *
 * A position that a row does not see has weight 0, and 0 times infinity or NaN is NaN. So where some rows see a block of positions only in
 * part, values that are no finite numbers are looked for: what sees them gets them added as they are, and for the products they are 0. */
#include "core/math/cuda/cache.cuh"
#include "core/math/cuda/ptx.cuh"

#define LOG2_E 1.4426950408889634f
#define BATCH 8 /* products that do not wait for each other */

/* ---- operands ------------------------------------------------------------------------------------------------------------ */

/* Two elements as a word, and products of such words. */
template <int TYPE> struct half_type;
template <> struct half_type<DTYPE_BF16> {
  static const unsigned EXPONENT = 0x7F80;
  static __device__ __forceinline__ unsigned pack(float low, float high) { return pack_bf16(low, high); }
  static __device__ __forceinline__ float low(unsigned word) { return __uint_as_float(word << 16); }
  static __device__ __forceinline__ float high(unsigned word) { return __uint_as_float(word & 0xFFFF0000u); }
  static __device__ __forceinline__ float within(float x) { return x; }
  static __device__ __forceinline__ void multiply(float d[4], const uint4 &a, unsigned b0, unsigned b1) {
    mma_bf16(d, a.x, a.y, a.z, a.w, b0, b1);
  }
};
template <> struct half_type<DTYPE_F16> {
  static const unsigned EXPONENT = 0x7C00;
  static __device__ __forceinline__ unsigned pack(float low, float high) { return pack_f16(low, high); }
  static __device__ __forceinline__ float low(unsigned word) { return __half2float(__ushort_as_half((unsigned short)word)); }
  static __device__ __forceinline__ float high(unsigned word) { return __half2float(__ushort_as_half((unsigned short)(word >> 16))); }
  static __device__ __forceinline__ float within(float x) { return x > 65504 ? 65504 : x < -65504 ? -65504 : x; /* NaN stays */ }
  static __device__ __forceinline__ void multiply(float d[4], const uint4 &a, unsigned b0, unsigned b1) {
    mma_f16(d, a.x, a.y, a.z, a.w, b0, b1);
  }
};

/* Bits 15 and 31 say whether one of the two is no finite number. */
template <int TYPE> static __device__ __forceinline__ unsigned odd_bits(unsigned word) {
  const unsigned exponent = half_type<TYPE>::EXPONENT, lowest = exponent & (0u - exponent);
  return (word & (exponent << 16 | exponent)) + (lowest << 16 | lowest);
}

/* Two neighbours, and what their first pieces leave. */
template <int TYPE> static __device__ __forceinline__ void cut_pair(float x, float y, unsigned *first, unsigned *rest) {
  typedef half_type<TYPE> half;
  *first = half::pack(half::within(x), half::within(y));
  *rest = half::pack(half::within(x - half::low(*first)), half::within(y - half::high(*first)));
}

/* ---- a tile --------------------------------------------------------------------------------------------------------------- */

/* The rows of a slot that a block has now: query x is head x % heads of row x / heads. */
struct span_of_rows {
  int slot, row, rows, position; /* the first row's */
  int heads, first_head, kv_head;
};

/* D: d_head, or what it is filled up to with zeros. */
template <int TYPE, int D, int WARPS> struct tile {
  static const int QUERIES = WARPS * 16, THREADS = WARPS * 32, STEPS = D / 16, COLUMNS = D / 8, POSITIONS = KV_BLOCK / 8;
  uint4 keys[D / 8][KV_BLOCK], values[KV_BLOCK / 8][D]; /* pieces, as in the cache */
  uint4 queries[2][STEPS][THREADS];                     /* operands, each lane's own */
  span_of_rows span;
  int odd; /* the last block of positions where somebody found values that are no finite numbers; -1: there was none */
};

/* What a lane has of its two queries, those of rows `group` and group + 8 of its warp. */
struct lane_queries {
  int begin[2], end[2]; /* positions that they see, [begin, end]; none: end -1 */
  float most[2], weight[2];

  /* Some of the positions [base, base + 64) are hidden from one of them. */
  __device__ __forceinline__ bool edge(int base) const {
    return max(begin[0], begin[1]) > base || min(end[0], end[1]) < base + KV_BLOCK - 1;
  }
};

static __device__ __forceinline__ lane_queries queries_of(const attend_args &a, const span_of_rows &s) {
  lane_queries l;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int row = ((int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4 + 8 * i) / s.heads;
    l.end[i] = row < s.rows ? s.position + row : -1;
    l.begin[i] = row < s.rows ? first_seen(l.end[i], a.window) : 0;
    l.most[i] = -INFINITY;
    l.weight[i] = 0;
  }
  return l;
}

/* Each lane cuts what it will multiply itself, so that nobody has to wait. */
template <int TYPE, int D, int WARPS>
static __device__ void cut_queries(const attend_args &a, const span_of_rows &s, tile<TYPE, D, WARPS> &t) {
  int part = threadIdx.x % 4;
  const float *q[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int x = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4 + 8 * i, row = x / s.heads;
    q[i] = row < s.rows ? row_at(a.qkv, s.row + row) + a.q + (int64_t)(s.first_head + x % s.heads) * a.d_head : NULL;
  }
#pragma unroll 2
  for (int step = 0; step < t.STEPS; step++) {
    unsigned first[4], rest[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int column = step * 16 + i / 2 * 8 + 2 * part;
      const float *from = q[i % 2];
      float x = from && column < a.d_head ? from[column] : 0, y = from && column + 1 < a.d_head ? from[column + 1] : 0;
      cut_pair<TYPE>(x, y, &first[i], &rest[i]);
    }
    t.queries[0][step][threadIdx.x] = make_uint4(first[0], first[1], first[2], first[3]);
    t.queries[1][step][threadIdx.x] = make_uint4(rest[0], rest[1], rest[2], rest[3]);
  }
}

template <int TYPE, int D, int WARPS> static __device__ __forceinline__ void start_keys(const attend_args &a, tile<TYPE, D, WARPS> &t, const void *head) {
#pragma unroll 1
  for (int i = threadIdx.x; i < D / 8 * KV_BLOCK; i += t.THREADS)
    copy_start((uint4 *)t.keys + i, (const uint4 *)head + i, i / KV_BLOCK * 8 < a.kv_width);
  copy_group();
}

template <int TYPE, int D, int WARPS> static __device__ __forceinline__ void start_values(const attend_args &a, tile<TYPE, D, WARPS> &t, const void *head) {
  const uint4 *values = (const uint4 *)head + KV_BLOCK / 8 * a.kv_width;
#pragma unroll 1
  for (int i = threadIdx.x; i < KV_BLOCK / 8 * D; i += t.THREADS) {
    int at = i / D, column = i % D;
    copy_start((uint4 *)t.values + i, values + (column < a.kv_width ? at * a.kv_width + column : 0), column < a.kv_width);
  }
  copy_group();
}

/* What the block of the cache had before this text came so far may be no number. */
template <int TYPE, int D, int WARPS> static __device__ __forceinline__ void clear_values(tile<TYPE, D, WARPS> &t, int from) {
#pragma unroll 1
  for (int i = threadIdx.x; i < (KV_BLOCK - from) * D; i += t.THREADS) {
    int place = from + i / D;
    ((unsigned short *)&t.values[place / 8][i % D])[place % 8] = 0;
  }
}

/* Of the values that this thread has copied, which it has waited for. */
template <int TYPE, int D, int WARPS> static __device__ __forceinline__ bool copied_odd(const tile<TYPE, D, WARPS> &t) {
  unsigned found = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < KV_BLOCK / 8 * D; i += t.THREADS) {
    uint4 v = ((const uint4 *)t.values)[i];
    found |= odd_bits<TYPE>(v.x) | odd_bits<TYPE>(v.y) | odd_bits<TYPE>(v.z) | odd_bits<TYPE>(v.w);
  }
  return (found & 0x80008000u) != 0;
}

/* Values that are no finite numbers are added to what sees them, whatever their weights, and become 0. */
template <int TYPE, int D, int WARPS>
static __device__ __forceinline__ void take_odd(const lane_queries &l, int base, tile<TYPE, D, WARPS> &t, float out[D / 8][4]) {
  int part = threadIdx.x % 4;
#pragma unroll 1
  for (int place = 0; place < KV_BLOCK; place++) {
    bool sees[2];
#pragma unroll
    for (int i = 0; i < 2; i++) sees[i] = l.begin[i] <= base + place && base + place <= l.end[i];
#pragma unroll
    for (int n = 0; n < t.COLUMNS; n++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        unsigned bits = ((const unsigned short *)&t.values[place / 8][8 * n + 2 * part + k])[place % 8];
        if (!(odd_bits<TYPE>(bits) & 0x8000u)) continue;
        if (sees[0]) out[n][k] += half_type<TYPE>::low(bits);
        if (sees[1]) out[n][2 + k] += half_type<TYPE>::low(bits);
      }
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < KV_BLOCK * D; i += t.THREADS) {
    unsigned short *value = (unsigned short *)t.values + i;
    if (odd_bits<TYPE>(*value) & 0x8000u) *value = 0;
  }
  __syncthreads();
}

/* ---- 64 positions ------------------------------------------------------------------------------------------------------------ */

/* Scores of the warp's queries: s[n] are those of positions 8 n ... 8 n + 7, as the pieces of a product lie in its lanes. */
template <int TYPE, int D, int WARPS>
static __device__ __forceinline__ void score_block(const tile<TYPE, D, WARPS> &t, float s[KV_BLOCK / 8][4]) {
  int group = threadIdx.x % 32 / 4, part = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < t.POSITIONS; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll 1
  for (int step = 0; step < t.STEPS; step++) {
    uint4 first = t.queries[0][step][threadIdx.x], rest = t.queries[1][step][threadIdx.x];
    unsigned b[t.POSITIONS][2];
#pragma unroll
    for (int n = 0; n < t.POSITIONS; n++)
#pragma unroll
      for (int i = 0; i < 2; i++) b[n][i] = ((const unsigned *)&t.keys[2 * step + i][8 * n + group])[part];
#pragma unroll
    for (int n = 0; n < t.POSITIONS; n++) half_type<TYPE>::multiply(s[n], rest, b[n][0], b[n][1]);
#pragma unroll
    for (int n = 0; n < t.POSITIONS; n++) half_type<TYPE>::multiply(s[n], first, b[n][0], b[n][1]);
  }
}

/* cap * tanh(y / cap) by one exponential, y and cap in powers of 2; twice is 2 log2(e) / cap. */
static __device__ __forceinline__ float cap_score(float y, float cap, float twice) {
  return cap - __fdividef(2 * cap, 1 + power_of_2(y * twice));
}

/* Scores to powers of 2: -inf where a position is not seen. */
static __device__ __forceinline__ void finish_scores(const attend_args &a, int base, const lane_queries &l, float s[KV_BLOCK / 8][4]) {
  float scale = a.scale * LOG2_E, cap = a.soft_cap * LOG2_E, twice = cap > 0 ? 2 * LOG2_E / cap : 0;
  int part = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < KV_BLOCK / 8; n++)
#pragma unroll
    for (int k = 0; k < 4; k++) s[n][k] *= scale;
  if (cap > 0) {
#pragma unroll
    for (int n = 0; n < KV_BLOCK / 8; n++)
#pragma unroll
      for (int k = 0; k < 4; k++) s[n][k] = cap_score(s[n][k], cap, twice);
  }
  if (!l.edge(base)) return;
#pragma unroll
  for (int n = 0; n < KV_BLOCK / 8; n++)
#pragma unroll
    for (int k = 0; k < 4; k++) {
      int position = base + 8 * n + 2 * part + k % 2;
      if (position < l.begin[k / 2] || position > l.end[k / 2]) s[n][k] = -INFINITY;
    }
}

/* Scores to weights relative to the largest one so far; `keep`: what becomes of the weights before. */
static __device__ __forceinline__ void weigh_scores(lane_queries &l, float s[KV_BLOCK / 8][4], float keep[2]) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float most = l.most[i], sum = 0;
#pragma unroll
    for (int n = 0; n < KV_BLOCK / 8; n++) most = fmaxf(most, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
    most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1));
    most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2));
    float above = most == -INFINITY ? 0 : most; /* nothing seen so far: weights are 0 */
#pragma unroll
    for (int n = 0; n < KV_BLOCK / 8; n++)
#pragma unroll
      for (int k = 2 * i; k < 2 * i + 2; k++) sum += s[n][k] = power_of_2(s[n][k] - above);
    keep[i] = power_of_2(l.most[i] - above);
    l.weight[i] = fmaf(l.weight[i], keep[i], sum);
    l.most[i] = most;
  }
}

/* out[n]: columns 8 n ... 8 n + 7. */
template <int TYPE, int D, int WARPS>
static __device__ __forceinline__ void add_values(const tile<TYPE, D, WARPS> &t, const float s[KV_BLOCK / 8][4], const float keep[2],
                                                  float out[D / 8][4]) {
  int group = threadIdx.x % 32 / 4, part = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < t.COLUMNS; n++) out[n][0] *= keep[0], out[n][1] *= keep[0], out[n][2] *= keep[1], out[n][3] *= keep[1];
#pragma unroll
  for (int step = 0; step < KV_BLOCK / 16; step++) {
    uint4 first, rest;
    cut_pair<TYPE>(s[2 * step][0], s[2 * step][1], &first.x, &rest.x);
    cut_pair<TYPE>(s[2 * step][2], s[2 * step][3], &first.y, &rest.y);
    cut_pair<TYPE>(s[2 * step + 1][0], s[2 * step + 1][1], &first.z, &rest.z);
    cut_pair<TYPE>(s[2 * step + 1][2], s[2 * step + 1][3], &first.w, &rest.w);
#pragma unroll
    for (int base = 0; base < t.COLUMNS; base += BATCH) {
      unsigned b[BATCH][2];
#pragma unroll
      for (int n = 0; n < BATCH; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) b[n][i] = ((const unsigned *)&t.values[2 * step + i][8 * (base + n) + group])[part];
#pragma unroll
      for (int n = 0; n < BATCH; n++) half_type<TYPE>::multiply(out[base + n], rest, b[n][0], b[n][1]);
#pragma unroll
      for (int n = 0; n < BATCH; n++) half_type<TYPE>::multiply(out[base + n], first, b[n][0], b[n][1]);
    }
  }
}

/* ---- rows of a slot ---------------------------------------------------------------------------------------------------------- */

template <int D> static __device__ __forceinline__ void put_rows(const attend_args &a, const span_of_rows &s, lane_queries &l, const float out[D / 8][4]) {
  int part = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    l.weight[i] += __shfl_xor_sync(FULL_WARP, l.weight[i], 1);
    l.weight[i] += __shfl_xor_sync(FULL_WARP, l.weight[i], 2);
    int x = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4 + 8 * i, row = x / s.heads;
    if (row >= s.rows) continue;
    int64_t first = (int64_t)(s.first_head + x % s.heads) * a.d_head;
    float *z = row_at(a.z, s.row + row) + first, part_of_one = 1 / l.weight[i];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int column = 8 * n + 2 * part + k;
        if (column >= a.d_head) continue;
        z[column] = out[n][2 * i + k] * part_of_one;
        narrow_element(a.narrow, s.row + row, first + column, out[n][2 * i + k] * part_of_one);
      }
  }
}

template <int TYPE, int D, int WARPS>
static __device__ __forceinline__ void attend_span(const attend_args &a, tile<TYPE, D, WARPS> &t) {
  const span_of_rows &s = t.span;
  lane_queries l = queries_of(a, s);
  float out[D / 8][4];
#pragma unroll
  for (int n = 0; n < D / 8; n++) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0;
  int last = s.position + s.rows - 1, block = first_seen(s.position, a.window) / KV_BLOCK;
  /* What the warp's rows see, together; nothing where it has none. */
  int warp_row = (int)threadIdx.x / 32 * 16 / s.heads, warp_end = min(((int)threadIdx.x / 32 * 16 + 15) / s.heads, s.rows - 1);
  int sees_from = first_seen(s.position + warp_row, a.window), sees_to = warp_row < s.rows ? s.position + warp_end : -1;
  start_keys(a, t, keys_at(a, s.slot, block, s.kv_head));
  cut_queries(a, s, t);
  for (; block <= last / KV_BLOCK; block++) {
    int base = block * KV_BLOCK;
    bool sees = sees_from < base + KV_BLOCK && base <= sees_to;
    bool edge = base + KV_BLOCK - 1 > s.position || base < first_seen(last, a.window); /* some row does not see all of it */
    float scores[KV_BLOCK / 8][4], keep[2];
    copy_wait<0>();
    __syncthreads(); /* the keys are there, and nobody reads the values before them any more */
    start_values(a, t, keys_at(a, s.slot, block, s.kv_head));
    if (sees) {
      score_block(t, scores);
      finish_scores(a, base, l, scores);
      weigh_scores(l, scores, keep);
    }
    copy_wait<0>();
    if (edge && copied_odd(t)) atomicMax(&t.odd, block);
    __syncthreads(); /* the values are there, and nobody reads the keys any more */
    if (block < last / KV_BLOCK) start_keys(a, t, keys_at(a, s.slot, block + 1, s.kv_head));
    if (last < base + KV_BLOCK - 1) {
      clear_values(t, last + 1 - base);
      __syncthreads();
    }
    if (edge && t.odd == block) take_odd(l, base, t, out);
    if (sees) add_values(t, scores, keep, out);
  }
  put_rows<D>(a, s, l, out);
  __syncthreads(); /* before other rows' keys and values */
}

/* Grid: tiles of rows, the last first, since they see most; KV heads, by groups of query heads. */
template <int TYPE, int D, int WARPS, int BLOCKS> static __global__ void __launch_bounds__(WARPS * 32, BLOCKS) prompt_kernel(attend_args a) {
  typedef tile<TYPE, D, WARPS> tile;
  DYNAMIC_SHARED(uint4, memory);
  tile &t = *(tile *)(void *)memory;
  int group = a.n_head / a.n_kv_head, heads = min(group, (int)tile::QUERIES), parts = (group + heads - 1) / heads;
  int rows = tile::QUERIES / heads, row = (int)(gridDim.x - 1 - blockIdx.x) * rows;
  int kv_head = (int)blockIdx.y / parts, first = (int)blockIdx.y % parts * heads;
  grid_follow();
  int end = min(row + rows, a.table->n_rows);
  if (first + heads > group) heads = group - first;
  while (row < end) {
    int slot = a.table->slot[row];
    const step_slot &s = a.table->slots[slot];
    int next = min(s.rows.end, end);
    if (s.rows.end - s.rows.begin >= PROMPT_ROWS && s.first <= a.layer && a.layer < s.last) {
      if (threadIdx.x == 0) {
        span_of_rows span = {slot, row, next - row, s.position + row - s.rows.begin, heads, kv_head * group + first, kv_head};
        t.span = span;
        t.odd = -1;
      }
      __syncthreads();
      attend_span(a, t);
    }
    row = next;
  }
}

template <int TYPE, int D, int WARPS, int BLOCKS> static cudaError_t launch_tile(cudaStream_t stream, const bucket *bucket, const attend_args &args) {
  typedef tile<TYPE, D, WARPS> tile;
  static_assert(sizeof(tile) <= 99 << 10, "what a block may have everywhere from 8.0 on");
  int group = args.n_head / args.n_kv_head, heads = group < tile::QUERIES ? group : tile::QUERIES, rows = tile::QUERIES / heads;
  dim3 grid((unsigned)((bucket->rows + rows - 1) / rows), (unsigned)(args.n_kv_head * ((group + heads - 1) / heads)));
  cudaError_t status = cudaFuncSetAttribute(prompt_kernel<TYPE, D, WARPS, BLOCKS>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(tile));
  if (status != cudaSuccess) return status;
  return launch(prompt_kernel<TYPE, D, WARPS, BLOCKS>, args, grid, tile::THREADS, sizeof(tile), stream);
}

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, const bucket *bucket, const attend_args &args) {
  if (args.kv_width <= 64) return launch_tile<TYPE, 64, 4, 3>(stream, bucket, args);
  if (args.kv_width <= 128) return launch_tile<TYPE, 128, 4, 2>(stream, bucket, args);
  return launch_tile<TYPE, 256, 2, 2>(stream, bucket, args);
}

extern "C" cudaError_t launch_attend_prompt(cudaStream_t stream, const bucket *bucket, const attend_args *args) {
  if (args->kv_type == DTYPE_F16) return launch_type<DTYPE_F16>(stream, bucket, *args);
  return launch_type<DTYPE_BF16>(stream, bucket, *args);
}
