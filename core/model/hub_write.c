/* Writes the cache. Knows its layout, nothing of networks. */
#include "core/model/hub_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/base/folder.h"
#include "core/base/mapfile.h"
#include "core/base/sha256.h"

/* FOLDER/KIND/NAME END */
static int put(char out[HUB_PATH_BYTES], const char *folder, const char *kind, const char *name, const char *end,
               struct error *error) {
  int n = snprintf(out, HUB_PATH_BYTES, "%s/%s%s%s%s", folder, kind, *kind ? "/" : "", name, end);
  return n > 0 && n < HUB_PATH_BYTES ? 0 : error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", folder);
}

/* The folder that the last part of a path lies in. */
static int make_folder_of(const char *path, struct error *error) {
  char folder[HUB_PATH_BYTES];
  snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = '\0';
  return folder_make(folder, error);
}

int hub_writer_open(const char *root, const char *repository, bool make, struct hub_writer *out, struct error *error) {
  char blobs[HUB_PATH_BYTES];
  if (hub_folder(root, repository, out->folder, error) != 0) return -1;
  const char *name = strrchr(out->folder, '/') + 1;
  if (put(out->locks, root, ".locks", name, "", error) != 0 || put(blobs, out->folder, "blobs", "", "", error) != 0) return -1;
  if (!make) return 0;
  return folder_make(out->locks, error) != 0 || make_folder_of(blobs, error) != 0 ? -1 : 0;
}

/* ---- blobs ---- */

bool hub_writer_has(const struct hub_writer *writer, const struct hub_file *file) {
  char path[HUB_PATH_BYTES];
  return put(path, writer->folder, "blobs", file->hash, "", NULL) == 0 && file_bytes(path) == file->size;
}

int hub_writer_partial(const struct hub_writer *writer, const struct hub_file *file, char out[HUB_PATH_BYTES],
                       struct error *error) {
  return put(out, writer->folder, "blobs", file->hash, ".incomplete", error);
}

int64_t hub_writer_bytes(const struct hub_writer *writer, const struct hub_file *file) {
  char path[HUB_PATH_BYTES];
  if (hub_writer_has(writer, file)) return file->size;
  int64_t size = hub_writer_partial(writer, file, path, NULL) == 0 ? file_bytes(path) : 0;
  return size > 0 ? size : 0;
}

int hub_writer_lock(const struct hub_writer *writer, const struct hub_file *file, int *lock, struct error *error) {
  char path[HUB_PATH_BYTES];
  if (put(path, writer->locks, "", file->hash, ".lock", error) != 0) return -1;
  *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*lock < 0) return error_set(error, ERROR_IO, "cannot open '%.300s': %s", path, strerror(errno));
  if (flock(*lock, LOCK_EX | LOCK_NB) == 0) return 0;
  bool busy = errno == EWOULDBLOCK;
  int failed = busy ? 0 : error_set(error, ERROR_IO, "cannot lock '%.300s': %s", path, strerror(errno));
  close(*lock);
  *lock = -1;
  return failed;
}

void hub_writer_unlock(int lock) {
  if (lock >= 0) close(lock);
}

static int check_content(const char *path, const struct hub_file *file, struct error *error) {
  unsigned char digest[SHA256_BYTES];
  char text[2 * SHA256_BYTES + 1];
  struct mapfile map;
  int64_t size = file_bytes(path);
  if (size != file->size)
    return error_set(error, ERROR_FORMAT, "'%.200s' came with %lld bytes where the hub tells of %lld", file->path, (long long)size,
                     (long long)file->size);
  if (strlen(file->hash) != 2 * SHA256_BYTES) return 0;
  if (mapfile_open(path, &map, error) != 0) return -1;
  sha256(map.data, map.size, digest);
  mapfile_close(&map);
  for (int i = 0; i < SHA256_BYTES; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
  if (strcmp(text, file->hash) == 0) return 0;
  return error_set(error, ERROR_FORMAT, "'%.200s' is not what the hub tells of: its SHA-256 is %.16s... where %.16s... was to come",
                   file->path, text, file->hash);
}

int hub_writer_finish(const struct hub_writer *writer, const struct hub_file *file, struct error *error) {
  char from[HUB_PATH_BYTES], to[HUB_PATH_BYTES];
  if (hub_writer_partial(writer, file, from, error) != 0 || put(to, writer->folder, "blobs", file->hash, "", error) != 0) return -1;
  if (check_content(from, file, error) != 0) {
    unlink(from);
    return -1;
  }
  return file_settle(from, to, error);
}

/* ---- snapshots ---- */

/* From a link at snapshots/COMMIT/PATH to the blob: a folder up for each slash of the path, and two. */
static int link_text(const struct hub_file *file, char out[HUB_PATH_BYTES], struct error *error) {
  char up[HUB_PATH_BYTES] = "../..";
  size_t n = strlen(up);
  for (const char *at = file->path; *at; at++)
    if (*at == '/' && n + 4 < sizeof up) n += (size_t)snprintf(up + n, sizeof up - n, "/..");
  return put(out, up, "blobs", file->hash, "", error);
}

int hub_writer_link(const struct hub_writer *writer, const char *commit, const struct hub_file *file, struct error *error) {
  char path[HUB_PATH_BYTES], aside[HUB_PATH_BYTES], target[HUB_PATH_BYTES], there[HUB_PATH_BYTES];
  char snapshot[HUB_PATH_BYTES];
  if (put(snapshot, writer->folder, "snapshots", commit, "", error) != 0 || put(path, snapshot, "", file->path, "", error) != 0 ||
      put(aside, snapshot, "", file->path, ".new", error) != 0 || link_text(file, target, error) != 0)
    return -1;
  ssize_t length = readlink(path, there, sizeof there - 1);
  if (length > 0 && (size_t)length == strlen(target) && memcmp(there, target, (size_t)length) == 0) return 0;
  if (make_folder_of(path, error) != 0) return -1;
  unlink(aside);
  if (symlink(target, aside) == 0 && rename(aside, path) == 0) return 0;
  return error_set(error, ERROR_IO, "cannot link '%.300s': %s", path, strerror(errno));
}

int hub_writer_set(const struct hub_writer *writer, const char *revision, const char *commit, struct error *error) {
  char path[HUB_PATH_BYTES], aside[HUB_PATH_BYTES];
  if (strcmp(revision, commit) == 0) return 0;
  if (put(path, writer->folder, "refs", revision, "", error) != 0 || put(aside, writer->folder, "refs", revision, ".new", error) != 0 ||
      make_folder_of(path, error) != 0)
    return -1;
  FILE *file = fopen(aside, "we");
  bool written = file && fputs(commit, file) >= 0;
  if (file && fclose(file) != 0) written = false;
  if (written && rename(aside, path) == 0) return 0;
  return error_set(error, ERROR_IO, "cannot write '%.300s': %s", path, strerror(errno));
}
