/* forget.h: taking away what clients have registered and uploaded. Part of store.h: include that.
 *
 * What is taken away is gone from the file too: its bytes are written over, and the index of words is made anew without them. Lists
 * keep the names of features whose source is gone. */
#ifndef STEERD_CORE_STORE_FORGET_H
#define STEERD_CORE_STORE_FORGET_H

#include "core/store/store.h"

struct store_forget {
  const char *model;
  const char *set;          /* this set of it, registered or not; NULL: no set, or with whole_model all of them */
  const int64_t *sources;   /* [n] numbers of sources: all that is stored of them goes, and they */
  size_t n;
  bool whole_model;         /* its sets, its vectors and its own entry too */
};

/* All of it in one transaction; what is not there is passed over. Time in proportion to what is stored of it, and to all
 * explanations; other writers wait. */
int store_forget(struct store *store, const struct store_forget *what, struct error *error) MUST_CHECK;

/* Everything of one feature: 1, 0 when nothing was stored of it, -1. */
int store_forget_feature(struct store *store, int64_t source, uint32_t index, struct error *error) MUST_CHECK;

/* Bytes of the file that hold something: what was deleted and is free to be used again does not count. */
int store_bytes(struct store *store, int64_t *bytes, struct error *error) MUST_CHECK;

#endif
