/* fuzz_tensors.h: what must hold of a list of tensors whatever the bytes were. Shared by the two readers'
 * fuzzers: a refusal has a code and a text; every element of an accepted tensor lies inside the file, and
 * reading it is fine. */
#ifndef STEERD_TESTS_FUZZ_FUZZ_TENSORS_H
#define STEERD_TESTS_FUZZ_FUZZ_TENSORS_H

#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/model/tensor_list.h"

typedef int (*tensor_reader)(const char *path, const struct mapfile *file, struct tensor_list *list,
                             struct error *error);

static volatile unsigned char fuzz_sink;

static void fuzz_check_tensor(const struct tensor *tensor, const struct mapfile *file) {
  size_t count, last = 0, size = dtype_size(tensor->dtype);
  char text[128];
  if (!tensor_element_count(tensor->shape, tensor->n_dims, &count)) abort();
  if (size && tensor->bytes != count * size) abort();
  if (strlen(tensor->name) > TENSOR_NAME_MAX || strlen(tensor_describe(tensor, text)) > 127) abort();
  if (tensor->data < file->data || tensor->data > file->data + file->size) abort();
  if (tensor->bytes == 0) return;
  for (int d = 0; d < tensor->n_dims; d++) last += (size_t)((tensor->shape[d] - 1) * tensor->stride[d]);
  if (tensor_is_contiguous(tensor) && size && last + 1 != count) abort();
  size_t bytes = size ? (last + 1) * size : tensor->bytes;
  if (bytes > (size_t)(file->data + file->size - tensor->data)) abort();
  fuzz_sink = tensor->data[0];
  fuzz_sink = tensor->data[bytes - 1];
}

static int fuzz_reader(tensor_reader read, const unsigned char *data, size_t size) {
  static const unsigned char nothing[1];
  struct mapfile file = {size ? data : nothing, size};
  struct tensor_list list;
  struct error error = ERROR_INIT;
  tensor_list_init(&list);
  int rc = read("f", &file, &list, &error);
  if (rc == 0) rc = tensor_list_index(&list, &error);
  if (rc != 0 && (!error.code || !error.text[0])) abort();
  for (size_t i = 0; rc == 0 && i < list.count; i++) {
    fuzz_check_tensor(&list.items[i], &file);
    if (tensor_list_find(&list, list.items[i].name) != i) abort();
  }
  tensor_list_clear(&list);
  return 0;
}

#endif
