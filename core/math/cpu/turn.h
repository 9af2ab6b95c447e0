/* turn.h: squares of numbers turned, four by four: what packing weights and storing keys have in common. For every machine's
 * baseline. */
#ifndef STEERD_CORE_MATH_CPU_TURN_H
#define STEERD_CORE_MATH_CPU_TURN_H

#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* to[j * to_ld + i] = from[i * from_ld + j] for i, j < 4. Neither need be aligned. */
static inline void turn_4x4(const float *from, size_t from_ld, float *to, size_t to_ld) {
#if defined(__SSE2__)
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_ld);
  __m128 c = _mm_loadu_ps(from + 2 * from_ld), d = _mm_loadu_ps(from + 3 * from_ld);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_ld, b);
  _mm_storeu_ps(to + 2 * to_ld, c);
  _mm_storeu_ps(to + 3 * to_ld, d);
#else
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) to[(size_t)j * to_ld + (size_t)i] = from[(size_t)i * from_ld + (size_t)j];
#endif
}

/* to[j * to_ld + i] = from[i * from_ld + j] for i < rows, j < columns. Rows come from far off as a rule, so those that follow are
 * asked for meanwhile. */
static inline void turn_rows(const float *from, int64_t from_ld, int rows, int columns, float *to, int64_t to_ld) {
  int i = 0;
  for (; i + 4 <= rows; i += 4) {
    int j = 0;
    for (; j + 4 <= columns; j += 4) {
      if (i + 8 <= rows) __builtin_prefetch(from + (i + 4 + j / 4 % 4) * from_ld + j / 16 * 16, 0, 3);
      turn_4x4(from + i * from_ld + j, (size_t)from_ld, to + j * to_ld + i, (size_t)to_ld);
    }
    for (; j < columns; j++)
      for (int r = i; r < i + 4; r++) to[j * to_ld + r] = from[r * from_ld + j];
  }
  for (; i < rows; i++)
    for (int j = 0; j < columns; j++) to[j * to_ld + i] = from[i * from_ld + j];
}

#endif
