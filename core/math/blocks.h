/* blocks.h: DTYPE_Q8, matrices kept in 8 bits: of each output, Q8_INPUTS inputs that follow each other share a scale in f16, and a weight
 * is a whole number of it from -127 to 127. What a weight then is, number times scale, has no more bits than an f32: a product with
 * such a matrix has the bits of one with a matrix of F32 that holds these values. */
#ifndef STEERD_CORE_MATH_BLOCKS_H
#define STEERD_CORE_MATH_BLOCKS_H

#include "core/math/dtype.h"

#define Q8_INPUTS 32
#define Q8_MOST 127

/* The scale of weights [n], n <= Q8_INPUTS, in f16: the largest has the number 127. One that is not finite leaves no number in its block:
 * the scale is NaN. */
static inline uint16_t q8_scale(const float *weights, int n) {
  int32_t bits, largest = 0; /* without their sign the bits of floats ascend as they do, to infinity and NaN */
  float most;
  for (int i = 0; i < n; i++) {
    memcpy(&bits, &weights[i], sizeof bits);
    bits &= 0x7FFFFFFF;
    largest = bits > largest ? bits : largest;
  }
  memcpy(&most, &largest, sizeof most);
  return largest < 0x7F800000 ? f32_to_f16(most / Q8_MOST) : 0x7E00;
}

/* Nearest, ties to even. scale as f16_to_f32 gives it. */
static inline int8_t q8_number(float weight, float scale) {
  const float whole = 0x1.8p23f; /* beside it an f32 has no room for fractions: rintf, but vectors have it */
  float number = scale > 0 ? weight / scale : 0;
  number = number > Q8_MOST ? Q8_MOST : number < -Q8_MOST ? -Q8_MOST : number;
  return (int8_t)(int)(number + whole - whole);
}

/* Weights of one output that begin at a multiple of Q8_INPUTS become what they are when they are kept so. */
static inline void q8_round(float *weights, int64_t n) {
  for (int64_t i = 0; i < n; i += Q8_INPUTS) {
    int count = n - i < Q8_INPUTS ? (int)(n - i) : Q8_INPUTS;
    float scale = f16_to_f32(q8_scale(weights + i, count));
    for (int k = 0; k < count; k++) weights[i + k] = (float)q8_number(weights[i + k], scale) * scale;
  }
}

#endif
