/* nearest.h: the name somebody probably meant, for "did you mean" in error texts. */
#ifndef STEERD_CORE_BASE_NEAREST_H
#define STEERD_CORE_BASE_NEAREST_H

#include <stddef.h>

/* The one of names[0..n) that differs least from word: letters inserted, dropped, replaced or swapped with
 * their neighbour, ASCII case ignored. Near means at most one such slip for every three letters of the
 * longer of the two, and at most four, of which more than one leave the first letter as it is: words that rhyme mean different
 * things, and a wrong hint is worse than none; the first of equals wins. NULL when nothing is near, when word is
 * empty or longer than 63 bytes; longer names are never near. Cost: n * 64 * 64 steps at most. */
const char *nearest_name(const char *word, const char *const *names, size_t n);

#endif
