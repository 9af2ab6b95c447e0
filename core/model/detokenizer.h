/* detokenizer.h: the bytes of tokens, one after the other, as text that is always whole UTF-8.
 *
 * A token may end inside a character: its bytes wait until the next tokens complete it. Bytes that can no
 * longer become a character are one U+FFFD for each longest valid beginning, as Python and Rust decode
 * with replacement, so that the text equals the one decoded at once. Not thread-safe; the tokenizer may be
 * shared. */
#ifndef STEERD_CORE_MODEL_DETOKENIZER_H
#define STEERD_CORE_MODEL_DETOKENIZER_H

#include "core/base/buffer.h"
#include "core/model/decoder.h"
#include "core/model/tokenizer.h"

struct detokenizer {
  struct buffer text; /* whole characters only; grows by each push, never changes what it has */
  const struct tokenizer *tokenizer;
  char waiting[4]; /* the beginning of a character */
  int waiting_count;
  struct decoder_start start; /* what the beginning still loses */
};

/* The tokenizer is borrowed until detokenizer_clear. */
void detokenizer_init(struct detokenizer *d, const struct tokenizer *tokenizer);

/* The next token is the first of a whole text and not the continuation of one: the space goes that encoding put in
 * front of it, where the tokenizer's decoder takes it away again. */
void detokenizer_begin(struct detokenizer *d);

/* Appends the bytes of a token (a special one's literal text too: leave it out if it should not show; an
 * unknown id adds nothing). -1 when memory is out; d->text then says so to buffer_check. */
int detokenizer_push(struct detokenizer *d, int32_t id) MUST_CHECK;

/* The text ends here: what waits becomes U+FFFD. Memory errors are in d->text. */
void detokenizer_finish(struct detokenizer *d);

/* Frees; the same object can be used again for another text. */
void detokenizer_clear(struct detokenizer *d);

#endif
