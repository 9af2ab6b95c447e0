/* simd_fold8.h: sums and maxima over lanes, from eight lanes down, by one fixed tree: lane i meets lane i + 8,
 * then i + 4, i + 2, i + 1. Included by the x86 simd headers behind vf_low and vf_high. */
VF float fold_sum4(__m128 a) {
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}

VF float fold_max4(__m128 a) {
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}

VF float vf_sum(vf a) {
  __m256 half = _mm256_add_ps(vf_low(a), vf_high(a));
  return fold_sum4(_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

VF float vf_largest(vf a) {
  __m256 half = _mm256_max_ps(vf_low(a), vf_high(a));
  return fold_max4(_mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
