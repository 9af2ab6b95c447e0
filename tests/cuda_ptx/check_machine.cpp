/* check_machine.cpp: the functions of machine.h beside what the PTX ISA says of instructions, and beside other ways to compute it. */
#include <fenv.h>
#include <math.h>
#include <stdio.h>

#include "tests/cuda_ptx/machine.h"

using namespace ptx;

static int failed;
#define CHECK(what)                                                                     \
  do {                                                                                  \
    if (!(what)) failed++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
  } while (0)

static uint64_t dice = 88172645463325252u;
static uint32_t any32() {
  dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
  return (uint32_t)(dice >> 16);
}
static float number(uint32_t word) { return bits<float>(word); }
static bool same(float a, float b) { return bits<uint32_t>(a) == bits<uint32_t>(b); }
static const float infinite = INFINITY;

/* gcc's own halves. */
static void check_halves() {
  for (uint32_t half = 0; half < 65536; half++) {
    float want = (float)bits<_Float16>((uint16_t)half);
    CHECK(want != want ? same(widened_f16((uint16_t)half), number(NO_NUMBER)) : same(widened_f16((uint16_t)half), want));
  }
  for (int i = 0; i < 2000000; i++) {
    float x = number(i % 2 ? any32() : (any32() & 0x8FFFFFFFu) + 0x30000000u); /* every second one about the size of halves */
    if (x == x) CHECK((pair_f16(0, x) & 0xFFFF) == bits<uint16_t>((_Float16)x));
  }
  CHECK(pair_f16(1, -2) == 0x3C00C000u && pair_f16(NAN, 65520) == 0x7FFF7C00u && pair_f16(-0.0f, 0x1p-25f) == 0x80000000u);
  CHECK(pair_bf16(1, -2) == 0x3F80C000u && pair_bf16(NAN, infinite) == 0x7FFF7F80u);
  CHECK(pair_bf16(number(0x3F808000), number(0x3F818000)) == 0x3F803F82u); /* ties to even */
  CHECK(pair_bf16(number(0x7F7FFFFF), 0) == 0x7F800000u);
}

/* The processor's own rounding downwards. */
static float fused_by_mode(volatile float a, volatile float b, volatile float c) {
  fesetround(FE_DOWNWARD);
  volatile float result = __builtin_fmaf(a, b, c);
  fesetround(FE_TONEAREST);
  return result;
}
static void check_sums() {
  for (int i = 0; i < 1000000; i++) {
    float a = number(any32()), b = number(any32()), c = number(any32());
    if (i % 2) b = number((bits<uint32_t>(c) & 0x7F800000u) - (bits<uint32_t>(a) & 0x7F800000u) + 0x3F800000u + (any32() & 0x800FFFFFu)); /* about as large */
    float got = fused_down(a, b, c), want = fused_by_mode(a, b, c);
    if (want != want) CHECK(same(got, number(NO_NUMBER)));
    else if (fabsf(want) > 0x1p-120f && !isinf(want)) CHECK(same(got, want));
  }
  CHECK(same(fused_down(1, 1, -1), -0.0f) && same(fused_down(1, 12582913.0f, 0.25f), 12582913.0f));
  CHECK(same(quiet(infinite - infinite), number(NO_NUMBER)) && same(fused(0, infinite, 1), number(NO_NUMBER)));
  CHECK(same(larger(NAN, 1.0f), 1) && same(larger(1.0f, NAN), 1) && same(larger(number(0xFFC00000u), number(0xFFFFFFFFu)), number(NO_NUMBER)));
  CHECK(same(larger(0.0f, -0.0f), 0) && same(larger(-0.0f, 0.0f), 0) && same(smaller(0.0f, -0.0f), -0.0f) && same(smaller(-0.0f, 0.0f), -0.0f));
  CHECK(same(signed_as(-1.0f, 3.0f), -3) && same(signed_as(2.0f, -3.0f), 3) && same(negative(number(0x7FFFFFFF)), number(0xFFFFFFFF)));
}

/* Errors that the ISA allows, of each kind some that are there. */
static void check_approximations() {
  double worst_power = 0, worst_inverse = 0, worst_quotient = 0;
  for (int i = 0; i < 1000000; i++) {
    float x = (float)(any32() % 2000000) * 1e-4f - 100, y = number(0x3F000000u + any32() % 0x1000000u), z = (float)(any32() % 1000 + 1);
    worst_power = fmax(worst_power, fabs((double)power_about(x) / exp2((double)x) - 1));
    worst_inverse = fmax(worst_inverse, fabs((double)inverse_about(y) * (double)y - 1));
    worst_quotient = fmax(worst_quotient, fabs((double)divided_about(z, y) * (double)y / (double)z - 1));
  }
  CHECK(worst_power > 0x1p-23 && worst_power < 0x1p-22);
  CHECK(worst_inverse > 0x1p-24 && worst_inverse < 0x1p-23);
  CHECK(worst_quotient > 0x1p-23 && worst_quotient < 0x1p-22);
  CHECK(power_about(0) == 1 && power_about(-infinite) == 0 && power_about(-127) == 0 && isinf(power_about(129)) && power_about(number(0x80000001u)) == 1);
  CHECK(inverse_about(4.0f) == 0.25f && isinf(inverse_about(number(1))) && same(inverse_about(-infinite), -0.0f) && inverse_about(0x1p127f) == 0);
  CHECK(divided_about(6, 3) == 2 && same(divided_about(-1, 0x1.8p126f), -0.0f) && divided_about(infinite, 0x1.8p126f) != divided_about(infinite, 0x1.8p126f));
  CHECK(inverse_about(3.0) == bits<double>((uint64_t)0x3FD5555500000000u));
}

static void check_whole() {
  CHECK(whole<int32_t>(NAN) == 0 && whole<uint32_t>(-1.0f) == 0 && whole<int32_t>(3e9f) == INT32_MAX && whole<int32_t>(-3e9f) == INT32_MIN);
  CHECK(whole<uint64_t>((double)NAN) == (uint64_t)1 << 63 && whole<int32_t>((double)NAN) == INT32_MIN && whole<int64_t>(1e19f) == INT64_MAX);
  CHECK(whole<uint64_t>(1.8e19) == 18000000000000000000u && whole<uint64_t>(2e19) == UINT64_MAX && whole<uint32_t>(4294967295.0) == UINT32_MAX);
  CHECK(between_0_and_1(NAN) == 0 && between_0_and_1(-1) == 0 && between_0_and_1(2) == 1 && between_0_and_1(0.5f) == 0.5f);
  CHECK(rni(2.5f) == 2 && rni(-3.5f) == -4 && rzi(-2.7) == -2 && rpi(2.1) == 3 && rmi(-2.1f) == -3);
}

static void check_bits() {
  CHECK(shifted_left<uint32_t>(1, 32) == 0 && shifted_right<uint32_t>(~0u, 33) == 0 && shifted_right<int32_t>(-8, 99) == -1 && shifted_right<int32_t>(-8, 1) == -4);
  CHECK(shifted_left<uint64_t>(1, 63) == (uint64_t)1 << 63 && shifted_right<int64_t>(INT64_MIN, 63) == -1);
  CHECK(reversed(0x00000001u) == 0x80000000u && reversed(0x12345678u) == 0x1E6A2C48u);
  CHECK(permuted(0x33221100u, 0x77665544u, 0x7531u) == 0x77553311u && permuted(0x80FF7F00u, 0, 0xBA98u) == 0xFFFF0000u);
  CHECK(inserted<uint64_t>(0x5, 0xFF00, 4, 3) == 0xFF50 && inserted<uint32_t>(~0u, 0, 28, 8) == 0xF0000000u && inserted<uint32_t>(1, 7, 32, 4) == 7);
  CHECK(inserted<uint64_t>(~0ull, 0, 32, 32) == 0xFFFFFFFF00000000u && inserted<uint32_t>(0x1234, 5, 0, 32) == 0x1234 && inserted<uint32_t>(9, 5, 3, 0) == 5);
  CHECK(leading_zeros_or_none((uint32_t)0) == 0xFFFFFFFFu && leading_zeros_or_none((uint32_t)1) == 31 && ones((uint64_t)0xF0F) == 8);
  CHECK(high_product<int64_t>(-1, 1) == -1 && high_product<uint32_t>(~0u, ~0u) == 0xFFFFFFFEu);
  CHECK(quotient<int32_t>(-7, 2, 0) == -3 && remainder_of<int32_t>(-7, 2, 0) == -1);
}

static void check_comparisons() {
  float nan = NAN;
  CHECK(!ordered_and_unequal(nan, 1.0f) && unequal_or_nan(nan, 1.0f) && equal_or_nan(nan, 1.0f) && equal_or_nan(1.0f, 1.0f) && !equal_or_nan(1.0f, 2.0f));
  CHECK(!unequal_or_nan(0.0f, -0.0f) && ordered_and_unequal(1.0f, 2.0f) && is_any_nan(1.0f, nan) && !are_numbers(nan, nan));
}

int main() {
  check_halves();
  check_sums();
  check_approximations();
  check_whole();
  check_bits();
  check_comparisons();
  printf("instructions of PTX: %s\n", failed ? "wrong" : "as the ISA has them");
  return failed != 0;
}
