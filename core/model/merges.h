/* merges.h: the array of merges of a tokenizer.json. Private to the tokenizer. */
#ifndef STEERD_CORE_MODEL_MERGES_H
#define STEERD_CORE_MODEL_MERGES_H

#include "core/model/tokenizer_vocabulary.h"

/* Reads ["A B", ...] or [["A", "B"], ...], whose ranks are their places, into a tokenizer that has its pieces. text[begin..end) is
 * the array and nothing behind it. ERROR_FORMAT: invalid JSON, a merge of another form, or one whose pieces or result the vocabulary
 * lacks; ERROR_LIMIT: a piece that is too long. */
int merges_read(struct tokenizer *t, const char *text, size_t begin, size_t end, bool byte_level,
                struct error *error) MUST_CHECK;

#endif
