/* One feature without the others: the bits that encoding all of them gives, over any number of rows and inputs in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/random.h"
#include "core/dict/dict.h"

enum { D = 700, F = 40, N = 277 }; /* neither is a multiple of what is done at a time */

static char folder[] = "/tmp/steerd-rows-XXXXXX";

static FILE *must_create(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  return file;
}

static void write_weights(void) {
  static const struct {
    const char *name, *shape;
    int count;
  } tensors[] = {{"W_dec", "40,700", F * D}, {"W_enc", "700,40", F * D}, {"b_dec", "700", D}, {"b_enc", "40", F}};
  char header[512];
  int n = snprintf(header, sizeof header, "{"), at = 0;
  for (int i = 0; i < 4; i++, at += tensors[i - 1].count * 4)
    n += snprintf(header + n, sizeof header - (size_t)n, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%d,%d]}",
                  i ? "," : "", tensors[i].name, tensors[i].shape, at, at + tensors[i].count * 4);
  n += snprintf(header + n, sizeof header - (size_t)n, "}%*s", (8 - (n + 1) % 8) % 8, "");
  FILE *file = must_create("sae_weights.safetensors");
  uint64_t length = (uint64_t)n;
  fwrite(&length, 8, 1, file);
  fwrite(header, 1, (size_t)n, file);
  for (int i = 0; i < at / 4; i++) {
    float value = (float)(random_unit(1, 2, (uint64_t)i) - 0.5);
    fwrite(&value, 4, 1, file);
  }
  assert_int_equal(fclose(file), 0);
}

static struct dict *must_open(const char *input, struct backend *backend) {
  struct error error = ERROR_INIT;
  static const struct arch arch = {.n_layer = 1, .n_head = 7, .n_kv_head = 7, .d_head = D / 7, .d_model = D, .d_mlp = 128,
                                   .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
  struct dict_host host = {"wide", &arch, NULL, NULL};
  FILE *file = must_create("cfg.json");
  fprintf(file, "{\"architecture\":\"standard\",\"hook_name\":\"blocks.0.hook_resid_pre\",\"d_in\":%d,\"d_sae\":%d,%s}", D, F, input);
  assert_int_equal(fclose(file), 0);
  struct dict *dict = dict_open(folder, "0-wide", &host, backend, &error);
  if (!dict) fail_msg("%s", error.text);
  return dict;
}

static void compare(struct backend *backend, const struct dict *dict, const float *x, int n_rows) {
  struct memory *memory = NULL;
  struct error error = ERROR_INIT;
  struct sparse codes;
  static float alone[N];
  sparse_init(&codes);
  size_t bytes = (size_t)n_rows * D * sizeof *x, fired = 0;
  assert_int_equal(backend->ops->alloc(backend, bytes, &memory, NULL), 0);
  assert_int_equal(backend->ops->write(backend, (struct span){memory, 0}, x, bytes, NULL), 0);
  if (dict_encode(dict, (struct rows){{memory, 0}, D}, n_rows, &codes, &error) != 0) fail_msg("%s", error.text);
  for (int f = 0; f < F; f++) {
    dict_feature_values(dict, f, x, (size_t)n_rows, alone);
    for (int r = 0; r < n_rows; r++) {
      float among = sparse_find(&codes, (size_t)r, f);
      fired += among > 0;
      if (memcmp(&alone[r], &among, sizeof among) != 0)
        fail_msg("feature %d of row %d: %a alone, %a among all", f, r, (double)alone[r], (double)among);
    }
  }
  assert_true(fired > (size_t)(n_rows * F / 8));
  sparse_clear(&codes);
  backend->ops->free(backend, memory);
}

static void test_same_bits(void **state) {
  (void)state;
  static const char *const inputs[] = {"\"apply_b_dec_to_input\":false", "\"apply_b_dec_to_input\":true"};
  static const int counts[] = {1, 7, 16, N};
  struct backend *backend = backend_open("cpu", 2, NULL);
  float *x = malloc((size_t)N * D * sizeof *x);
  assert_true(backend && x);
  for (size_t i = 0; i < N * D; i++) x[i] = (float)(4 * random_unit(3, 4, i) - 2);
  write_weights();
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
    struct dict *dict = must_open(inputs[i], backend);
    assert_int_equal(dict_info(dict)->apply_b_dec_to_input, i == 1);
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) compare(backend, dict, x, counts[k]);
    dict_close(dict);
  }
  free(x);
  backend_close(backend);
}

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  char command[64];
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
