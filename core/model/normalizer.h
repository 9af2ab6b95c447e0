/* normalizer.h: changes a text before it becomes tokens: what the "normalizer" of tokenizer.json says, or the rules of a
 * SentencePiece model. Immutable and safe to share between threads. */
#ifndef STEERD_CORE_MODEL_NORMALIZER_H
#define STEERD_CORE_MODEL_NORMALIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/buffer.h"
#include "core/base/json.h"

struct normalizer;
struct added_tokens;

/* How SentencePiece changes a text: characters by the map, runs of spaces to one and none at the ends, a space in front, spaces
 * to U+2581. */
struct normalizer_rules {
  const char *charsmap; /* charsmap.h; copied */
  size_t charsmap_length; /* 0: characters stay */
  bool squeeze;         /* a run of spaces becomes one, and none is left at the ends */
  bool prefix;          /* a space is put in front */
  bool prefix_first;    /* only where nothing stands in front of the text; else in front of each stretch between added tokens */
  bool escape;          /* spaces become U+2581 */
  const struct added_tokens *whole; /* texts that the map leaves as they are; borrowed, finished when a text comes */
};

struct normalizer *normalizer_of_rules(const struct normalizer_rules *rules, struct error *error) MUST_CHECK;

/* *out is NULL when the part is absent or null: texts stay as they are. ERROR_UNSUPPORTED names a part that is
 * not served. */
int normalizer_parse(const struct json_node *part, struct normalizer **out, struct error *error) MUST_CHECK;
void normalizer_free(struct normalizer *normalizer); /* NULL is fine */

/* The normalized text into *out, which must be empty. text must be valid UTF-8; so is the result. `first`: nothing stands in
 * front of it. */
int normalizer_run(const struct normalizer *normalizer, const char *text, size_t length, bool first, struct buffer *out,
                   struct error *error) MUST_CHECK;

#endif
