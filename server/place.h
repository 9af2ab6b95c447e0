/* place.h: files that came with the program: beside its build, or under the prefix it was installed to. */
#ifndef STEERD_SERVER_PLACE_H
#define STEERD_SERVER_PLACE_H

#include "core/base/arena.h"
#include "core/base/error.h"

/* The folder or file `name` in PREFIX/share/steerd (program in PREFIX/bin), else in the source tree (program in
 * build/VARIANT). *out is in the arena, NULL when there is none. Errors: ERROR_MEMORY. */
int place_find(const char *name, struct arena *arena, const char **out, struct error *error) MUST_CHECK;

#endif
