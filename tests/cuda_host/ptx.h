/* ptx.h: the instructions of core/math/cuda/ptx.cuh for the emulator (cuda_runtime.h): products of a warp on tensor cores, and
 * copies that are not waited for.
 *
 * Written from the PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "for mma.m16n8k8": with groupID =
 * laneid >> 2 and threadID_in_group = laneid % 4,
 *   .bf16, .f16  a(i), i = 0..7: row groupID for 0 <= i < 2 and 4 <= i < 6, else groupID + 8;
 *                          column threadID_in_group * 2 + (i & 1), and 8 more for i >= 4
 *          b(i), i = 0..3: row threadID_in_group * 2 + (i & 1), and 8 more for i >= 2; column groupID
 *   .tf32  a(i), i = 0..3: row groupID for i = 0 and 2, else groupID + 8; column threadID_in_group, and 4 more for i >= 2
 *          b(i), i = 0..1: row threadID_in_group, and 4 more for i = 1; column groupID
 *   c(i), i = 0..3: row groupID, and 8 more for i >= 2; column threadID_in_group * 2 + (i & 1)
 * Each element is put into whole matrices by these rules, and they are multiplied. */
#ifndef STEERD_TESTS_CUDA_HOST_PTX_H
#define STEERD_TESTS_CUDA_HOST_PTX_H

#define EMULATED_PTX

extern "C" {
#include "core/math/dtype.h"
}

namespace emulated {
struct fragment {
  unsigned a[4], b[2];
  float *d;
  bool f16; /* not bf16 */
};

/* Of four columns: of eight at once gcc 12 makes moves through memory. */
typedef double sums __attribute__((vector_size(32)));
typedef uint64_t bits __attribute__((vector_size(32)));
#define BITS_OF_F32 (~((1ull << 29) - 1)) /* of a double: those that 24 bits have room for */

/* Sums are added one by one in f32, and cut to 24 bits, as tensor cores do. They are held as doubles, in which a product of two
 * operands is exact and a cut is a mask; what is too large or too small for 24 bits of f32 is so in the end only. */
template <int K> struct matrices {
  float a[16][K];
  sums b[K][2];
  float *to[16][8];

  static UNWATCHED sums add(sums all, double a, sums b) { return (sums)((bits)(all + a * b) & BITS_OF_F32); }

  UNWATCHED void multiply_row(int row) const {
    float *const *d = to[row];
    sums left = {*d[0], *d[1], *d[2], *d[3]}, right = {*d[4], *d[5], *d[6], *d[7]};
    for (int k = 0; k < K; k++) {
      left = add(left, (double)a[row][k], b[k][0]);
      right = add(right, (double)a[row][k], b[k][1]);
    }
    for (int column = 0; column < 4; column++) {
      *d[column] = (float)left[column];
      *d[4 + column] = (float)right[column];
    }
  }

  UNWATCHED void multiply(const fragment *const lanes[32]) {
    for (int laneid = 0; laneid < 32; laneid++) {
      int group_id = laneid >> 2, thread_id_in_group = laneid % 4;
      for (int i = 0; i < 4; i++) {
        int row = i >= 2 ? group_id + 8 : group_id, column = thread_id_in_group * 2 + (i & 1);
        to[row][column] = &lanes[laneid]->d[i];
      }
    }
    for (int row = 0; row < 16; row++) multiply_row(row);
  }
};

static UNWATCHED float half_of(const unsigned *words, int i, bool f16) {
  unsigned short bits = (unsigned short)(words[i / 2] >> (i % 2 ? 16 : 0));
  return f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

static UNWATCHED void fill(matrices<16> &all, const fragment *const lanes[32]) {
  for (int laneid = 0; laneid < 32; laneid++) {
    int group_id = laneid >> 2, thread_id_in_group = laneid % 4;
    for (int i = 0; i < 8; i++) {
      int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group_id : group_id + 8;
      int column = i < 4 ? thread_id_in_group * 2 + (i & 1) : thread_id_in_group * 2 + (i & 1) + 8;
      all.a[row][column] = half_of(lanes[laneid]->a, i, lanes[laneid]->f16);
    }
    for (int i = 0; i < 4; i++) {
      int row = i < 2 ? thread_id_in_group * 2 + (i & 1) : thread_id_in_group * 2 + (i & 1) + 8;
      all.b[row][group_id / 4][group_id % 4] = half_of(lanes[laneid]->b, i, lanes[laneid]->f16);
    }
  }
}

/* The low 13 bits of an operand have to be 0: what becomes of others is not said. They are made NaN here. */
static UNWATCHED float tf32_of(unsigned bits) { return bits & 0x1FFF ? NAN : unpack<float>(bits); }

static UNWATCHED void fill(matrices<8> &all, const fragment *const lanes[32]) {
  for (int laneid = 0; laneid < 32; laneid++) {
    int group_id = laneid >> 2, thread_id_in_group = laneid % 4;
    for (int i = 0; i < 4; i++) {
      int row = i == 0 || i == 2 ? group_id : group_id + 8, column = i < 2 ? thread_id_in_group : thread_id_in_group + 4;
      all.a[row][column] = tf32_of(lanes[laneid]->a[i]);
    }
    for (int i = 0; i < 2; i++)
      all.b[i == 0 ? thread_id_in_group : thread_id_in_group + 4][group_id / 4][group_id % 4] = tf32_of(lanes[laneid]->b[i]);
  }
}

template <int K> void multiply_all(const uint64_t *at) {
  const fragment *lanes[32];
  matrices<K> all;
  for (int i = 0; i < 32; i++) lanes[i] = (const fragment *)(uintptr_t)at[i];
  fill(all, lanes);
  all.multiply(lanes);
}
template <int K> inline void multiply(const fragment &own, int line) {
  exchange(0xFFFFFFFFu, (uint64_t)(uintptr_t)&own, line, false, multiply_all<K>);
}
} // namespace emulated

static inline void mma_bf16(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                            LINE) {
  emulated::multiply<16>({{a0, a1, a2, a3}, {b0, b1}, d, false}, line);
}
static inline void mma_f16(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1, LINE) {
  emulated::multiply<16>({{a0, a1, a2, a3}, {b0, b1}, d, true}, line); /* the same places */
}
static inline void mma_tf32(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                            LINE) {
  emulated::multiply<8>({{a0, a1, a2, a3}, {b0, b1}, d, false}, line);
}

static inline unsigned pack_bf16(float low, float high) { return (unsigned)f32_to_bf16(high) << 16 | f32_to_bf16(low); }
static inline unsigned pack_f16(float low, float high) { return (unsigned)f32_to_f16(high) << 16 | f32_to_f16(low); }
static inline float power_of_2(float x) { return x < -126 ? 0 : exp2f(x); }

/* Copies that were started: the bytes come when they are waited for, and are NaN until then. */
static UNWATCHED void copy_put_off(void *to, const void *from, bool wanted) {
  if ((uintptr_t)to % 16) emulated::misaligned(to, 16);
  if ((uintptr_t)from % 16) emulated::misaligned(from, 16);
  memset(to, 0xFF, 16);
  emulated::here->copies.push_back({to, wanted ? from : nullptr, emulated::here->groups});
}
static inline void copy_start(void *to, const void *from, bool wanted) {
  emulated::copy_begins(to, wanted ? from : nullptr);
  copy_put_off(to, from, wanted);
}
static inline void copy_group() { emulated::here->groups++; }
/* The next of those that are to be done by now, done; false: there is none. */
static UNWATCHED bool copy_next(int groups, emulated::pending_copy *copy) {
  auto &copies = emulated::here->copies;
  if (copies.empty() || copies.front().group >= emulated::here->groups - groups) return false;
  *copy = copies.front();
  copies.pop_front();
  if (copy->from)
    memcpy(copy->to, copy->from, 16);
  else
    memset(copy->to, 0, 16);
  return true;
}
template <int N> static inline void copy_wait() {
  emulated::pending_copy copy;
  while (copy_next(N, &copy)) emulated::copy_ends(copy.to, copy.from);
}

#endif
