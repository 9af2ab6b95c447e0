/* lists.h: lists of features that people put together. Part of store.h: include that.
 *
 * A feature stands in a list once, by the names of its model and source: what those are now, and whether they are there at all,
 * is the reader's question. */
#ifndef STEERD_CORE_STORE_LISTS_H
#define STEERD_CORE_STORE_LISTS_H

#include "core/store/store.h"

struct store_list {
  int64_t id;              /* never used twice; ignored when putting */
  const char *name;        /* never NULL */
  const char *description; /* or NULL */
  const char *test_text;   /* a text to try its features on; or NULL */
  const char *owner;       /* or NULL */
  const char *created_at;  /* ISO 8601 UTC */
  const char *updated_at;  /* when it, or what is in it, last changed */
  int64_t n_features;      /* reading only */
};

struct store_list_feature {
  const char *model, *source;
  uint32_t index;
  const char *description; /* why it is in the list; or NULL */
  const char *created_at;  /* ISO 8601 UTC; ignored when adding */
};

#define STORE_LISTS_MAX 10000
#define STORE_LIST_FEATURES 1000 /* in a list */

/* Adds a list with its first features (one that is named twice once); *id is its number. ERROR_LIMIT: too many lists, or features. */
int store_list_new(struct store *store, const struct store_list *list, const struct store_list_feature *features, size_t n,
                   int64_t *id, struct error *error) MUST_CHECK;

/* Oldest first: *out is [*n]. */
int store_list_all(struct store *store, struct arena *arena, struct store_list **out, size_t *n,
                   struct error *error) MUST_CHECK;

/* 1, *out and its features [*n] in the order they were added; 0 when there is no such list; -1. features may be NULL. */
int store_list_find(struct store *store, int64_t id, struct arena *arena, struct store_list *out,
                    struct store_list_feature **features, size_t *n, struct error *error) MUST_CHECK;

/* A list that a feature is in. */
struct store_list_place {
  struct store_list list;  /* n_features is 0 */
  const char *description; /* why the feature is in it; or NULL */
  const char *created_at;  /* since when; ISO 8601 UTC */
};

/* The lists that a feature is in, oldest first, `most` of them: *out is [*n]. */
int store_lists_of(struct store *store, const char *model, const char *source, uint32_t index, size_t most, struct arena *arena,
                   struct store_list_place **out, size_t *n, struct error *error) MUST_CHECK;

/* The next five: 1 when done, 0 when there is no such list (or no such feature in it), -1. */

/* Behind those it has; one that is in it already stays as it is. ERROR_LIMIT: too many. */
int store_list_add(struct store *store, int64_t id, const struct store_list_feature *features, size_t n,
                   struct error *error) MUST_CHECK;

/* Replaces name, description and test_text. */
int store_list_update(struct store *store, const struct store_list *list, struct error *error) MUST_CHECK;

/* Gives a feature of the list another description. */
int store_list_describe(struct store *store, int64_t id, const struct store_list_feature *feature, struct error *error) MUST_CHECK;

int store_list_remove(struct store *store, int64_t id, const struct store_list_feature *feature, struct error *error) MUST_CHECK;

/* The list and what is in it. */
int store_list_delete(struct store *store, int64_t id, struct error *error) MUST_CHECK;

#endif
