/* map_groups.c: groups of a graph by modularity (Blondel, Guillaume, Lambiotte, Lefebvre 2008, arXiv:0803.0476): points move to the
 * neighbouring group that gains most, until none does; then groups are points, and so on. */
#include <stdlib.h>
#include <string.h>

#include "core/analysis/map.h"

#define PASSES_MOST 50 /* over the points of a level: each only gains, the last ones next to nothing */

/* A graph whose points may have weight to themselves. */
struct level {
  int64_t n;
  int64_t *start;
  int32_t *to;
  double *weight, *degree; /* degree [n]: with what a point has to itself, twice */
  int32_t *group;          /* [n] */
  double *group_degree;    /* [n] */
  double *toward;          /* [n] weight from the point that is looked at; 0 elsewhere */
  int32_t *met;            /* [n] groups that it has weight to */
};

static void level_clear(struct level *l) {
  free(l->start);
  free(l->to);
  free(l->weight);
  free(l->degree);
  free(l->group);
  free(l->group_degree);
  free(l->toward);
  free(l->met);
  *l = (struct level){0};
}

static int level_room(struct level *l, int64_t n, int64_t edges, struct error *error) {
  size_t points = (size_t)n + 1, ends = (size_t)edges + 1;
  *l = (struct level){.n = n, .start = calloc(points, sizeof *l->start), .to = calloc(ends, sizeof *l->to),
                      .weight = calloc(ends, sizeof *l->weight), .degree = calloc(points, sizeof *l->degree),
                      .group = calloc(points, sizeof *l->group), .group_degree = calloc(points, sizeof *l->group_degree),
                      .toward = calloc(points, sizeof *l->toward), .met = calloc(points, sizeof *l->met)};
  if (l->start && l->to && l->weight && l->degree && l->group && l->group_degree && l->toward && l->met) return 0;
  level_clear(l);
  return error_memory(error, points * 40 + ends * 12);
}

static int level_of_graph(struct level *l, const struct map_graph *graph, struct error *error) {
  int64_t edges = graph->start[graph->n];
  if (level_room(l, graph->n, edges, error) != 0) return -1;
  memcpy(l->start, graph->start, ((size_t)graph->n + 1) * sizeof *l->start);
  memcpy(l->to, graph->to, (size_t)edges * sizeof *l->to);
  for (int64_t e = 0; e < edges; e++) l->weight[e] = graph->weight[e];
  return 0;
}

/* Every point by itself; returns the sum of degrees. */
static double settle(struct level *l) {
  double sum = 0;
  for (int64_t i = 0; i < l->n; i++) {
    l->degree[i] = 0;
    for (int64_t e = l->start[i]; e < l->start[i + 1]; e++) l->degree[i] += l->weight[e];
    l->group[i] = (int32_t)i;
    l->group_degree[i] = l->degree[i];
    sum += l->degree[i];
  }
  return sum;
}

/* Fills toward and met; returns how many groups. */
static int32_t look_around(struct level *l, int64_t i) {
  int32_t n = 0;
  for (int64_t e = l->start[i]; e < l->start[i + 1]; e++) {
    int32_t g = l->group[l->to[e]];
    if (l->to[e] == i || l->weight[e] <= 0) continue;
    if (l->toward[g] == 0) l->met[n++] = g;
    l->toward[g] += l->weight[e];
  }
  return n;
}

/* Whether it moved. A gain has to be more than rounding; of equal ones the group met first has it. */
static bool move(struct level *l, int64_t i, double sum) {
  int32_t n = look_around(l, i), own = l->group[i], best = own;
  l->group_degree[own] -= l->degree[i];
  double most = l->toward[own] - l->group_degree[own] * l->degree[i] / sum;
  for (int32_t m = 0; m < n; m++) {
    double gain = l->toward[l->met[m]] - l->group_degree[l->met[m]] * l->degree[i] / sum;
    if (!(gain > most + 1e-12)) continue;
    most = gain;
    best = l->met[m];
  }
  for (int32_t m = 0; m < n; m++) l->toward[l->met[m]] = 0;
  l->group_degree[best] += l->degree[i];
  l->group[i] = best;
  return best != own;
}

static bool improve(struct level *l) {
  double sum = settle(l);
  bool any = false, moved = sum > 0;
  for (int pass = 0; moved && pass < PASSES_MOST; pass++) {
    moved = false;
    for (int64_t i = 0; i < l->n; i++)
      if (move(l, i, sum)) moved = any = true;
  }
  return any;
}

/* Groups numbered from 0 in the order they are met; returns how many. names [n]. */
static int32_t number_groups(int32_t *group, int64_t n, int32_t *names) {
  int32_t count = 0;
  for (int64_t i = 0; i < n; i++) names[i] = -1;
  for (int64_t i = 0; i < n; i++) {
    if (names[group[i]] < 0) names[group[i]] = count++;
    group[i] = names[group[i]];
  }
  return count;
}

/* Points of each group beside each other: first [groups + 1], order [n]. */
static void sort_by_group(const struct level *l, int32_t groups, int64_t *first, int32_t *order) {
  memset(first, 0, ((size_t)groups + 1) * sizeof *first);
  for (int64_t i = 0; i < l->n; i++) first[l->group[i] + 1]++;
  for (int32_t g = 0; g < groups; g++) first[g + 1] += first[g];
  for (int64_t i = 0; i < l->n; i++) order[first[l->group[i]]++] = (int32_t)i;
  for (int32_t g = groups; g > 0; g--) first[g] = first[g - 1];
  first[0] = 0;
}

/* Weights among groups, with what is inside a group to itself. */
static void merge_edges(struct level *l, const int64_t *first, const int32_t *order, struct level *out) {
  int64_t at = 0;
  for (int64_t g = 0; g < out->n; g++) {
    int32_t n = 0;
    for (int64_t p = first[g]; p < first[g + 1]; p++)
      for (int64_t e = l->start[order[p]]; e < l->start[order[p] + 1]; e++) {
        int32_t to = l->group[l->to[e]];
        if (l->weight[e] > 0 && l->toward[to] == 0) l->met[n++] = to;
        l->toward[to] += l->weight[e];
      }
    for (int32_t m = 0; m < n; m++, at++) {
      out->to[at] = l->met[m];
      out->weight[at] = l->toward[l->met[m]];
      l->toward[l->met[m]] = 0;
    }
    out->start[g + 1] = at;
  }
}

static int coarsen(struct level *l, int32_t groups, struct level *out, struct error *error) {
  int64_t *first = calloc((size_t)groups + 1, sizeof *first);
  int32_t *order = malloc((size_t)l->n * sizeof *order + 1);
  int failed = first && order ? level_room(out, groups, l->start[l->n], error) : error_memory(error, (size_t)l->n * 12);
  if (!failed) {
    sort_by_group(l, groups, first, order);
    merge_edges(l, first, order, out);
  }
  free(first);
  free(order);
  return failed;
}

/* ---- the whole ---- */

struct sized {
  int32_t name, points, first;
};

static int largest_first(const void *left, const void *right) {
  const struct sized *a = left, *b = right;
  if (a->points != b->points) return a->points > b->points ? -1 : 1;
  return a->first < b->first ? -1 : a->first > b->first;
}

static int rank(int32_t *group, int64_t n, struct error *error) {
  struct sized *sizes = calloc((size_t)n + 1, sizeof *sizes);
  int32_t *names = calloc((size_t)n + 1, sizeof *names);
  if (!sizes || !names) {
    free(sizes);
    free(names);
    return error_memory(error, (size_t)n * 16);
  }
  int32_t count = number_groups(group, n, names);
  for (int64_t i = n; i-- > 0;) {
    sizes[group[i]].name = group[i];
    sizes[group[i]].first = (int32_t)i;
    sizes[group[i]].points++;
  }
  qsort(sizes, (size_t)count, sizeof *sizes, largest_first);
  for (int32_t r = 0; r < count; r++) names[sizes[r].name] = sizes[r].points < MAP_GROUP_LEAST ? -1 : r;
  for (int64_t i = 0; i < n; i++) group[i] = names[group[i]];
  free(sizes);
  free(names);
  return 0;
}

int map_groups(const struct map_graph *graph, int32_t *group, struct error *error) {
  struct level level, coarser;
  if (level_of_graph(&level, graph, error) != 0) return -1;
  for (int64_t i = 0; i < graph->n; i++) group[i] = (int32_t)i;
  int failed = 0;
  while (!failed && improve(&level)) {
    int32_t groups = number_groups(level.group, level.n, level.met);
    for (int64_t i = 0; i < graph->n; i++) group[i] = level.group[group[i]];
    failed = coarsen(&level, groups, &coarser, error);
    level_clear(&level);
    if (!failed) level = coarser;
  }
  level_clear(&level);
  return failed ? -1 : rank(group, graph->n, error);
}
