/* simd_avx2.h: `vf`, sixteen floats, in two AVX registers. The verbs are described in simd_avx512.h. */
#ifndef STEERD_CORE_MATH_CPU_SIMD_AVX2_H
#define STEERD_CORE_MATH_CPU_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define VF static inline __attribute__((always_inline))

typedef struct {
  __m256 low, high;
} vf;

VF vf vf_set1(float x) { return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
VF vf vf_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
VF void vf_store(float *p, vf a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
VF vf vf_add(vf a, vf b) { return (vf){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
VF vf vf_sub(vf a, vf b) { return (vf){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
VF vf vf_mul(vf a, vf b) { return (vf){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
VF vf vf_div(vf a, vf b) { return (vf){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
VF vf vf_fma(vf a, vf b, vf c) {
  return (vf){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
VF vf vf_sqrt(vf a) { return (vf){_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
VF float f_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); } /* one lane of vf_fma */
VF vf vf_max(vf a, vf b) { return (vf){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }

VF vf vf_where_less(vf a, vf b, vf x, vf y) {
  return (vf){_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
              _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}
VF uint32_t vf_mask_less(vf a, vf b) {
  return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)) |
         (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)) << 8;
}

/* Ones in the first n of sixteen lanes: two windows into a ramp of ones and zeroes. */
VF __m256i part_mask(int64_t n, int64_t from) {
  static const int32_t ramp[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256((const __m256i *)(const void *)(ramp + 16 - n + from));
}
VF vf vf_load_part(const float *p, int64_t n) {
  return (vf){_mm256_maskload_ps(p, part_mask(n, 0)), _mm256_maskload_ps(p + 8, part_mask(n, 8))};
}
VF void vf_store_part(float *p, vf a, int64_t n) {
  _mm256_maskstore_ps(p, part_mask(n, 0), a.low);
  _mm256_maskstore_ps(p + 8, part_mask(n, 8), a.high);
}

VF __m256 add_exponent8(__m256 a, __m256 bits) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(bits), 23)));
}
VF vf vf_add_exponent(vf a, vf bits) {
  return (vf){add_exponent8(a.low, bits.low), add_exponent8(a.high, bits.high)};
}

VF __m128i load_halves(const uint16_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
VF __m256 widen_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
VF vf vf_load_bf16(const uint16_t *p) {
  return (vf){widen_bf16(load_halves(p)), widen_bf16(load_halves(p + 8))};
}
VF vf vf_load_f16(const uint16_t *p) {
  return (vf){_mm256_cvtph_ps(load_halves(p)), _mm256_cvtph_ps(load_halves(p + 8))};
}

VF __m256 widen_i8(const int8_t *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
VF vf vf_load_i8(const int8_t *p) { return (vf){widen_i8(p), widen_i8(p + 8)}; }

VF __m256 vf_low(vf a) { return a.low; }
VF __m256 vf_high(vf a) { return a.high; }

#include "core/math/cpu/simd_fold8.h"
#include "core/math/cpu/simd_keep.h"

#endif
