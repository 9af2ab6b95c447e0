/* weights.c: walks a family's table over a file's tensors. Knows names and shapes, no formula. */
#include "core/model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

#define NAME_BYTES 160

struct loader {
  const struct arch *arch;
  const struct arch_family *family;
  const struct tensors *tensors;
  struct backend *backend;
  struct weights *out;
  const char *prefix;
  size_t vector_offset; /* bytes used in out->vectors */
};

static void tensor_name(const struct loader *loader, const struct weight_row *row, int layer, char out[NAME_BYTES]) {
  int n = snprintf(out, NAME_BYTES, "%s", loader->prefix);
  const char *digit = strstr(row->name, "%d");
  if (!digit)
    snprintf(out + n, NAME_BYTES - (size_t)n, "%s", row->name);
  else
    snprintf(out + n, NAME_BYTES - (size_t)n, "%.*s%d%s", (int)(digit - row->name), row->name, layer, digit + 2);
}

static bool is_vector(const struct weight_row *row) { return row->slot >= SLOT_MATRICES; }

static size_t vector_bytes(const struct arch *arch, const struct weight_row *row) {
  size_t count = (size_t)arch_dim(arch, row->out) * (size_t)arch_dim(arch, row->in);
  return size_round_up(count * sizeof(float), 64);
}

/* The shape the table wants, as the file has it. */
static int check_shape(const struct loader *loader, const struct weight_row *row, const struct tensor *tensor,
                       struct error *error) {
  int64_t out = arch_dim(loader->arch, row->out), in = arch_dim(loader->arch, row->in);
  char found[128];
  bool inputs_first = !is_vector(row) && row->layout == ROWS_ARE_INPUTS;
  int64_t rows = inputs_first ? in : out, columns = inputs_first ? out : in;
  if (row->in == DIM_NONE) {
    if (tensor->n_dims == 1 && tensor->shape[0] == out) return 0;
    return error_set(error, ERROR_FORMAT, "tensor '%s' is %s, expected [%lld]", tensor->name,
                     tensor_describe(tensor, found), (long long)out);
  }
  if (tensor->n_dims == 2 && tensor->shape[0] == rows && tensor->shape[1] == columns) return 0;
  return error_set(error, ERROR_FORMAT, "tensor '%s' is %s, expected [%lld, %lld]", tensor->name,
                   tensor_describe(tensor, found), (long long)rows, (long long)columns);
}

static int check_type(const struct tensor *tensor, struct error *error) {
  if (tensor->dtype != DTYPE_F32 && tensor->dtype != DTYPE_F16 && tensor->dtype != DTYPE_BF16)
    return error_set(error, ERROR_UNSUPPORTED, "tensor '%s' is of type %s; F32, F16 and BF16 are read", tensor->name,
                     dtype_name(tensor->dtype));
  if (!tensor_is_contiguous(tensor))
    return error_set(error, ERROR_UNSUPPORTED, "tensor '%s' is a transposed or sliced view; save it contiguous",
                     tensor->name);
  return 0;
}

/* *tensor is NULL when an optional one is absent. */
static int find(const struct loader *loader, const struct weight_row *row, int layer, const struct tensor **tensor,
                struct error *error) {
  char name[NAME_BYTES];
  tensor_name(loader, row, layer, name);
  *tensor = tensors_find(loader->tensors, name);
  if (!*tensor && row->optional) return 0;
  if (!*tensor)
    return error_set(error, ERROR_FORMAT, "tensor '%s' is missing (a %s model of %d layers has it)", name,
                     loader->family->name, loader->arch->n_layer);
  return check_shape(loader, row, *tensor, error) != 0 || check_type(*tensor, error) != 0 ? -1 : 0;
}

static int load_vector(struct loader *loader, const struct weight_row *row, int layer, struct weight_set *set,
                       struct error *error) {
  const struct tensor *tensor;
  if (find(loader, row, layer, &tensor, error) != 0) return -1;
  if (!tensor) return 0;
  size_t count = (size_t)arch_dim(loader->arch, row->out) * (size_t)arch_dim(loader->arch, row->in);
  float *values = malloc(count * sizeof *values);
  if (!values) return error_memory(error, count * sizeof *values);
  dtype_to_f32(tensor->data, tensor->dtype, 1, count, values);
  struct span at = {loader->out->vectors, loader->vector_offset};
  int failed = loader->backend->ops->write(loader->backend, at, values, count * sizeof *values, error);
  free(values);
  set->vector[row->slot] = at;
  loader->vector_offset += vector_bytes(loader->arch, row);
  loader->out->parameters += (int64_t)count;
  return failed;
}

/* `n` rows of the same slot become one matrix. */
static int load_matrix(struct loader *loader, const struct weight_row *rows, int n, int layer, struct weight_set *set,
                       struct error *error) {
  struct matrix_part parts[MATRIX_MAX_PARTS];
  int64_t in = arch_dim(loader->arch, rows[0].in);
  int used = 0;
  for (int i = 0; i < n; i++) {
    const struct tensor *tensor;
    if (find(loader, &rows[i], layer, &tensor, error) != 0) return -1;
    if (!tensor) continue;
    int64_t out = arch_dim(loader->arch, rows[i].out);
    parts[used++] = (struct matrix_part){tensor->data, tensor->dtype, rows[i].layout, out,
                                         rows[i].layout == ROWS_ARE_INPUTS ? out : in};
    loader->out->parameters += out * in;
    if (loader->out->bytes == 0) loader->out->dtype = tensor->dtype;
  }
  if (!used) return 0;
  struct matrix **slot = &set->matrix[rows[0].slot];
  if (loader->backend->ops->matrix_new(loader->backend, parts, used, in, slot, error) != 0) return -1;
  loader->out->bytes += (*slot)->bytes;
  return 0;
}

/* How many rows from `i` on share its slot. */
static size_t same_slot(const struct arch_family *family, size_t i) {
  size_t n = 1;
  while (i + n < family->n_rows && family->rows[i + n].slot == family->rows[i].slot) n++;
  return n;
}

static int load_rows(struct loader *loader, struct error *error) {
  const struct arch_family *family = loader->family;
  for (size_t i = 0, n; i < family->n_rows; i += n) {
    const struct weight_row *row = &family->rows[i];
    n = same_slot(family, i);
    int layers = row->per_layer ? loader->arch->n_layer : 1;
    for (int l = 0; l < layers; l++) {
      struct weight_set *set = row->per_layer ? &loader->out->layers[l] : &loader->out->once;
      int failed = is_vector(row) ? load_vector(loader, row, l, set, error)
                                  : load_matrix(loader, row, (int)n, l, set, error);
      if (failed) return -1;
    }
  }
  return 0;
}

/* The prefix under which the file has the table's first tensor. */
static int choose_prefix(struct loader *loader, struct error *error) {
  char name[NAME_BYTES];
  for (const char *const *prefix = loader->family->prefixes; *prefix; prefix++) {
    loader->prefix = *prefix;
    tensor_name(loader, &loader->family->rows[0], 0, name);
    if (tensors_find(loader->tensors, name)) return 0;
  }
  return error_set(error, ERROR_FORMAT, "tensor '%s' is missing: these are not the weights of a %s model", name,
                   loader->family->name);
}

static int allocate(struct loader *loader, struct error *error) {
  size_t bytes = 0;
  for (size_t i = 0; i < loader->family->n_rows; i++) {
    const struct weight_row *row = &loader->family->rows[i];
    if (!is_vector(row)) continue;
    size_t all;
    if (!checked_mul(vector_bytes(loader->arch, row), row->per_layer ? (size_t)loader->arch->n_layer : 1, &all) ||
        !checked_add(bytes, all, &bytes))
      return error_memory(error, SIZE_MAX);
  }
  loader->out->layers = calloc((size_t)loader->arch->n_layer, sizeof *loader->out->layers);
  if (!loader->out->layers) return error_memory(error, (size_t)loader->arch->n_layer * sizeof *loader->out->layers);
  return loader->backend->ops->alloc(loader->backend, bytes ? bytes : 64, &loader->out->vectors, error);
}

int weights_load(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                 struct backend *backend, struct weights *out, struct error *error) {
  memset(out, 0, sizeof *out);
  out->n_layer = arch->n_layer;
  struct loader loader = {arch, family, tensors, backend, out, "", 0};
  if (choose_prefix(&loader, error) != 0 || allocate(&loader, error) != 0 || load_rows(&loader, error) != 0) {
    weights_free(out, backend);
    return -1;
  }
  out->bytes += loader.vector_offset;
  if (!out->once.matrix[SLOT_UNEMBED]) out->once.matrix[SLOT_UNEMBED] = out->once.matrix[SLOT_EMBED];
  return 0;
}

static void free_set(struct weight_set *set, struct backend *backend) {
  if (set->matrix[SLOT_UNEMBED] == set->matrix[SLOT_EMBED]) set->matrix[SLOT_UNEMBED] = NULL;
  for (int i = 0; i < SLOT_MATRICES; i++) backend->ops->matrix_free(backend, set->matrix[i]);
}

void weights_free(struct weights *weights, struct backend *backend) {
  free_set(&weights->once, backend);
  for (int l = 0; weights->layers && l < weights->n_layer; l++) free_set(&weights->layers[l], backend);
  free(weights->layers);
  backend->ops->free(backend, weights->vectors);
  memset(weights, 0, sizeof *weights);
}
