/* dtype.h: element types of tensors in files and in memory, and conversions to f32. */
#ifndef STEERD_CORE_MATH_DTYPE_H
#define STEERD_CORE_MATH_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype {
  DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_I8, DTYPE_U8, DTYPE_I16, DTYPE_U16,
  DTYPE_I32, DTYPE_U32, DTYPE_I64, DTYPE_U64, DTYPE_BOOL, DTYPE_OTHER, /* known name, not computed with */
  DTYPE_COUNT
};

size_t dtype_size(enum dtype dtype);      /* bytes of one element; 0 for DTYPE_OTHER */
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

/* Element i of data (which need not be aligned) as f32. Integer and f64 types are rounded. */
float dtype_f32_at(const void *data, enum dtype dtype, size_t i);

/* out[0..count) = data[i * stride], i = 0..count-1, as f32; stride in elements. */
void dtype_to_f32(const void *data, enum dtype dtype, size_t stride, size_t count, float *out);

#endif
