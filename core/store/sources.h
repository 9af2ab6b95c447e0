/* sources.h: models and the dictionaries served for them. Part of store.h: include that. */
#ifndef STEERD_CORE_STORE_SOURCES_H
#define STEERD_CORE_STORE_SOURCES_H

#include "core/store/store.h"

struct store_model {
  const char *id;             /* "gpt2-small" */
  const char *display_name;   /* or NULL */
  int64_t layers;             /* 0 when not known */
  int64_t dimension;          /* width of the residual stream; 0 when not known */
  int64_t neurons_per_layer;  /* 0 when not known */
  const char *owner;          /* or NULL */
  const char *website;        /* or NULL */
  const char *default_source; /* or NULL */
  const char *identity;       /* hash of config and weights, as the caller makes it; or NULL */
  const char *created_at;     /* ISO 8601 UTC; NULL when putting: now */
};

/* How the statistics of a source were made (docs/decisions.md 17). Zeroes and NULLs until they are. */
struct store_statistics {
  int64_t n_tokens;             /* counted positions: the denominator of every rate */
  int64_t n_documents;
  int64_t context;              /* tokens in a document at most */
  bool bos_counted;             /* whether the BOS position is among n_tokens */
  bool folded;                  /* activations are raw * norm(decoder row) */
  bool lines;                   /* documents were split at newlines */
  const char *logit_convention; /* how top and bottom logits were computed: "raw", "centred", ...; or NULL */
  const char *corpus;           /* name of the text; or NULL */
  const char *corpus_hash;      /* or NULL */
  const char *made_at;          /* ISO 8601 UTC when the last step was done; NULL while unfinished */
};

struct store_source {
  int64_t id;              /* the store's own number, 1..STORE_SOURCE_MAX; ignored when putting */
  const char *model;       /* model id */
  const char *name;        /* "7-res-jb": as the API names it */
  const char *set;         /* "res-jb"; or NULL */
  int64_t layer;           /* -1 when it has none */
  const char *point;       /* "blocks.7.hook_resid_pre"; or NULL */
  const char *kind;        /* "relu", "topk", ...; or NULL */
  int64_t n_features;      /* rows of the dictionary; 0 when not known */
  const char *identity;    /* hash of the dictionary's file; or NULL */
  const char *config;      /* its configuration as JSON text; or NULL */
  const char *description; /* or NULL */
  const char *url;         /* or NULL */
  const char *created_at;  /* ISO 8601 UTC; NULL when putting: now */
  struct store_statistics statistics;
};

#define STORE_SOURCE_MAX ((int64_t)1 << 18)

/* Adds a model, or replaces every field of the one with this id; created_at of an existing one stays. */
int store_model_put(struct store *store, const struct store_model *model, struct error *error) MUST_CHECK;

/* 1 and *out when it exists, 0 when not, -1 on error. */
int store_model_find(struct store *store, const char *id, struct arena *arena, struct store_model *out,
                     struct error *error) MUST_CHECK;

/* All models by id: *out is [*n]. */
int store_model_list(struct store *store, struct arena *arena, struct store_model **out, size_t *n,
                     struct error *error) MUST_CHECK;

/* Adds a source, or replaces every field of the one with this (model, name), statistics included; its number and
 * created_at stay. *id (may be NULL) is its number. The model need not be stored. ERROR_LIMIT beyond
 * STORE_SOURCE_MAX sources. */
int store_source_put(struct store *store, const struct store_source *source, int64_t *id,
                     struct error *error) MUST_CHECK;

/* 1 and *out when it exists, 0 when not, -1 on error. */
int store_source_find(struct store *store, const char *model, const char *name, struct arena *arena,
                      struct store_source *out, struct error *error) MUST_CHECK;

/* As above, by its number. */
int store_source_at(struct store *store, int64_t id, struct arena *arena, struct store_source *out,
                    struct error *error) MUST_CHECK;

/* The sources of a model (NULL: of all), by model, layer and name: *out is [*n]. */
int store_source_list(struct store *store, const char *model, struct arena *arena, struct store_source **out,
                      size_t *n, struct error *error) MUST_CHECK;

/* Those that are a name alone: no dictionary was ever seen under it (identity NULL), so that all there is was registered, uploaded
 * or imported. */
int store_source_list_named(struct store *store, const char *model, struct arena *arena, struct store_source **out,
                            size_t *n, struct error *error) MUST_CHECK;

/* Forgets features, examples, evaluations and automatic explanations of a source, and its statistics' description: for a
 * dictionary whose identity has changed. Imported and manual explanations stay. */
int store_source_clear(struct store *store, int64_t source, struct error *error) MUST_CHECK;

#endif
