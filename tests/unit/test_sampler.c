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
  struct sampler *sampler = sampler_new(&options, V, DRAWS, &error);
  assert_non_null(sampler);
  return sampler;
}

static int32_t draw(struct sampler *sampler) {
  static struct draw_candidate desk[V];
  return sampler_draw(sampler, logits, desk);
}

static int order[V];
static int by_logit(const void *a, const void *b) {
  int x = *(const int *)a, y = *(const int *)b;
  if (logits[x] != logits[y]) return logits[x] < logits[y] ? 1 : -1;
  return x - y;
}

/* Probability of each token by the definition: temperature, then the k first, then the smallest share that reaches p, then
 * what is at least min_p times as likely as the first. */
static void define(double temperature, int64_t k, double p, double min_p, double *probability) {
  double weight[V], total = 0, sum = 0;
  int kept = k > 0 && k < V ? (int)k : V, n = 0;
  for (int i = 0; i < V; i++) order[i] = i, probability[i] = 0;
  qsort(order, V, sizeof *order, by_logit);
  for (int i = 0; i < kept; i++) total += weight[i] = exp((logits[order[i]] - logits[order[0]]) / temperature);
  while (n < kept && (n == 0 || sum < p * total)) sum += weight[n++];
  if (p >= 1) n = kept;
  while (n > 1 && weight[n - 1] < min_p) n--;
  sum = 0;
  for (int i = 0; i < n; i++) sum += weight[i];
  for (int i = 0; i < n; i++) probability[order[i]] = weight[i] / sum;
}

static void check_min(double temperature, int64_t k, double p, double min_p) {
  double probability[V];
  int count[V] = {0};
  define(temperature, k, p, min_p, probability);
  struct sampler *sampler =
      make((struct sampler_options){.temperature = temperature, .top_k = k, .top_p = p, .min_p = min_p, .seed = 7});
  for (int i = 0; i < DRAWS; i++) count[draw(sampler)]++;
  sampler_free(sampler);
  for (int i = 0; i < V; i++) {
    /* Five standard deviations of a binomial: one false alarm in two million tokens; what is filtered never comes. */
    double slack = 5 * sqrt(DRAWS * probability[i] * (1 - probability[i]));
    if (fabs(count[i] - DRAWS * probability[i]) > slack)
      fail_msg("T %g k %lld p %g min %g: token %d came %d times, expected %.1f +- %.1f", temperature, (long long)k, p, min_p, i,
               count[i], DRAWS * probability[i], slack);
  }
}

static void check(double temperature, int64_t k, double p) { check_min(temperature, k, p, 0); }

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
    check_min(1, 0, 1, 0.3);
    check_min(1.5, 20, 1, 0.2);
    check_min(1, 0, 0.9, 0.5);
    check_min(1, 0, 1, 1);
  }
}

static void test_greedy(void **state) {
  (void)state;
  make_logits(1);
  logits[10] = logits[30] = 99; /* equals: the lower id */
  struct sampler *sampler = make((struct sampler_options){.top_p = 1, .seed = 1});
  for (int i = 0; i < 3; i++) assert_int_equal(draw(sampler), 10);
  sampler_free(sampler);
  sampler = make((struct sampler_options){.top_p = 1, .frequency_penalty = 1.5, .seed = 1}); /* each use costs 1.5 */
  logits[10] = 9;
  logits[30] = 8;
  logits[20] = 6.7f;
  for (int i = 0; i < V; i++)
    if (i != 10 && i != 20 && i != 30) logits[i] = 0;
  static const int want[] = {10, 30, 10, 20, 30, 10};
  for (int i = 0; i < 6; i++) assert_int_equal(draw(sampler), want[i]);
  sampler_free(sampler);
}

/* OpenAI's formula, written out: logit - count * frequency - (count > 0) * presence + bias. */
static void test_penalties_and_bias(void **state) {
  (void)state;
  static const struct sampler_bias bias[] = {{3, 2.5f}, {4, -100}, {17, 1.25f}};
  static const double frequency[] = {0, 0.5, -0.7, 2}, presence[] = {0, 1.5, 0.25, -2};
  for (unsigned round = 0; round < 16; round++) {
    make_logits(100 + round);
    int times[V] = {0};
    struct sampler_options options = {.top_p = 1, .frequency_penalty = frequency[round % 4], .presence_penalty = presence[round / 4],
                                      .bias = bias, .n_bias = round % 3 ? 3 : 0};
    struct sampler *sampler = make(options);
    for (int i = 0; i < 60; i++) {
      int best = 0;
      float value[V];
      for (int t = 0; t < V; t++) {
        value[t] = logits[t];
        if (times[t]) value[t] -= (float)(options.frequency_penalty * times[t] + options.presence_penalty);
        for (size_t b = 0; b < options.n_bias; b++) value[t] += bias[b].token == t ? bias[b].value : 0;
        if (value[t] > value[best]) best = t;
      }
      assert_int_equal(draw(sampler), best);
      times[best]++;
    }
    sampler_free(sampler);
  }
}

/* A bias of 100 leaves no other token, one of -100 never lets it come; streams of one seed differ. */
static void test_bias_and_streams_when_drawn(void **state) {
  (void)state;
  make_logits(5);
  struct sampler *sampler = make((struct sampler_options){.top_p = 1});
  const struct sampler_bias only = {7, 100}, never = {draw(sampler), -100}; /* never: the likeliest */
  sampler_free(sampler);
  sampler = make((struct sampler_options){.temperature = 1, .top_p = 1, .bias = &only, .n_bias = 1});
  for (int i = 0; i < 100; i++) assert_int_equal(draw(sampler), 7);
  sampler_free(sampler);
  struct sampler *a = make((struct sampler_options){.temperature = 1, .top_p = 1, .bias = &never, .n_bias = 1});
  struct sampler *b = make((struct sampler_options){.temperature = 1, .top_p = 1, .bias = &never, .n_bias = 1, .stream = 1});
  int differ = 0;
  for (int i = 0; i < 500; i++) {
    int32_t x = draw(a), y = draw(b);
    assert_true(x != never.token && y != never.token);
    differ += x != y;
  }
  assert_true(differ > 100);
  sampler_free(a);
  sampler_free(b);
}

static void test_same_seed(void **state) {
  (void)state;
  make_logits(2);
  struct sampler_options options = {
      .temperature = 0.9, .top_k = 20, .top_p = 0.95, .frequency_penalty = 0.3, .seed = 12345};
  struct sampler *a = make(options), *b = make(options);
  options.seed++;
  struct sampler *c = make(options);
  int differ = 0;
  for (int i = 0; i < 100; i++) {
    int32_t x = draw(a);
    assert_int_equal(x, draw(b));
    differ += x != draw(c);
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
                                     cmocka_unit_test(test_penalties_and_bias),
                                     cmocka_unit_test(test_bias_and_streams_when_drawn),
                                     cmocka_unit_test(test_same_seed), cmocka_unit_test(test_logprobs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
