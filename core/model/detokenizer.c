/* detokenizer.c: owns the few bytes of an unfinished character; does not know who reads the text. */
#include "core/model/detokenizer.h"

#include <string.h>

#include "core/base/utf8.h"
#include "core/model/tokenizer_private.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

void detokenizer_init(struct detokenizer *d, const struct tokenizer *tokenizer) {
  memset(d, 0, sizeof *d);
  buffer_init(&d->text, 0);
  d->tokenizer = tokenizer;
}

/* How many of waiting's bytes, whose whole is no character, are the beginning of one: at least 1. */
static int beginning_length(const struct detokenizer *d) {
  uint32_t point;
  int n = 1;
  while (n + 1 < d->waiting_count && utf8_next(d->waiting, (size_t)n + 1, &point) < 0)
    n++;
  return n;
}

static void drop(struct detokenizer *d, int count) {
  d->waiting_count -= count;
  memmove(d->waiting, d->waiting + count, (size_t)d->waiting_count);
}

static void push_byte(struct detokenizer *d, char byte) {
  d->waiting[d->waiting_count++] = byte;
  while (d->waiting_count > 0) {
    uint32_t point;
    int n = utf8_next(d->waiting, (size_t)d->waiting_count, &point);
    if (n < 0)
      return;
    if (n > 0) {
      buffer_append(&d->text, d->waiting, (size_t)n);
      drop(d, n);
    } else {
      buffer_text(&d->text, replacement);
      drop(d, beginning_length(d));
    }
  }
}

void detokenizer_begin(struct detokenizer *d) { d->start = tokenizer_start(d->tokenizer); }

/* Whether a byte of the beginning is a space that goes. */
static bool goes(struct detokenizer *d, char byte) {
  if (byte != ' ') d->start.strip = 0;
  if (d->start.strip > 0) return d->start.strip--, true;
  return d->start.drop_first && byte == ' ';
}

int detokenizer_push(struct detokenizer *d, int32_t id) {
  size_t length;
  const char *bytes = tokenizer_bytes(d->tokenizer, id, &length);
  for (size_t i = 0; i < length; i++)
    if (!goes(d, bytes[i])) push_byte(d, bytes[i]);
  d->start.drop_first = false;
  return d->text.failed ? -1 : 0;
}

void detokenizer_finish(struct detokenizer *d) {
  if (d->waiting_count > 0)
    buffer_text(&d->text, replacement);
  d->waiting_count = 0;
}

void detokenizer_clear(struct detokenizer *d) {
  buffer_clear(&d->text);
  d->waiting_count = 0;
  d->start = (struct decoder_start){0};
}
