/* dict_vectors.h: a recorded dictionary against what its recording says, on the obvious backend and on the fast ones. */
#ifndef STEERD_TESTS_UNIT_DICT_VECTORS_H
#define STEERD_TESTS_UNIT_DICT_VECTORS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "core/dict/dict.h"
#include "core/model/tensors.h"

static inline struct dict *must_open(struct backend *backend, const char *path, const char *id, const struct dict_host *host) {
  struct error error = ERROR_INIT;
  struct dict *dict = dict_open(path, id, host, backend, &error);
  if (!dict) fail_msg("%s: %s", path, error.text);
  return dict;
}

/* A recorded f32 tensor, contiguous and aligned as safetensors writes it; NULL when the file does not have it. */
static inline const float *recorded(const struct tensors *file, const char *source, const char *name, int64_t *rows) {
  char full[128];
  snprintf(full, sizeof full, "%s%s%s", source, *source ? "/" : "", name);
  const struct tensor *tensor = tensors_find(file, full);
  if (!tensor) return NULL;
  assert_int_equal(tensor->dtype, DTYPE_F32);
  assert_true(tensor_is_contiguous(tensor) && (uintptr_t)tensor->data % 4 == 0);
  if (rows) *rows = tensor->shape[0];
  return (const float *)tensor->data;
}

/* 1e-5 of the tensor's root mean square: the recordings are float64 results rounded once, and what is compared are f32
 * sums of at most a few hundred terms, each step off by 2^-24 of what was summed so far. */
static inline void close_to(const char *source, const char *what, const float *got, const float *want, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += (double)want[i] * want[i];
  double rms = sqrt(sum / (double)count);
  for (size_t i = 0; i < count; i++) {
    double off = fabs((double)got[i] - want[i]);
    if (!(off <= 1e-5 * fmax(rms, fabs((double)want[i]))))
      fail_msg("%s: %s: element %zu is %.9g, recorded %.9g (off by %.3g, rms %.3g)", source, what, i, (double)got[i],
               (double)want[i], off, rms);
  }
}

static inline void encode_rows(struct backend *backend, const struct dict *dict, const float *x, int64_t n_rows,
                               struct sparse *out) {
  size_t width = (size_t)dict_info(dict)->in_width, bytes = (size_t)n_rows * width * sizeof *x;
  struct memory *memory = NULL;
  struct error error = ERROR_INIT;
  assert_int_equal(backend->ops->alloc(backend, bytes, &memory, NULL), 0);
  assert_int_equal(backend->ops->write(backend, (struct span){memory, 0}, x, bytes, NULL), 0);
  struct rows rows = {{memory, 0}, (int64_t)width};
  if (dict_encode(dict, rows, n_rows, out, &error) != 0) fail_msg("%s", error.text);
  backend->ops->free(backend, memory);
}

static inline float *dense_of(const struct sparse *codes, int64_t n_feat) {
  float *out = test_calloc(codes->n_rows * (size_t)n_feat, sizeof *out);
  for (size_t row = 0; row < codes->n_rows; row++)
    for (size_t e = codes->start[row]; e < codes->start[row + 1]; e++) {
      assert_true(codes->value[e] > 0);
      assert_true(e == codes->start[row] || codes->index[e] > codes->index[e - 1]);
      out[row * (size_t)n_feat + (size_t)codes->index[e]] = codes->value[e];
    }
  return out;
}

/* Features one at a time: on the host, and as edits would compute them. */
static inline void single_features_agree(const char *source, const struct dict *dict, const float *x, int64_t n_rows,
                                         const float *features) {
  const struct dict_info *info = dict_info(dict);
  if (!dict_features_independent(dict)) return;
  float *want = test_calloc((size_t)n_rows, 4), *got = test_calloc((size_t)n_rows, 4);
  float *enc = test_calloc((size_t)info->d_in, 4);
  double square = 0;
  for (int64_t i = 0; i < n_rows * info->n_feat; i++) square += (double)features[i] * features[i];
  double allowed = 2e-5 * sqrt(square / (double)(n_rows * info->n_feat)); /* as close_to; b_dec is folded into a bias */
  for (int64_t f = 0; f < info->n_feat; f++) {
    struct dict_encoder row = {0, 0, 0};
    dict_feature_values(dict, f, x, (size_t)n_rows, got);
    if (dict_has_encoder_row(dict)) row = dict_encoder_row(dict, f, enc);
    for (int64_t r = 0; r < n_rows; r++) {
      want[r] = features[r * info->n_feat + f];
      double p = row.bias;
      for (int64_t i = 0; i < info->d_in; i++) p += (double)x[r * info->in_width + info->in_column + i] * enc[i];
      float edit = p > row.threshold ? (float)fmax(p, 0) * row.fold : 0;
      if (fabs((double)got[r] - want[r]) > allowed + 1e-5 * fabs((double)want[r]))
        fail_msg("%s: dict_feature_values of %lld: %.9g, recorded %.9g", source, (long long)f, (double)got[r], (double)want[r]);
      if (dict_has_encoder_row(dict) && fabs((double)edit - want[r]) > allowed + 1e-5 * fabs((double)want[r]))
        fail_msg("%s: dict_encoder_row of %lld: %.9g, recorded %.9g", source, (long long)f, (double)edit, (double)want[r]);
    }
  }
  test_free(want);
  test_free(got);
  test_free(enc);
}

/* A steering row is what one more unit of the feature adds to a reconstruction, and as long as folding says. */
static inline void decoder_rows_agree(const char *source, const struct dict *dict) {
  const struct dict_info *info = dict_info(dict);
  float *row = test_calloc((size_t)info->d_out, 4), *with = test_calloc((size_t)info->d_out, 4),
        *without = test_calloc((size_t)info->d_out, 4), *x = test_calloc((size_t)info->in_width, 4);
  bool per_row = (info->norm == DICT_NORM_LENGTH || info->norm == DICT_NORM_STANDARD) && !info->transcoder;
  for (int32_t f = 0; f < info->n_feat && !per_row; f++) {
    float one = 1;
    size_t starts[] = {0, 0}, start[] = {0, 1};
    struct sparse nothing = {.n_rows = 1, .start = starts}, code = {.n_rows = 1, .start = start, .index = &f, .value = &one};
    double square = 0;
    dict_decoder_row(dict, f, row);
    dict_decode(dict, &nothing, 0, 1, x, without);
    dict_decode(dict, &code, 0, 1, x, with);
    for (int64_t i = 0; i < info->d_out; i++) {
      square += (double)row[i] * row[i];
      /* a difference of two f32 numbers around 1 */
      if (fabs((double)with[i] - without[i] - row[i]) > 1e-6) fail_msg("%s: row %d differs from its decoding", source, f);
    }
    if (square > 0 && info->folded) assert_float_equal((float)sqrt(square), 1, 1e-6); /* rounding of its elements */
  }
  test_free(row);
  test_free(with);
  test_free(without);
  test_free(x);
}

/* Opens the dictionary at `path` on a backend and compares all that was recorded for `source`. */
static inline void as_recorded(struct backend *backend, const struct tensors *file, const char *source, const char *path,
                               const char *id, const struct dict_host *host) {
  int64_t n_rows = 0;
  struct dict *dict = must_open(backend, path, id, host);
  const struct dict_info *info = dict_info(dict);
  const float *x = recorded(file, source, "x", &n_rows), *y = recorded(file, source, "y", NULL);
  const float *features = recorded(file, source, "features", NULL);
  if (!x || !features) fail_msg("%s is not recorded", source);
  size_t n_features = (size_t)(n_rows * info->n_feat), n_out = (size_t)(n_rows * info->d_out);
  struct sparse codes;
  sparse_init(&codes);
  encode_rows(backend, dict, x, n_rows, &codes);
  float *got = dense_of(&codes, info->n_feat), *back = test_calloc(n_out, sizeof *back);
  close_to(source, "norms", dict_norms(dict), recorded(file, source, "norms", NULL), (size_t)info->n_feat);
  close_to(source, "features", got, features, n_features);
  dict_decode(dict, &codes, 0, (size_t)n_rows, dict_decode_needs_input(dict) ? x : NULL, back);
  close_to(source, "reconstruction", back, recorded(file, source, "reconstruction", NULL), n_out);
  dict_errors(dict, &codes, 0, (size_t)n_rows, x, y ? y : x, back);
  close_to(source, "errors", back, recorded(file, source, "errors", NULL), n_out);
  single_features_agree(source, dict, x, n_rows, features);
  decoder_rows_agree(source, dict);
  test_free(got);
  test_free(back);
  sparse_clear(&codes);
  dict_close(dict);
}

/* The backends to compare on: the obvious path and the best of this machine. */
#define DICT_BACKENDS 2
static inline void open_backends(struct backend *out[DICT_BACKENDS]) {
  static const char *const names[DICT_BACKENDS] = {"ref", "cpu"};
  struct error error = ERROR_INIT;
  for (int i = 0; i < DICT_BACKENDS; i++)
    if (!(out[i] = backend_open(names[i], 1, &error))) fail_msg("%s", error.text);
}

static inline void close_backends(struct backend *backends[DICT_BACKENDS]) {
  for (int i = 0; i < DICT_BACKENDS; i++) backend_close(backends[i]);
}

#endif
