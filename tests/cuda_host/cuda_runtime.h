/* cuda_runtime.h: the device side of the emulator of the tests (cuda_runtime_api.h): what a kernel sees.
 *
 * Each thread of a block is a fiber; the fibers of a block run one after the other on the calling thread and change hands
 * only where a kernel waits: at __syncthreads and at the warp's exchanges. A block whose threads do not all come to the
 * same place ends the program with the kernel's name, as does a warp whose named lanes do not. Blocks run one after the
 * other; their order, and that of warps and lanes, is another one each time (blocks.cpp). */
#ifndef STEERD_TESTS_CUDA_HOST_CUDA_RUNTIME_H
#define STEERD_TESTS_CUDA_HOST_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <deque>
#include <functional>

#include "cuda_runtime_api.h"
#include "races.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
/* In a section of their own: every block finds them full of NaN. */
#define __shared__ static __attribute__((section("emulated_shared")))
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

/* As aligned as the device wants them: the sanitizer ends a program that reads one from another place. */
struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return float2{x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }

struct cudaLaunchConfig_t;

namespace emulated {
struct pending_copy {
  void *to;
  const void *from; /* NULL: zeros */
  int group;
};
struct place {
  dim3 thread;
  bool followed; /* it has waited for the grid before */
  std::deque<pending_copy> copies; /* started and not waited for */
  int groups;
};
extern place *here;
extern dim3 block_index, block_size, grid_size;
extern unsigned char *dynamic_shared;
/* line: of the caller; threads that wait at different lines wait in a way that a device need not understand. */
void wait_block(int line);
/* Gives `bits` to the lanes of the mask; the result is what each lane gave, until this lane's next exchange. `orders`: what
 * the lanes did to memory before is seen by them behind it, which shuffles and votes do not promise. `work`: what the last lane to
 * come does for all with what they gave, before any of them goes on; or NULL. */
const uint64_t *exchange(unsigned mask, uint64_t bits, int line, bool orders = false, void (*work)(const uint64_t *) = nullptr);
void wait_grid();
void misaligned(const void *at, size_t bytes);
int lane();
/* kernel: whose attributes hold. */
cudaError_t launch(const char *name, const void *kernel, std::function<void()> thread, const cudaLaunchConfig_t *config, const void *args, size_t bytes);
cudaError_t set_attribute(const void *kernel, cudaFuncAttribute attribute, int value);

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

#define __builtin_assume(what) ((void)0)
#define LINE int line = __builtin_LINE()
static inline void __syncthreads(LINE) { emulated::wait_block(line); }
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, LINE) { emulated::exchange(mask, 0, line, true); }
/* A lane that is not named gives nothing: what is read of it is undefined, here NaN or a number nobody means. */
template <class T> static inline T from_lane(unsigned mask, const uint64_t *all, int from) {
  return emulated::unpack<T>(mask >> (from & 31) & 1 ? all[from & 31] : ~(uint64_t)0);
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int from, int width = 32, LINE) {
  const uint64_t *all = emulated::exchange(mask, emulated::pack(value), line);
  return from_lane<T>(mask, all, (emulated::lane() & ~(width - 1)) + (from & (width - 1)));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, LINE) {
  const uint64_t *all = emulated::exchange(mask, emulated::pack(value), line);
  int from = emulated::lane() ^ with;
  return from_lane<T>(mask, all, from >= (emulated::lane() & ~(width - 1)) + width ? emulated::lane() : from);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, LINE) {
  const uint64_t *all = emulated::exchange(mask, emulated::pack(value), line);
  int from = emulated::lane() - (int)by;
  return from_lane<T>(mask, all, from < (emulated::lane() & ~(width - 1)) ? emulated::lane() : from);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, LINE) {
  const uint64_t *all = emulated::exchange(mask, emulated::pack(value), line);
  int from = emulated::lane() + (int)by;
  return from_lane<T>(mask, all, from >= (emulated::lane() & ~(width - 1)) + width ? emulated::lane() : from);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, LINE) {
  unsigned result = 0;
  const uint64_t *all = emulated::exchange(mask, predicate != 0, line);
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1) result |= (unsigned)all[i] << i;
  return result;
}
static inline int __any_sync(unsigned mask, int predicate, LINE) { return __ballot_sync(mask, predicate, line) != 0; }
static inline int __all_sync(unsigned mask, int predicate, LINE) { return __ballot_sync(mask, predicate, line) == mask; }
static inline unsigned __activemask() { return 0xFFFFFFFFu; }
/* Fibers of one thread see each other's writes at once. */
static inline void __threadfence() { emulated::fence_passed(); }
static inline int __ffs(int bits) { return __builtin_ffs(bits); }
/* Byte i of the result is byte (selector >> 4 i & 7) of b and a, a the lower four. */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  uint64_t bytes = (uint64_t)b << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) result |= (unsigned)(bytes >> 8 * (selector >> 4 * i & 7) & 0xFF) << 8 * i;
  return result;
}
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
/* Where a grid waits for the one before: some blocks come here while that one has not begun, and every thread has to. */
static inline void cudaGridDependencySynchronize() { emulated::wait_grid(); }
static inline void cudaTriggerProgrammaticLaunchCompletion() {}
static inline float __uint_as_float(unsigned bits) { return emulated::unpack<float>(bits); }
static inline unsigned __float_as_uint(float value) { return (unsigned)emulated::pack(value); }
namespace emulated {
template <class T> UNWATCHED T peek(const T *at) { return *at; }
template <class T> UNWATCHED void poke(T *at, T value) { *at = value; }
/* One step for all other threads: *at becomes what `next` makes of it. */
template <class T, class F> static inline T change(T *at, F next) {
  accessed_atomically(at, sizeof *at);
  T was = peek(at);
  poke(at, next(was));
  return was;
}
} // namespace emulated
template <class T> static inline T atomicAdd(T *at, T value) {
  return emulated::change(at, [=](T was) { return was + value; });
}
template <class T> static inline T atomicExch(T *at, T value) {
  return emulated::change(at, [=](T) { return value; });
}
template <class T> static inline T atomicMax(T *at, T value) {
  return emulated::change(at, [=](T was) { return was < value ? value : was; });
}
template <class T> static inline T atomicMin(T *at, T value) {
  return emulated::change(at, [=](T was) { return value < was ? value : was; });
}
template <class T> static inline T atomicOr(T *at, T value) {
  return emulated::change(at, [=](T was) { return was | value; });
}
template <class T> static inline T atomicCAS(T *at, T expected, T value) {
  return emulated::change(at, [=](T was) { return was == expected ? value : was; });
}
static inline int __clz(int bits) { return bits ? __builtin_clz((unsigned)bits) : 32; }
static inline float __fdividef(float x, float y) { return x / y; }
template <class T> static inline T __ldg(const T *at) { return *at; }
/* As the device reads it: one piece from a multiple of its size. */
template <class T> static inline T __ldcg(const T *at) {
  T value;
  if ((uintptr_t)at % sizeof value) emulated::misaligned(at, sizeof value);
  emulated::was_read(at, sizeof value);
  memcpy(&value, at, sizeof value);
  return value;
}
template <class T> static inline T __ldcs(const T *at) { return __ldcg(at); }
template <class T> static inline void __stcg(T *at, T value) { *at = value; }
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

template <class A>
static inline cudaError_t cudaFuncSetAttribute(void (*kernel)(A), cudaFuncAttribute attribute, int value) {
  return emulated::set_attribute((const void *)kernel, attribute, value);
}

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
  static_assert(sizeof(A) <= 32764, "arguments of a kernel");
  A copy = args;
  return emulated::launch(__PRETTY_FUNCTION__, (const void *)kernel, [=]() { kernel(copy); }, config, &args, sizeof args);
}

#include "ptx.h"

#endif
