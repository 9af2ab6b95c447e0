/* logit_shape.h: what the logits of one feature look like as a whole: moments, and where the tokens of a set stand among them
 * (token-set enrichment). Pure functions of a row of numbers; know no dictionary and no model. */
#ifndef STEERD_CORE_ANALYSIS_LOGIT_SHAPE_H
#define STEERD_CORE_ANALYSIS_LOGIT_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

/* Of the whole population, without a correction for samples: with d = x - mean, std = sqrt(mean of d^2), skewness = mean of
 * (d / std)^3, kurtosis = mean of (d / std)^4, which is 3 for a normal distribution. Of equal numbers skewness and kurtosis are NaN;
 * everything is NaN where a number is not finite. */
struct logit_moments {
  double mean, std, skewness, kurtosis;
};
void logit_moments(const float *logits, int64_t n, struct logit_moments *out); /* n >= 1 */

#define TOKEN_SETS_MOST 64

/* Which tokens are in which of up to TOKEN_SETS_MOST sets. */
struct token_sets {
  uint64_t *member;             /* [vocabulary]: bit s says that the token is in set s */
  int64_t vocabulary;
  int64_t size[TOKEN_SETS_MOST]; /* of each set */
  int n;
};
int token_sets_init(struct token_sets *sets, int64_t vocabulary, struct error *error) MUST_CHECK;
void token_sets_clear(struct token_sets *sets);
void token_sets_add(struct token_sets *sets, int set, int64_t id); /* 0 <= id < vocabulary; once more is as good as once */

/* How far the tokens of a set stand together among all tokens sorted by their logit, largest first: walk down, add 1 / size for a
 * token of the set and take away 1 / (vocabulary - size) for any other; the score is how far from 0 the sum ever is, from 0 to 1.
 * Among equal logits the lower id comes first. NaN where a logit is NaN, or the set is empty or has all tokens. */
struct enrichment {
  double score;
  bool top; /* the sum was farthest from 0 above it: the set stands with the largest logits */
};

/* Room for sorting rows of one vocabulary. */
struct enrichment_room {
  uint32_t *key, *id, *other_key, *other_id; /* [vocabulary] */
};
int enrichment_room_init(struct enrichment_room *room, int64_t vocabulary, struct error *error) MUST_CHECK;
void enrichment_room_clear(struct enrichment_room *room);

/* out: [sets->n]. logits: [sets->vocabulary]. Time: that of a few passes over the vocabulary, whatever the sets. */
void enrichment_scores(const struct token_sets *sets, const float *logits, struct enrichment_room *room, struct enrichment *out);

#endif
