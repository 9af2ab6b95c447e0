/* cmocka.h: the few verbs of cmocka that the tests of core/math use, for machines that do not have it. A failed test ends by a
 * jump, as cmocka's do. */
#ifndef STEERD_TESTS_GPU_CMOCKA_H
#define STEERD_TESTS_GPU_CMOCKA_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
  const char *name;
  void (*run)(void **state);
};
#define cmocka_unit_test(f) {#f, f}

static jmp_buf cmocka_back;
enum { CMOCKA_FAILED = 1, CMOCKA_SKIPPED };

#define fail_msg(...) \
  (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), longjmp(cmocka_back, CMOCKA_FAILED))
#define skip() longjmp(cmocka_back, CMOCKA_SKIPPED)
#define assert_true(c) ((c) ? (void)0 : fail_msg("%s", #c))
#define assert_false(c) assert_true(!(c))
#define assert_null(p) assert_true((p) == NULL)
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_int_equal(a, b) assert_true((intmax_t)(a) == (intmax_t)(b))
#define assert_string_equal(a, b) assert_true(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_int_not_equal(a, b) assert_true((intmax_t)(a) != (intmax_t)(b))
#define assert_float_equal(a, b, limit) assert_true(fabs((double)(a) - (double)(b)) <= (double)(limit)) /* of those who include math.h */
#define assert_string_not_equal(a, b) assert_true(strcmp(a, b) != 0)
#define cmocka_run_group_tests(tests, setup, teardown) cmocka_run(tests, sizeof(tests) / sizeof *(tests))

static inline int cmocka_run_one(const struct CMUnitTest *test) {
  void *state = NULL;
  printf("[ RUN      ] %s\n", test->name);
  fflush(stdout); /* whatever happens, it is known where */
  int ended = setjmp(cmocka_back);
  if (!ended) test->run(&state);
  printf("[ %s ] %s\n", ended == CMOCKA_FAILED ? " FAILED" : ended ? "SKIPPED" : "     OK", test->name);
  fflush(stdout);
  return ended == CMOCKA_FAILED;
}

static inline int cmocka_run(const struct CMUnitTest *tests, size_t n) {
  int failed = 0;
  for (size_t i = 0; i < n; i++) failed += cmocka_run_one(&tests[i]);
  printf("[==========] %zu test(s) run.\n", n);
  return failed;
}

#endif
