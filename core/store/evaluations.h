/* evaluations.h: how well a dictionary did over a text. Part of store.h: include that. One row for each way a text was
 * evaluated: the newest takes the place of the one before. */
#ifndef STEERD_CORE_STORE_EVALUATIONS_H
#define STEERD_CORE_STORE_EVALUATIONS_H

#include "core/store/store.h"

enum { STORE_SHARES = 4 }; /* of features that fire at less than 0.1, 0.01, 0.001 and 0.0001 of the positions */

struct store_evaluation {
  int64_t source;              /* the store's number */
  const char *corpus;          /* name of the text */
  const char *corpus_hash;     /* of the text and of how it was cut */
  bool lines;                  /* documents were split at newlines */
  bool ends;                   /* the end of a document was predicted too */
  int64_t n_documents, n_tokens, n_features; /* n_tokens: positions counted in l0, mse and explained */
  double l0, mse, explained;   /* core/analysis/quality.h */
  int64_t n_predicted;         /* tokens behind the cross-entropies; nats a token: */
  double ce_raw, ce_spliced, ce_error, ce_zero; /* the model; x^ in place of x; x^ + error; 0 in place of x */
  int64_t n_dead;              /* features that never fired */
  int64_t below[STORE_SHARES]; /* features that fired less often than that, dead ones included */
  double cosine, l2_ratio, bias; /* quality.h; NaN: of rows from before these were counted */
  double kl_spliced, kl_zero;    /* divergence from the model's predictions, nats a token; NaN likewise */
  const char *made_at;         /* ISO 8601 UTC; NULL when putting: now */
};

/* ERROR_NOT_FOUND without such a source. */
int store_evaluation_put(struct store *store, const struct store_evaluation *evaluation, struct error *error) MUST_CHECK;

/* Those of a source, newest first; *out is [*n]. */
int store_evaluation_list(struct store *store, int64_t source, struct arena *arena, struct store_evaluation **out, size_t *n,
                          struct error *error) MUST_CHECK;

#endif
