/* vectors.h: recorded tensors for tests: open tests/vectors/..., compare with decision 18's tolerance. Test programs
 * run from the root of the repository. */
#ifndef STEERD_TESTS_UNIT_VECTORS_H
#define STEERD_TESTS_UNIT_VECTORS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/tensors.h"

static inline struct tensors *vectors_open(const char *path) {
  struct error error = ERROR_INIT;
  struct tensors *tensors = tensors_open(path, &error);
  if (!tensors) {
    fprintf(stderr, "cannot open vectors '%s': %s\n", path, error.text);
    exit(1);
  }
  return tensors;
}

/* A recorded tensor as f32 (freed by the caller) with its element count; ends the program when it is absent. */
static inline float *vectors_f32(const struct tensors *tensors, const char *name, size_t *count) {
  const struct tensor *tensor = tensors_find(tensors, name);
  if (!tensor) {
    fprintf(stderr, "vector '%s' is not recorded\n", name);
    exit(1);
  }
  size_t n = 1;
  for (int i = 0; i < tensor->n_dims; i++) n *= (size_t)tensor->shape[i];
  float *out = malloc((n + 1) * sizeof *out);
  dtype_to_f32(tensor->data, tensor->dtype, 1, n, out);
  *count = n;
  return out;
}

static inline int32_t *vectors_i32(const struct tensors *tensors, const char *name, size_t *count) {
  float *values = vectors_f32(tensors, name, count);
  int32_t *out = malloc((*count + 1) * sizeof *out);
  for (size_t i = 0; i < *count; i++) out[i] = (int32_t)values[i];
  free(values);
  return out;
}

/* Decision 18: |a - b| <= 1e-4 * max(1, rms of the tensor). The recorded values are float64 results rounded once;
 * float32 sums over at most a few thousand terms stay two orders below this. Prints the worst element. */
static inline int vectors_agree(const char *name, const float *got, const float *want, size_t count) {
  double square = 0, worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < count; i++) square += (double)want[i] * want[i];
  double limit = 1e-4 * fmax(1.0, sqrt(square / (double)(count ? count : 1)));
  for (size_t i = 0; i < count; i++) {
    double difference = fabs((double)got[i] - want[i]);
    if (!(difference <= worst)) worst = difference, at = i; /* NaN counts as worst */
  }
  if (worst <= limit) return 1;
  fprintf(stderr, "%s: element %zu is %.9g, recorded %.9g; difference %.3g, allowed %.3g\n", name, at, (double)got[at],
          (double)want[at], worst, limit);
  return 0;
}

#endif
