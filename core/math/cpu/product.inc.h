/* product.inc.h: the micro-kernels of a product. Included by kernels.inc.h.
 *
 * A tile keeps rows x panels accumulators in registers: with AVX-512, 12 rows by 2 panels are 24 accumulators, 2
 * vectors of weights and 1 broadcast of 32 registers, and each step over k is 24 fused multiply-adds for 14
 * loads. The loops over an accumulator array must be unrolled to the last one, or the array lives in memory;
 * hence one function for each shape, made from one body with constant arguments. */

#define UNROLL _Pragma("GCC unroll 16")
#define TILE_MAX_PANELS 4
#define CHAIN_ROWS 8

#define LOAD_F32(p) vf_load((const float *)(const void *)(p))
#define LOAD_F16(p) vf_load_f16((const uint16_t *)(const void *)(p))
#define LOAD_BF16(p) vf_load_bf16((const uint16_t *)(const void *)(p))

/* Of Q8; exact (blocks.h). */
VF vf load_numbers(const unsigned char *p, vf scale) { return vf_mul(vf_load_i8((const int8_t *)(const void *)p), scale); }

VF vf load_weights(const enum dtype dtype, const unsigned char *p) {
  if (dtype == DTYPE_F32) return LOAD_F32(p);
  return dtype == DTYPE_F16 ? LOAD_F16(p) : LOAD_BF16(p);
}

/* The weights are widened where they are met: beside 24 multiply-adds nothing waits for that. `wide` is there where other tiles
 * follow. */
VF void tile_body(const enum dtype dtype, const bool keep, const int panels, const int rows, int64_t n, const unsigned char *w,
                  size_t panel_bytes, const float *x, float *c, bool add, float *wide, const struct ahead *ahead) {
  const unsigned char *fetch = ahead->at;
  size_t fetch_stride = ahead->stride, fetch_step = ahead->step;
  vf sum[TILE_ROWS][TILE_MAX_PANELS];
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int p = 0; p < panels; p++)
      sum[r][p] = add ? vf_load(c + (r * panels + p) * LANES) : vf_set1(0.0f);
  }
  for (int64_t k = 0; k < n;) {
    const int64_t end = dtype == DTYPE_Q8 && n - k > Q8_INPUTS ? k + Q8_INPUTS : n;
    vf scale[TILE_MAX_PANELS];
    if (dtype == DTYPE_Q8) {
      UNROLL for (int p = 0; p < panels; p++) scale[p] = LOAD_F16(w + (size_t)p * panel_bytes);
      w += LANES * 2;
    }
    for (; k < end; k++) {
      vf weight[TILE_MAX_PANELS];
      UNROLL for (int p = 0; p < panels; p++) {
        const unsigned char *at = w + (size_t)p * panel_bytes;
        weight[p] = dtype == DTYPE_Q8 ? load_numbers(at, scale[p]) : load_weights(dtype, at);
        if (keep) vf_store(wide + (size_t)p * WIDE_FLOATS, weight[p]);
        __builtin_prefetch(fetch + (size_t)p * fetch_stride, 0, 3);
      }
      fetch += fetch_step;
      UNROLL for (int r = 0; r < rows; r++) {
        vf value = vf_set1(x[r]);
        UNROLL for (int p = 0; p < panels; p++) sum[r][p] = vf_fma(value, weight[p], sum[r][p]);
      }
      w += LANES * (dtype == DTYPE_F32 ? 4 : dtype == DTYPE_Q8 ? 1 : 2);
      if (keep) wide += LANES;
      x += rows;
    }
  }
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int p = 0; p < panels; p++) vf_store(c + (r * panels + p) * LANES, sum[r][p]);
  }
}

#define TILE_OF(dtype, panels, rows)                                                                               \
  static void tile_##dtype##_##panels##x##rows(int64_t n, const unsigned char *w, size_t panel_bytes, const float *x, float *c, \
                                               bool add, float *wide, const struct ahead *ahead) {                  \
    if (DTYPE_##dtype != DTYPE_F32 && wide)                                                                        \
      tile_body(DTYPE_##dtype, true, panels, rows, n, w, panel_bytes, x, c, add, wide, ahead);                      \
    else                                                                                                           \
      tile_body(DTYPE_##dtype, false, panels, rows, n, w, panel_bytes, x, c, add, NULL, ahead);                     \
  }
#define TILE_F32(panels, rows) TILE_OF(F32, panels, rows)
#define TILE_F16(panels, rows) TILE_OF(F16, panels, rows)
#define TILE_BF16(panels, rows) TILE_OF(BF16, panels, rows)
#define TILE_Q8(panels, rows) TILE_OF(Q8, panels, rows)

/* One row: every panel is a stream of its own from memory, and a chain of its own, so that several of them hide
 * the latency of the multiply-add and keep many fetches under way. The streams fetch STREAM_AHEAD bytes ahead of
 * themselves; over their last piece they fetch the beginnings of the panels that this thread will meet next,
 * where the prefetchers of the hardware would have to learn eight new streams. */
#define STREAM_AHEAD 4096
#define STREAM(dtype, size)                                                                                    \
  VF void stream_##dtype##_body(const int panels, int64_t n, const unsigned char *w, size_t panel_bytes,        \
                                const unsigned char *next, const float *x, float *c) {                          \
    const int64_t last = n > STREAM_AHEAD / (LANES * size) ? n - STREAM_AHEAD / (LANES * size) : 0;             \
    vf sum[STREAM_PANELS];                                                                                     \
    UNROLL for (int p = 0; p < panels; p++) sum[p] = vf_set1(0.0f);                                             \
    for (int64_t k = 0; k < n;) {                                                                              \
      const int64_t end = k < last ? last : n;                                                                 \
      const unsigned char *fetch = k < last ? w + STREAM_AHEAD : next;                                         \
      for (; k < end; k++) {                                                                                   \
        vf value = vf_set1(x[k]);                                                                              \
        UNROLL for (int p = 0; p < panels; p++) {                                                               \
          sum[p] = vf_fma(value, LOAD_##dtype(w + (size_t)p * panel_bytes), sum[p]);                     \
          __builtin_prefetch(fetch + (size_t)p * panel_bytes, 0, 3);                                            \
        }                                                                                                      \
        w += LANES * size;                                                                                     \
        fetch += LANES * size;                                                                                 \
      }                                                                                                        \
    }                                                                                                          \
    UNROLL for (int p = 0; p < panels; p++) vf_store(c + p * LANES, sum[p]);                                    \
  }                                                                                                            \
  static void stream_##dtype(int64_t n, const unsigned char *w, size_t panel_bytes, int panels,                 \
                             const unsigned char *next, const float *x, float *c) {                            \
    if (panels == STREAM_PANELS) {                                                                             \
      stream_##dtype##_body(STREAM_PANELS, n, w, panel_bytes, next, x, c);                                     \
      return;                                                                                                  \
    }                                                                                                          \
    for (; panels > 0; panels--, w += panel_bytes, c += LANES)                                                  \
      stream_##dtype##_body(1, n, w, panel_bytes, next, x, c);                                                 \
  }

STREAM(F32, 4)
STREAM(F16, 2)
STREAM(BF16, 2)

/* The same over blocks, whose lines are fetched at once: for each input it would cost more than the weights do. */
VF void stream_Q8_body(const int panels, int64_t n, const unsigned char *w, size_t panel_bytes, const unsigned char *next, const float *x,
                       float *c) {
  const int64_t last = n - STREAM_AHEAD / (Q8_BLOCK / Q8_INPUTS);
  vf sum[STREAM_PANELS], scale[STREAM_PANELS];
  UNROLL for (int p = 0; p < panels; p++) sum[p] = vf_set1(0.0f);
  for (int64_t k = 0; k < n;) {
    const int64_t end = n - k > Q8_INPUTS ? k + Q8_INPUTS : n;
    const unsigned char *fetch = k < last ? w + STREAM_AHEAD : next;
    if (k >= last) next += Q8_BLOCK;
    UNROLL for (int p = 0; p < panels; p++) {
      scale[p] = LOAD_F16(w + (size_t)p * panel_bytes);
      UNROLL for (int line = 0; line < Q8_BLOCK; line += 64) __builtin_prefetch(fetch + (size_t)p * panel_bytes + line, 0, 3);
    }
    w += LANES * 2;
    for (; k < end; k++, w += LANES) {
      vf value = vf_set1(x[k]);
      UNROLL for (int p = 0; p < panels; p++) sum[p] = vf_fma(value, load_numbers(w + (size_t)p * panel_bytes, scale[p]), sum[p]);
    }
  }
  UNROLL for (int p = 0; p < panels; p++) vf_store(c + p * LANES, sum[p]);
}

static void stream_Q8(int64_t n, const unsigned char *w, size_t panel_bytes, int panels, const unsigned char *next, const float *x,
                      float *c) {
  if (panels == STREAM_PANELS) {
    stream_Q8_body(STREAM_PANELS, n, w, panel_bytes, next, x, c);
    return;
  }
  for (; panels > 0; panels--, w += panel_bytes, c += LANES) stream_Q8_body(1, n, w, panel_bytes, next, x, c);
}

static void stream(enum dtype dtype, int64_t n, const unsigned char *w, size_t panel_bytes, int panels,
                   const unsigned char *next, const float *x, float *c) {
  if (dtype == DTYPE_F32)
    stream_F32(n, w, panel_bytes, panels, next, x, c);
  else if (dtype == DTYPE_F16)
    stream_F16(n, w, panel_bytes, panels, next, x, c);
  else if (dtype == DTYPE_Q8)
    stream_Q8(n, w, panel_bytes, panels, next, x, c);
  else
    stream_BF16(n, w, panel_bytes, panels, next, x, c);
}

/* The bias of a panel is added to the finished sum, and then the activation is taken. */
static void finish_linear(const struct product *product, int64_t row, int rows, int64_t panel, int panels,
                          const float *c) {
  for (int p = 0; p < panels; p++) {
    int64_t first = (panel + p) * LANES, n = product->w->base.n_out - first;
    vf bias = vf_set1(0.0f);
    if (n > LANES) n = LANES;
    if (product->bias) bias = vf_load_part(product->bias + first, n);
    for (int r = 0; r < rows; r++) {
      vf sum = vf_add(vf_load(c + (r * panels + p) * LANES), bias);
      float *y = product->y + (row + r) * product->ld_y + first;
      sum = vf_activate(product->act, sum);
      if (product->soft_cap > 0) sum = vf_soft_cap(sum, product->soft_cap);
      if (n == LANES)
        vf_store(y, sum);
      else
        vf_store_part(y, sum, n);
    }
  }
}

/* ---- one output of many rows ----------------------------------------------------------------------------- */

/* A chain cannot be shortened, so several rows are under way at once: eight hide the latency of the multiply-add. */
VF void chain_body(const int rows, int64_t n, const float *w, const float *x, int64_t ld, float *sums) {
  float sum[CHAIN_ROWS];
  UNROLL for (int r = 0; r < rows; r++) sum[r] = sums[r];
  for (int64_t k = 0; k < n; k++) {
    UNROLL for (int r = 0; r < rows; r++) sum[r] = f_fma(x[r * ld + k], w[k], sum[r]);
  }
  UNROLL for (int r = 0; r < rows; r++) sums[r] = sum[r];
}

static void chain(int64_t n, const float *w, const float *x, int64_t ld, int64_t rows, float *sums) {
  for (; rows >= CHAIN_ROWS; rows -= CHAIN_ROWS, x += CHAIN_ROWS * ld, sums += CHAIN_ROWS)
    chain_body(CHAIN_ROWS, n, w, x, ld, sums);
  for (; rows > 0; rows--, x += ld, sums++) chain_body(1, n, w, x, ld, sums);
}
