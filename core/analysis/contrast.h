/* contrast.h: the direction that leads from one group of rows to another. Plain arithmetic in double on the host. */
#ifndef STEERD_CORE_ANALYSIS_CONTRAST_H
#define STEERD_CORE_ANALYSIS_CONTRAST_H

#include <stddef.h>

#include "core/base/error.h"

/* Two groups of rows, row-major [n][width]; both have one at least. */
struct contrast_groups {
  const double *positive, *negative;
  size_t n_positive, n_negative, width;
};

/* out [width]: the mean of the positive rows minus that of the negative ones. */
void contrast_mean(const struct contrast_groups *groups, double *out);

/* out [width]: along the first principal direction of the differences of pairs (row i of both groups, as many of each), not centred:
 * the unit v with the largest sum of (d_i . v)^2. Its length is the mean of d_i . v, its sign that which makes this positive; zeros
 * where it is zero. ERROR_MEMORY. */
int contrast_principal(const struct contrast_groups *groups, double *out, struct error *error) MUST_CHECK;

/* How a direction tells the groups apart. Of a direction of length 0 projections are 0 and `separation` is 1/2. */
struct contrast {
  double length;             /* of the direction */
  double positive, negative; /* mean projection of each group's rows on the direction at length 1 */
  double separation;         /* share of pairs (one of each group) where the positive row's projection is larger, equal ones by half:
                              * the area under the ROC curve, on the very rows that made the direction */
  double row_length;         /* mean length of all rows */
};
int contrast_judge(const struct contrast_groups *groups, const double *direction, struct contrast *out, struct error *error) MUST_CHECK;

#endif
