/* backend.c: opens a backend by name. Knows which ones were built and what this processor can run, and
 * nothing of how they work. */
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/room.h"
#include "core/math/chain.h"
#include "core/math/cpu/cpu.h"
#include "core/math/ops.h"
#include "core/math/plugin.h"
#include "core/math/ref/ref.h"

#if defined(__x86_64__)
static bool has_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* Every processor with AVX2 has F16C, which not every compiler can ask for. */
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

static bool has_any(void) { return true; }

/* Best first: "cpu" means the first one that runs here. */
static const struct {
  const struct kernels *kernels;
  bool (*runs_here)(void);
} table[] = {
#if defined(__x86_64__)
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#endif
    {&kernels_generic, has_any},
};
#define ROWS (sizeof table / sizeof *table)

/* The kernels' own names are for tests and measurements: "cpu" takes the best. */
static void say_choices(const char *name, struct error *error) {
  for (size_t i = 0; i < ROWS; i++)
    if (strcmp(name, table[i].kernels->name) == 0) {
      error_set(error, ERROR_ARGUMENT, "device '%s' is none of this machine: its processor does not run it; 'cpu' takes what it runs", name);
      return;
    }
  error_set(error, ERROR_ARGUMENT, "unknown device '%s'; known: auto, cpu, cuda:N with N counted from 0", name);
}

/* The first CUDA device where there is one, else the processor. */
static struct backend *open_any(const char *suffix, int threads, struct error *error) {
  char cuda[64];
  struct error why = ERROR_INIT;
  snprintf(cuda, sizeof cuda, "cuda%s", suffix);
  struct backend *backend = plugin_open(cuda, &why);
  if (backend) return backend;
  log_info("no CUDA device is used: %s; the processor computes", why.text);
  return backend_open("cpu", threads, error);
}

/* What was asked for by name is not replaced by anything else. */
static struct backend *open_named(const char *name, struct error *error) {
  struct backend *backend = plugin_open(name, error);
  if (!backend) error_prefix(error, "device '%s' ('auto' and 'cpu' do without)", name);
  return backend;
}

struct backend *backend_open(const char *name, int threads, struct error *error) {
  if (strcmp(name, "ref") == 0) return ref_open(error);
  if (strcmp(name, "auto") == 0 || strcmp(name, "auto+deterministic") == 0) return open_any(name + 4, threads, error);
  if (plugin_names(name)) return open_named(name, error);
  for (size_t i = 0; i < ROWS; i++)
    if (table[i].runs_here() && (strcmp(name, "cpu") == 0 || strcmp(name, table[i].kernels->name) == 0))
      return cpu_open(table[i].kernels, threads, error);
  say_choices(name, error);
  return NULL;
}

int backend_wait(struct backend *backend, struct error *error) {
  return backend->ops->wait ? backend->ops->wait(backend, error) : 0;
}

size_t backend_room(struct backend *backend) {
  size_t left, total;
  if (!backend->ops->room) return memory_room("");
  return backend->ops->room(backend, &left, &total, NULL) == 0 ? left : SIZE_MAX;
}

void backend_close(struct backend *backend) {
  if (backend) backend->ops->close(backend);
}

void chain_add(int64_t n, const float *w, const float *x, int64_t ld, int64_t rows, float *sums) {
  size_t i = 0;
  while (!table[i].runs_here()) i++; /* the last one runs anywhere */
  table[i].kernels->chain(n, w, x, ld, rows, sums);
}
