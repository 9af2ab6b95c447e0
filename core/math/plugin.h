/* plugin.h: finds and opens the backends that live in libraries of their own. Private to core/math. */
#ifndef STEERD_CORE_MATH_PLUGIN_H
#define STEERD_CORE_MATH_PLUGIN_H

#include "core/math/ops.h"

/* "cuda" or "cuda:N", behind which "+deterministic" may stand. */
bool plugin_names(const char *name);

/* Opens it. ERROR_ARGUMENT for a name that is not as above, ERROR_NOT_FOUND where there is no library and ERROR_DEVICE where
 * there is no device; the text says what was looked for and what helps. */
struct backend *plugin_open(const char *name, struct error *error) MUST_CHECK;

#endif
