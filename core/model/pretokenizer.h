/* pretokenizer.h: cuts a text into the stretches that merges never cross: what the "pre_tokenizer" of
 * tokenizer.json says. Immutable and safe to share between threads. */
#ifndef STEERD_CORE_MODEL_PRETOKENIZER_H
#define STEERD_CORE_MODEL_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"
#include "core/base/json.h"

/* The pattern of GPT-2, also what ByteLevel with use_regex stands for. */
#define PRETOKENIZER_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct pretokenizer;

/* NULL or JSON's null: a text is one stretch. ERROR_UNSUPPORTED names a part that is not served. */
struct pretokenizer *pretokenizer_parse(const struct json_node *part, struct error *error) MUST_CHECK;

/* GPT-2's own, for folders that have no tokenizer.json. */
struct pretokenizer *pretokenizer_gpt2(bool prefix_space, struct error *error) MUST_CHECK;

void pretokenizer_free(struct pretokenizer *pretokenizer); /* NULL is fine */

/* Whether merges see single bytes (ByteLevel) and not characters. */
bool pretokenizer_is_byte_level(const struct pretokenizer *pretokenizer);

typedef int pretokenizer_take(void *context, const char *piece, size_t length, struct error *error);

/* Calls take() for each stretch of text[0..length), which must be valid UTF-8, from front to back. `first`:
 * nothing stands in front of this text. Stops with -1 when take() does. */
int pretokenizer_run(const struct pretokenizer *pretokenizer, const char *text, size_t length, bool first,
                     pretokenizer_take *take, void *context, struct error *error) MUST_CHECK;

#endif
