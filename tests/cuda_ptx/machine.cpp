/* machine.cpp: the instructions of PTX that are not a line of C++ (machine.h).
 *
 * Owns approximations, products of a warp, exchanges and what is said of a bad access. Where the PTX ISA says by how much a result
 * may be off, it is off by as much as that, this way or the other, as the operands' bits will have it. */
#include "tests/cuda_ptx/machine.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

namespace ptx {

/* ---- memory ---------------------------------------------------------------------------------------------------------------- */

void bad_access(const char *what, uint64_t at, uint32_t bytes, int line) {
  char text[160];
  snprintf(text, sizeof text, "%u bytes at %#llx of %s: not whole in memory of its own, or no multiple of its size", bytes, (unsigned long long)at, what);
  emulated::fail(text, line, 0);
}

void bad_number(const char *what, int line) { emulated::fail(what, line, 0); }

void look_up(uint64_t at, uint32_t bytes, site &s, int line) {
  s.version = emulated::memory_version;
  if ((at & (bytes - 1)) || !emulated::memory_around((const void *)(uintptr_t)at, bytes, &s.begin, &s.end)) {
    s.end = 0;
    bad_access("global memory", at, bytes, line);
  }
}

/* Of the bytes that are not wanted, none is read: zeros come in their place. */
void copy_begins(unsigned char *to, uint64_t from, uint32_t bytes, site &s, int line) {
  if (bytes != 0 && bytes != 16) bad_number("a copy of a part of 16 bytes, which is not understood", line);
  if (from & 15) bad_access("global memory", from, 16, line);
  const unsigned char *source = bytes ? global_at(from, 16, s, line) : nullptr;
  emulated::copy_begins(to, source);
  memset(to, 0xFF, 16);
  emulated::here->copies.push_back({to, source, emulated::here->groups});
}
void copies_end_group() { emulated::here->groups++; }
/* All but the n youngest groups. */
void copies_wait(int n) {
  auto &copies = emulated::here->copies;
  for (; !copies.empty() && copies.front().group < emulated::here->groups - n; copies.pop_front()) {
    const emulated::pending_copy &next = copies.front();
    if (next.from) memcpy(next.to, next.from, 16);
    else memset(next.to, 0, 16);
    emulated::copy_ends(next.to, next.from);
  }
}
void fetch_ahead(uint64_t at, uint32_t bytes, int line) {
  uint64_t begin, end;
  if (at % 16 || bytes % 16 || !emulated::memory_around((const void *)(uintptr_t)at, bytes, &begin, &end)) bad_access("global memory", at, bytes, line);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------------------- */

/* Products of two floats are exact in double; the sum is not, and what is lost says which side it is on. */
float fused_down(float a, float b, float c) {
  double p = (double)a * (double)b, s = p + (double)c;
  if (!(s - s == 0)) return quiet((float)s); /* infinite, or no number */
  double back = s - p, lost = (p - (s - back)) + ((double)c - back);
  if (s == 0) return p == 0 && c == 0 && signbit(p) == signbit(c) ? (float)s : -0.0f;
  float f = (float)s;
  if ((double)f > s || ((double)f == s && lost < 0)) f = nextafterf(f, -INFINITY);
  return f;
}

/* -1, 0 or 1 of the operands' bits. */
static int side(uint32_t a, uint32_t b) {
  uint64_t mixed = ((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15u;
  mixed ^= mixed >> 29;
  mixed *= 0xBF58476D1CE4E5B9u;
  return (int)((mixed >> 40) % 3) - 1;
}
static float beside(float x, int by) { return by ? nextafterf(x, by > 0 ? INFINITY : -INFINITY) : x; }
static float flushed(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

/* Within 2 units in the last place where 2^-126 <= |b| <= 2^126; beyond that 0. */
float divided_about(float a, float b) {
  if (a != a || b != b) return bits<float>(NO_NUMBER);
  if (fabsf(b) > 0x1p126f && !isinf(b)) return isinf(a) ? bits<float>(NO_NUMBER) : copysignf(0, signbit(a) != signbit(b) ? -1.0f : 1.0f);
  float q = quiet(a / b);
  return q == 0 || isinf(q) || q != q || (double)q * (double)b == (double)a ? q : beside(q, side(bits<uint32_t>(a), bits<uint32_t>(b)));
}

/* ex2.approx.ftz: within 2^-22 of it. */
float power_about(float x) {
  if (x != x) return bits<float>(NO_NUMBER);
  x = flushed(x);
  float y = (float)exp2((double)x);
  if (y < FLT_MIN) return 0;
  return x == 0 || isinf(y) ? y : flushed(beside(y, side(bits<uint32_t>(x), 2)));
}

/* rcp.approx.ftz.f32: within one unit in the last place: on either side of what is exact. */
float inverse_about(float x) {
  if (x != x) return bits<float>(NO_NUMBER);
  x = flushed(x);
  double exact = 1.0 / (double)x;
  float y = (float)exact;
  if (isinf(y) || y == 0 || (double)y * (double)x == 1.0) return flushed(y);
  float other = beside(y, exact > (double)y ? 1 : -1);
  return flushed(side(bits<uint32_t>(x), 1) > 0 ? other : y);
}
/* rcp.approx.ftz.f64: the upper half of the bits alone. */
double inverse_about(double x) {
  if (fabs(x) < DBL_MIN) x = copysign(0, x);
  double y = 1.0 / x;
  if (y != y || isinf(y)) return y;
  y = bits<double>(bits<uint64_t>(y) & 0xFFFFFFFF00000000u);
  return fabs(y) < DBL_MIN ? copysign(0, y) : y;
}

/* ---- halves ------------------------------------------------------------------------------------------------------------------ */

/* To nearest and ties to even, as all conversions here. */
static uint32_t bf16_of(float x) {
  uint32_t all = bits<uint32_t>(x);
  return x != x ? 0x7FFFu : (all + 0x7FFFu + (all >> 16 & 1)) >> 16;
}
/* In steps of the last place that a half has at that size: 2^-24 at the least. What does not fit is infinite. */
static uint32_t f16_of(float x) {
  uint32_t sign = bits<uint32_t>(x) >> 16 & 0x8000u;
  if (x != x) return 0x7FFFu;
  int exponent;
  double size = fabs((double)x);
  if (size >= 65520) return sign | 0x7C00u;
  frexp(size, &exponent);
  if (exponent < -13 || size == 0) return sign | (uint32_t)nearbyint(ldexp(size, 24));
  return sign | (uint32_t)(nearbyint(ldexp(size, 11 - exponent)) + 1024.0 * (exponent + 13));
}
uint32_t pair_bf16(float upper, float lower) { return bf16_of(upper) << 16 | bf16_of(lower); }
uint32_t pair_f16(float upper, float lower) { return f16_of(upper) << 16 | f16_of(lower); }
float widened_f16(uint16_t half) {
  uint32_t exponent = half >> 10 & 31, rest = half & 0x3FF;
  float size = exponent == 31 ? (rest ? NAN : INFINITY)
               : exponent     ? ldexpf((float)(1024 + rest), (int)exponent - 25)
                              : ldexpf((float)rest, -24);
  return size != size ? bits<float>(NO_NUMBER) : half & 0x8000 ? -size : size;
}

/* ---- bits --------------------------------------------------------------------------------------------------------------------- */

uint32_t reversed(uint32_t x) {
  uint32_t result = 0;
  for (int i = 0; i < 32; i++) result |= (x >> i & 1) << (31 - i);
  return result;
}
uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
  uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t digit = selector >> 4 * i & 15, byte = (uint32_t)(bytes >> 8 * (digit & 7)) & 0xFF;
    if (digit & 8) byte = byte & 0x80 ? 0xFF : 0;
    result |= byte << 8 * i;
  }
  return result;
}

/* ---- warps -------------------------------------------------------------------------------------------------------------------- */

/* c: how far to look in bits 0 to 4, and in bits 8 to 12 which bits of a lane's number name its part of the warp. What a lane gets of
 * one that is not named is not said: no number that anybody means. */
uint32_t exchanged(const view &v, shuffle how, uint32_t a, uint32_t b, uint32_t c, uint32_t mask, bool *within, int line) {
  const uint64_t *all = emulated::exchange(mask, a, line);
  int lane = (int)v.laneid, by = (int)(b & 31), parts = (int)(c >> 8 & 31), clamp = (int)(c & 31), from;
  int most = (lane & parts) | (clamp & ~parts), least = lane & parts;
  switch (how) {
    case shuffle_up: from = lane - by, *within = from >= most; break;
    case shuffle_down: from = lane + by, *within = from <= most; break;
    case shuffle_bfly: from = lane ^ by, *within = from <= most; break;
    default: from = least | (by & ~parts), *within = from <= most; break;
  }
  if (!*within) from = lane;
  return mask >> from & 1 ? (uint32_t)all[from] : 0xFFFFFFFFu;
}

uint32_t ballot(bool yes, uint32_t mask, int line) {
  const uint64_t *all = emulated::exchange(mask, yes, line);
  uint32_t result = 0;
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1) result |= (uint32_t)all[i] << i;
  return result;
}

void product_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], int line) {
  emulated::multiply<16>({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, d, false}, line);
}
void product_f16(float d[4], const uint32_t a[4], const uint32_t b[2], int line) {
  emulated::multiply<16>({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, d, true}, line);
}
void product_tf32(float d[4], const uint32_t a[4], const uint32_t b[2], int line) {
  emulated::multiply<8>({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, d, false}, line);
}

} // namespace ptx
