/* sampler.h: from logits to a token. A pure function of logits, options, counts and (seed, position), so that
 * what else the server does never changes a draw. */
#ifndef STEERD_CORE_ENGINE_SAMPLER_H
#define STEERD_CORE_ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/math/draw.h"

/* Added to one token's logit before every draw. */
struct sampler_bias {
  int32_t token; /* below the vocabulary; each at most once */
  float value;
};

struct sampler_options {
  double temperature;       /* <= 0: the largest logit, lowest id first among equals */
  int64_t top_k;            /* keep the k largest; 0: all */
  double top_p;             /* keep the smallest set of most likely tokens whose probability reaches p; 1: all */
  double frequency_penalty; /* logit -= penalty * times generated so far */
  int64_t seed;
  double presence_penalty;  /* logit -= penalty where it was generated before */
  double min_p;             /* keep tokens at least so likely as min_p times the likeliest one; 0: all */
  const struct sampler_bias *bias; /* [n_bias], copied */
  size_t n_bias;
  uint64_t stream;          /* of the seed's random numbers: texts drawn from one prompt differ in it */
};

struct sampler;

/* most: tokens it will be asked to draw. */
struct sampler *sampler_new(const struct sampler_options *options, int64_t vocabulary, int64_t most,
                            struct error *error) MUST_CHECK;
void sampler_free(struct sampler *sampler); /* NULL is fine */

/* Draws the token for generated position 0, 1, 2, ... from logits [vocabulary] f32. The token is counted for
 * later penalties. desk: [vocabulary] of scratch, which samplers that draw one after the other may share. */
int32_t sampler_draw(struct sampler *sampler, const float *logits, struct draw_candidate *desk);

/* The next draw as a backend can make it (ops.sample), all but its row, and without log-probabilities. Its lists are the sampler's,
 * until the token that comes of it is told: with sampler_take in place of sampler_draw. */
struct sample_draw sampler_describe(const struct sampler *sampler);
void sampler_take(struct sampler *sampler, int32_t token);

struct sampler_likely {
  int32_t token;
  float logprob; /* natural logarithm of the model's probability (temperature 1, nothing filtered) */
};

/* The n most likely tokens (fewer when the vocabulary is smaller), most likely first, lowest id first among
 * equals. Returns how many were written. */
int sampler_most_likely(const float *logits, int64_t vocabulary, int n, struct sampler_likely *out);
float sampler_logprob(const float *logits, int64_t vocabulary, int32_t token);

/* The same of a draw that asked for them. out: [SAMPLE_MOST_LIKELY]. */
float sampler_drawn_logprob(const struct sample_result *result);
int sampler_drawn_likely(const struct sample_result *result, struct sampler_likely *out);

#endif
