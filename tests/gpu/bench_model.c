/* bench_model.c: see bench_model.h. Owns weights, caches and the tables of a step; knows nothing of time but how long a step takes
 * to be asked for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/pool.h"
#include "core/base/random.h"
#include "core/model/rotary.h"
#include "tests/gpu/bench_model.h"

#define FETCHED_PIECE ((size_t)4 << 20)

void check(int failed, const struct error *error) {
  if (!failed) return;
  fflush(stdout);
  fprintf(stderr, "bench_gpu: %s\n", error->text);
  exit(1);
}

struct memory *take(struct backend *backend, size_t bytes) {
  struct error error = ERROR_INIT;
  struct memory *memory = NULL;
  check(backend->ops->alloc(backend, bytes, &memory, &error), &error);
  return memory;
}

void fill(struct backend *backend, struct memory *memory, size_t bytes, const uint16_t *numbers, size_t n_numbers) {
  struct error error = ERROR_INIT;
  size_t have = n_numbers * sizeof *numbers & ~(size_t)3;
  if (have > bytes) have = bytes;
  check(backend->ops->write(backend, (struct span){memory, 0}, numbers, have, &error), &error);
  for (size_t n; have < bytes; have += n) {
    n = have < bytes - have ? have : bytes - have;
    check(backend->ops->copy(backend, (struct span){memory, have}, (struct span){memory, 0}, n, &error), &error);
  }
  check(backend_wait(backend, &error), &error);
}

struct backend *open_backend(const char *name) {
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open(name, strcmp(name, "cpu") ? 1 : pool_processors(), &error);
  check(!backend, &error);
  return backend;
}

struct span put_values(struct backend *backend, size_t n, float (*value)(size_t, double), double with) {
  struct error error = ERROR_INIT;
  float *values = malloc(n * sizeof *values);
  struct span at = {take(backend, n * sizeof *values), 0};
  if (!values) exit(1);
  for (size_t i = 0; i < n; i++) values[i] = value(i, with);
  check(backend->ops->write(backend, at, values, n * sizeof *values, &error), &error);
  free(values);
  return at;
}
float noise_value(size_t i, double seed) { return (float)random_unit((uint64_t)seed, 2, i) - 0.5f; }
float same_value(size_t i, double value) { return (void)i, (float)value; }

double sum_deviation(int64_t d_in) { return sqrt((double)d_in) * 0.29 * 0.0115; }
double usual_bias(int64_t d_in) { return -3 * sum_deviation(d_in); }

/* ---- the model ------------------------------------------------------------------------------------------------------- */

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

/* One vector serves as every gain and bias. */
static void make_gain(struct bench *b) {
  struct error error = ERROR_INIT;
  const struct arch *arch = &b->model.arch;
  size_t n = (size_t)(arch->d_mlp > 3 * arch->d_model ? arch->d_mlp : 3 * arch->d_model) + 4096;
  float *small = malloc(n * sizeof *small);
  if (!small) exit(1);
  for (size_t i = 0; i < n; i++) small[i] = 0.05f;
  b->gain = (struct span){take(b->backend, n * sizeof *small), 0};
  check(b->backend->ops->write(b->backend, b->gain, small, n * sizeof *small, &error), &error);
  free(small);
}

static void make_model(struct bench *b, size_t n_numbers) {
  struct error error = ERROR_INIT;
  struct arch *arch = &b->model.arch;
  struct weights *w = &b->model.weights;
  make_gain(b);
  w->n_layer = arch->n_layer;
  w->layers = calloc((size_t)arch->n_layer, sizeof *w->layers);
  for (int l = 0; l < arch->n_layer; l++) set_layer(b, &w->layers[l]);
  w->once.vector[SLOT_FINAL_GAIN] = w->once.vector[SLOT_FINAL_BIAS] = b->gain;
  if (b->shape->gpt2) {
    size_t bytes = (size_t)(CONTEXT * arch->d_model) * sizeof(float);
    w->once.vector[SLOT_POSITIONS] = (struct span){take(b->backend, bytes), 0};
    fill(b->backend, w->once.vector[SLOT_POSITIONS].memory, bytes, b->numbers, n_numbers);
  }
  w->once.matrix[SLOT_EMBED] = w->once.matrix[SLOT_UNEMBED] = matrix(b, arch->vocabulary, arch->d_model, false);
  b->plan = plan_new(&b->model, (struct plan_limits){MOST_PROMPT, MOST_STREAMS}, &error);
  check(!b->plan, &error);
}

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

size_t bench_kv_block_bytes(const struct bench *b) {
  const struct arch *arch = &b->model.arch;
  return b->backend->ops->kv_block_bytes(b->backend, arch->n_kv_head, arch->d_head, model_kv_type(&b->model));
}

/* Blocks of its own for each stream as far as decodes come; behind those all have the same, which the prompt alone comes to. */
static void make_cache(struct bench *b, int longest, size_t n_numbers) {
  size_t layers = (size_t)b->model.arch.n_layer;
  int32_t own = (START + longest - 1) / KV_BLOCK + 1, all = MOST_PROMPT / KV_BLOCK;
  b->kv_blocks = own > all ? own : all;
  size_t common = MOST_STREAMS * layers * (size_t)own, blocks = common + layers * (size_t)(b->kv_blocks - own);
  b->kv = take(b->backend, blocks * bench_kv_block_bytes(b));
  fill(b->backend, b->kv, blocks * bench_kv_block_bytes(b), b->numbers, n_numbers); /* what the positions before START left there */
  b->kv_table = malloc(MOST_STREAMS * layers * (size_t)b->kv_blocks * sizeof *b->kv_table);
  if (!b->kv_table) exit(1);
  int32_t *to = b->kv_table;
  for (size_t line = 0; line < MOST_STREAMS * layers; line++)
    for (int32_t k = 0; k < b->kv_blocks; k++)
      *to++ = k < own ? (int32_t)line * own + k : (int32_t)(common + line % layers * (size_t)(b->kv_blocks - own)) + k - own;
}

/* Of length 1: a vector for each stream and layer. */
static void make_vectors(struct bench *b) {
  struct error error = ERROR_INIT;
  size_t d = (size_t)b->model.arch.d_model, n = MOST_STREAMS * (size_t)b->model.arch.n_layer * d;
  float *vectors = malloc(n * sizeof *vectors), unit = sqrtf(12 / (float)d);
  if (!vectors) exit(1);
  for (size_t i = 0; i < n; i++) vectors[i] = unit * ((float)random_unit(3, 1, i) - 0.5f);
  b->vectors = take(b->backend, n * sizeof *vectors);
  check(b->backend->ops->write(b->backend, (struct span){b->vectors, 0}, vectors, n * sizeof *vectors, &error), &error);
  free(vectors);
}

static void make_tables(struct bench *b) {
  size_t layers = (size_t)b->model.arch.n_layer, points = (size_t)point_count(b->model.arch.n_layer) + 1;
  b->taps = take(b->backend, MOST_STREAMS * layers * (size_t)b->model.arch.d_model * sizeof(float));
  b->landed = malloc(FETCHED_PIECE);
  b->edits = calloc(MOST_STREAMS * layers, sizeof *b->edits);
  b->tap_items = calloc(MOST_STREAMS * layers, sizeof *b->tap_items);
  b->edit_begin = calloc(points, sizeof *b->edit_begin);
  b->tap_begin = calloc(points, sizeof *b->tap_begin);
  if (!b->landed || !b->edits || !b->tap_items || !b->edit_begin || !b->tap_begin) exit(1);
}

void bench_open(struct bench *b, const char *backend, const struct shape *shape, const uint16_t *numbers, size_t n_numbers, int longest) {
  memset(b, 0, sizeof *b);
  b->shape = shape;
  b->numbers = numbers;
  b->backend = open_backend(backend);
  b->model.backend = b->backend;
  set_arch(shape, &b->model.arch);
  make_model(b, n_numbers);
  make_cache(b, longest, n_numbers);
  make_vectors(b);
  make_tables(b);
}

void bench_close(struct bench *b) {
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
  free(b->landed);
  free(b->edits);
  free(b->tap_items);
  free(b->edit_begin);
  free(b->tap_begin);
}

/* ---- steps ------------------------------------------------------------------------------------------------------------ */

static void ask(struct bench *b, struct step *step) {
  struct error error = ERROR_INIT;
  int64_t begin = clock_ns();
  int32_t n = b->model.arch.n_layer;
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
  b->launching += (double)(clock_ns() - begin) * 1e-9;
  b->steps++;
}

static size_t fetched_piece(const struct bench *b, size_t at) { return b->fetched - at < FETCHED_PIECE ? b->fetched - at : FETCHED_PIECE; }

/* Greedy, where the logits are; then what was tapped. */
static void ask_draws(struct bench *b, int32_t n) {
  static struct sample_result chosen[MOST_STREAMS];
  struct error error = ERROR_INIT;
  int64_t begin = clock_ns();
  for (int32_t i = 0; i < n; i++) b->draws[i] = (struct sample_draw){.row = i, .top_p = 1, .n_likely = -1};
  if (n && b->backend->ops->sample)
    check(b->backend->ops->sample(b->backend, plan_logits(b->plan), b->model.arch.vocabulary, b->draws, n, chosen, &error), &error);
  for (size_t at = 0; at < b->fetched && b->backend->ops->fetch; at += FETCHED_PIECE)
    check(b->backend->ops->fetch(b->backend, (struct span){b->taps, at}, fetched_piece(b, at), &error), &error);
  b->drawing += (double)(clock_ns() - begin) * 1e-9;
}

void bench_wait(struct bench *b) {
  struct error error = ERROR_INIT;
  check(backend_wait(b->backend, &error), &error);
}

/* What was fetched into the host's memory; what the backend had no room for on its way is read now. */
static void read_taps(struct bench *b) {
  struct error error = ERROR_INIT;
  for (size_t at = 0; at < b->fetched; at += FETCHED_PIECE)
    check(b->backend->ops->read(b->backend, b->landed, (struct span){b->taps, at}, fetched_piece(b, at), &error), &error);
}

static struct edit_item edit_of(struct bench *b, int32_t row, int32_t layer, enum load load) {
  static const enum edit_kind kinds[] = {EDIT_ROW_ADD, EDIT_ROW_PROJECT, EDIT_ROW_CAP, EDIT_ROW_FEATURE_SET};
  int32_t d = (int32_t)b->model.arch.d_model;
  struct span v = {b->vectors, (size_t)(row * b->model.arch.n_layer + layer) * (size_t)d * sizeof(float)};
  return (struct edit_item){.kind = load == ONE_EDIT_EACH ? kinds[row % 4] : EDIT_ROW_ADD, .rows = {row, row + 1}, .column_end = d,
                            .value = 0.1f + 0.001f * (float)row, .v = v, .enc = v, .fold = 1};
}

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
      b->edits[n_edits++] = edit_of(b, i, l, load);
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
  b->fetched = load == TAPS_FETCHED ? (size_t)step->n_rows * (size_t)layers * (size_t)d * sizeof(float) : 0;
}

void bench_ask(struct bench *b, int streams, int32_t position, enum load load) {
  for (int i = 0; i < streams; i++) {
    b->token[i] = (position * 31 + i) % b->shape->vocabulary;
    b->position[i] = position;
    b->logit_row[i] = i;
    b->slots[i] = (struct step_slot){{i, i + 1}, position, 0, b->model.arch.n_layer};
  }
  struct step step = {.n_rows = streams, .n_slots = streams, .n_logit_rows = streams};
  load_step(b, &step, load);
  ask(b, &step);
}

void bench_decode(struct bench *b, int streams, int32_t position, enum load load) {
  bench_ask(b, streams, position, load);
  ask_draws(b, streams);
  bench_wait(b);
  read_taps(b);
}

void bench_prompt(struct bench *b, int32_t rows) {
  for (int32_t i = 0; i < rows; i++) b->token[i] = i % b->shape->vocabulary, b->position[i] = i;
  b->slots[0] = (struct step_slot){{0, rows}, 0, 0, b->model.arch.n_layer};
  b->logit_row[0] = rows - 1;
  b->fetched = 0;
  struct step step = {.n_rows = rows, .n_slots = 1, .n_logit_rows = 1};
  ask(b, &step);
  ask_draws(b, 1);
  bench_wait(b);
}
