/* tensor_list.h: the list that the file readers fill and tensors.c serves. Private to this room.
 *
 * Owns the tensors and their names, never their data. The limits stand here because they are the same for
 * every format: names of 1 to 1,024 bytes of UTF-8 without NUL, at most 1,000,000 tensors. */
#ifndef STEERD_CORE_MODEL_TENSOR_LIST_H
#define STEERD_CORE_MODEL_TENSOR_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/model/tensors.h"

#define TENSOR_NAME_MAX 1024
#define TENSOR_COUNT_MAX 1000000

struct tensor_list {
  struct tensor *items; /* file order */
  size_t count, capacity;
  uint32_t *by_name; /* positions sorted by name; NULL until tensor_list_index */
  struct arena names;
};

void tensor_list_init(struct tensor_list *list);
void tensor_list_clear(struct tensor_list *list);

/* Room for `more` further tensors, in one allocation. */
int tensor_list_reserve(struct tensor_list *list, size_t more, struct error *error) MUST_CHECK;

/* A new zeroed tensor called name[0..length), valid until the next add; NULL with ERROR_FORMAT / ERROR_LIMIT
 * that quotes the name but not the file. */
struct tensor *tensor_list_add(struct tensor_list *list, const char *name, size_t length,
                               struct error *error) MUST_CHECK;

/* Sorts the names for tensor_list_find; ERROR_FORMAT when a name stands twice. */
int tensor_list_index(struct tensor_list *list, struct error *error) MUST_CHECK;

/* Position of a name, or SIZE_MAX. Only after tensor_list_index. */
size_t tensor_list_find(const struct tensor_list *list, const char *name);

/* Row-major strides of tensor->shape. */
void tensor_set_strides(struct tensor *tensor);

/* product(shape) into *count; false when the product of the sizes above 0 does not fit an int64, so that strides
 * never overflow. */
bool tensor_element_count(const int64_t *shape, int n_dims, size_t *count);

#endif
