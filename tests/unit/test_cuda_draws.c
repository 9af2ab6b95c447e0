/* Draws of the CUDA backend against those of the sampler on the host. Needs a library (STEERD_CUDA_LIBRARY), emulated or
 * real. */
#include "core/engine/sampler.h"
#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

enum { ROWS = 5, FEW_WORDS = 700, WORDS = 9001, STRIDE = WORDS + 3 }; /* of three blocks a row, the last one short */

struct draws {
  struct backend *backend;
  struct span at;
  float *logits;
  int64_t words;
  int turns;
};

/* What the host says of a token's probability, and what came with the draw. f32 rounds the same double but for its last bits: sums
 * in another order move it by 1e-13 or so. */
static void compare_likely(const float *logits, int64_t words, int n, const struct sample_result *result) {
  static struct sampler_likely want[SAMPLE_MOST_LIKELY], got[SAMPLE_MOST_LIKELY];
  int found = sampler_most_likely(logits, words, n, want);
  assert_int_equal(sampler_drawn_likely(result, got), found);
  for (int i = 0; i < found; i++) {
    if (got[i].token != want[i].token) fail_msg("likely token %d of %d is %d, not %d", i, n, got[i].token, want[i].token);
    assert_true(got[i].logprob == want[i].logprob || fabsf(got[i].logprob - want[i].logprob) <= 1e-6f * fabsf(want[i].logprob));
  }
  float expect = sampler_logprob(logits, words, result->token), told = sampler_drawn_logprob(result);
  assert_true(told == expect || fabsf(told - expect) <= 1e-6f * fabsf(expect));
}

/* Draws of one position after the other, by the device and by the sampler of the engine, from the same rows: the same tokens.
 * Amounts of a device are whole numbers of 2^-40, so a draw differs only where its number falls so close to a border. */
static void compare_draws(const struct draws *d, struct sampler_options options, int n_likely) {
  static struct draw_candidate desk[WORDS];
  struct sampler *a[ROWS], *b[ROWS];
  struct error error = ERROR_INIT;
  for (int row = 0; row < ROWS; row++, options.stream++) {
    a[row] = sampler_new(&options, d->words, d->turns, &error);
    b[row] = sampler_new(&options, d->words, d->turns, &error);
  }
  for (int turn = 0; turn < d->turns; turn++) {
    struct sample_draw draws[ROWS];
    static struct sample_result results[ROWS];
    for (int row = 0; row < ROWS; row++) {
      draws[row] = sampler_describe(b[row]);
      draws[row].row = row;
      if (row % 2) draws[row].n_likely = n_likely;
    }
    draws[4].row = 0; /* two from one row */
    assert_int_equal(d->backend->ops->sample(d->backend, (struct rows){d->at, STRIDE}, d->words, draws, ROWS, results, &error), 0);
    assert_int_equal(backend_wait(d->backend, &error), 0);
    for (int row = 0; row < ROWS; row++) {
      const float *logits = d->logits + (size_t)draws[row].row * STRIDE;
      int32_t want = sampler_draw(a[row], logits, desk), token = results[row].token;
      if (token != want)
        fail_msg("row %d turn %d, k %lld p %g min %g heat %g: token %d, not %d", row, turn, (long long)options.top_k, options.top_p,
                 options.min_p, options.temperature, token, want);
      assert_true(results[row].logit == logits[token]);
      if (draws[row].n_likely >= 0) compare_likely(logits, d->words, n_likely, &results[row]);
      sampler_take(b[row], token);
    }
  }
  for (int row = 0; row < ROWS; row++) sampler_free(a[row]), sampler_free(b[row]);
}

/* Rows of noise, of equals by halves, of one number, with both zeros and -inf, and noise again. */
static struct draws draws_open(int64_t words, int turns) {
  static float logits[ROWS * STRIDE];
  struct draws d = {must_open("cuda", 1), {NULL, 0}, logits, words, turns};
  fill(logits, ROWS * STRIDE, 40, 6);
  for (int i = 0; i < WORDS; i++) {
    logits[1 * STRIDE + i] = rintf(2 * logits[i]) / 2;
    logits[2 * STRIDE + i] = -3;
    logits[3 * STRIDE + i] = i % 3 ? -INFINITY : i % 2 ? 0.0f : -0.0f;
  }
  d.at = must_put(d.backend, logits, ROWS * STRIDE);
  return d;
}

static void draws_close(const struct draws *d) {
  drop(d->backend, d->at);
  backend_close(d->backend);
}

static void test_draws(void **state) {
  (void)state;
  static const struct { int64_t k; double p, min; } filters[] = {
      {0, 1, 0}, {1, 1, 0}, {7, 1, 0}, {300, 1, 0}, {FEW_WORDS, 1, 0}, {0, 0.9, 0}, {0, 0.3, 0}, {0, 0, 0}, {20, 0.8, 0},
      {300, 0.99, 0}, {699, 0.5, 0}, {0, 1, 0.1}, {0, 1, 1}, {0, 0.9, 0.02}, {50, 1, 0.001}, {50, 0.95, 0.3}};
  struct draws d = draws_open(FEW_WORDS, 12);
  for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
    for (int heat = 0; heat < 3; heat++)
      compare_draws(&d, (struct sampler_options){.temperature = heat, .top_k = filters[i].k, .top_p = filters[i].p,
                                                 .min_p = filters[i].min, .seed = 11 + heat, .stream = 2}, heat ? 5 * heat : -1);
  draws_close(&d);
}

/* Rows of several blocks: what one of them has goes together with what the others have. Among the filters are those that leave more
 * than one block takes from all (4,096), or is given by one (512). */
static void test_draws_from_long_rows(void **state) {
  (void)state;
  static const struct { int64_t k; double p, min, heat; } filters[] = {{0, 1, 0, 0}, {0, 1, 0, 1}, {40, 1, 0, 1}, {0, 0.9, 0, 1},
                                                                       {8000, 1, 0, 1}, {0, 0.999, 0, 30}, {600, 0.9, 0.1, 2}};
  struct draws d = draws_open(WORDS, 4);
  for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
    compare_draws(&d, (struct sampler_options){.temperature = filters[i].heat, .top_k = filters[i].k, .top_p = filters[i].p,
                                               .min_p = filters[i].min, .seed = 5}, i % 2 ? 20 : 0);
  draws_close(&d);
}

/* More blocks than one has threads to look at their sums. */
static void test_draws_from_the_longest_rows(void **state) {
  (void)state;
  enum { LONG = 4096 * 260 + 5 };
  struct backend *backend = must_open("cuda", 1);
  struct error error = ERROR_INIT;
  float *logits = malloc(LONG * sizeof *logits);
  struct draw_candidate *desk = malloc(LONG * sizeof *desk);
  fill(logits, LONG, 41, 2);
  struct span at = must_put(backend, logits, LONG);
  for (int kind = 0; kind < 2; kind++) {
    struct sampler_options options = {.temperature = 1, .top_p = 1, .top_k = kind ? 50 : 0, .seed = 6};
    struct sampler *a = sampler_new(&options, LONG, 6, &error), *b = sampler_new(&options, LONG, 6, &error);
    for (int turn = 0; turn < 6; turn++) {
      static struct sample_result result;
      struct sample_draw draw = sampler_describe(b);
      assert_int_equal(backend->ops->sample(backend, (struct rows){at, LONG}, LONG, &draw, 1, &result, &error), 0);
      assert_int_equal(backend_wait(backend, &error), 0);
      assert_int_equal(result.token, sampler_draw(a, logits, desk));
      sampler_take(b, result.token);
    }
    sampler_free(a);
    sampler_free(b);
  }
  free(desk);
  free(logits);
  drop(backend, at);
  backend_close(backend);
}

/* What was drawn before counts against itself, and biases lie on top of that, on the likeliest tokens of some rows. */
static void test_draws_with_changed_logits(void **state) {
  (void)state;
  static const struct sampler_bias bias[] = {{3, 4.5f}, {0, -100}, {5000, 30}, {WORDS - 1, 29.75f}, {17, 0.125f}};
  struct draws d = draws_open(WORDS, 8);
  struct sampler_options options = {.temperature = 0, .top_p = 1, .frequency_penalty = 0.75, .presence_penalty = 0.5, .seed = 3};
  compare_draws(&d, options, 4);
  options.bias = bias;
  options.n_bias = sizeof bias / sizeof *bias;
  compare_draws(&d, options, 4);
  options.temperature = 0.8;
  compare_draws(&d, options, 64);
  options.top_p = 0.95;
  options.presence_penalty = -1;
  compare_draws(&d, options, 1);
  options.frequency_penalty = options.presence_penalty = 0;
  compare_draws(&d, options, -1);
  draws_close(&d);
}

/* More than one launch takes, from few rows. */
static void test_many_draws(void **state) {
  (void)state;
  enum { MANY = 100 };
  struct draws d = draws_open(FEW_WORDS, 1);
  struct error error = ERROR_INIT;
  static struct sample_draw draws[MANY];
  static struct sample_result results[MANY];
  static const struct sample_change push[] = {{6, 1000}, {7, 1001}};
  for (int i = 0; i < MANY; i++)
    draws[i] = (struct sample_draw){.row = i % ROWS, .temperature = i % 3, .top_p = 1, .unit = 0.5, .n_likely = -1,
                                    .biases = push + i % 2, .n_biases = i % 5 == 0};
  assert_int_equal(d.backend->ops->sample(d.backend, (struct rows){d.at, STRIDE}, FEW_WORDS, draws, MANY, results, &error), 0);
  assert_int_equal(backend_wait(d.backend, &error), 0);
  for (int i = 0; i < MANY; i++)
    if (i % 5 == 0)
      assert_int_equal(results[i].token, 6 + i % 2);
    else if (i >= 15)
      assert_int_equal(results[i].token, results[i - 15].token); /* of the same row, heat and number */
  draws_close(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_draws),
      cmocka_unit_test(test_draws_from_long_rows),
      cmocka_unit_test(test_draws_from_the_longest_rows),
      cmocka_unit_test(test_draws_with_changed_logits),
      cmocka_unit_test(test_many_draws),
      cmocka_unit_test(test_nothing_is_left),
  };
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
