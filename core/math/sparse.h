/* sparse.h: rows of sparse feature activations in host memory (compressed sparse rows). */
#ifndef STEERD_CORE_MATH_SPARSE_H
#define STEERD_CORE_MATH_SPARSE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct sparse {
  size_t n_rows;
  size_t *start;   /* [n_rows + 1]: row r is entries start[r]..start[r+1]; start[0] = 0 */
  int32_t *index;  /* feature, ascending inside a row */
  float *value;    /* > 0, folded units; of neurons not 0, raw */
  size_t rows_capacity, capacity; /* private */
};

void sparse_init(struct sparse *sparse);
void sparse_clear(struct sparse *sparse); /* frees; can be used again */

/* Adds an empty row and makes room for `entries` more; entries are then appended with sparse_push. */
int sparse_row(struct sparse *sparse, size_t entries, struct error *error) MUST_CHECK;

/* Makes room for so many more rows and entries. What is written into it, behind the last entry, is there once rows count it in. */
int sparse_room(struct sparse *sparse, size_t rows, size_t entries, struct error *error) MUST_CHECK;

/* Appends to the last row; room must have been made. */
static inline void sparse_push(struct sparse *sparse, int32_t index, float value) {
  size_t at = sparse->start[sparse->n_rows]++;
  sparse->index[at] = index;
  sparse->value[at] = value;
}

/* The value of one feature in a row, 0 when it is not there. O(log entries). */
float sparse_find(const struct sparse *sparse, size_t row, int32_t index);

#endif
