/* Automatic explanations say what the examples show, in one readable sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "core/analysis/explain.h"

static void expect(const struct explain_input *input, const char *want) {
  struct buffer out;
  buffer_init(&out, 0);
  explain_feature(input, &out);
  assert_string_equal(out.data, want);
  buffer_clear(&out);
}

static void test_one_word(void **state) {
  (void)state;
  static const struct explain_example same[] = {{" sea", " the"}, {"Sea", " the"}, {" sea", " a"}, {" sea", " the"}};
  static const char *const promoted[] = {" shore", "\n", " salt", " fish"};
  expect(&(struct explain_input){same, 4, promoted, 4, 0.01},
         "fires on “sea”, mostly after “the”; promotes “shore”, a newline and “salt”");
}

static void test_many_words(void **state) {
  (void)state;
  static const struct explain_example many[] = {{"a", NULL}, {"b", "x"}, {"c", "y"}, {"d", "z"}, {"e", "v"}, {"f", "w"}};
  expect(&(struct explain_input){many, 6, NULL, 0, 0.1}, "fires on various tokens, among them “a”, “b” and “c”");
}

static void test_nothing(void **state) {
  (void)state;
  static const char *const promoted[] = {" x"}, *const unseen[] = {"\x17"}, *const lines[] = {".\n\n"};
  expect(&(struct explain_input){NULL, 0, unseen, 1, -1}, "no statistics yet; promotes “\\x17”");
  expect(&(struct explain_input){NULL, 0, lines, 1, -1}, "no statistics yet; promotes “.↵↵”");
  expect(&(struct explain_input){NULL, 0, promoted, 1, 0}, "never fired on the text of the statistics; promotes “x”");
  expect(&(struct explain_input){NULL, 0, NULL, 0, -1}, "no statistics yet");
}

static void test_dense(void **state) {
  (void)state;
  static const struct explain_example one[] = {{" ", "e"}, {" ", "e"}, {" ", "e"}};
  expect(&(struct explain_input){one, 3, NULL, 0, 0.57}, "fires on most tokens, most strongly on a space, mostly after “e”");
}

static void test_often(void **state) {
  (void)state;
  static const struct explain_example one[] = {{"'re", "you"}, {"'re", "you"}, {"'re", "we"}};
  expect(&(struct explain_input){one, 3, NULL, 0, 0.22}, "fires on many tokens, most strongly on “'re”");
  expect(&(struct explain_input){one, 3, NULL, 0, 0.02}, "fires on “'re”");
}

/* Of four examples or of twenty: the strongest is told, whichever is the commonest. */
static void test_the_strongest(void **state) {
  (void)state;
  static const struct explain_example rare[] = {{"Sh", NULL}, {"a", NULL}, {"a", NULL}, {"b", NULL}, {"b", NULL}, {"c", NULL}, {"c", NULL}, {"d", NULL}, {"e", NULL}};
  expect(&(struct explain_input){rare, 9, NULL, 0, 0.01}, "fires on various tokens, among them “a”, “b” and “Sh”");
  static const struct explain_example one[] = {{"Sh", NULL}, {"a", NULL}, {"a", NULL}, {"a", NULL}, {"a", NULL}};
  expect(&(struct explain_input){one, 5, NULL, 0, 0.01}, "fires on “a”, most strongly on “Sh”");
  expect(&(struct explain_input){one, 5, NULL, 0, 0.3}, "fires on many tokens, most strongly on “a” or “Sh”");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_word), cmocka_unit_test(test_many_words),
                                     cmocka_unit_test(test_nothing), cmocka_unit_test(test_dense),
                                     cmocka_unit_test(test_often), cmocka_unit_test(test_the_strongest)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
