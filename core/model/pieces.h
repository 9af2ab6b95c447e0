/* pieces.h: the table from token id to bytes, and a list of ids that grows. Shared by every tokenizer kind.
 */
#ifndef STEERD_CORE_MODEL_PIECES_H
#define STEERD_CORE_MODEL_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "core/base/error.h"

struct piece {
  uint32_t offset, length; /* into pieces.bytes */
  bool used;               /* false: the id has no token */
  bool special;            /* a control token such as <|endoftext|>, never made by ordinary text */
};

struct pieces {
  struct buffer bytes; /* of all pieces, back to back */
  struct piece *at;    /* [count] */
  int32_t count;       /* ids are 0..count-1 */
};

/* A table of `count` unused ids. */
int pieces_init(struct pieces *pieces, int32_t count, struct error *error) MUST_CHECK;
void pieces_clear(struct pieces *pieces);

/* Gives an id its bytes; a second call replaces them. The id must be in 0..count-1. */
int pieces_set(struct pieces *pieces, int32_t id, const char *bytes, size_t length,
               struct error *error) MUST_CHECK;

/* Bytes of an id; "" for an unused one and for ids outside the table. Valid until the next pieces_set. */
const char *pieces_get(const struct pieces *pieces, int32_t id, size_t *length);

/* True when the id has a token. */
bool pieces_has(const struct pieces *pieces, int32_t id);

/* The first id with these bytes, or -1. Linear: for loading. */
int32_t pieces_find(const struct pieces *pieces, const char *bytes, size_t length);

struct id_list {
  int32_t *ids; /* owned */
  size_t count, capacity;
};

int id_list_push(struct id_list *list, int32_t id, struct error *error) MUST_CHECK;

#endif
