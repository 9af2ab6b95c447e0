/* pattern.h: finds the stretches of a text that a pattern of a tokenizer file matches. The only place that
 * knows PCRE2.
 *
 * Files write their patterns for Oniguruma, in which they mean what they mean: the parts that both engines share are
 * translated (white space and word characters become explicit classes), everything else is refused by name,
 * because an almost right pattern gives almost right ids. What a letter or a number is comes from PCRE2's
 * Unicode tables (14.0 in Debian 12): characters that are newer count as neither. Immutable and safe to share
 * between threads. */
#ifndef STEERD_CORE_MODEL_PATTERN_H
#define STEERD_CORE_MODEL_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

struct pattern;

/* ERROR_UNSUPPORTED, naming the part: a construct that is not translated, a pattern that matches the empty
 * text. */
struct pattern *pattern_open(const char *regex, struct error *error) MUST_CHECK;

/* The text itself, which must not be empty. */
struct pattern *pattern_open_literal(const char *text, size_t length, struct error *error) MUST_CHECK;

/* For texts that are bytes and not characters: `regex` is PCRE2's own, of the program, not of a file. */
struct pattern *pattern_open_bytes(const char *regex, struct error *error) MUST_CHECK;

/* Whether a match begins at the front of text[0..length), which is not empty. */
bool pattern_begins(const struct pattern *pattern, const char *text, size_t length);

void pattern_free(struct pattern *pattern); /* NULL is fine */

/* Takes the bytes text[begin..end) of the text that is searched; never empty. */
typedef int pattern_take(void *context, size_t begin, size_t end, bool match, struct error *error);

/* Calls take() for each match and each gap between matches from front to back: together the whole text, which
 * must be valid UTF-8. Stops with -1 when take() does. ERROR_LIMIT when a match needs more steps than a
 * sensible pattern takes for a text of this length. */
int pattern_each(const struct pattern *pattern, const char *text, size_t length, pattern_take *take, void *context,
                 struct error *error) MUST_CHECK;

#endif
