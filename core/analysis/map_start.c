/* map_start.c: where a layout begins. On each connected part of the graph the two smoothest vectors there are, but for the
 * constant: those of the largest eigenvalues of (I + D^-1/2 W D^-1/2) / 2, by repeated multiplication, kept at right angles to
 * each other and to D^1/2, which has the largest. They need not be exact: the layout goes on from them. Parts lie on a spiral, each on
 * an area in proportion to its points. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/map.h"
#include "core/base/random.h"

#define ROUNDS 300
#define WIDTH 10.0 /* of the whole, as umap-learn scales it */
#define GOLDEN 2.39996322972865332 /* radians; turns that never line up */

struct map_start {
  const struct map_graph *graph;
  uint64_t seed;
  int rounds;
  int32_t n_parts;
  int32_t *part;    /* [n] which connected part */
  double *root;     /* [n] square root of the degree */
  double *a, *b;    /* [n] the two vectors */
  double *sums;     /* [4][n_parts] */
  double *scratch;  /* [n] */
};

/* Depth first; stack [n]. */
static void find_parts(struct map_start *s, int32_t *stack) {
  const struct map_graph *g = s->graph;
  for (int64_t i = 0; i < g->n; i++) s->part[i] = -1;
  for (int64_t i = 0; i < g->n; i++) {
    int64_t top = 0;
    if (s->part[i] >= 0) continue;
    s->part[i] = s->n_parts;
    stack[top++] = (int32_t)i;
    while (top > 0) {
      int64_t at = stack[--top];
      for (int64_t e = g->start[at]; e < g->start[at + 1]; e++) {
        int32_t to = g->to[e];
        if (s->part[to] >= 0) continue;
        s->part[to] = s->n_parts;
        stack[top++] = to;
      }
    }
    s->n_parts++;
  }
}

static void begin_vectors(struct map_start *s) {
  const struct map_graph *g = s->graph;
  for (int64_t i = 0; i < g->n; i++) {
    double degree = 0;
    for (int64_t e = g->start[i]; e < g->start[i + 1]; e++) degree += g->weight[e];
    s->root[i] = sqrt(degree);
    s->a[i] = random_unit(s->seed, 0, (uint64_t)i * 2) - 0.5;
    s->b[i] = random_unit(s->seed, 0, (uint64_t)i * 2 + 1) - 0.5;
  }
}

struct map_start *map_start_new(const struct map_graph *graph, uint64_t seed, struct error *error) {
  struct map_start *s = calloc(1, sizeof *s);
  size_t n = (size_t)graph->n;
  if (!s) return error_memory(error, sizeof *s), NULL;
  s->graph = graph;
  s->seed = seed;
  s->part = malloc(n * sizeof *s->part + 1);
  s->root = malloc(n * sizeof *s->root + 1);
  s->a = malloc(n * sizeof *s->a + 1);
  s->b = malloc(n * sizeof *s->b + 1);
  s->scratch = malloc(n * sizeof *s->scratch + 1);
  if (s->part && s->root && s->a && s->b && s->scratch) {
    find_parts(s, (int32_t *)s->scratch);
    begin_vectors(s);
    s->sums = malloc(4 * (size_t)s->n_parts * sizeof *s->sums + 1);
    if (s->sums) return s;
  }
  map_start_free(s);
  return error_memory(error, n * 44), NULL;
}

void map_start_free(struct map_start *s) {
  if (!s) return;
  free(s->part);
  free(s->root);
  free(s->a);
  free(s->b);
  free(s->sums);
  free(s->scratch);
  free(s);
}

/* ---- rounds ---- */

static void multiply(const struct map_start *s, double *x) {
  const struct map_graph *g = s->graph;
  for (int64_t i = 0; i < g->n; i++) {
    double sum = 0;
    for (int64_t e = g->start[i]; e < g->start[i + 1]; e++) sum += g->weight[e] * x[g->to[e]] / s->root[g->to[e]];
    s->scratch[i] = (x[i] + (s->root[i] > 0 ? sum / s->root[i] : 0)) / 2;
  }
  memcpy(x, s->scratch, (size_t)g->n * sizeof *x);
}

/* Takes from x, on each part, what it has of `of`. */
static void take_away(const struct map_start *s, double *x, const double *of) {
  double *xy = s->sums, *yy = s->sums + s->n_parts;
  memset(xy, 0, 2 * (size_t)s->n_parts * sizeof *xy);
  for (int64_t i = 0; i < s->graph->n; i++) {
    xy[s->part[i]] += x[i] * of[i];
    yy[s->part[i]] += of[i] * of[i];
  }
  for (int64_t i = 0; i < s->graph->n; i++)
    if (yy[s->part[i]] > 0) x[i] -= xy[s->part[i]] / yy[s->part[i]] * of[i];
}

/* To the length 1 on each part; what is nothing but rounding becomes nothing. */
static void scale(const struct map_start *s, double *x) {
  double *xx = s->sums;
  memset(xx, 0, (size_t)s->n_parts * sizeof *xx);
  for (int64_t i = 0; i < s->graph->n; i++) xx[s->part[i]] += x[i] * x[i];
  for (int64_t i = 0; i < s->graph->n; i++) x[i] = xx[s->part[i]] > 1e-24 ? x[i] / sqrt(xx[s->part[i]]) : 0;
}

bool map_start_step(struct map_start *s) {
  multiply(s, s->a);
  multiply(s, s->b);
  take_away(s, s->a, s->root);
  scale(s, s->a);
  take_away(s, s->b, s->root);
  take_away(s, s->b, s->a);
  scale(s, s->b);
  return ++s->rounds < ROUNDS;
}

/* ---- places ---- */

/* Half the larger side of each part, and its points. */
static void measure_parts(const struct map_start *s, const float *place, double *reach, double *points) {
  memset(reach, 0, (size_t)s->n_parts * sizeof *reach);
  memset(points, 0, (size_t)s->n_parts * sizeof *points);
  for (int64_t i = 0; i < s->graph->n; i++) {
    reach[s->part[i]] = fmax(reach[s->part[i]], fmax(fabs((double)place[2 * i]), fabs((double)place[2 * i + 1])));
    points[s->part[i]]++;
  }
}

/* In place of each part's points and reach: the middle of its own area. */
static void lay_out(const struct map_start *s, double *points, double *x, double *y) {
  double before = 0;
  for (int32_t p = 0; p < s->n_parts; p++) {
    double r = p ? 1.2 * sqrt(before + points[p] / 2) + sqrt(points[p]) / 2 : 0;
    before += points[p];
    x[p] = r * cos(GOLDEN * p);
    y[p] = r * sin(GOLDEN * p);
  }
}

static void spread_out(float *place, int64_t n) {
  for (int axis = 0; axis < 2; axis++) {
    float low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
      low = fminf(low, place[2 * i + axis]);
      high = fmaxf(high, place[2 * i + axis]);
    }
    float factor = high > low ? (float)WIDTH / (high - low) : 0;
    for (int64_t i = 0; i < n; i++) place[2 * i + axis] = (place[2 * i + axis] - low) * factor;
  }
}

/* Points that stand at one place would never part: each is moved a little. */
void map_start_place(const struct map_start *s, float *place) {
  int64_t n = s->graph->n;
  double *reach = s->sums, *points = reach + s->n_parts, *x = points + s->n_parts, *y = x + s->n_parts;
  for (int64_t i = 0; i < n; i++) {
    double root = s->root[i] > 0 ? s->root[i] : 1;
    place[2 * i] = (float)(s->a[i] / root);
    place[2 * i + 1] = (float)(s->b[i] / root);
  }
  measure_parts(s, place, reach, points);
  lay_out(s, points, x, y);
  for (int64_t i = 0; i < n; i++) {
    int32_t p = s->part[i];
    double factor = reach[p] > 0 ? sqrt(points[p]) / 2 / reach[p] : 0;
    place[2 * i] = (float)(place[2 * i] * factor + x[p]);
    place[2 * i + 1] = (float)(place[2 * i + 1] * factor + y[p]);
  }
  spread_out(place, n);
  for (int64_t i = 0; i < 2 * n; i++) place[i] += (float)(1e-3 * (random_unit(s->seed, 0, (uint64_t)(2 * n + i)) - 0.5));
}
