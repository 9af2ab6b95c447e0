/* tokenizer_private.h: what the tokenizer's own files share. Others include tokenizer.h. */
#ifndef STEERD_CORE_MODEL_TOKENIZER_PRIVATE_H
#define STEERD_CORE_MODEL_TOKENIZER_PRIVATE_H

#include "core/model/added_tokens.h"
#include "core/model/pieces.h"
#include "core/model/tokenizer.h"

/* What differs between the kinds: how ordinary text, free of added tokens, becomes ids. */
struct tokenizer_kind {
  /* Appends the ids of text[from..to). Offsets in errors count from text. */
  int (*encode)(const void *state, const char *text, size_t from, size_t to, struct id_list *ids,
                struct error *error);
  void (*free)(void *state); /* NULL state is fine */
};

struct tokenizer {
  const struct tokenizer_kind *kind;
  void *state; /* of the kind, owned */
  struct pieces pieces;
  struct added_tokens added[2];        /* [0] is cut out first, [1] ("normalized") out of what remains */
  int32_t bos, eos;                    /* -1: none */
  const struct added_token *bos_token; /* of bos, set by tokenizer_finish; NULL: none */
  bool prepends_bos;
};

/* A tokenizer of `count` unused ids without a kind; the reader fills it and then calls tokenizer_finish. */
struct tokenizer *tokenizer_new(int32_t count, struct error *error) MUST_CHECK;
int tokenizer_finish(struct tokenizer *t, struct error *error) MUST_CHECK;

/* Makes an id, whose piece is set, a special token that is cut out of texts. */
int tokenizer_mark_special(struct tokenizer *t, int32_t id, struct error *error) MUST_CHECK;

/* The readers on text in memory, without the settings that other files of a folder add; not finished. */
struct tokenizer *tokenizer_parse_json(const char *text, size_t length, struct error *error) MUST_CHECK;
struct tokenizer *tokenizer_parse_vocabulary(const char *vocab, size_t vocab_length, const char *merges,
                                             size_t merges_length, bool prefix_space,
                                             struct error *error) MUST_CHECK;

#endif
