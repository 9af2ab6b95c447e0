/* statistics.h: what features do over a text: counts, histograms, examples, as docs/statistics.md defines them.
 *
 * Documents are added in order; the result is a function of the documents alone, so that a state that was saved, loaded
 * and continued ends equal, byte for byte. One thread at a time.
 *
 * MEMORY: 650 bytes a feature, plus an example 40 bytes and 8 for each token of its window on which the feature fires; at most
 * (n_top + 8 n_quantile) examples a feature. 24,576 features with 20 + 16 examples of windows of 64, firing on
 * a tenth of the window: about 90 MB. */
#ifndef STEERD_CORE_ANALYSIS_STATISTICS_H
#define STEERD_CORE_ANALYSIS_STATISTICS_H

#include <stdbool.h>

#include "core/base/buffer.h"
#include "core/dict/positions.h"
#include "core/math/sparse.h"

#define STATISTICS_BARS 64
#define STATISTICS_INTERVALS 8
#define STATISTICS_PART 512 /* features saved together */

struct statistics;

struct statistics_options {
  int64_t n_feat;
  int n_top, n_quantile; /* 0..100, 0..10 */
  int window;            /* tokens, 8..256 */
  struct positions positions; /* of a document: those that are counted. A BOS that is skipped is not shown either; others that are left out
                                 are shown without a value. Its ids are borrowed */
};

struct statistics *statistics_new(const struct statistics_options *options, struct error *error) MUST_CHECK;
void statistics_free(struct statistics *statistics); /* NULL is fine */

/* Rows first_row .. first_row + length - 1 of codes are the document's positions 0 .. length - 1, ids [length] its tokens (NULL where no
 * token is excluded). */
int statistics_add(struct statistics *statistics, int64_t document, const int32_t *ids, int32_t length, const struct sparse *codes,
                   size_t first_row, struct error *error) MUST_CHECK;

int64_t statistics_tokens(const struct statistics *statistics);    /* counted positions */
int64_t statistics_documents(const struct statistics *statistics); /* added */

struct statistics_mark { /* a token of an example's window on which the feature fires */
  int32_t offset;        /* from the window's first token */
  float value;
};
struct statistics_example {
  int interval;          /* -1: of the top group */
  float bin_min, bin_max, bin_contains; /* as the store has them: -1, max, -1 for the top group */
  int64_t document;
  int32_t position;      /* the qualifying token, in the document */
  int32_t start, length; /* window, in the document */
  float value;           /* at position */
  const struct statistics_mark *marks; /* [n_marks] */
  int32_t n_marks;
};
struct statistics_feature {
  int64_t n_fired;
  double mean;
  float max;
  float range;                /* R; 0 when it never fired */
  const uint64_t *bars;       /* [STATISTICS_BARS] over (0, R) */
  const struct statistics_example *examples; /* [n_examples], in the order of docs/statistics.md */
  int n_examples;
};
/* Valid until the next call on this object. */
void statistics_feature(struct statistics *statistics, int64_t index, struct statistics_feature *out);

/* Features are saved in parts of STATISTICS_PART; the head (tokens, documents) is a part of its own. A part is dirty when
 * documents have changed it since it was last saved. */
int64_t statistics_parts(const struct statistics *statistics);
bool statistics_part_dirty(const struct statistics *statistics, int64_t part);
void statistics_save_part(struct statistics *statistics, int64_t part, struct buffer *out);
int statistics_load_part(struct statistics *statistics, int64_t part, const void *data, size_t bytes,
                         struct error *error) MUST_CHECK;
void statistics_save_head(const struct statistics *statistics, struct buffer *out);
int statistics_load_head(struct statistics *statistics, const void *data, size_t bytes, struct error *error) MUST_CHECK;

#endif
