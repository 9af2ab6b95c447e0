/* The compiled forward pass against recorded activations: every hot point and the logits of the tiny GPT-2 (PyTorch)
 * and of villes (NumPy), on every backend this machine has; prefill, chunked prefill and decode must give the same
 * bits. */
#include "tests/unit/plan_bench.h"

static const char *backends[] = {"ref", "cpu", "cpu-avx2", "cpu-generic"};

static void check_prompt(struct bench *b, const struct tensors *want, const char *prompt, int least_points) {
  char key[128];
  size_t n, count;
  snprintf(key, sizeof key, "%s/ids", prompt);
  int32_t *ids = vectors_i32(want, key, &n);
  float *logits = malloc(n * (size_t)b->model->arch.vocabulary * sizeof *logits);
  bench_run(b, ids, 0, (int32_t)n, logits);
  assert_true(compare_points(b, want, prompt, (int32_t)n) >= least_points);
  snprintf(key, sizeof key, "%s/logits", prompt);
  float *recorded = vectors_f32(want, key, &count);
  assert_int_equal(count, n * (size_t)b->model->arch.vocabulary);
  assert_true(vectors_agree(key, logits, recorded, count));
  free(recorded);
  free(logits);
  free(ids);
}

static void test_tiny_gpt2(void **state) {
  (void)state;
  struct tensors *want = vectors_open(TINY "expected.safetensors");
  int ran = 0;
  for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
    struct bench b;
    if (bench_open(&b, backends[i], TINY "model") != 0) continue;
    check_prompt(&b, want, "p0", 21);
    check_prompt(&b, want, "p1", 21);
    check_prompt(&b, want, "p2", 3);
    bench_close(&b);
    ran++;
  }
  assert_true(ran >= 2);
  tensors_close(want);
}

/* Half-precision files: the recorded logits come from the rounded weights, so the tolerance stays that of f32. */
static void check_half(const char *folder) {
  struct tensors *want = vectors_open(TINY "expected.safetensors");
  for (size_t i = 0; i < 2; i++) {
    struct bench b;
    char path[128], key[128];
    snprintf(path, sizeof path, TINY "%s", folder);
    snprintf(key, sizeof key, "%s/p0/logits", folder);
    if (bench_open(&b, backends[i], path) != 0) continue;
    size_t n, count;
    int32_t *ids = vectors_i32(want, "p0/ids", &n);
    float *recorded = vectors_f32(want, key, &count), *logits = malloc(count * sizeof *logits);
    bench_run(&b, ids, 0, (int32_t)n, logits);
    assert_true(vectors_agree(key, logits, recorded, count));
    free(recorded);
    free(logits);
    free(ids);
    bench_close(&b);
  }
  tensors_close(want);
}

static void test_half_precision(void **state) {
  (void)state;
  check_half("model-bf16");
  check_half("model-f16");
}

/* Prefill at once, in chunks of several sizes (across the 64-position blocks), and token by token. */
static void test_chunks_are_bit_equal(void **state) {
  (void)state;
  static const int32_t chunks[] = {1, 2, 7, 50, 64, 65};
  struct tensors *want = vectors_open(TINY "expected.safetensors");
  for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
    struct bench b;
    if (bench_open(&b, backends[i], TINY "model") != 0) continue;
    size_t n, v = (size_t)b.model->arch.vocabulary;
    int32_t *ids = vectors_i32(want, "p2/ids", &n);
    float *whole = malloc(n * v * sizeof *whole), *parts = malloc(n * v * sizeof *parts);
    bench_run(&b, ids, 0, (int32_t)n, whole);
    for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
      for (int32_t from = 0; from < (int32_t)n; from += chunks[c]) {
        int32_t rows = (int32_t)n - from < chunks[c] ? (int32_t)n - from : chunks[c];
        bench_run(&b, ids, from, rows, parts + (size_t)from * v);
      }
      assert_memory_equal(whole, parts, n * v * sizeof *whole);
    }
    free(whole);
    free(parts);
    free(ids);
    bench_close(&b);
  }
  tensors_close(want);
}

static void test_villes(void **state) {
  (void)state;
  const char *data = getenv("STEERD_DATA");
  char weights[512];
  snprintf(weights, sizeof weights, "%s/models/villes/villes.txt", data ? data : "../shared/data");
  FILE *file = fopen(weights, "rb");
  if (!file) {
    printf("skip: villes is not there (set STEERD_DATA)\n");
    skip();
  }
  fclose(file);
  struct tensors *want = vectors_open("tests/vectors/villes/expected.safetensors");
  for (size_t i = 0; i < 2; i++) {
    struct bench b;
    if (bench_open(&b, backends[i], "config/models/villes.ini") != 0) continue;
    check_prompt(&b, want, "n0", 7);
    check_prompt(&b, want, "n1", 7);
    bench_close(&b);
  }
  tensors_close(want);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiny_gpt2), cmocka_unit_test(test_half_precision),
                                     cmocka_unit_test(test_chunks_are_bit_equal), cmocka_unit_test(test_villes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
