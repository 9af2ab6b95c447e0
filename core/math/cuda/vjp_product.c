/* vjp_product.c: the way back through products and attention: sums by the library, in plain f32, whatever the weights are kept in. Nothing is
 * rounded on the way and no two blocks add to one number, so the same step gives the same bits each time. */
#include "core/base/checked.h"
#include "core/math/cuda/vjp.h"

#define WIDE_BYTES ((size_t)16 << 20)  /* of weights in f32 at a time: they are read where they were written, in the second cache */
#define SCORE_BYTES ((size_t)64 << 20) /* of scores and their cotangents at a time */

/* ---- the library --------------------------------------------------------------------------------------------------------------- */

/* Element (i, k) at at[i * ld + k], turned: at[k * ld + i]; of the next in a batch `step` further on. */
struct factor {
  float *at;
  int64_t ld, step;
  bool turned;
};

/* y(i, j) = times * sum over k of x(i, k) w(j, k), or that more than it was. */
struct sums {
  int64_t rows, columns, terms, batch; /* batch 0: one that is no batch */
  struct factor x, w;
  float times;
  bool adds;
  float *y;
  int64_t ld, step;
};

/* Matrices of the library are column by column: what is a row here is a column there. What is no batch is asked for as such: the library then
 * cuts long sums into parts that run side by side. */
static cublasStatus_t ask_library(cublasHandle_t blas, const struct sums *s) {
  const float keep = s->adds ? 1 : 0;
  cublasOperation_t of_w = s->w.turned ? CUBLAS_OP_N : CUBLAS_OP_T, of_x = s->x.turned ? CUBLAS_OP_T : CUBLAS_OP_N;
  int columns = (int)s->columns, rows = (int)s->rows, terms = (int)s->terms;
  if (!s->batch)
    return cublasGemmEx(blas, of_w, of_x, columns, rows, terms, &s->times, s->w.at, CUDA_R_32F, (int)s->w.ld, s->x.at, CUDA_R_32F, (int)s->x.ld,
                        &keep, s->y, CUDA_R_32F, (int)s->ld, CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_GEMM_DEFAULT);
  return cublasGemmStridedBatchedEx(blas, of_w, of_x, columns, rows, terms, &s->times, s->w.at, CUDA_R_32F, (int)s->w.ld, s->w.step, s->x.at,
                                    CUDA_R_32F, (int)s->x.ld, s->x.step, &keep, s->y, CUDA_R_32F, (int)s->ld, s->step, (int)s->batch,
                                    CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_GEMM_DEFAULT);
}

static int sum_products(struct cuda_backend *cuda, const struct sums *s, struct error *error) {
  static const struct launch_size unknown = {0, 0, 0, 0, 0};
  cublasStatus_t status = ask_library(cuda->blas, s);
  if (status == CUBLAS_STATUS_SUCCESS)
    return cuda_check(cuda, launch_watched(cuda->stream, NULL, &unknown, cudaSuccess), "a product on the way back", error);
  return error_set(error, ERROR_DEVICE, "CUDA device %d: a product on the way back failed: %s", cuda->device, cublasGetStatusString(status));
}

/* ---- products: dx += dy W --------------------------------------------------------------------------------------------------------- */

/* Weights of 16 bits are widened some outputs at a time. */
static int back_widened(const struct way_back *back, const struct device_matrix *w, struct sums *s, struct error *error) {
  struct cuda_backend *cuda = back->cuda;
  int64_t each = (int64_t)size_max(WIDE_BYTES / ((size_t)w->ld * sizeof(float)), 1);
  if (each > w->n_out) each = w->n_out;
  float *wide = cuda_scratch(cuda, SCRATCH_BACK, (size_t)each * (size_t)w->ld * sizeof(float), error);
  if (!wide) return -1;
  float *dy = s->x.at;
  s->w.at = wide;
  for (int64_t out = back->vjp->outputs_from; out < w->n_out; out += each) {
    s->terms = w->n_out - out < each ? w->n_out - out : each;
    s->x.at = dy + out;
    if (cuda_check(cuda, launch_widen(cuda->stream, w, out, s->terms, wide), "widening weights", error) != 0 ||
        sum_products(cuda, s, error) != 0)
      return -1;
  }
  return 0;
}

int vjp_linear(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  struct device_matrix w = cuda_matrix_view(op->u.linear.w);
  struct device_rows dy = cotangents_of(back, op->u.linear.y), dx = cotangents_of(back, op->u.linear.x);
  int64_t first = back->rows.begin, from = back->vjp->outputs_from;
  struct sums s = {.rows = back->rows.end - first, .columns = w.n_in, .terms = w.n_out,
                   .x = {dy.at + first * dy.ld, dy.ld, 0, false}, .w = {(float *)w.data, w.ld, 0, true}, .times = 1, .adds = true,
                   .y = dx.at + first * dx.ld, .ld = dx.ld};
  int failed;
  if (w.dtype == DTYPE_F32) {
    s.x.at += from;
    s.w.at += from * w.ld;
    s.terms -= from;
    failed = sum_products(back->cuda, &s, error);
  } else {
    failed = back_widened(back, &w, &s, error);
  }
  return failed ? -1 : vjp_clear(back, op->u.linear.y, w.n_out, error);
}

/* ---- attention -------------------------------------------------------------------------------------------------------------------- */

/* Some rows of a text, and the keys that any of them sees: the first key is row `key` of the buffers. */
struct look {
  struct back_soften_args soften; /* rows, positions, keys and where their scores are */
  int64_t row, key;
};

/* One query head of each KV head: heads g, g + group, ..., which meet heads 0, 1, ... of keys and values. */
struct heads {
  const struct way_back *back;
  const struct look *look;
  int g, group;
};

/* Rows of one head of each KV head from a column on, `apart` columns from one to the next. */
static struct factor head_rows(struct device_rows rows, int64_t row, int64_t column, int64_t apart, bool turned) {
  return (struct factor){rows.at + row * rows.ld + column, rows.ld, apart, turned};
}

static struct factor queries(const struct heads *h, struct device_rows of, int64_t column, bool turned) {
  int64_t d = h->back->op->u.attend.d_head;
  return head_rows(of, h->look->row, column + h->g * d, h->group * d, turned);
}

static struct factor keys(const struct heads *h, struct device_rows of, int64_t column, bool turned) {
  return head_rows(of, h->look->key, column, h->back->op->u.attend.d_head, turned);
}

/* What scores [n_head][rows][ld] have of these heads. */
static struct factor scores(const struct heads *h, float *all, bool turned) {
  const struct back_soften_args *s = &h->look->soften;
  int64_t head = (int64_t)s->rows * s->ld;
  return (struct factor){all + h->g * head, s->ld, h->group * head, turned};
}

/* y(i, j) of these heads. */
static int meet(const struct heads *h, int64_t rows, int64_t columns, int64_t terms, struct factor x, struct factor w, float times, bool adds,
                struct factor y, struct error *error) {
  struct sums s = {.rows = rows, .columns = columns, .terms = terms, .batch = h->back->op->u.attend.n_kv_head, .x = x, .w = w,
                   .times = times, .adds = adds, .y = y.at, .ld = y.ld, .step = y.step};
  return sum_products(h->back->cuda, &s, error);
}

/* Scaled products of queries and keys, and of the cotangents of z with values. */
static int meet_keys(const struct heads *h, struct error *error) {
  const struct op *op = h->back->op;
  const struct back_soften_args *s = &h->look->soften;
  struct device_rows qkv = device_rows_of(op->u.attend.qkv), dz = cotangents_of(h->back, op->u.attend.z);
  int64_t d = op->u.attend.d_head;
  if (meet(h, s->rows, s->keys, d, queries(h, qkv, op->u.attend.q, false), keys(h, qkv, op->u.attend.k, false), s->scale, false,
           scores(h, s->p, false), error) != 0)
    return -1;
  return !s->dp ? 0 : meet(h, s->rows, s->keys, d, queries(h, dz, 0, false), keys(h, qkv, op->u.attend.v, false), 1, false, scores(h, s->dp, false), error);
}

/* Weights and cotangents of products are there: what they bring to values, queries and keys. */
static int give(const struct heads *h, struct error *error) {
  const struct op *op = h->back->op;
  const struct back_soften_args *s = &h->look->soften;
  struct device_rows qkv = device_rows_of(op->u.attend.qkv), to = cotangents_of(h->back, op->u.attend.qkv), dz = cotangents_of(h->back, op->u.attend.z);
  int64_t d = op->u.attend.d_head;
  if (meet(h, s->keys, d, s->rows, scores(h, s->p, true), queries(h, dz, 0, true), 1, true, keys(h, to, op->u.attend.v, false), error) != 0) return -1;
  if (!s->dp) return 0;
  if (meet(h, s->rows, d, s->keys, scores(h, s->dp, false), keys(h, qkv, op->u.attend.k, true), 1, true, queries(h, to, op->u.attend.q, false), error) != 0)
    return -1;
  return meet(h, s->keys, d, s->rows, scores(h, s->dp, true), queries(h, qkv, op->u.attend.q, true), 1, true, keys(h, to, op->u.attend.k, false), error);
}

static int back_look(const struct way_back *back, const struct look *look, struct error *error) {
  struct heads h = {back, look, 0, back->op->u.attend.n_head / back->op->u.attend.n_kv_head};
  for (h.g = 0; h.g < h.group; h.g++)
    if (meet_keys(&h, error) != 0) return -1;
  if (cuda_check(back->cuda, launch_back_soften(back->cuda->stream, &look->soften), "the way back through weights of attention", error) != 0)
    return -1;
  for (h.g = 0; h.g < h.group; h.g++)
    if (give(&h, error) != 0) return -1;
  return 0;
}

/* Rows of a slot from `first` on: as many as the room for scores takes. */
static int look_of(const struct way_back *back, const struct step_slot *slot, int32_t first, struct look *look, struct error *error) {
  const struct op *op = back->op;
  int32_t start = slot->rows.begin - slot->position, position = first - start, begin = window_begin(position, op->u.attend.window);
  int32_t last = slot->rows.end - 1 - start;
  bool both = !back->vjp->hold_pattern;
  size_t row = (size_t)op->u.attend.n_head * size_round_up((size_t)(last + 1 - begin), 4) * sizeof(float) * (both ? 2 : 1);
  int32_t rows = (int32_t)size_min(size_max(SCORE_BYTES / row, 1), (size_t)(slot->rows.end - first)), n = position + rows - begin;
  int64_t ld = (int64_t)size_round_up((size_t)n, 4), floats = ld * rows * op->u.attend.n_head;
  float *scratch = cuda_scratch(back->cuda, SCRATCH_BACK, (size_t)rows * row, error);
  *look = (struct look){{.p = scratch, .dp = both ? scratch + floats : NULL, .ld = ld, .n_head = op->u.attend.n_head, .rows = rows, .position = position,
                         .begin = begin, .keys = n, .window = op->u.attend.window, .scale = op->u.attend.scale,
                         .soft_cap = op->u.attend.soft_cap}, first, start + begin};
  return scratch ? 0 : -1;
}

int vjp_attend(const struct way_back *back, struct error *error) {
  const struct op *op = back->op;
  for (int32_t i = 0; i < back->step->n_slots; i++) {
    const struct step_slot *slot = &back->step->slots[i];
    struct look look;
    if (!slot_active(slot, op->layer)) continue;
    for (int32_t first = slot->rows.begin; first < slot->rows.end; first += look.soften.rows)
      if (look_of(back, slot, first, &look, error) != 0 || back_look(back, &look, error) != 0) return -1;
  }
  return vjp_clear(back, op->u.attend.z, op->width, error);
}
