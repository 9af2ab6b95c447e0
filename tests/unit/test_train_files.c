/* test_train_files.c: what a training run writes is what steerd reads: the same reconstructions as the trainer's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/random.h"
#include "core/dict/dict.h"
#include "core/dict/train.h"

#define WIDTH 24
#define MADE 20 /* width of what a transcoder makes: of the neurons */
#define BATCH 64
#define STEPS 120

static struct error error;
static const struct arch arch = {.n_layer = 2, .n_head = 3, .n_kv_head = 3, .d_head = 8, .d_model = WIDTH, .d_mlp = 20, .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host host = {"toy", &arch, NULL, NULL};

static void fine(int failed) {
  if (failed) fprintf(stderr, "%s\n", error.text);
  assert_int_equal(failed, 0);
}

static float *make_rows(void) {
  float *x = calloc(BATCH * WIDTH, sizeof *x);
  for (int i = 0; i < BATCH * WIDTH; i++) {
    uint64_t row = (uint64_t)(i / WIDTH), column = (uint64_t)(i % WIDTH), which = row * 7 % 30;
    x[i] = (float)(3 * random_unit(1, which, column) + random_unit(2, row, 0) * random_unit(3, which * 5 % 30, column) - 1);
  }
  return x;
}

/* y NULL: what is read is made. */
static struct trainer *train(enum train_kind kind, const float *x, const float *y) {
  struct train_options o = {.kind = kind, .width = WIDTH, .n_feat = 70, .k = train_takes_k(kind) ? 4 : 0, .batch = BATCH, .steps = STEPS, .seed = 1,
                            .width_out = y ? MADE : 0};
  struct train_figures figures;
  train_defaults(&o);
  struct trainer *trainer = trainer_new(&o, "cpu", 2, &error);
  fine(trainer_begin(trainer, x, y, BATCH, &error));
  for (int s = 0; s < STEPS - 1; s++) fine(trainer_step(trainer, x, y, &figures, &error));
  return trainer;
}

/* What a transcoder is to make: most of what is read, turned around and bent. */
static float *make_targets(const float *x) {
  float *y = calloc(BATCH * MADE, sizeof *y);
  for (int i = 0; i < BATCH * MADE; i++) y[i] = 5 * fabsf(x[i / MADE * WIDTH + MADE - 1 - i % MADE]);
  return y;
}

/* Mean squared error and features a row of the dictionary in a folder; y [BATCH, width] is what it is to make. */
static void measure(const char *folder, const float *x, const float *y, int width, double *mse, double *l0) {
  struct backend *backend = backend_open("cpu", 1, &error);
  struct dict *dict = dict_open(folder, "1-toy", &host, backend, &error);
  if (!dict) fail_msg("%s", error.text);
  struct memory *memory;
  struct sparse codes;
  float *got = calloc((size_t)(BATCH * width), sizeof *got);
  sparse_init(&codes);
  fine(backend->ops->alloc(backend, BATCH * WIDTH * sizeof *x, &memory, &error));
  fine(backend->ops->write(backend, (struct span){memory, 0}, x, BATCH * WIDTH * sizeof *x, &error));
  fine(dict_encode(dict, (struct rows){{memory, 0}, WIDTH}, BATCH, &codes, &error));
  dict_decode(dict, &codes, 0, BATCH, x, got);
  *mse = 0;
  for (int i = 0; i < BATCH * width; i++) *mse += (double)(got[i] - y[i]) * (got[i] - y[i]) / BATCH;
  *l0 = (double)codes.start[BATCH] / BATCH;
  for (int64_t f = 0; f < dict_info(dict)->n_feat; f++) assert_true(fabsf(dict_norms(dict)[f] - 1) < 1e-5f); /* rounding of a length */
  sparse_clear(&codes);
  free(got);
  backend->ops->free(backend, memory);
  dict_close(dict);
  backend_close(backend);
}

static void remove_folder(const char *folder) {
  static const char *const names[] = {"cfg.json", "sae_weights.safetensors"};
  char path[300];
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    assert_int_equal(unlink(path), 0);
  }
  assert_int_equal(rmdir(folder), 0); /* nothing else was left there */
}

static void check_kind(enum train_kind kind, const float *x, const float *y) {
  char folder[] = "/tmp/steerd-train-XXXXXX";
  const struct train_about about = {.model = "toy", .hook = "blocks.1.hook_resid_pre", .hook_out = y ? "blocks.1.mlp.hook_post" : NULL,
                                    .dataset = "rows", .context = 32, .prepend_bos = true};
  struct trainer *trainer = train(kind, x, y);
  struct train_figures figures;
  struct train_weights weights;
  double mse, l0;
  assert_non_null(mkdtemp(folder));
  fine(trainer_write(trainer, folder, &about, &error));
  trainer_weights(trainer, &weights);
  fine(trainer_step(trainer, x, y, &figures, &error)); /* its figures are of the weights before it */
  measure(folder, x, y ? y : x, y ? MADE : WIDTH, &mse, &l0);
  /* The dictionary works in the rows' own units. f32 sums of 24 terms agree within 1e-5; a batch's choice is not a threshold's. */
  double want = figures.mse / (weights.scale_out * weights.scale_out), within = kind == TRAIN_BATCHTOPK ? 0.5 : 1e-4;
  if (fabs(mse - want) > within * want) fail_msg("%s: %g, the trainer's %g", train_kind_name(kind), mse, want);
  if (fabs(l0 - figures.l0) > (kind == TRAIN_BATCHTOPK ? 0.35 * figures.l0 : 0)) fail_msg("%s: %g features, the trainer's %g", train_kind_name(kind), l0, figures.l0);
  trainer_free(trainer);
  remove_folder(folder);
}

static void test_folder(void **state) {
  (void)state;
  float *x = make_rows();
  float *y = make_targets(x);
  for (int kind = 0; kind < TRAIN_KINDS; kind++) {
    check_kind((enum train_kind)kind, x, NULL);
    check_kind((enum train_kind)kind, x, y);
  }
  free(x);
  free(y);
}

static void test_no_folder(void **state) {
  (void)state;
  float *x = make_rows();
  static const struct train_about about = {.model = "toy", .hook = "blocks.1.hook_resid_pre", .context = 32};
  struct trainer *trainer = train(TRAIN_TOPK, x, NULL);
  assert_int_equal(trainer_write(trainer, "/tmp/steerd-there-is-no-such-folder", &about, &error), -1);
  assert_int_equal(error.code, ERROR_IO);
  assert_non_null(strstr(error.text, "could not be made"));
  error_clear(&error);
  trainer_free(trainer);
  free(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_folder), cmocka_unit_test(test_no_folder)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
