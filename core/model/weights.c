/* weights.c: walks a family's table over a file's tensors. Knows names and shapes, no formula. */
#include "core/model/weights.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/log.h"
#include "core/math/host.h"

#define NAME_BYTES 160

struct loader {
  const struct arch *arch;
  const struct arch_family *family;
  const struct tensors *tensors;
  struct backend *backend;
  enum dtype keep; /* of matrices; DTYPE_OTHER: as in the file */
  struct weights *out;
  const char *prefix;
  size_t vector_offset; /* bytes used in out->vectors */
  size_t looked_at;     /* bytes packed since mapped pages were let go of */
};

/* The mapped pages of what was packed are let go of in steps, so that the file and its packed copy never lie in memory
 * together as a whole: at most this much, or the largest matrix. */
#define LET_GO_BYTES ((size_t)32 << 20)

static void let_go(struct loader *loader, size_t packed) {
  loader->looked_at += packed;
  if (loader->looked_at < LET_GO_BYTES) return;
  tensors_forget(loader->tensors);
  loader->looked_at = 0;
}

static bool is_vector(const struct weight_row *row) { return row->slot >= SLOT_MATRICES; }
static bool is_per_layer(const struct weight_row *row) { return strstr(row->name, "%d") != NULL; }
static bool is_there(const struct loader *loader, const struct weight_row *row) {
  return arch_has(loader->arch, row->needs) && !(loader->arch->has & row->unless);
}

/* The numbers go where the name has "%d": the layer, and of FORM_EACH_HEAD the head. */
static void tensor_name(const struct loader *loader, const struct weight_row *row, int layer, int head, char out[NAME_BYTES]) {
  bool whole = row->name[0] == '/';
  const char *name = row->name + whole, *digit;
  int numbers[] = {layer, head}, k = 0;
  size_t n = (size_t)snprintf(out, NAME_BYTES, "%s", whole ? "" : loader->prefix);
  for (; k < 2 && n < NAME_BYTES && (digit = strstr(name, "%d")); name = digit + 2)
    n += (size_t)snprintf(out + n, NAME_BYTES - n, "%.*s%d", (int)(digit - name), name, numbers[k++]);
  if (n < NAME_BYTES) snprintf(out + n, NAME_BYTES - n, "%s", name);
}

/* Tensors that the row comes in. */
static int tensors_of(const struct arch *arch, const struct weight_row *row) {
  return row->form == FORM_EACH_HEAD ? (int)(arch_dim(arch, row->out) / arch->d_head) : 1;
}

/* ---- shapes ---- */

/* The shape the table wants, as the file has it; returns the number of dimensions. */
static int wanted_shape(const struct arch *arch, const struct weight_row *row, int64_t shape[3]) {
  int64_t out = arch_dim(arch, row->out), in = arch_dim(arch, row->in), d_head = arch->d_head;
  bool piece = row->form == FORM_PIECE || row->form == FORM_HEAD_PIECE;
  if (piece) out *= row->pieces;
  if (row->slot == SLOT_POSITIONS) out += row->skip;
  out /= tensors_of(arch, row);
  if (row->form == FORM_HEADS_OUT) {
    shape[0] = out / d_head;
    shape[1] = row->in == DIM_NONE ? d_head : in;
    shape[2] = d_head;
    return row->in == DIM_NONE ? 2 : 3;
  }
  if (row->form == FORM_HEADS_IN) {
    shape[0] = in / d_head;
    shape[1] = d_head;
    shape[2] = out;
    return 3;
  }
  bool inputs_first = !is_vector(row) && row->layout == ROWS_ARE_INPUTS;
  shape[0] = inputs_first ? in : out;
  shape[1] = inputs_first ? out : in;
  return row->in == DIM_NONE ? 1 : 2;
}

static int check_shape(const struct loader *loader, const struct weight_row *row, const struct tensor *tensor,
                       struct error *error) {
  int64_t shape[3];
  int n = wanted_shape(loader->arch, row, shape);
  bool fits = tensor->n_dims == n;
  for (int i = 0; fits && i < n; i++) fits = tensor->shape[i] == shape[i];
  if (fits) return 0;
  char found[128], wanted[64] = "";
  for (int i = 0; i < n; i++) {
    size_t at = strlen(wanted);
    snprintf(wanted + at, sizeof wanted - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
  }
  return error_set(error, ERROR_FORMAT, "tensor '%s' is %s, expected [%s]", tensor->name,
                   tensor_describe(tensor, found), wanted);
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

static const struct tensor *find(const struct loader *loader, const struct weight_row *row, int layer, int head,
                                 struct error *error) {
  char name[NAME_BYTES];
  tensor_name(loader, row, layer, head, name);
  const struct tensor *tensor = tensors_find(loader->tensors, name);
  if (!tensor) {
    (void)error_set(error, ERROR_FORMAT, "tensor '%s' is missing (a %s model of %d layers has it)", name,
                    loader->family->name, loader->arch->n_layer);
    return NULL;
  }
  return check_shape(loader, row, tensor, error) != 0 || check_type(tensor, error) != 0 ? NULL : tensor;
}

/* ---- matrices ---- */

/* Where the row's outputs lie in its tensor. */
static struct matrix_part part_of(const struct arch *arch, const struct weight_row *row, const struct tensor *tensor) {
  int64_t out = arch_dim(arch, row->out), in = arch_dim(arch, row->in), d_head = arch->d_head, first = 0;
  struct matrix_part part = {.data = tensor->data, .dtype = tensor->dtype, .layout = row->layout, .n_out = out,
                             .ld = row->layout == ROWS_ARE_INPUTS ? out : in};
  switch (row->form) {
    case FORM_PIECE: first = row->piece * out; break;
    case FORM_HEAD_PIECE:
      first = row->piece * d_head;
      part.run = d_head;
      part.run_stride = row->pieces * d_head * in;
      break;
    case FORM_HEADS_OUT:
      part.layout = ROWS_ARE_INPUTS;
      part.ld = part.run = d_head;
      part.run_stride = d_head * in;
      break;
    case FORM_HEADS_IN: /* the heads of the inputs lie one after the other, as rows do */
      part.layout = ROWS_ARE_INPUTS;
      part.ld = out;
      break;
    case FORM_EACH_HEAD: /* vectors alone */
    case FORM_WHOLE: break;
  }
  part.data = tensor->data + (size_t)(first * in) * dtype_size(tensor->dtype);
  return part;
}

/* `n` rows of the same slot become one matrix. */
static int load_matrix(struct loader *loader, const struct weight_row *rows, int n, int layer, struct weight_set *set,
                       struct error *error) {
  struct matrix_part parts[MATRIX_MAX_PARTS];
  int64_t in = arch_dim(loader->arch, rows[0].in);
  for (int i = 0; i < n; i++) {
    const struct tensor *tensor = find(loader, &rows[i], layer, 0, error);
    if (!tensor) return -1;
    parts[i] = part_of(loader->arch, &rows[i], tensor);
    loader->out->parameters += parts[i].n_out * in;
    if (loader->out->bytes == 0) loader->out->dtype = tensor->dtype;
  }
  struct matrix **slot = &set->matrix[rows[0].slot];
  struct matrix_wish wish = {.dtype = loader->keep};
  if (loader->backend->ops->matrix_new_as(loader->backend, parts, n, in, &wish, slot, error) != 0) return -1;
  loader->out->bytes += (*slot)->bytes;
  let_go(loader, (*slot)->bytes);
  return 0;
}

/* ---- tables with a factor ---- */

/* A factor as a row of the table, so that it is found and checked like one. */
static struct weight_row factor_of(const struct weight_row *row) {
  return (struct weight_row){.slot = row->slot, .name = row->factor, .layout = row->factor_layout, .out = DIM_MODEL, .in = row->in,
                             .needs = row->needs, .unless = row->unless};
}

enum { TABLE_ROWS = 64 }; /* of a table, multiplied at once */

/* What a product takes and gives, in the backend's memory. */
struct table_product {
  struct backend *backend;
  struct matrix *factor;
  struct memory *memory;
  struct rows x, y;
  int32_t n_layer;
};

static int open_product(struct loader *loader, const struct weight_row *row, struct table_product *p, struct error *error) {
  struct weight_row factor = factor_of(row);
  const struct tensor *tensor = find(loader, &factor, 0, 0, error);
  if (!tensor) return -1;
  struct matrix_part part = part_of(loader->arch, &factor, tensor);
  int64_t in = arch_dim(loader->arch, row->in), out = loader->arch->d_model;
  size_t x = size_round_up((size_t)in, 16), y = size_round_up((size_t)out, 16);
  *p = (struct table_product){.backend = loader->backend, .n_layer = loader->arch->n_layer};
  loader->out->parameters += in * out;
  if (p->backend->ops->matrix_new(p->backend, &part, 1, in, &p->factor, error) != 0 ||
      p->backend->ops->alloc(p->backend, TABLE_ROWS * (x + y) * sizeof(float), &p->memory, error) != 0)
    return -1;
  p->x = (struct rows){{p->memory, 0}, (int64_t)x};
  p->y = (struct rows){{p->memory, TABLE_ROWS * x * sizeof(float)}, (int64_t)y};
  return 0;
}

static void close_product(struct table_product *p) {
  p->backend->ops->matrix_free(p->backend, p->factor);
  p->backend->ops->free(p->backend, p->memory);
}

/* Rows [0, n) of a table, given as f32 [n][in], multiplied: as if each were widened whenever it is met. */
static int run_product(const struct table_product *p, const float *x, int32_t n, float *y, struct error *error) {
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT, .layer = p->n_layer};
  size_t in = (size_t)p->factor->n_in, out = (size_t)p->factor->n_out;
  op.u.linear.w = p->factor;
  op.u.linear.x = p->x;
  op.u.linear.y = p->y;
  struct step step = {.n_layer = p->n_layer, .n_rows = n, .n_logit_rows = n};
  for (int32_t i = 0; i < n; i++) {
    struct span at = span_at(p->x.at, (size_t)i * (size_t)p->x.ld * sizeof(float));
    if (p->backend->ops->write(p->backend, at, x + (size_t)i * in, in * sizeof(float), error) != 0) return -1;
  }
  if (p->backend->ops->run(p->backend, &op, 1, &step, error) != 0) return -1;
  for (int32_t i = 0; i < n; i++) {
    struct span at = span_at(p->y.at, (size_t)i * (size_t)p->y.ld * sizeof(float));
    if (p->backend->ops->read(p->backend, y + (size_t)i * out, at, out * sizeof(float), error) != 0) return -1;
  }
  return 0;
}

static int multiply_table(const struct table_product *p, const struct tensor *table, float *out, struct error *error) {
  size_t in = (size_t)p->factor->n_in, width = (size_t)p->factor->n_out, size = dtype_size(table->dtype);
  float *x = malloc(TABLE_ROWS * in * sizeof *x);
  if (!x) return error_memory(error, TABLE_ROWS * in * sizeof *x);
  int failed = 0;
  for (int64_t row = 0; row < table->shape[0] && !failed; row += TABLE_ROWS) {
    int32_t n = (int32_t)(table->shape[0] - row < TABLE_ROWS ? table->shape[0] - row : TABLE_ROWS);
    dtype_to_f32(table->data + (size_t)row * in * size, table->dtype, 1, (size_t)n * in, x);
    failed = run_product(p, x, n, out + (size_t)row * width, error);
  }
  free(x);
  return failed;
}

int weights_keep_copy(struct weights *weights, float **w, struct error *error) {
  void **copies = realloc(weights->copies, (weights->n_copies + 1) * sizeof *copies);
  if (!copies) return error_memory(error, (weights->n_copies + 1) * sizeof *copies);
  weights->copies = copies;
  copies[weights->n_copies++] = *w;
  *w = NULL;
  return 0;
}

static int give_table(struct loader *loader, float **w, struct matrix **slot, struct error *error) {
  int64_t rows = loader->arch->vocabulary, width = loader->arch->d_model;
  struct matrix_part part = {.data = *w, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = rows, .ld = width};
  struct matrix_wish wish = {.dtype = loader->keep};
  if (loader->backend->ops->matrix_new_as(loader->backend, &part, 1, width, &wish, slot, error) != 0) return -1;
  loader->out->bytes += (*slot)->bytes ? (*slot)->bytes : (size_t)(rows * width) * sizeof **w;
  return (*slot)->bytes ? 0 : weights_keep_copy(loader->out, w, error);
}

/* A table of tokens times its factor, in f32. */
static int load_table(struct loader *loader, const struct weight_row *row, struct weight_set *set, struct error *error) {
  const struct tensor *table = find(loader, row, 0, 0, error);
  struct table_product product = {.backend = loader->backend};
  size_t bytes;
  if (!checked_mul((size_t)loader->arch->vocabulary * sizeof(float), (size_t)loader->arch->d_model, &bytes))
    return error_memory(error, SIZE_MAX);
  float *w = table ? malloc(bytes) : NULL;
  if (!table) return -1;
  if (!w) return error_memory(error, bytes);
  int failed = open_product(loader, row, &product, error);
  if (!failed) failed = multiply_table(&product, table, w, error);
  if (!failed) failed = give_table(loader, &w, &set->matrix[row->slot], error);
  if (row->slot == SLOT_EMBED) {
    loader->out->parameters += arch_dim(loader->arch, row->out) * arch_dim(loader->arch, row->in);
    loader->out->dtype = table->dtype;
  }
  close_product(&product);
  tensors_forget(loader->tensors);
  free(w);
  return failed;
}

/* ---- vectors ---- */

static size_t vector_count(const struct arch *arch, const struct weight_row *row) {
  return (size_t)arch_dim(arch, row->out) * (size_t)arch_dim(arch, row->in);
}

static size_t vectors_bytes(const struct arch *arch, const struct weight_row *rows, int n) {
  size_t count = 0;
  for (int i = 0; i < n; i++) count += vector_count(arch, &rows[i]);
  return size_round_up(count * sizeof(float), 64);
}

/* Elements of the row's vector (of FORM_EACH_HEAD: of one head) as f32, in the order of the model. */
static void read_vector(const struct arch *arch, const struct weight_row *row, const struct tensor *tensor, float *out) {
  size_t count = vector_count(arch, row) / (size_t)tensors_of(arch, row), size = dtype_size(tensor->dtype), d_head = (size_t)arch->d_head;
  size_t first = (size_t)row->skip * (size_t)arch_dim(arch, row->in);
  if (row->form == FORM_PIECE) first = (size_t)row->piece * count;
  if (row->form != FORM_HEAD_PIECE) {
    dtype_to_f32(tensor->data + first * size, tensor->dtype, 1, count, out);
  } else {
    for (size_t head = 0; head < count / d_head; head++) {
      first = (head * (size_t)row->pieces + (size_t)row->piece) * d_head;
      dtype_to_f32(tensor->data + first * size, tensor->dtype, 1, d_head, out + head * d_head);
    }
  }
  if (row->plus != 0)
    for (size_t i = 0; i < count; i++) out[i] += row->plus;
}

/* None of these rows, all optional, is in the file. */
static bool is_left_out(const struct loader *loader, const struct weight_row *rows, int n, int layer) {
  char name[NAME_BYTES];
  for (int i = 0; i < n; i++) {
    tensor_name(loader, &rows[i], layer, 0, name);
    if (!rows[i].optional || tensors_find(loader->tensors, name)) return false;
  }
  return true;
}

/* `n` rows of the same slot become one vector. */
static int load_vector(struct loader *loader, const struct weight_row *rows, int n, int layer, struct weight_set *set,
                       struct error *error) {
  size_t bytes = vectors_bytes(loader->arch, rows, n), count = 0;
  if (is_left_out(loader, rows, n, layer)) return 0;
  float *values = malloc(bytes ? bytes : 1);
  if (!values) return error_memory(error, bytes);
  int failed = 0;
  for (int i = 0; i < n && !failed; i++) {
    for (int head = 0; head < tensors_of(loader->arch, &rows[i]) && !failed; head++) {
      const struct tensor *tensor = find(loader, &rows[i], layer, head, error);
      failed = tensor ? 0 : -1;
      if (tensor) read_vector(loader->arch, &rows[i], tensor, values + count + (size_t)head * (size_t)loader->arch->d_head);
    }
    count += vector_count(loader->arch, &rows[i]);
  }
  struct span at = {loader->out->vectors, loader->vector_offset};
  if (!failed) failed = loader->backend->ops->write(loader->backend, at, values, count * sizeof *values, error);
  free(values);
  set->vector[rows[0].slot] = at;
  loader->vector_offset += bytes;
  loader->out->parameters += (int64_t)count;
  return failed;
}

/* ---- the table ---- */

/* How many rows from `i` on share its slot. */
static size_t same_slot(const struct arch_family *family, size_t i) {
  size_t n = 1;
  while (i + n < family->n_rows && family->rows[i + n].slot == family->rows[i].slot) n++;
  return n;
}

/* Those of rows [i, i + n) that this model has, copied together. */
static int rows_there(const struct loader *loader, size_t i, size_t n, struct weight_row out[MATRIX_MAX_PARTS]) {
  int there = 0;
  for (size_t k = i; k < i + n; k++) {
    if (!is_there(loader, &loader->family->rows[k])) continue;
    assert(there < MATRIX_MAX_PARTS);
    out[there++] = loader->family->rows[k];
  }
  return there;
}

static int load_rows(struct loader *loader, struct error *error) {
  const struct arch_family *family = loader->family;
  struct weight_row rows[MATRIX_MAX_PARTS];
  for (size_t i = 0, n; i < family->n_rows; i += n) {
    n = same_slot(family, i);
    int there = rows_there(loader, i, n, rows);
    if (there == 0) continue;
    bool per_layer = is_per_layer(&rows[0]);
    for (int l = 0; l < (per_layer ? loader->arch->n_layer : 1); l++) {
      struct weight_set *set = per_layer ? &loader->out->layers[l] : &loader->out->once;
      int failed = is_vector(&rows[0])  ? load_vector(loader, rows, there, l, set, error)
                   : rows[0].factor ? load_table(loader, &rows[0], set, error)
                                    : load_matrix(loader, rows, there, l, set, error);
      if (failed) return -1;
    }
  }
  return 0;
}

/* Every tensor of the table is there in its shape, before anything is allocated by what config.json claims. */
static int check_rows(struct loader *loader, struct error *error) {
  const struct arch_family *family = loader->family;
  for (size_t i = 0; i < family->n_rows; i++) {
    if (!is_there(loader, &family->rows[i])) continue;
    int layers = is_per_layer(&family->rows[i]) ? loader->arch->n_layer : 1;
    for (int l = 0; l < layers; l++)
      for (int head = 0; head < tensors_of(loader->arch, &family->rows[i]); head++)
        if (!find(loader, &family->rows[i], l, head, error)) return -1;
    struct weight_row factor = factor_of(&family->rows[i]);
    if (factor.name && !find(loader, &factor, 0, 0, error)) return -1;
  }
  return 0;
}

/* The prefix under which the file has the table's first tensor. */
static int choose_prefix(struct loader *loader, struct error *error) {
  char name[NAME_BYTES];
  for (const char *const *prefix = loader->family->prefixes; *prefix; prefix++) {
    loader->prefix = *prefix;
    tensor_name(loader, &loader->family->rows[0], 0, 0, name);
    if (tensors_find(loader->tensors, name)) return 0;
  }
  loader->prefix = loader->family->prefixes[0];
  tensor_name(loader, &loader->family->rows[0], 0, 0, name);
  return error_set(error, ERROR_FORMAT, "tensor '%s' is missing: these are not the weights of a %s model", name,
                   loader->family->name);
}

static int allocate(struct loader *loader, struct error *error) {
  size_t bytes = 0;
  struct weight_row rows[MATRIX_MAX_PARTS];
  for (size_t i = 0, n; i < loader->family->n_rows; i += n) {
    size_t all;
    n = same_slot(loader->family, i);
    int there = rows_there(loader, i, n, rows);
    if (there == 0 || !is_vector(&rows[0])) continue;
    if (!checked_mul(vectors_bytes(loader->arch, rows, there),
                     is_per_layer(&rows[0]) ? (size_t)loader->arch->n_layer : 1, &all) ||
        !checked_add(bytes, all, &bytes))
      return error_memory(error, SIZE_MAX);
  }
  loader->out->layers = calloc((size_t)loader->arch->n_layer, sizeof *loader->out->layers);
  if (!loader->out->layers) return error_memory(error, (size_t)loader->arch->n_layer * sizeof *loader->out->layers);
  return loader->backend->ops->alloc(loader->backend, bytes ? bytes : 64, &loader->out->vectors, error);
}

/* ---- tensors that nothing reads ---- */

/* "layers.%d.x" against "layers.11.x": the number must be a layer of this model, a second one a head. */
static bool name_fits(const struct loader *loader, const struct weight_row *row, const char *name) {
  bool whole = row->name[0] == '/';
  size_t skip = whole ? 0 : strlen(loader->prefix);
  const char *pattern = row->name + whole, *digit;
  long limits[] = {loader->arch->n_layer, tensors_of(loader->arch, row)};
  if (strncmp(name, loader->prefix, skip) != 0) return false;
  name += skip;
  for (int k = 0; k < 2 && (digit = strstr(pattern, "%d")); k++, pattern = digit + 2) {
    if (strncmp(name, pattern, (size_t)(digit - pattern)) != 0) return false;
    name += digit - pattern;
    if (!isdigit((unsigned char)*name) || (name[0] == '0' && isdigit((unsigned char)name[1]))) return false;
    char *end;
    if (strtol(name, &end, 10) >= limits[k]) return false;
    name = end;
  }
  return strcmp(name, pattern) == 0;
}

/* The tensor is the row's own or its factor. */
static bool belongs(const struct loader *loader, const struct weight_row *row, const char *name) {
  struct weight_row factor = factor_of(row);
  return is_there(loader, row) && (name_fits(loader, row, name) || (factor.name && name_fits(loader, &factor, name)));
}

static bool is_ignored(const struct arch_family *family, const char *name) {
  for (const char *const *at = family->ignored; at && *at; at++) {
    size_t length = strlen(*at), have = strlen(name);
    if (**at == '*' && have >= length - 1 && strcmp(name + have - (length - 1), *at + 1) == 0) return true;
    if ((*at)[length - 1] == '*' && strncmp(name, *at, length - 1) == 0) return true;
    if (strcmp(name, *at) == 0) return true;
  }
  return false;
}

/* A tensor that the table does not know is a part of the model that would silently be left out. */
static int check_unknown(const struct loader *loader, struct error *error) {
  for (size_t i = 0; i < tensors_count(loader->tensors); i++) {
    const struct tensor *tensor = tensors_at(loader->tensors, i);
    bool known = is_ignored(loader->family, tensor->name);
    for (size_t k = 0; k < loader->family->n_rows && !known; k++)
      known = belongs(loader, &loader->family->rows[k], tensor->name);
    if (!known)
      return error_set(error, ERROR_UNSUPPORTED,
                       "tensor '%.120s' belongs to no part of a %s model of %d layers as config.json describes it",
                       tensor->name, loader->family->name, loader->arch->n_layer);
  }
  return 0;
}

/* ---- slot by slot ---- */

static struct loader loader_of(const struct weight_reader *reader) {
  return (struct loader){.arch = reader->arch, .family = reader->family, .tensors = reader->tensors,
                         .prefix = reader->prefix};
}

int weight_reader_open(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                       struct weight_reader *out, struct error *error) {
  *out = (struct weight_reader){.arch = arch, .family = family, .tensors = tensors, .prefix = ""};
  struct loader loader = loader_of(out);
  if (choose_prefix(&loader, error) != 0 || check_unknown(&loader, error) != 0 || check_rows(&loader, error) != 0)
    return -1;
  const struct weight_row *row = family->rows;
  while (!is_there(&loader, row)) row++; /* every model has some */
  const struct tensor *first = find(&loader, row, 0, 0, error);
  if (!first) return -1;
  out->prefix = loader.prefix;
  out->dtype = first->dtype;
  return 0;
}

/* Row after row of the model. */
static void read_part(const struct matrix_part *part, int64_t n_in, float *out) {
  size_t step = part->layout == ROWS_ARE_OUTPUTS ? 1 : (size_t)part->ld;
  for (int64_t o = 0; o < part->n_out; o++) {
    const unsigned char *row = (const unsigned char *)part->data + (size_t)part_element(part, o, 0) * dtype_size(part->dtype);
    dtype_to_f32(row, part->dtype, step, (size_t)n_in, out + o * n_in);
  }
}

/* Rows of one slot into `out`, one after the other. */
static int read_rows(const struct loader *loader, const struct weight_row *rows, int n, int layer, float *out,
                     struct error *error) {
  for (int i = 0; i < n; i++) {
    for (int head = 0; head < tensors_of(loader->arch, &rows[i]); head++) {
      const struct tensor *tensor = find(loader, &rows[i], layer, head, error);
      if (!tensor) return -1;
      struct matrix_part part = part_of(loader->arch, &rows[i], tensor);
      if (is_vector(&rows[i]))
        read_vector(loader->arch, &rows[i], tensor, out + (size_t)head * (size_t)loader->arch->d_head);
      else
        read_part(&part, arch_dim(loader->arch, rows[i].in), out);
    }
    out += vector_count(loader->arch, &rows[i]);
  }
  return 0;
}

/* Those of one slot that this model has, copied together. */
static int rows_of(const struct weight_reader *reader, enum weight_slot slot, struct weight_row out[MATRIX_MAX_PARTS]) {
  struct loader loader = loader_of(reader);
  size_t i = 0;
  while (i < reader->family->n_rows && reader->family->rows[i].slot != slot) i++;
  return i < reader->family->n_rows ? rows_there(&loader, i, same_slot(reader->family, i), out) : 0;
}

bool weight_reader_has(const struct weight_reader *reader, enum weight_slot slot) {
  struct weight_row rows[MATRIX_MAX_PARTS];
  return rows_of(reader, slot, rows) > 0;
}

int weight_reader_read(const struct weight_reader *reader, enum weight_slot slot, int layer, float **out,
                       struct error *error) {
  struct loader loader = loader_of(reader);
  struct weight_row rows[MATRIX_MAX_PARTS];
  size_t count = 0, bytes;
  int n = rows_of(reader, slot, rows);
  *out = NULL;
  if (n == 0 || (is_vector(&rows[0]) && is_left_out(&loader, rows, n, layer))) return 0;
  for (int k = 0; k < n; k++) count += vector_count(reader->arch, &rows[k]);
  if (!checked_mul(count, sizeof **out, &bytes)) bytes = SIZE_MAX;
  *out = malloc(bytes);
  if (!*out) return error_memory(error, bytes);
  int failed = read_rows(&loader, rows, n, layer, *out, error);
  tensors_forget(reader->tensors);
  if (!failed) return 0;
  free(*out);
  *out = NULL;
  return -1;
}

int weight_reader_part(const struct weight_reader *reader, enum weight_slot slot, int layer, struct matrix_part *out,
                       struct error *error) {
  struct loader loader = loader_of(reader);
  struct weight_row rows[MATRIX_MAX_PARTS];
  int n = rows_of(reader, slot, rows);
  if (n != 1)
    return error_set(error, ERROR_UNSUPPORTED, "the matrix of this part of a %s model comes in %d tensors, expected 1",
                     reader->family->name, n);
  const struct tensor *tensor = find(&loader, &rows[0], layer, 0, error);
  if (!tensor) return -1;
  *out = part_of(reader->arch, &rows[0], tensor);
  return 0;
}

/* ---- all of it ---- */

int weights_load(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                 struct backend *backend, struct weights *out, struct error *error) {
  return weights_load_as(arch, family, tensors, backend, DTYPE_OTHER, out, error);
}

/* A device says before the first byte is sent whether there is room; the host's memory is looked after elsewhere. Weights are as
 * large there as in the file, but for a few vectors. */
static int check_device_room(const struct loader *loader, struct error *error) {
  size_t left, total, needed = tensors_bytes(loader->tensors);
  if (arch_has(loader->arch, HAS_NARROW_EMBED))
    needed += 2 * (size_t)loader->arch->vocabulary * (size_t)loader->arch->d_model * sizeof(float);
  struct backend *backend = loader->backend;
  if (!backend->ops->room) return 0;
  if (backend->ops->room(backend, &left, &total, error) != 0) return -1;
  log_info("weights take about %zu MiB of the %zu MiB that are free on %s", needed >> 20, left >> 20, backend->ops->name);
  if (needed <= left) return 0;
  return error_set(error, ERROR_MEMORY, "the weights need about %zu MiB, %s has %zu MiB free of %zu MiB (--device cpu runs without it)",
                   needed >> 20, backend->ops->name, left >> 20, total >> 20);
}

int weights_load_as(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                    struct backend *backend, enum dtype keep, struct weights *out, struct error *error) {
  memset(out, 0, sizeof *out);
  out->n_layer = arch->n_layer;
  struct loader loader = {arch, family, tensors, backend, keep, out, "", 0, 0};
  if (choose_prefix(&loader, error) != 0 || check_unknown(&loader, error) != 0 || check_rows(&loader, error) != 0 ||
      check_device_room(&loader, error) != 0 || allocate(&loader, error) != 0 || load_rows(&loader, error) != 0) {
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
  for (size_t i = 0; i < weights->n_copies; i++) free(weights->copies[i]);
  free(weights->copies);
  backend->ops->free(backend, weights->vectors);
  memset(weights, 0, sizeof *weights);
}
