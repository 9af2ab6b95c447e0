/* ops_world.h: a small transformer over any backend, for the tests of the compute contract.
 *
 * A world owns one backend, weights that are the same numbers in every world of the same shape, activations,
 * a KV pool, and the op list. A test describes a step by its slots and reads buffers back. */
#ifndef STEERD_TESTS_UNIT_OPS_WORLD_H
#define STEERD_TESTS_UNIT_OPS_WORLD_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/random.h"
#include "core/math/ops.h"

#define MAX_LAYERS 3
#define MAX_ROWS 300
#define MAX_SLOTS 40
#define KV_BLOCKS 5 /* of a slot: contexts up to 320 */

/* A number in [-1, 1) that depends on (stream, i) only. */
static inline float noise(uint64_t stream, uint64_t i) {
  return (float)(2.0 * random_unit(7, stream, i) - 1.0);
}

static inline void fill(float *out, size_t n, uint64_t stream, float scale) {
  for (size_t i = 0; i < n; i++) out[i] = scale * noise(stream, i);
}

/* The fast backends this machine can run; one that it cannot is skipped by name. */
static inline int fast_backends(const char **names) {
  static const char *const all[] = {"cpu-generic", "cpu-avx2", "cpu-avx512"};
  int n = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    struct error error = ERROR_INIT;
    struct backend *backend = backend_open(all[i], 1, &error);
    if (backend)
      names[n++] = all[i];
    else
      printf("skip: %s (%s)\n", all[i], error.text);
    backend_close(backend);
  }
  return n;
}

static inline struct backend *must_open(const char *name, int threads) {
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open(name, threads, &error);
  if (!backend) fail_msg("%s: %s", name, error.text);
  return backend;
}

static inline struct span must_alloc(struct backend *backend, size_t floats) {
  struct span span = {NULL, 0};
  assert_int_equal(backend->ops->alloc(backend, floats * sizeof(float), &span.memory, NULL), 0);
  return span;
}

static inline struct span must_put(struct backend *backend, const float *data, size_t floats) {
  struct span span = must_alloc(backend, floats);
  assert_int_equal(backend->ops->write(backend, span, data, floats * sizeof(float), NULL), 0);
  return span;
}

static inline struct span put_noise(struct backend *backend, size_t floats, uint64_t stream, float scale) {
  float *data = malloc((floats + 1) * sizeof *data);
  fill(data, floats, stream, scale);
  struct span span = must_put(backend, data, floats);
  free(data);
  return span;
}

static inline void must_read(struct backend *backend, float *to, struct span from, size_t floats) {
  assert_int_equal(backend->ops->read(backend, to, from, floats * sizeof(float), NULL), 0);
}

static inline void drop(struct backend *backend, struct span span) { backend->ops->free(backend, span.memory); }

/* ---- matrices ---------------------------------------------------------------------------------------- */

static inline uint16_t to_bf16(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Halves of a grid that binary16 holds exactly, so that no rounding rule is needed here. */
static inline uint16_t to_f16(float v) {
  float grid = rintf(v * 512) / 512, magnitude = fabsf(grid);
  if (magnitude == 0) return 0;
  int exponent;
  float fraction = frexpf(magnitude, &exponent);
  return (uint16_t)((grid < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | (int)((fraction * 2 - 1) * 1024));
}

/* A file: numbers of one matrix in a dtype and layout, at an address that is not a multiple of its size. */
struct file {
  unsigned char *block;
  struct matrix_part part;
};

static inline struct file file_new(enum dtype dtype, enum matrix_layout layout, int64_t n_out, int64_t n_in,
                                   uint64_t stream, float scale) {
  int64_t ld = (layout == ROWS_ARE_OUTPUTS ? n_in : n_out) + 3, lines = layout == ROWS_ARE_OUTPUTS ? n_out : n_in;
  size_t size = dtype_size(dtype);
  struct file file = {malloc((size_t)(ld * lines) * size + 1),
                      {.dtype = dtype, .layout = layout, .n_out = n_out, .ld = ld}};
  file.part.data = file.block + 1;
  memset(file.block, 0x7F, (size_t)(ld * lines) * size + 1); /* huge or NaN where nothing may be read */
  for (int64_t out = 0; out < n_out; out++) {
    for (int64_t in = 0; in < n_in; in++) {
      float value = scale * noise(stream, (uint64_t)(out * n_in + in));
      int64_t at = layout == ROWS_ARE_OUTPUTS ? out * ld + in : in * ld + out;
      uint16_t half = dtype == DTYPE_BF16 ? to_bf16(value) : to_f16(value);
      memcpy(file.block + 1 + (size_t)at * size, dtype == DTYPE_F32 ? (void *)&value : (void *)&half, size);
    }
  }
  return file;
}

static inline struct matrix *must_matrix(struct backend *backend, const struct matrix_part *parts, int n,
                                         int64_t n_in) {
  struct matrix *matrix = NULL;
  struct error error = ERROR_INIT;
  if (backend->ops->matrix_new(backend, parts, n, n_in, &matrix, &error) != 0) fail_msg("%s", error.text);
  return matrix;
}

/* ---- the world --------------------------------------------------------------------------------------- */

struct shape {
  int n_layer, d_model, n_head, n_kv_head, d_head, d_mlp, vocabulary, window;
  float soft_cap;
  enum norm_kind norm;
  enum activation act;
  bool gated;
  enum dtype dtype;
};

/* Awkward sizes: nothing is a multiple of 16; two query heads share a KV head; a window shorter than a block. */
static const struct shape small_shape = {2, 37, 4, 2, 9, 53, 61, 0, 0, NORM_LAYER, ACT_GELU_TANH, false, DTYPE_F32};
static const struct shape gated_shape = {2, 40, 6, 2, 20, 70, 33, 50, 30, NORM_RMS, ACT_SILU, true, DTYPE_BF16};

enum weight { W_QKV, W_OUT, W_UP, W_GATE, W_DOWN, W_KINDS };

struct world {
  struct shape shape;
  struct backend *backend;
  struct file file[MAX_LAYERS][W_KINDS], embed_file;
  struct matrix *w[MAX_LAYERS][W_KINDS], *embed;
  struct span vectors, positions, resid, x, qkv, z, out, mlp, up, logit_x, logits, kv;
  struct op list[64];
  size_t count;
  /* the step's tables */
  struct step step;
  int32_t token[MAX_ROWS], position[MAX_ROWS], source[MAX_ROWS], logit_row[MAX_ROWS];
  uint8_t origin[MAX_ROWS];
  struct step_slot slots[MAX_SLOTS];
  struct row_range active[MAX_LAYERS + 1], arriving[MAX_LAYERS + 1];
  int32_t kv_table[MAX_SLOTS * MAX_LAYERS * KV_BLOCKS];
};

static inline struct op *next_op(struct world *world, enum op_code code, enum row_set set, int layer, int64_t width) {
  struct op *op = &world->list[world->count++];
  *op = (struct op){.code = code, .set = set, .layer = layer, .width = width};
  return op;
}

static inline void add_linear(struct world *world, int layer, struct matrix *w, struct rows x, struct rows y,
                              enum activation act) {
  struct op *op = next_op(world, OP_LINEAR, layer == world->shape.n_layer ? ROWS_LOGIT : ROWS_ACTIVE, layer, 0);
  op->u.linear.w = w;
  op->u.linear.x = x;
  op->u.linear.y = y;
  op->u.linear.bias = layer == world->shape.n_layer ? (struct span){NULL, 0} : span_at(world->vectors, 4 * 64);
  op->u.linear.act = act;
  op->u.linear.room = MAX_ROWS;
}

static inline struct norm world_norm(struct world *world) {
  return (struct norm){.kind = world->shape.norm, .eps = 1e-5f, .gain = world->vectors, .bias = span_at(world->vectors, 4 * 7)};
}

static inline void add_sublayer(struct world *world, int layer, enum site out_site, enum site resid_site,
                                bool normed) {
  int64_t d = world->shape.d_model;
  struct op *op = next_op(world, OP_SUBLAYER, ROWS_ACTIVE, layer, d);
  op->u.sublayer.out = (struct rows){world->out, d + 1};
  op->u.sublayer.resid = (struct rows){world->resid, d};
  op->u.sublayer.y = (struct rows){world->x, d + 2};
  op->u.sublayer.out_site = out_site;
  op->u.sublayer.resid_site = resid_site;
  if (normed) op->u.sublayer.norm = world_norm(world);
}

static inline void add_norm(struct world *world, enum row_set set, int layer) {
  struct op *op = next_op(world, OP_NORM, set, layer, world->shape.d_model);
  op->u.norm.x = (struct rows){world->resid, world->shape.d_model};
  op->u.norm.y = (struct rows){world->x, world->shape.d_model + 2};
  op->u.norm.norm = world_norm(world);
}

static inline void add_layer(struct world *world, int layer) {
  const struct shape *s = &world->shape;
  int64_t d = s->d_model, width = s->n_head * s->d_head, kv_width = s->n_kv_head * s->d_head;
  struct rows x = {world->x, d + 2}, qkv = {world->qkv, width + 2 * kv_width}, z = {world->z, width + 5};
  struct rows out = {world->out, d + 1}, mlp = {world->mlp, s->d_mlp}, up = {world->up, s->d_mlp + 1};
  struct op *op = next_op(world, OP_BEGIN, ROWS_ARRIVING, layer, d);
  op->u.begin.to = (struct rows){world->resid, d};
  op->u.begin.embed = world->embed;
  op->u.begin.positions = world->positions;
  op->u.begin.embed_scale = 1.5f;
  add_norm(world, ROWS_ACTIVE, layer);
  add_linear(world, layer, world->w[layer][W_QKV], x, qkv, ACT_NONE);
  op = next_op(world, OP_ATTEND, ROWS_ACTIVE, layer, width);
  op->u.attend.qkv = qkv;
  op->u.attend.z = z;
  op->u.attend.k = width;
  op->u.attend.v = width + kv_width;
  op->u.attend.n_head = s->n_head;
  op->u.attend.n_kv_head = s->n_kv_head;
  op->u.attend.d_head = s->d_head;
  op->u.attend.window = s->window;
  op->u.attend.soft_cap = s->soft_cap;
  op->u.attend.kv = s->dtype;
  op->u.attend.scale = 1 / sqrtf((float)s->d_head);
  add_linear(world, layer, world->w[layer][W_OUT], z, out, ACT_NONE);
  add_sublayer(world, layer, SITE_ATTN_OUT, SITE_RESID_MID, true);
  add_linear(world, layer, world->w[layer][W_UP], x, s->gated ? up : mlp, s->gated ? ACT_NONE : s->act);
  if (s->gated) {
    add_linear(world, layer, world->w[layer][W_GATE], x, mlp, ACT_NONE);
    op = next_op(world, OP_GATE, ROWS_ACTIVE, layer, s->d_mlp);
    op->u.gate.x = op->u.gate.y = mlp;
    op->u.gate.up = up;
    op->u.gate.act = s->act;
  }
  op = next_op(world, OP_POINT, ROWS_ACTIVE, layer, s->d_mlp);
  op->u.point.x = mlp;
  op->u.point.site = SITE_MLP_POST;
  add_linear(world, layer, world->w[layer][W_DOWN], mlp, out, ACT_NONE);
  add_sublayer(world, layer, SITE_MLP_OUT, SITE_RESID_POST, false);
}

static inline void add_head(struct world *world) {
  int64_t d = world->shape.d_model;
  int layer = world->shape.n_layer;
  add_norm(world, ROWS_ARRIVING, layer);
  struct op *op = next_op(world, OP_GATHER, ROWS_LOGIT, layer, d);
  op->u.gather.x = (struct rows){world->x, d + 2};
  op->u.gather.y = (struct rows){world->logit_x, d};
  add_linear(world, layer, world->embed, (struct rows){world->logit_x, d},
             (struct rows){world->logits, world->shape.vocabulary}, ACT_NONE);
}

/* q, k and v are three tensors stacked, of both layouts. */
static inline void make_weights(struct world *world) {
  const struct shape *s = &world->shape;
  int width = s->n_head * s->d_head, kv_width = s->n_kv_head * s->d_head;
  const int size[W_KINDS][2] = {[W_QKV] = {width + 2 * kv_width, s->d_model},
                                [W_OUT] = {s->d_model, width},
                                [W_UP] = {s->d_mlp, s->d_model},
                                [W_GATE] = {s->d_mlp, s->d_model},
                                [W_DOWN] = {s->d_model, s->d_mlp}};
  for (int layer = 0; layer < s->n_layer; layer++)
    for (int kind = 0; kind < W_KINDS; kind++) {
      int n_out = size[kind][0], n_in = size[kind][1];
      struct file *file = &world->file[layer][kind];
      *file = file_new(s->dtype, kind % 2 ? ROWS_ARE_OUTPUTS : ROWS_ARE_INPUTS, n_out, n_in,
                       (uint64_t)(100 * layer + kind), 1.5f / sqrtf((float)n_in));
      struct matrix_part part[3] = {file->part, file->part, file->part};
      int n_parts = 1;
      if (kind == W_QKV) {
        const int cut[4] = {0, width, width + kv_width, n_out};
        for (n_parts = 0; n_parts < 3; n_parts++) {
          part[n_parts].data = (const char *)file->part.data + (size_t)cut[n_parts] * dtype_size(s->dtype);
          part[n_parts].n_out = cut[n_parts + 1] - cut[n_parts];
        }
      }
      world->w[layer][kind] = must_matrix(world->backend, part, n_parts, n_in);
    }
  world->embed_file = file_new(s->dtype, ROWS_ARE_OUTPUTS, s->vocabulary, s->d_model, 900, 1);
  world->embed = must_matrix(world->backend, &world->embed_file.part, 1, s->d_model);
}

static inline struct world *world_new(const char *name, int threads, const struct shape *shape) {
  struct world *world = calloc(1, sizeof *world);
  assert_non_null(world);
  world->shape = *shape;
  struct backend *b = world->backend = must_open(name, threads);
  size_t d = (size_t)shape->d_model, width = (size_t)(shape->n_head * shape->d_head), rows = MAX_ROWS;
  size_t qkv = width + 2 * (size_t)(shape->n_kv_head * shape->d_head), mlp = (size_t)shape->d_mlp;
  world->vectors = put_noise(b, 1024, 901, 0.5f);
  world->positions = put_noise(b, KV_BLOCKS * KV_BLOCK * d, 902, 0.3f);
  world->resid = must_alloc(b, rows * d);
  world->x = must_alloc(b, rows * (d + 2));
  world->qkv = must_alloc(b, rows * qkv);
  world->z = must_alloc(b, rows * (width + 5));
  world->out = must_alloc(b, rows * (d + 1));
  world->mlp = must_alloc(b, rows * mlp);
  world->up = must_alloc(b, rows * (mlp + 1));
  world->logit_x = must_alloc(b, rows * d);
  world->logits = must_alloc(b, rows * (size_t)shape->vocabulary);
  size_t block = b->ops->kv_block_bytes(b, shape->n_kv_head, shape->d_head, shape->dtype);
  size_t kv_floats = block / 4 * MAX_SLOTS * MAX_LAYERS * KV_BLOCKS;
  world->kv = must_alloc(b, kv_floats);
  float *garbage = malloc(kv_floats * sizeof *garbage); /* blocks are used again: what was there must not matter */
  for (size_t i = 0; i < kv_floats; i++) garbage[i] = i % 2 ? NAN : INFINITY;
  b->ops->write(b, world->kv, garbage, kv_floats * sizeof *garbage, NULL);
  free(garbage);
  make_weights(world);
  for (int layer = 0; layer < shape->n_layer; layer++) add_layer(world, layer);
  add_head(world);
  for (int i = 0; i < MAX_SLOTS * MAX_LAYERS * KV_BLOCKS; i++) world->kv_table[i] = i * 7 % (MAX_SLOTS * MAX_LAYERS * KV_BLOCKS);
  return world;
}

static inline void world_free(struct world *world) {
  struct backend *b = world->backend;
  struct span all[] = {world->vectors, world->positions, world->resid, world->x, world->qkv, world->z, world->out,
                       world->mlp, world->up, world->logit_x, world->logits, world->kv};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) drop(b, all[i]);
  for (int layer = 0; layer < world->shape.n_layer; layer++)
    for (int kind = 0; kind < W_KINDS; kind++) {
      b->ops->matrix_free(b, world->w[layer][kind]);
      free(world->file[layer][kind].block);
    }
  b->ops->matrix_free(b, world->embed);
  free(world->embed_file.block);
  backend_close(b);
  free(world);
}

/* The step of these slots: embedded rows, token (position * 5 + slot * 3) mod vocabulary, logits for all rows
 * that reach the end, KV blocks of slot i as given by `place[i]` (or i). Edits and taps: none. */
static inline void world_step(struct world *world, const struct step_slot *slots, int n_slots) {
  struct step *step = &world->step;
  int n_layer = world->shape.n_layer;
  *step = (struct step){.n_layer = n_layer, .token = world->token, .position = world->position,
                        .origin = world->origin, .source = world->source, .slots = world->slots,
                        .n_slots = n_slots, .active = world->active, .arriving = world->arriving,
                        .kv = world->kv, .kv_table = world->kv_table, .kv_blocks = KV_BLOCKS,
                        .logit_row = world->logit_row};
  for (int i = 0; i < n_slots; i++) {
    world->slots[i] = slots[i];
    for (int32_t row = slots[i].rows.begin; row < slots[i].rows.end; row++) {
      world->position[row] = slots[i].position + row - slots[i].rows.begin;
      world->token[row] = (world->position[row] * 5 + i * 3) % world->shape.vocabulary;
      world->origin[row] = ORIGIN_EMBED;
      world->source[row] = -1;
      if (slots[i].last == n_layer) world->logit_row[step->n_logit_rows++] = row;
    }
    step->n_rows = slots[i].rows.end;
  }
  for (int layer = 0; layer <= n_layer; layer++) {
    struct row_range active = {0, 0}, arriving = {0, 0};
    for (int i = 0; i < n_slots; i++) {
      const struct step_slot *s = &slots[i];
      if (s->first <= layer && layer < s->last)
        active = (struct row_range){active.end ? active.begin : s->rows.begin, s->rows.end};
      if (s->first <= layer && layer <= s->last)
        arriving = (struct row_range){arriving.end ? arriving.begin : s->rows.begin, s->rows.end};
    }
    world->active[layer] = active;
    world->arriving[layer] = arriving;
  }
}

static inline void world_run(struct world *world) {
  struct error error = ERROR_INIT;
  if (world->backend->ops->run(world->backend, world->list, world->count, &world->step, &error) != 0)
    fail_msg("%s: %s", world->backend->ops->name, error.text);
}

/* ---- comparing --------------------------------------------------------------------------------------- */

static inline void same_bits(const char *what, const float *a, const float *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (memcmp(&a[i], &b[i], 4) != 0) fail_msg("%s: element %zu of %zu: %.9g and %.9g", what, i, n, a[i], b[i]);
}

static inline void close_to(const char *what, const float *a, const float *b, size_t n, double tolerance) {
  for (size_t i = 0; i < n; i++)
    if (!(fabs((double)a[i] - b[i]) <= tolerance))
      fail_msg("%s: element %zu of %zu: %.9g, not %.9g to %.2g", what, i, n, a[i], b[i], tolerance);
}

#endif
