/* bench_gradient: what a gradient costs beside a forward pass of the same tokens, and how long its longest piece holds up others.
 *
 *   bench_gradient FOLDER [TOKENS [ROUNDS]]     a GPT-2-family folder; 128 tokens, 7 rounds
 *
 * Forward: one step of all tokens with the logits of the last. Gradient: the logit of a token at the last position with respect to the
 * residual stream of every layer: passes there and back, from backward_new to the last slice. They take turns; medians are printed. */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/pool.h"
#include "core/engine/kv.h"
#include "core/model/backward.h"
#include "tests/bench/limits.h"

struct world {
  struct backend *backend;
  struct model *model;
  struct plan *plan;
  struct memory *kv;
  int32_t n, *ids, *position, *blocks;
  uint8_t *origin;
  struct row_range *all;
  double longest;
};

static void check(int failed, const struct error *error) {
  if (!failed) return;
  fprintf(stderr, "bench_gradient: %s\n", error->text);
  exit(1);
}

static void open_world(struct world *w, const char *folder, int32_t n) {
  struct error error = ERROR_INIT;
  const char *threads = getenv("STEERD_THREADS");
  w->n = n;
  w->backend = backend_open("cpu", threads ? atoi(threads) : pool_processors(), &error);
  check(!w->backend, &error);
  check(!(w->model = model_open_weights("bench", folder, w->backend, &error)), &error);
  check(!(w->plan = plan_new(w->model, (struct plan_limits){n, 1}, &error)), &error);
  int32_t n_layer = w->model->arch.n_layer, blocks = (n + KV_BLOCK - 1) / KV_BLOCK;
  size_t block = w->backend->ops->kv_block_bytes(w->backend, w->model->arch.n_kv_head, w->model->arch.d_head, model_kv_type(w->model));
  check(w->backend->ops->alloc(w->backend, block * (size_t)(blocks * n_layer), &w->kv, &error), &error);
  w->ids = calloc((size_t)n, sizeof *w->ids);
  w->position = calloc((size_t)n, sizeof *w->position);
  w->blocks = calloc((size_t)(blocks * n_layer), sizeof *w->blocks);
  w->origin = calloc((size_t)n, 1);
  w->all = calloc((size_t)n_layer + 1, sizeof *w->all);
  for (int32_t i = 0; i < blocks * n_layer; i++) w->blocks[i] = i;
  for (int32_t i = 0; i < n; i++) w->ids[i] = i % 200, w->position[i] = i;
  for (int32_t l = 0; l <= n_layer; l++) w->all[l] = (struct row_range){0, n};
}

static double forward(struct world *w) {
  struct error error = ERROR_INIT;
  int32_t last = w->n - 1;
  struct step_slot slot = {{0, w->n}, 0, 0, w->model->arch.n_layer};
  struct step step = {.n_layer = w->model->arch.n_layer, .n_rows = w->n, .token = w->ids, .position = w->position, .origin = w->origin,
                      .source = w->position, .n_slots = 1, .slots = &slot, .active = w->all, .arriving = w->all, .kv = {w->kv, 0},
                      .kv_table = w->blocks, .kv_blocks = (w->n + KV_BLOCK - 1) / KV_BLOCK, .n_logit_rows = 1, .logit_row = &last};
  int64_t begin = clock_ns();
  check(plan_run(w->plan, &step, &error), &error);
  return (double)(clock_ns() - begin) * 1e-6;
}

static int on_logits(void *context, int text, int32_t position, const float *logits, float *gradient, struct error *error) {
  (void)context, (void)text, (void)position, (void)logits, (void)error;
  gradient[7] = 1;
  return 0;
}

static int on_seen(void *context, const struct backward_seen *seen, struct error *error) {
  (void)context, (void)seen, (void)error;
  return 0;
}

static double gradient(struct world *w) {
  static const struct backward_events events = {on_logits, on_seen};
  struct error error = ERROR_INIT;
  struct point points[ARCH_MAX_LAYERS];
  for (int l = 0; l < w->model->arch.n_layer; l++) points[l] = (struct point){l, SITE_RESID_PRE};
  struct backward_args args = {.ids = {w->ids}, .n_tokens = w->n, .points = points, .n_points = w->model->arch.n_layer, .first = w->n - 1,
                               .last = w->n - 1, .most_bytes = (size_t)2 << 30, .events = &events};
  int64_t begin = clock_ns(), at = begin;
  struct backward *backward = backward_new(w->plan, &args, &error);
  check(!backward, &error);
  for (int more = 1; more;) {
    more = backward_slice(backward, &error);
    check(more < 0, &error);
    double took = (double)(clock_ns() - at) * 1e-6;
    at = clock_ns();
    if (took > w->longest) w->longest = took;
  }
  double all = (double)(clock_ns() - begin) * 1e-6;
  backward_free(backward);
  return all;
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

int main(int argc, char **argv) {
  if (argc < 2) return fprintf(stderr, "usage: bench_gradient FOLDER [TOKENS [ROUNDS]]\n"), 2;
  int32_t n = argc > 2 ? atoi(argv[2]) : 128;
  int rounds = argc > 3 ? atoi(argv[3]) : 7;
  struct world w = {0};
  double there[100], both[100];
  if (n < 2 || rounds < 1 || rounds > 100) return fprintf(stderr, "bench_gradient: 2 tokens, 1 to 100 rounds\n"), 2;
  open_world(&w, argv[1], n);
  forward(&w);
  gradient(&w);
  w.longest = 0;
  for (int i = 0; i < rounds; i++) {
    there[i] = forward(&w);
    both[i] = gradient(&w);
  }
  qsort(there, (size_t)rounds, sizeof *there, by_size);
  qsort(both, (size_t)rounds, sizeof *both, by_size);
  printf("forward %d   %8.1f ms\n", n, there[rounds / 2]);
  printf("gradient %d  %8.1f ms   %.2f forward passes, longest slice %.1f ms\n", n, both[rounds / 2], both[rounds / 2] / there[rounds / 2], w.longest);
  return 0;
}
