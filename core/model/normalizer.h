/* normalizer.h: changes a text before it becomes tokens: what the "normalizer" of tokenizer.json says.
 * Immutable and safe to share between threads. */
#ifndef STEERD_CORE_MODEL_NORMALIZER_H
#define STEERD_CORE_MODEL_NORMALIZER_H

#include <stddef.h>

#include "core/base/buffer.h"
#include "core/base/json.h"

struct normalizer;

/* *out is NULL when the part is absent or null: texts stay as they are. ERROR_UNSUPPORTED names a part that is
 * not served. */
int normalizer_parse(const struct json_node *part, struct normalizer **out, struct error *error) MUST_CHECK;
void normalizer_free(struct normalizer *normalizer); /* NULL is fine */

/* The normalized text into *out, which must be empty. text must be valid UTF-8; so is the result. */
int normalizer_run(const struct normalizer *normalizer, const char *text, size_t length, struct buffer *out,
                   struct error *error) MUST_CHECK;

#endif
