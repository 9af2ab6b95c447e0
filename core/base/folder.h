/* folder.h: making folders. */
#ifndef STEERD_CORE_BASE_FOLDER_H
#define STEERD_CORE_BASE_FOLDER_H

#include "core/base/error.h"

/* The folder and all above it that are not there yet, as the umask has them. 0 too when it is there. ERROR_IO names what could not
 * be made and why. */
int folder_make(const char *path, struct error *error) MUST_CHECK;

#endif
