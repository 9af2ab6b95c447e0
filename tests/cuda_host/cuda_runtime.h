/* cuda_runtime.h: the device side of the emulator of the tests (cuda_runtime_api.h): what a kernel sees.
 *
 * Each thread of a block is a fiber; the fibers of a block run one after the other on the calling thread and change hands
 * only where a kernel waits: at __syncthreads and at the warp's exchanges. A block whose threads do not all come to the
 * same place ends the program with the kernel's name, as does a warp whose named lanes do not. Blocks run one after the
 * other, in order. */
#ifndef STEERD_TESTS_CUDA_HOST_CUDA_RUNTIME_H
#define STEERD_TESTS_CUDA_HOST_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

struct int2 {
  int x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint4 {
  unsigned x, y, z, w;
};

struct cudaLaunchConfig_t;

namespace emulated {
struct place {
  dim3 thread;
  bool followed; /* it has waited for the grid before */
};
extern place *here;
extern dim3 block_index, block_size, grid_size;
extern unsigned char *dynamic_shared;
void wait_block();
/* Gives `bits` to the lanes of the mask; the result is what each lane gave, until this lane's next exchange. */
const uint64_t *exchange(unsigned mask, uint64_t bits);
int lane();
cudaError_t launch(const char *name, std::function<void()> thread, const cudaLaunchConfig_t *config);

template <class T> inline uint64_t pack(T value) {
  uint64_t bits = 0;
  static_assert(sizeof value <= sizeof bits, "at most 8 bytes change hands");
  memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T> inline T unpack(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
} // namespace emulated

#define threadIdx (emulated::here->thread)
#define blockIdx (emulated::block_index)
inline dim3 &blockDim = emulated::block_size, &gridDim = emulated::grid_size; /* a launch has members of these names */
#define DYNAMIC_SHARED(type, name) type *name = (type *)(void *)emulated::dynamic_shared

static inline void __syncthreads() { emulated::wait_block(); }
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
  emulated::exchange(mask, 0);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int with) {
  const uint64_t *all = emulated::exchange(mask, emulated::pack(value));
  return emulated::unpack<T>(all[emulated::lane() ^ with]);
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int from) {
  const uint64_t *all = emulated::exchange(mask, emulated::pack(value));
  return emulated::unpack<T>(all[from & 31]);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  const uint64_t *all = emulated::exchange(mask, emulated::pack(value));
  int from = emulated::lane() - (int)by;
  return emulated::unpack<T>(all[from < 0 ? emulated::lane() : from]);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned result = 0;
  const uint64_t *all = emulated::exchange(mask, predicate != 0);
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1) result |= (unsigned)all[i] << i;
  return result;
}
static inline int __ffs(int bits) { return __builtin_ffs(bits); }
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
/* Where a grid waits for the one before: grids run one after the other here, so it is only noted that every thread asks. */
static inline void cudaGridDependencySynchronize() { emulated::here->followed = true; }
static inline void cudaTriggerProgrammaticLaunchCompletion() {}
static inline float __uint_as_float(unsigned bits) { return emulated::unpack<float>(bits); }
static inline unsigned __float_as_uint(float value) { return (unsigned)emulated::pack(value); }
template <class T> static inline T atomicAdd(T *at, T value) {
  T was = *at;
  *at = was + value;
  return was;
}
template <class T> static inline T __ldg(const T *at) { return *at; }
template <class T> static inline T __ldcg(const T *at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

typedef enum { cudaLaunchAttributeProgrammaticStreamSerialization = 6 } cudaLaunchAttributeID;
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute *attrs;
  unsigned numAttrs;
};

/* The arguments are copied now, as CUDA does: a graph replays the copies. */
template <class A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(A), const A &args) {
  A copy = args;
  return emulated::launch(__PRETTY_FUNCTION__, [=]() { kernel(copy); }, config);
}

#endif
