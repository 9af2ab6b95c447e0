/* folder.h: folders made, and files that are written beside their name and get it when they are whole. */
#ifndef STEERD_CORE_BASE_FOLDER_H
#define STEERD_CORE_BASE_FOLDER_H

#include <stdint.h>

#include "core/base/error.h"

/* The folder and all above it that are not there yet, as the umask has them. 0 too when it is there. ERROR_IO names what could not
 * be made and why. */
int folder_make(const char *path, struct error *error) MUST_CHECK;

/* Bytes of a regular file; -1: there is none. */
int64_t file_bytes(const char *path);

/* `from` is on the disk, and then it is `to`, whatever was there before. Both in one file system. ERROR_IO names `to`. */
int file_settle(const char *from, const char *to, struct error *error) MUST_CHECK;

#endif
