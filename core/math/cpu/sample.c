/* sample.c: draws of a step, shared out among the threads: a draw reads a whole row of logits, and a step of many streams has many
 * of them. What a draw is, is draw.h's. */
#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"
#include "core/math/draw.h"

struct sampling {
  struct rows logits;
  int64_t vocabulary;
  const struct sample_draw *draws;
  struct sample_result *results;
  size_t n;
  float *scratch; /* a desk for each thread */
};

static size_t desk_floats(int64_t vocabulary) { return size_round_up((size_t)vocabulary * 2, 16); }

static void sample_work(struct pool_worker *worker, void *context) {
  const struct sampling *sampling = context;
  float *desk = sampling->scratch + (size_t)worker->index * desk_floats(sampling->vocabulary);
  size_t at, end;
  while (pool_take(worker, sampling->n, 1, &at, &end)) {
    const struct sample_draw *draw = &sampling->draws[at];
    draw_from(draw, rows_at(sampling->logits, draw->row), sampling->vocabulary, (struct draw_candidate *)(void *)desk,
              &sampling->results[at]);
  }
}

int cpu_sample(struct backend *backend, struct rows logits, int64_t vocabulary, const struct sample_draw *draws, int32_t n,
               struct sample_result *results, struct error *error) {
  struct cpu_backend *cpu = (struct cpu_backend *)backend;
  struct sampling sampling = {logits, vocabulary, draws, results, (size_t)n, NULL};
  sampling.scratch = cpu_scratch(cpu, (size_t)pool_threads(cpu->pool) * desk_floats(vocabulary), error);
  if (!sampling.scratch) return -1;
  if (n == 1) /* waking others would take longer */
    draw_from(draws, rows_at(logits, draws->row), vocabulary, (struct draw_candidate *)(void *)sampling.scratch, results);
  else
    pool_run(cpu->pool, sample_work, &sampling);
  return 0;
}
