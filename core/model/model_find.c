/* Paths, names and repositories of models. Knows no file format. */
#include "core/model/model_find.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/ini.h"
#include "core/base/mapfile.h"

_Static_assert(HUB_PATH_BYTES >= PATH_MAX, "realpath writes up to PATH_MAX bytes");

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static const char *const file_ends[] = {".ini", ".bin", ".pth", ".pt", ".safetensors"};
#define FILE_ENDS (sizeof file_ends / sizeof file_ends[0])

/* Nobody means a repository by this, whether it is there or not. */
static bool is_plainly_path(const char *where) {
  for (size_t i = 0; i < FILE_ENDS; i++)
    if (ends_with(where, file_ends[i])) return true;
  return where[0] == '/' || where[0] == '.' || where[0] == '~' || ini_is_path(where) || ends_with(where, "/");
}

/* The last part of a path, without what files end in, in characters that an id may have. */
static void name_of_path(const char *path, char out[132]) {
  size_t end = strlen(path), n = 0;
  for (size_t i = 0; i < FILE_ENDS; i++) {
    size_t length = strlen(file_ends[i]);
    if (end > length && memcmp(path + end - length, file_ends[i], length) == 0) {
      end -= length;
      break;
    }
  }
  while (end > 1 && path[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  for (size_t i = begin; i < end && n < 128; i++)
    out[n++] = isalnum((unsigned char)path[i]) || strchr("._-", path[i]) ? path[i] : '-';
  if (n == 0) n = (size_t)snprintf(out, 132, "model");
  out[n] = '\0';
}

static int take_path(const char *where, struct model_place *out, struct error *error) {
  int n = snprintf(out->path, sizeof out->path, "%s", where);
  if (n < 0 || (size_t)n >= sizeof out->path)
    return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", where);
  name_of_path(where, out->id);
  return 0;
}

/* ---- repositories ---- */

/* NAME[@REVISION] */
struct wanted {
  char name[100];
  const char *revision; /* or NULL */
};

static int read_wanted(const char *where, struct wanted *out, struct error *error) {
  size_t length = strcspn(where, "@");
  if (!hub_is_repository(where, length))
    return error_set(error, ERROR_NOT_FOUND,
                     "'%.200s' is neither a file or folder here nor a name of a model, such as gpt2 or "
                     "EleutherAI/pythia-70m",
                     where);
  snprintf(out->name, sizeof out->name, "%.*s", (int)length, where);
  out->revision = where[length] ? where + length + 1 : NULL;
  return 0;
}

/* The first of `list` ("openai-community/gpt2 gpt2") that the cache has into out[]; false when it has none. */
static bool choose_repository(const char *root, const char *list, char out[100]) {
  for (const char *at = list + strspn(list, " "); *at; at += strspn(at, " ")) {
    size_t length = strcspn(at, " ");
    snprintf(out, 100, "%.*s", (int)length, at);
    if (hub_has(root, out)) return true;
    at += length;
  }
  return false;
}

static int say_missing(const struct model_names *names, const char *name, const char *list, const char *root,
                       struct error *error) {
  char there[256], repository[100];
  bool bare = list == name && !strchr(name, '/');
  const char *near = bare ? model_names_nearest(names, name) : NULL;
  snprintf(repository, sizeof repository, "%.*s", (int)strcspn(list, " "), list);
  bool other = strcmp(repository, name) != 0;
  if (near)
    return error_set(error, ERROR_NOT_FOUND,
                     "'%s' is no file or folder here and no known name of a model; did you mean '%s'?", name, near);
  hub_tell(root, name, there);
  if (bare)
    return error_set(error, ERROR_NOT_FOUND,
                     "'%s' is no file or folder here, no known name of a model, and not in the Hugging Face cache '%.120s' "
                     "(%s)",
                     name, root, there);
  return error_set(error, ERROR_NOT_FOUND,
                   "'%s'%s%s%s is not in the Hugging Face cache '%.120s' (%s); where there is a network: steerd pull %s",
                   name, other ? ", which is '" : "", other ? repository : "", other ? "'," : "", root, there, repository);
}

static int find_in_hub(const struct model_names *names, const struct wanted *wanted, struct model_place *out,
                       struct error *error) {
  char root[HUB_PATH_BYTES], repository[100];
  if (hub_root(root, error) != 0) return -1;
  const char *id = model_names_id(names, wanted->name), *list = model_names_repositories(names, id);
  if (!list) list = wanted->name;
  snprintf(out->id, sizeof out->id, "%s", id);
  if (!choose_repository(root, list, repository)) return say_missing(names, wanted->name, list, root, error);
  if (hub_snapshot(root, repository, wanted->revision, out->path, error) != 0) return -1;
  if (realpath(root, out->fence)) return 0;
  return error_set(error, ERROR_IO, "'%s': %s", root, strerror(errno));
}

static int find_plain(const struct model_names *names, const char *where, struct model_place *out, struct error *error) {
  struct wanted wanted;
  if (path_is_directory(where) || path_is_file(where)) return take_path(where, out, error);
  if (is_plainly_path(where))
    return error_set(error, ERROR_NOT_FOUND, "'%.300s': no such file or folder", where);
  return read_wanted(where, &wanted, error) == 0 ? find_in_hub(names, &wanted, out, error) : -1;
}

/* One word behind the "?", of n characters. */
static int read_option(const char *word, size_t n, struct model_wish *wish) {
  static const struct {
    const char *word;
    enum dtype keep;
  } types[] = {{"f32", DTYPE_F32}, {"f16", DTYPE_F16}, {"bf16", DTYPE_BF16}, {"q8", DTYPE_Q8}};
  if (n == 7 && memcmp(word, "process", n) == 0 && !wish->processed) {
    wish->processed = true;
    return 0;
  }
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strlen(types[i].word) == n && memcmp(word, types[i].word, n) == 0 && wish->keep == DTYPE_OTHER) {
      wish->keep = types[i].keep;
      return 0;
    }
  return -1;
}

/* "process", a type, or both with a "+" between them. */
static int read_options(const char *where, const char *options, struct model_wish *wish, struct error *error) {
  for (const char *at = options;; at++) {
    size_t n = strcspn(at, "+");
    if (read_option(at, n, wish) != 0)
      return error_set(error, ERROR_ARGUMENT,
                       "'%.300s': '?%.60s' is not known; behind a model may stand ?process, one of ?f32, ?f16, ?bf16 and ?q8, or both as in "
                       "?process+bf16",
                       where, options);
    at += n;
    if (!*at) return 0;
  }
}

/* PLACE?OPTIONS. A path that has a question mark in its name is a path. */
int model_find(const struct model_names *names, const char *where, struct model_place *out, struct error *error) {
  char plain[HUB_PATH_BYTES];
  memset(out, 0, sizeof *out);
  out->wish.keep = DTYPE_OTHER;
  const char *options = path_is_directory(where) || path_is_file(where) ? NULL : strrchr(where, '?');
  if (!options) return find_plain(names, where, out, error);
  if (read_options(where, options + 1, &out->wish, error) != 0) return -1;
  int n = snprintf(plain, sizeof plain, "%.*s", (int)(options - where), where);
  if (n < 0 || (size_t)n >= sizeof plain)
    return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", where);
  return find_plain(names, plain, out, error);
}

struct model *model_open_place(const char *id, const struct model_place *place, struct backend *backend,
                               struct error *error) {
  const char *fence[] = {place->fence};
  if (*place->fence) mapfile_fence(fence, 1);
  struct model *model = model_open_as(id ? id : place->id, place->path, &place->wish, backend, error);
  if (*place->fence) mapfile_fence(NULL, 0);
  return model;
}
