/* simd_generic.h: `vf`, sixteen floats, in four short vectors that every machine of today has, written with the
 * compilers' vector extension. The verbs are described in simd_avx512.h. vf_fma rounds the product: hardware
 * that cannot fuse would take a library call an element. */
#ifndef STEERD_CORE_MATH_CPU_SIMD_GENERIC_H
#define STEERD_CORE_MATH_CPU_SIMD_GENERIC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/math/dtype.h"

#define VF static inline __attribute__((always_inline))

typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef struct {
  v4 q[4];
} vf;

#define EACH(expression) ((vf){{(expression(0)), (expression(1)), (expression(2)), (expression(3))}})

VF v4 v4_load(const float *p) {
  v4 a;
  memcpy(&a, p, sizeof a);
  return a;
}
VF vf vf_set1(float x) {
  v4 a = {x, x, x, x};
  return (vf){{a, a, a, a}};
}
VF vf vf_load(const float *p) {
#define ONE(i) v4_load(p + 4 * (i))
  return EACH(ONE);
#undef ONE
}
VF void vf_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
#define ONE(i) a.q[i] + b.q[i]
VF vf vf_add(vf a, vf b) { return EACH(ONE); }
#undef ONE
#define ONE(i) a.q[i] - b.q[i]
VF vf vf_sub(vf a, vf b) { return EACH(ONE); }
#undef ONE
#define ONE(i) a.q[i] * b.q[i]
VF vf vf_mul(vf a, vf b) { return EACH(ONE); }
#undef ONE
#define ONE(i) a.q[i] / b.q[i]
VF vf vf_div(vf a, vf b) { return EACH(ONE); }
#undef ONE
#define ONE(i) a.q[i] * b.q[i] + c.q[i]
VF vf vf_fma(vf a, vf b, vf c) { return EACH(ONE); }
#undef ONE

VF vf vf_sqrt(vf a) {
  for (int i = 0; i < 16; i++) a.q[i / 4][i % 4] = sqrtf(a.q[i / 4][i % 4]);
  return a;
}

VF float f_fma(float a, float b, float c) { return a * b + c; }

VF v4 v4_where(i4 mask, v4 x, v4 y) { return (v4)((mask & (i4)x) | (~mask & (i4)y)); }
#define ONE(i) v4_where(a.q[i] < b.q[i], x.q[i], y.q[i])
VF vf vf_where_less(vf a, vf b, vf x, vf y) { return EACH(ONE); }
#undef ONE
#define ONE(i) v4_where(a.q[i] > b.q[i], a.q[i], b.q[i])
VF vf vf_max(vf a, vf b) { return EACH(ONE); }
#undef ONE

VF uint32_t vf_mask_less(vf a, vf b) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; i++) mask |= (uint32_t)(a.q[i / 4][i % 4] < b.q[i / 4][i % 4]) << i;
  return mask;
}

VF vf vf_load_part(const float *p, int64_t n) {
  float lane[16] = {0};
  memcpy(lane, p, (size_t)n * sizeof *p);
  return vf_load(lane);
}
VF void vf_store_part(float *p, vf a, int64_t n) { memcpy(p, &a, (size_t)n * sizeof *p); }

#define ONE(i) (v4)((i4)a.q[i] + ((i4)bits.q[i] << 23))
VF vf vf_add_exponent(vf a, vf bits) { return EACH(ONE); }
#undef ONE

VF vf vf_load_bf16(const uint16_t *p) {
  float lane[16];
  for (int i = 0; i < 16; i++) lane[i] = bf16_to_f32(p[i]);
  return vf_load(lane);
}
VF vf vf_load_i8(const int8_t *p) {
  float lane[16];
  for (int i = 0; i < 16; i++) lane[i] = p[i];
  return vf_load(lane);
}
VF vf vf_load_f16(const uint16_t *p) {
  float lane[16];
  for (int i = 0; i < 16; i++) lane[i] = f16_to_f32(p[i]);
  return vf_load(lane);
}

/* The same trees as simd_fold8.h. */
VF float vf_sum(vf a) {
  v4 b = (a.q[0] + a.q[2]) + (a.q[1] + a.q[3]);
  return (b[0] + b[2]) + (b[1] + b[3]);
}
VF float vf_largest(vf a) {
  vf b = vf_max((vf){{a.q[0], a.q[1], a.q[0], a.q[1]}}, (vf){{a.q[2], a.q[3], a.q[2], a.q[3]}});
  float largest = b.q[0][0];
  for (int i = 1; i < 8; i++) largest = b.q[i / 4][i % 4] > largest ? b.q[i / 4][i % 4] : largest;
  return largest;
}

#include "core/math/cpu/simd_keep.h"

#endif
