/* Owns where the program stands on the disk. Refuses to know what is in the folders it finds. */
#include "server/place.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/mapfile.h"

/* The program's folder, links resolved: "/usr/local/bin". "" when the system does not tell. */
static void own_folder(char *out, size_t size) {
  ssize_t length = readlink("/proc/self/exe", out, size - 1);
  out[length > 0 ? length : 0] = '\0';
  char *slash = strrchr(out, '/');
  if (slash) *slash = '\0';
}

/* Without "..", as people are shown it; as it is where it cannot be resolved. */
static const char *plain(const char *path, struct arena *arena, struct error *error) {
  char real[PATH_MAX];
  return realpath(path, real) ? arena_text(arena, real, strlen(real), error) : path;
}

int place_find(const char *name, struct arena *arena, const char **out, struct error *error) {
  static const char *const ways[] = {"../share/steerd", "../.."};
  char folder[PATH_MAX];
  own_folder(folder, sizeof folder);
  *out = NULL;
  for (size_t i = 0; *folder && !*out && i < sizeof ways / sizeof ways[0]; i++) {
    const char *path = arena_printf(arena, error, "%s/%s/%s", folder, ways[i], name);
    if (!path) return -1;
    if (!path_is_directory(path) && !path_is_file(path)) continue;
    if (!(*out = plain(path, arena, error))) return -1;
  }
  return 0;
}
