/* bench_gpu: what a CUDA device gives, beside what it could: decode, prefill, first token and encodes of models with the shapes
 * of GPT-2 small, Gemma 2 2B and Llama 3.1 8B. Weights are random, in bf16, each matrix in its own memory; speed does not depend
 * on what they are. Prints a report in Markdown (docs/performance.md keeps the last one).
 *
 *   bench_gpu [--backend cuda:0] [--part gpt2|gemma|llama|dictionaries] [--figures FILE] [--trace] [--tiny]
 *
 * --part: one program for each, so that a failure of one leaves the others; none: all. --figures: appends `shape|what|which|number`
 * for the table of goals (goals.awk). --trace: a few steps of each kind, each kernel timed (STEERD_CUDA_WATCH=times), instead of
 * the report. --tiny: small shapes, to see that it runs.
 *
 * Inside the timing window of a decoded token: the whole step as the engine runs it (tables, launches, waiting) and the greedy
 * draw; not the scheduler and not HTTP. (a) has no edits and no taps; (b) taps resid_post of every layer and edits it at every layer,
 * each stream with vectors of its own; what is tapped stays on the device. (c) is (b) with all taps brought to the host in each step. (a)
 * and (b) alternate; figures are medians. "host" is the part of a step before the wait: tables and launches. Floors are measured in the same run: bytes of
 * weights (and keys and values) over the bandwidth of a copy, operations over the rate of one large product. */
#include <math.h>

#include "core/base/clock.h"
#include "core/base/random.h"
#include "core/model/plan.h"
#include "core/model/rotary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT 1024
#define START 128 /* positions before the first measured token */
#define TOKENS 64
#define ROUNDS 5
#define MOST_STREAMS 256
#define PROMPT 512

struct shape {
  const char *name;
  int n_layer, n_head, n_kv_head, d_head, d_model, d_mlp, vocabulary;
  bool gpt2, gemma;
};

static const struct shape real_shapes[] = {{"GPT-2 small", 12, 12, 12, 64, 768, 3072, 50257, true, false},
                                           {"Gemma 2 2B", 26, 8, 4, 256, 2304, 9216, 256000, false, true},
                                           {"Llama 3.1 8B", 32, 32, 8, 128, 4096, 14336, 128256, false, false}};
static const struct shape tiny_shapes[] = {{"tiny GPT-2", 2, 4, 4, 8, 32, 64, 96, true, false},
                                           {"tiny Gemma 2", 2, 4, 2, 16, 48, 96, 128, false, true},
                                           {"tiny Llama", 2, 4, 2, 8, 32, 80, 112, false, false}};

struct bench {
  const struct shape *shape;
  struct backend *backend;
  struct model model;
  struct plan *plan;
  struct memory *kv, *taps, *vectors;
  struct span gain;
  double weight_bytes, layer_weights; /* read for each token; elements of all layers */
  const uint16_t *numbers;
  int streams, rounds, tokens;
  /* tables of a step */
  int32_t token[MOST_STREAMS + PROMPT], position[MOST_STREAMS + PROMPT], source[MOST_STREAMS + PROMPT], logit_row[MOST_STREAMS];
  uint8_t origin[MOST_STREAMS + PROMPT];
  struct step_slot slots[MOST_STREAMS];
  struct row_range all[ARCH_MAX_LAYERS + 1];
  int32_t *kv_table, kv_blocks;
  struct edit_item *edits;
  struct tap_item *tap_items;
  int32_t *edit_begin, *tap_begin;
  struct sample_draw draws[MOST_STREAMS];
  size_t fetched; /* bytes of taps that a step brings to the host */
  double asking, steps; /* seconds before the wait, and of how many steps */
};

static FILE *figures;
static double bandwidth, rate; /* bytes/s of a copy, read and written; operations/s of a product in bf16 */

static void check(int failed, const struct error *error) {
  if (!failed) return;
  fprintf(stderr, "bench_gpu: %s\n", error->text);
  exit(1);
}

static double seconds(int64_t from) { return (double)(clock_ns() - from) * 1e-9; }

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}
static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, ascending);
  return values[n / 2];
}

/* ---- making a model ------------------------------------------------------------------------------------------------- */

static struct memory *take(struct backend *backend, size_t bytes) {
  struct error error = ERROR_INIT;
  struct memory *memory = NULL;
  check(backend->ops->alloc(backend, bytes, &memory, &error), &error);
  return memory;
}

/* bf16 numbers in about [-scale, scale), the same block for every matrix: some millions, again and again. */
static uint16_t *make_numbers(size_t n, float scale) {
  uint16_t *numbers = malloc(n * sizeof *numbers);
  uint64_t state = 88172645463325252u;
  size_t own = n < 8388593 ? n : 8388593; /* a prime: no two rows of a matrix are alike */
  if (!numbers) exit(1);
  for (size_t i = 0; i < own; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    numbers[i] = f32_to_bf16(scale * ((float)(state >> 40) / 8388608.0f - 1));
  }
  for (size_t i = own; i < n; i += own) memcpy(numbers + i, numbers, (n - i < own ? n - i : own) * sizeof *numbers);
  return numbers;
}

static struct matrix *matrix(struct bench *b, int64_t n_out, int64_t n_in, bool in_layer) {
  struct error error = ERROR_INIT;
  struct matrix *out = NULL;
  struct matrix_part part = {.data = b->numbers, .dtype = DTYPE_BF16, .n_out = n_out, .ld = n_in};
  check(b->backend->ops->matrix_new(b->backend, &part, 1, n_in, &out, &error), &error);
  b->weight_bytes += 2.0 * (double)n_out * (double)n_in;
  b->layer_weights += in_layer ? (double)n_out * (double)n_in : 0;
  return out;
}

static void set_arch(const struct shape *s, struct arch *arch) {
  *arch = (struct arch){.family = "bench", .n_layer = s->n_layer, .n_head = s->n_head, .n_kv_head = s->n_kv_head, .d_head = s->d_head,
                        .d_model = s->d_model, .d_mlp = s->d_mlp, .n_ctx = CONTEXT, .vocabulary = s->vocabulary, .norm_eps = 1e-5f,
                        .embed_scale = 1, .attn_scale = 1 / sqrtf((float)s->d_head)};
  arch->norm = arch->final_norm = s->gpt2 ? NORM_LAYER : NORM_RMS;
  arch->act = s->gpt2 || s->gemma ? ACT_GELU_TANH : ACT_SILU;
  arch->gated = !s->gpt2;
  arch->has = HAS_MLP | HAS_NORM2 | HAS_GAINS | (s->gpt2 ? HAS_POSITIONS | HAS_QKV_BIAS | HAS_O_BIAS | HAS_MLP_BIAS : 0u) |
              (s->gemma ? HAS_POST_NORMS : 0u);
  if (!s->gpt2) rotary_plain(10000, s->d_head, &arch->rotary);
  if (!s->gemma) return;
  arch->attn_soft_cap = 50;
  arch->logit_soft_cap = 30;
  arch->window = 4096;
  arch->rotary_local = arch->rotary;
  for (int l = 0; l < s->n_layer; l += 2) arch->local[l] = true;
}

static void set_layer(struct bench *b, struct weight_set *set) {
  const struct arch *arch = &b->model.arch;
  static const enum weight_slot gains[] = {SLOT_NORM1_GAIN, SLOT_NORM2_GAIN, SLOT_POST1_GAIN, SLOT_POST2_GAIN};
  static const enum weight_slot biases[] = {SLOT_NORM1_BIAS, SLOT_NORM2_BIAS, SLOT_QKV_BIAS, SLOT_O_BIAS, SLOT_IN_BIAS, SLOT_OUT_BIAS};
  set->matrix[SLOT_QKV] = matrix(b, arch_dim(arch, DIM_QKV), arch->d_model, true);
  set->matrix[SLOT_O] = matrix(b, arch->d_model, arch_dim(arch, DIM_ATTN), true);
  set->matrix[SLOT_IN] = matrix(b, arch->d_mlp, arch->d_model, true);
  if (arch->gated) set->matrix[SLOT_GATE] = matrix(b, arch->d_mlp, arch->d_model, true);
  set->matrix[SLOT_OUT] = matrix(b, arch->d_model, arch->d_mlp, true);
  for (size_t i = 0; i < sizeof gains / sizeof *gains; i++) set->vector[gains[i]] = b->gain;
  for (size_t i = 0; b->shape->gpt2 && i < sizeof biases / sizeof *biases; i++) set->vector[biases[i]] = b->gain;
}

static void make_model(struct bench *b) {
  struct error error = ERROR_INIT;
  struct arch *arch = &b->model.arch;
  struct weights *w = &b->model.weights;
  size_t widest = (size_t)(arch->d_mlp > 3 * arch->d_model ? arch->d_mlp : 3 * arch->d_model) + 4096;
  float *small = malloc(widest * sizeof *small);
  for (size_t i = 0; i < widest; i++) small[i] = 0.05f;
  b->gain = (struct span){take(b->backend, widest * sizeof *small), 0};
  check(b->backend->ops->write(b->backend, b->gain, small, widest * sizeof *small, &error), &error);
  free(small);
  w->n_layer = arch->n_layer;
  w->layers = calloc((size_t)arch->n_layer, sizeof *w->layers);
  for (int l = 0; l < arch->n_layer; l++) set_layer(b, &w->layers[l]);
  w->once.vector[SLOT_FINAL_GAIN] = w->once.vector[SLOT_FINAL_BIAS] = b->gain;
  if (b->shape->gpt2)
    w->once.vector[SLOT_POSITIONS] = (struct span){take(b->backend, (size_t)(CONTEXT * arch->d_model) * sizeof(float)), 0};
  w->once.matrix[SLOT_EMBED] = w->once.matrix[SLOT_UNEMBED] = matrix(b, arch->vocabulary, arch->d_model, false);
  b->plan = plan_new(&b->model, (struct plan_limits){PROMPT, MOST_STREAMS}, &error);
  check(!b->plan, &error);
}

static size_t kv_block_bytes(const struct bench *b) {
  const struct arch *arch = &b->model.arch;
  return b->backend->ops->kv_block_bytes(b->backend, arch->n_kv_head, arch->d_head, model_kv_type(&b->model));
}

static void make_tables(struct bench *b) {
  struct error error = ERROR_INIT;
  const struct arch *arch = &b->model.arch;
  size_t layers = (size_t)arch->n_layer, points = (size_t)point_count(arch->n_layer) + 1, d = (size_t)arch->d_model;
  b->kv_blocks = (START + TOKENS * 2 + KV_BLOCK) / KV_BLOCK;
  if (b->kv_blocks < PROMPT / KV_BLOCK) b->kv_blocks = PROMPT / KV_BLOCK;
  size_t blocks = MOST_STREAMS * layers * (size_t)b->kv_blocks;
  b->kv = take(b->backend, blocks * kv_block_bytes(b));
  b->kv_table = malloc(blocks * sizeof *b->kv_table);
  for (size_t i = 0; i < blocks; i++) b->kv_table[i] = (int32_t)i;
  b->taps = take(b->backend, MOST_STREAMS * layers * d * sizeof(float));
  b->vectors = take(b->backend, MOST_STREAMS * d * sizeof(float));
  float *vectors = malloc(MOST_STREAMS * d * sizeof *vectors);
  for (size_t i = 0; i < MOST_STREAMS * d; i++) vectors[i] = (float)random_unit(3, 1, i) - 0.5f;
  check(b->backend->ops->write(b->backend, (struct span){b->vectors, 0}, vectors, MOST_STREAMS * d * sizeof *vectors, &error), &error);
  free(vectors);
  b->edits = calloc(MOST_STREAMS * layers, sizeof *b->edits);
  b->tap_items = calloc(MOST_STREAMS * layers, sizeof *b->tap_items);
  b->edit_begin = calloc(points, sizeof *b->edit_begin);
  b->tap_begin = calloc(points, sizeof *b->tap_begin);
}

static void open_bench(struct bench *b, const char *name, const struct shape *shape, const uint16_t *numbers) {
  struct error error = ERROR_INIT;
  memset(b, 0, sizeof *b);
  b->shape = shape;
  b->numbers = numbers;
  b->backend = backend_open(name, 1, &error);
  check(!b->backend, &error);
  b->model.backend = b->backend;
  set_arch(shape, &b->model.arch);
  make_model(b);
  make_tables(b);
}

static void close_bench(struct bench *b) {
  struct ops const *ops = b->backend->ops;
  struct weights *w = &b->model.weights;
  plan_free(b->plan);
  for (int l = 0; l < w->n_layer; l++)
    for (int i = 0; i < SLOT_MATRICES; i++) ops->matrix_free(b->backend, w->layers[l].matrix[i]);
  ops->matrix_free(b->backend, w->once.matrix[SLOT_EMBED]);
  struct memory *all[] = {b->kv, b->taps, b->vectors, b->gain.memory, w->once.vector[SLOT_POSITIONS].memory};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) ops->free(b->backend, all[i]);
  backend_close(b->backend);
  free(w->layers);
  free(b->kv_table);
  free(b->edits);
  free(b->tap_items);
  free(b->edit_begin);
  free(b->tap_begin);
}

/* ---- steps ------------------------------------------------------------------------------------------------------------ */

static void run_step(struct bench *b, struct step *step) {
  struct error error = ERROR_INIT;
  int64_t begin = clock_ns();
  int32_t n = b->model.arch.n_layer;
  static struct sample_result chosen[MOST_STREAMS];
  for (int32_t l = 0; l <= n; l++) b->all[l] = (struct row_range){0, step->n_rows};
  step->n_layer = n;
  step->token = b->token;
  step->position = b->position;
  step->origin = b->origin;
  step->source = b->source;
  step->slots = b->slots;
  step->active = step->arriving = b->all;
  step->kv = (struct span){b->kv, 0};
  step->kv_table = b->kv_table;
  step->kv_blocks = b->kv_blocks;
  step->logit_row = b->logit_row;
  check(plan_run(b->plan, step, &error), &error);
  for (int32_t i = 0; i < step->n_logit_rows; i++) b->draws[i] = (struct sample_draw){.row = i, .top_p = 1, .n_likely = -1};
  if (step->n_logit_rows && b->backend->ops->sample)
    check(b->backend->ops->sample(b->backend, plan_logits(b->plan), b->model.arch.vocabulary, b->draws, step->n_logit_rows, chosen,
                                  &error), &error);
  if (b->fetched && b->backend->ops->fetch)
    check(b->backend->ops->fetch(b->backend, (struct span){b->taps, 0}, b->fetched, &error), &error);
  b->asking += seconds(begin);
  b->steps++;
  check(backend_wait(b->backend, &error), &error);
}

/* What the steps of a decode carry. */
enum load { NOTHING, TAPS_AND_EDITS, TAPS_FETCHED, ONE_EDIT_EACH };

/* Built anew for each step, as the engine does. */
static void load_step(struct bench *b, struct step *step, enum load load) {
  int32_t layers = b->model.arch.n_layer, d = (int32_t)b->model.arch.d_model, n_edits = 0, n_taps = 0, point = 0;
  b->fetched = 0;
  if (load == NOTHING) return;
  for (int32_t l = 0; l < layers; l++) {
    int32_t own = point_index((struct point){l, SITE_RESID_POST});
    for (; point <= own; point++) b->edit_begin[point] = n_edits, b->tap_begin[point] = n_taps;
    for (int32_t i = 0; i < step->n_rows; i++) {
      if (load == ONE_EDIT_EACH && i % layers != l) continue;
      struct span v = {b->vectors, (size_t)((i * 7 + l) % MOST_STREAMS) * (size_t)d * sizeof(float)};
      b->edits[n_edits++] = (struct edit_item){.kind = EDIT_ROW_ADD, .rows = {i, i + 1}, .column_end = d, .value = 0.01f, .v = v};
      if (load == ONE_EDIT_EACH) continue;
      struct span to = {b->taps, (size_t)(i * layers + l) * (size_t)d * sizeof(float)};
      b->tap_items[n_taps++] = (struct tap_item){{i, i + 1}, to, d};
    }
  }
  for (; point <= point_count(layers); point++) b->edit_begin[point] = n_edits, b->tap_begin[point] = n_taps;
  step->edits = b->edits;
  step->edit_begin = b->edit_begin;
  step->taps = b->tap_items;
  step->tap_begin = load == ONE_EDIT_EACH ? NULL : b->tap_begin;
  b->fetched = load == TAPS_FETCHED ? (size_t)(step->n_rows * layers * d) * sizeof(float) : 0;
}

static void decode_token(struct bench *b, int streams, int32_t position, enum load load) {
  for (int i = 0; i < streams; i++) {
    b->token[i] = (position * 31 + i) % b->shape->vocabulary;
    b->position[i] = position;
    b->logit_row[i] = i;
    b->slots[i] = (struct step_slot){{i, i + 1}, position, 0, b->model.arch.n_layer};
  }
  struct step step = {.n_rows = streams, .n_slots = streams, .n_logit_rows = streams};
  load_step(b, &step, load);
  run_step(b, &step);
}

/* Tokens a second of all streams together. */
static double decode(struct bench *b, int streams, enum load load) {
  int64_t from = clock_ns();
  for (int32_t i = 0; i < b->tokens; i++) decode_token(b, streams, START + i, load);
  return streams * b->tokens / seconds(from);
}

static void compare(struct bench *b, int streams, enum load load, double *plain, double *loaded) {
  double a[ROUNDS], c[ROUNDS];
  for (int i = 0; i < 3; i++) decode_token(b, streams, START, NOTHING), decode_token(b, streams, START, load);
  for (int i = 0; i < b->rounds; i++) a[i] = decode(b, streams, NOTHING), c[i] = decode(b, streams, load);
  *plain = median(a, b->rounds);
  *loaded = median(c, b->rounds);
}

static double prefill(struct bench *b, int32_t rows, int32_t logits) {
  for (int32_t i = 0; i < rows; i++) b->token[i] = i % b->shape->vocabulary, b->position[i] = i;
  b->slots[0] = (struct step_slot){{0, rows}, 0, 0, b->model.arch.n_layer};
  b->logit_row[0] = rows - 1;
  struct step step = {.n_rows = rows, .n_slots = 1, .n_logit_rows = logits};
  double times[ROUNDS];
  for (int i = -1; i < b->rounds; i++) {
    int64_t from = clock_ns();
    run_step(b, &step);
    if (i >= 0) times[i] = seconds(from);
  }
  return median(times, b->rounds);
}

/* ---- the report ----------------------------------------------------------------------------------------------------------- */

/* Weights once, and keys and values of the positions in the middle of the run. */
static double decode_floor(const struct bench *b, int streams) {
  const struct arch *arch = &b->model.arch;
  double kv = (double)arch->n_layer * (double)kv_block_bytes(b) / KV_BLOCK * (START + b->tokens / 2.0);
  double operations = 2 * (b->weight_bytes / 2) * streams;
  return fmax((b->weight_bytes + kv * streams) / bandwidth, operations / rate);
}

static void figure(const struct bench *b, const char *what, const char *which, double value) {
  if (figures) fprintf(figures, "%s|%s|%s|%.6g\n", b->shape->name, what, which, value), fflush(figures);
}

static void report_streams(struct bench *b, int streams, double *alone) {
  double a, c, fetched, floor = streams / decode_floor(b, streams);
  char what[32];
  snprintf(what, sizeof what, "decode, %d streams", streams);
  compare(b, streams, TAPS_AND_EDITS, &a, &c);
  b->asking = b->steps = 0;
  decode(b, streams, NOTHING);
  double asking = b->asking / b->steps;
  for (int i = 0; i < 3; i++) decode_token(b, streams, START, TAPS_FETCHED);
  fetched = decode(b, streams, TAPS_FETCHED);
  if (streams == 1) *alone = a;
  printf("| %s | %s | %.0f tok/s | %.0f tok/s (%.1f %% of a) | %.0f tok/s (%.1f %%) | %.0f tok/s | %.0f %% | %.1f x one, host %.0f us |\n",
         b->shape->name, what, a, c, 100 * c / a, fetched, 100 * fetched / a, floor, 100 * a / floor, a / *alone, 1e6 * asking);
  fflush(stdout);
  figure(b, what, "a", a);
  figure(b, what, "b", c);
  figure(b, what, "floor", floor);
}

static void report_decode(struct bench *b) {
  double alone = 0, a, c;
  report_streams(b, 1, &alone);
  report_streams(b, 8, &alone);
  report_streams(b, 64, &alone);
  compare(b, MOST_STREAMS, ONE_EDIT_EACH, &a, &c);
  printf("| %s | decode, 256 streams, 256 different edits | %.0f tok/s | %.0f tok/s (%.1f %% of a) | | | | |\n", b->shape->name, a, c,
         100 * c / a);
  figure(b, "256 edits", "a", a);
  figure(b, "256 edits", "b", c);
}

static void report_prompts(struct bench *b) {
  int32_t rows = PROMPT;
  double long_one = prefill(b, rows, 1), first = prefill(b, 16, 1);
  double floor = fmax(2 * b->layer_weights * rows / rate, b->weight_bytes / bandwidth);
  printf("| %s | prefill %d | %.0f tok/s | | | %.0f tok/s | %.0f %% | |\n", b->shape->name, rows, rows / long_one, rows / floor,
         100 * floor / long_one);
  printf("| %s | first token of 16 | %.2f ms | | | %.2f ms | %.0f %% | |\n", b->shape->name, 1e3 * first,
         1e3 * b->weight_bytes / bandwidth, 100 * b->weight_bytes / bandwidth / first);
  fflush(stdout);
}

static void report_encode(const char *name, const uint16_t *numbers, int64_t d_in, int64_t n_feat, int rounds) {
  static const int64_t rows[] = {1, 128};
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open(name, 1, &error);
  struct matrix *w = NULL;
  struct matrix_part part = {.data = numbers, .dtype = DTYPE_BF16, .n_out = n_feat, .ld = d_in};
  check(!backend || backend->ops->matrix_new(backend, &part, 1, d_in, &w, &error), &error);
  struct span x = {take(backend, (size_t)(128 * d_in) * sizeof(float)), 0};
  float *values = malloc((size_t)(128 * d_in) * sizeof *values);
  for (int64_t i = 0; i < 128 * d_in; i++) values[i] = (float)random_unit(5, 2, (uint64_t)i) - 0.5f;
  check(backend->ops->write(backend, x, values, (size_t)(128 * d_in) * sizeof *values, &error), &error);
  /* A sum has a deviation of sqrt(d_in) * 0.29 * 0.0115; three of them below, about one feature in a thousand is left. */
  float *less = malloc((size_t)n_feat * sizeof *less);
  struct span bias = {take(backend, (size_t)n_feat * sizeof *less), 0};
  for (int64_t i = 0; i < n_feat; i++) less[i] = -0.01f * sqrtf((float)d_in);
  check(backend->ops->write(backend, bias, less, (size_t)n_feat * sizeof *less, &error), &error);
  free(less);
  for (int k = 0; k < 4; k++) {
    struct encode_args args = {.kind = k % 2 ? ENCODE_TOPK : ENCODE_RELU, .w = w, .x = {x, d_in}, .n_rows = rows[k / 2], .k = 64, .bias = bias};
    size_t kept = 0;
    double times[ROUNDS], floor = fmax(2.0 * (double)(d_in * n_feat) / bandwidth, 2.0 * (double)(d_in * n_feat * rows[k / 2]) / rate);
    for (int i = -1; i < rounds; i++) {
      struct sparse codes;
      sparse_init(&codes);
      int64_t from = clock_ns();
      check(backend->ops->encode(backend, &args, &codes, &error), &error);
      if (i >= 0) times[i] = seconds(from);
      kept = codes.start[codes.n_rows];
      sparse_clear(&codes);
    }
    double time = median(times, rounds);
    printf("| dictionary %lld x %lld | encode %lld row(s), %s | %.3f ms | | | %.3f ms | %.0f %% | %zu kept a row |\n", (long long)d_in,
           (long long)n_feat, (long long)rows[k / 2], k % 2 ? "top 64" : "relu", 1e3 * time, 1e3 * floor, 100 * floor / time,
           kept / (size_t)rows[k / 2]);
    fflush(stdout);
  }
  free(values);
  backend->ops->matrix_free(backend, w);
  backend->ops->free(backend, x.memory);
  backend->ops->free(backend, bias.memory);
  backend_close(backend);
}

/* ---- draws ---- */

static double time_draws(struct backend *backend, struct span at, int32_t words, int32_t n, struct sample_draw like, int rounds) {
  static struct sample_draw draws[MOST_STREAMS];
  static struct sample_result results[MOST_STREAMS];
  struct error error = ERROR_INIT;
  double times[ROUNDS];
  for (int32_t i = 0; i < n; i++) draws[i] = like, draws[i].row = i, draws[i].unit = (i + 0.5) / n;
  for (int i = -1; i < rounds; i++) {
    int64_t from = clock_ns();
    check(backend->ops->sample(backend, (struct rows){at, words}, words, draws, n, results, &error) != 0 ||
              backend_wait(backend, &error) != 0, &error);
    if (i >= 0) times[i] = seconds(from);
  }
  return median(times, rounds);
}

/* Alone, with the launches and the wait that a step hides or shares. Logits as models have them, roughly: a deviation of 3. */
static void report_draws(const char *name, int32_t words, int rounds) {
  static const struct sample_draw kinds[] = {{.top_p = 1, .n_likely = -1},
                                             {.temperature = 1, .top_p = 1, .n_likely = -1},
                                             {.temperature = 1, .top_p = 0.9, .n_likely = -1},
                                             {.top_p = 1, .n_likely = 20}};
  static const char *const names[] = {"greedy", "temperature 1", "top_p 0.9", "greedy, 20 log-probabilities"};
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open(name, 1, &error);
  check(!backend, &error);
  if (!backend->ops->sample) {
    backend_close(backend);
    return;
  }
  size_t n = (size_t)64 * (size_t)words;
  struct span at = {take(backend, n * sizeof(float)), 0};
  float *logits = malloc(n * sizeof *logits);
  for (size_t i = 0; i < n; i++) {
    float sum = -6; /* of twelve numbers: nearly normal */
    for (int k = 0; k < 12; k++) sum += (float)random_unit(9, k, (uint64_t)i);
    logits[i] = 3 * sum;
  }
  check(backend->ops->write(backend, at, logits, n * sizeof *logits, &error), &error);
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    double one = time_draws(backend, at, words, 1, kinds[k], rounds), many = time_draws(backend, at, words, 64, kinds[k], rounds);
    printf("| draws from %d logits | %s | 1 row %.1f us | 64 rows %.1f us | | | | |\n", words, names[k], 1e6 * one, 1e6 * many);
  }
  fflush(stdout);
  free(logits);
  backend->ops->free(backend, at.memory);
  backend_close(backend);
}

/* ---- limits ------------------------------------------------------------------------------------------------------------------ */

static void measure_limits(const char *name, const uint16_t *numbers, bool tiny) {
  struct error error = ERROR_INIT;
  size_t bytes = tiny ? (size_t)1 << 20 : (size_t)2 << 30;
  int64_t n = tiny ? 64 : 8192;
  double times[ROUNDS];
  struct backend *backend = backend_open(name, 1, &error);
  check(!backend, &error);
  printf("device: %s\n", backend->ops->name);
  struct span from = {take(backend, bytes), 0}, to = {take(backend, bytes), 0};
  for (int i = -1; i < ROUNDS; i++) {
    int64_t begin = clock_ns();
    check(backend->ops->copy(backend, to, from, bytes, &error) != 0 || backend_wait(backend, &error) != 0, &error);
    if (i >= 0) times[i] = seconds(begin);
  }
  bandwidth = 2.0 * (double)bytes / median(times, ROUNDS);
  struct matrix *w = NULL;
  struct matrix_part part = {.data = numbers, .dtype = DTYPE_BF16, .n_out = n, .ld = n};
  check(backend->ops->matrix_new(backend, &part, 1, n, &w, &error), &error);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT};
  op.u.linear.w = w;
  op.u.linear.x = (struct rows){from, n};
  op.u.linear.y = (struct rows){to, n};
  struct step step = {.n_layer = 1, .n_rows = (int32_t)n, .n_logit_rows = (int32_t)n};
  for (int i = -1; i < ROUNDS; i++) {
    int64_t begin = clock_ns();
    check(backend->ops->run(backend, &op, 1, &step, &error) != 0 || backend_wait(backend, &error) != 0, &error);
    if (i >= 0) times[i] = seconds(begin);
  }
  rate = 2.0 * (double)(n * n) * (double)n / median(times, ROUNDS);
  printf("limits: %.0f GB/s copied (read and written), %.1f TFLOP/s in a product of %lld cubed (bf16, with rounding its input and "
         "writing f32)\n\n", bandwidth * 1e-9, rate * 1e-12, (long long)n);
  backend->ops->matrix_free(backend, w);
  backend->ops->free(backend, from.memory);
  backend->ops->free(backend, to.memory);
  backend_close(backend);
}

/* ---- which part ---------------------------------------------------------------------------------------------------------------- */

/* Steps enough for a median of each kernel; rows tell the kinds of steps apart in the table that the backend prints. */
static void trace(struct bench *b) {
  static const int counts[] = {1, 8, 64, MOST_STREAMS};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    for (int turn = 0; turn < 6; turn++) decode_token(b, counts[i], START, turn < 3 ? NOTHING : TAPS_AND_EDITS);
  prefill(b, PROMPT, 1);
}

static void run_model(const char *name, const struct shape *shape, const uint16_t *numbers, bool tiny, bool tracing) {
  static struct bench b;
  if (tracing) printf("\n## %s, kernel by kernel\n\n", shape->name), fflush(stdout);
  open_bench(&b, name, shape, numbers);
  b.rounds = tiny ? 1 : ROUNDS;
  b.tokens = tiny ? 3 : shape->gpt2 ? TOKENS : TOKENS / 2;
  if (tracing) trace(&b);
  else report_decode(&b), report_prompts(&b);
  close_bench(&b);
  if (tracing || !shape->gpt2 || strstr(name, "+")) return;
  /* What it is worth that kernels begin before their turn. */
  char serial[64];
  snprintf(serial, sizeof serial, "%s+serial", name);
  open_bench(&b, serial, shape, numbers);
  b.rounds = tiny ? 1 : ROUNDS;
  b.tokens = tiny ? 3 : shape->gpt2 ? TOKENS : TOKENS / 2;
  double a, c;
  compare(&b, 1, TAPS_AND_EDITS, &a, &c);
  printf("| %s | decode, 1 stream, +serial | %.0f tok/s | %.0f tok/s (%.1f %% of a) | | | | |\n", shape->name, a, c, 100 * c / a);
  fflush(stdout);
  close_bench(&b);
}

int main(int argc, char **argv) {
  static const char *const parts[] = {"gpt2", "gemma", "llama", "dictionaries", "draws"};
  const char *name = "cuda:0", *part = NULL;
  bool tiny = false, tracing = false;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--tiny")) tiny = true;
    else if (!strcmp(argv[i], "--trace")) tracing = true;
    else if (!strcmp(argv[i], "--backend") && i + 1 < argc) name = argv[++i];
    else if (!strcmp(argv[i], "--part") && i + 1 < argc) part = argv[++i];
    else if (!strcmp(argv[i], "--figures") && i + 1 < argc) figures = fopen(argv[++i], "a");
    else return fprintf(stderr, "usage: bench_gpu [--backend NAME] [--part NAME] [--figures FILE] [--trace] [--tiny]\n"), 2;
  }
  size_t most = tiny ? (size_t)1 << 16 : (size_t)256000 * 2304;
  uint16_t *numbers = make_numbers(most, 0.02f);
  measure_limits(name, numbers, tiny);
  if (tracing) setenv("STEERD_CUDA_WATCH", "times", 1);
  else
    puts("| model | what | (a) nothing attached | (b) taps and edits at every layer | (c) taps brought to the host | floor | (a) of the floor | |\n"
         "| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (int i = 0; i < 3; i++)
    if (!part || !strcmp(part, parts[i])) run_model(name, tiny ? &tiny_shapes[i] : &real_shapes[i], numbers, tiny, tracing);
  if (!part || !strcmp(part, parts[3])) {
    if (tracing) printf("\n## Dictionaries, kernel by kernel\n\n");
    if (tiny) report_encode(name, numbers, 32, 256, 1);
    else report_encode(name, numbers, 2304, 16384, ROUNDS), report_encode(name, numbers, 4096, 131072, ROUNDS);
  }
  if (!part || !strcmp(part, parts[4])) {
    if (tracing) printf("\n## Draws, kernel by kernel\n\n");
    report_draws(name, tiny ? 500 : 50257, tiny ? 1 : ROUNDS);
    report_draws(name, tiny ? 9000 : 256000, tiny ? 1 : ROUNDS);
  }
  free(numbers);
  if (figures) fclose(figures);
  return 0;
}
