/* rows.inc.h: formulas along one row. Included by kernels.inc.h.
 *
 * Sums run in sixteen lanes (lane i takes elements i, i + 16, ...) and are folded by vf_sum, so that they depend
 * on the length of the row alone. */

static float dot(const float *a, const float *b, int64_t n) {
  vf sum = vf_set1(0.0f);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sum = vf_fma(vf_load(a + i), vf_load(b + i), sum);
  if (i < n) sum = vf_fma(vf_load_part(a + i, n - i), vf_load_part(b + i, n - i), sum);
  return vf_sum(sum);
}

static float mean_of(const float *x, int64_t n) {
  vf sum = vf_set1(0.0f);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sum = vf_add(sum, vf_load(x + i));
  if (i < n) sum = vf_add(sum, vf_load_part(x + i, n - i));
  return vf_sum(sum) / (float)n;
}

static void add_scaled(float *h, float scale, const float *v, int64_t n) {
  vf s = vf_set1(scale);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) vf_store(h + i, vf_fma(s, vf_load(v + i), vf_load(h + i)));
  if (i < n) vf_store_part(h + i, vf_fma(s, vf_load_part(v + i, n - i), vf_load_part(h + i, n - i)), n - i);
}

/* The sum of (x - mean)^2; lanes beyond the row hold `mean` and so add nothing. */
static float spread(const float *x, float mean, int64_t n) {
  vf sum = vf_set1(0.0f), middle = vf_set1(mean);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf away = vf_sub(vf_load(x + i), middle);
    sum = vf_fma(away, away, sum);
  }
  if (i < n) {
    float rest[LANES];
    vf_store(rest, middle);
    for (int64_t k = i; k < n; k++) rest[k - i] = x[k];
    vf away = vf_sub(vf_load(rest), middle);
    sum = vf_fma(away, away, sum);
  }
  return vf_sum(sum);
}

static float norm_middle(const struct norm *norm, const float *x, int64_t n) {
  return norm->kind == NORM_LAYER ? mean_of(x, n) : 0.0f;
}

static float norm_scale_about(const struct norm *norm, float middle, int64_t n, const float *x) {
  return sqrtf(spread(x, middle, n) / (float)n + norm->eps);
}

static float norm_scale(const struct norm *norm, int64_t n, const float *x) {
  return norm_scale_about(norm, norm_middle(norm, x, n), n, x);
}

static void normalize_row(const struct norm *norm, int64_t n, const float *x, float scale, float *y) {
  vf middle = vf_set1(norm_middle(norm, x, n)), factor = vf_set1(1.0f / scale);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) vf_store(y + i, vf_mul(vf_sub(vf_load(x + i), middle), factor));
  if (i < n) vf_store_part(y + i, vf_mul(vf_sub(vf_load_part(x + i, n - i), middle), factor), n - i);
}

VF vf gain_vector(vf y, const float *gain, const float *bias, int64_t i, int64_t n) {
  if (gain) y = vf_mul(y, vf_load_part(gain + i, n));
  if (bias) y = vf_add(y, vf_load_part(bias + i, n));
  return y;
}

static void gain_row(const struct norm *norm, int64_t n, const float *x, float *y) {
  const float *gain = span_floats(norm->gain), *bias = span_floats(norm->bias);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) vf_store(y + i, gain_vector(vf_load(x + i), gain, bias, i, LANES));
  if (i < n) vf_store_part(y + i, gain_vector(vf_load_part(x + i, n - i), gain, bias, i, n - i), n - i);
}

VF vf norm_vector(vf x, vf mean, vf scale, const float *gain, const float *bias, int64_t i, int64_t n) {
  return gain_vector(vf_mul(vf_sub(x, mean), scale), gain, bias, i, n);
}

static void norm_row(const struct norm *norm, int64_t n, const float *x, float *y) {
  if (norm->kind == NORM_NONE) {
    memmove(y, x, (size_t)n * sizeof *y);
    return;
  }
  const float *gain = span_floats(norm->gain), *bias = span_floats(norm->bias);
  float mean = norm_middle(norm, x, n);
  vf middle = vf_set1(mean), scale = vf_set1(1.0f / norm_scale_about(norm, mean, n, x));
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    vf_store(y + i, norm_vector(vf_load(x + i), middle, scale, gain, bias, i, LANES));
  if (i < n) vf_store_part(y + i, norm_vector(vf_load_part(x + i, n - i), middle, scale, gain, bias, i, n - i), n - i);
}

/* x e^(x - largest) / sum of e^(x - largest). Lanes beyond the row hold -infinity, whose power is 0. */
static void solu_row(int64_t n, const float *x, float *y) {
  const vf none = vf_set1(-__builtin_inff());
  float rest[LANES];
  int64_t whole = n / LANES * LANES;
  vf_store(rest, none);
  for (int64_t k = whole; k < n; k++) rest[k - whole] = x[k];
  vf most = vf_load(rest);
  for (int64_t i = 0; i < whole; i += LANES) most = vf_max(vf_load(x + i), most);
  vf largest = vf_set1(vf_largest(most)), sum = vf_set1(0.0f);
  for (int64_t i = 0; i < whole; i += LANES) sum = vf_add(sum, vf_exp(vf_sub(vf_load(x + i), largest)));
  if (whole < n) sum = vf_add(sum, vf_exp(vf_sub(vf_load(rest), largest)));
  vf total = vf_set1(vf_sum(sum));
  for (int64_t i = 0; i < whole; i += LANES) {
    vf value = vf_load(x + i);
    vf_store(y + i, vf_div(vf_mul(value, vf_exp(vf_sub(value, largest))), total));
  }
  if (whole < n) {
    vf value = vf_load_part(x + whole, n - whole);
    vf_store_part(y + whole, vf_div(vf_mul(value, vf_exp(vf_sub(value, largest))), total), n - whole);
  }
}

/* One pair, as the vectors below turn theirs; without contraction, so that every lane and every tail agrees. */
VF void rotate_pair(float cosine, float sine, float *a, float *b) {
  float x = *a, y = *b;
  *a = x * cosine - y * sine;
  *b = y * cosine + x * sine;
}

static void rotate_head(enum rotary_pairing pairing, int64_t dims, const float *table, float *x) {
  int64_t half = dims / 2, i = 0;
  const float *sines = table + half;
  if (pairing == ROTARY_NEIGHBOURS) {
    for (; i < half; i++) rotate_pair(table[i], sines[i], x + 2 * i, x + 2 * i + 1);
    return;
  }
  for (; i + LANES <= half; i += LANES) {
    vf a = vf_load(x + i), b = vf_load(x + half + i), c = vf_load(table + i), s = vf_load(sines + i);
    vf_store(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
    vf_store(x + half + i, vf_add(vf_mul(b, c), vf_mul(a, s)));
  }
  for (; i < half; i++) rotate_pair(table[i], sines[i], x + i, x + half + i);
}

static void cap_row(float cap, int64_t n, float *y) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) vf_store(y + i, vf_soft_cap(vf_load(y + i), cap));
  if (i < n) vf_store_part(y + i, vf_soft_cap(vf_load_part(y + i, n - i), cap), n - i);
}

static void gate_row(enum activation act, int64_t n, const float *x, const float *up, float *y) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf value = vf_activate(act, vf_load(x + i));
    vf_store(y + i, up ? vf_mul(value, vf_load(up + i)) : value);
  }
  if (i < n) {
    vf value = vf_activate(act, vf_load_part(x + i, n - i));
    vf_store_part(y + i, up ? vf_mul(value, vf_load_part(up + i, n - i)) : value, n - i);
  }
}
