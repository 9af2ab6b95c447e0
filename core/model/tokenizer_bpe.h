/* tokenizer_bpe.h: byte-pair encoding. A text is cut into stretches (pretokenizer.h); each stretch starts as
 * single bytes (byte-level vocabularies) or single characters (those that come from SentencePiece), and the
 * adjacent pair with the lowest rank is merged, leftmost first, until no pair has one.
 *
 * Order of building: bpe_new, bpe_table_add and bpe_table_merge on bpe_table_of(), bpe_set_options. Immutable
 * then. */
#ifndef STEERD_CORE_MODEL_TOKENIZER_BPE_H
#define STEERD_CORE_MODEL_TOKENIZER_BPE_H

#include "core/model/bpe_table.h"
#include "core/model/pretokenizer.h"
#include "core/model/tokenizer_private.h"

struct bpe;

struct bpe_options {
  struct pretokenizer *split; /* owned by the bpe afterwards; NULL: a text is one stretch of characters */
  bool byte_level;            /* pieces are bytes, not characters */
  bool byte_fallback;         /* a character without a piece becomes its bytes' <0xHH> where all have one */
  bool fuse_unknown;          /* neighbouring characters without a piece become one `unknown` */
  int32_t unknown;            /* -1: a character without a piece is an error */
  bool ignore_merges;         /* a stretch that is a piece becomes it whole, whatever the merges */
};

/* `shown` says which ids are special; borrowed, must outlive the bpe. The rest as bpe_table_init. */
struct bpe *bpe_new(const struct pieces *shown, size_t piece_count, size_t merge_count,
                    struct error *error) MUST_CHECK;

struct bpe_table *bpe_table_of(struct bpe *bpe);

/* The last step of building. */
void bpe_set_options(struct bpe *bpe, struct bpe_options options);

/* True when ordinary text can become this id: a single byte or character, or the result of a merge. */
bool bpe_makes(const struct bpe *bpe, int32_t id);

/* Whether every text has ids of its own: no character needs `unknown`. */
bool bpe_is_complete(const struct bpe *bpe);

/* The state of this kind is a struct bpe. */
extern const struct tokenizer_kind bpe_kind;

#endif
