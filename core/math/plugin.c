/* plugin.c: opens steerd-cuda.so where a CUDA device is asked for. Knows where the library may lie and nothing of what it does.
 *
 * The library stays open until the program ends: backends of it may be opened and closed many times. */
#include "core/math/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/math/cuda/plugin.h"

#define LIBRARY "steerd-cuda.so"

bool plugin_names(const char *name) { return strncmp(name, "cuda", 4) == 0 && strchr(":+", name[4]); }

static bool take(const char **at, const char *word) {
  bool stands = strncmp(*at, word, strlen(word)) == 0;
  if (stands) *at += strlen(word);
  return stands;
}

/* "cuda[:N][+deterministic][+serial][+apart][+library]" */
static int read_name(const char *name, struct cuda_options *options, struct error *error) {
  const char *at = name + 4;
  char *end;
  *options = (struct cuda_options){0, false, false, false, false};
  if (*at == ':') {
    long device = strtol(at + 1, &end, 10);
    if (end == at + 1 || at[1] < '0' || at[1] > '9' || device > 1023)
      return error_set(error, ERROR_ARGUMENT, "backend '%.64s' names no device; write cuda:0, cuda:1, ...", name);
    options->device = (int)device;
    at = end;
  }
  options->deterministic = take(&at, "+deterministic");
  options->serial = take(&at, "+serial");
  options->apart = take(&at, "+apart");
  options->library = take(&at, "+library");
  if (!*at) return 0;
  return error_set(error, ERROR_ARGUMENT, "backend '%.64s' is not known; CUDA devices are cuda, cuda:0, cuda:1, ...", name);
}

/* Beside the program, as it is built and in containers; or where `make install` puts it. */
static bool find_library(char path[PATH_MAX]) {
  static const char *const places[] = {"", "../lib/steerd/"};
  char program[PATH_MAX];
  const char *named = getenv("STEERD_CUDA_LIBRARY"); /* for tests and for packages that put it elsewhere */
  if (named && *named) {
    snprintf(path, PATH_MAX, "%s", named);
    return true;
  }
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  if (n <= 0) return false;
  program[n] = 0;
  char *slash = strrchr(program, '/');
  if (!slash) return false;
  slash[1] = 0;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    if (snprintf(path, PATH_MAX, "%s%s" LIBRARY, program, places[i]) < PATH_MAX && access(path, R_OK) == 0) return true;
  return false;
}

static cuda_plugin_open *find_entry(struct error *error) {
  char path[PATH_MAX];
  if (!find_library(path)) {
    error_set(error, ERROR_NOT_FOUND, LIBRARY " is neither beside steerd nor in ../lib/steerd (`make cuda` builds it)");
    return NULL;
  }
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    error_set(error, ERROR_DEVICE, LIBRARY " could not be opened: %.300s", dlerror());
    return NULL;
  }
  cuda_plugin_open *entry = NULL;
  void *symbol = dlsym(library, CUDA_PLUGIN_ENTRY);
  memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from an object to a function */
  if (!entry) error_set(error, ERROR_DEVICE, LIBRARY " is not a library of steerd");
  return entry;
}

struct backend *plugin_open(const char *name, struct error *error) {
  struct cuda_options options;
  struct cuda_plugin_host host = cuda_plugin_host();
  struct backend *backend = NULL;
  if (read_name(name, &options, error) != 0) return NULL;
  cuda_plugin_open *entry = find_entry(error);
  if (!entry) return NULL;
  return entry(&host, &options, &backend, error) == 0 ? backend : NULL;
}
