/* vjp.h: what the two files of the way back share. Private to them. */
#ifndef STEERD_CORE_MATH_CUDA_VJP_H
#define STEERD_CORE_MATH_CUDA_VJP_H

#include "core/math/cuda/cuda.h"

/* One op on its way back, of rows that there are. */
struct way_back {
  struct cuda_backend *cuda;
  const struct op *op;
  const struct step *step;
  const struct vjp *vjp;
  struct row_range rows;
};

/* The cotangents of rows that an op has, absent where they are. */
struct device_rows cotangents_of(const struct way_back *back, struct rows rows);
/* Columns [0, width) of the op's rows, which have been taken. */
int vjp_clear(const struct way_back *back, struct rows rows, int64_t width, struct error *error) MUST_CHECK;

int vjp_linear(const struct way_back *back, struct error *error) MUST_CHECK;
int vjp_attend(const struct way_back *back, struct error *error) MUST_CHECK;

#endif
