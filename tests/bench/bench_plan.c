/* bench_plan: one token at a time through the compiled plan alone (no engine, no sampling, no HTTP), for the two shapes
 * of block that most models have, as a share of what reading the weights once a token allows.
 *
 * gpt2: LayerNorm, one product in and one out, tanh GELU, learned positions (d 768, 12 layers, 12 heads).
 * llama: RMSNorm, rotary positions, norms of heads, grouped heads, SwiGLU (d 576, 30 layers, 9 heads on 3).
 * "bare" is llama without rotary positions and norms of heads.
 * Weights are random and the same in every layer; all of them are read for each token. Medians of rounds that
 * alternate between the cases; the limit is measured in the same minute. */
#include <math.h>

#include "core/base/random.h"
#include "core/model/plan.h"
#include "core/model/rotary.h"
#include "tests/bench/limits.h"

#define ROUNDS 7
#define TOKENS 48
#define VOCABULARY 8192
#define CASES 6
#define CONTEXT 64 /* one block of keys and values */

struct bench {
  const char *name;
  struct backend *backend;
  struct model model;
  struct plan *plan;
  struct memory *kv;
  double bytes; /* of the weights that a token reads */
  double rate[ROUNDS];
};

static void check(int failed, const struct error *error) {
  if (!failed) return;
  fprintf(stderr, "bench_plan: %s\n", error->text);
  exit(1);
}

static struct matrix *matrix(struct bench *b, const void *numbers, enum dtype dtype, int64_t n_out, int64_t n_in) {
  struct error error = ERROR_INIT;
  struct matrix *out = NULL;
  struct matrix_part part = {.data = numbers, .dtype = dtype, .n_out = n_out, .ld = n_in};
  check(b->backend->ops->matrix_new(b->backend, &part, 1, n_in, &out, &error), &error);
  b->bytes += (double)n_out * (double)n_in * (double)dtype_size(dtype);
  return out;
}

static struct span ones(struct bench *b, int64_t n) {
  struct error error = ERROR_INIT;
  struct span span = {NULL, 0};
  float *values = malloc((size_t)n * sizeof *values);
  for (int64_t i = 0; i < n; i++) values[i] = 1;
  check(b->backend->ops->alloc(b->backend, (size_t)n * sizeof *values, &span.memory, &error), &error);
  check(b->backend->ops->write(b->backend, span, values, (size_t)n * sizeof *values, &error), &error);
  free(values);
  return span;
}

static void gpt2_arch(struct arch *arch) {
  arch->n_layer = 12;
  arch->n_head = arch->n_kv_head = 12;
  arch->d_head = 64;
  arch->d_model = 768;
  arch->d_mlp = 3072;
  arch->norm = arch->final_norm = NORM_LAYER;
  arch->has = HAS_MLP | HAS_NORM2 | HAS_GAINS | HAS_POSITIONS;
  arch->act = ACT_GELU_TANH;
}

static void llama_arch(struct arch *arch) {
  arch->n_layer = 30;
  arch->n_head = 9;
  arch->n_kv_head = 3;
  arch->d_head = 64;
  arch->d_model = 576;
  arch->d_mlp = 1536;
  arch->norm = arch->final_norm = NORM_RMS;
  arch->has = HAS_MLP | HAS_NORM2 | HAS_GAINS | HAS_QK_NORM;
  arch->act = ACT_SILU;
  arch->gated = true;
  rotary_plain(10000, 64, &arch->rotary);
}

/* The same without rotary positions and norms of heads: what these two cost is the difference. */
static void bare_arch(struct arch *arch) {
  llama_arch(arch);
  arch->rotary.dims = 0;
  arch->has &= ~(uint32_t)HAS_QK_NORM;
}

static void make(struct bench *b, const char *name, void (*shape)(struct arch *), enum dtype dtype, const void *numbers) {
  struct error error = ERROR_INIT;
  struct arch *arch = &b->model.arch;
  b->name = name;
  b->backend = backend_open("cpu", bench_threads(), &error);
  check(!b->backend, &error);
  b->model.backend = b->backend;
  shape(arch);
  arch->vocabulary = VOCABULARY;
  arch->n_ctx = CONTEXT;
  arch->norm_eps = 1e-5f;
  arch->embed_scale = 1;
  arch->attn_scale = 0.125f;
  int64_t d = arch->d_model, attn = arch_dim(arch, DIM_ATTN);
  struct weights *w = &b->model.weights;
  w->layers = calloc((size_t)arch->n_layer, sizeof *w->layers);
  w->n_layer = arch->n_layer;
  struct span gain = ones(b, 4096);
  for (int l = 0; l < arch->n_layer; l++) {
    struct weight_set *set = &w->layers[l];
    set->matrix[SLOT_QKV] = matrix(b, numbers, dtype, arch_dim(arch, DIM_QKV), d);
    set->matrix[SLOT_O] = matrix(b, numbers, dtype, d, attn);
    set->matrix[SLOT_IN] = matrix(b, numbers, dtype, arch->d_mlp, d);
    if (arch->gated) set->matrix[SLOT_GATE] = matrix(b, numbers, dtype, arch->d_mlp, d);
    set->matrix[SLOT_OUT] = matrix(b, numbers, dtype, d, arch->d_mlp);
    set->vector[SLOT_NORM1_GAIN] = set->vector[SLOT_NORM2_GAIN] = gain;
    set->vector[SLOT_Q_GAIN] = set->vector[SLOT_K_GAIN] = gain;
  }
  w->once.vector[SLOT_FINAL_GAIN] = gain;
  w->once.matrix[SLOT_EMBED] = w->once.matrix[SLOT_UNEMBED] = matrix(b, numbers, dtype, VOCABULARY, d);
  size_t block = b->backend->ops->kv_block_bytes(b->backend, arch->n_kv_head, arch->d_head, model_kv_type(&b->model));
  check(b->backend->ops->alloc(b->backend, block * (size_t)arch->n_layer, &b->kv, &error), &error);
  b->plan = plan_new(&b->model, (struct plan_limits){1, 1}, &error);
  check(!b->plan, &error);
}

static void token(struct bench *b, int32_t position) {
  struct error error = ERROR_INIT;
  int32_t id = position * 31 % VOCABULARY, row = 0, source = 0, table[ARCH_MAX_LAYERS];
  uint8_t origin = ORIGIN_EMBED;
  struct row_range all[ARCH_MAX_LAYERS + 1];
  int32_t n = b->model.arch.n_layer;
  for (int32_t l = 0; l <= n; l++) all[l] = (struct row_range){0, 1};
  for (int32_t l = 0; l < n; l++) table[l] = l;
  struct step_slot slot = {.rows = {0, 1}, .position = position, .first = 0, .last = n};
  struct step step = {.n_layer = n, .n_rows = 1, .token = &id, .position = &position, .origin = &origin, .source = &source,
                      .n_slots = 1, .slots = &slot, .active = all, .arriving = all, .kv = {b->kv, 0}, .kv_table = table,
                      .kv_blocks = 1, .n_logit_rows = 1, .logit_row = &row};
  check(plan_run(b->plan, &step, &error), &error);
}

static double run(struct bench *b) {
  int64_t from = clock_ns();
  for (int32_t i = 0; i < TOKENS; i++) token(b, i);
  return TOKENS / limits_seconds(from);
}

int main(void) {
  size_t most = (size_t)VOCABULARY * 768;
  float *numbers = malloc(most * sizeof *numbers);
  uint16_t *halves = malloc(most * sizeof *halves);
  for (size_t i = 0; i < most; i++) {
    numbers[i] = 0.05f * (2 * (float)random_unit(1, 2, i) - 1);
    halves[i] = f32_to_bf16(numbers[i]);
  }
  static struct bench cases[CASES];
  make(&cases[0], "gpt2 f32", gpt2_arch, DTYPE_F32, numbers);
  make(&cases[1], "llama f32", llama_arch, DTYPE_F32, numbers);
  make(&cases[2], "llama bare f32", bare_arch, DTYPE_F32, numbers);
  make(&cases[3], "gpt2 bf16", gpt2_arch, DTYPE_BF16, halves);
  make(&cases[4], "llama bf16", llama_arch, DTYPE_BF16, halves);
  make(&cases[5], "llama bare bf16", bare_arch, DTYPE_BF16, halves);
  free(numbers);
  free(halves);
  struct limits limits;
  limits_open(&limits, bench_threads());
  for (int r = 0; r < ROUNDS; r++)
    for (int c = 0; c < CASES; c++) cases[c].rate[r] = run(&cases[c]);
  limits_measure(&limits, ROUNDS);
  printf("decode of one row, the plan alone; %d threads, read %.1f GB/s\n", bench_threads(), limits.read_all);
  for (int c = 0; c < CASES; c++) {
    double median = limits_median(cases[c].rate, ROUNDS), limit = limits.read_all * 1e9 / cases[c].bytes;
    printf("%-20s %4.0f MB a token  %8.1f tok/s  %5.1f %% of %.0f\n", cases[c].name, cases[c].bytes * 1e-6, median,
           100 * median / limit, limit);
  }
  limits_close(&limits);
  return 0;
}
