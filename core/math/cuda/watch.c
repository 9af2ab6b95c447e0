/* watch.c: looks at every launch, to find what fails or what is slow on a device that is at hand for minutes only.
 *
 * STEERD_CUDA_WATCH=each waits behind each launch and names the kernel that fails or does not end; =times puts an event behind
 * each launch and prints a table when the backend is closed. Steps are launched kernel by kernel then and never recorded.
 * Owns its events and sums; without the variable it is not there at all. Says what it finds on stderr. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/math/cuda/cuda.h"

#define MOST_MARKS 4096 /* launches between two waits; what is beyond is not timed */
#define MOST_KINDS 512
#define KERNEL_LIMIT_SECONDS 20
#define HEAD_START_NS 8000000 /* the device waits so long, that launches are there when it comes to them */

/* Launches that are told apart: of the same op, kernel and grid. */
struct kind {
  char op[72];
  const void *kernel; /* NULL: a product of the library, or copies */
  struct launch_size size;
  int64_t rows;
  double bytes; /* of weights that it reads */
  double first; /* ms; a kernel's first launch may bring its code to the device, and counts where it is the only one */
  double total, least;
  long launches;
  bool seen;
};

struct watch {
  bool times;
  char op[72];
  int64_t rows;
  double bytes;
  cudaEvent_t marks[MOST_MARKS];
  int16_t kind_of[MOST_MARKS];
  int n_marks, n_events;
  struct kind kinds[MOST_KINDS];
  int n_kinds;
};

/* Of the calling thread, as its current device is. */
static _Thread_local struct watch *watching;

bool launches_watched(void) { return watching != NULL; }
void watch_enter(struct watch *watch) { watching = watch; }
void watch_aside(struct watch *watch) { watching = watch && watch->times ? NULL : watch; }

struct watch *watch_new(void) {
  const char *how = getenv("STEERD_CUDA_WATCH");
  bool times = how && strcmp(how, "times") == 0;
  if (!times && (!how || strcmp(how, "each") != 0)) return NULL;
  struct watch *watch = calloc(1, sizeof *watch);
  if (watch) watch->times = times;
  return watch;
}

static const char *kernel_name(const void *kernel) {
  const char *name = NULL;
  if (!kernel) return "(library)";
  return cudaFuncGetName(&name, kernel) == cudaSuccess && name ? name : "(unknown kernel)";
}

/* ---- one launch after the other ---------------------------------------------------------------------------------- */

static cudaError_t wait_for(cudaStream_t stream) {
  int64_t begin = clock_ns();
  cudaError_t status;
  while ((status = cudaStreamQuery(stream)) == cudaErrorNotReady) {
    sched_yield();
    if (clock_ns() - begin > (int64_t)KERNEL_LIMIT_SECONDS * 1000000000) return cudaErrorLaunchTimeout;
  }
  return status;
}

static void say(const struct watch *watch, const void *kernel, const struct launch_size *size, cudaError_t status, const char *when) {
  fprintf(stderr, "steerd-cuda: %s of %s, grid %u x %u x %u of %u threads, %zu bytes shared, for '%s': %s\n", when, kernel_name(kernel),
          size->x, size->y, size->z, size->threads, size->shared, watch->op, cudaGetErrorString(status));
}

/* ---- times --------------------------------------------------------------------------------------------------------- */

static void mark(struct watch *watch, cudaStream_t stream, int kind) {
  if (watch->n_marks == MOST_MARKS) return;
  if (watch->n_marks == watch->n_events) {
    if (cudaEventCreateWithFlags(&watch->marks[watch->n_events], cudaEventDefault) != cudaSuccess) return;
    watch->n_events++;
  }
  watch->kind_of[watch->n_marks] = (int16_t)kind;
  if (cudaEventRecord(watch->marks[watch->n_marks], stream) == cudaSuccess) watch->n_marks++;
}

static int kind_of(struct watch *watch, const void *kernel, const struct launch_size *size) {
  int i = 0;
  for (; i < watch->n_kinds; i++) {
    const struct kind *k = &watch->kinds[i];
    if (k->kernel == kernel && memcmp(&k->size, size, sizeof *size) == 0 && strcmp(k->op, watch->op) == 0) return i;
  }
  if (i == MOST_KINDS) return -1;
  struct kind *k = &watch->kinds[watch->n_kinds++];
  memcpy(k->op, watch->op, sizeof k->op);
  k->kernel = kernel;
  k->size = *size;
  k->bytes = watch->bytes;
  k->rows = watch->rows;
  return i;
}

static void sleep_before(void *unused) {
  struct timespec time = {0, HEAD_START_NS};
  (void)unused;
  nanosleep(&time, NULL);
}

/* The first launch after a wait begins a row of marks. */
static void begin_row(struct watch *watch, cudaStream_t stream) {
  if (watch->n_marks || cudaLaunchHostFunc(stream, sleep_before, NULL) != cudaSuccess) return;
  mark(watch, stream, -1);
}

/* The wait has returned: what lies between two marks is the later one's. */
void watch_collect(struct watch *watch) {
  for (int i = 1; i < watch->n_marks; i++) {
    float time;
    if (watch->kind_of[i] < 0 || cudaEventElapsedTime(&time, watch->marks[i - 1], watch->marks[i]) != cudaSuccess) continue;
    struct kind *k = &watch->kinds[watch->kind_of[i]];
    if (!k->seen) {
      k->seen = true;
      k->first = (double)time;
      continue;
    }
    k->total += (double)time;
    k->least = k->launches && k->least < (double)time ? k->least : (double)time;
    k->launches++;
  }
  watch->n_marks = 0;
}

/* ---- what is launched ------------------------------------------------------------------------------------------------ */

void watch_op(struct watch *watch, cudaStream_t stream, const char *what, int64_t rows, const struct matrix *w) {
  if (w)
    snprintf(watch->op, sizeof watch->op, "%s %lld x %lld, %lld rows", what, (long long)w->n_out, (long long)w->n_in, (long long)rows);
  else
    snprintf(watch->op, sizeof watch->op, "%s, %lld rows", what, (long long)rows);
  watch->rows = rows;
  watch->bytes = w ? (double)w->bytes : 0;
  if (watch->times) begin_row(watch, stream);
}

cudaError_t launch_watched(cudaStream_t stream, const void *kernel, const struct launch_size *size, cudaError_t status) {
  struct watch *watch = watching;
  if (!watch) return status;
  if (status != cudaSuccess) {
    say(watch, kernel, size, status, "launch");
    return status;
  }
  if (watch->times) {
    begin_row(watch, stream);
    mark(watch, stream, kind_of(watch, kernel, size));
    return status;
  }
  status = wait_for(stream);
  if (status != cudaSuccess) say(watch, kernel, size, status, "run");
  return status;
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

/* Steps of one size together, what takes longest first. */
static int by_rows_and_total(const void *a, const void *b) {
  const struct kind *x = a, *y = b;
  if (x->rows != y->rows) return x->rows < y->rows ? -1 : 1;
  return x->total > y->total ? -1 : x->total < y->total;
}

static void print_kind(const struct kind *k, double all) {
  double each = k->total / (double)k->launches;
  fprintf(stderr, "| %s | %s | %u x %u x %u, %u | %ld | %.2f | %.2f | %.1f %% | ", k->op, kernel_name(k->kernel), k->size.x, k->size.y,
          k->size.z, k->size.threads, k->launches, 1e3 * each, 1e3 * k->least, all > 0 ? 100 * k->total / all : 0);
  if (k->bytes > 0 && each > 0) fprintf(stderr, "%.0f GB/s ", k->bytes / each * 1e-6);
  fputs("|\n", stderr);
}

/* Kinds that were launched once have nothing but their first. */
static void take_firsts(struct watch *watch) {
  for (int i = 0; i < watch->n_kinds; i++) {
    struct kind *k = &watch->kinds[i];
    if (!k->seen || k->launches) continue;
    k->total = k->least = k->first;
    k->launches = 1;
  }
}

static void print_table(struct watch *watch) {
  double all = 0;
  take_firsts(watch);
  qsort(watch->kinds, (size_t)watch->n_kinds, sizeof *watch->kinds, by_rows_and_total);
  fputs("| op | kernel | grid, threads | launches | us each | least | share of such steps | weights read at |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n", stderr);
  for (int i = 0; i < watch->n_kinds; i++) {
    const struct kind *k = &watch->kinds[i];
    if (i == 0 || k->rows != k[-1].rows) {
      all = 0;
      for (int j = i; j < watch->n_kinds && watch->kinds[j].rows == k->rows; j++) all += watch->kinds[j].total;
    }
    if (k->launches) print_kind(k, all);
  }
}

void watch_free(struct watch *watch) {
  if (!watch) return;
  if (watching == watch) watching = NULL;
  if (watch->times) print_table(watch);
  for (int i = 0; i < watch->n_events; i++) cudaEventDestroy(watch->marks[i]);
  free(watch);
}
