/* nearest.c: edit distance between short names. Knows nothing of what the names stand for. */
#include "core/base/nearest.h"

#include <string.h>

#include "core/base/checked.h"

#define MAX_LETTERS 63

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

/* Edit distance with swaps of neighbours ("optimal string alignment"): row i of the table needs rows i-1 and,
 * for a swap, i-2. */
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b) {
  size_t rows[3][MAX_LETTERS + 1];
  for (size_t j = 0; j <= n_b; j++) rows[0][j] = j;
  for (size_t i = 1; i <= n_a; i++) {
    size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *second = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= n_b; j++) {
      char x = lower(a[i - 1]), y = lower(b[j - 1]);
      size_t least = above[j - 1] + (x != y);
      least = size_min(least, size_min(above[j], row[j - 1]) + 1);
      if (i > 1 && j > 1 && x == lower(b[j - 2]) && lower(a[i - 2]) == y)
        least = size_min(least, second[j - 2] + 1);
      row[j] = least;
    }
  }
  return rows[n_a % 3][n_b];
}

const char *nearest_name(const char *word, const char *const *names, size_t n) {
  size_t length = strlen(word), best = SIZE_MAX;
  const char *found = NULL;
  if (length == 0 || length > MAX_LETTERS) return NULL;
  for (size_t i = 0; i < n; i++) {
    size_t other = strlen(names[i]);
    if (other > MAX_LETTERS) continue;
    size_t distance = edit_distance(word, length, names[i], other);
    if (distance > size_min(4, size_max(length, other) / 3) || distance >= best) continue;
    if (distance > 1 && lower(word[0]) != lower(names[i][0])) continue; /* "factor" is no "vector" */
    best = distance;
    found = names[i];
  }
  return found;
}
