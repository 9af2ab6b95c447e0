/* cache.cuh: where rows stand in their texts, and how keys and values lie in a block of the cache.
 *
 * A block holds, for each KV head, the keys of 64 positions, then their values, in pieces of 16 bytes of N elements (4 of f32, 8 of
 * a half): a piece of a key is N of its dimensions, keys [width / N][64][N]; a piece of a value is one dimension at N positions,
 * values [64 / N][width][N]. So the threads of a warp that own positions, or dimensions, read pieces that lie side by side. width
 * is d_head rounded up to whole pieces; keys are 0 beyond d_head. What is beyond the last position of a text is garbage of whoever had
 * the block before, NaN included. */
#ifndef STEERD_CORE_MATH_CUDA_CACHE_CUH
#define STEERD_CORE_MATH_CUDA_CACHE_CUH

#include "core/math/cuda/types.cuh"

static __device__ __forceinline__ int position_of(const table *t, int row, int *slot) {
  *slot = t->slot[row];
  const step_slot &s = t->slots[*slot];
  return s.position + row - s.rows.begin;
}

static __device__ __forceinline__ bool runs_layer(const table *t, int row, int layer) {
  const step_slot &s = t->slots[t->slot[row]];
  return s.first <= layer && layer < s.last;
}

static __device__ __forceinline__ int first_seen(int position, int window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

/* The keys of a block of positions of a KV head; the values are KV_BLOCK * width elements further on. */
static __device__ __forceinline__ unsigned char *head_at(const attend_args &a, unsigned char *pool, int64_t number, int kv_head) {
  return pool + number * (int64_t)a.block_bytes + kv_head * (2 * KV_BLOCK * a.kv_width * (int64_t)a.kv_element);
}
static __device__ __forceinline__ unsigned char *keys_at(const attend_args &a, int slot, int block, int kv_head) {
  const table *t = a.table;
  const table_pages &pages = t->pages[slot];
  return head_at(a, t->kv, pages.block[(int64_t)a.layer * pages.stride + block], kv_head);
}

/* Elements of `place` (position % KV_BLOCK), dimension i, counted from the keys of the block. */
static __device__ __forceinline__ int key_element(const attend_args &a, int place, int i) {
  int bits = a.kv_element == 2 ? 3 : 2; /* of N */
  return ((i >> bits) * KV_BLOCK + place) * (1 << bits) + (i & ((1 << bits) - 1));
}
static __device__ __forceinline__ int value_element(const attend_args &a, int place, int i) {
  int bits = a.kv_element == 2 ? 3 : 2;
  return KV_BLOCK * a.kv_width + ((place >> bits) * a.kv_width + i) * (1 << bits) + (place & ((1 << bits) - 1));
}

static __device__ __forceinline__ void keep_element(const attend_args &a, unsigned char *head, int at, float value) {
  if (a.kv_type == DTYPE_F32)
    ((float *)head)[at] = value;
  else
    ((unsigned short *)head)[at] = a.kv_type == DTYPE_F16 ? f16_bits(value) : bf16_bits(value);
}

static __device__ __forceinline__ float kept_element(const attend_args &a, const unsigned char *head, int at) {
  if (a.kv_type == DTYPE_F32) return ((const float *)head)[at];
  unsigned short bits = ((const unsigned short *)head)[at];
  return a.kv_type == DTYPE_F16 ? __half2float(__ushort_as_half(bits)) : bf16_value(bits);
}

#endif
