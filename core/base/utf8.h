/* utf8.h: UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef STEERD_CORE_BASE_UTF8_H
#define STEERD_CORE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length 1..4 of the character at text[0..length), its code point in *point; 0 when the bytes there are
 * invalid; -1 when they are a valid beginning that the end cuts off. length must be > 0. */
int utf8_next(const char *text, size_t length, uint32_t *point);

/* Writes 1..4 bytes; returns how many. point must be a scalar value. */
int utf8_put(uint32_t point, char out[4]);

/* True when all bytes are valid; else *bad (may be NULL) is the offset of the first invalid byte. */
bool utf8_valid(const char *text, size_t length, size_t *bad);

/* How many bytes at the front are whole characters or invalid bytes: what remains behind them is a
 * character that may still be completed (at most 3 bytes). */
size_t utf8_complete(const char *text, size_t length);

#endif
