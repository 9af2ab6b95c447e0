/* map_layout.c: from a fuzzy graph to places: edges pull their ends together as often as their weight says, random points push
 * each other apart, less and less from epoch to epoch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/map.h"
#include "core/base/random.h"

/* umap-learn's numbers. */
#define MANY 10000         /* points, beyond which fewer epochs are enough */
#define EPOCHS 500
#define EPOCHS_OF_MANY 200
#define PUSHES 5           /* random points for each pull */
#define STRONGEST 4.0f     /* pull or push along an axis */
#define SOFT 0.001f        /* keeps a push finite */

enum { START_SHARE = 50 }; /* of the epochs, what beginning counts as in progress */

/* ---- the curve ---- */

static double target(double x, double spread, double min_dist) { return x < min_dist ? 1 : exp(-(x - min_dist) / spread); }

/* Sums of a Gauss-Newton step in a and b; returns the squared error. */
static double curve_sums(double a, double b, double spread, double min_dist, double jj[3], double jr[2]) {
  double error = 0;
  memset(jj, 0, 3 * sizeof *jj);
  memset(jr, 0, 2 * sizeof *jr);
  for (int i = 0; i < 300; i++) {
    double x = 3 * spread * i / 299, power = x > 0 ? pow(x, 2 * b) : 0, value = 1 / (1 + a * power);
    double rest = target(x, spread, min_dist) - value;
    double da = -power * value * value, db = x > 0 ? -2 * a * power * log(x) * value * value : 0;
    error += rest * rest;
    jj[0] += da * da;
    jj[1] += da * db;
    jj[2] += db * db;
    jr[0] += da * rest;
    jr[1] += db * rest;
  }
  return error;
}

/* Levenberg's damping: a step that makes it worse is tried again, shorter. */
struct map_curve map_curve_fit(double spread, double min_dist) {
  struct map_curve c = {1, 1};
  double jj[3], jr[2], damp = 1e-3, error = curve_sums(c.a, c.b, spread, min_dist, jj, jr);
  for (int step = 0; step < 200; step++) {
    double p = jj[0] * (1 + damp), q = jj[2] * (1 + damp), det = p * q - jj[1] * jj[1];
    double da = (jr[0] * q - jr[1] * jj[1]) / det, db = (jr[1] * p - jr[0] * jj[1]) / det;
    double jj_next[3], jr_next[2], next = curve_sums(c.a + da, c.b + db, spread, min_dist, jj_next, jr_next);
    bool better = c.a + da > 0 && c.b + db > 0 && next <= error;
    damp = better ? damp / 10 : damp * 10;
    if (!better && damp > 1e12) break;
    if (!better) continue;
    c = (struct map_curve){c.a + da, c.b + db};
    error = next;
    memcpy(jj, jj_next, sizeof jj);
    memcpy(jr, jr_next, sizeof jr);
    if (fabs(da) + fabs(db) < 1e-13) break;
  }
  return c;
}

/* ---- a map ---- */

struct map {
  struct map_graph graph;
  uint64_t seed;
  struct map_curve curve;
  struct map_start *start; /* until it is done */
  int epochs, epoch;
  float most;              /* the largest weight */
  float *next;             /* [edges] the epoch in which it is pulled next */
  float *next_push;        /* [edges] and up to when its pushes are done */
  float *place;            /* [n][2] */
  int32_t *group;          /* [n] */
};

/* Epochs from one pull to the next; those too light to be pulled even once are never. */
static float period(const struct map *map, int64_t edge) {
  float weight = map->graph.weight[edge];
  return weight * (float)map->epochs < map->most ? INFINITY : map->most / weight;
}

static int map_fill(struct map *map, struct error *error) {
  size_t n = (size_t)map->graph.n, edges = (size_t)map->graph.start[n];
  map->next = malloc(edges * sizeof *map->next + 1);
  map->next_push = malloc(edges * sizeof *map->next_push + 1);
  map->place = calloc(2 * n + 1, sizeof *map->place);
  map->group = calloc(n + 1, sizeof *map->group);
  if (!map->next || !map->next_push || !map->place || !map->group) return error_memory(error, edges * 8 + n * 12);
  for (size_t e = 0; e < edges; e++)
    if (map->graph.weight[e] > map->most) map->most = map->graph.weight[e];
  for (size_t e = 0; e < edges; e++) {
    map->next[e] = period(map, (int64_t)e);
    map->next_push[e] = map->next[e] / PUSHES;
  }
  map->start = map_start_new(&map->graph, map->seed, error);
  return map->start ? map_groups(&map->graph, map->group, error) : -1;
}

struct map *map_new(struct map_graph *graph, uint64_t seed, struct error *error) {
  struct map *map = calloc(1, sizeof *map);
  if (!map) {
    map_graph_clear(graph);
    return error_memory(error, sizeof *map), NULL;
  }
  map->graph = *graph;
  *graph = (struct map_graph){0};
  map->seed = seed;
  map->curve = map_curve_fit(MAP_SPREAD, MAP_MIN_DIST);
  map->epochs = map->graph.n > MANY ? EPOCHS_OF_MANY : EPOCHS;
  if (map_fill(map, error) == 0) return map;
  map_free(map);
  return NULL;
}

void map_free(struct map *map) {
  if (!map) return;
  map_graph_clear(&map->graph);
  map_start_free(map->start);
  free(map->next);
  free(map->next_push);
  free(map->place);
  free(map->group);
  free(map);
}

const float *map_places(const struct map *map) { return map->place; }
const int32_t *map_group_of(const struct map *map) { return map->group; }

/* ---- an epoch ---- */

struct forces {
  float a, b, rate;
};

static float clip(float x) { return x > STRONGEST ? STRONGEST : x < -STRONGEST ? -STRONGEST : x; }

static float apart(const float *x, const float *y) {
  float u = x[0] - y[0], v = x[1] - y[1];
  return u * u + v * v;
}

static void pull(const struct forces *f, float *x, float *y) {
  float d = apart(x, y);
  if (!(d > 0)) return;
  float power = powf(d, f->b), strength = -2 * f->a * f->b * (power / d) / (f->a * power + 1);
  for (int axis = 0; axis < 2; axis++) {
    float move = clip(strength * (x[axis] - y[axis])) * f->rate;
    x[axis] += move;
    y[axis] -= move;
  }
}

static void push(const struct forces *f, float *x, const float *y) {
  float d = apart(x, y);
  if (!(d > 0)) return;
  float strength = 2 * f->b / ((SOFT + d) * (f->a * powf(d, f->b) + 1));
  for (int axis = 0; axis < 2; axis++) x[axis] += clip(strength * (x[axis] - y[axis])) * f->rate;
}

/* As many pushes as have come due. */
static void push_due(struct map *map, const struct forces *f, int64_t i, int64_t edge, float now) {
  float each = period(map, edge) / PUSHES;
  int due = (int)((now - map->next_push[edge]) / each);
  uint32_t words[4];
  for (int p = 0; p < due; p++) {
    if (p % 4 == 0) random_words(map->seed, (uint64_t)map->epoch + 1, (uint64_t)edge << 16 | (uint64_t)p, words);
    int64_t other = (int64_t)((uint64_t)words[p % 4] * (uint64_t)map->graph.n >> 32);
    if (other != i) push(f, map->place + 2 * i, map->place + 2 * other);
  }
  if (due > 0) map->next_push[edge] += (float)due * each;
}

static void epoch(struct map *map) {
  float now = (float)map->epoch, rate = 1 - now / (float)map->epochs;
  struct forces f = {(float)map->curve.a, (float)map->curve.b, rate};
  for (int64_t i = 0; i < map->graph.n; i++)
    for (int64_t e = map->graph.start[i]; e < map->graph.start[i + 1]; e++) {
      if (map->next[e] > now) continue;
      pull(&f, map->place + 2 * i, map->place + 2 * map->graph.to[e]);
      map->next[e] += period(map, e);
      push_due(map, &f, i, e, now);
    }
  map->epoch++;
}

int map_step(struct map *map, int64_t *done, int64_t *total, struct error *error) {
  (void)error;
  if (map->start) {
    if (!map_start_step(map->start)) {
      map_start_place(map->start, map->place);
      map_start_free(map->start);
      map->start = NULL;
    }
  } else if (map->epoch < map->epochs) {
    epoch(map);
  }
  if (done) *done = (map->start ? 0 : START_SHARE) + map->epoch;
  if (total) *total = START_SHARE + map->epochs;
  return map->start || map->epoch < map->epochs;
}
