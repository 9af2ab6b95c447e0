/* tokenizer_private.h: what the tokenizer's own files share. Others include tokenizer.h. */
#ifndef STEERD_CORE_MODEL_TOKENIZER_PRIVATE_H
#define STEERD_CORE_MODEL_TOKENIZER_PRIVATE_H

#include "core/model/added_list.h"
#include "core/model/chat.h"
#include "core/model/decoder.h"
#include "core/model/normalizer.h"
#include "core/model/pieces.h"
#include "core/model/tokenizer.h"

/* A stretch of a text that holds no added token. */
struct text_part {
  const char *text; /* valid UTF-8, not empty */
  size_t length;
  size_t offset; /* bytes of the whole text in front of it */
  bool changed;  /* by a normalizer: offsets inside say nothing about the whole text */
  const struct tokenizer_range *plain; /* [n_plain] of the whole text: no special token may touch them */
  size_t n_plain;
};

/* What differs between the kinds: how ordinary text, free of added tokens, becomes ids. */
struct tokenizer_kind {
  int (*encode)(const void *state, const struct text_part *part, struct id_list *ids, struct error *error);
  void (*free)(void *state); /* NULL state is fine */
  const char *(*title)(const void *state); /* in a few words, for people */
};

struct tokenizer {
  const struct tokenizer_kind *kind;
  void *state; /* of the kind, owned */
  struct pieces pieces;
  struct added_tokens added[2];        /* [0] is cut out first, [1] ("normalized") out of what remains */
  struct normalizer *normalizer;       /* between the two sets; NULL: none */
  struct decoder decoder;              /* how pieces became what they show */
  int32_t bos, eos;                    /* -1: none */
  int32_t pad, sep;                    /* -1: none; they take no part in encoding */
  const struct added_token *bos_token; /* of bos, set by tokenizer_finish; NULL: none */
  bool prepends_bos;
  struct chat_template chat;
};

/* A tokenizer of `count` unused ids without a kind; the reader fills it and then calls tokenizer_finish. */
struct tokenizer *tokenizer_new(int32_t count, struct error *error) MUST_CHECK;
int tokenizer_finish(struct tokenizer *t, struct error *error) MUST_CHECK;

/* Makes an id, whose piece is set, a special token; where this text is not cut out of texts yet, it is now. */
int tokenizer_mark_special(struct tokenizer *t, int32_t id, const char *content, size_t length,
                           struct error *error) MUST_CHECK;

/* What a text's beginning loses when it is decoded. */
struct decoder_start tokenizer_start(const struct tokenizer *t);

/* The readers on text in memory, without the settings that other files of a folder add, but for the tokens in `added` (which the reader
 * settles); not finished. */
struct tokenizer *tokenizer_parse_json(const char *text, size_t length, struct error *error) MUST_CHECK;
struct tokenizer *tokenizer_parse_vocabulary(const char *vocab, size_t vocab_length, const char *merges,
                                             size_t merges_length, bool prefix_space, struct added_list *added,
                                             struct error *error) MUST_CHECK;
struct tokenizer *tokenizer_parse_llama2c(const char *data, size_t size, struct error *error) MUST_CHECK;

/* What the settings beside a SentencePiece model say. */
struct sentencepiece_settings {
  struct added_list *added; /* as read; the reader settles it */
  int prefix;               /* whether a text gets a space in front; -1: the file says */
  bool prefix_first;        /* not again behind an added token */
};

/* BOS and EOS are those that the file names, unless settings know better. */
struct tokenizer *tokenizer_parse_sentencepiece(const char *data, size_t size, const struct sentencepiece_settings *settings,
                                                struct error *error) MUST_CHECK;

#endif
