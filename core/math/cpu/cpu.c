/* cpu.c: the fast CPU backend as an object: threads, scratch, and the table of its verbs. */
#include "core/math/cpu/cpu.h"

#include <stdlib.h>

#include "core/base/checked.h"

static void cpu_close(struct backend *backend) {
  struct cpu_backend *cpu = (struct cpu_backend *)backend;
  host_free(backend, cpu->scratch);
  sparse_clear(&cpu->sorted);
  pool_free(cpu->pool);
  free(cpu);
}

static const struct ops cpu_ops = {
    .alloc = host_alloc,
    .free = host_free,
    .write = host_write,
    .read = host_read,
    .copy = host_copy,
    .matrix_new = cpu_matrix_new,
    .matrix_new_as = cpu_matrix_new_as,
    .matrix_free = cpu_matrix_free,
    .matrix_write = cpu_matrix_write,
    .kv_block_bytes = cpu_kv_block_bytes,
    .run = cpu_run,
    .encode = cpu_encode,
    .sample = cpu_sample,
    .vjp = cpu_vjp,
    .close = cpu_close,
};

struct backend *cpu_open(const struct kernels *kernels, int threads, struct error *error) {
  struct cpu_backend *cpu = calloc(1, sizeof *cpu);
  if (!cpu) return error_memory(error, sizeof *cpu), NULL;
  cpu->pool = pool_new(threads, error);
  if (!cpu->pool) {
    free(cpu);
    return NULL;
  }
  cpu->kernels = kernels;
  cpu->ops = cpu_ops;
  cpu->ops.name = kernels->name;
  cpu->ops.learn = &kernels->learn;
  cpu->base.ops = &cpu->ops;
  return &cpu->base;
}

float *cpu_scratch(struct cpu_backend *cpu, size_t floats, struct error *error) {
  size_t bytes = size_max(floats, 1) * sizeof(float);
  if (!cpu->scratch || cpu->scratch->bytes < bytes) {
    host_free(&cpu->base, cpu->scratch);
    cpu->scratch = NULL;
    if (host_alloc(&cpu->base, bytes, &cpu->scratch, error) != 0) return NULL;
  }
  return (float *)(void *)cpu->scratch->data;
}
