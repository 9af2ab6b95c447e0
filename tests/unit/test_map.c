/* test_map.c: the fuzzy graph and the curve beside umap-learn's, the layout by how well neighbours stay together beside its own,
 * planted groups, and what is strange: no points, few, equal ones, parts without edges between them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/analysis/map.h"
#include "core/base/random.h"
#include "tests/unit/vectors.h"

enum { SHOWN = 10 };

static struct tensors *vectors;

static int open_vectors(void **state) {
  (void)state;
  vectors = vectors_open("tests/vectors/umap/expected.safetensors");
  return 0;
}

static int close_vectors(void **state) {
  (void)state;
  tensors_close(vectors);
  return 0;
}

static struct map_near recorded_near(void) {
  struct map_near near;
  struct error error = ERROR_INIT;
  size_t n;
  int32_t *index = vectors_i32(vectors, "index", &n);
  float *distance = vectors_f32(vectors, "distance", &n);
  assert_int_equal(n % MAP_NEAR, 0);
  assert_int_equal(map_near_init(&near, (int64_t)(n / MAP_NEAR), &error), 0);
  memcpy(near.index, index, n * sizeof *index);
  memcpy(near.distance, distance, n * sizeof *distance);
  free(index);
  free(distance);
  return near;
}

/* ---- beside umap-learn ---- */

static void reaches_are_umap_learns(void **state) {
  (void)state;
  struct map_near near = recorded_near();
  size_t n;
  float *rho = vectors_f32(vectors, "rho", &n), *sigma = vectors_f32(vectors, "sigma", &n);
  float *our_rho = malloc(n * sizeof(float)), *our_sigma = malloc(n * sizeof(float));
  map_reaches(&near, our_rho, our_sigma);
  for (size_t i = 0; i < n; i++) {
    assert_true(our_rho[i] == rho[i]); /* one of the distances */
    /* Both stop bisecting when the sum is within 1e-5 of its aim: umap-learn adds up f32, so that may be a step earlier or later. */
    assert_true(fabsf(our_sigma[i] - sigma[i]) <= 1e-4f * sigma[i]);
  }
  free(rho);
  free(sigma);
  free(our_rho);
  free(our_sigma);
  map_near_clear(&near);
}

static void weights_are_umap_learns(void **state) {
  (void)state;
  struct map_near near = recorded_near();
  struct map_graph graph;
  struct error error = ERROR_INIT;
  size_t n, edges;
  int32_t *row = vectors_i32(vectors, "row", &edges), *column = vectors_i32(vectors, "column", &n);
  float *weight = vectors_f32(vectors, "weight", &n);
  assert_int_equal(map_graph_make(&near, &graph, &error), 0);
  float *dense = calloc((size_t)(near.n * near.n), sizeof *dense);
  for (int64_t i = 0; i < near.n; i++)
    for (int64_t e = graph.start[i]; e < graph.start[i + 1]; e++) {
      assert_true(dense[i * near.n + graph.to[e]] == 0 && graph.to[e] != i);
      dense[i * near.n + graph.to[e]] = graph.weight[e];
    }
  int64_t light = 0;
  for (size_t e = 0; e < edges; e++) {
    float *ours = &dense[row[e] * near.n + column[e]];
    assert_true(fabsf(*ours - weight[e]) < 2e-5f); /* the 1e-5 of sigma's aim, of weights up to 1, from either side */
    *ours = 0;
  }
  for (int64_t i = 0; i < near.n * near.n; i++) light += dense[i] > 0;
  assert_int_equal(light, 0); /* no edge that umap-learn has not */
  free(dense);
  free(row);
  free(column);
  free(weight);
  map_graph_clear(&graph);
  map_near_clear(&near);
}

static void curves_are_umap_learns(void **state) {
  (void)state;
  size_t n;
  float *spread = vectors_f32(vectors, "spread", &n), *least = vectors_f32(vectors, "min_dist", &n);
  float *a = vectors_f32(vectors, "a", &n), *b = vectors_f32(vectors, "b", &n);
  for (size_t i = 0; i < n; i++) {
    struct map_curve curve = map_curve_fit((double)spread[i], (double)least[i]);
    /* scipy's curve_fit ends at a relative step of 1.5e-8; recorded as f32. min_dist of 0.1 is not exact there either. */
    assert_true(fabs(curve.a - (double)a[i]) < 1e-5 * (double)a[i] && fabs(curve.b - (double)b[i]) < 1e-5 * (double)b[i]);
  }
  free(spread);
  free(least);
  free(a);
  free(b);
}

/* ---- a layout ---- */

/* f32 [n][2], and group [n] where it is not NULL; both the caller's. */
static float *lay_out(const struct map_near *near, uint64_t seed, int32_t **group) {
  struct map_graph graph;
  struct error error = ERROR_INIT;
  int more = 1;
  assert_int_equal(map_graph_make(near, &graph, &error), 0);
  struct map *map = map_new(&graph, seed, &error);
  assert_non_null(map);
  int64_t done = 0, before = 0, total = 1;
  while ((more = map_step(map, &done, &total, &error)) > 0) {
    assert_true(done >= before && done <= total);
    before = done;
  }
  assert_int_equal(more, 0);
  float *place = malloc((size_t)near->n * 2 * sizeof *place + 1);
  memcpy(place, map_places(map), (size_t)near->n * 2 * sizeof *place);
  if (group) {
    *group = malloc((size_t)near->n * sizeof **group + 1);
    memcpy(*group, map_group_of(map), (size_t)near->n * sizeof **group);
  }
  map_free(map);
  for (int64_t i = 0; i < 2 * near->n; i++) assert_true(isfinite(place[i]));
  return place;
}

/* rank[i][j]: how many points are nearer to i than j; the lower index among equals. */
static int32_t *ranks(const float *distance, int64_t n) {
  int32_t *rank = calloc((size_t)(n * n), sizeof *rank);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      for (int64_t k = 0; k < n; k++)
        if (k != i && k != j && j != i)
          rank[i * n + j] += distance[i * n + k] < distance[i * n + j] || (distance[i * n + k] == distance[i * n + j] && k < j);
  return rank;
}

static float *cosine_distances(const float *rows, int64_t n, int64_t d) {
  float *out = calloc((size_t)(n * n), sizeof *out);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      double xy = 0, xx = 0, yy = 0;
      for (int64_t c = 0; c < d; c++) {
        xy += (double)rows[i * d + c] * (double)rows[j * d + c];
        xx += (double)rows[i * d + c] * (double)rows[i * d + c];
        yy += (double)rows[j * d + c] * (double)rows[j * d + c];
      }
      double distance = 1 - xy / sqrt(xx * yy);
      out[i * n + j] = distance < 1e-6 ? 0 : (float)distance;
    }
  return out;
}

static float *plane_distances(const float *place, int64_t n) {
  float *out = calloc((size_t)(n * n), sizeof *out);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) out[i * n + j] = hypotf(place[2 * i] - place[2 * j], place[2 * i + 1] - place[2 * j + 1]);
  return out;
}

/* Venna and Kaski's trustworthiness, as sklearn computes it, and the share of neighbours kept. */
static void judge(const int32_t *rank, const float *place, int64_t n, double *trust, double *overlap) {
  float *plane = plane_distances(place, n);
  int32_t *shown = ranks(plane, n);
  double far = 0, kept = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      if (j == i || shown[i * n + j] >= SHOWN) continue;
      if (rank[i * n + j] < SHOWN)
        kept++;
      else
        far += rank[i * n + j] + 1 - SHOWN;
    }
  *overlap = kept / (double)(n * SHOWN);
  *trust = 1 - far * 2 / ((double)(n * SHOWN) * (double)(2 * n - 3 * SHOWN - 1));
  free(plane);
  free(shown);
}

/* The margin is what umap-learn's own five seeds lie apart (make.py prints them): 0.003 of trustworthiness, 0.015 of overlap. */
static void layouts_are_as_true_as_umap_learns(void **state) {
  (void)state;
  struct map_near near = recorded_near();
  size_t n;
  float *rows = vectors_f32(vectors, "directions", &n), *quality = vectors_f32(vectors, "quality", &n);
  float *distance = cosine_distances(rows, near.n, 24);
  int32_t *rank = ranks(distance, near.n);
  for (uint64_t seed = 0; seed < 3; seed++) {
    double trust, overlap;
    float *place = lay_out(&near, seed, NULL);
    judge(rank, place, near.n, &trust, &overlap);
    print_message("seed %d: trustworthiness %.4f (umap-learn %.4f), overlap %.4f (%.4f)\n", (int)seed, trust, (double)quality[0], overlap,
                  (double)quality[1]);
    assert_true(trust >= (double)quality[0] - 0.003 && overlap >= (double)quality[1] - 0.015);
    free(place);
  }
  free(rows);
  free(quality);
  free(distance);
  free(rank);
  map_near_clear(&near);
}

static void the_same_seed_gives_the_same_bytes(void **state) {
  (void)state;
  struct map_near near = recorded_near();
  float *a = lay_out(&near, 7, NULL), *b = lay_out(&near, 7, NULL), *c = lay_out(&near, 8, NULL);
  assert_memory_equal(a, b, (size_t)near.n * 2 * sizeof *a);
  assert_true(memcmp(a, c, (size_t)near.n * 2 * sizeof *a) != 0);
  free(a);
  free(b);
  free(c);
  map_near_clear(&near);
}

/* ---- planted groups ---- */

/* `parts` rings of `each` points, each a neighbour of those beside it on its own ring. */
static struct map_near rings(int parts, int each) {
  struct map_near near;
  struct error error = ERROR_INIT;
  assert_int_equal(map_near_init(&near, (int64_t)parts * each, &error), 0);
  for (int64_t i = 0; i < near.n; i++)
    for (int p = 0; p < MAP_NEAR; p++) {
      int64_t base = i / each * each, step = p / 2 + 1;
      near.index[i * MAP_NEAR + p] = (int32_t)(base + (i - base + (p % 2 ? each - step : step)) % each);
      near.distance[i * MAP_NEAR + p] = 0.01f * (float)step;
    }
  return near;
}

static void parts_are_groups_and_stay_apart(void **state) {
  (void)state;
  enum { PARTS = 4, EACH = 25, N = PARTS * EACH };
  struct map_near near = rings(PARTS, EACH);
  int32_t *group;
  float *place = lay_out(&near, 1, &group), *plane = plane_distances(place, N);
  for (int i = 0; i < N; i++) {
    int nearest = i == 0 ? 1 : 0;
    for (int j = 0; j < N; j++)
      if (j != i && plane[i * N + j] < plane[i * N + nearest]) nearest = j;
    assert_int_equal(nearest / EACH, i / EACH);
    assert_int_equal(group[i], i / EACH); /* as large as each other: in the order of their first points */
  }
  free(plane);
  free(group);
  free(place);
  map_near_clear(&near);
}

/* Groups by size, the largest first; who is alone is in none. */
static void groups_are_ranked(void **state) {
  (void)state;
  struct map_near near;
  struct error error = ERROR_INIT;
  int32_t *group;
  assert_int_equal(map_near_init(&near, 10, &error), 0);
  static const int32_t to[10][2] = {{-1, -1}, {2, 3}, {1, 3}, {1, 2}, {5, 6}, {4, 6}, {7, 4}, {6, 5}, {9, -1}, {8, -1}};
  for (int i = 0; i < 10; i++)
    for (int p = 0; p < 2; p++) {
      near.index[i * MAP_NEAR + p] = to[i][p];
      near.distance[i * MAP_NEAR + p] = to[i][p] < 0 ? 0 : 0.1f;
    }
  free(lay_out(&near, 0, &group));
  static const int32_t expected[10] = {-1, 1, 1, 1, 0, 0, 0, 0, -1, -1};
  assert_memory_equal(group, expected, sizeof expected);
  free(group);
  map_near_clear(&near);
}

/* ---- few points, equal points ---- */

static void few_points_have_places(void **state) {
  (void)state;
  for (int64_t n = 0; n <= 4; n++) {
    struct map_near near;
    struct error error = ERROR_INIT;
    assert_int_equal(map_near_init(&near, n, &error), 0);
    for (int64_t i = 0; i < n; i++)
      for (int64_t p = 0; p < n - 1; p++) near.index[i * MAP_NEAR + p] = (int32_t)((i + 1 + p) % n); /* all at one place */
    float *place = lay_out(&near, 0, NULL);
    for (int64_t i = 1; i < n; i++) assert_true(place[2 * i] != place[0] || place[2 * i + 1] != place[1]);
    free(place);
    map_near_clear(&near);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reaches_are_umap_learns), cmocka_unit_test(weights_are_umap_learns),
      cmocka_unit_test(curves_are_umap_learns), cmocka_unit_test(layouts_are_as_true_as_umap_learns),
      cmocka_unit_test(the_same_seed_gives_the_same_bytes), cmocka_unit_test(parts_are_groups_and_stay_apart),
      cmocka_unit_test(groups_are_ranked), cmocka_unit_test(few_points_have_places),
  };
  return cmocka_run_group_tests(tests, open_vectors, close_vectors);
}
