/* dtype.h: element types of tensors in files and in memory, and conversions to f32 and back. */
#ifndef STEERD_CORE_MATH_DTYPE_H
#define STEERD_CORE_MATH_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype {
  DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_I8, DTYPE_U8, DTYPE_I16, DTYPE_U16,
  DTYPE_I32, DTYPE_U32, DTYPE_I64, DTYPE_U64, DTYPE_BOOL, DTYPE_OTHER, /* known name, not computed with */
  DTYPE_Q8,                                     /* matrices in memory alone (blocks.h), in no file */
  DTYPE_COUNT
};

size_t dtype_size(enum dtype dtype);      /* bytes of one element; 0 for DTYPE_Q8 and DTYPE_OTHER */
const char *dtype_name(enum dtype dtype); /* "F32", "BF16", ... as safetensors spells them */

static inline float bf16_to_f32(uint16_t h) {
  uint32_t bits = (uint32_t)h << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/* IEEE binary16 to binary32, subnormals, infinities and NaN included. */
static inline float f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 0x1F, fraction = h & 0x3FF, bits;
  float value;
  if (exponent == 0x1F) {
    bits = sign | 0x7F800000 | fraction << 13;
  } else if (exponent) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else {
    value = (float)fraction * 0x1p-24f; /* subnormal: exact in f32 */
    return sign ? -value : value;
  }
  memcpy(&value, &bits, 4);
  return value;
}

/* To nearest, ties to even. f16 ends at 65504: what is larger becomes that. */
static inline uint16_t f32_to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40); /* NaN stays NaN */
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t f32_to_f16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7FFFFFFF;
  if (bits > 0x7F800000) return (uint16_t)(sign | 0x7E00);
  if (bits >= 0x477FE000) return (uint16_t)(sign | 0x7BFF); /* 65504 and above */
  if (bits < 0x38800000) {                                  /* subnormal: a whole number of 2^-24 */
    float magnitude, shifted;
    uint32_t whole;
    memcpy(&magnitude, &bits, 4);
    shifted = magnitude + 0.5f; /* the last bit of an f32 in [0.5, 1) is 2^-24: the addition rounds */
    memcpy(&whole, &shifted, 4);
    return (uint16_t)(sign | (whole - 0x3F000000));
  }
  return (uint16_t)(sign | (bits - 0x38000000 + 0xFFF + (bits >> 13 & 1)) >> 13);
}

/* The value that a weight has when it is kept as F32, F16 or BF16. */
static inline float dtype_round(float value, enum dtype dtype) {
  return dtype == DTYPE_F16 ? f16_to_f32(f32_to_f16(value)) : dtype == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(value)) : value;
}

/* Element i of data (which need not be aligned) as f32. Integer and f64 types are rounded. */
float dtype_f32_at(const void *data, enum dtype dtype, size_t i);

/* out[0..count) = data[i * stride], i = 0..count-1, as f32; stride in elements. */
void dtype_to_f32(const void *data, enum dtype dtype, size_t stride, size_t count, float *out);

#endif
