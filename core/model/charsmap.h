/* charsmap.h: SentencePiece's "precompiled charsmap": which characters, or short texts, become which others in front of
 * the cutting (nmt_nfkc and its kin), as its own files carry it: the length of a trie in bytes, the trie (a double array of
 * 32-bit units), and the texts that its values point into, each with a NUL behind it. Immutable. */
#ifndef STEERD_CORE_MODEL_CHARSMAP_H
#define STEERD_CORE_MODEL_CHARSMAP_H

#include <stddef.h>

#include "core/base/error.h"

struct charsmap;

/* Copies. ERROR_FORMAT: lengths that do not fit, texts that are no UTF-8. */
struct charsmap *charsmap_open(const char *data, size_t length, struct error *error) MUST_CHECK;
void charsmap_free(struct charsmap *map); /* NULL is fine */

/* How many bytes of text[0..length), valid UTF-8, are replaced at its front: the longest match, whole characters; 0: none.
 * *out[0..*out_length) takes their place, valid UTF-8, borrowed, perhaps empty. */
size_t charsmap_find(const struct charsmap *map, const char *text, size_t length, const char **out, size_t *out_length);

#endif
