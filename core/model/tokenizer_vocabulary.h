/* tokenizer_vocabulary.h: fills a tokenizer from the parts that tokenizer.json and vocab.json + merges.txt
 * have in common: the map from pieces to ids, the merges, the added tokens. */
#ifndef STEERD_CORE_MODEL_TOKENIZER_VOCABULARY_H
#define STEERD_CORE_MODEL_TOKENIZER_VOCABULARY_H

#include "core/base/json.h"
#include "core/model/tokenizer_bpe.h"

/* A tokenizer with room for the ids of `vocab` ({piece: id}) and of `added` (an array of {id, content} or
 * NULL), and its empty bpe for `merge_count` merges, which it owns. ERROR_FORMAT: an id that is no integer,
 * is negative, or is so large that most ids below it would be unused. */
struct tokenizer *vocabulary_open(const struct json_node *vocab, const struct json_node *added,
                                  size_t merge_count, struct error *error) MUST_CHECK;

/* The bpe of a tokenizer from vocabulary_open. */
struct bpe *vocabulary_bpe(const struct tokenizer *t);

/* Reads the pieces. ERROR_FORMAT: an id that stands twice, a piece that is too long. */
int vocabulary_read(struct tokenizer *t, const struct json_node *vocab, struct error *error) MUST_CHECK;

/* The next merge, of two pieces as the file writes them. */
int vocabulary_merge(struct bpe *bpe, const char *left, size_t left_length, const char *right,
                     size_t right_length, struct error *error) MUST_CHECK;

/* The same from one text "LEFT RIGHT" with exactly one space. */
int vocabulary_merge_text(struct bpe *bpe, const char *text, size_t length, struct error *error) MUST_CHECK;

/* Adds a token whose text is cut out of texts as it is. ERROR_FORMAT when its id is taken by another piece or
 * the vocabulary gives its text another id. */
int vocabulary_add(struct tokenizer *t, const struct json_node *vocab, const char *text, size_t length,
                   struct added_token token, bool normalized, struct error *error) MUST_CHECK;

#endif
