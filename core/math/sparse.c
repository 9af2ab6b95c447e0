/* sparse.c: growth and look-up of compressed sparse rows. Knows no formula. */
#include "core/math/sparse.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

void sparse_init(struct sparse *sparse) { memset(sparse, 0, sizeof *sparse); }

void sparse_clear(struct sparse *sparse) {
  free(sparse->start);
  free(sparse->index);
  free(sparse->value);
  sparse_init(sparse);
}

static int grow(void **array, size_t count, size_t size, struct error *error) {
  size_t bytes;
  if (!checked_mul(count, size, &bytes)) return error_memory(error, SIZE_MAX);
  void *bigger = realloc(*array, bytes);
  if (!bigger) return error_memory(error, bytes);
  *array = bigger;
  return 0;
}

static int grow_rows(struct sparse *sparse, size_t more, struct error *error) {
  size_t need;
  if (!checked_add(sparse->n_rows + 1, more, &need)) return error_memory(error, SIZE_MAX);
  if (need <= sparse->rows_capacity) return 0;
  size_t capacity = size_max(need, size_max(64, sparse->rows_capacity * 2));
  void *start = sparse->start;
  if (grow(&start, capacity, sizeof *sparse->start, error) != 0) return -1;
  sparse->start = start;
  sparse->rows_capacity = capacity;
  return 0;
}

static int grow_entries(struct sparse *sparse, size_t need, struct error *error) {
  if (need <= sparse->capacity) return 0;
  size_t capacity = size_max(need, size_max(1024, sparse->capacity * 2));
  void *index = sparse->index, *value = sparse->value;
  int failed = grow(&index, capacity, sizeof *sparse->index, error);
  sparse->index = index;
  if (failed || grow(&value, capacity, sizeof *sparse->value, error) != 0) return -1;
  sparse->value = value;
  sparse->capacity = capacity;
  return 0;
}

int sparse_room(struct sparse *sparse, size_t rows, size_t entries, struct error *error) {
  size_t used = sparse->n_rows ? sparse->start[sparse->n_rows] : 0, need;
  if (!checked_add(used, entries, &need)) return error_memory(error, SIZE_MAX);
  if (grow_rows(sparse, rows, error) != 0 || grow_entries(sparse, need, error) != 0) return -1;
  if (sparse->n_rows == 0) sparse->start[0] = 0;
  return 0;
}

int sparse_row(struct sparse *sparse, size_t entries, struct error *error) {
  if (sparse_room(sparse, 1, entries, error) != 0) return -1;
  sparse->n_rows++;
  sparse->start[sparse->n_rows] = sparse->start[sparse->n_rows - 1];
  return 0;
}

float sparse_find(const struct sparse *sparse, size_t row, int32_t index) {
  size_t low = sparse->start[row], high = sparse->start[row + 1];
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (sparse->index[middle] == index) return sparse->value[middle];
    if (sparse->index[middle] < index)
      low = middle + 1;
    else
      high = middle;
  }
  return 0.0f;
}
