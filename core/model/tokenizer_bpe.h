/* tokenizer_bpe.h: byte-level byte-pair encoding. A text is cut into stretches (pretokenizer.h); each stretch
 * starts as single bytes, and the adjacent pair with the lowest rank is merged, leftmost first, until no pair
 * has one.
 *
 * Order of building: bpe_new, bpe_index for every piece, bpe_merge for every merge by rising rank,
 * bpe_set_options. Immutable then. */
#ifndef STEERD_CORE_MODEL_TOKENIZER_BPE_H
#define STEERD_CORE_MODEL_TOKENIZER_BPE_H

#include "core/model/pretokenizer.h"
#include "core/model/tokenizer_private.h"

/* Most bytes a piece may have, so that two of them and the alphabet's widening stay small. */
#define BPE_PIECE_BYTES 4096

struct bpe;

struct bpe_options {
  struct pretokenizer *split; /* owned by the bpe afterwards; NULL: a text is one stretch */
  bool prefix_space;          /* put a space in front of a text that does not begin with one */
  bool ignore_merges;         /* a stretch that is a piece becomes it whole, whatever the merges */
};

/* Room for `piece_count` pieces and `merge_count` merges. `pieces` is borrowed and must outlive the bpe. */
struct bpe *bpe_new(const struct pieces *pieces, size_t piece_count, size_t merge_count,
                    struct error *error) MUST_CHECK;

/* Makes a piece that is set findable by its bytes. ERROR_FORMAT when another piece has the same bytes. */
int bpe_index(struct bpe *bpe, int32_t id, struct error *error) MUST_CHECK;

/* The next merge in rank order, of the pieces with these bytes. ERROR_FORMAT when either of them or their
 * join is no piece. A pair that comes again takes the later rank, as in the reference. */
int bpe_merge(struct bpe *bpe, const char *left, size_t left_length, const char *right, size_t right_length,
              struct error *error) MUST_CHECK;

/* The last step of building. */
void bpe_set_options(struct bpe *bpe, struct bpe_options options);

/* True when ordinary text can become this id: a single byte or the result of a merge. */
bool bpe_makes(const struct bpe *bpe, int32_t id);

/* A byte that no piece stands for, or -1 when all 256 have one. */
int bpe_missing_byte(const struct bpe *bpe);

/* The bytes of a piece as files write it, one printable character a byte, into out[length]. -1 when a
 * character is not of that alphabet (a control token may be such a piece). */
int bpe_piece_bytes(const char *text, size_t length, char *out, size_t *out_length);

/* The state of this kind is a struct bpe. */
extern const struct tokenizer_kind bpe_kind;

#endif
