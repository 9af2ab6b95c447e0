/* spool.c: an unlinked temporary file. Knows nothing of what it holds. */
#include "core/base/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct spool {
  int fd;
};

/* Where the file system cannot make a file without a name, one is made and its name taken away. */
static int open_nameless(const char *folder) {
  char path[4096];
  int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  if (snprintf(path, sizeof path, "%s/steerd-XXXXXX", folder) >= (int)sizeof path) return -1;
  fd = mkostemp(path, O_CLOEXEC);
  if (fd >= 0) unlink(path);
  return fd;
}

struct spool *spool_open(struct error *error) {
  const char *folder = getenv("TMPDIR");
  if (!folder || !*folder) folder = "/tmp";
  struct spool *spool = malloc(sizeof *spool);
  if (!spool) return error_memory(error, sizeof *spool), NULL;
  spool->fd = open_nameless(folder);
  if (spool->fd >= 0) return spool;
  error_set(error, ERROR_IO, "no temporary file can be made in '%s': %s", folder, strerror(errno));
  free(spool);
  return NULL;
}

void spool_close(struct spool *spool) {
  if (!spool) return;
  close(spool->fd);
  free(spool);
}

int spool_write(struct spool *spool, int64_t offset, const void *from, size_t bytes, struct error *error) {
  const char *at = from;
  while (bytes) {
    ssize_t n = pwrite(spool->fd, at, bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return error_set(error, ERROR_IO, "a temporary file cannot be written: %s", n < 0 ? strerror(errno) : "no space");
    at += n;
    offset += n;
    bytes -= (size_t)n;
  }
  return 0;
}

int spool_read(struct spool *spool, int64_t offset, void *to, size_t bytes, struct error *error) {
  char *at = to;
  while (bytes) {
    ssize_t n = pread(spool->fd, at, bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return error_set(error, ERROR_IO, "a temporary file cannot be read: %s", n < 0 ? strerror(errno) : "it is too short");
    at += n;
    offset += n;
    bytes -= (size_t)n;
  }
  return 0;
}
