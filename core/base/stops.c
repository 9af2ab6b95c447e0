/* stops.c: several strings looked for at once in a text that grows (Knuth, Morris and Pratt 1977): constant work for a byte,
 * whatever the strings are. Knows no tokens. */
#include "core/base/stops.h"

#include <assert.h>
#include <string.h>

/* The longest beginning of the string that the text ends with after one byte more; it was not whole before. */
static size_t advance(const struct stop *stop, size_t matched, char byte) {
  while (matched > 0 && stop->text[matched] != byte) matched = stop->border[matched];
  return stop->text[matched] == byte ? matched + 1 : 0;
}

static int stop_make(struct stop *stop, const char *text, size_t length, struct arena *arena, struct error *error) {
  assert(length > 0);
  stop->text = arena_text(arena, text, length, error);
  stop->border = arena_array(arena, length + 1, sizeof *stop->border, error);
  stop->length = length;
  if (!stop->text || !stop->border) return -1;
  for (size_t i = 1; i < length; i++) stop->border[i + 1] = advance(stop, stop->border[i], text[i]);
  return 0;
}

int stops_make(struct stops *stops, const char *const *texts, const size_t *lengths, size_t n, struct arena *arena,
               struct error *error) {
  assert(n <= STOPS_MOST);
  stops->n = n;
  for (size_t i = 0; i < n; i++)
    if (stop_make(&stops->of[i], texts[i], lengths[i], arena, error) != 0) return -1;
  return 0;
}

void stops_read(const struct stops *stops, struct stops_at *at, const char *text, size_t length) {
  size_t longest = 0; /* of what may be, or is, a stop string */
  if (at->found) return;
  for (size_t i = 0; i < stops->n; i++) longest = at->matched[i] > longest ? at->matched[i] : longest;
  while (at->read < length && !at->found) {
    char byte = text[at->read++];
    size_t whole = 0;
    longest = 0;
    for (size_t i = 0; i < stops->n; i++) {
      const struct stop *stop = &stops->of[i];
      size_t matched = at->matched[i] = advance(stop, at->matched[i], byte);
      if (matched == stop->length && matched > whole) whole = matched;
      if (matched > longest) longest = matched;
    }
    at->found = whole > 0;
    if (at->found) longest = whole;
  }
  at->certain = at->read - longest;
}
