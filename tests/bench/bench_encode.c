/* bench_encode: encoding with a dictionary of 768 x 24,576 F32, selection included, as a share of the limit that was
 * measured right before and right after, and beside OpenBLAS, whose product alone is timed (it selects nothing).
 *
 * A round is limit, ours, OpenBLAS, limit; printed are the median of the rounds' shares and their quartiles, since a
 * neighbour that takes the machine spoils single rounds and not the middle ones. Three dictionaries take turns (226 MB),
 * so that none is found in a cache. `processor time` is one thread's: it does not count while somebody else has the
 * processor. Kept are 1.5 % of the features with ReLU and JumpReLU, more than of a usual dictionary, and 32 with TopK.
 *
 *   bench_encode [BACKEND [ROUNDS [select]]]     select: only what selection costs */
#include <dlfcn.h>
#include <time.h>

#include "core/math/ops.h"
#include "tests/bench/limits.h"

enum { D = 768, F = 24576, COPIES = 3, MOST_ROWS = 128, MOST_ROUNDS = 201, SELECT_D = 4 };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);

struct bench {
  struct limits limits;
  sgemm_fn *sgemm;
  void (*set_threads)(int);
  const char *name;
  int rounds;
  bool select_only;
  float *plain;      /* [COPIES][F][D], for OpenBLAS */
  float *product;    /* [MOST_ROWS][F], its result */
  float x[MOST_ROWS * D];
};

/* The dictionaries on one backend. */
struct dictionaries {
  struct backend *backend;
  struct pool *pool; /* as many threads, for the limits */
  int threads, d_in;
  struct matrix *w[COPIES];
  struct span x, bias, threshold;
  struct sparse out;
};

struct kind {
  const char *name;
  enum encode_kind kind;
  float bias, threshold;
};

/* Sums have a deviation of about 2.3: 5 is what 1.5 % of them are above. */
static const struct kind kinds[] = {
    {"ReLU", ENCODE_RELU, -5, 0}, {"JumpReLU", ENCODE_JUMPRELU, 0, 5}, {"top 32", ENCODE_TOPK, 0, 0}};

static void die(const char *what) {
  fprintf(stderr, "bench_encode: %s\n", what);
  exit(1);
}

/* In [-0.5, 0.5), without a pattern that sums could follow. */
static float scatter(size_t i) {
  uint32_t h = (uint32_t)i * 2654435761u;
  h = (h ^ h >> 15) * 2246822519u;
  return (float)((h ^ h >> 13) >> 8) * 0x1p-24f - 0.5f;
}

static double thread_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- dictionaries ---------------------------------------------------------------------------------------- */

static struct span span_of(struct backend *backend, const float *values, size_t count) {
  struct span span = {NULL, 0};
  if (backend->ops->alloc(backend, count * sizeof *values, &span.memory, NULL) != 0 ||
      backend->ops->write(backend, span, values, count * sizeof *values, NULL) != 0)
    die("no memory");
  return span;
}

static void dictionaries_open(struct dictionaries *set, const struct bench *bench, int threads, int d_in) {
  struct error error = ERROR_INIT;
  static const float zeros[F];
  *set = (struct dictionaries){.threads = threads, .d_in = d_in};
  set->pool = threads == 1 ? bench->limits.one : bench->limits.all;
  set->backend = backend_open(bench->name, threads, &error);
  if (!set->backend) die(error.text);
  for (int i = 0; i < COPIES; i++) {
    struct matrix_part part = {.data = (const unsigned char *)(bench->plain + (size_t)i * F * D), .dtype = DTYPE_F32,
                               .n_out = F, .ld = d_in};
    if (set->backend->ops->matrix_new(set->backend, &part, 1, d_in, &set->w[i], NULL) != 0) die("no memory");
  }
  set->x = span_of(set->backend, bench->x, MOST_ROWS * D);
  set->bias = span_of(set->backend, zeros, F);
  set->threshold = span_of(set->backend, zeros, F);
  sparse_init(&set->out);
}

static void dictionaries_close(struct dictionaries *set) {
  sparse_clear(&set->out);
  for (int i = 0; i < COPIES; i++) set->backend->ops->matrix_free(set->backend, set->w[i]);
  set->backend->ops->free(set->backend, set->x.memory);
  set->backend->ops->free(set->backend, set->bias.memory);
  set->backend->ops->free(set->backend, set->threshold.memory);
  backend_close(set->backend);
}

static void set_kind(struct dictionaries *set, const struct kind *kind) {
  static float values[F];
  for (int i = 0; i < F; i++) values[i] = kind->bias;
  if (set->backend->ops->write(set->backend, set->bias, values, sizeof values, NULL) != 0) die("no memory");
  for (int i = 0; i < F; i++) values[i] = kind->threshold;
  if (set->backend->ops->write(set->backend, set->threshold, values, sizeof values, NULL) != 0) die("no memory");
}

static void encode_from(struct dictionaries *set, const struct kind *kind, int first, int rows, int copy) {
  struct encode_args args = {.kind = kind->kind, .w = set->w[copy], .n_rows = rows,
                             .x = {span_at(set->x, (size_t)(first * set->d_in) * sizeof(float)), set->d_in},
                             .bias = set->bias, .threshold = set->threshold, .k = 32};
  set->out.n_rows = 0; /* what was there may be written over: memory of rows comes once, as in a long run */
  if (set->backend->ops->encode(set->backend, &args, &set->out, NULL) != 0) die("an encode failed");
}

static void encode(struct dictionaries *set, const struct kind *kind, int rows, int copy) {
  encode_from(set, kind, 0, rows, copy);
}

/* ---- encoding beside the limits -------------------------------------------------------------------------- */

/* One token is bound by reading the weights, many by multiply-adds. */
static double limit_of(struct bench *bench, struct dictionaries *set, int rows, bool read) {
  if (read) return limits_read(&bench->limits, set->pool) * 1e9 / (4.0 * F * D) * rows;
  return limits_fma(set->pool) * 1e9 / (2.0 * F * D);
}

static double encode_speed(struct dictionaries *set, const struct kind *kind, int rows, int calls) {
  int64_t start = clock_ns();
  for (int i = 0; i < calls; i++) encode(set, kind, rows, i % COPIES);
  return calls * rows / limits_seconds(start);
}

static double blas_speed(const struct bench *bench, int rows, int calls) {
  int64_t start = clock_ns();
  if (!bench->sgemm) return 0;
  for (int i = 0; i < calls; i++)
    bench->sgemm(101, 111, 112, rows, F, D, 1, bench->x, D, bench->plain + (size_t)(i % COPIES) * F * D, D, 0,
                 bench->product, F);
  return calls * rows / limits_seconds(start);
}

/* Sorts: the three quartiles. */
static void quartiles(double *values, int n, double out[3]) {
  qsort(values, (size_t)n, sizeof *values, limits_ascending);
  for (int i = 0; i < 3; i++) out[i] = values[n * (i + 1) / 4];
}

static void measure(struct bench *bench, struct dictionaries *set, const struct kind *kind, int rows) {
  static double speed[MOST_ROUNDS], share[MOST_ROUNDS], other[MOST_ROUNDS], ratio[MOST_ROUNDS], top[MOST_ROUNDS];
  int calls = rows < 64 ? COPIES : 1;
  double tokens[3], shares[3], ratios[3], limits[3];
  set_kind(set, kind);
  encode(set, kind, rows, 0);
  for (int i = 0; i < bench->rounds; i++) {
    double before[2] = {limit_of(bench, set, rows, true), limit_of(bench, set, rows, false)};
    speed[i] = encode_speed(set, kind, rows, calls);
    double fma = (before[1] + limit_of(bench, set, rows, false)) / 2;
    double read = (before[0] + limit_of(bench, set, rows, true)) / 2;
    share[i] = 100 * speed[i] / read;
    other[i] = 100 * speed[i] / fma;
    top[i] = read < fma ? read : fma;
    ratio[i] = bench->sgemm ? speed[i] / blas_speed(bench, rows, calls) : 0;
  }
  quartiles(speed, bench->rounds, tokens);
  quartiles(top, bench->rounds, limits);
  printf("%-8s %d thr %4d tokens  %6.0f tok/s (%.0f-%.0f), limit %6.0f", kind->name, set->threads, rows, tokens[1],
         tokens[0], tokens[2], limits[1]);
  quartiles(share, bench->rounds, shares);
  if (rows < 64) printf("  %3.0f %% (%.0f-%.0f) of read", shares[1], shares[0], shares[2]);
  quartiles(other, bench->rounds, shares);
  if (rows > 1) printf("  %3.0f %% (%.0f-%.0f) of peak", shares[1], shares[0], shares[2]);
  quartiles(ratio, bench->rounds, ratios);
  if (bench->sgemm) printf("  %4.2f x (%.2f-%.2f) OpenBLAS", ratios[1], ratios[0], ratios[2]);
  printf("\n");
  fflush(stdout);
}

/* The same share by processor time. */
static void measure_alone(struct bench *bench, struct dictionaries *set, const struct kind *kind, int rows) {
  static double share[MOST_ROUNDS];
  double shares[3];
  set_kind(set, kind);
  for (int i = 0; i < bench->rounds; i++) {
    double from = thread_seconds();
    if (rows == 1)
      limits_read(&bench->limits, set->pool);
    else
      limits_fma(set->pool);
    double limit = thread_seconds();
    for (int n = 0; n < COPIES; n++) encode(set, kind, rows, n);
    double ours = thread_seconds();
    double work = rows == 1 ? (double)READ_BYTES / (4.0 * F * D)
                            : 2.0 * 16 * FMA_CHAINS * FMA_STEPS / (2.0 * F * D * rows); /* encodes in the limit's time */
    share[i] = 100 * (limit - from) / work / ((ours - limit) / COPIES);
  }
  quartiles(share, bench->rounds, shares);
  printf("%-8s processor time, 1 thr %4d tokens  %3.0f %% (%.0f-%.0f) of %s\n", kind->name, rows, shares[1], shares[0],
         shares[2], rows == 1 ? "read" : "peak");
}

/* Selection, with a product over four inputs in place of 768: an upper bound of what it costs a token. Such a sum is within
 * +-1; `cut` is what an entry must be above. */
static void measure_select(struct bench *bench, const struct kind *kind, float cut) {
  static double spent[MOST_ROUNDS];
  struct kind scaled = {kind->name, kind->kind, kind->bias < 0 ? -cut : 0, kind->threshold > 0 ? cut : 0};
  struct dictionaries set;
  double quarter[3];
  dictionaries_open(&set, bench, 1, SELECT_D);
  set_kind(&set, &scaled);
  for (int rows = 1; rows <= MOST_ROWS; rows *= MOST_ROWS) {
    for (int i = 0; i < bench->rounds; i++) {
      double start = thread_seconds();
      for (int n = 0; n < 512 / rows; n++) encode_from(&set, &scaled, rows == 1 ? n % MOST_ROWS : 0, rows, 0);
      spent[i] = (thread_seconds() - start) / (512 / rows * rows) * 1e6;
    }
    quartiles(spent, bench->rounds, quarter);
    printf("select %-8s of %d, 1 thread, %3d tokens at once  %6.2f us a token (%.2f-%.2f)", kind->name, F, rows, quarter[1],
           quarter[0], quarter[2]);
    if (rows > 1) printf(", %.0f kept", (double)set.out.start[rows] / rows);
    printf("\n");
  }
  dictionaries_close(&set);
}

/* ---- the run --------------------------------------------------------------------------------------------- */

/* OpenBLAS is a peer and never a dependency. */
static void find_sgemm(struct bench *bench) {
  void *library = dlopen("libopenblas.so.0", RTLD_NOW);
  if (!library) {
    printf("skip: OpenBLAS (libopenblas.so.0 not found)\n");
    return;
  }
  void *symbol = dlsym(library, "openblas_set_num_threads");
  memcpy(&bench->set_threads, &symbol, sizeof symbol);
  symbol = dlsym(library, "cblas_sgemm");
  memcpy(&bench->sgemm, &symbol, sizeof symbol);
}

static void fill(struct bench *bench) {
  size_t floats = (size_t)COPIES * F * D;
  bench->plain = malloc(floats * sizeof(float));
  bench->product = calloc((size_t)MOST_ROWS * F, sizeof(float));
  if (!bench->plain || !bench->product) die("no memory");
  for (size_t i = 0; i < floats; i++) bench->plain[i] = scatter(i);
  for (size_t i = 0; i < MOST_ROWS * D; i++) bench->x[i] = scatter(i + 12345);
}

static void run(struct bench *bench) {
  static const int rows[] = {1, 16, 128};
  struct dictionaries set;
  for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
    measure_select(bench, &kinds[kind], 0.5f);
    if (kinds[kind].kind != ENCODE_TOPK) measure_select(bench, &kinds[kind], 0.4f);
  }
  if (bench->select_only) return;
  dictionaries_open(&set, bench, bench_threads(), D);
  if (bench->set_threads) bench->set_threads(set.threads);
  for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) measure(bench, &set, &kinds[kind], rows[i]);
  dictionaries_close(&set);
  dictionaries_open(&set, bench, 1, D);
  for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
    measure_alone(bench, &set, &kinds[kind], 1);
    measure_alone(bench, &set, &kinds[kind], 128);
  }
  dictionaries_close(&set);
}

int main(int argc, char **argv) {
  static struct bench bench;
  bench.name = argc > 1 ? argv[1] : "cpu";
  bench.rounds = argc > 2 ? atoi(argv[2]) : 21;
  bench.select_only = argc > 3;
  if (bench.rounds < 3 || bench.rounds > MOST_ROUNDS) die("ROUNDS is 3..201");
  limits_open(&bench.limits, bench_threads());
  find_sgemm(&bench);
  fill(&bench);
  run(&bench);
  limits_close(&bench.limits);
  free(bench.plain);
  free(bench.product);
  return 0;
}
