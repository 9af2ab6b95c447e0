/* types.cuh: the types that weights, keys and values are kept in, and f32: pieces of 16 bytes widened, values rounded. */
#ifndef STEERD_CORE_MATH_CUDA_TYPES_CUH
#define STEERD_CORE_MATH_CUDA_TYPES_CUH

#include "core/math/cuda/device.cuh"

/* Piece `at` of an array at a multiple of 16 bytes, as n values of f32. */
template <int TYPE> struct piece;
template <> struct piece<DTYPE_F32> {
  static const int n = 4;
  static __device__ __forceinline__ void widen(const void *w, int64_t at, float out[8]) {
    float4 v = ((const float4 *)w)[at];
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
  }
};
template <> struct piece<DTYPE_BF16> {
  static const int n = 8;
  static __device__ __forceinline__ void widen(const void *w, int64_t at, float out[8]) {
    uint4 v = ((const uint4 *)w)[at];
    unsigned pair[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) {
      out[2 * i] = __uint_as_float(pair[i] << 16);
      out[2 * i + 1] = __uint_as_float(pair[i] & 0xFFFF0000u);
    }
  }
};
template <> struct piece<DTYPE_F16> {
  static const int n = 8;
  static __device__ __forceinline__ void widen(const void *w, int64_t at, float out[8]) {
    uint4 v = ((const uint4 *)w)[at];
    unsigned pair[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) {
      out[2 * i] = __half2float(__ushort_as_half((unsigned short)(pair[i] & 0xFFFF)));
      out[2 * i + 1] = __half2float(__ushort_as_half((unsigned short)(pair[i] >> 16)));
    }
  }
};

/* To nearest, ties to even; f16 ends at 65504, as where weights are kept (dtype.h). */
static __device__ __forceinline__ unsigned short bf16_bits(float value) {
  unsigned bits = __float_as_uint(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return (unsigned short)(bits >> 16 | 0x40);
  return (unsigned short)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
static __device__ __forceinline__ unsigned short f16_bits(float value) {
  unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000;
  bits &= 0x7FFFFFFF;
  if (bits > 0x7F800000) return (unsigned short)(sign | 0x7E00);
  if (bits >= 0x477FE000) return (unsigned short)(sign | 0x7BFF);
  if (bits < 0x38800000) return (unsigned short)(sign | (__float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3F000000));
  return (unsigned short)(sign | (bits - 0x38000000 + 0xFFF + (bits >> 13 & 1)) >> 13);
}

static __device__ __forceinline__ void narrow_element(const narrow_rows &to, int64_t row, int64_t i, float value) {
  if (to.at) ((unsigned short *)to.at)[row * to.ld + i] = to.dtype == DTYPE_F16 ? f16_bits(value) : bf16_bits(value);
}

#endif
