/* added_tokens.h: tokens that are cut out of a text before anything else looks at it ("<|endoftext|>", runs
 * of spaces, "<think>"). Leftmost match first, the longest one there; lstrip and rstrip tokens swallow the
 * white space beside them, single_word tokens count only between characters that are no part of a word. As in
 * the reference, a match that does not count is passed over as a whole: no shorter token is sought in it.
 * Immutable after added_tokens_finish. */
#ifndef STEERD_CORE_MODEL_ADDED_TOKENS_H
#define STEERD_CORE_MODEL_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/model/normalizer.h"
#include "core/model/pattern.h"

/* Bytes of the longest text a token may have: bounds the work at each position of a text. */
#define ADDED_TOKEN_BYTES 1024

struct added_token {
  int32_t id;
  char *content; /* as the file writes it; NUL behind it; owned by the set */
  size_t content_length;
  char *text; /* what is sought: the content, normalized where the texts are; owned by the set */
  size_t length;
  bool special;        /* matched only where the caller asks for special tokens */
  bool lstrip, rstrip; /* swallow the white space in front, behind */
  bool single_word;
  bool exact; /* sought as written, also where the texts are normalized */
};

struct added_tokens {
  struct added_token *tokens; /* [count], sorted by text once finished */
  size_t count, capacity;
  bool starts[256];     /* whether any text begins with this byte */
  struct pattern *word; /* a character of a word; NULL: no token asks */
};

/* A search of one text: set text, length and special, the rest to 0. */
struct added_search {
  const char *text;
  size_t length;
  bool special;       /* special tokens count */
  size_t next;        /* where the search goes on */
  size_t end;         /* where the last match ended, swallowed white space included */
  const struct added_token *token; /* the match, and its bytes, swallowed white space included */
  size_t match_begin, match_end;
  size_t found;         /* where the token itself stands */
};

/* Adds a token; its texts are those given here, copied. */
int added_tokens_add(struct added_tokens *set, struct added_token token, const char *content, size_t length,
                     struct error *error) MUST_CHECK;

/* The token of an id, or NULL. Linear: for loading. */
struct added_token *added_tokens_of(const struct added_tokens *set, int32_t id);

/* Bytes of the longest token that text[0..length) begins with; 0: none does. Of a finished set. */
size_t added_tokens_longest(const struct added_tokens *set, const char *text, size_t length);

/* Sorts. With a normalizer, what is sought are the normalized contents, but of exact ones. ERROR_FORMAT: an empty or too long
 * text, or one that stands twice. */
int added_tokens_finish(struct added_tokens *set, const struct normalizer *normalizer,
                        struct error *error) MUST_CHECK;
void added_tokens_clear(struct added_tokens *set);

/* The next match; false when there is none left. A match may begin in front of the end of the one before, in
 * white space that one swallowed. */
bool added_tokens_next(const struct added_tokens *set, struct added_search *search);

#endif
