/* Sampling against its definition: the filters against a sort, frequencies against probabilities, log-probabilities
 * against the softmax. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "core/engine/sampler.h"

#define V 50
#define DRAWS 20000

static float logits[V];

static void make_logits(unsigned seed) {
  srand(seed);
  for (int i = 0; i < V; i++) logits[i] = (float)(rand() % 41 - 20) / 6.0f; /* with equals among them */
}

static struct sampler *make(struct sampler_options options) {
  struct error error = ERROR_INIT;
  struct sampler *sampler = sampler_new(&options, V, &error);
  assert_non_null(sampler);
  return sampler;
}

static int order[V];
static int by_logit(const void *a, const void *b) {
  int x = *(const int *)a, y = *(const int *)b;
  if (logits[x] != logits[y]) return logits[x] < logits[y] ? 1 : -1;
  return x - y;
}

/* Probability of each token by the definition: temperature, then the k first, then the smallest share that reaches p. */
static void define(double temperature, int64_t k, double p, double *probability) {
  double weight[V], total = 0, sum = 0;
  int kept = k > 0 && k < V ? (int)k : V, n = 0;
  for (int i = 0; i < V; i++) order[i] = i, probability[i] = 0;
  qsort(order, V, sizeof *order, by_logit);
  for (int i = 0; i < kept; i++) total += weight[i] = exp((logits[order[i]] - logits[order[0]]) / temperature);
  while (n < kept && (n == 0 || sum < p * total)) sum += weight[n++];
  if (p >= 1) n = kept, sum = total;
  for (int i = 0; i < n; i++) probability[order[i]] = weight[i] / sum;
}

static void check(double temperature, int64_t k, double p) {
  double probability[V];
  int count[V] = {0};
  define(temperature, k, p, probability);
  struct sampler *sampler = make((struct sampler_options){temperature, k, p, 0, 7});
  for (int i = 0; i < DRAWS; i++) count[sampler_draw(sampler, logits)]++;
  sampler_free(sampler);
  for (int i = 0; i < V; i++) {
    /* Five standard deviations of a binomial: one false alarm in two million tokens; what is filtered never comes. */
    double slack = 5 * sqrt(DRAWS * probability[i] * (1 - probability[i]));
    if (fabs(count[i] - DRAWS * probability[i]) > slack)
      fail_msg("T %g k %lld p %g: token %d came %d times, expected %.1f +- %.1f", temperature, (long long)k, p, i,
               count[i], DRAWS * probability[i], slack);
  }
}

static void test_filters(void **state) {
  (void)state;
  for (unsigned seed = 0; seed < 4; seed++) {
    make_logits(seed);
    check(1, 0, 1);
    check(0.7, 5, 1);
    check(1.3, 0, 0.9);
    check(1, 0, 0.05);
    check(1, 12, 0.5);
    check(1, 0, 0);
    check(1, 12, 0);
    check(1, 1, 1);
    check(2, V + 5, 0.999);
  }
}

static void test_greedy(void **state) {
  (void)state;
  make_logits(1);
  logits[10] = logits[30] = 99; /* equals: the lower id */
  struct sampler *sampler = make((struct sampler_options){0, 0, 1, 0, 1});
  for (int i = 0; i < 3; i++) assert_int_equal(sampler_draw(sampler, logits), 10);
  sampler_free(sampler);
  sampler = make((struct sampler_options){0, 0, 1, 1.5, 1}); /* each use costs 1.5 */
  logits[10] = 9;
  logits[30] = 8;
  logits[20] = 6.7f;
  for (int i = 0; i < V; i++)
    if (i != 10 && i != 20 && i != 30) logits[i] = 0;
  static const int want[] = {10, 30, 10, 20, 30, 10};
  for (int i = 0; i < 6; i++) assert_int_equal(sampler_draw(sampler, logits), want[i]);
  sampler_free(sampler);
}

static void test_same_seed(void **state) {
  (void)state;
  make_logits(2);
  struct sampler_options options = {0.9, 20, 0.95, 0.3, 12345};
  struct sampler *a = make(options), *b = make(options);
  options.seed++;
  struct sampler *c = make(options);
  int differ = 0;
  for (int i = 0; i < 100; i++) {
    int32_t x = sampler_draw(a, logits);
    assert_int_equal(x, sampler_draw(b, logits));
    differ += x != sampler_draw(c, logits);
  }
  assert_true(differ > 20);
  sampler_free(a);
  sampler_free(b);
  sampler_free(c);
}

static void test_logprobs(void **state) {
  (void)state;
  make_logits(3);
  struct sampler_likely likely[V + 3];
  double total = 0;
  for (int i = 0; i < V; i++) order[i] = i, total += exp((double)logits[i]);
  qsort(order, V, sizeof *order, by_logit);
  assert_int_equal(sampler_most_likely(logits, V, 8, likely), 8);
  for (int i = 0; i < 8; i++) {
    assert_int_equal(likely[i].token, order[i]);
    /* One rounding to float32 of a sum in double. */
    assert_true(fabs(likely[i].logprob - (logits[order[i]] - log(total))) < 1e-6);
    assert_true(sampler_logprob(logits, V, order[i]) == likely[i].logprob);
  }
  assert_int_equal(sampler_most_likely(logits, V, V + 3, likely), V);
  assert_int_equal(sampler_most_likely(logits, V, 0, likely), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_filters), cmocka_unit_test(test_greedy),
                                     cmocka_unit_test(test_same_seed), cmocka_unit_test(test_logprobs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
