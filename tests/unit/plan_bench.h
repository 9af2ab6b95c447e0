/* plan_bench.h: one sequence run through a compiled plan, with taps and edits at points, for tests of the forward pass. */
#ifndef STEERD_TESTS_UNIT_PLAN_BENCH_H
#define STEERD_TESTS_UNIT_PLAN_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "core/model/plan.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"
#include "tests/unit/vectors.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define MAX_ROWS 256
#define MAX_LAYERS 8
#define MAX_POINTS ((MAX_LAYERS + 1) * SITE_COUNT)

/* A model, its plan, a KV cache for one sequence, and tables for steps over it. */
struct bench {
  struct backend *backend;
  struct model *model;
  struct plan *plan;
  struct memory *kv, *taps;
  int32_t table[MAX_LAYERS * 4];
  int32_t token[MAX_ROWS], position[MAX_ROWS], source[MAX_ROWS], logit_row[MAX_ROWS];
  uint8_t origin[MAX_ROWS];
  struct step_slot slot;
  int32_t keys;
  struct row_range range[MAX_LAYERS + 1], arriving[MAX_LAYERS + 1];
  struct tap_item tap_items[MAX_POINTS];
  int32_t tap_begin[MAX_POINTS + 1];
  size_t tap_offset[MAX_POINTS];
  /* What the next runs do; all sites are tapped and nothing is edited to begin with. */
  site_set tapped;              /* in all layers */
  const struct edit_item *edit; /* at edit_point; NULL: none */
  int32_t more_edits;           /* behind it, at the same point */
  int32_t later_edits;          /* behind these, at a later point */
  struct point later_point;
  struct point edit_point;
  int32_t edit_begin[MAX_POINTS + 1];
  int32_t last; /* layers [0, last) run, without logits; 0: all */
};

/* Scores and patterns are laid out for this many keys. */
#define BENCH_KEYS MAX_ROWS

static inline int64_t bench_width(const struct bench *b, enum site site) {
  return point_width(&b->model->arch, site, BENCH_KEYS);
}

typedef struct model *opener(const char *id, const char *path, struct backend *backend, struct error *error);

/* -1, and a line that says so, where this machine lacks the backend. */
static inline int bench_open_with(struct bench *b, const char *backend, const char *path, opener *open) {
  struct error error = ERROR_INIT;
  memset(b, 0, sizeof *b);
  b->backend = backend_open(backend, 2, &error);
  if (!b->backend) {
    printf("skip: backend %s: %s\n", backend, error.text);
    return -1;
  }
  b->model = open("test", path, b->backend, &error);
  if (!b->model) fail_msg("%s", error.text);
  struct plan_limits limits = {MAX_ROWS, MAX_ROWS};
  b->plan = plan_new(b->model, limits, &error);
  if (!b->plan) fail_msg("%s", error.text);
  const struct arch *arch = &b->model->arch;
  assert_true(arch->n_layer <= MAX_LAYERS);
  size_t block = b->backend->ops->kv_block_bytes(b->backend, arch->n_kv_head, arch->d_head, model_kv_type(b->model));
  assert_int_equal(b->backend->ops->alloc(b->backend, block * (size_t)arch->n_layer * 4, &b->kv, &error), 0);
  for (int i = 0; i < arch->n_layer * 4; i++) b->table[i] = i;
  size_t bytes = 0;
  for (int i = 0; i < point_count(arch->n_layer); i++) {
    b->tap_offset[i] = bytes;
    bytes += (size_t)bench_width(b, (enum site)(i % SITE_COUNT)) * MAX_ROWS * sizeof(float);
  }
  b->tapped = ~(site_set)0;
  assert_int_equal(b->backend->ops->alloc(b->backend, bytes, &b->taps, &error), 0);
  return 0;
}

static inline int bench_open(struct bench *b, const char *backend, const char *path) {
  return bench_open_with(b, backend, path, model_open);
}

static inline void bench_close(struct bench *b) {
  if (!b->backend) return;
  b->backend->ops->free(b->backend, b->kv);
  b->backend->ops->free(b->backend, b->taps);
  plan_free(b->plan);
  model_close(b->model);
  backend_close(b->backend);
}

/* The begins of tables over the points of the step. */
static inline void bench_tables(struct bench *b, struct step *step) {
  int points = point_count(b->model->arch.n_layer), taps = 0;
  for (int p = 0; p < points; p++) {
    b->tap_begin[p] = taps;
    taps += (b->tapped & site_bit((enum site)(p % SITE_COUNT))) != 0;
    b->edit_begin[p] = p > point_index(b->edit_point) ? 1 + b->more_edits : 0;
    if (p > point_index(b->later_point)) b->edit_begin[p] += b->later_edits;
  }
  b->tap_begin[points] = taps;
  b->edit_begin[points] = 1 + b->more_edits + b->later_edits;
  if (taps) step->taps = b->tap_items, step->tap_begin = b->tap_begin;
  if (b->edit) step->edits = b->edit, step->edit_begin = b->edit_begin;
}

/* Runs positions [from, from + n), taps at their absolute positions, and reads n rows of logits. */
static inline void bench_run(struct bench *b, const int32_t *ids, int32_t from, int32_t n, float *logits) {
  struct error error = ERROR_INIT;
  const struct arch *arch = &b->model->arch;
  struct step step = {.n_layer = arch->n_layer, .n_rows = n, .token = b->token, .position = b->position, .origin = b->origin,
                      .source = b->source, .n_slots = 1, .slots = &b->slot, .keys = &b->keys, .active = b->range,
                      .arriving = b->arriving, .kv = {b->kv, 0}, .kv_table = b->table, .kv_blocks = 4,
                      .n_logit_rows = n, .logit_row = b->logit_row};
  int32_t last = b->last ? b->last : arch->n_layer;
  if (b->last) step.n_logit_rows = 0;
  b->slot = (struct step_slot){{0, n}, from, 0, last};
  for (int l = 0; l <= arch->n_layer; l++) b->range[l] = b->arriving[l] = (struct row_range){0, n};
  for (int l = last; l <= arch->n_layer; l++) b->range[l].end = 0;
  for (int l = last + 1; l <= arch->n_layer; l++) b->arriving[l].end = 0;
  for (int i = 0; i < n; i++) {
    b->token[i] = ids[from + i];
    b->position[i] = from + i;
    b->logit_row[i] = i;
  }
  b->keys = BENCH_KEYS;
  bench_tables(b, &step);
  for (int p = 0; p < point_count(arch->n_layer); p++) {
    if (b->tap_begin[p] == b->tap_begin[p + 1]) continue;
    int64_t width = bench_width(b, (enum site)(p % SITE_COUNT));
    size_t offset = b->tap_offset[p] + (size_t)from * (size_t)width * sizeof(float);
    b->tap_items[b->tap_begin[p]] = (struct tap_item){{0, n}, {b->taps, offset}, width};
  }
  if (plan_run(b->plan, &step, &error) != 0) fail_msg("%s", error.text);
  struct rows rows = plan_logits(b->plan);
  for (int i = 0; i < step.n_logit_rows; i++)
    assert_int_equal(b->backend->ops->read(b->backend, logits + (size_t)i * (size_t)arch->vocabulary,
                                           span_at(rows.at, (size_t)i * (size_t)rows.ld * sizeof(float)),
                                           (size_t)arch->vocabulary * sizeof(float), &error), 0);
}

static inline void bench_point(struct bench *b, struct point point, int32_t n, float *out) {
  struct error error = ERROR_INIT;
  size_t width = (size_t)bench_width(b, point.site);
  assert_int_equal(b->backend->ops->read(b->backend, out, (struct span){b->taps, b->tap_offset[point_index(point)]},
                                         (size_t)n * width * sizeof(float), &error), 0);
}

/* Compares every recorded point of one prompt ("": keys are the bare names); returns how many were compared. */
static inline int compare_points(struct bench *b, const struct tensors *want, const char *prompt, int32_t n) {
  int compared = 0;
  const struct arch *arch = &b->model->arch;
  float *got = malloc((size_t)n * (size_t)bench_width(b, SITE_SCORES) * 4 * sizeof *got);
  for (int i = 0; i < point_count(arch->n_layer); i++) {
    struct point point = {i / SITE_COUNT, (enum site)(i % SITE_COUNT)};
    char name[POINT_NAME_BYTES], key[128];
    snprintf(key, sizeof key, "%s%s%s", prompt, *prompt ? "/" : "", point_name(point, name));
    if (!tensors_find(want, key)) continue;
    size_t count;
    float *recorded = vectors_f32(want, key, &count);
    assert_int_equal(count, (size_t)n * (size_t)bench_width(b, point.site));
    bench_point(b, point, n, got);
    assert_true(vectors_agree(key, got, recorded, count));
    free(recorded);
    compared++;
  }
  free(got);
  return compared;
}

#endif
