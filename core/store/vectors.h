/* vectors.h: steering vectors that users keep. Part of store.h: include that. */
#ifndef STEERD_CORE_STORE_VECTORS_H
#define STEERD_CORE_STORE_VECTORS_H

#include "core/store/store.h"

struct store_vector {
  const char *model;      /* model id */
  const char *source;     /* "6-neuronpedia-resid-pre"; need not be a stored source */
  int64_t index;          /* given by the store when putting: random, 9 digits */
  const char *label;      /* or NULL */
  const char *point;      /* hookName: "blocks.6.hook_resid_pre" */
  double strength;        /* default steering strength */
  const char *owner;      /* or NULL */
  const char *created_at; /* ISO 8601 UTC; NULL when putting: now */
  const float *values;    /* f32 [n]; NULL in lists that leave them out */
  size_t n;
};

/* Adds a vector and gives it an index that is free in its (model, source). ERROR_ARGUMENT: no values. */
int store_vector_new(struct store *store, const struct store_vector *vector, int64_t *index,
                     struct error *error) MUST_CHECK;

/* Adds vectors that belong together under one label of one model, all or none, and gives each its index. ERROR_CONFLICT: that model
 * has a vector of that label. */
int store_vectors_add(struct store *store, struct store_vector *vectors, size_t n, struct error *error) MUST_CHECK;

/* 1 and *out when it exists, 0 when not, -1 on error. */
int store_vector_find(struct store *store, const char *model, const char *source, int64_t index, struct arena *arena,
                      struct store_vector *out, struct error *error) MUST_CHECK;

/* Vectors of an owner (NULL: of everybody) in a model (NULL: all), oldest first; *out is [*n]. */
int store_vector_list(struct store *store, const char *model, const char *owner, struct arena *arena,
                      struct store_vector **out, size_t *n, struct error *error) MUST_CHECK;

/* Vectors of a model with that label, oldest first; *out is [*n], *n 0 when there is none. */
int store_vectors_labelled(struct store *store, const char *model, const char *label, struct arena *arena, struct store_vector **out,
                           size_t *n, struct error *error) MUST_CHECK;

/* 1 when it was deleted, 0 when there was none, -1 on error. */
int store_vector_delete(struct store *store, const char *model, const char *source, int64_t index,
                        struct error *error) MUST_CHECK;

/* Deletes all vectors of a model with that label, in one step: how many there were, -1 on error. */
int store_vectors_delete(struct store *store, const char *model, const char *label, struct error *error) MUST_CHECK;

#endif
