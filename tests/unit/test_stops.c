/* Stop strings against a search by hand, in every cutting of the text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/stops.h"

static struct arena arena;

static struct stops make(const char *const *texts, size_t n) {
  struct error error = ERROR_INIT;
  struct stops stops = {0};
  size_t lengths[STOPS_MOST];
  for (size_t i = 0; i < n; i++) lengths[i] = strlen(texts[i]);
  assert_int_equal(stops_make(&stops, texts, lengths, n, &arena, &error), 0);
  return stops;
}

/* The definition: the first end at which some string is complete; the longest of those. -1: none. */
static long find(const char *text, size_t length, const char *const *texts, size_t n) {
  for (size_t end = 1; end <= length; end++) {
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
      size_t m = strlen(texts[i]);
      if (m <= end && m > best && memcmp(text + end - m, texts[i], m) == 0) best = m;
    }
    if (best) return (long)(end - best);
  }
  return -1;
}

/* Bytes at the end that some string begins with. */
static size_t open_end(const char *text, size_t length, const char *const *texts, size_t n) {
  for (size_t m = length; m > 0; m--)
    for (size_t i = 0; i < n; i++)
      if (m < strlen(texts[i]) && memcmp(text + length - m, texts[i], m) == 0) return m;
  return 0;
}

static void check(const char *text, const char *const *texts, size_t n, unsigned cuts) {
  struct stops stops = make(texts, n);
  struct stops_at at = {0};
  size_t length = strlen(text), shown = 0;
  long want = find(text, length, texts, n);
  for (size_t end = 1; end <= length; end++) {
    if (end < length && (cuts >> (end % 16) & 1)) continue;
    stops_read(&stops, &at, text, end);
    assert_true(at.certain >= shown); /* nothing shown is taken back */
    shown = at.certain;
    if (!at.found) assert_int_equal(at.certain, end - open_end(text, end, texts, n));
  }
  assert_int_equal(at.found, want >= 0);
  if (want >= 0) assert_int_equal(at.certain, want);
}

static void test_by_hand(void **state) {
  (void)state;
  static const char *const one[] = {"abc"}, *const nested[] = {"abcd", "bc"}, *const same_end[] = {"c", "abc"};
  static const char *const repeats[] = {"aab"}, *const umlaut[] = {"\xC3\xA9"};
  check("xxabcxx", one, 1, 0);
  check("ababab", one, 1, 0);
  check("xabcd", nested, 2, 0);
  check("xabc", same_end, 2, 0);
  check("aaaaab", repeats, 1, 0);
  check("caf\xC3\xA8 caf\xC3\xA9!", umlaut, 1, 0);
  check("anything", NULL, 0, 0);
}

/* Random texts of two letters, where everything overlaps everything. */
static void test_random(void **state) {
  (void)state;
  srand(11);
  for (int round = 0; round < 20000; round++) {
    char text[40], words[STOPS_MOST][8];
    const char *list[STOPS_MOST];
    size_t n = (size_t)(rand() % (STOPS_MOST + 1)), length = (size_t)(rand() % 39);
    for (size_t i = 0; i < length; i++) text[i] = (char)('a' + rand() % 2);
    text[length] = '\0';
    for (size_t i = 0; i < n; i++) {
      size_t m = 1 + (size_t)(rand() % 6);
      for (size_t k = 0; k < m; k++) words[i][k] = (char)('a' + rand() % 2);
      words[i][m] = '\0';
      list[i] = words[i];
    }
    check(text, list, n, (unsigned)rand());
    arena_clear(&arena);
    arena_init(&arena, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_hand), cmocka_unit_test(test_random)};
  arena_init(&arena, 0);
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  arena_clear(&arena);
  return failed;
}
