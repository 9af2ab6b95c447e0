/* count.cpp: adds what the kernels of a program did to the file that STEERD_PTX_COUNT names, when the program ends: for count.py.
 * A line for each kernel that was launched, another for each of its segments. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/cuda_ptx/machine.h"

namespace {
struct last_word {
  ~last_word() {
    const char *name = getenv("STEERD_PTX_COUNT");
    FILE *to = name ? fopen(name, "a") : nullptr;
    for (const ptx::entry *e = to ? ptx::known : nullptr; e; e = e->next) {
      fprintf(to, "kernel %s %llu %llu\n", e->name, (unsigned long long)e->launches, (unsigned long long)e->threads);
      for (uint32_t i = 0; i < e->n_segments; i++)
        fprintf(to, "%u %u %u %u %llu\n", e->segments[i].line, e->segments[i].instructions, e->segments[i].read, e->segments[i].written,
                (unsigned long long)(e->ran ? e->ran[i] : 0));
    }
    if (to) fclose(to);
  }
} at_the_end;
} // namespace
