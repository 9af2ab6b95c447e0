/* sampler.c: greedy, temperature, top-k, top-p, min-p, penalties and biases over one row of logits. The order is that
 * of TransformerLens and OpenAI's formula: penalties, bias, temperature, top-k, top-p, then min-p. Sums run in double. */
#include "core/engine/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "core/base/random.h"

struct sampler {
  struct sampler_options options;
  int64_t vocabulary;
  uint64_t drawn;          /* tokens drawn: the random stream's position */
  struct sample_change *counted; /* [most], the first n_counted in use: tokens that were drawn; NULL without penalties */
  int32_t *times;                /* beside them */
  int64_t n_counted, most;
  struct sample_change *bias;
};

static bool penalises(const struct sampler_options *options) {
  return options->frequency_penalty != 0 || options->presence_penalty != 0;
}

struct sampler *sampler_new(const struct sampler_options *options, int64_t vocabulary, int64_t most, struct error *error) {
  struct sampler *sampler = calloc(1, sizeof *sampler);
  if (!sampler) return error_memory(error, sizeof *sampler), NULL;
  sampler->options = *options;
  sampler->vocabulary = vocabulary;
  sampler->most = most;
  if (penalises(options)) sampler->counted = calloc((size_t)most + 1, sizeof *sampler->counted);
  if (penalises(options)) sampler->times = calloc((size_t)most + 1, sizeof *sampler->times);
  if (options->n_bias) sampler->bias = malloc(options->n_bias * sizeof *sampler->bias);
  if ((penalises(options) && (!sampler->counted || !sampler->times)) || (options->n_bias && !sampler->bias)) {
    sampler_free(sampler);
    return error_memory(error, (size_t)most * sizeof *sampler->counted + options->n_bias * sizeof *sampler->bias), NULL;
  }
  for (size_t i = 0; i < options->n_bias; i++) sampler->bias[i] = (struct sample_change){options->bias[i].token, options->bias[i].value};
  return sampler;
}

void sampler_free(struct sampler *sampler) {
  if (!sampler) return;
  free(sampler->counted);
  free(sampler->times);
  free(sampler->bias);
  free(sampler);
}

/* ---- what changes logits before the draw ---- */

static bool changes_logits(const struct sampler *sampler) { return sampler->n_counted > 0 || sampler->bias; }

static void lay_out(const struct sampler *sampler, const float *logits, struct sampler_candidate *desk) {
  const struct sampler_options *o = &sampler->options;
  for (int64_t i = 0; i < sampler->vocabulary; i++) desk[i] = (struct sampler_candidate){logits[i], (int32_t)i};
  for (int64_t i = 0; i < sampler->n_counted; i++) desk[sampler->counted[i].token].logit += sampler->counted[i].add;
  for (size_t i = 0; sampler->bias && i < o->n_bias; i++) desk[sampler->bias[i].token].logit += sampler->bias[i].add;
}

/* A list, not a table: texts are short beside vocabularies. */
static void count(struct sampler *sampler, int32_t token) {
  const struct sampler_options *o = &sampler->options;
  int64_t i = 0;
  if (!sampler->counted) return;
  while (i < sampler->n_counted && sampler->counted[i].token != token) i++;
  if (i == sampler->most) return; /* drawn beyond what was announced */
  if (i == sampler->n_counted) sampler->n_counted++;
  double penalty = o->frequency_penalty * ++sampler->times[i] + o->presence_penalty;
  sampler->counted[i] = (struct sample_change){token, -(float)penalty};
}

/* ---- greedy ---- */

static int32_t largest(const float *logits, int64_t n) {
  int32_t best = 0;
  for (int64_t i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = (int32_t)i;
  return best;
}

static int32_t draw_greedy(const struct sampler *sampler, const float *logits, struct sampler_candidate *desk) {
  if (!changes_logits(sampler)) return largest(logits, sampler->vocabulary);
  lay_out(sampler, logits, desk);
  int32_t best = 0;
  for (int64_t i = 1; i < sampler->vocabulary; i++)
    if (desk[i].logit > desk[best].logit) best = (int32_t)i;
  return best;
}

/* ---- random ---- */

/* Larger logit first, lower id first among equals: a total order, so that equal logits never make a difference. */
static bool comes_before(struct sampler_candidate a, struct sampler_candidate b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

static void sift(struct sampler_candidate *heap, int64_t n, int64_t at) {
  struct sampler_candidate moved = heap[at];
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

static double total_weight(const struct sampler *sampler, const struct sampler_candidate *from, int64_t n, float top) {
  double total = 0;
  for (int64_t i = 0; i < n; i++) total += weight(sampler, from[i].logit, top);
  return total;
}

/* Moves the first candidates in their order to the array's end (the very first one last), until there are `most`, their
 * weights reach `enough` (the one that crosses it is taken), or the next one weighs less than `least`; returns how many.
 * Few are needed as a rule, so the rest is heaped but never sorted. */
static int64_t take_first(struct sampler *sampler, struct sampler_candidate *heap, int64_t most, double enough, double least,
                          float top) {
  int64_t n = sampler->vocabulary, taken = 0;
  double sum = 0;
  for (int64_t i = n / 2 - 1; i >= 0; i--) sift(heap, n, i);
  while (taken < most && (taken == 0 || sum < enough)) { /* one at least: top_p may be 0 */
    struct sampler_candidate first = heap[0];
    double first_weight = weight(sampler, first.logit, top);
    if (taken > 0 && first_weight < least) break;
    heap[0] = heap[n - 1 - taken];
    heap[n - 1 - taken] = first;
    taken++;
    if (taken < n) sift(heap, n - taken, 0);
    sum += first_weight;
  }
  return taken;
}

/* How many of the candidates that top-k left (first one last) top-p keeps of their weight. */
static int64_t keep_share(const struct sampler *sampler, const struct sampler_candidate *end, int64_t kept, float top) {
  double sum = 0, enough = sampler->options.top_p * total_weight(sampler, end - kept, kept, top);
  int64_t used = 0;
  while (used < kept && (used == 0 || sum < enough)) sum += weight(sampler, end[-1 - used++].logit, top);
  return used;
}

/* How many of those (first one last) min-p keeps. */
static int64_t keep_likely(const struct sampler *sampler, const struct sampler_candidate *end, int64_t kept, float top) {
  while (kept > 1 && weight(sampler, end[-kept].logit, top) < sampler->options.min_p) kept--;
  return kept;
}

/* The candidates left after the filters, in a fixed order: *first and how many. *top is the largest logit. */
static int64_t filter(struct sampler *sampler, struct sampler_candidate *desk, float *top, struct sampler_candidate **first) {
  const struct sampler_options *o = &sampler->options;
  int64_t n = sampler->vocabulary, kept = n;
  struct sampler_candidate *end = desk + n;
  *top = -INFINITY;
  for (int64_t i = 0; i < n; i++)
    if (desk[i].logit > *top) *top = desk[i].logit;
  bool some_k = o->top_k > 0 && o->top_k < n, some_p = o->top_p < 1;
  if (some_k) {
    kept = take_first(sampler, desk, o->top_k, INFINITY, 0, *top);
    if (some_p) kept = keep_share(sampler, end, kept, *top);
  } else if (some_p) {
    kept = take_first(sampler, desk, n, o->top_p * total_weight(sampler, desk, n, *top), 0, *top);
  } else if (o->min_p > 0) {
    kept = take_first(sampler, desk, n, INFINITY, o->min_p, *top);
  }
  if (o->min_p > 0) kept = keep_likely(sampler, end, kept, *top);
  *first = end - kept;
  return kept;
}

static int32_t draw_random(struct sampler *sampler, const float *logits, struct sampler_candidate *desk) {
  float top;
  struct sampler_candidate *first;
  lay_out(sampler, logits, desk);
  int64_t n = filter(sampler, desk, &top, &first);
  double total = total_weight(sampler, first, n, top), sum = 0;
  double mark = random_unit((uint64_t)sampler->options.seed, sampler->options.stream, sampler->drawn) * total;
  for (int64_t i = 0; i < n; i++) {
    sum += weight(sampler, first[i].logit, top);
    if (sum > mark) return first[i].token;
  }
  return first[n - 1].token; /* rounding: mark was within an ulp of the total */
}

int32_t sampler_draw(struct sampler *sampler, const float *logits, struct sampler_candidate *desk) {
  int32_t token = sampler->options.temperature > 0 ? draw_random(sampler, logits, desk) : draw_greedy(sampler, logits, desk);
  sampler_take(sampler, token);
  return token;
}

/* ---- draws by the backend ---- */

struct sample_draw sampler_describe(const struct sampler *sampler) {
  const struct sampler_options *o = &sampler->options;
  int64_t k = o->top_k > 0 && o->top_k < sampler->vocabulary ? o->top_k : 0;
  return (struct sample_draw){.top_k = (int32_t)k, .temperature = o->temperature, .top_p = o->top_p, .min_p = o->min_p,
                              .unit = random_unit((uint64_t)o->seed, o->stream, sampler->drawn), .penalties = sampler->counted,
                              .biases = sampler->bias, .n_penalties = (int32_t)sampler->n_counted, .n_biases = (int32_t)o->n_bias,
                              .n_likely = -1};
}

void sampler_take(struct sampler *sampler, int32_t token) {
  count(sampler, token);
  sampler->drawn++;
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

float sampler_drawn_logprob(const struct sample_result *result) {
  return (float)(result->logit - (result->top + log(result->sum)));
}

int sampler_drawn_likely(const struct sample_result *result, struct sampler_likely *out) {
  double all = result->top + log(result->sum);
  for (int i = 0; i < result->n_likely; i++)
    out[i] = (struct sampler_likely){result->likely[i].token, (float)(result->likely[i].logit - all)};
  return result->n_likely;
}
