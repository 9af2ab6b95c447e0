/* backend.c: opens a backend by name. Knows which ones were built and what this processor can run, and
 * nothing of how they work. */
#include <string.h>

#include "core/math/ops.h"
#include "core/math/ref/ref.h"

struct backend *backend_open(const char *name, int threads, struct error *error) {
  (void)threads;
  if (strcmp(name, "ref") == 0 || strcmp(name, "cpu") == 0) return ref_open(error);
  error_set(error, ERROR_ARGUMENT, "backend '%s' is not known; known: ref, cpu", name);
  return NULL;
}

void backend_close(struct backend *backend) {
  if (backend) backend->ops->close(backend);
}
