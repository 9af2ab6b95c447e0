/* wrap.c: makes the tests of the processor's backend tests of the CUDA backend. Linked with --wrap=backend_open: whoever
 * asks for "cpu" or "cpu-generic" gets the backend that STEERD_TEST_BACKEND names, and the other instruction sets
 * are not there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/math/ops.h"

struct backend *__real_backend_open(const char *name, int threads, struct error *error);
struct backend *__wrap_backend_open(const char *name, int threads, struct error *error);

struct backend *__wrap_backend_open(const char *name, int threads, struct error *error) {
  const char *instead = getenv("STEERD_TEST_BACKEND");
  if (strcmp(name, "cpu") == 0 || strcmp(name, "cpu-generic") == 0) {
    struct error why = ERROR_INIT;
    struct backend *backend = __real_backend_open(instead ? instead : "cuda", threads, &why);
    if (backend) return backend;
    fprintf(stderr, "%s\n", why.text); /* what is to be tested must be there */
    abort();
  }
  if (strncmp(name, "cpu-", 4) == 0) return error_set(error, ERROR_ARGUMENT, "this run tests CUDA"), NULL;
  return __real_backend_open(name, threads, error);
}
