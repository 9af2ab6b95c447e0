/* subgraphs.h: what somebody has pinned and grouped in a kept graph. Part of store.h: include that.
 *
 * A subgraph goes with its graph. What is chosen is one JSON text, of which the store knows nothing. */
#ifndef STEERD_CORE_STORE_SUBGRAPHS_H
#define STEERD_CORE_STORE_SUBGRAPHS_H

#include "core/store/store.h"

struct store_subgraph {
  int64_t id;             /* never used twice; ignored when adding */
  int64_t graph;          /* store_graph.id */
  const char *name;       /* or NULL */
  const char *choices;    /* a JSON object */
  const char *created_at, *updated_at; /* ISO 8601 UTC; ignored when putting */
};

#define STORE_SUBGRAPHS_MAX 100 /* of a graph */
#define STORE_SUBGRAPH_BYTES ((size_t)4 << 20)

/* Adds one; *id is its number. ERROR_NOT_FOUND: there is no such graph; ERROR_LIMIT: too many, or too large. */
int store_subgraph_new(struct store *store, const struct store_subgraph *subgraph, int64_t *id, struct error *error) MUST_CHECK;

/* Other choices for the one of this number and graph; its name stays. 1, 0 when there is none, -1. */
int store_subgraph_update(struct store *store, const struct store_subgraph *subgraph, struct error *error) MUST_CHECK;

/* Those of a graph, newest first: *out is [*n]. */
int store_subgraphs_of(struct store *store, int64_t graph, struct arena *arena, struct store_subgraph **out, size_t *n, struct error *error) MUST_CHECK;

/* 1, 0 when there was none, -1. */
int store_subgraph_delete(struct store *store, int64_t id, struct error *error) MUST_CHECK;

#endif
