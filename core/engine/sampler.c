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

/* Larger logit first, lower id first among equals: a total order, so that equal logits never make a difference. */
static bool comes_before(struct candidate a, struct candidate b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

static void sift(struct candidate *heap, int64_t n, int64_t at) {
  struct candidate moved = heap[at];
  for (int64_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && comes_before(heap[child + 1], heap[child])) child++;
    if (!comes_before(heap[child], moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

/* Unnormalised probability of a candidate. */
static double weight(const struct sampler *sampler, float logit, float top) {
  return exp(((double)logit - top) / sampler->options.temperature);
}

static double total_weight(const struct sampler *sampler, const struct candidate *from, int64_t n, float top) {
  double total = 0;
  for (int64_t i = 0; i < n; i++) total += weight(sampler, from[i].logit, top);
  return total;
}

/* Moves the first candidates in their order to the array's end (the very first one last), until there are `most` or
 * their weights reach `enough` (the one that crosses it is taken); returns how many. Few are needed as a rule, so the
 * rest is heaped but never sorted. */
static int64_t take_first(struct sampler *sampler, int64_t most, double enough, float top) {
  struct candidate *heap = sampler->candidates;
  int64_t n = sampler->vocabulary, taken = 0;
  double sum = 0;
  for (int64_t i = n / 2 - 1; i >= 0; i--) sift(heap, n, i);
  while (taken < most && (taken == 0 || sum < enough)) { /* one at least: top_p may be 0 */
    struct candidate first = heap[0];
    heap[0] = heap[n - 1 - taken];
    heap[n - 1 - taken] = first;
    taken++;
    if (taken < n) sift(heap, n - taken, 0);
    sum += weight(sampler, first.logit, top);
  }
  return taken;
}

/* How many of the candidates that top-k left (first one last) top-p keeps of their weight. */
static int64_t keep_share(const struct sampler *sampler, int64_t kept, float top) {
  const struct candidate *end = sampler->candidates + sampler->vocabulary;
  double sum = 0, enough = sampler->options.top_p * total_weight(sampler, end - kept, kept, top);
  int64_t used = 0;
  while (used < kept && (used == 0 || sum < enough)) sum += weight(sampler, end[-1 - used++].logit, top);
  return used;
}

/* The candidates left after the filters, in a fixed order: *first and how many. *top is the largest logit. */
static int64_t filter(struct sampler *sampler, const float *logits, float *top, struct candidate **first) {
  int64_t n = sampler->vocabulary, kept = n;
  *top = -INFINITY;
  for (int64_t i = 0; i < n; i++) {
    sampler->candidates[i] = (struct candidate){penalised(sampler, logits, i), (int32_t)i};
    if (sampler->candidates[i].logit > *top) *top = sampler->candidates[i].logit;
  }
  bool some_k = sampler->options.top_k > 0 && sampler->options.top_k < n, some_p = sampler->options.top_p < 1;
  if (some_k) {
    kept = take_first(sampler, sampler->options.top_k, INFINITY, *top);
    if (some_p) kept = keep_share(sampler, kept, *top);
  } else if (some_p) {
    kept = take_first(sampler, n, sampler->options.top_p * total_weight(sampler, sampler->candidates, n, *top), *top);
  }
  *first = sampler->candidates + n - kept;
  return kept;
}

static int32_t draw_random(struct sampler *sampler, const float *logits) {
  float top;
  struct candidate *first;
  int64_t n = filter(sampler, logits, &top, &first);
  double total = total_weight(sampler, first, n, top), sum = 0;
  double mark = random_unit((uint64_t)sampler->options.seed, 0, sampler->drawn) * total;
  for (int64_t i = 0; i < n; i++) {
    sum += weight(sampler, first[i].logit, top);
    if (sum > mark) return first[i].token;
  }
  return first[n - 1].token; /* rounding: mark was within an ulp of the total */
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
