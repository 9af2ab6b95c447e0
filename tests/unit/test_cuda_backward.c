/* A gradient on a device, as work between the steps of others: what it leaves behind when calls fail, when the device is lost, and when there
 * is little memory. Its numbers are test_backward.c's and test_vjp.c's. Needs an emulated library (STEERD_CUDA_LIBRARY). */
#include "tests/unit/cuda_library.h"

#include "core/model/backward.h"
#include "tests/unit/plan_bench.h"

enum { ILLEGAL_ADDRESS = 700, N = 9, WIDEST = 64 };
#define MODEL "tests/vectors/families/toy-attn-only"

static const int32_t ids[N] = {7, 31, 5, 64, 12, 90, 41, 3, 77};

/* The gradient of one logit at the input of the first layer. */
struct trial {
  struct bench b;
  float gradient[N * WIDEST];
  int seen;
};

static int on_logits(void *context, int text, int32_t position, const float *logits, float *gradient, struct error *error) {
  (void)context, (void)text, (void)position, (void)logits, (void)error;
  gradient[5] = 1;
  return 0;
}

static int on_seen(void *context, const struct backward_seen *seen, struct error *error) {
  struct trial *t = context;
  size_t row = (size_t)seen->gradients.ld * sizeof(float);
  assert_true(seen->width <= WIDEST);
  t->seen++;
  for (size_t i = 0; i < N; i++)
    if (t->b.backend->ops->read(t->b.backend, t->gradient + i * WIDEST, span_at(seen->gradients.at, i * row),
                                (size_t)seen->width * sizeof(float), error) != 0)
      return -1;
  return 0;
}

static const struct backward_events events = {on_logits, on_seen};
static const struct point point = {0, SITE_RESID_PRE};

static void trial_open(struct trial *t) {
  memset(t, 0, sizeof *t);
  assert_int_equal(bench_open_with(&t->b, "cuda+deterministic", MODEL, model_open_weights), 0);
}

static struct backward *begin(struct trial *t, struct error *error) {
  struct backward_args args = {.ids = {ids}, .n_tokens = N, .points = &point, .n_points = 1, .first = N - 1, .last = N - 1,
                               .most_bytes = (size_t)1 << 30, .events = &events, .context = t};
  t->seen = 0;
  return backward_new(t->b.plan, &args, error);
}

/* 0 when all of it was done. */
static int run_all(struct trial *t, struct error *error) {
  struct backward *backward = begin(t, error);
  int more = backward ? 1 : -1;
  while (more > 0) more = backward_slice(backward, error);
  if (more == 0) assert_int_equal(t->seen, 1);
  emulated.order(0, 0); /* what gives back is not to fail, or it would stay */
  backward_free(backward);
  return more;
}

/* Every call may fail: it says so, gives back what it took (test_nothing_is_left), and the next one has the same bits. */
static void test_every_call_may_fail(void **state) {
  (void)state;
  struct trial t;
  float plain[N * WIDEST];
  trial_open(&t);
  assert_int_equal(run_all(&t, NULL), 0);
  memcpy(plain, t.gradient, sizeof plain);
  long before = count(CALLS), failures = 0;
  assert_int_equal(run_all(&t, NULL), 0);
  long all = count(CALLS) - before;
  assert_true(all > 100);
  for (long calls = 0; calls < all; calls += 3) {
    struct error error = ERROR_INIT;
    emulated.order(calls, 1); /* an invalid value: the device goes on */
    int failed = run_all(&t, &error);
    if (failed) assert_int_equal(error.code, ERROR_DEVICE);
    failures += failed != 0;
  }
  assert_true(failures > 40);
  memset(t.gradient, 0, sizeof t.gradient);
  assert_int_equal(run_all(&t, NULL), 0);
  assert_memory_equal(t.gradient, plain, sizeof plain);
  bench_close(&t.b);
}

/* Nothing is in flight behind a slice: others' steps wait for none of it, and what fails is told to whom it belongs. */
static void test_slices_end(void **state) {
  (void)state;
  struct trial t;
  trial_open(&t);
  struct backward *backward = begin(&t, NULL);
  for (int more = 1; more > 0;) {
    more = backward_slice(backward, NULL);
    assert_true(more >= 0);
    long calls = count(CALLS);
    assert_int_equal(backend_wait(t.b.backend, NULL), 0);
    assert_int_equal(count(CALLS), calls);
  }
  backward_free(backward);
  bench_close(&t.b);
}

static void test_a_lost_device(void **state) {
  (void)state;
  struct trial t;
  struct error error = ERROR_INIT;
  trial_open(&t);
  emulated.order(60, ILLEGAL_ADDRESS);
  assert_int_equal(run_all(&t, &error), -1);
  assert_int_equal(error.code, ERROR_DEVICE);
  assert_non_null(strstr(error.text, "started again"));
  assert_true(t.b.backend->ops->lost(t.b.backend));
  emulated.order(0, 0);
  bench_close(&t.b);
}

/* With room for one layer alone each is run twice, to the same bits; with less it is refused before anything is taken. */
static void test_little_memory(void **state) {
  (void)state;
  struct trial t;
  float plain[N * WIDEST];
  trial_open(&t);
  assert_int_equal(run_all(&t, NULL), 0);
  memcpy(plain, t.gradient, sizeof plain);
  int refused = 0, made = 0;
  for (size_t more = (size_t)64 << 10; made < 3; more += (size_t)256 << 10) {
    struct error error = ERROR_INIT;
    emulated.capacity((size_t)count(BYTES) + more);
    memset(t.gradient, 0, sizeof t.gradient);
    int failed = run_all(&t, &error);
    if (failed) assert_int_equal(error.code, ERROR_MEMORY);
    if (failed && strstr(error.text, "the way back through 9 tokens takes ")) refused++;
    if (!failed) assert_memory_equal(t.gradient, plain, sizeof plain);
    made += !failed;
    assert_true(more < (size_t)1 << 30);
  }
  assert_true(refused > 0);
  emulated.capacity((size_t)4 << 30);
  bench_close(&t.b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_call_may_fail),
      cmocka_unit_test(test_slices_end),
      cmocka_unit_test(test_a_lost_device),
      cmocka_unit_test(test_little_memory),
      cmocka_unit_test(test_nothing_is_left),
  };
  if (!find_library()) return 0;
  if (!emulated.order) return printf("skip: failures of a device (a real one has none to order)\n"), 0;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
