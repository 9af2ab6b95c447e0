/* tokenizer_vocabulary.h: fills a tokenizer from the parts that tokenizer.json and vocab.json + merges.txt
 * have in common: the map from pieces to ids, the merges, the added tokens. Vocabulary and merges are read where
 * they stand in the file, without a tree: it would take eight times the file and most of a second. */
#ifndef STEERD_CORE_MODEL_TOKENIZER_VOCABULARY_H
#define STEERD_CORE_MODEL_TOKENIZER_VOCABULARY_H

#include "core/base/json.h"
#include "core/base/json_reader.h"
#include "core/model/tokenizer_bpe.h"

/* Where a {piece: id} object stands in a file, and what was found when it was stepped over. */
struct vocabulary {
  const char *text; /* NULL: there is none */
  size_t length;
  size_t count;     /* pieces */
  int64_t most;     /* the largest id, -1 when there is none */
};

/* Steps over the object that comes next. ERROR_FORMAT: an id that is no integer, or is negative or too large
 * for the number of pieces (checked against the added ones by vocabulary_open). */
int vocabulary_scan(struct json_reader *reader, struct vocabulary *vocabulary, struct error *error) MUST_CHECK;

/* A tokenizer with room for the ids of the vocabulary, of `added` (an array of {id, content} or NULL) and of `listed` (or NULL), and
 * its empty bpe for `merge_count` merges, which it owns. ERROR_FORMAT: an id that is no integer, is negative, or
 * is so large that most ids below it would be unused. */
struct tokenizer *vocabulary_open(const struct vocabulary *vocabulary, const struct json_node *added,
                                  const struct added_list *listed, size_t merge_count, struct error *error) MUST_CHECK;

/* Adds the tokens of a list, which is settled here. ERROR_FORMAT as vocabulary_add. */
int vocabulary_add_list(struct tokenizer *t, struct added_list *list, const struct decoder *decoder, struct error *error) MUST_CHECK;

/* The bpe of a tokenizer from vocabulary_open. */
struct bpe *vocabulary_bpe(const struct tokenizer *t);

/* Reads the pieces. ERROR_FORMAT: an id that stands twice, a piece that is too long. */
int vocabulary_read(struct tokenizer *t, const struct vocabulary *vocabulary, const struct decoder *decoder,
                    struct error *error) MUST_CHECK;

/* The text that merging sees of a piece of at most BPE_PIECE_BYTES: bytes, or what the file writes. *text stays when it
 * is no byte-level text; false then. `room` has BPE_PIECE_BYTES. */
bool vocabulary_merging_text(bool byte_level, const char **text, size_t *length, char *room) MUST_CHECK;

/* The next merge, of two pieces as the file writes them. */
int vocabulary_merge(struct tokenizer *t, const char *left, size_t left_length, const char *right,
                     size_t right_length, bool byte_level, uint32_t rank, struct error *error) MUST_CHECK;

/* The same from one text "LEFT RIGHT" with exactly one space. */
int vocabulary_merge_text(struct tokenizer *t, const char *text, size_t length, bool byte_level, uint32_t rank,
                          struct error *error) MUST_CHECK;

/* The id of a piece as the file writes it, or -1. Pieces of a byte-level vocabulary that are not of its alphabet
 * are not found. */
int32_t vocabulary_find(const struct tokenizer *t, const char *text, size_t length, bool byte_level);

/* Adds a token whose text is cut out of texts as it is. ERROR_FORMAT when its id is taken by another piece or
 * the vocabulary gives its text another id. */
int vocabulary_add(struct tokenizer *t, const char *text, size_t length, struct added_token token,
                   bool normalized, const struct decoder *decoder, struct error *error) MUST_CHECK;

#endif
