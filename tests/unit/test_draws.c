/* Draws of a step by the threads of the fast backends: the tokens and probabilities of the sampler, which draws one after the
 * other. */
#include "core/engine/sampler.h"
#include "tests/unit/ops_world.h"

enum { ROWS = 9, WORDS = 1003, STRIDE = WORDS + 5, TURNS = 4 };

/* Noise, equals, one number, both zeros and -inf, NaN in places. */
static void make_logits(float *logits) {
  fill(logits, ROWS * STRIDE, 40, 6);
  for (int i = 0; i < WORDS; i++) {
    logits[1 * STRIDE + i] = rintf(2 * logits[i]) / 2;
    logits[2 * STRIDE + i] = -3;
    logits[3 * STRIDE + i] = i % 3 ? -INFINITY : i % 2 ? 0.0f : -0.0f;
  }
}

static void compare_result(const struct sample_result *result, const float *logits, int32_t want, int n_likely) {
  static struct sampler_likely expected[SAMPLE_MOST_LIKELY], told[SAMPLE_MOST_LIKELY];
  assert_int_equal(result->token, want);
  assert_true(result->logit == logits[want]);
  if (n_likely < 0) return;
  assert_true(sampler_drawn_logprob(result) == sampler_logprob(logits, WORDS, want));
  int n = sampler_most_likely(logits, WORDS, n_likely, expected);
  assert_int_equal(sampler_drawn_likely(result, told), n);
  assert_memory_equal(told, expected, (size_t)n * sizeof *told);
}

static void compare_draws(struct backend *backend, struct span at, const float *logits, struct sampler_options options, int n_likely) {
  static struct draw_candidate desk[WORDS];
  static struct sample_result results[ROWS];
  struct sampler *alone[ROWS], *shared[ROWS];
  struct error error = ERROR_INIT;
  for (int row = 0; row < ROWS; row++, options.stream++) {
    alone[row] = sampler_new(&options, WORDS, TURNS, &error);
    shared[row] = sampler_new(&options, WORDS, TURNS, &error);
  }
  for (int turn = 0; turn < TURNS; turn++) {
    struct sample_draw draws[ROWS];
    int n = turn == 0 ? 1 : ROWS; /* one draw is nobody else's work */
    for (int row = 0; row < n; row++) {
      draws[row] = sampler_describe(shared[row]);
      draws[row].row = row < ROWS - 1 ? row : 0; /* two from one row */
      if (row % 2) draws[row].n_likely = n_likely;
    }
    assert_int_equal(backend->ops->sample(backend, (struct rows){at, STRIDE}, WORDS, draws, n, results, &error), 0);
    for (int row = 0; row < n; row++) {
      const float *from = logits + draws[row].row * STRIDE;
      compare_result(&results[row], from, sampler_draw(alone[row], from, desk), draws[row].n_likely);
      sampler_take(shared[row], results[row].token);
    }
  }
  for (int row = 0; row < ROWS; row++) sampler_free(alone[row]), sampler_free(shared[row]);
}

static void test_draws_are_the_samplers(void **state) {
  (void)state;
  static const struct sampler_bias bias[] = {{3, 4.5f}, {0, -100}, {WORDS - 1, 29.75f}};
  static const struct sampler_options kinds[] = {
      {.top_p = 1}, {.temperature = 1, .top_p = 1}, {.temperature = 2, .top_p = 1, .top_k = 7}, {.temperature = 1, .top_p = 0.5},
      {.temperature = 1, .top_p = 0.9, .top_k = 40, .min_p = 0.1}, {.top_p = 1, .frequency_penalty = 2, .presence_penalty = 1},
      {.temperature = 0.8, .top_p = 1, .frequency_penalty = 1, .bias = bias, .n_bias = 3}};
  static float logits[ROWS * STRIDE];
  make_logits(logits);
  for (int threads = 1; threads <= 4; threads++) {
    struct backend *backend = must_open("cpu", threads);
    struct span at = must_put(backend, logits, ROWS * STRIDE);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
      compare_draws(backend, at, logits, kinds[i], i % 2 ? 5 : SAMPLE_MOST_LIKELY);
    drop(backend, at);
    backend_close(backend);
  }
}

/* Of equals the first, wherever sixteen end, and NaN is none unless it comes first. */
static void test_largest_is_the_first_of_equals(void **state) {
  (void)state;
  float logits[67];
  for (int n = 1; n <= 67; n++)
    for (int at = 0; at < n; at++) {
      for (int i = 0; i < n; i++) logits[i] = i < at ? -1 : i % 3 == 2 && i > at ? NAN : 2;
      assert_int_equal(draw_largest(logits, n), at);
      logits[0] = NAN;
      assert_int_equal(draw_largest(logits, n), 0);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_draws_are_the_samplers),
                                     cmocka_unit_test(test_largest_is_the_first_of_equals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
