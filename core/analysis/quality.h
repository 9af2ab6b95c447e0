/* quality.h: how well a dictionary explains rows: how many features fire, and how much of the rows they account for.
 *
 * FORMULAS, over counted rows y of the output point (the centred row where the dictionary is) with reconstructions x^:
 *   L0   mean number of features that fire
 *   MSE  mean of |y - x^|^2, summed over the width (as SAELens has it)
 *   EV   1 - sum |y - x^|^2 / sum |y - m|^2, m the mean row over the counted rows; FVU = 1 - EV
 *   COS  mean of <y, x^> / (|y| |x^|); 0 where either is a row of zeros
 *   L2   mean of |x^| / |y|, |x^| itself where |y| < 1e-4 (as SAELens has it)
 *   BIAS sum |x^|^2 / sum <y, x^>: 1 where reconstructions are neither shrunk nor stretched along what they explain
 * A layer of a cross-layer transcoder stands for no rows by itself: of it L0 is known and nothing else (NaN), unless the errors
 * are given that all layers up to it leave of its output.
 * Sums are in double, in the order rows are added. Not thread-safe. */
#ifndef STEERD_CORE_ANALYSIS_QUALITY_H
#define STEERD_CORE_ANALYSIS_QUALITY_H

#include "core/base/buffer.h"
#include "core/dict/dict.h"

struct quality;

/* dict is borrowed. */
struct quality *quality_new(const struct dict *dict, struct error *error) MUST_CHECK;
void quality_free(struct quality *quality); /* NULL is fine */

/* Adds rows [first, first + n) of `codes`, whose host rows are x [n, in_width] and y [n, out_width] (y = x for an SAE). */
int quality_add(struct quality *quality, const struct sparse *codes, size_t first, size_t n, const float *x, const float *y,
                struct error *error) MUST_CHECK;

/* The same with the errors y - x^ [n, d_out] that somebody else made. */
int quality_add_errors(struct quality *quality, const struct sparse *codes, size_t first, size_t n, const float *y,
                       const float *errors, struct error *error) MUST_CHECK;

struct quality_figures {
  int64_t rows;
  double l0, mse, explained, unexplained; /* NaN without rows; the last two also where the rows do not vary */
  double cosine, l2_ratio, bias;          /* NaN without rows; the last also where the sum below is 0 */
};
void quality_read(const struct quality *quality, struct quality_figures *out);

/* Everything added so far as plain bytes of this machine, and back into a new one of the same dictionary, which then goes on as if
 * it had been there from the start, to the bit. ERROR_FORMAT. */
size_t quality_bytes(const struct quality *quality); /* what they take */
void quality_save(const struct quality *quality, struct buffer *out);
int quality_load(struct quality *quality, const void *data, size_t bytes, struct error *error) MUST_CHECK;

/* Rows in which each feature fired, [n_feat]; borrowed. */
const int64_t *quality_fired(const struct quality *quality);

#endif
