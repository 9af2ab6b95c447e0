/* sample.c: draws where the logits are, so that rows of a vocabulary need not be copied for one token each. */
#include <stddef.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

/* The draws of a call, and what they leave on the host: results, then the changes of logits on their way. */
struct sampling {
  struct cuda_backend *cuda;
  const struct sample_draw *draws;
  struct sample_result *results;
  struct sample_change *staged;
  struct sample_args args;
};

static enum sample_kind kind_of(const struct sample_draw *draw, int64_t vocabulary) {
  if (!(draw->temperature > 0)) return SAMPLE_GREEDY;
  bool filters = (draw->top_k > 0 && draw->top_k < vocabulary) || draw->top_p < 1 || draw->min_p > 0;
  return filters ? SAMPLE_ORDERED : SAMPLE_BY_INDEX;
}

static size_t changes_of(const struct sample_draw *draw) { return (size_t)draw->n_penalties + (size_t)draw->n_biases; }

/* All launches of a call use the scratch of the first: they come one behind the other. */
static int launch_jobs(struct sampling *s, struct error *error) {
  struct sample_args *args = &s->args;
  bool changed = false;
  if (!args->n_jobs) return 0;
  for (int i = 0; i < args->n_jobs; i++) changed |= args->jobs[i].n_penalties + args->jobs[i].n_biases > 0;
  args->job_bytes = sample_job_bytes(args->vocabulary, changed);
  args->scratch = cuda_scratch(s->cuda, SCRATCH_SAMPLE, (size_t)args->n_jobs * args->job_bytes, error);
  if (!args->scratch || cuda_check(s->cuda, launch_sample(s->cuda->stream, args), "a draw", error) != 0) return -1;
  args->n_jobs = 0;
  return 0;
}

static int add_job(struct sampling *s, struct sample_job job, struct error *error) {
  if (s->args.n_jobs == SAMPLE_MOST_JOBS && launch_jobs(s, error) != 0) return -1;
  s->args.jobs[s->args.n_jobs++] = job;
  return 0;
}

static int add_draw(struct sampling *s, int32_t i, int32_t *used, struct error *error) {
  const struct sample_draw *draw = &s->draws[i];
  struct sample_job job = {.kind = (int32_t)kind_of(draw, s->args.vocabulary), .row = draw->row, .result = i, .top_k = draw->top_k,
                           .n_penalties = draw->n_penalties, .n_biases = draw->n_biases, .changes = *used,
                           .temperature = draw->temperature, .top_p = draw->top_p, .min_p = draw->min_p, .unit = draw->unit};
  struct sample_job likely = {.kind = SAMPLE_LIKELY, .row = draw->row, .result = i, 
                              .top_k = draw->n_likely < SAMPLE_MOST_LIKELY ? draw->n_likely : SAMPLE_MOST_LIKELY,
                              .temperature = 1, .top_p = 1};
  *used += (int32_t)changes_of(draw);
  if (add_job(s, job, error) != 0) return -1;
  return draw->n_likely >= 0 ? add_job(s, likely, error) : 0;
}

/* Lists of changes go to the device, where every block of a row looks through them. */
static int send_changes(struct sampling *s, int32_t n, size_t changes, struct error *error) {
  struct sample_change *to = s->staged;
  if (!changes) return 0;
  for (int32_t i = 0; i < n; i++) {
    const struct sample_draw *draw = &s->draws[i];
    if (draw->n_penalties) memcpy(to, draw->penalties, (size_t)draw->n_penalties * sizeof *to);
    to += draw->n_penalties;
    if (draw->n_biases) memcpy(to, draw->biases, (size_t)draw->n_biases * sizeof *to);
    to += draw->n_biases;
  }
  void *device = cuda_scratch(s->cuda, SCRATCH_CHANGES, changes * sizeof *to, error);
  if (!device) return -1;
  s->args.changes = device;
  return cuda_check(s->cuda, cudaMemcpyAsync(device, s->staged, changes * sizeof *to, cudaMemcpyHostToDevice, s->cuda->stream), "a draw",
                    error);
}

/* Kernels write the results where they lie on the host: a copy would cost more than the bytes take. */
int cuda_sample(struct backend *backend, struct rows logits, int64_t vocabulary, const struct sample_draw *draws, int32_t n,
                struct sample_result *results, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  size_t result_bytes = size_round_up((size_t)(n > 0 ? n : 0) * sizeof *results, 256), changes = 0;
  int32_t used = 0;
  if (n <= 0) return 0;
  for (int32_t i = 0; i < n; i++) changes += changes_of(&draws[i]);
  if (cuda_enter(cuda, error) != 0 || (cuda->awaited.n && cuda_wait(cuda, error) != 0)) return -1;
  unsigned char *at = cuda_stage(cuda, result_bytes + changes * sizeof(struct sample_change), error);
  if (!at || cuda_begin(cuda, error) != 0) return -1;
  if (cuda->watch) watch_op(cuda->watch, cuda->stream, "draw", n, NULL);
  struct sampling s = {.cuda = cuda, .draws = draws, .results = (struct sample_result *)(void *)at,
                       .staged = (struct sample_change *)(void *)(at + result_bytes)};
  s.args.logits = device_rows_of(logits);
  s.args.vocabulary = vocabulary;
  s.args.parts = sample_parts(vocabulary);
  s.args.results = s.results;
  for (int32_t i = 0; i < n; i++) memset(&s.results[i], 0, offsetof(struct sample_result, likely));
  if (send_changes(&s, n, changes, error) != 0) return -1;
  for (int32_t i = 0; i < n; i++)
    if (add_draw(&s, i, &used, error) != 0) return -1;
  if (launch_jobs(&s, error) != 0) return -1;
  cuda->awaited = (struct awaited){s.results, results, n};
  return 0;
}

void cuda_sample_take(struct awaited *awaited) {
  for (int32_t i = 0; i < awaited->n; i++) {
    const struct sample_result *from = &awaited->from[i];
    memcpy(&awaited->to[i], from, offsetof(struct sample_result, likely) + (size_t)from->n_likely * sizeof *from->likely);
  }
  awaited->n = 0;
}
