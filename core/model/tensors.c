/* Opens files and sets of files by what they hold, and serves their tensors. Owns the mappings; leaves every
 * byte of a format to its reader. */
#include "core/model/tensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/json.h"
#include "core/base/mapfile.h"
#include "core/model/llama2c.h"
#include "core/model/npy.h"
#include "core/model/npz.h"
#include "core/model/safetensors.h"
#include "core/model/tensor_list.h"
#include "core/model/torch_archive.h"

#define INDEX_BYTES_MAX ((size_t)32 << 20)
#define SHARDS_MAX 1024
#define SHARD_NAME_MAX 255

struct tensors {
  const char *format;
  struct mapfile *files;
  size_t n_files;
  struct tensor_list list;
  struct npz_packed_list packed; /* of a compressed .npz */
};

/* ---- one file ---- */

static bool begins(const struct mapfile *file, const void *magic, size_t length) {
  return file->size >= length && memcmp(file->data, magic, length) == 0;
}

static int refuse_unknown(const char *path, const struct mapfile *file, struct error *error) {
  if (file->size == 0) return error_set(error, ERROR_FORMAT, "'%s' is empty", path);
  if (file->data[0] == 0x80 && file->size > 1 && file->data[1] <= 5)
    return error_set(error, ERROR_UNSUPPORTED,
                     "'%s' is a bare pickle, as torch wrote before 1.6, which is not read; save it again with a "
                     "newer torch: torch.save(torch.load(path), path)",
                     path);
  if (begins(file, "GGUF", 4))
    return error_set(error, ERROR_FORMAT, "'%s' is a GGUF file; expected safetensors, a torch archive or .npz", path);
  if (begins(file, "24ka", 4))
    return error_set(error, ERROR_UNSUPPORTED,
                     "'%s' is a llama2.c checkpoint of a later version; version 0 is read (export.py --version 0)", path);
  if (begins(file, "version https://git-lfs", 23))
    return error_set(error, ERROR_FORMAT, "'%s' is a Git LFS pointer; fetch its content first (git lfs pull)", path);
  return error_set(error, ERROR_FORMAT,
                   "'%s' is neither safetensors, a torch archive nor .npz: %zu bytes, the first is 0x%02x", path,
                   file->size, file->data[0]);
}

/* A bare array has no name of its own. */
static int read_array(const char *path, const struct mapfile *file, struct tensor_list *list, struct error *error) {
  struct tensor view = {0};
  struct error inner = ERROR_INIT;
  size_t header = 0;
  if (npy_read_header(file->data, file->size, &view, &header, &inner) != 0)
    return error_set(error, inner.code, "'%s': %s", path, inner.text);
  if (file->size - header != view.bytes)
    return error_set(error, ERROR_FORMAT, "'%s': type and shape need %zu bytes, %zu stand behind the header", path,
                     view.bytes, file->size - header);
  struct tensor *tensor = tensor_list_add(list, "array", 5, error);
  if (!tensor) return -1;
  view.name = tensor->name;
  view.data = file->data + header;
  *tensor = view;
  return 0;
}

/* The formats that come in shards. */
static int read_weights(struct tensors *tensors, const char *path, const struct mapfile *file, struct error *error) {
  if (begins(file, "PK\3\4", 4) || begins(file, "PK\5\6", 4)) {
    tensors->format = "torch";
    return torch_archive_read(path, file, &tensors->list, error);
  }
  if (file->size > 8 && file->data[8] == '{') {
    tensors->format = "safetensors";
    return safetensors_read(path, file, &tensors->list, error);
  }
  return refuse_unknown(path, file, error);
}

static int read_file(struct tensors *tensors, const char *path, const struct mapfile *file, struct error *error) {
  if (npz_begins(file)) {
    tensors->format = "npz";
    return npz_read(path, file, &tensors->list, &tensors->packed, error);
  }
  if (npy_begins(file->data, file->size)) {
    tensors->format = "npy";
    return read_array(path, file, &tensors->list, error);
  }
  if (llama2c_begins(file)) {
    tensors->format = "llama2.c";
    return llama2c_read(path, file, &tensors->list, error);
  }
  return read_weights(tensors, path, file, error);
}

static int open_single(struct tensors *tensors, const char *path, struct error *error) {
  tensors->files = calloc(1, sizeof *tensors->files);
  if (!tensors->files) return error_memory(error, sizeof *tensors->files);
  if (mapfile_open(path, &tensors->files[0], error) != 0) return -1;
  tensors->n_files = 1;
  return read_file(tensors, path, &tensors->files[0], error);
}

/* ---- a sharded set ---- */

struct shard {
  const char *name;
  size_t first, end; /* its tensors in the list */
};

struct index {
  const char *path;
  struct json_node *root;
  const struct json_node *map; /* tensor name -> shard name */
  struct shard *shards;        /* sorted by name, unique */
  size_t n_shards;
};

static int compare_shards(const void *a, const void *b) {
  return strcmp(((const struct shard *)a)->name, ((const struct shard *)b)->name);
}

/* A name in the folder of the index itself, never a path: an index must not point anywhere else. */
static int check_shard_name(const struct index *index, const char *tensor, const struct json_node *value,
                            struct error *error) {
  size_t length = 0;
  const char *name = json_text(value, &length);
  if (!name)
    return error_set(error, ERROR_FORMAT, "'%s': weight_map['%.100s'] is %s, expected a file name", index->path,
                     tensor, json_kind_word(json_kind(value)));
  bool plain = length > 0 && length <= SHARD_NAME_MAX && strlen(name) == length && name[0] != '.' &&
               !strpbrk(name, "/\\");
  if (!plain)
    return error_set(error, ERROR_FORMAT,
                     "'%s': weight_map['%.100s'] is '%.100s', expected the name of a file in the same folder",
                     index->path, tensor, name);
  return 0;
}

/* Fills index->shards with the distinct names of the map. */
static int list_shards(struct index *index, struct error *error) {
  size_t n = json_count(index->map), kept = 0;
  void *iterator = NULL;
  const char *key;
  const struct json_node *value;
  if (json_kind(index->map) != JSON_KIND_OBJECT || n == 0)
    return error_set(error, ERROR_FORMAT, "'%s': 'weight_map' is missing or empty", index->path);
  index->shards = calloc(n, sizeof *index->shards);
  if (!index->shards) return error_memory(error, n * sizeof *index->shards);
  while (json_next(index->map, &iterator, &key, &value)) {
    if (check_shard_name(index, key, value, error) != 0) return -1;
    index->shards[index->n_shards++].name = json_text(value, NULL);
  }
  qsort(index->shards, n, sizeof *index->shards, compare_shards);
  for (size_t i = 0; i < n; i++)
    if (kept == 0 || compare_shards(&index->shards[kept - 1], &index->shards[i]) != 0)
      index->shards[kept++] = index->shards[i];
  index->n_shards = kept;
  if (kept > SHARDS_MAX)
    return error_set(error, ERROR_LIMIT, "'%s' names %zu files, at most %d are read", index->path, kept, SHARDS_MAX);
  return 0;
}

static int read_shard(struct tensors *tensors, const char *folder, struct shard *shard, struct error *error) {
  char path[4096];
  int n = snprintf(path, sizeof path, "%s/%s", folder, shard->name);
  if (n < 0 || (size_t)n >= sizeof path)
    return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", folder);
  struct mapfile *file = &tensors->files[tensors->n_files];
  if (mapfile_open(path, file, error) != 0) return -1;
  tensors->n_files++;
  shard->first = tensors->list.count;
  int rc = read_weights(tensors, path, file, error);
  shard->end = tensors->list.count;
  return rc;
}

/* Every name of the map is in the shard that the map says, and no shard holds another. The index's total_size is not
 * compared: published ones count tied or converted tensors differently, and it could only agree with what is found here. */
static int check_map(const struct tensors *tensors, const struct index *index, struct error *error) {
  void *iterator = NULL;
  const char *key;
  const struct json_node *value;
  while (json_next(index->map, &iterator, &key, &value)) {
    struct shard wanted = {.name = json_text(value, NULL)};
    const struct shard *shard = bsearch(&wanted, index->shards, index->n_shards, sizeof wanted, compare_shards);
    size_t at = tensor_list_find(&tensors->list, key);
    if (!shard || at < shard->first || at >= shard->end)
      return error_set(error, ERROR_FORMAT, "'%s': tensor '%.100s' is not in '%.100s'%s", index->path, key,
                       wanted.name, at == SIZE_MAX ? " nor in any other shard" : " but in another shard");
  }
  for (size_t i = 0; i < tensors->list.count; i++)
    if (!json_get(index->map, tensors->list.items[i].name))
      return error_set(error, ERROR_FORMAT, "'%s': tensor '%.100s' is in a shard but not in weight_map", index->path,
                       tensors->list.items[i].name);
  return 0;
}

static int read_set(struct tensors *tensors, const char *folder, struct index *index, struct error *error) {
  index->root = json_load(index->path, INDEX_BYTES_MAX, 8, error);
  if (!index->root) return -1;
  index->map = json_get(index->root, "weight_map");
  if (list_shards(index, error) != 0) return -1;
  tensors->files = calloc(index->n_shards, sizeof *tensors->files);
  if (!tensors->files) return error_memory(error, index->n_shards * sizeof *tensors->files);
  for (size_t i = 0; i < index->n_shards; i++)
    if (read_shard(tensors, folder, &index->shards[i], error) != 0) return -1;
  struct error inner = ERROR_INIT;
  if (tensor_list_index(&tensors->list, &inner) != 0)
    return error_set(error, inner.code, "'%s': %s", index->path, inner.text);
  return check_map(tensors, index, error);
}

static int open_set(struct tensors *tensors, const char *folder, const char *path, struct error *error) {
  struct index index = {.path = path};
  int rc = read_set(tensors, folder, &index, error);
  free(index.shards);
  json_free(index.root);
  return rc;
}

static bool is_torch_file(const char *name) {
  size_t length = strlen(name);
  return length > 4 && length <= SHARD_NAME_MAX && name[0] != '.' && strcmp(name + length - 4, ".pth") == 0;
}

/* TransformerLens publishes its toys as one torch file of any name: the only one that ends in .pth, or in final.pth where
 * checkpoints lie beside it. name[] stays empty where the folder has none. */
static int find_torch_file(const char *folder, char name[SHARD_NAME_MAX + 1], struct error *error) {
  size_t all = 0, final = 0;
  char seen[2][SHARD_NAME_MAX + 1] = {"", ""};
  name[0] = '\0';
  DIR *entries = opendir(folder);
  if (!entries) return error_set(error, ERROR_IO, "'%s': %s", folder, strerror(errno));
  for (struct dirent *entry; (entry = readdir(entries));) {
    if (!is_torch_file(entry->d_name)) continue;
    size_t length = strlen(entry->d_name);
    bool last = length >= 9 && strcmp(entry->d_name + length - 9, "final.pth") == 0;
    snprintf(seen[last], sizeof seen[last], "%s", entry->d_name);
    all++;
    final += last;
  }
  closedir(entries);
  if (all > 1 && final != 1)
    return error_set(error, ERROR_FORMAT, "'%s' holds %zu files that end in .pth, %zu of them in final.pth: which one is meant?",
                     folder, all, final);
  snprintf(name, SHARD_NAME_MAX + 1, "%s", seen[final]);
  return 0;
}

/* Where a folder has its weights, the preferred first. */
static int open_folder(struct tensors *tensors, const char *folder, struct error *error) {
  static const struct {
    const char *name;
    bool is_index;
  } ways[] = {{"model.safetensors.index.json", true}, {"model.safetensors", false},
              {"pytorch_model.bin.index.json", true}, {"pytorch_model.bin", false}};
  char path[4096], name[SHARD_NAME_MAX + 1];
  if (strlen(folder) + SHARD_NAME_MAX + 2 > sizeof path)
    return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", folder);
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, ways[i].name);
    if (path_is_file(path))
      return ways[i].is_index ? open_set(tensors, folder, path, error) : open_single(tensors, path, error);
  }
  if (find_torch_file(folder, name, error) != 0) return -1;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  if (*name) return open_single(tensors, path, error);
  return error_set(error, ERROR_NOT_FOUND,
                   "'%s' holds no weights: neither model.safetensors nor pytorch_model.bin, in one file or with an index, nor "
                   "one that ends in .pth",
                   folder);
}

/* ---- the view ---- */

struct tensors *tensors_open_lazy(const char *path, struct error *error) {
  struct tensors *tensors = calloc(1, sizeof *tensors);
  if (!tensors) return error_memory(error, sizeof *tensors), NULL;
  tensor_list_init(&tensors->list);
  struct error inner = ERROR_INIT;
  int rc = path_is_directory(path) ? open_folder(tensors, path, error) : open_single(tensors, path, error);
  if (rc == 0 && !tensors->list.by_name && tensor_list_index(&tensors->list, &inner) != 0)
    rc = error_set(error, inner.code, "'%s': %s", path, inner.text);
  if (rc == 0) return tensors;
  tensors_close(tensors);
  return NULL;
}

struct tensors *tensors_open(const char *path, struct error *error) {
  struct tensors *tensors = tensors_open_lazy(path, error);
  for (size_t i = 0; tensors && i < tensors->packed.count; i++) {
    const struct tensor *tensor = &tensors->list.items[tensors->packed.items[i].tensor];
    if (tensors_load(tensors, tensor, error) == 0) continue;
    error_prefix(error, "'%s'", path);
    tensors_close(tensors);
    return NULL;
  }
  return tensors;
}

static int compare_packed(const void *a, const void *b) {
  size_t x = ((const struct npz_packed *)a)->tensor, y = ((const struct npz_packed *)b)->tensor;
  return x < y ? -1 : x > y;
}

int tensors_load(struct tensors *tensors, const struct tensor *tensor, struct error *error) {
  struct npz_packed key = {.tensor = (size_t)(tensor - tensors->list.items)};
  struct npz_packed_list *packed = &tensors->packed;
  struct npz_packed *item = !packed->count ? NULL
                            : bsearch(&key, packed->items, packed->count, sizeof key, compare_packed);
  if (!item || item->elements) return 0;
  struct error inner = ERROR_INIT;
  if (npz_unpack(item, tensor->bytes, &inner) != 0)
    return error_set(error, inner.code, "tensor '%.100s': %s", tensor->name, inner.text);
  tensors->list.items[key.tensor].data = item->elements;
  return 0;
}

void tensors_close(struct tensors *tensors) {
  if (!tensors) return;
  npz_clear(&tensors->packed);
  for (size_t i = 0; i < tensors->n_files; i++) mapfile_close(&tensors->files[i]);
  free(tensors->files);
  tensor_list_clear(&tensors->list);
  free(tensors);
}

size_t tensors_count(const struct tensors *tensors) { return tensors->list.count; }

const struct tensor *tensors_at(const struct tensors *tensors, size_t i) {
  return i < tensors->list.count ? &tensors->list.items[i] : NULL;
}

const struct tensor *tensors_find(const struct tensors *tensors, const char *name) {
  size_t at = tensor_list_find(&tensors->list, name);
  return at == SIZE_MAX ? NULL : &tensors->list.items[at];
}

const char *tensors_format(const struct tensors *tensors) { return tensors->format; }

size_t tensors_bytes(const struct tensors *tensors) {
  size_t bytes = 0;
  for (size_t i = 0; i < tensors->n_files; i++) bytes += tensors->files[i].size;
  for (size_t i = 0; i < tensors->packed.count; i++) {
    const struct npz_packed *item = &tensors->packed.items[i];
    if (item->elements) bytes += tensors->list.items[item->tensor].bytes;
  }
  return bytes;
}

void tensors_forget(const struct tensors *tensors) {
  for (size_t i = 0; i < tensors->n_files; i++) mapfile_forget(&tensors->files[i]);
}

int tensor_is_contiguous(const struct tensor *tensor) {
  int64_t stride = 1;
  for (int i = tensor->n_dims - 1; i >= 0; i--) {
    if (tensor->shape[i] != 1 && tensor->stride[i] != stride) return tensor->bytes == 0;
    stride *= tensor->shape[i] ? tensor->shape[i] : 1;
  }
  return 1;
}

const char *tensor_describe(const struct tensor *tensor, char out[128]) {
  size_t n = 0;
  out[n++] = '[';
  /* 8 dimensions of at most 11 digits fit; larger sizes are cut, never written past the end. */
  for (int i = 0; i < tensor->n_dims && n < 100; i++) {
    int written = snprintf(out + n, 112 - n, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
    n = size_min(n + (size_t)written, 111);
  }
  snprintf(out + n, 128 - n, "] %s", dtype_name(tensor->dtype));
  return out;
}
