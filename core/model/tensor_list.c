/* Names, limits and order of tensors. Knows no file format and follows no data pointer. */
#include "core/model/tensor_list.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"

void tensor_list_init(struct tensor_list *list) {
  memset(list, 0, sizeof *list);
  arena_init(&list->names, 0);
}

void tensor_list_clear(struct tensor_list *list) {
  free(list->items);
  free(list->by_name);
  arena_clear(&list->names);
  tensor_list_init(list);
}

int tensor_list_reserve(struct tensor_list *list, size_t more, struct error *error) {
  size_t need, bytes;
  if (!checked_add(list->count, more, &need) || need > TENSOR_COUNT_MAX)
    return error_set(error, ERROR_LIMIT, "more than %d tensors", TENSOR_COUNT_MAX);
  if (need <= list->capacity) return 0;
  if (!checked_mul(need, sizeof *list->items, &bytes)) return error_memory(error, SIZE_MAX);
  struct tensor *items = realloc(list->items, bytes);
  if (!items) return error_memory(error, bytes);
  list->items = items;
  list->capacity = need;
  return 0;
}

static int check_name(const char *name, size_t length, struct error *error) {
  size_t bad;
  if (length == 0) return error_set(error, ERROR_FORMAT, "a tensor has an empty name");
  if (length > TENSOR_NAME_MAX)
    return error_set(error, ERROR_FORMAT, "the tensor name '%.40s...' has %zu bytes, at most %d are allowed", name,
                     length, TENSOR_NAME_MAX);
  if (memchr(name, 0, length))
    return error_set(error, ERROR_FORMAT, "the tensor name '%s...' holds a NUL character", name);
  if (!utf8_valid(name, length, &bad))
    return error_set(error, ERROR_FORMAT, "the tensor name '%.*s...' is not UTF-8 from its byte %zu on", (int)bad,
                     name, bad);
  return 0;
}

struct tensor *tensor_list_add(struct tensor_list *list, const char *name, size_t length, struct error *error) {
  if (check_name(name, length, error) != 0) return NULL;
  if (list->count == list->capacity) {
    size_t more = size_min(size_max(list->count, 64), size_max(TENSOR_COUNT_MAX - list->count, 1));
    if (tensor_list_reserve(list, more, error) != 0) return NULL;
  }
  char *copy = arena_text(&list->names, name, length, error);
  if (!copy) return NULL;
  struct tensor *tensor = &list->items[list->count++];
  memset(tensor, 0, sizeof *tensor);
  tensor->name = copy;
  return tensor;
}

/* Sorting pairs of pointer and position keeps the comparison free of globals. */
struct named {
  const char *name;
  uint32_t position;
};

static int compare_named(const void *a, const void *b) {
  return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

int tensor_list_index(struct tensor_list *list, struct error *error) {
  size_t n = size_max(list->count, 1);
  struct named *sorted = malloc(n * sizeof *sorted);
  list->by_name = malloc(n * sizeof *list->by_name);
  int rc = -1;
  if (!sorted || !list->by_name) {
    error_memory(error, n * sizeof *sorted);
    goto out;
  }
  for (size_t i = 0; i < list->count; i++) sorted[i] = (struct named){list->items[i].name, (uint32_t)i};
  qsort(sorted, list->count, sizeof *sorted, compare_named);
  for (size_t i = 0; i < list->count; i++) {
    if (i && strcmp(sorted[i - 1].name, sorted[i].name) == 0) {
      error_set(error, ERROR_FORMAT, "tensor '%s' stands twice", sorted[i].name);
      goto out;
    }
    list->by_name[i] = sorted[i].position;
  }
  rc = 0;
out:
  free(sorted);
  return rc;
}

size_t tensor_list_find(const struct tensor_list *list, const char *name) {
  size_t low = 0, high = list->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2, at = list->by_name[middle];
    int order = strcmp(name, list->items[at].name);
    if (order == 0) return at;
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return SIZE_MAX;
}

void tensor_set_strides(struct tensor *tensor) {
  int64_t stride = 1;
  for (int i = tensor->n_dims - 1; i >= 0; i--) {
    tensor->stride[i] = stride;
    /* A dimension of 0 leaves nothing to address; 1 keeps the strides of the others meaningful. */
    stride *= tensor->shape[i] ? tensor->shape[i] : 1;
  }
}

bool tensor_element_count(const int64_t *shape, int n_dims, size_t *count) {
  int64_t product = 1;
  bool empty = false;
  for (int i = 0; i < n_dims; i++) {
    if (shape[i] < 0 || (shape[i] && __builtin_mul_overflow(product, shape[i], &product))) return false;
    if (shape[i] == 0) empty = true;
  }
  *count = empty ? 0 : (size_t)product;
  return true;
}
