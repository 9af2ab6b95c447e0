/* sampler.h: from logits to a token. A pure function of logits, options, counts and (seed, position), so that
 * what else the server does never changes a draw. */
#ifndef STEERD_CORE_ENGINE_SAMPLER_H
#define STEERD_CORE_ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

struct sampler_options {
  double temperature;       /* <= 0: the largest logit, lowest id first among equals */
  int64_t top_k;            /* keep the k largest; 0: all */
  double top_p;             /* keep the smallest set of most likely tokens whose probability reaches p; 1: all */
  double frequency_penalty; /* logit -= penalty * times generated so far */
  int64_t seed;
};

struct sampler;

struct sampler *sampler_new(const struct sampler_options *options, int64_t vocabulary, struct error *error) MUST_CHECK;
void sampler_free(struct sampler *sampler); /* NULL is fine */

/* Draws the token for generated position 0, 1, 2, ... from logits [vocabulary] f32. The token is counted for
 * later penalties. */
int32_t sampler_draw(struct sampler *sampler, const float *logits);

struct sampler_likely {
  int32_t token;
  float logprob; /* natural logarithm of the model's probability (temperature 1, nothing filtered) */
};

/* The n most likely tokens (fewer when the vocabulary is smaller), most likely first, lowest id first among
 * equals. Returns how many were written. */
int sampler_most_likely(const float *logits, int64_t vocabulary, int n, struct sampler_likely *out);
float sampler_logprob(const float *logits, int64_t vocabulary, int32_t token);

#endif
