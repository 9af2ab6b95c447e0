/* added_tokens.h: tokens that are cut out of a text before anything else looks at it ("<|endoftext|>", runs
 * of spaces, "<think>"). Leftmost match first, the longest one there; lstrip and rstrip tokens swallow the
 * white space beside them. Immutable after added_tokens_finish. */
#ifndef STEERD_CORE_MODEL_ADDED_TOKENS_H
#define STEERD_CORE_MODEL_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/model/pieces.h"

/* Bytes of the longest text a token may have: bounds the work at each position of a text. */
#define ADDED_TOKEN_BYTES 1024

struct added_token {
  int32_t id;
  const char *text; /* borrowed from the pieces, set by added_tokens_finish */
  size_t length;
  bool special;        /* matched only where the caller asks for special tokens */
  bool lstrip, rstrip; /* swallow the white space in front, behind */
};

struct added_tokens {
  struct added_token *tokens; /* [count], sorted by text once finished */
  size_t count, capacity;
  bool starts[256]; /* whether any text begins with this byte */
};

struct added_match {
  const struct added_token *token;
  size_t begin, end; /* bytes of the text, swallowed white space included */
};

int added_tokens_add(struct added_tokens *set, struct added_token token, struct error *error) MUST_CHECK;

/* The token of an id, or NULL. Linear: for loading. */
struct added_token *added_tokens_of(const struct added_tokens *set, int32_t id);

/* Sorts and takes the texts from `pieces`, which must not change any more. ERROR_FORMAT: an empty or too
 * long text, or one that stands twice. */
int added_tokens_finish(struct added_tokens *set, const struct pieces *pieces,
                        struct error *error) MUST_CHECK;
void added_tokens_clear(struct added_tokens *set);

/* The first match in text[from..to); false when there is none. Without `special`, special tokens are
 * ordinary text. */
bool added_tokens_find(const struct added_tokens *set, const char *text, size_t from, size_t to, bool special,
                       struct added_match *match);

/* How many bytes of Unicode white space text[0..length) begins with. */
size_t space_prefix(const char *text, size_t length);

#endif
