/* learn.inc.h: kernels of training (core/math/learn.h). Included by kernels.inc.h behind rows.inc.h.
 *
 * What a feature does in its rows is walked four rows at a time, so that its gradients, which stay in the first cache, are read and
 * written once for four rows that come from further off; an element's sum is one chain over the rows in their order, as if they had
 * come one by one. */

#define LEARN_ROWS 4

VF vf load_some(const float *p, int64_t n) { return n >= LANES ? vf_load(p) : vf_load_part(p, n); }
VF void store_some(float *p, vf a, int64_t n) {
  if (n >= LANES)
    vf_store(p, a);
  else
    vf_store_part(p, a, n);
}

/* y += sum over r < rows of values[r] * row[r]. */
VF void add_rows(const int rows, const float *values, const float *const *row, int64_t width, float *y) {
  vf value[LEARN_ROWS];
  UNROLL for (int r = 0; r < rows; r++) value[r] = vf_set1(values[r]);
  for (int64_t i = 0; i < width; i += LANES) {
    vf sum = load_some(y + i, width - i);
    UNROLL for (int r = 0; r < rows; r++) sum = vf_fma(value[r], load_some(row[r] + i, width - i), sum);
    store_some(y + i, sum, width - i);
  }
}

static void learn_gather(int64_t n, const int32_t *index, const float *values, const float *rows, int64_t width, float *y) {
  int64_t i = 0;
  for (; i + LEARN_ROWS <= n; i += LEARN_ROWS) {
    const float *row[LEARN_ROWS];
    for (int r = 0; r < LEARN_ROWS; r++) row[r] = rows + index[i + r] * width;
    add_rows(LEARN_ROWS, values + i, row, width, y);
  }
  for (; i < n; i++) {
    const float *row[] = {rows + index[i] * width};
    add_rows(1, values + i, row, width, y);
  }
}

/* sums[r] = row[r] . w, each as `dot` adds it. */
VF void dot_rows(const int rows, const float *const *row, const float *w, int64_t width, float *sums) {
  vf sum[LEARN_ROWS];
  UNROLL for (int r = 0; r < rows; r++) sum[r] = vf_set1(0.0f);
  for (int64_t i = 0; i < width; i += LANES) {
    vf weight = load_some(w + i, width - i);
    UNROLL for (int r = 0; r < rows; r++) sum[r] = vf_fma(load_some(row[r] + i, width - i), weight, sum[r]);
  }
  UNROLL for (int r = 0; r < rows; r++) sums[r] = vf_sum(sum[r]);
}

/* Entries [i, i + rows) of a feature; the sum of what the loss makes of them. */
VF float feature_rows(const int rows, const struct learn_feature *f, int64_t i, float all) {
  const float *error[LEARN_ROWS], *input[LEARN_ROWS];
  float p[LEARN_ROWS], by[LEARN_ROWS];
  for (int r = 0; r < rows; r++) {
    error[r] = f->error + f->entries.row[i + r] * f->width_out;
    input[r] = f->input + f->entries.row[i + r] * f->width_in;
    by[r] = f->scale * f->entries.value[i + r];
  }
  dot_rows(rows, error, f->decoder, f->width_out, p);
  for (int r = 0; r < rows; r++) all += p[r] = f->scale * p[r] + f->penalty;
  add_rows(rows, by, error, f->width_out, f->to_decoder);
  add_rows(rows, p, input, f->width_in, f->to_encoder);
  return all;
}

static float learn_feature(const struct learn_feature *f) {
  float all = 0;
  int64_t i = 0;
  for (; i + LEARN_ROWS <= f->entries.n; i += LEARN_ROWS) all = feature_rows(LEARN_ROWS, f, i, all);
  for (; i < f->entries.n; i++) all = feature_rows(1, f, i, all);
  return all;
}

VF void adam_body(const bool zero, const struct learn_adam *a, int64_t n, const float *gradient, float *w, float *m, float *v) {
  const vf keep = vf_set1(a->beta2), new1 = vf_set1(1 - a->beta1), new2 = vf_set1(1 - a->beta2), gain = vf_set1(a->gain);
  const vf rate = vf_set1(a->rate), unbias = vf_set1(a->unbias), eps = vf_set1(a->eps);
  for (int64_t i = 0; i < n; i += LANES) {
    vf g = zero ? vf_set1(0.0f) : vf_mul(load_some(gradient + i, n - i), gain), old = load_some(m + i, n - i);
    vf first = vf_fma(new1, vf_sub(g, old), old);
    vf second = vf_fma(new2, vf_mul(g, g), vf_mul(keep, load_some(v + i, n - i)));
    vf step = vf_div(vf_mul(rate, first), vf_add(vf_mul(vf_sqrt(second), unbias), eps));
    store_some(m + i, first, n - i);
    store_some(v + i, second, n - i);
    store_some(w + i, vf_sub(load_some(w + i, n - i), step), n - i);
  }
}

static void learn_adam(const struct learn_adam *a, int64_t n, const float *gradient, float *w, float *m, float *v) {
  if (gradient)
    adam_body(false, a, n, gradient, w, m, v);
  else
    adam_body(true, a, n, NULL, w, m, v);
}
