/* sentencepiece.h: a SentencePiece model file ("tokenizer.model") as it stands: its pieces and what it says of its training
 * and its normalizer. Nothing is interpreted here but the message itself. */
#ifndef STEERD_CORE_MODEL_SENTENCEPIECE_H
#define STEERD_CORE_MODEL_SENTENCEPIECE_H

#include "core/model/scored_merges.h"

/* The numbers are the format's. */
enum sentencepiece_kind {
  SENTENCEPIECE_NORMAL = 1,
  SENTENCEPIECE_UNKNOWN,
  SENTENCEPIECE_CONTROL,
  SENTENCEPIECE_USER_DEFINED, /* found in texts before anything is cut */
  SENTENCEPIECE_UNUSED,
  SENTENCEPIECE_BYTE
};

enum sentencepiece_model { SENTENCEPIECE_UNIGRAM = 1, SENTENCEPIECE_BPE, SENTENCEPIECE_WORDS, SENTENCEPIECE_CHARACTERS };

struct sentencepiece {
  struct scored_piece *pieces; /* [count], by id; owned; texts borrowed from the file: valid UTF-8, not empty */
  unsigned char *kinds;        /* [count] enum sentencepiece_kind; owned */
  int32_t count;               /* at least 1 */
  int32_t unknown;             /* the id of the one piece of that kind */
  enum sentencepiece_model model;
  bool byte_fallback;
  bool suffix; /* the space that is put to a text goes behind it */
  struct sentencepiece_text {
    const char *text; /* borrowed from the file */
    size_t length;
  } bos, eos, charsmap, charsmap_back; /* names of pieces; the maps of normalizer and denormalizer, perhaps empty */
  bool prefix, squeeze, escape;        /* as struct normalizer_rules */
};

/* ERROR_FORMAT: no such message, a piece that is empty, no UTF-8, of no kind or without a finite score, not exactly one unknown. */
int sentencepiece_read(const char *data, size_t size, struct sentencepiece *out, struct error *error) MUST_CHECK;
void sentencepiece_clear(struct sentencepiece *model);

/* The id of the control piece of this name, or -1. */
int32_t sentencepiece_control(const struct sentencepiece *model, struct sentencepiece_text name);

#endif
