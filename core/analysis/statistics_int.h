/* statistics_int.h: the state behind statistics.h, shared with the file that saves and loads it. */
#ifndef STEERD_CORE_ANALYSIS_STATISTICS_INT_H
#define STEERD_CORE_ANALYSIS_STATISTICS_INT_H

#include "core/analysis/statistics.h"

/* A kept example. */
struct kept {
  int64_t document;
  uint64_t key;          /* what chooses it for an interval; 0 in the top group */
  int32_t position, start, length;
  float value;
  int32_t n_marks;
  struct statistics_mark *marks; /* owned */
};

struct tally {
  int64_t n_fired;
  double sum;
  float max;
  int exponent;          /* R = 2^exponent */
  uint64_t bars[STATISTICS_BARS];
  uint8_t n_top, n_interval[STATISTICS_INTERVALS];
  struct kept *kept;     /* [n_top, then n_quantile for each interval]; NULL until it fires */
};

/* One entry of the document at hand, chained by feature. */
struct link {
  int32_t next, position;
  float value;
};

struct statistics {
  struct statistics_options options;
  int per_feature;       /* examples of a feature at most */
  int64_t n_tokens, n_documents;
  struct tally *tallies; /* [n_feat] */
  bool *dirty;           /* [parts] */

  /* Scratch of statistics_add and statistics_feature. */
  int32_t *first, *touched; /* [n_feat]: head of a feature's chain, -1; features with a chain */
  struct link *links;
  size_t link_capacity;
  uint64_t *keys;   /* [capacity] of positions of the document at hand, ... */
  uint8_t *mask;    /* ... and which of them count */
  size_t capacity;
  struct statistics_example *out;
};

/* Frees what a tally holds and empties it; n = per_feature. */
void tally_clear(struct tally *tally, int n);

#endif
