/* dict_find.c: a path as it is, or a name through the table of releases into the cache. Knows no format. */
#include "core/dict/dict_find.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/ini.h"
#include "core/base/mapfile.h"

static int take(const char *path, struct dict_place *out, struct error *error) {
  int n = snprintf(out->path, sizeof out->path, "%s", path);
  if (n >= 0 && (size_t)n < sizeof out->path) return 0;
  return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", path);
}

/* Clearly meant as a path: it begins like one, or names an ini. */
static bool is_plainly_path(const char *where) { return *where == '/' || *where == '.' || *where == '~' || ini_is_path(where); }

static int find_in_hub(const char *name, const struct release_place *place, struct dict_place *out, struct error *error) {
  char root[HUB_PATH_BYTES], snapshot[HUB_PATH_BYTES], there[256];
  if (hub_root(root, error) != 0) return -1;
  if (!hub_has(root, place->repository)) {
    hub_tell(root, place->repository, there);
    return error_set(error, ERROR_NOT_FOUND,
                     "'%.100s', which is '%.100s' in '%.100s', is not in the Hugging Face cache '%.100s' (%.80s); where there is a "
                     "network: steerd pull %.100s", name, place->folder, place->repository, root, there, name);
  }
  if (hub_snapshot(root, place->repository, NULL, snapshot, error) != 0) return -1;
  int n = snprintf(out->path, sizeof out->path, "%s/%s", snapshot, place->folder);
  if (n < 0 || (size_t)n >= sizeof out->path) return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", out->path);
  if (!path_is_directory(out->path) && !path_is_file(out->path))
    return error_set(error, ERROR_NOT_FOUND,
                     "'%.100s' is '%.200s' in '%.100s', but the snapshot in the cache does not have it; where there is a network: "
                     "steerd pull %.100s", name, place->folder, place->repository, name);
  if (realpath(root, out->fence)) return 0;
  return error_set(error, ERROR_IO, "'%s': %s", root, strerror(errno));
}

/* FOLDER/OWNER/NAME/... as a folder of many repositories has it, or FOLDER/NAME/... */
static bool find_in_folders(const struct release_place *place, struct dict_folders folders, struct dict_place *out) {
  const char *slash = strchr(place->repository, '/');
  const char *const names[] = {place->repository, slash ? slash + 1 : place->repository};
  for (size_t i = 0; i < folders.n; i++)
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
      int n = snprintf(out->path, sizeof out->path, "%s/%s/%s", folders.list[i], names[k], place->folder);
      if (n > 0 && (size_t)n < sizeof out->path && (path_is_directory(out->path) || path_is_file(out->path))) return true;
    }
  return false;
}

int dict_find_name(const struct releases *releases, const char *name, struct dict_folders folders, struct dict_place *out,
                   struct error *error) {
  struct release_place place;
  memset(out, 0, sizeof *out);
  if (releases_find(releases, name, &place, error) != 0) return -1;
  return find_in_folders(&place, folders, out) ? 0 : find_in_hub(name, &place, out, error);
}

int dict_find(const struct releases *releases, const char *where, struct dict_folders folders, struct dict_place *out,
              struct error *error) {
  struct release_place place;
  memset(out, 0, sizeof *out);
  if (path_is_directory(where) || path_is_file(where) || is_plainly_path(where)) return take(where, out, error);
  if (dict_find_name(releases, where, folders, out, error) == 0) return 0;
  if (releases_find(releases, where, &place, NULL) == 0) return -1; /* known, but not here */
  return error_prefix(error, "'%.100s' is neither a file or folder here nor a published name", where);
}
