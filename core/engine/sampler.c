/* sampler.c: greedy, temperature, top-k, top-p and frequency penalty over one row of logits. The order is that
 * of TransformerLens: penalty, temperature, top-k, then top-p. Sums run in double. */
#include "core/engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/random.h"

struct candidate {
  float logit;
  int32_t token;
};

struct sampler {
  struct sampler_options options;
  int64_t vocabulary;
  uint64_t drawn;              /* tokens drawn: the random stream's position */
  int32_t *counts;             /* [vocabulary] times generated; NULL without a penalty */
  struct candidate *candidates; /* [vocabulary]; NULL when greedy */
};

struct sampler *sampler_new(const struct sampler_options *options, int64_t vocabulary, struct error *error) {
  size_t n = (size_t)vocabulary;
  struct sampler *sampler = calloc(1, sizeof *sampler);
  if (!sampler) return error_memory(error, sizeof *sampler), NULL;
  sampler->options = *options;
  sampler->vocabulary = vocabulary;
  if (options->frequency_penalty != 0) sampler->counts = calloc(n, sizeof *sampler->counts);
  if (options->temperature > 0) sampler->candidates = malloc(n * sizeof *sampler->candidates);
  bool missing = (options->frequency_penalty != 0 && !sampler->counts) ||
                 (options->temperature > 0 && !sampler->candidates);
  if (!missing) return sampler;
  sampler_free(sampler);
  return error_memory(error, n * sizeof *sampler->candidates), NULL;
}

void sampler_free(struct sampler *sampler) {
  if (!sampler) return;
  free(sampler->counts);
  free(sampler->candidates);
  free(sampler);
}

static int32_t largest(const float *logits, int64_t n) {
  int32_t best = 0;
  for (int64_t i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = (int32_t)i;
  return best;
}

static float penalised(const struct sampler *sampler, const float *logits, int64_t i) {
  if (!sampler->counts || !sampler->counts[i]) return logits[i];
  return logits[i] - (float)(sampler->options.frequency_penalty * sampler->counts[i]);
}

static int32_t draw_greedy(const struct sampler *sampler, const float *logits) {
  if (!sampler->counts) return largest(logits, sampler->vocabulary);
  int32_t best = 0;
  for (int64_t i = 1; i < sampler->vocabulary; i++)
    if (penalised(sampler, logits, i) > penalised(sampler, logits, best)) best = (int32_t)i;
  return best;
}

/* Larger logit first, lower id first among equals: a total order, so that the result never depends on qsort. */
static int by_logit(const void *a, const void *b) {
  const struct candidate *x = a, *y = b;
  if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
  return x->token < y->token ? -1 : x->token > y->token;
}

/* Unnormalised probability of a candidate. */
static double weight(const struct sampler *sampler, float logit, float top) {
  return exp(((double)logit - top) / sampler->options.temperature);
}

/* How many of the n sorted candidates top-p keeps: the one that crosses p is kept. */
static int64_t keep_top_p(const struct sampler *sampler, int64_t n) {
  double total = 0, sum = 0;
  for (int64_t i = 0; i < n; i++) total += weight(sampler, sampler->candidates[i].logit, sampler->candidates[0].logit);
  for (int64_t i = 0; i < n; i++) {
    sum += weight(sampler, sampler->candidates[i].logit, sampler->candidates[0].logit);
    if (sum >= sampler->options.top_p * total) return i + 1;
  }
  return n;
}

/* The candidates left after the filters, in a fixed order; returns how many. *top is the largest logit. */
static int64_t filter(struct sampler *sampler, const float *logits, float *top) {
  int64_t n = sampler->vocabulary;
  *top = -INFINITY;
  for (int64_t i = 0; i < n; i++) {
    sampler->candidates[i] = (struct candidate){penalised(sampler, logits, i), (int32_t)i};
    if (sampler->candidates[i].logit > *top) *top = sampler->candidates[i].logit;
  }
  bool some = (sampler->options.top_k > 0 && sampler->options.top_k < n) || sampler->options.top_p < 1;
  if (!some) return n;
  qsort(sampler->candidates, (size_t)n, sizeof *sampler->candidates, by_logit);
  if (sampler->options.top_k > 0 && sampler->options.top_k < n) n = sampler->options.top_k;
  return sampler->options.top_p < 1 ? keep_top_p(sampler, n) : n;
}

static int32_t draw_random(struct sampler *sampler, const float *logits) {
  float top;
  int64_t n = filter(sampler, logits, &top);
  double total = 0, sum = 0;
  for (int64_t i = 0; i < n; i++) total += weight(sampler, sampler->candidates[i].logit, top);
  double mark = random_unit((uint64_t)sampler->options.seed, 0, sampler->drawn) * total;
  for (int64_t i = 0; i < n; i++) {
    sum += weight(sampler, sampler->candidates[i].logit, top);
    if (sum > mark) return sampler->candidates[i].token;
  }
  return sampler->candidates[n - 1].token; /* rounding: mark was within an ulp of the total */
}

int32_t sampler_draw(struct sampler *sampler, const float *logits) {
  int32_t token = sampler->options.temperature > 0 ? draw_random(sampler, logits) : draw_greedy(sampler, logits);
  if (sampler->counts) sampler->counts[token]++;
  sampler->drawn++;
  return token;
}

/* ---- log-probabilities ---- */

static double log_sum(const float *logits, int64_t n, float top) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += exp((double)logits[i] - top);
  return top + log(sum);
}

float sampler_logprob(const float *logits, int64_t vocabulary, int32_t token) {
  float top = logits[largest(logits, vocabulary)];
  return (float)(logits[token] - log_sum(logits, vocabulary, top));
}

int sampler_most_likely(const float *logits, int64_t vocabulary, int n, struct sampler_likely *out) {
  int found = 0;
  if (n > vocabulary) n = (int)vocabulary;
  /* Insertion into a short sorted list: n is at most a few dozen. */
  for (int64_t i = 0; i < vocabulary && n > 0; i++) {
    if (found == n && !(logits[i] > out[n - 1].logprob)) continue;
    int at = found < n ? found++ : n - 1;
    for (; at > 0 && logits[i] > out[at - 1].logprob; at--) out[at] = out[at - 1];
    out[at] = (struct sampler_likely){(int32_t)i, logits[i]};
  }
  if (!found) return 0;
  double all = log_sum(logits, vocabulary, out[0].logprob);
  for (int i = 0; i < found; i++) out[i].logprob = (float)(out[i].logprob - all);
  return found;
}
