/* stops.h: stop strings in a text that grows: where it ends, and how much of it is certain to stay.
 *
 * The text ends where the first of the strings is complete, counted in bytes, as if it came byte by byte: how it was cut
 * into pieces changes nothing. Of several that are complete at the same byte, the longest cuts. What may yet become a
 * stop string is not certain: a reader who is shown `certain` bytes only never sees a byte that is cut later. */
#ifndef STEERD_CORE_BASE_STOPS_H
#define STEERD_CORE_BASE_STOPS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/arena.h"
#include "core/base/error.h"

enum { STOPS_MOST = 4 };

/* The strings; immutable once made. */
struct stops {
  size_t n;
  struct stop {
    const char *text; /* length >= 1 */
    size_t length;
    size_t *border;   /* [length + 1] of each beginning: length of its longest proper end that is a beginning too */
  } of[STOPS_MOST];
};

/* Copies the strings into the arena. n <= STOPS_MOST, no length is 0. */
int stops_make(struct stops *stops, const char *const *texts, const size_t *lengths, size_t n, struct arena *arena,
               struct error *error) MUST_CHECK;

/* How far one text was read. Starts as {0}. */
struct stops_at {
  size_t read;                /* bytes */
  size_t matched[STOPS_MOST]; /* bytes of each string that the text ends with */
  size_t certain;             /* bytes that stay; once found: all that stays */
  bool found;
};

/* Reads on: text[0..length) begins with what was read before. */
void stops_read(const struct stops *stops, struct stops_at *at, const char *text, size_t length);

#endif
