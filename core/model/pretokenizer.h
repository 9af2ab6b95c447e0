/* pretokenizer.h: cuts a text into the stretches that BPE merges never cross.
 *
 * A pattern is known by its text as tokenizer files write it; an unknown one is refused, because an almost
 * right pattern gives almost right ids. A further family is one more row of the table in pretokenizer.c.
 * What a letter or a number is comes from PCRE2's Unicode tables (14.0 in Debian 12): characters that are
 * newer than these tables count as neither, where a reference with newer tables may differ. Immutable and
 * safe to share between threads. The only place that knows PCRE2. */
#ifndef STEERD_CORE_MODEL_PRETOKENIZER_H
#define STEERD_CORE_MODEL_PRETOKENIZER_H

#include <stddef.h>

#include "core/base/error.h"

/* The pattern of GPT-2, also what ByteLevel with use_regex stands for. */
#define PRETOKENIZER_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct pretokenizer;

/* ERROR_UNSUPPORTED for a pattern that is not in the table. */
struct pretokenizer *pretokenizer_open(const char *pattern, struct error *error) MUST_CHECK;
void pretokenizer_free(struct pretokenizer *pretokenizer); /* NULL is fine */

/* Calls take() for each stretch of text[0..length) from front to back; together they are the whole text.
 * text must be valid UTF-8. Stops with -1 when take() does. Time and memory are linear in length. */
int pretokenizer_run(const struct pretokenizer *pretokenizer, const char *text, size_t length,
                     int (*take)(void *context, const char *piece, size_t length, struct error *error),
                     void *context, struct error *error) MUST_CHECK;

#endif
