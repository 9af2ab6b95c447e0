/* graph_edges.c: the edges of an attribution graph: vectors of targets on their way back, and what each source along it has of them. */
#include <stdlib.h>
#include <string.h>

#include "core/lab/graph.h"
#include "core/math/chain.h"

#define PIECE_PRODUCTS ((int64_t)1 << 24) /* of two numbers, in a piece of a layer's sources: some milliseconds */
#define LEAST_CHOSEN 64                   /* features between two looks at what is influential */

static int32_t n_layer_of(const struct graph_run *g) { return g->e.model->arch.n_layer; }

/* ---- what sources have ---- */

/* Weights of one source for every lane: g . what it writes, which is `row`; x: of the first lane, at the source's position. */
static void tell(struct graph_run *g, size_t column, const float *row, const float *x, double times) {
  float sums[DIRECT_LANES] = {0};
  int64_t width = graph_width(g), ld = (int64_t)g->result.n_tokens * width;
  chain_add(width, row, x, ld, (int64_t)g->batch, sums);
  for (size_t lane = 0; lane < g->batch; lane++)
    g->rows[g->queue[g->queued + lane]][column] += (float)(times * (double)sums[lane]);
}

static const float *at_position(const struct graph_run *g, int64_t position) { return g->gradients + position * graph_width(g); }

static void tell_rows(struct graph_run *g, size_t first_column, const float *rows) {
  for (size_t p = 0; p < g->result.n_tokens; p++)
    tell(g, first_column + p, rows + (int64_t)p * graph_width(g), at_position(g, (int64_t)p), 1);
}

/* Features that write to layer l, from g->cursor on; 1 while there are more. */
static int tell_features(struct graph_run *g, int32_t l) {
  size_t end = g->layers[l].end, piece = (size_t)(PIECE_PRODUCTS / (graph_width(g) * (int64_t)g->batch)) + 1;
  for (; g->cursor < end && piece > 0; g->cursor++) {
    const struct graph_feature *f = &g->features[g->cursor];
    if (f->position > g->last) continue; /* nothing comes to them from positions in front */
    piece--;
    dict_target_row(g->layers[f->layer].dict, f->index, l - f->layer, g->row);
    tell(g, g->cursor, g->row, at_position(g, f->position), (double)f->activation);
  }
  return g->cursor < end;
}

/* The first feature that writes to a layer. */
static size_t first_of(const struct graph_run *g, int32_t l) { return g->cross ? 0 : g->layers[l].first; }

static int on_wrote(void *context, int32_t l, struct rows gradients, int64_t width, struct error *error) {
  struct graph_run *g = context;
  int64_t n = (int64_t)g->result.n_tokens;
  if (!g->read) {
    if (experiment_read_rows(g->e.model->backend, gradients, 0, (int64_t)g->batch * n, width, g->gradients, error) != 0) return -1;
    g->read = true;
    g->cursor = l < 0 ? 0 : first_of(g, l);
    size_t column = g->n_features + (l < 0 ? (size_t)n_layer_of(g) : (size_t)l) * (size_t)n;
    tell_rows(g, column, l < 0 ? g->embedded : g->layers[l].written);
  }
  if (l >= 0 && tell_features(g, l)) return 1;
  g->read = false;
  return 0;
}

/* One is held at a time: together they may be more than a device has room for. */
static int on_skip(void *context, int32_t l, const struct matrix **out, struct error *error) {
  struct graph_run *g = context;
  if (g->held) dict_skip_release(g->held);
  g->held = NULL;
  *out = NULL;
  if (!g->layers[l].skipped) return 0;
  if (dict_skip_hold(g->layers[l].dict, out, error) != 0) return -1;
  g->held = g->layers[l].dict;
  return 0;
}

const struct direct_events graph_events = {on_wrote, on_skip};

/* ---- targets ---- */

/* How a feature's activation, in the units that are told, grows with the row that its dictionary reads. */
static void feature_vector(const struct dict *dict, int32_t index, float *out) {
  const struct dict_info *info = dict_info(dict);
  double mean = 0;
  dict_encoder_column(dict, index, out);
  for (int64_t i = 0; i < info->d_in; i++) mean += (double)out[i] / (double)info->d_in;
  double scale = info->norm == DICT_NORM_SCALE ? info->scale : 1;
  for (int64_t i = 0; i < info->d_in; i++) out[i] = (float)(scale * ((double)out[i] - (info->center_mean ? mean : 0)));
}

static void make_target(struct graph_run *g, size_t lane, int32_t number) {
  struct direct_target *target = &g->targets[lane];
  if ((size_t)number >= g->n_features) {
    *target = (struct direct_target){.layer = n_layer_of(g), .position = (int32_t)g->result.n_tokens - 1,
                                     .token = g->logits[(size_t)number - g->n_features].id};
    return;
  }
  const struct graph_feature *f = &g->features[number];
  float *vector = g->vectors + (int64_t)lane * graph_width(g);
  feature_vector(g->layers[f->layer].dict, f->index, vector);
  *target = (struct direct_target){.layer = f->layer, .position = f->position, .vector = vector};
}

int graph_begin_batch(struct graph_run *g, struct error *error) {
  size_t left = g->n_queue - g->queued, lanes = (size_t)direct_lanes(g->direct);
  g->batch = left < lanes ? left : lanes;
  g->last = 0;
  for (size_t lane = 0; lane < g->batch; lane++) {
    int32_t number = g->queue[g->queued + lane];
    g->rows[number] = calloc(g->n_sources, sizeof **g->rows);
    if (!g->rows[number]) return error_memory(error, g->n_sources * sizeof **g->rows);
    make_target(g, lane, number);
    if (g->targets[lane].position > g->last) g->last = g->targets[lane].position;
  }
  direct_begin(g->direct, g->targets, (int)g->batch);
  return 0;
}

/* ---- which ---- */

struct candidate {
  double influence;
  int32_t number;
};

static int by_influence(const void *a, const void *b) {
  const struct candidate *x = a, *y = b;
  if (x->influence != y->influence) return x->influence > y->influence ? -1 : 1;
  return x->number < y->number ? -1 : x->number > y->number;
}

static int downwards(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return x > y ? -1 : x < y;
}

static int rank(const struct graph_run *g, struct candidate *all, size_t *n, struct error *error) {
  struct graph graph = {g->n_features, (size_t)n_layer_of(g) * g->result.n_tokens, g->result.n_tokens, g->result.n_logits,
                        (const float *const *)g->rows, g->probability};
  double *influence = calloc(g->n_sources, sizeof *influence);
  if (!influence) return error_memory(error, g->n_sources * sizeof *influence);
  graph_influence(&graph, influence);
  *n = 0;
  for (size_t i = 0; i < g->n_features; i++)
    if (!g->rows[i]) all[(*n)++] = (struct candidate){influence[i], (int32_t)i};
  free(influence);
  qsort(all, *n, sizeof *all, by_influence);
  return 0;
}

/* From the last feature down: neighbours of a batch are of one layer. */
int graph_choose(struct graph_run *g, bool *more, struct error *error) {
  size_t left = g->most - g->n_done, n = 0, some = g->n_done / 4;
  *more = left > 0;
  if (!*more) return 0;
  struct candidate *all = malloc(g->n_features * sizeof *all);
  if (!all) return error_memory(error, g->n_features * sizeof *all);
  int failed = rank(g, all, &n, error);
  size_t take = g->most == g->n_features ? left : some < LEAST_CHOSEN ? LEAST_CHOSEN : some;
  if (take > left) take = left;
  for (size_t i = 0; !failed && i < take; i++) g->queue[i] = all[i].number;
  if (!failed) qsort(g->queue, take, sizeof *g->queue, downwards);
  free(all);
  g->n_queue = take;
  g->queued = 0;
  g->n_done += take;
  return failed;
}
