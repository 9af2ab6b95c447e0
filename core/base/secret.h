/* secret.h: random bytes from the system, and names that nobody can guess. (random.h is for draws that must repeat.) */
#ifndef STEERD_CORE_BASE_SECRET_H
#define STEERD_CORE_BASE_SECRET_H

#include <stddef.h>

#include "core/base/error.h"

#define SECRET_NAME 27 /* bytes of a name with its NUL: 26 of a-z and 2-7, 130 random bits */

/* ERROR_IO. */
int random_secret(void *out, size_t bytes, struct error *error) MUST_CHECK;
int secret_name(char out[SECRET_NAME], struct error *error) MUST_CHECK;

#endif
