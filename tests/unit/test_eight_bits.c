/* Models whose matrices are kept in 8 bits: answers against PyTorch, directions of neurons against what is computed with. Not among the
 * programs of a GPU, which does not keep any. */
#include "core/math/ref/ref.h"
#include "tests/unit/plan_bench.h"

static struct model *open_q8(const char *id, const char *path, struct backend *backend, struct error *error) {
  return model_open_as(id, path, &(struct model_wish){.keep = DTYPE_Q8}, backend, error);
}

/* The recorded logits come from the rounded weights, so the tolerance stays that of f32. */
static void check_prompt(struct bench *b, const struct tensors *ids_of, const struct tensors *want, int prompt) {
  char key[32];
  size_t n, count;
  snprintf(key, sizeof key, "p%d/ids", prompt);
  int32_t *ids = vectors_i32(ids_of, key, &n);
  snprintf(key, sizeof key, "p%d/logits", prompt);
  float *recorded = vectors_f32(want, key, &count), *logits = malloc(count * sizeof *logits);
  assert_int_equal(count, n * (size_t)b->model->arch.vocabulary);
  bench_run(b, ids, 0, (int32_t)n, logits);
  assert_true(vectors_agree(key, logits, recorded, count));
  free(ids);
  free(recorded);
  free(logits);
}

static void test_answers(void **state) {
  (void)state;
  static const char *const backends[] = {"ref", "cpu", "cpu-avx2", "cpu-generic"};
  struct tensors *ids_of = vectors_open(TINY "expected.safetensors"), *want = vectors_open(TINY "q8.safetensors");
  for (size_t i = 0; i < 4; i++) {
    struct bench b;
    if (bench_open_with(&b, backends[i], TINY "model", open_q8) != 0) continue;
    assert_int_equal(b.model->weights.layers[0].matrix[SLOT_QKV]->dtype, DTYPE_Q8);
    assert_int_equal(model_kept(b.model), DTYPE_Q8);
    assert_int_equal(b.model->weights.dtype, DTYPE_F32);
    for (int p = 0; p < 2; p++) check_prompt(&b, ids_of, want, p);
    bench_close(&b);
  }
  tensors_close(ids_of);
  tensors_close(want);
}

/* Both ways of reading W_out, plain and processed, and every type. */
static void check_neurons(bool processed, enum dtype keep) {
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open("ref", 1, &error);
  struct model_wish wish = {.processed = processed, .keep = keep, .weights = true}, whole = {.processed = processed, .keep = DTYPE_OTHER, .weights = true};
  struct model *model = model_open_as("kept", TINY "model", &wish, backend, &error), *plain = model_open_as("plain", TINY "model", &whole, backend, &error);
  struct matrix_part part;
  float *made;
  double change = 0;
  assert_non_null(model);
  assert_non_null(plain);
  assert_int_equal(model_mlp_out(model, 1, &part, &made, &error), 0);
  const struct matrix *w = model->weights.layers[1].matrix[SLOT_OUT], *was = plain->weights.layers[1].matrix[SLOT_OUT];
  assert_true(made && part.data == made);
  for (int64_t out = 0; out < w->n_out; out++)
    for (int64_t in = 0; in < w->n_in; in++) {
      float weight = made[part_element(&part, out, in)];
      assert_true(weight == (float)ref_weight(w, out, in));
      change += fabs((double)weight - ref_weight(was, out, in));
    }
  assert_true(change > 0);
  free(made);
  model_close(model);
  model_close(plain);
  backend_close(backend);
}

static void test_neurons(void **state) {
  (void)state;
  for (int processed = 0; processed < 2; processed++) {
    check_neurons(processed, DTYPE_Q8);
    check_neurons(processed, DTYPE_BF16);
    check_neurons(processed, DTYPE_F16);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers), cmocka_unit_test(test_neurons)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
