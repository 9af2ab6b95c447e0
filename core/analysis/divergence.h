/* divergence.h: how far the predictions of a changed model are from those of the model as it is.
 *
 *   KL(p || q) = sum over the vocabulary of p (ln p - ln q), in nats; p of the model as it is, q of the changed one */
#ifndef STEERD_CORE_ANALYSIS_DIVERGENCE_H
#define STEERD_CORE_ANALYSIS_DIVERGENCE_H

#include <stdint.h>

/* Of two rows of logits [n]. Sums are in double; never below 0. */
double divergence_of(const float *plain, const float *changed, int64_t n);

#endif
