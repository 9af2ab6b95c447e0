/* cuda_library.h: the library of the CUDA backend that a test runs on, and what the emulated one tells of itself
 * (tests/cuda_host/emulator.cpp). Included by one program each. */
#ifndef STEERD_TESTS_UNIT_CUDA_LIBRARY_H
#define STEERD_TESTS_UNIT_CUDA_LIBRARY_H

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/math/ops.h"

/* All NULL where the device is real. */
static struct {
  void (*order)(long calls, int error); /* the call after so many fails with it */
  void (*capacity)(size_t bytes);
  void (*counts)(long out[6]);
  void (*launches)(long out[2]);
  long (*sent)(void); /* bytes to the device so far */
  void (*recording)(void (*call)(void *), void *context); /* called from now on by who records, in front of each call */
} emulated;
enum { CALLS, LAUNCHES, CAPTURES, REPLAYS, BYTES, WAITS };
enum { EARLY_LAUNCHES, NODES }; /* launches that may begin while the kernel before them ends; nodes of the last graph */

static inline long count(int which) {
  long counts[6];
  emulated.counts(counts);
  return counts[which];
}

static inline long count_launches(int which) {
  long counts[2];
  emulated.launches(counts);
  return counts[which];
}

/* False, and the reason said, where there is none. */
static inline bool find_library(void) {
  const char *path = getenv("STEERD_CUDA_LIBRARY");
  struct error error = ERROR_INIT;
  struct backend *backend = path ? backend_open("cuda", 1, &error) : NULL;
  if (!backend) {
    printf("skip: the CUDA backend (%s)\n", path ? error.text : "set STEERD_CUDA_LIBRARY");
    return false;
  }
  backend_close(backend);
  void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  void *symbols[] = {dlsym(library, "cuda_emulated_fail"), dlsym(library, "cuda_emulated_capacity"),
                     dlsym(library, "cuda_emulated_counts"), dlsym(library, "cuda_emulated_launches"),
                     dlsym(library, "cuda_emulated_sent"), dlsym(library, "cuda_emulated_recording")};
  memcpy(&emulated, symbols, sizeof emulated);
  return true;
}

/* Nothing of a backend that is closed stays behind, whatever it has done. */
static inline void test_nothing_is_left(void **state) {
  (void)state;
  if (!emulated.order) skip();
  assert_int_equal(count(BYTES), 0);
}

#endif
