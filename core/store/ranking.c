/* ranking.c: BM25 as a function of the word index (Robertson and Zaragoza, "The probabilistic relevance framework: BM25
 * and beyond", 2009):
 *
 *   relevance = - sum over words  idf * f * (k1 + 1) / (f + k1 * (1 - b + b * length / PIVOT))
 *   idf = log((rows - hits + 0.5) / (hits + 0.5)), at least 1e-6
 *
 * f: how often the word stands in the row; hits: rows that have it. The index has a function of this kind, but it asks
 * a second table for the length of every row, which is most of its time when a word is common. Here the length is that
 * of the description in bytes, which the statement has at hand, and PIVOT a usual length instead of the mean. */
#include "core/store/ranking.h"

#include <math.h>
#include <string.h>

#define K1 1.2
#define B 0.75
#define PIVOT 64.0 /* bytes: explanations are a line of text */
#define LENGTH_LEAST 1.0 /* bytes: no text is shorter, so none fits better than as if it were that short */
#define IDF_LEAST 1e-6 /* a word in more than half of the rows still counts as a hit */

/* What is the same for all rows of one query. */
struct weights {
  int n;
  double idf[];
};

static int hit_count(const Fts5ExtensionApi *api, Fts5Context *context, void *user) {
  (void)api;
  (void)context;
  ++*(sqlite3_int64 *)user;
  return SQLITE_OK;
}

static int weights_fill(const Fts5ExtensionApi *api, Fts5Context *context, struct weights *weights) {
  sqlite3_int64 rows = 0;
  int rc = api->xRowCount(context, &rows);
  for (int i = 0; rc == SQLITE_OK && i < weights->n; i++) {
    sqlite3_int64 hits = 0;
    rc = api->xQueryPhrase(context, i, &hits, hit_count);
    weights->idf[i] = fmax(IDF_LEAST, log(((double)(rows - hits) + 0.5) / ((double)hits + 0.5)));
  }
  return rc;
}

static int weights_get(const Fts5ExtensionApi *api, Fts5Context *context, struct weights **out) {
  if ((*out = api->xGetAuxdata(context, 0))) return SQLITE_OK;
  int n = api->xPhraseCount(context);
  struct weights *weights = sqlite3_malloc64(sizeof *weights + (sqlite3_uint64)n * sizeof(double));
  if (!weights) return SQLITE_NOMEM;
  weights->n = n;
  int rc = weights_fill(api, context, weights);
  if (rc != SQLITE_OK) {
    sqlite3_free(weights);
    return rc;
  }
  *out = weights;
  return api->xSetAuxdata(context, weights, sqlite3_free); /* frees it when it fails */
}

static int phrase_frequency(const Fts5ExtensionApi *api, Fts5Context *context, int phrase, int *frequency) {
  Fts5PhraseIter iterator;
  int column, offset;
  int rc = api->xPhraseFirst(context, phrase, &iterator, &column, &offset);
  for (*frequency = 0; rc == SQLITE_OK && column >= 0; ++*frequency)
    api->xPhraseNext(context, &iterator, &column, &offset);
  return rc;
}

static int score(const Fts5ExtensionApi *api, Fts5Context *context, double length, double *out) {
  struct weights *weights;
  int rc = weights_get(api, context, &weights);
  *out = 0;
  for (int i = 0; rc == SQLITE_OK && i < weights->n; i++) {
    int frequency;
    rc = phrase_frequency(api, context, i, &frequency);
    if (rc == SQLITE_OK && frequency)
      *out -= weights->idf[i] * frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length / PIVOT));
  }
  return rc;
}

/* One function for both questions, so that both use the same weights. */
static void relevance(const Fts5ExtensionApi *api, Fts5Context *context, sqlite3_context *result, int n_values,
                      sqlite3_value **values) {
  const double *worst = n_values ? sqlite3_value_pointer(values[0], RANKING_POINTER) : NULL;
  if (!worst && !n_values) return; /* NULL */
  double fit, length = worst ? LENGTH_LEAST : sqlite3_value_bytes(values[0]);
  int rc = score(api, context, length, &fit);
  if (rc != SQLITE_OK) sqlite3_result_error_code(result, rc);
  else if (worst) sqlite3_result_int(result, fit <= *worst);
  else sqlite3_result_double(result, fit);
}

int ranking_install(sqlite3 *db) {
  fts5_api *api = NULL;
  sqlite3_stmt *statement = NULL;
  int rc = sqlite3_prepare_v2(db, "SELECT fts5(?1)", -1, &statement, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_bind_pointer(statement, 1, &api, "fts5_api_ptr", NULL);
  if (rc == SQLITE_OK) rc = sqlite3_step(statement) == SQLITE_ROW ? SQLITE_OK : sqlite3_errcode(db);
  sqlite3_finalize(statement);
  if (rc != SQLITE_OK) return rc;
  return api ? api->xCreateFunction(api, "relevance", NULL, relevance, NULL) : SQLITE_ERROR;
}
