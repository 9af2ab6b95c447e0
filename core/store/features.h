/* features.h: what is known of each feature: statistics, logits, neighbours, examples. Part of store.h: include
 * that.
 *
 * A feature is kept in groups that are written and present independently: a feature without statistics can have
 * logits. Ties are always broken by the smaller index, or the smaller slot among examples. */
#ifndef STEERD_CORE_STORE_FEATURES_H
#define STEERD_CORE_STORE_FEATURES_H

#include "core/store/maps.h"
#include "core/store/store.h"

enum store_group {
  STORE_STATISTICS = 1,
  STORE_LOGITS = 2,
  STORE_NEIGHBOURS = 4,
  STORE_EXTRA = 8,
  STORE_EXAMPLES = 16,
  STORE_MOMENTS = 32, /* put with the others, read by store_moments_list */
  STORE_PLACE = 64
};

/* Bars of a histogram: two arrays f32 [n]. */
struct store_histogram {
  const float *heights; /* counts */
  const float *values;  /* bar positions, in the unit of what is counted */
  size_t n;
};

/* Tokens with a number each: the top or bottom logits. */
struct store_tokens {
  const struct store_text *texts; /* [n] */
  const float *values;            /* f32 [n] */
  size_t n;
};

/* One stretch of a document on which the feature fired. */
struct store_example {
  int slot;                       /* 0..STORE_SLOT_MAX - 1, its place as put; ignored when putting */
  const struct store_text *tokens; /* [n] */
  const float *values;            /* f32 [n]: the feature's activation at each token */
  size_t n;                       /* 1..STORE_TOKENS_MAX */
  float max_value;                /* computed when putting: the largest of values, ... */
  int max_index;                  /* ... the first place it stands at, ... */
  float min_value;                /* ... and the smallest */
  float bin_min, bin_max;         /* the interval of activations it was sampled from (top group: bin_min -1) */
  float bin_contains;             /* share 0..1 of counted positions in the interval (top group: -1) */
  int qualifying;                 /* the token that put it into its bin, 0..n-1; -1 when not known */
  int64_t document;               /* its document in the corpus, from 0; -1 when not known */
  int64_t position;               /* place of tokens[0] in that document; -1 when not known */
  const char *data_index;         /* name of the place in an imported data set; or NULL */
  const char *extra;              /* further fields of an imported row as a JSON object; or NULL */
};

/* Of all logits of a feature; NaN: they have none (core/analysis/logit_shape.h). */
struct store_moments {
  double mean, std, skewness, kurtosis;
};

#define STORE_SLOT_MAX 4096
#define STORE_TOKENS_MAX 65536

struct store_feature {
  uint32_t index;
  unsigned groups; /* STORE_... that are present (reading) or to be replaced (putting) */

  /* STORE_STATISTICS */
  int64_t n_fired;                 /* counted positions with an activation > 0; -1 when not known */
  double rate;                     /* n_fired / n_tokens of the source; NaN when not known */
  double mean;                     /* mean activation over those positions; 0 when there are none */
  float max;                       /* largest activation over all counted positions */
  struct store_histogram activity; /* of activations > 0 */

  /* STORE_LOGITS: the decoder row through the unembedding */
  struct store_tokens top, bottom; /* largest first; smallest first */
  struct store_histogram logits;

  /* STORE_MOMENTS */
  struct store_moments moments;

  /* STORE_NEIGHBOURS: nearest decoder rows, nearest first */
  const uint32_t *neighbours; /* [n_neighbours] */
  const float *cosines;       /* f32 [n_neighbours], -1..1 */
  size_t n_neighbours;

  /* STORE_PLACE: in the map of its source */
  struct store_place place;

  /* STORE_EXTRA: further fields of an imported feature as a JSON object */
  const char *extra;

  /* STORE_EXAMPLES: putting replaces all of them, in this order; reading gives them by max_value, largest first */
  const struct store_example *examples;
  size_t n_examples; /* 0..STORE_SLOT_MAX */

  /* Reading, best first, and uploading (uploads.h); putting leaves them alone. */
  const struct store_explanation *explanations;
  size_t n_explanations;
};

/* What a job writes in one step: all of it or none. */
struct store_batch {
  int64_t source;
  const struct store_feature *features; /* [n_features] */
  size_t n_features;
  const struct store_explanation *explanations; /* [n_explanations]: put as store_explanation_put does */
  size_t n_explanations;
  int64_t job;                         /* 0: none */
  const struct store_job_update *update; /* of that job; or NULL */
  const struct store_job_part *parts;  /* [n_parts]: its resume state */
  size_t n_parts;
};

/* Writes a batch in one transaction that is on the disk when this returns. Killed before: nothing of it is there,
 * and the job's state is the one of the batch before. ERROR_ARGUMENT: a length beyond its range, an explanation of
 * another source; ERROR_NOT_FOUND: no such source or job. */
int store_batch_put(struct store *store, const struct store_batch *batch, struct error *error) MUST_CHECK;

/* Adds examples behind those a feature has (an upload), oldest kept. ERROR_LIMIT beyond STORE_SLOT_MAX. */
int store_examples_add(struct store *store, int64_t source, uint32_t index, const struct store_example *examples,
                       size_t n, struct error *error) MUST_CHECK;

/* Everything about one feature: 1 when anything is stored (groups says what; examples and explanations count),
 * 0 when nothing is, -1 on error. At most max_examples examples and all explanations. Out of range is not told
 * from unknown: the caller knows the dictionary. */
int store_feature_get(struct store *store, int64_t source, uint32_t index, size_t max_examples, struct arena *arena,
                      struct store_feature *out, struct error *error) MUST_CHECK;

enum store_order { STORE_BY_INDEX, STORE_BY_RATE, STORE_BY_MAX, STORE_BY_MEAN };

/* The narrow row of a feature, for lists. */
struct store_feature_row {
  uint32_t index;
  int64_t n_fired;
  double rate, mean;
  float max;
  const char *description; /* of its best explanation; or NULL */
};

struct store_feature_query {
  int64_t source;
  enum store_order order;
  bool descending;
  bool alive; /* only features whose max is > 0 */
  int64_t offset, limit; /* limit 0..10,000 */
};

/* A page of the features that have statistics: *out is [*n], *total (may be NULL) how many there are in all pages.
 * Unknown numbers sort as the smallest. */
int store_feature_list(struct store *store, const struct store_feature_query *query, struct arena *arena,
                       struct store_feature_row **out, size_t *n, int64_t *total, struct error *error) MUST_CHECK;

/* How many features of a source have statistics, uploaded ones included. */
int store_feature_count(struct store *store, int64_t source, int64_t *count, struct error *error) MUST_CHECK;

/* One of the features with max > 0, each as likely as the other when unit is uniform in [0, 1). 1, or 0 when there
 * is none. */
int store_feature_random(struct store *store, int64_t source, double unit, uint32_t *index,
                         struct error *error) MUST_CHECK;

/* Firing rate of features 0..n-1 into rates f32 [n], NaN where there are no statistics; *known (may be NULL) is how
 * many there are. One query. */
int store_density(struct store *store, int64_t source, float *rates, size_t n, size_t *known,
                  struct error *error) MUST_CHECK;

/* Moments of features 0..n-1 into out [n]; has[i]: whether those of i are there; *known is how many are. One query. */
int store_moments_list(struct store *store, int64_t source, struct store_moments *out, bool *has, size_t n, size_t *known,
                       struct error *error) MUST_CHECK;

/* Writes those of features 0..n-1, a few thousand in a transaction: what is killed on the way has whole features. */
int store_moments_put(struct store *store, int64_t source, const struct store_moments *moments, size_t n,
                      struct error *error) MUST_CHECK;

#endif
