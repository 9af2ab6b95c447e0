/* explanations.h: what people and programs say a feature means. Part of store.h: include that.
 *
 * Of several explanations of one feature the better one comes first: written by a person before imported before
 * automatic; then the higher score (none is lowest), then the older. */
#ifndef STEERD_CORE_STORE_EXPLANATIONS_H
#define STEERD_CORE_STORE_EXPLANATIONS_H

#include "core/store/store.h"

enum store_origin { STORE_AUTOMATIC = 0, STORE_IMPORTED = 1, STORE_MANUAL = 2 };

struct store_explanation {
  int64_t id;             /* never used twice; ignored when putting */
  int64_t source;         /* the store's number of the source */
  uint32_t index;         /* of the feature */
  enum store_origin origin;
  const char *description; /* never NULL */
  const char *type;        /* typeName: the method; or NULL */
  const char *model_name;  /* explanationModelName: who wrote it; or NULL */
  const char *author;      /* or NULL */
  const char *notes;       /* or NULL */
  double score;            /* NaN when it has none */
  const char *scores;      /* every score as a JSON array; or NULL */
  const char *created_at;  /* ISO 8601 UTC; NULL when putting: now */

  const char *model;       /* reading only: model id and source name */
  const char *source_name;
};

/* Adds an explanation; *id (may be NULL) is its number. An automatic one takes the place (and a new number) of the
 * automatic one of the same feature, type and model_name. ERROR_NOT_FOUND: no such source; ERROR_ARGUMENT: no
 * description. */
int store_explanation_put(struct store *store, const struct store_explanation *explanation, int64_t *id,
                          struct error *error) MUST_CHECK;

/* 1 and *out when it exists, 0 when not, -1 on error. */
int store_explanation_find(struct store *store, int64_t id, struct arena *arena, struct store_explanation *out,
                           struct error *error) MUST_CHECK;

/* 1 when it was deleted, 0 when there was none, -1 on error. */
int store_explanation_delete(struct store *store, int64_t id, struct error *error) MUST_CHECK;

/* A feature by the store's number of its source; source 0: none. */
struct store_feature_at {
  int64_t source;
  uint32_t index;
};

/* The description of the best explanation of each of n features into out [n], NULL of those without one. */
int store_explanation_best(struct store *store, const struct store_feature_at *features, size_t n, struct arena *arena, const char **out,
                           struct error *error) MUST_CHECK;

/* What stands beside a feature that something else found. */
struct store_feature_label {
  bool known;        /* something of the following is */
  double rate;       /* share of counted positions where it fires; NaN: nobody counted */
  float max;         /* its largest activation there; NaN */
  const struct store_explanation *best; /* NULL: nobody explained it */
};

/* The label of each of n features into out [n], all of one moment. In the arena. */
int store_feature_labels(struct store *store, const struct store_feature_at *features, size_t n, struct arena *arena,
                         struct store_feature_label *out, struct error *error) MUST_CHECK;

struct store_explanation_query {
  const char *model;     /* model id; NULL: all */
  int64_t source;        /* 0: all sources of the model */
  int64_t offset, limit; /* limit -1: all */
};

/* One row per explanation by source number, index and rank. The strings live only for the call. The function runs
 * inside a read: it must not call the store and must not wait for a client (the log cannot shrink meanwhile).
 * A return other than 0 stops the walk, and the verb returns -1 with the error the function has set. */
typedef int (*store_explanation_row)(void *context, const struct store_explanation *row, struct error *error);
int store_explanation_each(struct store *store, const struct store_explanation_query *query,
                           store_explanation_row row, void *context, struct error *error) MUST_CHECK;

/* How many rows store_explanation_each would give without offset and limit. */
int store_explanation_count(struct store *store, const struct store_explanation_query *query, int64_t *count,
                            struct error *error) MUST_CHECK;

struct store_search {
  const char *query;        /* what the user typed; query_length bytes of UTF-8, any characters */
  size_t query_length;      /* at most STORE_QUERY_MAX */
  bool any;                 /* rows with any of the words; else rows with all of them */
  bool prefix;              /* the last word may go on */
  const char *model;        /* model id; NULL: all */
  const int64_t *sources;   /* [n_sources]: only these; NULL: all sources of the model */
  size_t n_sources;
  int64_t offset, limit;    /* limit 1..1,000 */
  int64_t time_limit_ms;    /* 0: none */
};

#define STORE_QUERY_MAX 1024
#define STORE_QUERY_WORDS 32 /* words beyond are not looked at */

struct store_hit {
  struct store_explanation explanation;
  double rank;         /* BM25 (ranking.c): the more negative, the better */
  const char *snippet; /* part of the description, hits between U+0002 and U+0003 */
};

/* Explanations that hold the words, best rank first, then by number. Words are compared without case, accents and
 * English endings. *more (may be NULL) tells whether there is another page. The cost grows with the rows that hold the
 * words; for one source (or sources with neighbouring numbers) only its rows are ranked.
 * ERROR_ARGUMENT: no word, or not UTF-8; ERROR_LIMIT: too long; ERROR_TIMEOUT: time_limit_ms passed. */
int store_explanation_search(struct store *store, const struct store_search *search, struct arena *arena,
                             struct store_hit **out, size_t *n, bool *more, struct error *error) MUST_CHECK;

#endif
