/* machine.h: what the instructions of PTX do, for the C++ that translate.py makes of kernels: small functions over plain numbers.
 *
 * Written from the PTX ISA. Where it leaves a range (approximations), the result is at some place of that range that follows from the
 * operands alone, so that nothing comes to rest on what one device happens to do. Memory is that of tests/cuda_host; each access has
 * to be a multiple of its size and to lie whole in memory that there is, or the program ends with the line of the PTX.
 *
 * An address of shared memory is a number below SHARED_MOST; a generic address of it has SHARED_WINDOW on top, which no pointer has. */
#ifndef STEERD_TESTS_CUDA_PTX_MACHINE_H
#define STEERD_TESTS_CUDA_PTX_MACHINE_H

#include <limits>
#include <type_traits>

#include "tests/cuda_host/emulator.h"

#if defined(EMULATED_RACES)
extern "C" {
void __tsan_read1(void *);
void __tsan_read2(void *);
void __tsan_read4(void *);
void __tsan_read8(void *);
void __tsan_write1(void *);
void __tsan_write2(void *);
void __tsan_write4(void *);
void __tsan_write8(void *);
}
#endif

namespace ptx {

#define SHARED_BEGIN 1024u /* what lies below is the driver's */
#define SHARED_WINDOW ((uint64_t)0x5A << 56)
#define NO_NUMBER 0x7FFFFFFFu /* the NaN that instructions of f32 make */

template <class To, class From> static inline To bits(From value) {
  To result;
  static_assert(sizeof result == sizeof value, "bits change their type, not their number");
  memcpy(&result, &value, sizeof result);
  return result;
}

/* ---- threads and memory ----------------------------------------------------------------------------------------------------- */

/* What a thread sees; the same from its begin to its end. */
struct view {
  const unsigned char *parameters;
  uint32_t parameter_bytes;
  unsigned char *shared;      /* what lies at SHARED_BEGIN */
  const unsigned char *valid; /* of every 16 bytes of it, how many belong to a variable */
  uint32_t shared_bytes;
  dim3 tid, ntid, ctaid, nctaid;
  uint32_t laneid;
};

/* Where an instruction found its memory the last time: a block of the device, or locked memory of the host. */
struct site {
  uint64_t begin, end;
  unsigned long version; /* of all blocks (emulated::memory_version) */
};

[[noreturn]] void bad_access(const char *what, uint64_t at, uint32_t bytes, int line);
void look_up(uint64_t at, uint32_t bytes, site &s, int line);
[[noreturn]] void bad_number(const char *what, int line);

static inline unsigned char *shared_at(const view &v, uint32_t at, uint32_t bytes, int line) {
  uint32_t offset = at - SHARED_BEGIN;
  if (__builtin_expect(offset >= v.shared_bytes || (offset & (bytes - 1)) || (offset & 15) + bytes > v.valid[offset >> 4], 0))
    bad_access("shared memory", at, bytes, line);
  return v.shared + offset;
}
static inline unsigned char *global_at(uint64_t at, uint32_t bytes, site &s, int line) {
  if (__builtin_expect((at & (bytes - 1)) || at < s.begin || at + bytes > s.end || s.version != emulated::memory_version, 0))
    look_up(at, bytes, s, line);
  return (unsigned char *)(uintptr_t)at;
}
static inline unsigned char *generic_at(const view &v, uint64_t at, uint32_t bytes, site &s, int line) {
  if (at >> 56 == SHARED_WINDOW >> 56) return shared_at(v, (uint32_t)at, bytes, line);
  return global_at(at, bytes, s, line);
}
static inline uint64_t parameter_address(const view &v, uint32_t offset) { return (uint64_t)(uintptr_t)v.parameters + offset; }
static inline const unsigned char *parameter_at(const view &v, uint64_t at, uint32_t bytes, int line) {
  uint64_t offset = at - (uint64_t)(uintptr_t)v.parameters;
  if (__builtin_expect(offset > v.parameter_bytes || bytes > v.parameter_bytes - offset || (offset & (bytes - 1)), 0))
    bad_access("a parameter", offset, bytes, line);
  return v.parameters + offset;
}
static inline uint64_t global_from_generic(uint64_t at, int line) {
  if (at >> 56 == SHARED_WINDOW >> 56) bad_access("an address of shared memory that is made one of global memory", at, 0, line);
  return at;
}
static inline uint64_t generic_from_shared(uint64_t at, int) { return SHARED_WINDOW | at; }
static inline uint64_t shared_from_generic(uint64_t at, int line) {
  if (at >> 56 != SHARED_WINDOW >> 56) bad_access("an address of global memory that is made one of shared memory", at, 0, line);
  return (uint32_t)at;
}

template <class T> static inline T peeked(const unsigned char *at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}
template <class T> static inline void poked(unsigned char *at, T value) { memcpy(at, &value, sizeof value); }
/* As kernels of g++ tell what they read and write where races are looked for (tests/cuda_host/races.cpp). */
#if defined(EMULATED_RACES)
#define TELL(what, at)                                            \
  switch (sizeof(T)) {                                            \
    case 1: __tsan_##what##1((void *)(uintptr_t)(at)); break;     \
    case 2: __tsan_##what##2((void *)(uintptr_t)(at)); break;     \
    case 4: __tsan_##what##4((void *)(uintptr_t)(at)); break;     \
    default: __tsan_##what##8((void *)(uintptr_t)(at)); break;    \
  }
#else
#define TELL(what, at) (void)0
#endif
template <class T> static inline __attribute__((always_inline)) T fetch(const unsigned char *at) {
  TELL(read, at);
  return peeked<T>(at);
}
template <class T> static inline __attribute__((always_inline)) void keep(unsigned char *at, T value) {
  TELL(write, at);
  poked<T>(at, value);
}
/* What stands there becomes what `next` makes of it, and is the result. */
template <class T, class F> static inline __attribute__((always_inline)) T change(unsigned char *at, F next) {
  emulated::accessed_atomically(at, sizeof(T));
  T was = peeked<T>(at);
  poked<T>(at, next(was));
  return was;
}

/* cp.async, bulk prefetch. */
void copy_begins(unsigned char *to, uint64_t from, uint32_t bytes, site &s, int line);
void copies_end_group();
void copies_wait(int n);
void fetch_ahead(uint64_t at, uint32_t bytes, int line);

/* ---- numbers of f32 and f64 ---------------------------------------------------------------------------------------------------- */

/* Whatever NaN goes in, one comes out. */
static inline float quiet(float x) { return __builtin_expect(x != x, 0) ? bits<float>(NO_NUMBER) : x; }
static inline double quiet(double x) { return x; }
static inline float fused(float a, float b, float c) { return quiet(__builtin_fmaf(a, b, c)); }
static inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
float fused_down(float a, float b, float c);
float divided_about(float a, float b);
float power_about(float x);
float inverse_about(float x);
double inverse_about(double x);
static inline float inverse(float x) { return quiet(1.0f / x); }
static inline double inverse(double x) { return 1.0 / x; }
static inline float root(float x) { return quiet(__builtin_sqrtf(x)); }
static inline double root(double x) { return __builtin_sqrt(x); }
static inline float magnitude(float x) { return bits<float>(bits<uint32_t>(x) & 0x7FFFFFFFu); }
static inline double magnitude(double x) { return bits<double>(bits<uint64_t>(x) & 0x7FFFFFFFFFFFFFFFu); }
static inline int32_t magnitude(int32_t x) { return x < 0 ? (int32_t)(0u - (uint32_t)x) : x; }
static inline int64_t magnitude(int64_t x) { return x < 0 ? (int64_t)(0u - (uint64_t)x) : x; }
static inline float negative(float x) { return bits<float>(bits<uint32_t>(x) ^ 0x80000000u); }
static inline double negative(double x) { return bits<double>(bits<uint64_t>(x) ^ 0x8000000000000000u); }
static inline int32_t negative(int32_t x) { return (int32_t)(0u - (uint32_t)x); }
static inline int64_t negative(int64_t x) { return (int64_t)(0u - (uint64_t)x); }
/* The sign of the first, the rest of the second. */
static inline float signed_as(float sign, float x) { return bits<float>((bits<uint32_t>(sign) & 0x80000000u) | (bits<uint32_t>(x) & 0x7FFFFFFFu)); }
static inline double signed_as(double sign, double x) { return __builtin_copysign(x, sign); }
/* A number where one of both is one; -0 is below 0. */
template <class T> static inline T larger(T a, T b) {
  if (a != a) return quiet(b);
  if (b != b) return a;
  return a > b || (a == b && __builtin_signbit(b)) ? a : b;
}
template <class T> static inline T smaller(T a, T b) {
  if (a != a) return quiet(b);
  if (b != b) return a;
  return a < b || (a == b && __builtin_signbit(a)) ? a : b;
}
template <class T> static inline bool equal_or_nan(T a, T b) { return !(a < b || a > b); }
template <class T> static inline bool ordered_and_unequal(T a, T b) { return a < b || a > b; }
template <class T> static inline bool unequal_or_nan(T a, T b) { return !(a == b); }
template <class T> static inline bool are_numbers(T a, T b) { return a == a && b == b; }
template <class T> static inline bool is_any_nan(T a, T b) { return a != a || b != b; }

static inline float between_0_and_1(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; } /* NaN: 0 */
static inline float rzi(float x) { return __builtin_truncf(x); }
static inline double rzi(double x) { return __builtin_trunc(x); }
static inline float rni(float x) { return __builtin_rintf(x); }
static inline double rni(double x) { return __builtin_rint(x); }
static inline float rmi(float x) { return __builtin_floorf(x); }
static inline double rmi(double x) { return __builtin_floor(x); }
static inline float rpi(float x) { return __builtin_ceilf(x); }
static inline double rpi(double x) { return __builtin_ceil(x); }
/* A float that is whole, as the nearest number of the type. Of NaN: 0 where both have 32 bits or less, else the sign bit alone. */
template <class T, class F> static inline T whole(F x) {
  const F above = (F)((uint64_t)1 << (8 * sizeof(T) - 2)) * (std::is_signed<T>::value ? 2 : 4);
  const F least = std::is_signed<T>::value ? -above : 0;
  if (x != x) return sizeof(F) < 8 && sizeof(T) < 8 ? 0 : (T)((uint64_t)1 << (8 * sizeof(T) - 1));
  if (x < least) return std::numeric_limits<T>::min();
  return x >= above ? std::numeric_limits<T>::max() : (T)x;
}
/* The first operand is the upper half. */
uint32_t pair_bf16(float upper, float lower);
uint32_t pair_f16(float upper, float lower);
float widened_f16(uint16_t half);

/* ---- whole numbers and bits -------------------------------------------------------------------------------------------------------- */

template <class T> static inline T quotient(T a, T b, int line) {
  if (!b || (std::is_signed<T>::value && b == (T)-1 && a == std::numeric_limits<T>::min())) bad_number("a quotient that is not defined", line);
  return (T)(a / b);
}
template <class T> static inline T remainder_of(T a, T b, int line) {
  if (!b || (std::is_signed<T>::value && b == (T)-1 && a == std::numeric_limits<T>::min())) bad_number("a remainder that is not defined", line);
  return (T)(a % b);
}
template <class T> static inline T high_product(T a, T b) {
  typedef typename std::conditional<std::is_signed<T>::value, __int128, unsigned __int128>::type wide;
  return (T)((wide)a * (wide)b >> 8 * sizeof(T));
}
/* By more places than there are: as by all of them. */
template <class T> static inline T shifted_left(T a, uint32_t by) { return by >= 8 * sizeof(T) ? 0 : (T)(a << by); }
template <class T> static inline T shifted_right(T a, uint32_t by) {
  if (by >= 8 * sizeof(T)) return std::is_signed<T>::value && a < 0 ? (T)-1 : 0;
  return (T)(a >> by);
}
static inline uint32_t ones(uint32_t x) { return (uint32_t)__builtin_popcount(x); }
static inline uint32_t ones(uint64_t x) { return (uint32_t)__builtin_popcountll(x); }
static inline uint32_t leading_zeros(uint32_t x) { return x ? (uint32_t)__builtin_clz(x) : 32; }
static inline uint32_t leading_zeros(uint64_t x) { return x ? (uint32_t)__builtin_clzll(x) : 64; }
static inline uint32_t leading_zeros_or_none(uint32_t x) { return x ? (uint32_t)__builtin_clz(x) : 0xFFFFFFFFu; }
uint32_t reversed(uint32_t x);
/* Each digit of the selector names a byte of b and a, a the lower four; with 8 added its sign, eight times. */
uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector);
/* b with the lowest bits of a at some place. */
template <class T> static inline T inserted(T a, T b, uint32_t place, uint32_t length) {
  const uint32_t all = 8 * sizeof(T);
  place &= 0xFF, length &= 0xFF;
  if (!length || place >= all) return b;
  T mask = shifted_left<T>(length >= all ? (T)~(T)0 : (T)(((T)1 << length) - 1), place);
  return (T)((b & (T)~mask) | (shifted_left<T>(a, place) & mask));
}

/* ---- warps -------------------------------------------------------------------------------------------------------------------------- */

enum shuffle { shuffle_bfly, shuffle_up, shuffle_down, shuffle_idx };
uint32_t exchanged(const view &v, shuffle how, uint32_t a, uint32_t b, uint32_t c, uint32_t mask, bool *within, int line);
template <shuffle How> static inline uint32_t shuffled(const view &v, uint32_t a, uint32_t b, uint32_t c, uint32_t mask, bool *within, int line) {
  return exchanged(v, How, a, b, c, mask, within, line);
}
uint32_t ballot(bool yes, uint32_t mask, int line);
/* d += a b (mma.sync, m16n8k16 and for tf32 m16n8k8). */
void product_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], int line);
void product_f16(float d[4], const uint32_t a[4], const uint32_t b[2], int line);
void product_tf32(float d[4], const uint32_t a[4], const uint32_t b[2], int line);

/* ---- counting ----------------------------------------------------------------------------------------------------------------------- */

/* Instructions that run one behind the other, whenever the first of them runs. */
struct segment {
  uint32_t line, instructions, read, written; /* bytes of global memory (generic ones with them) */
};
#if defined(PTX_COUNTED)
#define RAN(i) ran[i]++
#define COUNTERS(name, n) static uint64_t name[n]
#else
#define RAN(i) (void)0
#define COUNTERS(name, n) static uint64_t *const name = nullptr
#endif

/* ---- kernels ------------------------------------------------------------------------------------------------------------------------- */

struct variable {
  uint32_t at, bytes; /* 0 bytes: what the launch gives */
};
struct entry {
  const char *name; /* as it is mangled for nvcc */
  void (*run)(const view &v);
  uint32_t parameter_bytes, most_threads, static_bytes; /* most_threads 0: nothing said; static_bytes as nvcc counts them */
  const variable *shared;
  uint32_t n_shared, dynamic_begin; /* dynamic_begin: where what the launch gives begins */
  const segment *segments;
  uint64_t *ran; /* of each segment, how often it was begun; NULL where nobody counts */
  uint32_t n_segments;
  uint64_t launches, threads;
  entry *next;
};
extern entry *known;
/* Called before main, by every file of kernels. */
void know(entry *kernels, int n);

} // namespace ptx
#endif
