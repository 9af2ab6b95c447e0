/* folder.c: makes folders, from the top down, and gives files that are whole their names. */
#include "core/base/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/mapfile.h"

static int make(const char *path, struct error *error) {
  if (mkdir(path, 0777) == 0 || (errno == EEXIST && path_is_directory(path))) return 0;
  return error_set(error, ERROR_IO, "cannot make the folder '%.300s': %s", path,
                   errno == EEXIST ? "a file of that name is there" : strerror(errno));
}

int folder_make(const char *path, struct error *error) {
  char part[PATH_MAX];
  int n = snprintf(part, sizeof part, "%s", path);
  if (n <= 0 || (size_t)n >= sizeof part) return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", path);
  for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    if (!path_is_directory(part) && make(part, error) != 0) return -1;
    *slash = '/';
  }
  return make(part, error);
}

int64_t file_bytes(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1;
}

int file_settle(const char *from, const char *to, struct error *error) {
  int descriptor = open(from, O_RDONLY | O_CLOEXEC);
  int failed = descriptor < 0 || fsync(descriptor) != 0 || rename(from, to) != 0;
  int why = errno;
  if (descriptor >= 0) close(descriptor);
  return failed ? error_set(error, ERROR_IO, "cannot keep '%.300s': %s", to, strerror(why)) : 0;
}
