/* mapfile.h: a regular file mapped read-only.
 *
 * Opened with close-on-exec; anything but a regular file is refused, so that a path to a pipe or a device
 * cannot hang the start. The size is taken once; readers check every offset against it. A file that is cut
 * short while it is mapped makes the kernel raise SIGBUS at the missing pages: mapfile_guard_install turns
 * that into zeroes for the mapped range and one logged line, and mapfile_damaged() tells. */
#ifndef STEERD_CORE_BASE_MAPFILE_H
#define STEERD_CORE_BASE_MAPFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

struct mapfile {
  const unsigned char *data; /* NULL when the file is empty */
  size_t size;               /* bytes */
};

/* Maps the whole file. Errors: ERROR_NOT_FOUND, ERROR_IO, ERROR_FORMAT (not a regular file); each names
 * the path. */
int mapfile_open(const char *path, struct mapfile *out, struct error *error) MUST_CHECK;

/* Unmaps; a cleared or zeroed mapfile is fine. */
void mapfile_close(struct mapfile *file);

/* Tells the kernel that the pages were copied elsewhere and need not stay in memory. */
void mapfile_forget(const struct mapfile *file);

/* Until it is lifted (folders NULL), this thread opens files only that lie in or below one of these folders, links
 * followed: whatever a path says and wherever a link leads, what counts is the file that the kernel opened. The folders
 * are real paths (realpath) and are borrowed. A file outside is ERROR_ARGUMENT. For files that a client names. */
void mapfile_fence(const char *const *folders, size_t count);
bool mapfile_is_fenced(void);

/* Whether a real path is one of the folders or lies below one. */
bool path_is_inside(const char *path, const char *const *folders, size_t count);

/* Installs the SIGBUS handler once for the process. */
void mapfile_guard_install(void);

/* True once a mapped file was found cut short. */
bool mapfile_damaged(void);

/* Reads a small file (at most `limit` bytes) into memory with a NUL behind it; *data is freed by the
 * caller with free(). Errors as mapfile_open, and ERROR_LIMIT. */
int file_read(const char *path, size_t limit, char **data, size_t *length, struct error *error) MUST_CHECK;

/* True when path names an existing directory / regular file (links are followed). */
bool path_is_directory(const char *path);
bool path_is_file(const char *path);

#endif
