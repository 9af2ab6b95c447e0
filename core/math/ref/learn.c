/* learn.c: training's formulas as learn.h writes them, one after the other, sums in double. */
#include "core/math/learn.h"

#include <math.h>

#include "core/math/ref/ref.h"

static float dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return (float)sum;
}

static void add_scaled(float *y, float scale, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += scale * x[i];
}

static void gather(int64_t n, const int32_t *index, const float *values, const float *rows, int64_t width, float *y) {
  for (int64_t column = 0; column < width; column++) {
    double sum = y[column];
    for (int64_t i = 0; i < n; i++) sum += (double)values[i] * rows[index[i] * width + column];
    y[column] = (float)sum;
  }
}

static float slope(const struct learn_feature *f, int64_t i) {
  return f->scale * dot(f->error + f->entries.row[i] * f->width_out, f->decoder, f->width_out) + f->penalty + (f->each ? f->each[i] : 0);
}

static float feature(const struct learn_feature *f) {
  double all = 0;
  for (int64_t i = 0; i < f->entries.n; i++) {
    float p = slope(f, i);
    add_scaled(f->to_decoder, f->scale * f->entries.value[i], f->error + f->entries.row[i] * f->width_out, f->width_out);
    add_scaled(f->to_encoder, p, f->input + f->entries.row[i] * f->width_in, f->width_in);
    all += p;
  }
  return (float)all;
}

static void adam(const struct learn_adam *a, int64_t n, const float *gradient, float *w, float *m, float *v) {
  for (int64_t i = 0; i < n; i++) {
    float g = gradient ? gradient[i] * a->gain : 0;
    m[i] += (1 - a->beta1) * (g - m[i]);
    v[i] = a->beta2 * v[i] + (1 - a->beta2) * (g * g);
    w[i] -= a->rate * m[i] / (sqrtf(v[i]) * a->unbias + a->eps);
  }
}

const struct learn ref_learn = {gather, feature, adam, add_scaled, dot};
