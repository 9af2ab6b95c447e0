/* back.inc.h: the way back through norms, activations and attention. Included by kernels.inc.h. */

/* How an activation grows at x. */
VF vf vf_slope(enum activation act, vf x) {
  const vf one = vf_set1(1.0f), zero = vf_set1(0.0f);
  switch (act) {
    case ACT_NONE: return one;
    case ACT_RELU: return vf_where_less(zero, x, one, zero);
    case ACT_GELU_TANH: { /* x s with s = 1 / (1 + e^-2u): s + x s (1 - s) 2u' */
      vf square = vf_mul(x, x), inner = vf_fma(vf_mul(square, x), vf_set1(0.044715f), x);
      vf s = vf_times_sigmoid(one, vf_mul(inner, vf_set1(1.59576912f)));
      vf grows = vf_mul(vf_fma(square, vf_set1(3 * 0.044715f), one), vf_set1(1.59576912f));
      return vf_fma(vf_mul(vf_mul(x, s), vf_sub(one, s)), grows, s);
    }
    case ACT_GELU_ERF: {
      vf half = vf_set1(0.5f), normal = vf_exp(vf_mul(vf_mul(x, x), vf_set1(-0.5f)));
      vf below = vf_fma(half, vf_erf(vf_mul(x, vf_set1(0.707106781f))), half);
      return vf_fma(vf_mul(x, normal), vf_set1(0.398942280f), below);
    }
    case ACT_SILU: {
      vf s = vf_times_sigmoid(one, x);
      return vf_fma(vf_mul(x, s), vf_sub(one, s), s);
    }
  }
  return one;
}

/* y = act(x) up: to += g act'(x) up, to_up += g act(x); up may be NULL. */
VF void gate_back_span(enum activation act, const float *x, const float *up, const float *g, float *to, float *to_up, int64_t i,
                       int64_t n) {
  vf at = vf_load_part(x + i, n), along = vf_load_part(g + i, n), grows = vf_mul(along, vf_slope(act, at));
  if (up) {
    grows = vf_mul(grows, vf_load_part(up + i, n));
    vf_store_part(to_up + i, vf_fma(along, vf_activate(act, at), vf_load_part(to_up + i, n)), n);
  }
  vf_store_part(to + i, vf_add(vf_load_part(to + i, n), grows), n);
}

static void gate_back(enum activation act, int64_t n, const float *x, const float *up, const float *g, float *to, float *to_up) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) gate_back_span(act, x, up, g, to, to_up, i, LANES);
  if (i < n) gate_back_span(act, x, up, g, to, to_up, i, n - i);
}

/* With h = (x - m) / s and e = g gain: to += (e - mean(e) - h mean(e h)) / s, without the first mean for RMS, without the second where
 * s is a constant. e takes the place of g. */
static void norm_back(const struct norm *norm, int64_t n, const float *x, float *g, bool hold, float *to) {
  const float *gain = span_floats(norm->gain);
  if (norm->kind == NORM_NONE) {
    add_scaled(to, 1.0f, g, n);
    return;
  }
  float middle = norm_middle(norm, x, n), factor = 1.0f / norm_scale_about(norm, middle, n, x);
  for (int64_t i = 0; gain && i < n; i += LANES) {
    int64_t part = n - i < LANES ? n - i : LANES;
    vf_store_part(g + i, vf_mul(vf_load_part(g + i, part), vf_load_part(gain + i, part)), part);
  }
  float mean = norm_middle(norm, g, n), along = 0;
  if (!hold) along = (dot(g, x, n) - middle * mean_of(g, n) * (float)n) * factor * factor / (float)n;
  vf off = vf_set1(mean), turn = vf_set1(-along), centre = vf_set1(middle), times = vf_set1(factor);
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t part = n - i < LANES ? n - i : LANES;
    vf e = vf_sub(vf_load_part(g + i, part), off);
    e = vf_fma(vf_sub(vf_load_part(x + i, part), centre), turn, e);
    vf_store_part(to + i, vf_fma(e, times, vf_load_part(to + i, part)), part);
  }
}

/* ---- attention ---- */

/* Scores to weights that add up to 1; slope: how each score grows with the scaled product. Lanes behind the last are not read. */
static void look_back(const struct op *op, int n, float *p, float *slope) {
  vf scale = vf_set1(op->u.attend.scale), cap = vf_set1(op->u.attend.soft_cap), one = vf_set1(1.0f), most = vf_set1(-__builtin_inff());
  const bool capped = op->u.attend.soft_cap > 0;
  for (int i = n; i % LANES; i++) p[i] = -__builtin_inff();
  for (int i = 0; i < n; i += LANES) {
    vf score = vf_mul(vf_load(p + i), scale), bent = capped ? vf_tanh(vf_div(score, cap)) : one;
    if (capped) score = vf_mul(cap, bent);
    if (capped) vf_store(slope + i, vf_sub(one, vf_mul(bent, bent)));
    vf_store(p + i, score);
    most = vf_max(score, most);
  }
  for (int i = n; i % LANES; i++) p[i] = -__builtin_inff(); /* a cap bends infinity too */
  vf largest = vf_set1(vf_largest(most)), sum = vf_set1(0.0f);
  for (int i = 0; i < n; i += LANES) {
    vf weight = vf_exp(vf_sub(vf_load(p + i), largest));
    sum = vf_add(sum, weight);
    vf_store(p + i, weight);
  }
  vf total = vf_set1(vf_sum(sum));
  for (int i = 0; i < n; i += LANES) vf_store(p + i, vf_div(vf_load(p + i), total));
}

/* One query of one head; q, g: the query and the cotangent of its z; rows of keys and values `ld` apart, as their cotangents. The
 * score's cotangent is p (g.v - mean) with mean = the sum of p g.v. */
static void attend_back_head(const struct attend_back *at, int n, const float *q, const float *g, const float *k, const float *v,
                             float *to_q, float *to_k, float *to_v, float *scratch) {
  const struct op *op = at->op;
  const int64_t d = op->u.attend.d_head, ld = op->u.attend.qkv.ld;
  float *p = scratch, *slope = p + at->room, *s = slope + at->room;
  for (int j = 0; j < n; j++) p[j] = dot(q, k + j * ld, d);
  look_back(op, n, p, slope);
  for (int j = 0; j < n; j++) add_scaled(to_v + j * ld, p[j], g, d);
  if (at->hold_pattern) return;
  for (int j = 0; j < n; j++) s[j] = dot(g, v + j * ld, d);
  float mean = dot(p, s, n);
  for (int j = 0; j < n; j++) {
    float score = p[j] * (s[j] - mean) * op->u.attend.scale;
    if (op->u.attend.soft_cap > 0) score *= slope[j];
    add_scaled(to_q, score, k + j * ld, d);
    add_scaled(to_k + j * ld, score, q, d);
  }
}

/* All rows of the unit, the heads of one KV head. The cotangents of z are left to whoever takes them. */
static void attend_back_rows(const struct attend_back *at, float *scratch) {
  const struct op *op = at->op;
  int d = op->u.attend.d_head, group = op->u.attend.n_head / op->u.attend.n_kv_head;
  int64_t key = op->u.attend.k + (int64_t)at->kv_head * d, value = op->u.attend.v + (int64_t)at->kv_head * d;
  for (int32_t row = at->rows.begin; row < at->rows.end; row++) {
    int32_t position = row - at->first, begin = window_begin(position, op->u.attend.window);
    const float *seen = rows_at(op->u.attend.qkv, at->first + begin);
    float *to_seen = cotangents_at(at->vjp, op->u.attend.qkv, at->first + begin);
    for (int h = at->kv_head * group; h < (at->kv_head + 1) * group; h++)
      attend_back_head(at, position + 1 - begin, rows_at(op->u.attend.qkv, row) + op->u.attend.q + h * d,
                       cotangents_at(at->vjp, op->u.attend.z, row) + h * d, seen + key, seen + value,
                       cotangents_at(at->vjp, op->u.attend.qkv, row) + op->u.attend.q + h * d, to_seen + key, to_seen + value, scratch);
  }
}

/* ---- weights ---- */

/* to[i] = weights [0, n) as they are kept, n a multiple of LANES. */
static void widen(enum dtype dtype, const unsigned char *panel, int64_t first, int64_t n, float *to) {
  for (int64_t in = first; in < first + n; in++, to += LANES) {
    const unsigned char *block = panel + (size_t)(in / Q8_INPUTS) * Q8_BLOCK;
    if (dtype == DTYPE_Q8)
      vf_store(to, load_numbers(block + (2 + in % Q8_INPUTS) * LANES, LOAD_F16(block)));
    else
      vf_store(to, load_weights(dtype, panel + (size_t)in * panel_line(dtype)));
  }
}

static void add_lanes(int64_t n, const float *g, const float *w, float *sums) {
  vf along = vf_load(g);
  for (int64_t i = 0; i < n * LANES; i += LANES) vf_store(sums + i, vf_fma(along, vf_load(w + i), vf_load(sums + i)));
}
