/* draw.c: greedy, temperature, top-k, top-p, min-p, penalties and biases over one row of logits. The order is that of
 * TransformerLens and OpenAI's formula: penalties, bias, temperature, top-k, top-p, then min-p. Sums run in double. */
#include "core/math/draw.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LANES 16

/* Sixteen maxima at once, which a compiler makes vectors of, and then the first place that has the largest. NaN never wins, except
 * at 0. */
static float largest_value(const float *logits, int64_t n) {
  float best[LANES];
  int64_t i = 0;
  for (int lane = 0; lane < LANES; lane++) best[lane] = logits[0];
  for (; i + LANES <= n; i += LANES)
    for (int lane = 0; lane < LANES; lane++) best[lane] = logits[i + lane] > best[lane] ? logits[i + lane] : best[lane];
  for (; i < n; i++) best[0] = logits[i] > best[0] ? logits[i] : best[0];
  for (int lane = 1; lane < LANES; lane++) best[0] = best[lane] > best[0] ? best[lane] : best[0];
  return best[0];
}

int32_t draw_largest(const float *logits, int64_t vocabulary) {
  float value = largest_value(logits, vocabulary);
  for (int64_t i = 0; i < vocabulary; i++)
    if (logits[i] == value) return (int32_t)i;
  return 0;
}

double draw_sum(const float *logits, int64_t vocabulary, float top) {
  double sum = 0;
  for (int64_t i = 0; i < vocabulary; i++) sum += exp((double)logits[i] - top);
  return sum;
}

/* The n largest, the first of equals first; returns how many there are. */
static int32_t most_likely(const float *logits, int64_t vocabulary, int32_t n, struct sample_likely *out) {
  int32_t found = 0;
  if (n > SAMPLE_MOST_LIKELY) n = SAMPLE_MOST_LIKELY;
  if (n > vocabulary) n = (int32_t)vocabulary;
  /* Insertion into a short sorted list: n is at most a few dozen. */
  for (int64_t i = 0; i < vocabulary && n > 0; i++) {
    if (found == n && !(logits[i] > out[n - 1].logit)) continue;
    int32_t at = found < n ? found++ : n - 1;
    for (; at > 0 && logits[i] > out[at - 1].logit; at--) out[at] = out[at - 1];
    out[at] = (struct sample_likely){(int32_t)i, logits[i]};
  }
  return found;
}

/* ---- what changes logits before the draw ---- */

/* A draw from so many candidates. */
struct desk {
  const struct sample_draw *draw;
  struct draw_candidate *all;
  int64_t vocabulary;
};

static void lay_out(const struct desk *desk, const float *logits) {
  const struct sample_draw *draw = desk->draw;
  for (int64_t i = 0; i < desk->vocabulary; i++) desk->all[i] = (struct draw_candidate){logits[i], (int32_t)i};
  for (int32_t i = 0; i < draw->n_penalties; i++) desk->all[draw->penalties[i].token].logit += draw->penalties[i].add;
  for (int32_t i = 0; i < draw->n_biases; i++) desk->all[draw->biases[i].token].logit += draw->biases[i].add;
}

/* ---- greedy ---- */

static int32_t draw_greedy(const struct desk *desk, const float *logits) {
  if (desk->draw->n_penalties + desk->draw->n_biases == 0) return draw_largest(logits, desk->vocabulary);
  lay_out(desk, logits);
  int32_t best = 0;
  for (int64_t i = 1; i < desk->vocabulary; i++)
    if (desk->all[i].logit > desk->all[best].logit) best = (int32_t)i;
  return best;
}

/* ---- random ---- */

/* Larger logit first, lower id first among equals: a total order, so that equal logits never make a difference. */
static bool comes_before(struct draw_candidate a, struct draw_candidate b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

static void sift(struct draw_candidate *heap, int64_t n, int64_t at) {
  struct draw_candidate moved = heap[at];
  for (int64_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && comes_before(heap[child + 1], heap[child])) child++;
    if (!comes_before(heap[child], moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

/* Unnormalised probability of a candidate. */
static double weight(const struct desk *desk, float logit, float top) {
  return exp(((double)logit - top) / desk->draw->temperature);
}

static double total_weight(const struct desk *desk, const struct draw_candidate *from, int64_t n, float top) {
  double total = 0;
  for (int64_t i = 0; i < n; i++) total += weight(desk, from[i].logit, top);
  return total;
}

/* Moves the first candidates in their order to the array's end (the very first one last), until there are `most`, their
 * weights reach `enough` (the one that crosses it is taken), or the next one weighs less than `least`; returns how many.
 * Few are needed as a rule, so the rest is heaped but never sorted. */
static int64_t take_first(const struct desk *desk, int64_t most, double enough, double least, float top) {
  struct draw_candidate *heap = desk->all;
  int64_t n = desk->vocabulary, taken = 0;
  double sum = 0;
  for (int64_t i = n / 2 - 1; i >= 0; i--) sift(heap, n, i);
  while (taken < most && (taken == 0 || sum < enough)) { /* one at least: top_p may be 0 */
    struct draw_candidate first = heap[0];
    double first_weight = weight(desk, first.logit, top);
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
static int64_t keep_share(const struct desk *desk, const struct draw_candidate *end, int64_t kept, float top) {
  double sum = 0, enough = desk->draw->top_p * total_weight(desk, end - kept, kept, top);
  int64_t used = 0;
  while (used < kept && (used == 0 || sum < enough)) sum += weight(desk, end[-1 - used++].logit, top);
  return used;
}

/* How many of those (first one last) min-p keeps. */
static int64_t keep_likely(const struct desk *desk, const struct draw_candidate *end, int64_t kept, float top) {
  while (kept > 1 && weight(desk, end[-kept].logit, top) < desk->draw->min_p) kept--;
  return kept;
}

/* The candidates left after the filters, in a fixed order: *first and how many. */
static int64_t filter(const struct desk *desk, float top, struct draw_candidate **first) {
  const struct sample_draw *draw = desk->draw;
  int64_t n = desk->vocabulary, kept = n;
  struct draw_candidate *end = desk->all + n;
  bool some_k = draw->top_k > 0 && draw->top_k < n, some_p = draw->top_p < 1;
  if (some_k) {
    kept = take_first(desk, draw->top_k, INFINITY, 0, top);
    if (some_p) kept = keep_share(desk, end, kept, top);
  } else if (some_p) {
    kept = take_first(desk, n, draw->top_p * total_weight(desk, desk->all, n, top), 0, top);
  } else if (draw->min_p > 0) {
    kept = take_first(desk, n, INFINITY, draw->min_p, top);
  }
  if (draw->min_p > 0) kept = keep_likely(desk, end, kept, top);
  *first = end - kept;
  return kept;
}

_Static_assert(sizeof(struct draw_candidate) == sizeof(double), "a weight takes the place of a candidate");

/* The token of candidate `at`, whose weight lies in its place where all candidates are left, which then lie by index. */
static int32_t draw_random(const struct desk *desk, const float *logits) {
  struct draw_candidate *first;
  float top = -INFINITY;
  lay_out(desk, logits);
  for (int64_t i = 0; i < desk->vocabulary; i++) top = desk->all[i].logit > top ? desk->all[i].logit : top;
  int64_t n = filter(desk, top, &first);
  int32_t last = first[n - 1].token;
  const bool whole = n == desk->vocabulary && desk->draw->top_k == 0 && desk->draw->top_p >= 1 && !(desk->draw->min_p > 0);
  double total = 0, sum = 0;
  for (int64_t i = 0; i < n; i++) { /* each exponential once: it takes the place of the logit */
    double each = weight(desk, first[i].logit, top);
    total += each;
    if (whole) memcpy(&first[i], &each, sizeof each);
  }
  double mark = desk->draw->unit * total;
  for (int64_t i = 0; i < n; i++) {
    double each;
    if (whole)
      memcpy(&each, &first[i], sizeof each);
    else
      each = weight(desk, first[i].logit, top);
    sum += each;
    if (sum > mark) return whole ? (int32_t)i : first[i].token;
  }
  return last; /* rounding: mark was within an ulp of the total */
}

void draw_from(const struct sample_draw *draw, const float *logits, int64_t vocabulary, struct draw_candidate *all,
               struct sample_result *out) {
  struct desk desk = {draw, all, vocabulary};
  assert(vocabulary >= 1);
  out->token = draw->temperature > 0 ? draw_random(&desk, logits) : draw_greedy(&desk, logits);
  out->logit = logits[out->token];
  out->n_likely = 0;
  if (draw->n_likely < 0) return;
  out->top = logits[draw_largest(logits, vocabulary)];
  out->sum = draw_sum(logits, vocabulary, out->top);
  out->n_likely = most_likely(logits, vocabulary, draw->n_likely, out->likely);
}
