/* tables.h: what a dictionary alone tells of its features: logits and neighbours (docs/statistics.md). Runs on the
 * engine's worker, inside slices of engine work. */
#ifndef STEERD_CORE_ANALYSIS_TABLES_H
#define STEERD_CORE_ANALYSIS_TABLES_H

#include "core/analysis/logit_shape.h"
#include "core/dict/dict.h"
#include "core/model/plan.h"

#define TABLE_LOGITS 10      /* largest and smallest logits kept */
#define TABLE_LOGIT_BARS 50
#define TABLE_NEIGHBOURS 10      /* kept with a feature */
#define TABLE_NEIGHBOURS_MOST 128 /* that can be asked for */

struct feature_logits {
  int32_t top[TABLE_LOGITS], bottom[TABLE_LOGITS]; /* token ids */
  float top_value[TABLE_LOGITS], bottom_value[TABLE_LOGITS];
  int n;                                           /* of each: less than TABLE_LOGITS for a tiny vocabulary */
  float bars[TABLE_LOGIT_BARS], centres[TABLE_LOGIT_BARS];
  struct logit_moments moments;
};

/* Whether rows of a dictionary reach the logits by themselves: not those that are queries, keys or values, scores or a pattern, which
 * only say what attention looks at or carries, nor rows of several streams at once (all heads' inputs or results). d_model: the
 * model's. */
bool tables_has_logits(const struct dict *dict, int64_t d_model);

/* Logits of n features, n <= plan_max_logit_rows, of a dictionary that has them: see(context, i, logits [vocabulary]) for each
 * in turn. Rows that are not of
 * the residual stream count as what they add to it: those of attn.hook_z through W_O, those inside the MLP through W_out
 * (an activation function between is taken for the identity), those of a cross-layer transcoder all together. vocabulary: tokens of the tokenizer (padded rows of the
 * embedding do not count). */
int tables_each(const struct dict *dict, struct plan *plan, int64_t vocabulary, const uint32_t *features, int n,
                void (*see)(void *context, int i, const float *logits), void *context, struct error *error) MUST_CHECK;

/* What is kept of them: out [n]. */
int tables_logits(const struct dict *dict, struct plan *plan, int64_t vocabulary, const uint32_t *features, int n,
                  struct feature_logits *out, struct error *error) MUST_CHECK;

/* The same of one row of the stream's width that belongs to no dictionary: row [d_model]. */
int tables_row_logits(struct plan *plan, int64_t vocabulary, const float *row, struct feature_logits *out, struct error *error) MUST_CHECK;

struct feature_neighbours {
  uint32_t index[TABLE_NEIGHBOURS_MOST];
  float cosine[TABLE_NEIGHBOURS_MOST];
  int n;
};

/* Rows [first, first + count) of the decoder prepared as a matrix. */
struct decoder_table;
struct decoder_table *decoder_table_new(const struct dict *dict, int64_t first, int64_t count, struct backend *backend,
                                        struct error *error) MUST_CHECK;
void decoder_table_free(struct decoder_table *table); /* NULL is fine */

#define TABLE_QUERIES 32

/* The `most` (1..TABLE_NEIGHBOURS_MOST) nearest rows of the table's dictionary to queries q [n, d_out] (host, any length),
 * n <= TABLE_QUERIES. skip[i] is a feature to leave out (the query's own), -1: none. Largest cosine first, lower index among
 * equals. out[i] is added to: it begins with n 0, and with tables of ascending ranges ends as with the whole. */
int decoder_table_nearest(struct decoder_table *table, const float *queries, const int64_t *skip, int n, int most,
                          struct feature_neighbours *out, struct error *error) MUST_CHECK;

#define TABLE_PART_BYTES ((int64_t)8 << 20) /* of a decoder as f32: a few milliseconds to prepare or to multiply with */

/* The whole decoder for many queries, in tables of at most part_bytes each (one row at least), so that no slice of work is long.
 * Nothing is prepared yet. */
struct decoder_parts;
struct decoder_parts *decoder_parts_new(const struct dict *dict, struct backend *backend, int64_t part_bytes,
                                        struct error *error) MUST_CHECK;
void decoder_parts_free(struct decoder_parts *parts); /* NULL is fine */
int64_t decoder_parts_count(const struct decoder_parts *parts);

/* Prepares the next part: 1 when there was one left, 0 when all are there, -1. */
int decoder_parts_prepare(struct decoder_parts *parts, struct error *error) MUST_CHECK;
struct decoder_table *decoder_parts_table(struct decoder_parts *parts, int64_t part); /* prepared; in ascending order */

/* Whether row i of the dictionary, in this table, is not all zeros. */
bool decoder_table_has_direction(const struct decoder_table *table, int64_t i);
bool decoder_parts_has_direction(const struct decoder_parts *parts, int64_t i); /* of its own part, prepared */

/* One query against the whole decoder, a bounded part of it at a time: 1 when there is more to do, 0 when it is done, -1.
 * *next is the first row that is not in yet and begins at 0, as out->n does. */
int decoder_nearest_part(const struct dict *dict, struct backend *backend, const float *query, int64_t skip, int most,
                         int64_t *next, struct feature_neighbours *out, struct error *error) MUST_CHECK;

#endif
