/* uploads.h: what clients bring along: models and sets of sources that are names alone, and features that were counted
 * elsewhere. Part of store.h: include that.
 *
 * A NAMED source is one under whose name no dictionary was ever seen (its identity is NULL). What is uploaded never takes the
 * place of what is there: a feature that has statistics or examples is left as it is. */
#ifndef STEERD_CORE_STORE_UPLOADS_H
#define STEERD_CORE_STORE_UPLOADS_H

#include "core/store/store.h"

struct store_example;
struct store_feature;
struct store_model;

struct store_set {
  const char *model, *name; /* "gpt2-small", "res-jb" */
  const char *description;  /* or NULL */
  const char *url;          /* or NULL */
  const char *owner;        /* or NULL */
  const char *created_at;   /* ISO 8601 UTC; NULL when registering: now */
};

#define STORE_MODELS_MAX 512         /* models in the store, beyond which none is registered */
#define STORE_NAMED_SOURCES_MAX 8192 /* the same of named sources */
#define STORE_SETS_MAX 256           /* the same of a model's sets */
#define STORE_UPLOAD_FEATURES ((int64_t)1 << 20) /* features of a named source */

/* Adds a model: 1, 0 when there is one of this id (it stays as it is), -1. ERROR_LIMIT: too many. */
int store_model_register(struct store *store, const struct store_model *model, struct error *error) MUST_CHECK;

/* Adds a set with a source for each of layers 0..layers-1, named LAYER-NAME, in one transaction: 1; 0 when the set or one of the
 * sources is there, and nothing was added; -1. ERROR_LIMIT: too many. */
int store_set_register(struct store *store, const struct store_set *set, int64_t layers, struct error *error) MUST_CHECK;

/* 1 and *out when it was registered, 0 when not, -1 on error. */
int store_set_find(struct store *store, const char *model, const char *name, struct arena *arena, struct store_set *out,
                   struct error *error) MUST_CHECK;

/* Where an upload goes. */
struct store_upload {
  int64_t source;
  const char *identity; /* the source's as it was when the upload was judged; NULL: a named source */
};

/* Adds features with their explanations (of which source, index and id are filled in here) in one transaction. added[i] says
 * whether feature i was: one that has statistics or examples is left alone, with its explanations. Indices are different. A
 * named source grows to hold them, and has its statistics' conventions from now on: folded, BOS not counted.
 * ERROR_CONFLICT: the source has another identity by now; ERROR_ARGUMENT: an index beyond the dictionary's, a length beyond its
 * range; ERROR_NOT_FOUND: no such source. */
int store_upload_features(struct store *store, const struct store_upload *upload, const struct store_feature *features, size_t n,
                          bool *added, struct error *error) MUST_CHECK;

/* Adds examples to a feature, behind those it has; one with the same tokens and values as another is not added again. *added is
 * how many were. The largest activation follows where nobody has counted it over a text. ERROR_LIMIT beyond STORE_SLOT_MAX;
 * errors as above. */
int store_upload_examples(struct store *store, const struct store_upload *upload, uint32_t index,
                          const struct store_example *examples, size_t n, size_t *added, struct error *error) MUST_CHECK;

#endif
