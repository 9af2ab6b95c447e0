/* feed.h: activations of a point over a text, or of two at the same positions, in batches of shuffled rows: what a dictionary is trained on.
 *
 * Documents come in an order of their own for each walk over the text; so many rows that they fill the buffer are made in the engine's
 * background, shuffled together and dealt out; what is left over of the last document is dropped. Everything follows from the seed and
 * from how many buffers have been dealt: a feed that starts at a state brings the rows that it would have brought, to the bit.
 * One thread at a time. */
#ifndef STEERD_CORE_ANALYSIS_FEED_H
#define STEERD_CORE_ANALYSIS_FEED_H

#include "core/analysis/corpus.h"
#include "core/engine/engine.h"

#define FEED_POINTS 2

struct feed_options {
  struct engine *engine;
  const struct model *model;
  const struct corpus *corpus;
  struct point points[FEED_POINTS]; /* different ones */
  int n_points;              /* 1..FEED_POINTS */
  int64_t widths[FEED_POINTS]; /* of their rows */
  int64_t first, documents;  /* the documents [first, first + documents) and no others */
  bool skip_first;           /* a document's first row is a BOS that counts for nothing */
  uint64_t seed;
  int64_t batch, batches;    /* rows of a batch, batches of a buffer */
  int max_sequences;         /* documents in one task */
  int64_t max_rows;          /* positions in one task */
  bool (*stop)(void *context); /* asked between tasks */
  void *context;
  /* A part of a buffer is there: rows so far, of so many; may be NULL. */
  void (*progress)(void *context, int64_t rows, int64_t total);
};

/* Where a feed is. */
struct feed_state {
  int64_t buffers;  /* filled before this one */
  int64_t document; /* at which this one begins, counted over all walks */
  int64_t dealt;    /* batches of this one: less than there are */
};

struct feed;

/* Options' pointers are borrowed. Corpora without a row to deal: ERROR_ARGUMENT. */
struct feed *feed_new(const struct feed_options *options, const struct feed_state *state, struct error *error) MUST_CHECK;
void feed_free(struct feed *feed); /* NULL is fine */

size_t feed_bytes(const struct feed_options *options); /* of its memory; SIZE_MAX when that is no number */

/* The rows of the present buffer in the order of the text, of each point [batch * batches, its width], NULL behind the last point; filled
 * when they are not there. Borrowed until the next batch. ERROR_CANCELLED when somebody stopped it. */
int feed_rows(struct feed *feed, const float *rows[FEED_POINTS], struct error *error) MUST_CHECK;

/* The next batch into out, of each point [batch, its width]. Errors as feed_rows. */
int feed_batch(struct feed *feed, float *const out[FEED_POINTS], struct error *error) MUST_CHECK;

void feed_state(const struct feed *feed, struct feed_state *out);

/* Rows of a document, the BOS not counted where it is skipped. */
int64_t feed_document_rows(const struct feed_options *options, int64_t document);

/* All rows of the document `document` and those behind it, up to `most` rows, into out, of each point [most, its width]: the number of rows is
 * the result, -1 with an error. No state is kept: for what is held out. */
int64_t feed_read(const struct feed_options *options, int64_t document, int64_t most, float *const out[FEED_POINTS], struct error *error) MUST_CHECK;

#endif
