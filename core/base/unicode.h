/* unicode.h: normalization forms, lower case and white space, as Unicode 14.0 defines them. Characters that
 * are newer count as without any of these properties. Works on valid UTF-8. */
#ifndef STEERD_CORE_BASE_UNICODE_H
#define STEERD_CORE_BASE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* Appends text[0..length) in the form. Time is linear in length, however many marks follow one letter; memory
 * is that of the longest such run. Out of memory: out->failed. */
void unicode_normalize(const char *text, size_t length, enum unicode_form form, struct buffer *out);

/* Appends the text in lower case, character by character: no final sigma, no language. */
void unicode_lower(const char *text, size_t length, struct buffer *out);

/* White_Space. */
bool unicode_is_space(uint32_t point);

/* How many bytes of white space text[0..length) begins with, and ends with. */
size_t unicode_space_prefix(const char *text, size_t length);
size_t unicode_space_suffix(const char *text, size_t length);

#endif
