/* shares.h: steer outputs that somebody chose to share (docs/decisions.md 12). Part of store.h: include that. */
#ifndef STEERD_CORE_STORE_SHARES_H
#define STEERD_CORE_STORE_SHARES_H

#include "core/base/secret.h"
#include "core/store/store.h"

#define STORE_SHARE_ID SECRET_NAME

struct store_share {
  const char *id;         /* ignored when saving */
  const char *kind;       /* "steer", "steer-chat" */
  const char *model;      /* model id */
  const char *request;    /* JSON text, opaque */
  const char *reply;      /* JSON text, opaque */
  const char *created_at; /* ISO 8601 UTC; NULL when saving: now */
};

/* Keeps an output; out_id is the name to load it by, which cannot be guessed. */
int store_share_save(struct store *store, const struct store_share *share, char out_id[STORE_SHARE_ID],
                     struct error *error) MUST_CHECK;

/* 1 and *out when it exists, 0 when not, -1 on error. */
int store_share_load(struct store *store, const char *id, struct arena *arena, struct store_share *out,
                     struct error *error) MUST_CHECK;

/* 1 when it was deleted, 0 when there was none, -1 on error. */
int store_share_delete(struct store *store, const char *id, struct error *error) MUST_CHECK;

#endif
