/* bench_kernels: products at the shapes of GPT-2 small, as shares of the limits measured between them.
 *
 * Inside the window: one run() of a list of OP_LINEAR, one for each of so many copies of the weights that none is
 * found in a cache (160 MiB of them at least), as the layers of a model follow each other. OpenBLAS, where it can
 * be opened, multiplies the same shapes and copies; it packs on every call what we pack once.
 *
 * With STEERD_THREADS=1 everything is processor time, which neighbours disturb less.
 *
 *   bench_kernels [BACKEND [ROUNDS [ROWS]]]     ROWS: only that number of rows; 0: only
 *                                             packing and attention; attend: attention alone */
#include <dlfcn.h>

#include "core/math/ops.h"
#include "tests/bench/limits.h"

#define COPIES_BYTES ((size_t)160 << 20)
#define MAX_COPIES 48

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);

struct bench {
  struct backend *backend;
  struct limits limits;
  sgemm_fn *sgemm;
  int threads, rounds;
};

struct work {
  struct bench *bench;
  int n_out, n_in, rows, copies;
  enum dtype dtype;
  struct matrix *w[MAX_COPIES];
  float *plain; /* copies of [n_out, n_in] for OpenBLAS */
  float *host_x, *host_y;
  struct span x, y;
};

static void die(const char *what) {
  fprintf(stderr, "bench_kernels: %s\n", what);
  exit(1);
}

/* In [-0.5, 0.5), without a pattern that sums could follow. */
static float scatter(size_t i) {
  uint32_t h = (uint32_t)i * 2654435761u;
  h = (h ^ h >> 15) * 2246822519u;
  return (float)((h ^ h >> 13) >> 8) * 0x1p-24f - 0.5f;
}

static void multiply(struct work *work) {
  struct op list[MAX_COPIES] = {{.code = OP_LINEAR}};
  for (int i = 0; i < work->copies; i++) {
    list[i] = (struct op){.code = OP_LINEAR, .set = ROWS_LOGIT};
    list[i].u.linear.w = work->w[i];
    list[i].u.linear.x = (struct rows){work->x, work->n_in};
    list[i].u.linear.y = (struct rows){work->y, work->n_out};
  }
  struct backend *backend = work->bench->backend;
  struct step step = {.n_layer = 1, .n_rows = work->rows, .n_logit_rows = work->rows};
  if (backend->ops->run(backend, list, (size_t)work->copies, &step, NULL) != 0) die("a product failed");
}

static void multiply_blas(struct work *work) {
  size_t floats = (size_t)work->n_out * (size_t)work->n_in;
  for (int i = 0; i < work->copies; i++)
    work->bench->sgemm(101, 111, 112, work->rows, work->n_out, work->n_in, 1, work->host_x, work->n_in,
                       work->plain + (size_t)i * floats, work->n_in, 0, work->host_y, work->n_out);
}

/* Seconds of one product: as many lists as fill 10 ms. */
static double time_calls(struct work *work, void (*call)(struct work *)) {
  int64_t start = limits_now();
  int n = 0;
  do {
    call(work);
    n += work->copies;
  } while (limits_seconds(start) < 0.01);
  return limits_seconds(start) / n;
}

static void open_work(struct work *work) {
  struct backend *backend = work->bench->backend;
  size_t floats = (size_t)work->n_out * (size_t)work->n_in, size = dtype_size(work->dtype);
  size_t copies = COPIES_BYTES / (floats * size) + 1;
  work->copies = copies > MAX_COPIES ? MAX_COPIES : (int)copies;
  unsigned char *file = malloc(floats * size);
  if (!file) die("no memory");
  for (size_t i = 0; i < floats; i++) {
    float value = scatter(i);
    memcpy(file + i * size, (unsigned char *)&value + (4 - size), size); /* the upper half of an f32 is its bf16 */
  }
  struct matrix_part part = {.data = file, .dtype = work->dtype, .n_out = work->n_out, .ld = work->n_in};
  for (int i = 0; i < work->copies; i++)
    if (backend->ops->matrix_new(backend, &part, 1, work->n_in, &work->w[i], NULL) != 0) die("no memory");
  free(file);
  size_t x = (size_t)work->rows * (size_t)work->n_in * 4, y = (size_t)work->rows * (size_t)work->n_out * 4;
  if (backend->ops->alloc(backend, x, &work->x.memory, NULL) != 0 ||
      backend->ops->alloc(backend, y, &work->y.memory, NULL) != 0)
    die("no memory");
  work->host_x = calloc(1, x);
  work->host_y = calloc(1, y);
  for (size_t i = 0; i < x / 4; i++) work->host_x[i] = scatter(i + 12345);
  if (backend->ops->write(backend, work->x, work->host_x, x, NULL) != 0) die("no memory");
  if (!work->bench->sgemm || work->dtype != DTYPE_F32) return;
  work->plain = malloc(floats * 4 * (size_t)work->copies);
  if (!work->plain) die("no memory");
  for (size_t i = 0; i < floats * (size_t)work->copies; i++) work->plain[i] = scatter(i);
}

static void close_work(struct work *work) {
  struct backend *backend = work->bench->backend;
  for (int i = 0; i < work->copies; i++) backend->ops->matrix_free(backend, work->w[i]);
  backend->ops->free(backend, work->x.memory);
  backend->ops->free(backend, work->y.memory);
  free(work->plain);
  free(work->host_x);
  free(work->host_y);
}

/* Rounds in which limits, ours and OpenBLAS take turns; medians. */
static void measure(struct bench *bench, int n_out, int n_in, int rows, enum dtype dtype) {
  struct work work = {.bench = bench, .n_out = n_out, .n_in = n_in, .rows = rows, .dtype = dtype};
  double ours[32], blas[32], read[32], fma[32];
  open_work(&work);
  multiply(&work);
  for (int i = 0; i < bench->rounds; i++) {
    read[i] = limits_read(&bench->limits, bench->limits.all);
    ours[i] = time_calls(&work, multiply);
    fma[i] = limits_fma(bench->limits.all);
    blas[i] = work.plain ? time_calls(&work, multiply_blas) : 0;
  }
  double seconds = limits_median(ours, bench->rounds), flop = 2.0 * n_out * n_in * rows;
  double bytes = (double)n_out * n_in * (double)dtype_size(dtype);
  printf("%-4s %6d x %-5d %4d rows  %7.1f GFLOP/s %3.0f %% of peak  %6.1f GB/s %3.0f %% of read", dtype_name(dtype),
         n_out, n_in, rows, flop / seconds * 1e-9, flop / seconds * 1e-7 / limits_median(fma, bench->rounds),
         bytes / seconds * 1e-9, bytes / seconds * 1e-7 / limits_median(read, bench->rounds));
  if (work.plain) printf("  %5.2f x OpenBLAS", limits_median(blas, bench->rounds) / seconds);
  printf("\n");
  fflush(stdout);
  close_work(&work);
}

/* ---- packing and attention ----------------------------------------------------------------------------- */

/* matrix_new and matrix_free of the vocabulary matrix; the file is in memory. Bytes are read once and written
 * once, to pages that the kernel has yet to clear: about a third of the read rate is the limit. */
static void measure_pack(struct bench *bench, enum matrix_layout layout, enum dtype dtype) {
  const int64_t n_out = 50257, n_in = 768;
  size_t bytes = (size_t)(n_out * n_in) * dtype_size(dtype);
  double seconds[32], read[32];
  unsigned char *file = calloc(1, bytes + 1);
  if (!file) die("no memory");
  memset(file, 1, bytes + 1);
  struct matrix_part part = {.data = file + 1, .dtype = dtype, .layout = layout, .n_out = n_out,
                             .ld = layout == ROWS_ARE_OUTPUTS ? n_in : n_out};
  for (int i = 0; i < bench->rounds; i++) {
    struct matrix *w = NULL;
    read[i] = limits_read(&bench->limits, bench->limits.all);
    int64_t start = limits_now();
    if (bench->backend->ops->matrix_new(bench->backend, &part, 1, n_in, &w, NULL) != 0) die("no memory");
    seconds[i] = limits_seconds(start);
    bench->backend->ops->matrix_free(bench->backend, w);
  }
  double s = limits_median(seconds, bench->rounds);
  printf("pack %-4s 50257 x 768, rows are %-8s %6.1f ms %6.1f GB/s %3.0f %% of read\n", dtype_name(dtype),
         layout == ROWS_ARE_OUTPUTS ? "outputs" : "inputs", s * 1e3, (double)bytes / s * 1e-9,
         (double)bytes / s * 1e-7 / limits_median(read, bench->rounds));
  free(file);
}

/* Attention of one layer of GPT-2 small: a prompt in one step, or one row that ends it. */
static void measure_attend(struct bench *bench, int prompt, bool decode) {
  enum { WIDTH = 768 };
  struct backend *backend = bench->backend;
  struct span qkv = {NULL, 0}, z = {NULL, 0}, kv = {NULL, 0};
  int32_t table[64], blocks = (prompt + KV_BLOCK - 1) / KV_BLOCK;
  size_t block = backend->ops->kv_block_bytes(backend, 12, 64, DTYPE_F32);
  if (backend->ops->alloc(backend, (size_t)prompt * 3 * WIDTH * 4, &qkv.memory, NULL) != 0 ||
      backend->ops->alloc(backend, (size_t)prompt * WIDTH * 4, &z.memory, NULL) != 0 ||
      backend->ops->alloc(backend, (size_t)blocks * block, &kv.memory, NULL) != 0)
    die("no memory");
  for (int i = 0; i < blocks; i++) table[i] = i;
  int rows = decode ? 1 : prompt;
  struct row_range all[2] = {{0, rows}, {0, rows}};
  struct step_slot slot = {{0, rows}, prompt - rows, 0, 1};
  struct step step = {.n_layer = 1, .n_rows = rows, .n_slots = 1, .slots = &slot, .active = all, .arriving = all,
                      .kv = kv, .kv_table = table, .kv_blocks = blocks};
  struct op op = {.code = OP_ATTEND, .set = ROWS_ACTIVE, .width = WIDTH};
  op.u.attend.qkv = (struct rows){qkv, 3 * WIDTH};
  op.u.attend.z = (struct rows){z, WIDTH};
  op.u.attend.k = WIDTH;
  op.u.attend.v = 2 * WIDTH;
  op.u.attend.n_head = op.u.attend.n_kv_head = 12;
  op.u.attend.d_head = 64;
  op.u.attend.scale = 0.125f;
  double seconds[32], fma[32];
  for (int i = 0; i < bench->rounds; i++) {
    int64_t start = limits_now();
    for (int n = 0; n < 10; n++)
      if (backend->ops->run(backend, &op, 1, &step, NULL) != 0) die("attention failed");
    seconds[i] = limits_seconds(start) / 10;
    fma[i] = limits_fma(bench->limits.all);
  }
  double s = limits_median(seconds, bench->rounds), seen = decode ? prompt : prompt * (prompt + 1) / 2.0;
  printf("attend %4d rows of %4d, 12 heads of 64 %9.1f us %3.0f %% of peak\n", rows, prompt, s * 1e6,
         4.0 * 12 * 64 * seen / s * 1e-7 / limits_median(fma, bench->rounds));
  backend->ops->free(backend, qkv.memory);
  backend->ops->free(backend, z.memory);
  backend->ops->free(backend, kv.memory);
}

static void measure_packs(struct bench *bench) {
  measure_pack(bench, ROWS_ARE_OUTPUTS, DTYPE_F32);
  measure_pack(bench, ROWS_ARE_INPUTS, DTYPE_F32);
  measure_pack(bench, ROWS_ARE_OUTPUTS, DTYPE_BF16);
  measure_pack(bench, ROWS_ARE_INPUTS, DTYPE_BF16);
}

static void measure_attention(struct bench *bench) {
  measure_attend(bench, 128, false);
  measure_attend(bench, 512, false);
  measure_attend(bench, 512, true);
}

/* OpenBLAS is a peer and never a dependency. */
static sgemm_fn *find_sgemm(int threads) {
  void *library = dlopen("libopenblas.so.0", RTLD_NOW);
  if (!library) {
    printf("skip: OpenBLAS (libopenblas.so.0 not found)\n");
    return NULL;
  }
  void (*set_threads)(int) = NULL;
  sgemm_fn *sgemm = NULL;
  void *symbol = dlsym(library, "openblas_set_num_threads");
  memcpy(&set_threads, &symbol, sizeof set_threads);
  if (set_threads) set_threads(threads);
  symbol = dlsym(library, "cblas_sgemm");
  memcpy(&sgemm, &symbol, sizeof sgemm);
  return sgemm;
}

int main(int argc, char **argv) {
  static const int shapes[][2] = {{3072, 768}, {768, 3072}, {2304, 768}, {50257, 768}};
  static const int rows[] = {1, 8, 16, 64, 128, 512};
  struct error error = ERROR_INIT;
  struct bench bench = {.threads = bench_threads(), .rounds = argc > 2 ? atoi(argv[2]) : 3};
  if (bench.rounds < 1 || bench.rounds > 31) die("ROUNDS is 1..31");
  bench.backend = backend_open(argc > 1 ? argv[1] : "cpu", bench.threads, &error);
  if (!bench.backend) die(error.text);
  bench.sgemm = find_sgemm(bench.threads);
  limits_open(&bench.limits, bench.threads);
  limits_by_processor = bench.threads == 1;
  printf("%s, %d threads%s\n", bench.backend->ops->name, bench.threads, limits_by_processor ? ", processor time" : "");
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype += DTYPE_BF16)
      for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        if (argc < 4 || atoi(argv[3]) == rows[r])
          measure(&bench, shapes[s][0], shapes[s][1], rows[r], (enum dtype)dtype);
  if (argc < 4 || strcmp(argv[3], "0") == 0) measure_packs(&bench);
  if (argc < 4 || atoi(argv[3]) == 0) measure_attention(&bench);
  limits_close(&bench.limits);
  backend_close(bench.backend);
  return 0;
}
