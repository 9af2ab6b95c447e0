/* bench_train: what a step of training costs.
 *
 *   bench_train [KIND [WIDTH [FEATURES [K [BATCH [STEPS]]]]]]     topk 768 4096 32 1024 12; relu takes no K (0)
 *
 * Rows are made up: sums of 24 of 2000 directions. Prints the median of the steps behind the first third, their parts of the loss, and
 * bytes of the trainer. Time is that of processors, which others' load moves least. STEERD_THREADS says how many threads (1). peer_train.py runs the same beside PyTorch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/random.h"
#include "core/dict/train.h"

#define DIRECTIONS 2000
#define TOGETHER 24

static void check(int failed, const struct error *error) {
  if (!failed) return;
  fprintf(stderr, "bench_train: %s\n", error->text);
  exit(1);
}

static float *make_directions(int64_t width) {
  float *directions = malloc((size_t)(DIRECTIONS * width) * sizeof *directions);
  for (int64_t i = 0; i < DIRECTIONS * width; i++) directions[i] = (float)(random_unit(1, 0, (uint64_t)i) - 0.5);
  return directions;
}

static void make_rows(const float *directions, int64_t width, int64_t n, uint64_t seed, float *x) {
  for (int64_t row = 0; row < n; row++) {
    memset(x + row * width, 0, (size_t)width * sizeof *x);
    for (uint64_t j = 0; j < TOGETHER; j++) {
      uint64_t place = (uint64_t)row * TOGETHER + j;
      int64_t which = (int64_t)(random_unit(seed, 2, place) * DIRECTIONS);
      float much = (float)(4 * random_unit(seed, 3, place));
      for (int64_t i = 0; i < width; i++) x[row * width + i] += much * directions[which * width + i];
    }
  }
}

static double processor_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

int main(int argc, char **argv) {
  struct error error = ERROR_INIT;
  struct train_figures figures;
  const char *threads = getenv("STEERD_THREADS"), *device = getenv("STEERD_DEVICE");
  int64_t numbers[] = {768, 4096, 32, 1024, 12};
  struct train_options o = {0};
  check(train_kind_find(argc > 1 ? argv[1] : "topk", &o.kind, &error), &error);
  for (int i = 2; i < argc && i < 7; i++) numbers[i - 2] = atoll(argv[i]);
  o.width = numbers[0], o.n_feat = numbers[1], o.k = train_takes_k(o.kind) ? numbers[2] : 0, o.batch = numbers[3], o.steps = numbers[4];
  train_defaults(&o);
  struct trainer *trainer = trainer_new(&o, device ? device : "cpu", threads ? atoi(threads) : 1, &error);
  check(!trainer, &error);
  float *directions = make_directions(o.width), *x = malloc((size_t)(o.batch * o.width) * sizeof *x);
  double *ms = calloc((size_t)o.steps, sizeof *ms);
  for (int64_t step = 0; step < o.steps; step++) {
    make_rows(directions, o.width, o.batch, (uint64_t)step, x);
    if (step == 0) check(trainer_begin(trainer, x, NULL, o.batch, &error), &error);
    double begin = processor_ms();
    check(trainer_step(trainer, x, NULL, &figures, &error), &error);
    ms[step] = processor_ms() - begin;
  }
  int64_t first = o.steps / 3;
  qsort(ms + first, (size_t)(o.steps - first), sizeof *ms, by_size);
  printf("%s: %lld of %lld features, %lld rows of %lld: %.2f ms a step, %.0f rows/s; L0 %.1f, explained %.3f, dead %lld; up to %.0f MiB\n",
         train_kind_name(o.kind), (long long)o.k, (long long)o.n_feat, (long long)o.batch, (long long)o.width, ms[first + (o.steps - first) / 2],
         1e3 * (double)o.batch / ms[first + (o.steps - first) / 2], figures.l0, figures.explained, (long long)figures.dead,
         (double)train_bytes(&o) / 1048576);
  free(ms);
  free(x);
  free(directions);
  trainer_free(trainer);
  return 0;
}
