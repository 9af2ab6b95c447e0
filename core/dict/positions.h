/* positions.h: which positions of a context count: those on which a dictionary is meant to be read. Whatever is counted over a text
 * (statistics, evaluations, the self-test) asks here; what is shown of a position to whoever asks for it does not.
 *
 * A position counts where all three say so: it is not the BOS that the dictionary leaves out; the slice has it; its token is not
 * excluded. The slice is Python's range(n)[start:stop:step] over a context of n tokens, BOS included, so that the same slice of a
 * shorter context ends elsewhere; SAELens slices the rows of a context so. A negative step has the same positions as Python's, and
 * their order means nothing here. */
#ifndef STEERD_CORE_DICT_POSITIONS_H
#define STEERD_CORE_DICT_POSITIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLICE_OPEN INT64_MIN     /* a start or a stop that is not said: Python's None */
#define SLICE_MOST INT32_MAX     /* numbers of a slice are -SLICE_MOST to SLICE_MOST */

struct slice {
  bool given;          /* else all positions, and the rest means nothing */
  int64_t start, stop; /* or SLICE_OPEN */
  int64_t step;        /* not 0 */
};

/* Zeros: all positions. */
struct positions {
  bool skip_first;         /* position 0 is a BOS that counts for nothing */
  struct slice slice;
  const int32_t *excluded; /* [n_excluded] token ids, ascending, none twice; borrowed */
  size_t n_excluded;
};

/* Writes which of the positions 0 .. n - 1 of a context count into mask [n], 1 or 0: how many do is the result. `ids` [n] are its
 * tokens; they may be NULL where none is excluded (n_excluded 0). */
int32_t positions_mark(const struct positions *positions, const int32_t *ids, int32_t n, uint8_t *mask);

/* The next stretch [*begin, *end) of ones of a mask [n], at or behind *end, which is 0 at first; false when there is none. */
bool positions_next(const uint8_t *mask, int32_t n, int32_t *begin, int32_t *end);

/* How many positions of a context of n tokens the slice alone has. */
int32_t slice_count(const struct slice *slice, int32_t n);

/* 0 where there is neither a slice nor an excluded token, whatever becomes of BOS; else a number below 2^30, other than 0, that differs
 * (but for one chance in 2^30) where the rule does. */
uint32_t positions_print(const struct positions *positions);

#endif
