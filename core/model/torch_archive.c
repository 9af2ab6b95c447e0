/* What the zip and the pickle of a torch file mean: finds the storages, checks every view against its storage,
 * and flattens the dict. Refuses to know how either container is encoded. */
#include "core/model/torch_archive.h"

#include "core/model/torch_fields.h"

#include <stdio.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/model/pickle.h"
#include "core/model/zip.h"

#define PICKLE_BYTES_MAX ((size_t)64 << 20)
#define MAX_DEPTH 8           /* of dicts, lists and tuples within each other */
#define MAX_VISITS 4000000    /* values looked at: a shared dict costs its reader time at every use */

/* A tag below DTYPE_COUNT is the element type of a storage class. */
enum { TAG_DICT = 100, TAG_TENSOR, TAG_PARAMETER };

static const struct pickle_global globals[] = {
    {"collections.OrderedDict", PICKLE_CALL_DICT, TAG_DICT},
    {"torch._utils._rebuild_tensor_v2", PICKLE_CALL_OBJECT, TAG_TENSOR},
    {"torch._utils._rebuild_parameter", PICKLE_CALL_OBJECT, TAG_PARAMETER},
    {"torch.FloatStorage", PICKLE_CALL_REFUSE, DTYPE_F32},
    {"torch.HalfStorage", PICKLE_CALL_REFUSE, DTYPE_F16},
    {"torch.BFloat16Storage", PICKLE_CALL_REFUSE, DTYPE_BF16},
    {"torch.DoubleStorage", PICKLE_CALL_REFUSE, DTYPE_F64},
    {"torch.CharStorage", PICKLE_CALL_REFUSE, DTYPE_I8},
    {"torch.ByteStorage", PICKLE_CALL_REFUSE, DTYPE_U8},
    {"torch.ShortStorage", PICKLE_CALL_REFUSE, DTYPE_I16},
    {"torch.IntStorage", PICKLE_CALL_REFUSE, DTYPE_I32},
    {"torch.LongStorage", PICKLE_CALL_REFUSE, DTYPE_I64},
    {"torch.BoolStorage", PICKLE_CALL_REFUSE, DTYPE_BOOL}};

struct archive {
  struct zip *zip;
  size_t root; /* length of ROOT in the name of data.pkl */
  const struct zip_member *pickle;
  struct arena arena; /* of the pickle's values */
  struct tensor_list *list;
  size_t tensors_left, visits_left;
};

struct storage {
  enum dtype dtype;
  const unsigned char *data;
  int64_t count; /* elements */
};

/* ---- members ---- */

/* The member ROOT/`name`, or NULL. */
static const struct zip_member *find_member(const struct archive *archive, const char *name, size_t length) {
  char path[1024];
  int n = snprintf(path, sizeof path, "%.*s/%.*s", (int)archive->root, archive->pickle->name,
                   (int)size_min(length, 512), name);
  return n > 0 && (size_t)n < sizeof path ? zip_find(archive->zip, path) : NULL;
}

static int find_pickle(struct archive *archive, struct error *error) {
  for (size_t i = 0; i < zip_count(archive->zip); i++) {
    const struct zip_member *member = zip_at(archive->zip, i);
    const char *slash = strchr(member->name, '/');
    if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
    if (archive->pickle) return error_set(error, ERROR_FORMAT, "it holds two files named data.pkl");
    archive->pickle = member;
    archive->root = (size_t)(slash - member->name);
  }
  if (!archive->pickle)
    return error_set(error, ERROR_FORMAT, "a zip archive, but neither from torch.save (no member ends in '/data.pkl') nor from numpy.savez "
                     "(its first member does not end in '.npy')");
  if (archive->pickle->size > PICKLE_BYTES_MAX)
    return error_set(error, ERROR_LIMIT, "data.pkl has %zu bytes, at most %zu are read", archive->pickle->size,
                     PICKLE_BYTES_MAX);
  if (zip_check_stored(archive->pickle, error) != 0) return -1;
  return zip_check_crc(archive->pickle, error);
}

static int check_byteorder(const struct archive *archive, struct error *error) {
  const struct zip_member *member = find_member(archive, "byteorder", strlen("byteorder"));
  if (!member) return 0;
  if (zip_check_stored(member, error) != 0) return -1;
  if (member->size == 6 && memcmp(member->data, "little", 6) == 0) return 0;
  return error_set(error, ERROR_FORMAT, "its byteorder is '%.*s', expected 'little'", (int)size_min(member->size, 16),
                   (const char *)member->data);
}

/* ---- tensors ---- */

static int is_storage_id(const struct pickle_value *id) {
  if (id->kind != PICKLE_TUPLE || id->as.items.count != 5) return 0;
  struct pickle_value *const *item = id->as.items.list;
  return pickle_is_text(item[0], "storage") && item[1]->kind == PICKLE_GLOBAL &&
         item[1]->as.global->tag < DTYPE_COUNT && item[2]->kind == PICKLE_TEXT && item[4]->kind == PICKLE_INT;
}

/* ('storage', class, key, device, elements): the member must hold exactly so many. */
static int read_storage(const struct archive *archive, const struct pickle_value *value, struct storage *out,
                        struct error *error) {
  if (value->kind != PICKLE_PERSISTENT || !is_storage_id(value->as.id))
    return error_set(error, ERROR_FORMAT,
                     "its storage is not given as ('storage', class, key, device, elements)");
  struct pickle_value *const *item = value->as.id->as.items.list;
  const char *key = item[2]->as.text.data;
  int key_length = (int)size_min(item[2]->as.text.length, 512);
  char path[540];
  int n = snprintf(path, sizeof path, "data/%.*s", key_length, key);
  const struct zip_member *member = find_member(archive, path, (size_t)n);
  if (!member || item[2]->as.text.length > 512)
    return error_set(error, ERROR_FORMAT, "its storage '%.60s' is not in the file", path);
  if (zip_check_stored(member, error) != 0) return -1;
  out->dtype = (enum dtype)item[1]->as.global->tag;
  out->data = member->data;
  out->count = item[4]->as.integer;
  size_t bytes;
  if (out->count < 0 || !checked_mul((size_t)out->count, dtype_size(out->dtype), &bytes) || bytes != member->size)
    return error_set(error, ERROR_FORMAT, "its storage claims %lld elements of %s, '%.60s' has %zu bytes",
                     (long long)out->count, dtype_name(out->dtype), member->name, member->size);
  return 0;
}

static int read_integers(const struct pickle_value *value, const char *what, int64_t out[TENSOR_MAX_DIMS], int *count,
                         struct error *error) {
  if (value->kind != PICKLE_TUPLE)
    return error_set(error, ERROR_FORMAT, "its %s is %s, expected a tuple", what, pickle_kind_word(value->kind));
  if (value->as.items.count > TENSOR_MAX_DIMS)
    return error_set(error, ERROR_FORMAT, "its %s has %zu dimensions, at most %d are read", what,
                     value->as.items.count, TENSOR_MAX_DIMS);
  *count = (int)value->as.items.count;
  for (int i = 0; i < *count; i++) {
    const struct pickle_value *item = value->as.items.list[i];
    if (item->kind != PICKLE_INT || item->as.integer < 0)
      return error_set(error, ERROR_FORMAT, "its %s[%d] is not an integer of 0 or more", what, i);
    out[i] = item->as.integer;
  }
  return 0;
}

/* From the smallest stride up, each must step over everything the smaller ones reach: then no two indices meet
 * in one element, and a small file cannot pose as a large tensor. *last is the farthest element reached. */
static int check_strides(const struct tensor *tensor, int64_t *last, struct error *error) {
  bool done[TENSOR_MAX_DIMS] = {false};
  *last = 0;
  for (int round = 0; round < tensor->n_dims; round++) {
    int next = -1;
    for (int i = 0; i < tensor->n_dims; i++)
      if (!done[i] && (next < 0 || tensor->stride[i] < tensor->stride[next])) next = i;
    done[next] = true;
    int64_t reach;
    if (tensor->shape[next] == 1) continue; /* its stride is never walked */
    if (tensor->stride[next] <= *last)
      return error_set(error, ERROR_FORMAT, "its strides make elements overlap (dimension %d, stride %lld)", next,
                       (long long)tensor->stride[next]);
    if (__builtin_mul_overflow(tensor->shape[next] - 1, tensor->stride[next], &reach) ||
        __builtin_add_overflow(*last, reach, last))
      return error_set(error, ERROR_FORMAT, "its strides and sizes overflow");
  }
  return 0;
}

static int place(struct tensor *tensor, const struct storage *storage, int64_t offset, struct error *error) {
  size_t count;
  int64_t last = 0, need = 0;
  if (!tensor_element_count(tensor->shape, tensor->n_dims, &count) ||
      !checked_mul(count, dtype_size(storage->dtype), &tensor->bytes))
    return error_set(error, ERROR_FORMAT, "the product of its dimensions overflows");
  if (count) {
    if (check_strides(tensor, &last, error) != 0) return -1;
    if (__builtin_add_overflow(last, 1, &need)) need = INT64_MAX;
  }
  if (offset < 0 || offset > storage->count || need > storage->count - offset)
    return error_set(error, ERROR_FORMAT, "it reaches over %lld elements from offset %lld, its storage has %lld",
                     (long long)need, (long long)offset, (long long)storage->count);
  tensor->dtype = storage->dtype;
  tensor->data = storage->data + (size_t)offset * dtype_size(storage->dtype);
  return 0;
}

/* (storage, offset, size, stride, requires_grad, hooks[, metadata]) */
static int read_view(const struct archive *archive, const struct pickle_value *arguments, struct tensor *out,
                     struct error *error) {
  struct storage storage = {0};
  int n_strides;
  struct pickle_value *const *item = arguments->as.items.list;
  if (arguments->as.items.count < 6 || arguments->as.items.count > 7 || item[1]->kind != PICKLE_INT)
    return error_set(error, ERROR_FORMAT,
                     "it is rebuilt from %zu arguments, expected storage, offset, size, stride, requires_grad and "
                     "hooks",
                     arguments->as.items.count);
  if (read_storage(archive, item[0], &storage, error) != 0) return -1;
  if (read_integers(item[2], "size", out->shape, &out->n_dims, error) != 0) return -1;
  if (read_integers(item[3], "stride", out->stride, &n_strides, error) != 0) return -1;
  if (n_strides != out->n_dims)
    return error_set(error, ERROR_FORMAT, "it has %d sizes and %d strides", out->n_dims, n_strides);
  return place(out, &storage, item[1]->as.integer, error);
}

static int add_tensor(struct archive *archive, const char *name, const struct pickle_value *arguments,
                      struct error *error) {
  struct tensor view = {0};
  struct error inner = ERROR_INIT;
  if (archive->tensors_left-- == 0)
    return error_set(error, ERROR_LIMIT, "it lists more tensors than a pickle of %zu bytes can hold",
                     archive->pickle->size);
  if (read_view(archive, arguments, &view, &inner) != 0)
    return error_set(error, inner.code, "tensor '%.100s': %s", name, inner.text);
  struct tensor *tensor = tensor_list_add(archive->list, name, strlen(name), error);
  if (!tensor) return -1;
  view.name = tensor->name;
  *tensor = view;
  return 0;
}

/* ---- the walk ---- */

/* A place in the tree; the name is built in place, so that each level only appends. */
struct walk {
  char name[TENSOR_NAME_MAX + 2];
  size_t length;
  int depth;
};

static int visit(struct archive *archive, struct walk *walk, const struct pickle_value *value, struct error *error);

static int visit_member(struct archive *archive, struct walk *walk, const char *key, size_t key_length,
                        const struct pickle_value *value, struct error *error) {
  size_t before = walk->length, dot = before ? 1 : 0;
  if (memchr(key, 0, key_length)) return error_set(error, ERROR_FORMAT, "a key holds a NUL character");
  if (key_length > TENSOR_NAME_MAX - dot || before > TENSOR_NAME_MAX - dot - key_length)
    return error_set(error, ERROR_FORMAT, "the name '%.40s...' is longer than %d bytes", before ? walk->name : key,
                     TENSOR_NAME_MAX);
  if (dot) walk->name[walk->length++] = '.';
  memcpy(walk->name + walk->length, key, key_length);
  walk->length += key_length;
  walk->name[walk->length] = '\0';
  int rc = visit(archive, walk, value, error);
  walk->length = before;
  walk->name[before] = '\0';
  return rc;
}

static int visit_number(struct archive *archive, struct walk *walk, int64_t key, const struct pickle_value *value,
                        struct error *error) {
  char text[24];
  int n = snprintf(text, sizeof text, "%lld", (long long)key);
  return visit_member(archive, walk, text, (size_t)n, value, error);
}

static int visit_dict(struct archive *archive, struct walk *walk, const struct pickle_value *dict,
                      struct error *error) {
  for (size_t i = 0; i < dict->as.items.count; i += 2) {
    const struct pickle_value *key = dict->as.items.list[i], *value = dict->as.items.list[i + 1];
    int rc;
    if (key->kind == PICKLE_TEXT)
      rc = visit_member(archive, walk, key->as.text.data, key->as.text.length, value, error);
    else if (key->kind == PICKLE_INT)
      rc = visit_number(archive, walk, key->as.integer, value, error);
    else
      rc = error_set(error, ERROR_FORMAT, "a key below '%.100s' is %s, expected a string or an integer", walk->name,
                     pickle_kind_word(key->kind));
    if (rc != 0) return rc;
  }
  return 0;
}

static int visit_sequence(struct archive *archive, struct walk *walk, const struct pickle_value *sequence,
                          struct error *error) {
  for (size_t i = 0; i < sequence->as.items.count; i++)
    if (visit_number(archive, walk, (int64_t)i, sequence->as.items.list[i], error) != 0) return -1;
  return 0;
}

static int visit_object(struct archive *archive, struct walk *walk, const struct pickle_value *object,
                        struct error *error) {
  const struct pickle_value *arguments = object->as.object.arguments;
  if (object->as.object.callee->tag == TAG_TENSOR) return add_tensor(archive, walk->name, arguments, error);
  if (arguments->as.items.count == 0)
    return error_set(error, ERROR_FORMAT, "parameter '%.100s' is rebuilt from nothing", walk->name);
  return visit(archive, walk, arguments->as.items.list[0], error); /* (tensor, requires_grad, hooks) */
}

static int visit(struct archive *archive, struct walk *walk, const struct pickle_value *value, struct error *error) {
  bool nested = value->kind == PICKLE_OBJECT || value->kind == PICKLE_DICT || value->kind == PICKLE_LIST ||
                value->kind == PICKLE_TUPLE;
  if (archive->visits_left-- == 0)
    return error_set(error, ERROR_LIMIT, "its dict holds more than %d values, shared ones counted at every use",
                     MAX_VISITS);
  if (!nested) return 0;
  if (walk->depth == MAX_DEPTH)
    return error_set(error, ERROR_FORMAT, "'%.100s' nests deeper than %d levels", walk->name, MAX_DEPTH);
  walk->depth++;
  int rc = value->kind == PICKLE_OBJECT ? visit_object(archive, walk, value, error)
           : value->kind == PICKLE_DICT ? visit_dict(archive, walk, value, error)
                                        : visit_sequence(archive, walk, value, error);
  walk->depth--;
  return rc;
}

static int read_tensors(struct archive *archive, struct error *error) {
  struct walk walk = {.length = 0};
  const struct zip_member *member = archive->pickle;
  const struct pickle_value *top = pickle_read(member->data, member->size, globals,
                                               sizeof globals / sizeof globals[0], &archive->arena, error);
  if (!top) return -1;
  if (top->kind != PICKLE_DICT)
    return error_set(error, ERROR_FORMAT, "the pickle holds %s, expected a dict of tensors",
                     top->kind == PICKLE_OBJECT ? "a bare tensor" : pickle_kind_word(top->kind));
  return visit(archive, &walk, top, error);
}

static int read_archive(struct archive *archive, const struct mapfile *file, struct error *error) {
  archive->zip = zip_open(file->data, file->size, error);
  if (!archive->zip || find_pickle(archive, error) != 0 || check_byteorder(archive, error) != 0) return -1;
  /* No tensor takes fewer than 32 bytes of pickle; the rest is for small dicts that are shared. */
  archive->tensors_left = 4096 + archive->pickle->size / 32;
  archive->visits_left = MAX_VISITS;
  archive->arena.limit = archive->pickle->size * 8 + ((size_t)64 << 20);
  archive->list->names.limit = archive->list->names.used + archive->arena.limit;
  return read_tensors(archive, error);
}

int torch_archive_read(const char *path, const struct mapfile *file, struct tensor_list *list, struct error *error) {
  struct archive archive = {.list = list};
  struct error inner = ERROR_INIT;
  arena_init(&archive.arena, 0);
  int rc = read_archive(&archive, file, &inner);
  if (rc != 0) error_set(error, inner.code, "'%s': %s", path, inner.text);
  arena_clear(&archive.arena);
  zip_close(archive.zip);
  return rc;
}

/* ---- what is no tensor ---- */

/* The value at "a.b" below a dict, or NULL. */
static const struct pickle_value *field_at(const struct pickle_value *value, const char *name) {
  while (value && value->kind == PICKLE_DICT) {
    size_t length = strcspn(name, ".");
    const struct pickle_value *found = NULL;
    for (size_t i = 0; i < value->as.items.count && !found; i += 2) {
      const struct pickle_value *key = value->as.items.list[i];
      if (key->kind == PICKLE_TEXT && key->as.text.length == length && !memcmp(key->as.text.data, name, length))
        found = value->as.items.list[i + 1];
    }
    if (!name[length]) return found;
    value = found;
    name += length + 1;
  }
  return NULL;
}

struct text_field {
  char *out;
  size_t size;
};

static int keep_text(const struct pickle_value *value, void *context) {
  struct text_field *field = context;
  if (value->kind != PICKLE_TEXT) return -1;
  snprintf(field->out, field->size, "%.*s", (int)size_min(value->as.text.length, field->size), value->as.text.data);
  return 0;
}

static int keep_int(const struct pickle_value *value, void *context) {
  if (value->kind != PICKLE_INT) return -1;
  *(int64_t *)context = value->as.integer;
  return 0;
}

/* Calls `keep` with the value while the file is open; nothing to keep where there is none. */
static int with_field(const char *path, const char *name, int (*keep)(const struct pickle_value *, void *), void *context,
                      struct error *error) {
  struct archive archive = {.list = NULL};
  struct mapfile file = {NULL, 0};
  struct error inner = ERROR_INIT;
  if (mapfile_open(path, &file, error) != 0) return -1;
  arena_init(&archive.arena, 0);
  archive.zip = zip_open(file.data, file.size, &inner);
  int rc = archive.zip ? find_pickle(&archive, &inner) : -1;
  if (rc == 0) {
    archive.arena.limit = archive.pickle->size * 8 + ((size_t)64 << 20);
    const struct pickle_value *top = pickle_read(archive.pickle->data, archive.pickle->size, globals,
                                                 sizeof globals / sizeof globals[0], &archive.arena, &inner);
    const struct pickle_value *value = top ? field_at(top, name) : NULL;
    if (!top || (value && keep(value, context) != 0)) rc = -1;
    if (top && rc != 0)
      error_set(&inner, ERROR_FORMAT, "'%.60s' is %s, expected %s", name, pickle_kind_word(value->kind),
                keep == keep_text ? "a text" : "an integer");
  }
  if (rc != 0) error_set(error, inner.code, "'%s': %s", path, inner.text);
  arena_clear(&archive.arena);
  zip_close(archive.zip);
  mapfile_close(&file);
  return rc;
}

int torch_field_text(const char *path, const char *name, char *out, size_t size, struct error *error) {
  return with_field(path, name, keep_text, &(struct text_field){out, size}, error);
}

int torch_field_int(const char *path, const char *name, int64_t *out, struct error *error) {
  return with_field(path, name, keep_int, out, error);
}
