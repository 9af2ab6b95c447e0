/* decoder.h: from a token as files write it to the bytes it stands for: what the "decoder" of tokenizer.json
 * says. Immutable. */
#ifndef STEERD_CORE_MODEL_DECODER_H
#define STEERD_CORE_MODEL_DECODER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/buffer.h"
#include "core/base/json.h"

/* Characters a decoder replaces: published files have one. */
#define DECODER_REPLACES 4

struct decoder_replace {
  char from[16], to[16];
  size_t from_length, to_length;
};

/* How a whole text begins, where encoding put something in front of it. Said to detokenizer_begin. */
struct decoder_start {
  int strip;       /* how many leading spaces go */
  bool drop_first; /* all spaces of the first token go (Metaspace) */
};

struct decoder {
  bool byte_level;
  bool byte_fallback; /* <0x41> is the byte 0x41 */
  struct decoder_replace replaces[DECODER_REPLACES];
  int n_replaces;
  struct decoder_start start;
};

/* An absent one: byte-level pieces are bytes, others are what they are. ERROR_UNSUPPORTED names a part that is
 * not served. */
int decoder_parse(const struct json_node *part, bool byte_level, struct decoder *decoder,
                  struct error *error) MUST_CHECK;

/* Appends the bytes of one token. */
void decoder_piece(const struct decoder *decoder, const char *text, size_t length, struct buffer *out);

/* The bytes of a byte-level piece, one printable character a byte, into out[length]. -1 when a character is not
 * of that alphabet (a control token may be such a piece). */
int decoder_bytes(const char *text, size_t length, char *out, size_t *out_length);

/* The byte of "<0x41>", or -1. */
int decoder_fallback_byte(const char *text, size_t length);

#endif
