/* map.h: a picture of a source: every feature a place in the plane, near those whose decoder rows point the same way. UMAP
 * (McInnes, Healy, Melville 2018, arXiv:1802.03426) as umap-learn has it: exact neighbours by cosine, a fuzzy graph of them, a
 * layout by sampled attraction and repulsion. Differences from it: docs/decisions.md 152 and 153.
 *
 * One thread does the work of a map, in steps, so the same neighbours and seed give the same places whatever else runs. Nothing
 * here knows dictionaries, stores or backends. */
#ifndef STEERD_CORE_ANALYSIS_MAP_H
#define STEERD_CORE_ANALYSIS_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

#define MAP_NEAR 14               /* neighbours of a point: umap-learn's n_neighbors of 15 counts the point itself */
#define MAP_POINTS_MOST 131072    /* of a map: its edges take some 100 MB then */
#define MAP_MIN_DIST 0.1
#define MAP_SPREAD 1.0

/* The nearest neighbours of n points, nearest first. */
struct map_near {
  int64_t n;
  int32_t *index;  /* [n][MAP_NEAR]; -1 behind the last, where a point has fewer */
  float *distance; /* [n][MAP_NEAR] >= 0 */
};

/* Zeros for the distances, -1 for every index. */
int map_near_init(struct map_near *near, int64_t n, struct error *error) MUST_CHECK;
void map_near_clear(struct map_near *near);

/* ---- the fuzzy graph (map_graph.c) ---- */

/* Symmetric; row i holds the edges to [start[i], start[i + 1]). */
struct map_graph {
  int64_t n;
  int64_t *start; /* [n + 1] */
  int32_t *to;    /* [start[n]] */
  float *weight;  /* [start[n]] in (0, 1] */
};

/* Where a point's neighbourhood begins and how far it reaches: rho, the distance of its nearest neighbour that is not at its own
 * place, and sigma > 0 with sum_j exp(-max(0, d_j - rho) / sigma) = log2(MAP_NEAR + 1), or log2 of one more than it has
 * neighbours. rho, sigma [n]. */
void map_reaches(const struct map_near *near, float *rho, float *sigma);

/* How much j belongs to the neighbourhood of i, united over both directions: a + b - ab. */
int map_graph_make(const struct map_near *near, struct map_graph *out, struct error *error) MUST_CHECK;
void map_graph_clear(struct map_graph *graph);

/* ---- groups (map_groups.c) ---- */

/* Groups of points with more weight among them than chance would have (modularity, by Louvain's method, points in their order):
 * group [n], 0 the largest and so on, the lower first point among equals; -1: of fewer than MAP_GROUP_LEAST points. */
#define MAP_GROUP_LEAST 3
int map_groups(const struct map_graph *graph, int32_t *group, struct error *error) MUST_CHECK;

/* ---- the layout (map_layout.c, map_start.c) ---- */

/* 1 / (1 + a x^2b) nearest, by least squares at 300 points of [0, 3 spread], to 1 up to min_dist and exp(-(x - min_dist) / spread)
 * behind it. 0 <= min_dist <= spread, spread > 0. */
struct map_curve {
  double a, b;
};
struct map_curve map_curve_fit(double spread, double min_dist);

/* Where a layout begins, place f32 [n][2], each within [0, 10]: for each connected part of the graph the two smoothest vectors on
 * it (of the normalised Laplacian, by subspace iteration), parts beside each other. A thousand multiplications with the graph
 * at most, of which map_start_step does one. */
struct map_start;
struct map_start *map_start_new(const struct map_graph *graph, uint64_t seed, struct error *error) MUST_CHECK;
bool map_start_step(struct map_start *start); /* whether there is more to do */
void map_start_place(const struct map_start *start, float *place);
void map_start_free(struct map_start *start); /* NULL is fine */

/* A map under way. Takes the graph, which is emptied, also on failure. */
struct map;
struct map *map_new(struct map_graph *graph, uint64_t seed, struct error *error) MUST_CHECK;

/* One epoch, or one multiplication with the graph: some milliseconds for a few thousand points. 1 when there is more to do, 0
 * when it is done, -1. *done of *total tell how far it is; either may be NULL. */
int map_step(struct map *map, int64_t *done, int64_t *total, struct error *error) MUST_CHECK;
const float *map_places(const struct map *map);   /* f32 [n][2], once it is done */
const int32_t *map_group_of(const struct map *map); /* [n] as map_groups */
void map_free(struct map *map); /* NULL is fine */

#endif
