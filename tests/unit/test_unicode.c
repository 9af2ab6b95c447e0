/* test_unicode.c: normalization forms and lower case against Unicode's own examples (UAX 15) and cases that a
 * wrong order of composition gets wrong; long runs of marks; json_reader on what JSON allows and what it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/json_reader.h"
#include "core/base/unicode.h"
#include "core/base/utf8.h"

static void expect_form(const char *text, enum unicode_form form, const char *want) {
  struct buffer out;
  buffer_init(&out, 0);
  unicode_normalize(text, strlen(text), form, &out);
  assert_string_equal(out.data ? out.data : "", want);
  buffer_clear(&out);
}

static void test_forms(void **state) {
  (void)state;
  expect_form("", UNICODE_NFC, "");
  expect_form("plain ASCII", UNICODE_NFKD, "plain ASCII");
  expect_form("e\u0301", UNICODE_NFC, "\u00E9");
  expect_form("xe\u0301x", UNICODE_NFC, "x\u00E9x");
  expect_form("\u00E9", UNICODE_NFD, "e\u0301");
  expect_form("\u212B", UNICODE_NFC, "\u00C5");                     /* ANGSTROM SIGN */
  expect_form("\u0958", UNICODE_NFC, "\u0915\u093C");               /* excluded from composition */
  expect_form("\u1E9B\u0323", UNICODE_NFC, "\u1E9B\u0323");         /* UAX 15, figure 6 */
  expect_form("\u1E9B\u0323", UNICODE_NFD, "\u017F\u0323\u0307");
  expect_form("\u1E9B\u0323", UNICODE_NFKC, "\u1E69");
  expect_form("\u1E9B\u0323", UNICODE_NFKD, "s\u0323\u0307");
  expect_form("\uFB01", UNICODE_NFC, "\uFB01");
  expect_form("\uFB01", UNICODE_NFKC, "fi");
  expect_form("a\u0315\u0300\u05AE\u0301b", UNICODE_NFC, "\u00E0\u05AE\u0301\u0315b"); /* order, then one joins */
  expect_form("\u1100\u1161\u11A8", UNICODE_NFC, "\uAC01");         /* Hangul, by arithmetic */
  expect_form("\uAC01", UNICODE_NFD, "\u1100\u1161\u11A8");
  expect_form("\u1100\u0300\u1161", UNICODE_NFC, "\u1100\u0300\u1161"); /* a mark stands between */
  expect_form("\u0301a", UNICODE_NFC, "\u0301a");
  expect_form("a\u0305\u0301", UNICODE_NFC, "a\u0305\u0301");     /* a mark of its own class stands between */
}

static void test_lower(void **state) {
  (void)state;
  struct buffer out;
  buffer_init(&out, 0);
  static const char text[] = "ABC \u00C9\u0130\u03A3\u1E9E\U00010400z";
  unicode_lower(text, sizeof text - 1, &out);
  assert_string_equal(out.data, "abc \u00E9i\u0307\u03C3\u00DF\U00010428z");
  buffer_clear(&out);
}

/* The square of these would take minutes. */
static void test_many_marks(void **state) {
  (void)state;
  enum { MARKS = 200000 };
  struct buffer text, out;
  buffer_init(&text, 0);
  buffer_init(&out, 0);
  buffer_char(&text, 'a');
  for (int i = 0; i < MARKS; i++) buffer_text(&text, i % 2 ? "\u0301" : "\u0327");
  unicode_normalize(text.data, text.length, UNICODE_NFC, &out);
  assert_int_equal(out.length, text.length - 1); /* a and the first U+0301 became U+00E1, of two bytes */
  assert_memory_equal(out.data, "\u00E1\u0327\u0327", 6);
  buffer_clear(&text);
  buffer_clear(&out);
}

static void test_spaces(void **state) {
  (void)state;
  assert_int_equal(unicode_space_prefix(" \u00A0\u3000x ", 8), 6);
  assert_int_equal(unicode_space_suffix(" x\u2003\n", 6), 4);
  assert_int_equal(unicode_space_suffix(" \n", 2), 2);
  assert_int_equal(unicode_space_prefix("\u180E", 3), 0);
}

static void test_reader(void **state) {
  (void)state;
  static const char text[] = " { \"a\\u00e9\\ud83d\\ude80\\n\" : [ -12 , true,null , 1.5e3, {} ] , \"\":\"\\u0000\" } ";
  struct json_reader r;
  struct error error = ERROR_INIT;
  const char *piece;
  size_t length;
  int64_t number;
  json_reader_init(&r, text, sizeof text - 1);
  assert_int_equal(json_reader_open(&r, '{', &error), 0);
  assert_int_equal(json_reader_key(&r, &piece, &length, &error), 1);
  assert_int_equal(length, 8);
  assert_memory_equal(piece, "a\u00E9\U0001F680\n", 8);
  assert_int_equal(json_reader_open(&r, '[', &error), 0);
  assert_int_equal(json_reader_item(&r, &error), 1);
  assert_int_equal(json_reader_int(&r, &number, &error), 0);
  assert_int_equal(number, -12);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(json_reader_item(&r, &error), 1);
    assert_int_equal(json_reader_skip(&r, 1, &error), 0);
  }
  assert_int_equal(json_reader_item(&r, &error), 0);
  assert_int_equal(json_reader_key(&r, &piece, &length, &error), 1);
  assert_int_equal(length, 0);
  assert_int_equal(json_reader_text(&r, &piece, &length, &error), 0);
  assert_int_equal(length, 1);
  assert_int_equal(piece[0], '\0');
  assert_int_equal(json_reader_key(&r, &piece, &length, &error), 0);
  assert_int_equal(json_reader_end(&r, &error), 0);
  json_reader_clear(&r);
}

/* Each is refused, and by the tree too: the two readers must not disagree on what JSON is. */
static void test_reader_refuses(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",       "{",        "[1,]",      "[,1]",      "{\"a\":1,}", "{\"a\"}",  "{1:2}",     "[1 2]",  "01",
      "-",      "1.",       ".5",        "1e",        "+1",         "nul",      "truee",     "\"a",    "\"\\x\"",
      "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\n\"", "[]]", "{}{}", "[}", "'a'",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct json_reader r;
    struct error error = ERROR_INIT;
    json_reader_init(&r, texts[i], strlen(texts[i]));
    int result = json_reader_skip(&r, 8, &error);
    if (result == 0) result = json_reader_end(&r, &error);
    if (result == 0) fail_msg("'%s' was read", texts[i]);
    assert_int_equal(error.code, ERROR_FORMAT);
    json_reader_clear(&r);
    if (texts[i][0] == '[' || texts[i][0] == '{') assert_null(json_parse(texts[i], strlen(texts[i]), 8, NULL));
  }
}

static void test_reader_depth(void **state) {
  (void)state;
  struct json_reader r;
  struct error error = ERROR_INIT;
  char deep[100001];
  memset(deep, '[', sizeof deep - 1);
  deep[sizeof deep - 1] = '\0';
  json_reader_init(&r, deep, sizeof deep - 1);
  assert_int_equal(json_reader_skip(&r, 32, &error), -1);
  assert_non_null(strstr(error.text, "nests deeper"));
  json_reader_clear(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forms),  cmocka_unit_test(test_lower),          cmocka_unit_test(test_many_marks), cmocka_unit_test(test_spaces),
      cmocka_unit_test(test_reader), cmocka_unit_test(test_reader_refuses), cmocka_unit_test(test_reader_depth),
  };
  return cmocka_run_group_tests_name("unicode", tests, NULL, NULL);
}
