/* Which positions of a context count: Python's slices as Python itself has them (tests/vectors/positions/make.py), tokens that are left
 * out, BOS, and all three together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dict/positions.h"

#define SLICES "tests/vectors/positions/slices.txt"
#define LONGEST 7
#define BOUNDS 20 /* open, -9 to 9 */

static int64_t bound_at(int i) { return i == 0 ? SLICE_OPEN : i - 10; }

static void expect_mask(const struct slice *slice, int32_t n, unsigned want) {
  struct positions positions = {.slice = *slice};
  uint8_t mask[LONGEST + 1];
  unsigned got = 0;
  int32_t ones = 0;
  memset(mask, 7, sizeof mask);
  int32_t counted = positions_mark(&positions, NULL, n, mask);
  for (int32_t p = 0; p < n; p++) {
    got |= (unsigned)mask[p] << p;
    ones += mask[p] == 1;
  }
  if (got != want)
    fail_msg("range(%d)[%lld:%lld:%lld] is %02x, Python has %02x", n, (long long)slice->start, (long long)slice->stop, (long long)slice->step,
             got, want);
  assert_true(counted == ones && ones == __builtin_popcount(want) && slice_count(slice, n) == ones);
  assert_int_equal(mask[n], 7); /* and nothing is written behind it */
}

static void every_slice_is_pythons(void **state) {
  (void)state;
  static const int64_t steps[] = {1, 1, 2, 3, 8, SLICE_MOST, -1, -2, -3, -8, -SLICE_MOST};
  FILE *file = fopen(SLICES, "r");
  int seen = 0;
  assert_non_null(file);
  for (int32_t n = 0; n <= LONGEST; n++)
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++)
      for (int start = 0; start < BOUNDS; start++)
        for (int stop = 0; stop < BOUNDS; stop++, seen++) {
          struct slice slice = {true, bound_at(start), bound_at(stop), steps[s]};
          unsigned want;
          assert_int_equal(fscanf(file, " %2x", &want), 1);
          expect_mask(&slice, n, want);
        }
  assert_int_equal(seen, 8 * 11 * BOUNDS * BOUNDS);
  assert_int_equal(fgetc(file), '\n');
  assert_int_equal(fgetc(file), EOF);
  fclose(file);
}

/* The largest numbers that a description may have, over the longest context that there is. */
static void large_numbers_stay_inside(void **state) {
  (void)state;
  const struct slice all = {true, -SLICE_MOST, SLICE_MOST, 1}, none = {true, SLICE_MOST, -SLICE_MOST, 1},
                     back = {true, SLICE_MOST, -SLICE_MOST, -1}, once = {true, SLICE_OPEN, SLICE_OPEN, -SLICE_MOST};
  assert_int_equal(slice_count(&all, INT32_MAX), INT32_MAX);
  assert_int_equal(slice_count(&none, INT32_MAX), 0);
  assert_int_equal(slice_count(&back, INT32_MAX), INT32_MAX - 1); /* -SLICE_MOST of so many is position 0: it stops behind it ... */
  assert_int_equal(slice_count(&back, 1000), 1000);               /* ... and of fewer in front of it. Both are what Python says */
  assert_int_equal(slice_count(&once, INT32_MAX), 1);
}

static const char *marked(const struct positions *positions, const int32_t *ids, int32_t n) {
  static char text[64];
  uint8_t mask[63];
  int32_t counted = positions_mark(positions, ids, n, mask), ones = 0;
  for (int32_t p = 0; p < n; p++) {
    text[p] = (char)('0' + mask[p]);
    ones += mask[p];
  }
  text[n] = '\0';
  assert_int_equal(counted, ones);
  return text;
}

static void a_position_counts_where_all_agree(void **state) {
  (void)state;
  static const int32_t ids[] = {511, 3, 9, 3, 511, 0, 7, 9}, excluded[] = {0, 9, 511};
  struct positions p = {0};
  assert_string_equal(marked(&p, ids, 8), "11111111");
  p.skip_first = true;
  assert_string_equal(marked(&p, ids, 8), "01111111");
  p.excluded = excluded;
  p.n_excluded = 3;
  assert_string_equal(marked(&p, ids, 8), "01010010");
  p.slice = (struct slice){true, 2, -1, 1};
  assert_string_equal(marked(&p, ids, 8), "00010010");
  p.n_excluded = 0;
  assert_string_equal(marked(&p, NULL, 8), "00111110");
  assert_string_equal(marked(&p, NULL, 3), "000"); /* of a shorter context it ends elsewhere */
  p.slice = (struct slice){true, SLICE_OPEN, 1, 1};
  assert_string_equal(marked(&p, NULL, 8), "00000000"); /* BOS alone, which is skipped */
  p.skip_first = false;
  assert_string_equal(marked(&p, NULL, 8), "10000000");
  assert_int_equal(positions_mark(&p, NULL, 0, NULL), 0);
}

static void stretches_are_found(void **state) {
  (void)state;
  static const uint8_t mask[] = {0, 1, 1, 0, 0, 1, 0, 1, 1, 1};
  static const int32_t want[][2] = {{1, 3}, {5, 6}, {7, 10}};
  int32_t begin, end = 0;
  for (int i = 0; i < 3; i++) {
    assert_true(positions_next(mask, 10, &begin, &end));
    assert_true(begin == want[i][0] && end == want[i][1]);
  }
  assert_false(positions_next(mask, 10, &begin, &end));
  end = 0;
  assert_false(positions_next(mask, 1, &begin, &end));
  end = 0;
  assert_false(positions_next(mask, 0, &begin, &end));
}

/* Rules that differ have other names; what says nothing has none, so that the names of dictionaries without a rule stay. */
static void rules_have_names(void **state) {
  (void)state;
  static const int32_t few[] = {1, 2}, more[] = {1, 2, 3};
  const struct positions rules[] = {
      {.skip_first = true},
      {.slice = {true, 1, SLICE_OPEN, 1}},
      {.slice = {true, SLICE_OPEN, 1, 1}},
      {.slice = {true, 1, SLICE_OPEN, 2}},
      {.slice = {true, 1, SLICE_OPEN, -1}},
      {.excluded = few, .n_excluded = 2},
      {.excluded = more, .n_excluded = 3},
      {.excluded = more + 1, .n_excluded = 2},
      {.slice = {true, 1, SLICE_OPEN, 1}, .excluded = few, .n_excluded = 2},
  };
  size_t n = sizeof rules / sizeof *rules;
  assert_int_equal(positions_print(&rules[0]), 0);
  for (size_t i = 1; i < n; i++) {
    assert_true(positions_print(&rules[i]) > 0 && positions_print(&rules[i]) < 1u << 30);
    for (size_t k = 1; k < i; k++) assert_int_not_equal(positions_print(&rules[i]), positions_print(&rules[k]));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_slice_is_pythons), cmocka_unit_test(large_numbers_stay_inside),
                                     cmocka_unit_test(a_position_counts_where_all_agree), cmocka_unit_test(stretches_are_found),
                                     cmocka_unit_test(rules_have_names)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
