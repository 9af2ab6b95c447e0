/* sampler.c: what a text's draws remember of each other: which token comes next in the stream of random numbers, and what was drawn
 * before. The draw itself is core/math/draw.c's. */
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

/* ---- draws ---- */

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

int32_t sampler_draw(struct sampler *sampler, const float *logits, struct draw_candidate *desk) {
  struct sample_draw draw = sampler_describe(sampler);
  struct sample_result result;
  draw_from(&draw, logits, sampler->vocabulary, desk, &result);
  sampler_take(sampler, result.token);
  return result.token;
}

/* ---- log-probabilities ---- */

float sampler_logprob(const float *logits, int64_t vocabulary, int32_t token) {
  float top = logits[draw_largest(logits, vocabulary)];
  return (float)(logits[token] - (top + log(draw_sum(logits, vocabulary, top))));
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
  double all = out[0].logprob + log(draw_sum(logits, vocabulary, out[0].logprob));
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
