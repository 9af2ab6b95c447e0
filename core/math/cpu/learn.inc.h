/* learn.inc.h: kernels of training (core/math/learn.h). Included by kernels.inc.h behind rows.inc.h.
 *
 * What a feature does in its rows is walked eight rows at a time, so that its gradients, which stay in the first cache, are read and
 * written once for eight rows that come from further off; an element's sum is one chain over the rows in their order, as if they had
 * come one by one. */

#define LEARN_ROWS 8
#define LEARN_SOME 3 /* of those that are left over */

/* Sixteen floats, or the n that are left of a row. */
VF vf load_some(const bool part, const float *p, int64_t n) { return part ? vf_load_part(p, n) : vf_load(p); }
VF void store_some(const bool part, float *p, vf a, int64_t n) {
  if (part)
    vf_store_part(p, a, n);
  else
    vf_store(p, a);
}

VF void add_columns(const bool part, const int rows, const vf *value, const float *const *row, int64_t i, int64_t n, float *y) {
  vf sum = load_some(part, y + i, n);
  UNROLL for (int r = 0; r < rows; r++) sum = vf_fma(value[r], load_some(part, row[r] + i, n), sum);
  store_some(part, y + i, sum, n);
}

/* y += sum over r < rows of values[r] * row[r]. */
VF void add_rows(const int rows, const float *values, const float *const *row, int64_t width, float *y) {
  vf value[LEARN_ROWS];
  int64_t i = 0;
  UNROLL for (int r = 0; r < rows; r++) value[r] = vf_set1(values[r]);
  for (; i + LANES <= width; i += LANES) add_columns(false, rows, value, row, i, LANES, y);
  if (i < width) add_columns(true, rows, value, row, i, width - i, y);
}

VF void gather_rows(const int n, const int32_t *index, const float *values, const float *rows, int64_t width, float *y) {
  const float *row[LEARN_ROWS];
  for (int r = 0; r < n; r++) row[r] = rows + index[r] * width;
  add_rows(n, values, row, width, y);
}

static void learn_gather(int64_t n, const int32_t *index, const float *values, const float *rows, int64_t width, float *y) {
  for (; n >= LEARN_ROWS; n -= LEARN_ROWS, index += LEARN_ROWS, values += LEARN_ROWS) gather_rows(LEARN_ROWS, index, values, rows, width, y);
  for (; n >= LEARN_SOME; n -= LEARN_SOME, index += LEARN_SOME, values += LEARN_SOME) gather_rows(LEARN_SOME, index, values, rows, width, y);
  for (; n > 0; n--, index++, values++) gather_rows(1, index, values, rows, width, y);
}

VF void dot_columns(const bool part, const int rows, const float *const *row, const float *w, int64_t i, int64_t n, vf *sum) {
  vf weight = load_some(part, w + i, n);
  UNROLL for (int r = 0; r < rows; r++) sum[r] = vf_fma(load_some(part, row[r] + i, n), weight, sum[r]);
}

/* sums[r] = row[r] . w, each as `dot` adds it. */
VF void dot_rows(const int rows, const float *const *row, const float *w, int64_t width, float *sums) {
  vf sum[LEARN_ROWS];
  int64_t i = 0;
  UNROLL for (int r = 0; r < rows; r++) sum[r] = vf_set1(0.0f);
  for (; i + LANES <= width; i += LANES) dot_columns(false, rows, row, w, i, LANES, sum);
  if (i < width) dot_columns(true, rows, row, w, i, width - i, sum);
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
  for (int r = 0; r < rows; r++) all += p[r] = f->scale * p[r] + f->penalty + (f->each ? f->each[i + r] : 0);
  add_rows(rows, by, error, f->width_out, f->to_decoder);
  add_rows(rows, p, input, f->width_in, f->to_encoder);
  return all;
}

static float learn_feature(const struct learn_feature *f) {
  float all = 0;
  int64_t i = 0;
  for (; i + LEARN_ROWS <= f->entries.n; i += LEARN_ROWS) all = feature_rows(LEARN_ROWS, f, i, all);
  for (; i + LEARN_SOME <= f->entries.n; i += LEARN_SOME) all = feature_rows(LEARN_SOME, f, i, all);
  for (; i < f->entries.n; i++) all = feature_rows(1, f, i, all);
  return all;
}

struct adam_lanes {
  vf keep, new1, new2, gain, rate, unbias, eps;
};

VF void adam_columns(const bool part, const bool zero, const struct adam_lanes *a, int64_t n, const float *gradient, float *w, float *m,
                     float *v) {
  vf g = zero ? vf_set1(0.0f) : vf_mul(load_some(part, gradient, n), a->gain), old = load_some(part, m, n);
  vf first = vf_fma(a->new1, vf_sub(g, old), old);
  vf second = vf_fma(a->new2, vf_mul(g, g), vf_mul(a->keep, load_some(part, v, n)));
  vf step = vf_div(vf_mul(a->rate, first), vf_add(vf_mul(vf_sqrt(second), a->unbias), a->eps));
  store_some(part, m, first, n);
  store_some(part, v, second, n);
  store_some(part, w, vf_sub(load_some(part, w, n), step), n);
}

VF void adam_body(const bool zero, const struct learn_adam *a, int64_t n, const float *gradient, float *w, float *m, float *v) {
  const struct adam_lanes lanes = {vf_set1(a->beta2), vf_set1(1 - a->beta1), vf_set1(1 - a->beta2), vf_set1(a->gain),
                                   vf_set1(a->rate), vf_set1(a->unbias), vf_set1(a->eps)};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) adam_columns(false, zero, &lanes, LANES, zero ? NULL : gradient + i, w + i, m + i, v + i);
  if (i < n) adam_columns(true, zero, &lanes, n - i, zero ? NULL : gradient + i, w + i, m + i, v + i);
}

static void learn_adam(const struct learn_adam *a, int64_t n, const float *gradient, float *w, float *m, float *v) {
  if (gradient)
    adam_body(false, a, n, gradient, w, m, v);
  else
    adam_body(true, a, n, NULL, w, m, v);
}
