/* graphs.h: attribution graphs that were made and kept. Part of store.h: include that.
 *
 * A graph is a JSON text (api/lab_graph.c) under a name, its slug, of a model. The store keeps both as they are given and knows nothing of what
 * is in it. */
#ifndef STEERD_CORE_STORE_GRAPHS_H
#define STEERD_CORE_STORE_GRAPHS_H

#include "core/store/store.h"

struct store_graph {
  int64_t id;             /* never used twice; ignored when putting */
  const char *model, *slug;
  const char *prompt;
  const char *tokens;     /* of the prompt: a JSON array of strings */
  const char *source_set; /* or NULL */
  int64_t n_nodes, n_links;
  const char *created_at; /* ISO 8601 UTC; ignored when putting */
  const char *json;       /* [length]; NULL where only the rest was asked for */
  size_t length;
};

#define STORE_GRAPHS_MAX 1000
#define STORE_GRAPH_BYTES ((size_t)64 << 20)

/* 1, and *id (may be NULL) is its number; 0 when the model has one of that slug; -1: ERROR_LIMIT: too many, or too large. */
int store_graph_new(struct store *store, const struct store_graph *graph, int64_t *id, struct error *error) MUST_CHECK;

/* 1, 0 when there is none, -1. json: whether that is wanted too. */
int store_graph_find(struct store *store, const char *model, const char *slug, bool json, struct arena *arena, struct store_graph *out,
                     struct error *error) MUST_CHECK;

/* Oldest first, without json: *out is [*n]. */
int store_graph_all(struct store *store, struct arena *arena, struct store_graph **out, size_t *n, struct error *error) MUST_CHECK;

/* 1, 0 when there was none, -1. */
int store_graph_delete(struct store *store, const char *model, const char *slug, struct error *error) MUST_CHECK;

#endif
