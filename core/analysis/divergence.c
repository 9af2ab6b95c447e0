#include "core/analysis/divergence.h"

#include <math.h>

static double largest(const float *logits, int64_t n) {
  double top = -INFINITY;
  for (int64_t i = 0; i < n; i++) top = logits[i] > top ? logits[i] : top;
  return top;
}

/* ln of the sum of e^logit. */
static double log_sum(const float *logits, int64_t n) {
  double top = largest(logits, n), sum = 0;
  for (int64_t i = 0; i < n; i++) sum += exp(logits[i] - top);
  return top + log(sum);
}

double divergence_of(const float *plain, const float *changed, int64_t n) {
  double plain_all = log_sum(plain, n), changed_all = log_sum(changed, n), sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double log_p = plain[i] - plain_all, p = exp(log_p);
    if (p > 0) sum += p * (log_p - (changed[i] - changed_all)); /* 0 ln 0 is 0 */
  }
  return sum > 0 ? sum : 0; /* of two that are nearly the same rounding may leave less than nothing */
}
