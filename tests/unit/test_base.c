/* The leaf helpers of core/base: numbers, UTF-8, the JSON writer and reader, arena, buffer, checked sizes,
 * random numbers, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/arena.h"
#include "core/base/buffer.h"
#include "core/base/checked.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/json_writer.h"
#include "core/base/number.h"
#include "core/base/random.h"
#include "core/base/utf8.h"

/* ---- numbers ---- */

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static const char *f32(float value) {
  static char text[24];
  int length = number_f32(value, text);
  assert_int_equal(length, strlen(text));
  assert_true(strlen(text) < 16); /* as number.h promises */
  return text;
}

static void test_f32_texts(void **state) {
  (void)state;
  assert_string_equal(f32(0.1f), "0.1");
  assert_string_equal(f32(0.0f), "0");
  assert_string_equal(f32(-0.0f), "-0");
  assert_string_equal(f32(16777216.0f), "16777216");
  assert_string_equal(f32(1e-45f), "1e-45"); /* the smallest subnormal */
  assert_string_equal(f32(3e-45f), "3e-45");
  assert_string_equal(f32(FLT_MIN), "1.1754944e-38");
  assert_string_equal(f32(FLT_MAX), "3.4028235e+38");
  assert_string_equal(f32(-1.5f), "-1.5");
  assert_string_equal(f32(1.0f / 3), "0.33333334");
  assert_string_equal(f32(1e-5f), "1e-5");
}

/* What the quick way writes is what the exact way writes: both ends of its range, and beside them. */
static void test_f32_quick(void **state) {
  (void)state;
  assert_string_equal(f32(1e-4f), "0.0001");
  assert_string_equal(f32(9.999999e-5f), "9.999999e-5");
  assert_string_equal(f32(999999.94f), "999999.94");
  assert_string_equal(f32(1e6f), "1e+6");
  for (uint32_t step = 0; step < 400000; step++) {
    float value = float_of(0x38d1b000u + step * 699u); /* from 1e-4 to beyond 1e6 */
    char text[24], exact[24];
    int digits = FLT_DIG;
    do snprintf(exact, sizeof exact, "%.*g", digits++, (double)value);
    while (strtof(exact, NULL) != value);
    number_f32(value, text);
    if (value >= 1e-4f && value < 1e6f) assert_string_equal(text, exact);
  }
}

static void test_int_texts(void **state) {
  (void)state;
  char text[24];
  assert_int_equal(number_int(0, text), 1);
  assert_string_equal(text, "0");
  assert_int_equal(number_int(-70, text), 3);
  assert_string_equal(text, "-70");
  assert_int_equal(number_int(INT64_MIN, text), 20);
  assert_string_equal(text, "-9223372036854775808");
}

/* Reads back to the same bits, and no shorter decimal does. */
static void check_f32(uint32_t bits) {
  float value = float_of(bits);
  char text[24], shorter[24];
  number_f32(value, text);
  if (bits_of(strtof(text, NULL)) != bits) fail_msg("%08x is written as %s", (unsigned)bits, text);
  int digits = 0;
  for (const char *p = text; *p && *p != 'e'; p++) digits += *p >= '0' && *p <= '9' && (digits || *p != '0');
  for (const char *p = strchr(text, 'e') ? strchr(text, 'e') : text + strlen(text); p > text && p[-1] == '0'; p--)
    if (!strchr(text, '.')) digits--; /* zeros that only give the size */
  if (digits < 2) return;
  snprintf(shorter, sizeof shorter, "%.*e", digits - 2, (double)value);
  if (bits_of(strtof(shorter, NULL)) == bits)
    fail_msg("%08x is written as %s, %s is enough", (unsigned)bits, text, shorter);
}

static void test_f32_round_trip(void **state) {
  (void)state;
  for (uint32_t bits = 0; bits < 3000; bits++) check_f32(bits); /* 0 and the smallest subnormals */
  for (uint32_t bits = 0x7FF000; bits < 0x801000; bits++) check_f32(bits); /* across the last subnormal */
  for (uint32_t exponent = 1; exponent < 255; exponent++)
    for (int step = -2; step <= 2; step++) check_f32((exponent << 23) + (uint32_t)step); /* around powers of two */
  for (uint32_t i = 0; i < 200000; i++) {
    uint32_t words[4];
    random_words(1, 2, i, words);
    if ((words[0] >> 23 & 0xFF) != 0xFF) check_f32(words[0]);
    check_f32(0x38D1B717 + words[1] % 0x0EF198E9); /* 1e-4 to 1e5, which has a way of its own */
  }
}

static void test_f64(void **state) {
  (void)state;
  static const double values[] = {0.1, 1.0 / 3, 5e-324, 2.5e-320, DBL_MIN, DBL_MAX, -1e22, 9007199254740993.0, 1e-7};
  char text[32];
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
    int length = number_f64(values[i], text);
    assert_int_equal(length, strlen(text));
    assert_true(strtod(text, NULL) == values[i]);
  }
  number_f64(5e-324, text);
  assert_string_equal(text, "5e-324");
}

static void test_parse(void **state) {
  (void)state;
  int64_t whole = 0;
  double real = 0;
  assert_true(number_parse_int("-9223372036854775808", &whole) && whole == INT64_MIN);
  assert_true(number_parse_int("+7", &whole) && whole == 7);
  static const char *const bad[] = {"", "-", " 1", "1 ", "0x10", "9223372036854775808", "1.0", "1e3", "--1"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(number_parse_int(bad[i], &whole));
  assert_true(number_parse_double("1e-3", &real) && real == 1e-3);
  assert_true(number_parse_double("-2", &real) && real == -2);
  static const char *const worse[] = {"", "nan", "inf", "0x1p3", "1e999", "1 ", "1e", "."};
  for (size_t i = 0; i < sizeof worse / sizeof worse[0]; i++) assert_false(number_parse_double(worse[i], &real));
}

/* ---- UTF-8 ---- */

static void test_utf8_valid(void **state) {
  (void)state;
  static const char *const good[] = {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                                     "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"};
  static const struct {
    const char *text;
    size_t bad;
  } bad[] = {{"\x80", 0},         {"\xC0\x80", 0},         {"\xC1\xBF", 0},         {"\xE0\x9F\xBF", 0},
             {"\xED\xA0\x80", 0}, {"\xF0\x8F\xBF\xBF", 0}, {"\xF4\x90\x80\x80", 0}, {"\xF5\x80\x80\x80", 0},
             {"ab\xFF", 2},       {"a\xC3", 1},            {"\xE2\x82", 0},         {"\xC3\x28", 0}};
  size_t at = 0;
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(utf8_valid(good[i], strlen(good[i]), NULL));
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_false(utf8_valid(bad[i].text, strlen(bad[i].text), &at));
    assert_int_equal(at, bad[i].bad);
  }
}

/* Every scalar value out and back. */
static void test_utf8_points(void **state) {
  (void)state;
  for (uint32_t point = 0; point <= 0x10FFFF; point++) {
    char text[4];
    uint32_t back = 0;
    if (point >= 0xD800 && point <= 0xDFFF) continue;
    int n = utf8_put(point, text);
    if (utf8_next(text, (size_t)n, &back) != n || back != point) fail_msg("U+%04X", (unsigned)point);
    if (n > 1 && utf8_next(text, (size_t)n - 1, &back) != -1) fail_msg("U+%04X cut short", (unsigned)point);
  }
}

static void test_utf8_complete(void **state) {
  (void)state;
  assert_int_equal(utf8_complete("a\xE2\x82\xAC", 4), 4);
  assert_int_equal(utf8_complete("a\xE2\x82", 3), 1);
  assert_int_equal(utf8_complete("a\xF0\x9F\x98", 4), 1);
  assert_int_equal(utf8_complete("\xFF\xC3", 2), 1); /* an invalid byte never becomes a character */
  assert_int_equal(utf8_complete("", 0), 0);
}

/* ---- JSON ---- */

static void test_writer(void **state) {
  (void)state;
  struct buffer out;
  struct json_writer w;
  struct error error = ERROR_INIT;
  buffer_init(&out, 0);
  jw_init(&w, &out);
  jw_open(&w, '{');
  jw_member_text(&w, "a", "\"\\\n\t\x01</script>&\x7F");
  jw_key(&w, "list");
  jw_f32_array(&w, (const float[]){0.5f, NAN, INFINITY, -0.1f}, 4);
  jw_member_int(&w, "i", INT64_MIN);
  jw_member_bool(&w, "t", true);
  jw_member_text(&w, "n", NULL);
  jw_key(&w, "bad");
  jw_string(&w, "x\xFFy\xC3", 4);
  jw_member_text(&w, "lines", "\xE2\x80\xA8\xE2\x80\xA9\xC3\xA9");
  jw_key(&w, "o");
  jw_open(&w, '{');
  jw_close(&w, '}');
  jw_close(&w, '}');
  assert_int_equal(buffer_check(&out, &error), 0);
  assert_string_equal(out.data,
                      "{\"a\":\"\\\"\\\\\\n\\t\\u0001\\u003c/script\\u003e\\u0026\\u007f\","
                      "\"list\":[0.5,null,null,-0.1],"
                      "\"i\":-9223372036854775808,\"t\":true,\"n\":null,\"bad\":\"x\xEF\xBF\xBDy\xEF\xBF\xBD\","
                      "\"lines\":\"\\u2028\\u2029\xC3\xA9\",\"o\":{}}");
  struct json_node *root = json_parse(out.data, out.length, 4, &error);
  assert_non_null(root);
  struct buffer again; /* what was parsed is written as it was */
  buffer_init(&again, 0);
  jw_init(&w, &again);
  jw_node(&w, root);
  assert_string_equal(again.data, out.data);
  buffer_clear(&again);
  assert_string_equal(json_text_or(json_get(root, "a"), ""), "\"\\\n\t\x01</script>&\x7F");
  json_free(root);
  buffer_clear(&out);
}

static void test_writer_in_snake_case(void **state) {
  (void)state;
  struct buffer out;
  struct json_writer w;
  buffer_init(&out, 0);
  jw_init(&w, &out);
  w.snake = true;
  jw_open(&w, '{');
  jw_member_int(&w, "maxValueIndex", 1);
  jw_member_text(&w, "plain", "camelCase");
  jw_key_as_it_is(&w, "hookName");
  jw_null(&w);
  jw_close(&w, '}');
  assert_string_equal(out.data, "{\"max_value_index\":1,\"plain\":\"camelCase\",\"hookName\":null}");
  buffer_clear(&out);
}

static void test_json_depth(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  assert_int_equal(json_check_depth("[[[]]]", 6, 3, &error), 0);
  assert_int_equal(json_check_depth("[[[[]]]]", 8, 3, &error), -1);
  assert_non_null(strstr(error.text, "at byte 3"));
  error_clear(&error);
  assert_int_equal(json_check_depth("[\"[[[[\\\"[[\"]", 12, 1, &error), 0); /* brackets inside a string */
  assert_int_equal(json_check_depth("{\"a\":[{}]}", 10, 2, &error), -1);
  error_clear(&error);
  assert_int_equal(json_check_depth("\"\\", 2, 1, &error), 0); /* a text that ends inside an escape */
  size_t length = 1 << 20;
  char *deep = malloc(length);
  assert_non_null(deep);
  memset(deep, '[', length);
  assert_null(json_parse(deep, length, 64, &error));
  assert_int_equal(error.code, ERROR_FORMAT);
  free(deep);
}

static void test_json_strict(void **state) {
  (void)state;
  static const char *const bad[] = {"{\"a\":1,\"a\":2}", "[1] x", "[1,]", "", "{\"a\":\"\xFF\"}", "[nan]", "[\"a\\u0000\"]"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct error error = ERROR_INIT;
    assert_null(json_parse(bad[i], strlen(bad[i]), 8, &error));
    assert_int_equal(error.code, ERROR_FORMAT);
    assert_null(strstr(error.text, "JSON_")); /* a name of the library's */
  }
  assert_int_equal(json_kind(NULL), JSON_KIND_NONE);
  assert_null(json_get(NULL, "a"));
  assert_int_equal(json_int_or(NULL, 7), 7);
}

/* ---- memory ---- */

static void test_arena(void **state) {
  (void)state;
  struct arena arena;
  struct error error = ERROR_INIT;
  arena_init(&arena, 1000);
  unsigned char *first = arena_alloc(&arena, 1, &error);
  assert_non_null(first);
  assert_int_equal((uintptr_t)first % 16, 0);
  assert_int_equal(arena.used, 16);
  assert_non_null(arena_alloc(&arena, 900, &error));
  assert_null(arena_alloc(&arena, 100, &error));
  assert_int_equal(error.code, ERROR_LIMIT);
  error_clear(&error);
  assert_null(arena_array(&arena, SIZE_MAX / 2, 3, &error));
  assert_int_equal(error.code, ERROR_MEMORY);
  error_clear(&error);
  assert_null(arena_alloc(&arena, SIZE_MAX, &error));
  error_clear(&error);
  arena_clear(&arena);
  unsigned char *again = arena_alloc(&arena, 992, &error); /* the limit counts anew, and memory is zeroed */
  assert_non_null(again);
  for (int i = 0; i < 992; i++) assert_int_equal(again[i], 0);
  arena_clear(&arena);
  arena_init(&arena, 0);
  assert_non_null(arena_alloc(&arena, 1 << 20, &error)); /* larger than a block */
  assert_string_equal(arena_printf(&arena, &error, "%d-%s", 7, "x"), "7-x");
  assert_string_equal(arena_text(&arena, "abcdef", 3, &error), "abc");
  arena_clear(&arena);
}

static void test_buffer(void **state) {
  (void)state;
  struct buffer buffer;
  struct error error = ERROR_INIT;
  buffer_init(&buffer, 8);
  buffer_text(&buffer, "1234");
  buffer_printf(&buffer, "%d", 5678);
  assert_string_equal(buffer.data, "12345678");
  assert_int_equal(buffer_check(&buffer, &error), 0);
  buffer_char(&buffer, '9');
  assert_int_equal(buffer_check(&buffer, &error), -1);
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_int_equal(buffer.length, 8);
  buffer_clear(&buffer);
  buffer_text(&buffer, "again");
  assert_string_equal(buffer.data, "again");
  buffer_clear(&buffer);
}

static void test_checked(void **state) {
  (void)state;
  size_t out;
  assert_true(checked_mul((size_t)1 << 32, ((size_t)1 << 32) - 1, &out));
  assert_false(checked_mul((size_t)1 << 32, (size_t)1 << 32, &out));
  assert_true(checked_mul(SIZE_MAX, 0, &out) && out == 0);
  assert_true(checked_add(SIZE_MAX - 1, 1, &out));
  assert_false(checked_add(SIZE_MAX, 1, &out));
  assert_int_equal(size_round_up(17, 16), 32);
  assert_int_equal(size_round_up(16, 16), 16);
}

/* ---- random ---- */

/* Random123's known-answer file (kat_vectors, philox4x32 10): counter and key all zero, all one, and the digits
 * of pi. Our seed is the key, position and stream are the low and high half of the counter. */
static void test_philox(void **state) {
  (void)state;
  uint32_t out[4];
  random_words(0, 0, 0, out);
  assert_true(out[0] == 0x6627e8d5 && out[1] == 0xe169c58d && out[2] == 0xbc57ac4c && out[3] == 0x9b00dbd8);
  random_words(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
  assert_true(out[0] == 0x408f276d && out[1] == 0x41c83b0e && out[2] == 0xa20bc7c6 && out[3] == 0x6d5451fd);
  random_words(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, out);
  assert_true(out[0] == 0xd16cfe09 && out[1] == 0x94fdcceb && out[2] == 0x5001e420 && out[3] == 0x24126ea1);
}

/* Mean 1/2 and variance 1/12 within five standard errors of 100,000 draws: 5 * sqrt(1/12/1e5) = 0.0046 and
 * 5 * sqrt(1/180/1e5) = 0.0012. The seed is fixed, so the outcome is too. */
static void test_unit(void **state) {
  (void)state;
  double sum = 0, squares = 0;
  for (uint64_t i = 0; i < 100000; i++) {
    double u = random_unit(42, 7, i);
    assert_true(u >= 0 && u < 1);
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
  }
  assert_true(fabs(sum / 1e5 - 0.5) < 0.0046);
  assert_true(fabs(squares / 1e5 - 1.0 / 12) < 0.0012);
  assert_true(random_unit(42, 7, 0) != random_unit(42, 8, 0) && random_unit(42, 7, 0) != random_unit(43, 7, 0));
}

/* ---- errors, clock ---- */

static void test_errors(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  assert_int_equal(error_set_field(&error, ERROR_ARGUMENT, "n", "'%s' is %d", "n", 3), -1);
  error_set(&error, ERROR_BUG, "second");
  error_prefix(&error, "while reading '%s'", "f");
  assert_string_equal(error.text, "while reading 'f': 'n' is 3");
  assert_string_equal(error.field, "n");
  assert_string_equal(error_word(error.code), "argument");
  assert_int_equal(error_set(NULL, ERROR_BUG, "nobody listens"), -1);
  error_clear(&error);
  error_prefix(&error, "no error to prefix");
  assert_string_equal(error.text, "");
  error_set(&error, ERROR_FORMAT, "mode '%s' is unknown", "\nno\x1b[31m\x7f é");
  error_prefix(&error, "'%s'", "a\tb");
  assert_string_equal(error.text, "'a b': mode ' no [31m  é' is unknown"); /* one line, whatever is quoted */
  for (int code = ERROR_NONE; code <= ERROR_BUG; code++)
    assert_string_not_equal(error_word((enum error_code)code), "unknown");
}

static void test_clock(void **state) {
  (void)state;
  char text[25];
  int64_t before = clock_ns();
  clock_iso(text);
  assert_int_equal(strlen(text), 24);
  assert_true(text[4] == '-' && text[10] == 'T' && text[19] == '.' && text[23] == 'Z');
  assert_true(clock_ns() >= before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_f32_texts), cmocka_unit_test(test_f32_quick), cmocka_unit_test(test_int_texts),   cmocka_unit_test(test_f32_round_trip), cmocka_unit_test(test_f64),
      cmocka_unit_test(test_parse),       cmocka_unit_test(test_utf8_valid),     cmocka_unit_test(test_utf8_points),
      cmocka_unit_test(test_utf8_complete), cmocka_unit_test(test_writer),       cmocka_unit_test(test_writer_in_snake_case), cmocka_unit_test(test_json_depth),
      cmocka_unit_test(test_json_strict), cmocka_unit_test(test_arena),          cmocka_unit_test(test_buffer),
      cmocka_unit_test(test_checked),     cmocka_unit_test(test_philox),         cmocka_unit_test(test_unit),
      cmocka_unit_test(test_errors),      cmocka_unit_test(test_clock),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
