/* logit_shape.c: moments of a row of logits, and where sets of tokens stand in it. */
#include "core/analysis/logit_shape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- moments ---- */

void logit_moments(const float *logits, int64_t n, struct logit_moments *out) {
  double sum = 0, second = 0, third = 0, fourth = 0;
  for (int64_t i = 0; i < n; i++) sum += logits[i];
  double mean = sum / (double)n;
  for (int64_t i = 0; i < n; i++) {
    double d = logits[i] - mean, square = d * d;
    second += square;
    third += square * d;
    fourth += square * square;
  }
  double variance = second / (double)n;
  *out = (struct logit_moments){NAN, NAN, NAN, NAN};
  if (!isfinite(variance)) return;
  out->mean = mean;
  out->std = sqrt(variance);
  if (variance == 0) return;
  out->skewness = third / (double)n / (variance * out->std);
  out->kurtosis = fourth / (double)n / (variance * variance);
}

/* ---- sets ---- */

int token_sets_init(struct token_sets *sets, int64_t vocabulary, struct error *error) {
  *sets = (struct token_sets){.vocabulary = vocabulary, .member = calloc((size_t)vocabulary, sizeof *sets->member)};
  return sets->member ? 0 : error_memory(error, (size_t)vocabulary * sizeof *sets->member);
}

void token_sets_clear(struct token_sets *sets) {
  free(sets->member);
  *sets = (struct token_sets){0};
}

void token_sets_add(struct token_sets *sets, int set, int64_t id) {
  uint64_t bit = (uint64_t)1 << set;
  if (sets->member[id] & bit) return;
  sets->member[id] |= bit;
  sets->size[set]++;
}

/* ---- sorting ---- */

int enrichment_room_init(struct enrichment_room *room, int64_t vocabulary, struct error *error) {
  size_t n = (size_t)vocabulary;
  room->key = calloc(4 * n, sizeof *room->key);
  if (!room->key) return error_memory(error, 4 * n * sizeof *room->key);
  room->id = room->key + n;
  room->other_key = room->key + 2 * n;
  room->other_id = room->key + 3 * n;
  return 0;
}

void enrichment_room_clear(struct enrichment_room *room) {
  uint32_t *block = room->key < room->other_key ? room->key : room->other_key; /* passes change sides */
  free(block);
  *room = (struct enrichment_room){0};
}

/* Ascending keys are descending numbers; -0 and 0 are the same number. */
static uint32_t key_of(float x) {
  uint32_t bits;
  x = x == 0 ? 0 : x;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

/* One pass of a sort by digits: stable, so that equals stay in the order of their ids. */
static void sort_pass(struct enrichment_room *room, int64_t n, int shift) {
  uint32_t place[DIGITS] = {0}, before = 0;
  for (int64_t i = 0; i < n; i++) place[room->key[i] >> shift & (DIGITS - 1)]++;
  for (int d = 0; d < DIGITS; d++) {
    uint32_t count = place[d];
    place[d] = before;
    before += count;
  }
  for (int64_t i = 0; i < n; i++) {
    uint32_t at = place[room->key[i] >> shift & (DIGITS - 1)]++;
    room->other_key[at] = room->key[i];
    room->other_id[at] = room->id[i];
  }
  struct enrichment_room was = *room;
  *room = (struct enrichment_room){was.other_key, was.other_id, was.key, was.id};
}

/* room->id becomes all ids, largest logit first. False where a logit is NaN: there is no order then. */
static bool sort_ids(struct enrichment_room *room, const float *logits, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    if (isnan(logits[i])) return false;
    room->key[i] = key_of(logits[i]);
    room->id[i] = (uint32_t)i;
  }
  for (int shift = 0; shift < 32; shift += DIGIT_BITS) sort_pass(room, n, shift);
  return true;
}

/* ---- scores ---- */

/* The walk down for one set: only at its tokens does the sum turn round, so only those are looked at. */
struct walk {
  int64_t seen;
  double hit, miss, farthest;
};

static void walk_meet(struct walk *walk, int64_t place) {
  double below = (double)walk->seen * walk->hit - (double)(place - walk->seen) * walk->miss, above = below + walk->hit;
  if (fabs(below) > fabs(walk->farthest)) walk->farthest = below;
  if (fabs(above) > fabs(walk->farthest)) walk->farthest = above;
  walk->seen++;
}

static void walk_all(const struct token_sets *sets, const struct enrichment_room *room, struct walk *walks) {
  for (int64_t i = 0; i < sets->vocabulary; i++)
    for (uint64_t in = sets->member[room->id[i]]; in; in &= in - 1) walk_meet(&walks[__builtin_ctzll(in)], i);
}

void enrichment_scores(const struct token_sets *sets, const float *logits, struct enrichment_room *room, struct enrichment *out) {
  struct walk walks[TOKEN_SETS_MOST] = {{0}};
  for (int s = 0; s < sets->n; s++) {
    walks[s].hit = 1 / (double)sets->size[s];
    walks[s].miss = 1 / (double)(sets->vocabulary - sets->size[s]);
    out[s] = (struct enrichment){.score = NAN};
  }
  if (!sort_ids(room, logits, sets->vocabulary)) return;
  walk_all(sets, room, walks);
  for (int s = 0; s < sets->n; s++) {
    if (sets->size[s] == 0 || sets->size[s] == sets->vocabulary) continue;
    out[s] = (struct enrichment){.score = fmin(fabs(walks[s].farthest), 1), .top = walks[s].farthest > 0};
  }
}
