/* Which tensors of a file are directions at which layers, and the other way round. The bytes of a format are its reader's. */
#include "core/model/control_vector.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/model/gguf.h"
#include "core/model/npz.h"
#include "core/model/points.h"
#include "core/model/safetensors.h"

#define FILE_WORD "the file"
#define HOLDS "a control vector as a GGUF file, or directions as safetensors or .npz"

struct opened {
  struct tensor_list list;
  struct npz_packed_list packed;
  struct gguf_facts facts;
  const char *format;
};

static int read_gguf(const void *data, size_t size, struct opened *file, struct error *error) {
  file->format = "gguf";
  if (gguf_read(data, size, &file->list, &file->facts, error) != 0) return -1;
  if (strcmp(file->facts.architecture, "controlvector") == 0) return 0;
  return error_set(error, ERROR_ARGUMENT, "the GGUF file is of architecture '%s'; a control vector is of 'controlvector'",
                   file->facts.architecture);
}

static int read_tensors(const void *data, size_t size, struct opened *file, struct error *error) {
  const struct mapfile bytes = {data, size};
  if (gguf_begins(data, size)) return read_gguf(data, size, file, error);
  if (npz_begins(&bytes)) {
    file->format = "npz";
    return npz_read(FILE_WORD, &bytes, &file->list, &file->packed, error);
  }
  file->format = "safetensors";
  if (size > 8 && bytes.data[8] == '{') return safetensors_read(FILE_WORD, &bytes, &file->list, error);
  return error_set(error, ERROR_FORMAT, "expected " HOLDS ", found %zu bytes that begin like none of these", size);
}

/* ---- where ---- */

/* "direction.N": N, or -1. */
static int direction_layer(const char *name) {
  static const char word[] = "direction.";
  const size_t length = sizeof word - 1;
  size_t digits = strncmp(name, word, length) == 0 ? strspn(name + length, "0123456789") : 0;
  return digits && digits < 7 && name[length + digits] == '\0' ? atoi(name + length) : -1;
}

static int find_point(const char *name, int n_layer, struct point *out, struct error *error) {
  struct error inner = ERROR_INIT;
  char spelled[POINT_NAME_BYTES];
  int layer = direction_layer(name);
  if (layer >= 0) snprintf(spelled, sizeof spelled, "blocks.%d.hook_resid_post", layer);
  if (point_read(layer >= 0 ? spelled : name, n_layer, out, &inner) != 0)
    return error_set(error, ERROR_ARGUMENT, "tensor '%.100s': its name must be direction.N, or a point such as blocks.N.hook_resid_post: %s",
                     name, inner.text);
  if (out->site == SITE_RESID_PRE || out->site == SITE_RESID_POST) return 0;
  return error_set(error, ERROR_ARGUMENT, "tensor '%.100s': directions are kept at hook_resid_pre and hook_resid_post only", name);
}

static bool same_point(struct point a, struct point b) { return a.site == b.site && a.layer == b.layer; }

/* ---- what ---- */

/* [width], or [1, width]. */
static bool is_row(const struct tensor *tensor, int64_t width) {
  int last = tensor->n_dims - 1;
  for (int i = 0; i < last; i++)
    if (tensor->shape[i] != 1) return false;
  return last >= 0 && tensor->shape[last] == width && (tensor->dtype == DTYPE_F32 || tensor->dtype == DTYPE_F16 ||
                                                       tensor->dtype == DTYPE_BF16 || tensor->dtype == DTYPE_F64);
}

static int load(struct opened *file, size_t i, struct error *error) {
  struct tensor *tensor = &file->list.items[i];
  for (size_t k = 0; k < file->packed.count && !tensor->data; k++) {
    struct npz_packed *item = &file->packed.items[k];
    if (item->tensor != i) continue;
    if (npz_unpack(item, tensor->bytes, error) != 0) return error_prefix(error, "tensor '%.100s'", tensor->name);
    tensor->data = item->elements;
  }
  return 0;
}

static int copy_row(const struct tensor *tensor, int64_t width, float *to, struct error *error) {
  size_t stride = (size_t)tensor->stride[tensor->n_dims - 1];
  for (int64_t i = 0; i < width; i++) {
    to[i] = dtype_f32_at(tensor->data, tensor->dtype, (size_t)i * stride);
    if (!isfinite(to[i]))
      return error_set(error, ERROR_ARGUMENT, "tensor '%.100s': its value %lld is not finite in f32", tensor->name, (long long)i);
  }
  return 0;
}

static int read_direction(struct opened *file, size_t i, int n_layer, int64_t width, struct arena *arena,
                          struct control_direction *out, struct error *error) {
  const struct tensor *tensor = &file->list.items[i];
  char found[128];
  if (find_point(tensor->name, n_layer, &out->point, error) != 0) return -1;
  if (!is_row(tensor, width))
    return error_set(error, ERROR_ARGUMENT, "tensor '%.100s': expected [%lld] in F32, F16, BF16 or F64, the width of the model, found %s",
                     tensor->name, (long long)width, tensor_describe(tensor, found));
  float *values = arena_array(arena, (size_t)width, sizeof *values, error);
  out->values = values;
  if (!values || load(file, i, error) != 0) return -1;
  return copy_row(tensor, width, values, error);
}

static int refuse_twice(const struct opened *file, const struct control_direction *all, size_t i, struct error *error) {
  for (size_t k = 0; k < i; k++)
    if (same_point(all[k].point, all[i].point))
      return error_set(error, ERROR_ARGUMENT, "tensors '%.100s' and '%.100s' are directions at the same point", file->list.items[k].name,
                       file->list.items[i].name);
  return 0;
}

static int read_directions(struct opened *file, int n_layer, int64_t width, struct arena *arena, struct control_vector *out,
                           struct error *error) {
  size_t n = file->list.count, most = 2 * (size_t)n_layer;
  if (n < 1) return error_set(error, ERROR_ARGUMENT, "it holds no tensors; expected " HOLDS);
  if (n > most)
    return error_set(error, ERROR_ARGUMENT, "it holds %zu tensors; a model of %d layers has room for %zu directions", n, n_layer, most);
  struct control_direction *all = arena_array(arena, n, sizeof *all, error);
  if (!all) return -1;
  for (size_t i = 0; i < n; i++)
    if (read_direction(file, i, n_layer, width, arena, &all[i], error) != 0 || refuse_twice(file, all, i, error) != 0) return -1;
  const char *hint = file->facts.hint;
  *out = (struct control_vector){file->format, *hint ? arena_text(arena, hint, strlen(hint), error) : NULL, all, n};
  return *hint && !out->hint ? -1 : 0;
}

int control_vector_read(const void *data, size_t size, int n_layer, int64_t width, struct arena *arena, struct control_vector *out,
                        struct error *error) {
  struct opened file = {0};
  tensor_list_init(&file.list);
  int result = read_tensors(data, size, &file, error);
  if (result == 0) result = read_directions(&file, n_layer, width, arena, out, error);
  npz_clear(&file.packed);
  tensor_list_clear(&file.list);
  return result;
}

/* ---- writing ---- */

enum { GGUF_VERSION = 3, KIND_U32 = 4, KIND_TEXT = 8, TYPE_F32 = 0, ALIGNMENT = 32 };

static void put_u32(struct buffer *to, uint32_t value) { buffer_append(to, &value, sizeof value); }
static void put_u64(struct buffer *to, uint64_t value) { buffer_append(to, &value, sizeof value); }

static void put_text(struct buffer *to, const char *text) {
  put_u64(to, strlen(text));
  buffer_text(to, text);
}

/* The layer behind which llama.cpp would add it. */
static int layer_behind(struct point point) { return point.site == SITE_RESID_PRE ? point.layer - 1 : point.layer; }

static bool is_first_of(const struct control_direction *directions, size_t i) {
  for (size_t k = 0; k < i; k++)
    if (layer_behind(directions[k].point) == layer_behind(directions[i].point)) return false;
  return true;
}

/* A width's padding: each direction begins at a multiple of the alignment. */
static size_t row_bytes(int64_t width) { return size_round_up((size_t)width * sizeof(float), ALIGNMENT); }

static void put_padding(struct buffer *to, size_t n) {
  for (size_t i = 0; i < n; i++) buffer_char(to, '\0');
}

static void put_head(struct buffer *to, const char *hint, const struct control_direction *directions, size_t n, int64_t width) {
  size_t rows = 0, offset = 0;
  for (size_t i = 0; i < n; i++) rows += is_first_of(directions, i);
  buffer_text(to, "GGUF");
  put_u32(to, GGUF_VERSION);
  put_u64(to, rows);
  put_u64(to, 3);
  put_text(to, "general.architecture");
  put_u32(to, KIND_TEXT);
  put_text(to, "controlvector");
  put_text(to, "controlvector.model_hint");
  put_u32(to, KIND_TEXT);
  put_text(to, hint);
  put_text(to, "controlvector.layer_count");
  put_u32(to, KIND_U32);
  put_u32(to, (uint32_t)rows);
  for (size_t i = 0; i < n; i++) {
    if (!is_first_of(directions, i)) continue;
    char name[32];
    snprintf(name, sizeof name, "direction.%d", layer_behind(directions[i].point));
    put_text(to, name);
    put_u32(to, 1);
    put_u64(to, (uint64_t)width);
    put_u32(to, TYPE_F32);
    put_u64(to, offset);
    offset += row_bytes(width);
  }
}

static void put_row(struct buffer *to, const struct control_direction *directions, size_t n, size_t first, int64_t width) {
  for (int64_t c = 0; c < width; c++) {
    double sum = 0;
    for (size_t i = first; i < n; i++)
      if (layer_behind(directions[i].point) == layer_behind(directions[first].point)) sum += (double)directions[i].values[c];
    float value = (float)sum;
    buffer_append(to, &value, sizeof value);
  }
  put_padding(to, row_bytes(width) - (size_t)width * sizeof(float));
}

int control_vector_write(struct buffer *to, const char *hint, const struct control_direction *directions, size_t n, int64_t width,
                         struct error *error) {
  if (!n) return error_set(error, ERROR_ARGUMENT, "there is no direction to write");
  char name[POINT_NAME_BYTES];
  for (size_t i = 0; i < n; i++)
    if (layer_behind(directions[i].point) < 1)
      return error_set(error, ERROR_ARGUMENT, "a GGUF control vector begins behind layer 1 (blocks.1.hook_resid_post); %s stands before it",
                       point_name(directions[i].point, name));
  size_t begin = to->length;
  put_head(to, hint, directions, n, width);
  put_padding(to, size_round_up(to->length - begin, ALIGNMENT) - (to->length - begin));
  for (size_t i = 0; i < n; i++)
    if (is_first_of(directions, i)) put_row(to, directions, n, i, width);
  return 0;
}
