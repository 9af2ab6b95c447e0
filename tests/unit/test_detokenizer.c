/* test_detokenizer.c: characters that tokens split wait; bytes that are none are replaced as Python does. */
#include "core/model/detokenizer.h"
#include "tests/unit/tokenizer_helpers.h"

/* The id of a single byte in the plain tokenizer. */
static int32_t byte_id(const struct tokenizer *t, unsigned char byte) {
  size_t length;
  for (int32_t id = 0; id < tokenizer_size(t); id++)
    if (*tokenizer_bytes(t, id, &length) == (char)byte && length == 1)
      return id;
  fail_msg("no piece for byte %d", byte);
  return -1;
}

static void push_bytes(struct detokenizer *d, const char *bytes, size_t length) {
  for (size_t i = 0; i < length; i++)
    assert_int_equal(detokenizer_push(d, byte_id(d->tokenizer, (unsigned char)bytes[i])), 0);
}

static void test_detokenizer_waits(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/plain");
  struct detokenizer d;
  detokenizer_init(&d, t);
  push_bytes(&d, "a\xF0\x9F\x9A", 4);
  assert_string_equal(d.text.data, "a");
  push_bytes(&d, "\x80", 1);
  assert_string_equal(d.text.data, "a🚀");
  assert_int_equal(detokenizer_push(&d, -1), 0);
  assert_int_equal(detokenizer_push(&d, tokenizer_size(t)), 0);
  push_bytes(&d, "\xC3", 1);
  assert_string_equal(d.text.data, "a🚀");
  assert_int_equal(detokenizer_push(&d, 0), 0); /* a control token does not complete a character */
  assert_string_equal(d.text.data, "a🚀\xEF\xBF\xBD" END);
  push_bytes(&d, "\xE6\xBC", 2);
  detokenizer_finish(&d);
  detokenizer_finish(&d);
  assert_string_equal(d.text.data, "a🚀\xEF\xBF\xBD" END "\xEF\xBF\xBD");
  detokenizer_clear(&d);
  push_bytes(&d, "b", 1);
  assert_string_equal(d.text.data, "b");
  detokenizer_clear(&d);
  tokenizer_free(t);
}

/* Results of Python's bytes.decode("utf-8", "replace"). */
static void test_detokenizer_replaces(void **state) {
  (void)state;
  static const char *const texts[][2] = {
      {"\xFF", "�"},
      {"\x80\x80", "��"},
      {"\xF0\x9F"
       "A",
       "�A"},
      {"\xF0\x9F\x9F\xF0\x9F\x9A\x80", "�🚀"},
      {"\xE2\x82\xC3\xA9", "�é"},
      {"\xC0\xAF", "��"},
      {"\xED\xA0\x80", "���"},
      {"\xF4\x90\x80\x80", "����"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
       "A",
       "����A"},
      {"\xF1\xBF", "�"},
  };
  struct tokenizer *t = open_folder(VECTORS "/plain");
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct detokenizer d;
    detokenizer_init(&d, t);
    push_bytes(&d, texts[i][0], strlen(texts[i][0]));
    detokenizer_finish(&d);
    assert_string_equal(d.text.data, texts[i][1]);
    detokenizer_clear(&d);
  }
  tokenizer_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_detokenizer_waits),
      cmocka_unit_test(test_detokenizer_replaces),
  };
  return cmocka_run_group_tests_name("detokenizer", tests, NULL, NULL);
}
