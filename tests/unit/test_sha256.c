/* SHA-256 against the examples of FIPS 180-4 (NIST's "SHA-256 examples": one block, two blocks) and, for lengths around the ends of blocks
 * and for many blocks, against Python's hashlib, whose digests stand below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/sha256.h"

static void assert_digest(const void *data, size_t length, const char *expected) {
  unsigned char digest[SHA256_BYTES];
  char text[2 * SHA256_BYTES + 1];
  sha256(data, length, digest);
  for (int i = 0; i < SHA256_BYTES; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
  assert_string_equal(text, expected);
}

static void test_standard(void **state) {
  (void)state;
  assert_digest("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  assert_digest("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

/* Byte i is 7 i mod 251. */
static void test_lengths(void **state) {
  static const struct {
    size_t length;
    const char *digest;
  } known[] = {
      {55, "8af594de0e003fdee5c8bb088216c824349b4137070f559574f4a4bddd27b714"},
      {56, "db81bc2bfd43620591df192139062da77d4c376f1888ea3d2190bd07c8d901f9"},
      {63, "bd535b38bf0d0d1a09d370b7e34b2696cea3767801a45d5611a4aaa6954e8527"},
      {64, "292be91abe8c0909fe3d26575af5755eee74d23816dc68c3ba41765136967654"},
      {65, "ba65aedf7884642499a59ae124894611d986cf429e69f569488048af3a99e25a"},
      {119, "d367ab298e74477421127b0b448667c37c006c636f5738f081c39388756e5fad"},
      {120, "be7beb9c82089eb08da8fe6eb30c13b9d56869014e228a8c3eb0fdfe832efab2"},
      {1000000, "6e0175cb68d12319c0c68dc4524457aa3ce013d5fe8623d161adb40478a38a80"},
  };
  unsigned char *data = malloc(1000000);
  (void)state;
  assert_non_null(data);
  for (size_t i = 0; i < 1000000; i++) data[i] = (unsigned char)(i * 7 % 251);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) assert_digest(data, known[i].length, known[i].digest);
  free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_standard), cmocka_unit_test(test_lengths)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
