/* ref.h: the obvious path: the formulas of ops.h as plain loops, to be read and to be compared with.
 *
 * One thread, sums in double, libm, weights read element by element from where the file was mapped. Nothing
 * here is fast and nothing here should become fast. */
#ifndef STEERD_CORE_MATH_REF_REF_H
#define STEERD_CORE_MATH_REF_REF_H

#include "core/math/host.h"
#include "core/math/learn.h"

/* The parts as they were given: no copy. */
struct ref_matrix {
  struct matrix base;
  struct matrix_part part[MATRIX_MAX_PARTS];
  int n_parts;
  float *own;   /* what matrix_write has made of them, or Q8; NULL: they are read where they lie */
  bool rounded; /* weights count as if they were kept in base.dtype */
};

struct backend *ref_open(struct error *error) MUST_CHECK;

/* Element (out, in) of W. */
double ref_weight(const struct matrix *w, int64_t out, int64_t in);

/* x . row `out` of W. */
double ref_product(const struct matrix *w, int64_t out, const float *x);

int ref_run_op(const struct op *op, const struct step *step, struct error *error);

/* rows.c: formulas over one row. */
float ref_activate(enum activation act, float x);
float ref_norm_scale(const struct norm *norm, int64_t width, const float *x);
void ref_normalize_row(const struct norm *norm, int64_t width, const float *x, float scale, float *y);
void ref_gain_row(const struct norm *norm, int64_t width, const float *x, float *y);
void ref_solu_row(int64_t width, const float *x, float *y);
void ref_norm_row(const struct norm *norm, int64_t width, const float *x, float *y);
void ref_point_row(const struct point_items *items, int32_t row, float *h, int64_t column, int64_t width);
void ref_point(const struct op *op, const struct step *step, enum site site, struct rows x, struct row_range rows);

/* learn.c */
extern const struct learn ref_learn;

/* attend.c */
size_t ref_kv_block_bytes(struct backend *backend, int32_t n_kv_head, int32_t d_head, enum dtype wish); /* f32 always */
void ref_attend(const struct op *op, const struct step *step);
int ref_pattern(const struct op *op, const struct step *step, struct error *error);

/* vjp.c */
int ref_vjp(struct backend *backend, const struct op *op, const struct step *step, const struct vjp *vjp, struct error *error);

/* encode.c */
int ref_encode(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error);

#endif
