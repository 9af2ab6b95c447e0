/* cuda_fp16.h: binary16 of the emulator (cuda_runtime_api.h): the three conversions that core/math/cuda uses. */
#ifndef STEERD_TESTS_CUDA_HOST_CUDA_FP16_H
#define STEERD_TESTS_CUDA_HOST_CUDA_FP16_H

extern "C" {
#include "core/math/dtype.h"
}

struct __half {
  unsigned short bits;
};
static inline __half __ushort_as_half(unsigned short bits) { return __half{bits}; }
static inline float __half2float(__half h) { return f16_to_f32(h.bits); }

#endif
