/* Directions between groups of rows whose answer is known by hand, and principal directions of a matrix that was made from its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/analysis/contrast.h"

#define NEAR 1e-9 /* sums of a few doubles, and a power method that stops when entries move by 1e-13 */

static void test_means(void **state) {
  (void)state;
  const double positive[] = {1, 2, 3, 6}, negative[] = {0, 1, 4, 1, 2, 1};
  const struct contrast_groups groups = {positive, negative, 2, 3, 2};
  double out[2];
  contrast_mean(&groups, out);
  assert_float_equal(out[0], 0, NEAR);
  assert_float_equal(out[1], 3, NEAR);
}

/* Differences with squares of 9, 4 and 1 along three axes: the first wins, however the pairs are ordered; a mean below zero along it turns it. */
static void test_principal(void **state) {
  (void)state;
  const double positive[] = {0, 1, 0, -3, 0, 0, 0, 0, 2}, zeros[9] = {0};
  const struct contrast_groups groups = {positive, zeros, 3, 3, 3};
  struct error error = ERROR_INIT;
  double out[3];
  assert_int_equal(contrast_principal(&groups, out, &error), 0);
  assert_float_equal(out[0], -1, NEAR); /* mean of {0, 3, 0} along (-1, 0, 0) */
  assert_float_equal(out[1], 0, NEAR);
  assert_float_equal(out[2], 0, NEAR);
}

/* The longest difference points one way, their mean the other. */
static void test_principal_sign(void **state) {
  (void)state;
  const double positive[] = {-5, 2, 2, 2}, zeros[4] = {0};
  const struct contrast_groups groups = {positive, zeros, 4, 4, 1};
  struct error error = ERROR_INIT;
  double out[1];
  assert_int_equal(contrast_principal(&groups, out, &error), 0);
  assert_float_equal(out[0], 0.25, NEAR);
}

/* More pairs than columns, both signs: 40 differences (3 a_i, b_i) turned by an angle, a_i from -1 to 1.5. */
static void test_principal_turned(void **state) {
  (void)state;
  enum { N = 40 };
  static double positive[2 * N], negative[2 * N];
  const double c = cos(0.7), s = sin(0.7);
  double mean = 0;
  for (int i = 0; i < N; i++) {
    double a = 3 * (-1 + 2.5 * i / (N - 1)), b = i % 2 ? 0.5 : -0.5;
    if (i / 2 % 2) b = -b; /* so that a and b have no product in the sum: 0.5, -0.5, -0.5, 0.5 */
    positive[2 * i] = c * a - s * b + i;
    positive[2 * i + 1] = s * a + c * b;
    negative[2 * i] = i;
    mean += a / N;
  }
  const struct contrast_groups groups = {positive, negative, N, N, 2};
  struct error error = ERROR_INIT;
  double out[2];
  assert_int_equal(contrast_principal(&groups, out, &error), 0);
  assert_float_equal(out[0], c * mean, 1e-3 * mean); /* the four-step pattern leaves a product of a few thousandths of a's squares */
  assert_float_equal(out[1], s * mean, 1e-3 * mean);
}

static void test_nothing_to_find(void **state) {
  (void)state;
  const double rows[] = {1, 2, 3, 4};
  const struct contrast_groups groups = {rows, rows, 2, 2, 2};
  struct error error = ERROR_INIT;
  struct contrast told;
  double out[2] = {9, 9};
  assert_int_equal(contrast_principal(&groups, out, &error), 0);
  assert_true(out[0] == 0 && out[1] == 0);
  assert_int_equal(contrast_judge(&groups, out, &told, &error), 0);
  assert_true(told.length == 0 && told.positive == 0 && told.negative == 0 && told.separation == 0.5);
  assert_float_equal(told.row_length, (sqrt(5) + 5) / 2, NEAR);
}

/* Projections 1, 2, 5 against 2, 0: of six pairs four are above, one is equal. */
static void test_judged(void **state) {
  (void)state;
  const double positive[] = {1, 7, 2, 7, 5, 7}, negative[] = {2, 0, 0, 0}, direction[] = {4, 0};
  const struct contrast_groups groups = {positive, negative, 3, 2, 2};
  struct error error = ERROR_INIT;
  struct contrast told;
  assert_int_equal(contrast_judge(&groups, direction, &told, &error), 0);
  assert_float_equal(told.length, 4, NEAR);
  assert_float_equal(told.positive, 8.0 / 3, NEAR);
  assert_float_equal(told.negative, 1, NEAR);
  assert_float_equal(told.separation, 4.5 / 6, NEAR);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_means), cmocka_unit_test(test_principal), cmocka_unit_test(test_principal_turned), cmocka_unit_test(test_principal_sign),
                                     cmocka_unit_test(test_nothing_to_find), cmocka_unit_test(test_judged)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
