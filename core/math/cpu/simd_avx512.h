/* simd_avx512.h: `vf`, sixteen floats, in one AVX-512 register.
 *
 * The three simd_*.h give the same verbs, so that a kernel is written once (*.inc.h) and compiled for each
 * instruction set. AVX2 and AVX-512 give the same bits; the generic one rounds twice in vf_fma. */
#ifndef STEERD_CORE_MATH_CPU_SIMD_AVX512_H
#define STEERD_CORE_MATH_CPU_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define VF static inline __attribute__((always_inline))

typedef __m512 vf;

VF vf vf_set1(float x) { return _mm512_set1_ps(x); }
VF vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
VF void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
VF vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
VF vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
VF vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
VF vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
VF vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); } /* a b + c */
VF vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
VF float f_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); } /* one lane of vf_fma */
VF vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }            /* a > b ? a : b */

/* Lane by lane a < b ? x : y; false where either is NaN. */
VF vf vf_where_less(vf a, vf b, vf x, vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
VF uint32_t vf_mask_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }

/* Lanes [0, n) of memory, zero above; nothing beyond is touched. 0 <= n <= 16. */
VF vf vf_load_part(const float *p, int64_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
VF void vf_store_part(float *p, vf a, int64_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }

/* Adds the low nine bits of `bits` to the exponent of a: a * 2^n where bits holds n (math.inc.h). */
VF vf vf_add_exponent(vf a, vf bits) {
  __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(bits), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), shifted));
}

VF vf vf_load_bf16(const uint16_t *p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
VF vf vf_load_f16(const uint16_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

VF vf vf_load_i8(const int8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

/* Lanes 0..7 and 8..15. */
typedef __m256 vf8;
VF vf8 vf_low(vf a) { return _mm512_castps512_ps256(a); }
VF vf8 vf_high(vf a) { return _mm512_extractf32x8_ps(a, 1); }

#include "core/math/cpu/simd_fold8.h"

/* Writes the lanes of a whose bit in mask is set, one after the other; up to 16 elements may be written. Returns how many
 * count. */
VF int vf_pack(vf a, uint32_t mask, float *value) {
  _mm512_storeu_ps(value, _mm512_maskz_compress_ps((__mmask16)mask, a));
  return __builtin_popcount(mask);
}

/* The same, and base + lane beside them. */
VF int vf_keep(vf a, uint32_t mask, int32_t base, float *value, int32_t *index) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i number = _mm512_add_epi32(_mm512_set1_epi32(base), lane);
  _mm512_storeu_si512(index, _mm512_maskz_compress_epi32((__mmask16)mask, number));
  return vf_pack(a, mask, value);
}

#endif
