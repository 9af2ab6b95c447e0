/* map_graph.c: from neighbours to a fuzzy graph: how far each neighbourhood reaches, and what two points make of each other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/map.h"

/* umap-learn's, so that both find the same reach. */
#define BISECTIONS 64
#define ENOUGH 1e-5
#define LEAST_REACH 1e-3 /* of the mean distance */

int map_near_init(struct map_near *near, int64_t n, struct error *error) {
  size_t cells = (size_t)n * MAP_NEAR;
  *near = (struct map_near){.n = n, .index = malloc(cells * sizeof *near->index + 1), .distance = calloc(cells + 1, sizeof *near->distance)};
  if (!near->index || !near->distance) {
    map_near_clear(near);
    return error_memory(error, cells * (sizeof *near->index + sizeof *near->distance));
  }
  for (size_t i = 0; i < cells; i++) near->index[i] = -1;
  return 0;
}

void map_near_clear(struct map_near *near) {
  free(near->index);
  free(near->distance);
  *near = (struct map_near){0};
}

static int count_of(const struct map_near *near, int64_t i) {
  int n = 0;
  while (n < MAP_NEAR && near->index[i * MAP_NEAR + n] >= 0) n++;
  return n;
}

/* ---- reaches ---- */

static double nearest_apart(const float *distance, int n) {
  for (int j = 0; j < n; j++)
    if (distance[j] > 0) return distance[j];
  return 0;
}

static double members(const float *distance, int n, double rho, double sigma) {
  double sum = 0;
  for (int j = 0; j < n; j++) sum += distance[j] > rho ? exp(-(distance[j] - rho) / sigma) : 1;
  return sum;
}

static double bisect(const float *distance, int n, double rho) {
  double low = 0, high = INFINITY, sigma = 1, wanted = log2(n + 1.0);
  for (int step = 0; step < BISECTIONS; step++) {
    double sum = members(distance, n, rho, sigma);
    if (fabs(sum - wanted) < ENOUGH) break;
    if (sum > wanted)
      high = sigma;
    else
      low = sigma;
    sigma = isinf(high) ? sigma * 2 : (low + high) / 2;
  }
  return sigma;
}

static double sum_of(const float *values, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += values[i];
  return sum;
}

/* Means count the point itself, at distance 0. */
void map_reaches(const struct map_near *near, float *rho, float *sigma) {
  double total = 0, cells = 0;
  for (int64_t i = 0; i < near->n; i++) {
    int n = count_of(near, i);
    total += sum_of(near->distance + i * MAP_NEAR, n);
    cells += n + 1;
  }
  for (int64_t i = 0; i < near->n; i++) {
    const float *distance = near->distance + i * MAP_NEAR;
    int n = count_of(near, i);
    double own = nearest_apart(distance, n), mean = own > 0 ? sum_of(distance, n) / (n + 1) : total / cells;
    rho[i] = (float)own;
    sigma[i] = (float)fmax(bisect(distance, n, own), LEAST_REACH * mean);
  }
}

/* ---- the union ---- */

struct arrows {
  const struct map_near *near;
  const float *rho, *sigma;
};

static double arrow(const struct arrows *a, int64_t from, int place) {
  double beyond = (double)a->near->distance[from * MAP_NEAR + place] - a->rho[from];
  return beyond <= 0 || a->sigma[from] == 0 ? 1 : exp(-beyond / a->sigma[from]);
}

/* Where `to` stands among the neighbours of `from`; -1: it does not. */
static int place_of(const struct map_near *near, int64_t from, int64_t to) {
  for (int p = 0; p < MAP_NEAR && near->index[from * MAP_NEAR + p] >= 0; p++)
    if (near->index[from * MAP_NEAR + p] == to) return p;
  return -1;
}

static double united(const struct arrows *a, int64_t i, int place, int back) {
  double there = arrow(a, i, place), here = back < 0 ? 0 : arrow(a, a->near->index[i * MAP_NEAR + place], back);
  return there + here - there * here;
}

/* Each pair once in the row of either point: first counted (graph->to NULL), then written. at [n]. */
static void each_pair(const struct arrows *a, struct map_graph *graph, int64_t *at) {
  const struct map_near *near = a->near;
  for (int64_t i = 0; i < near->n; i++)
    for (int p = 0; p < MAP_NEAR && near->index[i * MAP_NEAR + p] >= 0; p++) {
      int64_t j = near->index[i * MAP_NEAR + p];
      int back = place_of(near, j, i);
      if (back >= 0 && j < i) continue; /* the pair was met at j */
      if (graph->to) {
        float weight = (float)united(a, i, p, back);
        graph->to[at[i]] = (int32_t)j;
        graph->to[at[j]] = (int32_t)i;
        graph->weight[at[i]] = graph->weight[at[j]] = weight;
      }
      at[i]++;
      at[j]++;
    }
}

static int fill(const struct arrows *a, struct map_graph *graph, int64_t *at, struct error *error) {
  each_pair(a, graph, at);
  for (int64_t i = 0; i < graph->n; i++) {
    graph->start[i + 1] = graph->start[i] + at[i];
    at[i] = graph->start[i];
  }
  size_t edges = (size_t)graph->start[graph->n];
  graph->to = malloc(edges * sizeof *graph->to + 1);
  graph->weight = malloc(edges * sizeof *graph->weight + 1);
  if (!graph->to || !graph->weight) return error_memory(error, edges * (sizeof *graph->to + sizeof *graph->weight));
  each_pair(a, graph, at);
  return 0;
}

int map_graph_make(const struct map_near *near, struct map_graph *out, struct error *error) {
  size_t n = (size_t)near->n;
  float *reach = malloc(2 * n * sizeof *reach + 1);
  int64_t *at = calloc(n + 1, sizeof *at);
  *out = (struct map_graph){.n = near->n, .start = calloc(n + 1, sizeof *out->start)};
  int failed = reach && at && out->start ? 0 : error_memory(error, n * 24);
  if (!failed) {
    map_reaches(near, reach, reach + n);
    struct arrows arrows = {near, reach, reach + n};
    failed = fill(&arrows, out, at, error);
  }
  if (failed) map_graph_clear(out);
  free(reach);
  free(at);
  return failed ? -1 : 0;
}

void map_graph_clear(struct map_graph *graph) {
  free(graph->start);
  free(graph->to);
  free(graph->weight);
  *graph = (struct map_graph){0};
}
