/* Influence and pruning (core/analysis/graph.h) of random graphs, beside sums over powers of the whole matrix, which is how influence is
 * defined, and beside what is promised of thresholds. tests/http/test_lab_graph.py holds the same against circuit-tracer's own. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/graph.h"
#include "core/base/random.h"

enum { FEATURES = 40, ERRORS = 12, TOKENS = 5, LOGITS = 3, SOURCES = FEATURES + ERRORS + TOKENS, NODES = SOURCES + LOGITS, ROWS = FEATURES + LOGITS };

struct made {
  float weights[ROWS][SOURCES];
  const float *rows[ROWS];
  double probability[LOGITS];
  struct graph graph;
};

/* Edges from lower features to higher ones only; some of them 0. */
static void make(struct made *made, uint64_t seed) {
  uint64_t position = 0;
  *made = (struct made){.probability = {0.6, 0.2, 0.1}};
  for (int row = 0; row < ROWS; row++) {
    for (int i = 0; i < SOURCES; i++) {
      bool above = row < FEATURES && i < FEATURES && i >= row / 8 * 8; /* eight features a layer */
      double unit = random_unit(seed, 1, position++);
      made->weights[row][i] = above || unit < 0.3 ? 0 : (float)((random_unit(seed, 1, position++) - 0.5) * pow(10, 3 * unit));
    }
    made->rows[row] = made->weights[row];
  }
  made->graph = (struct graph){FEATURES, ERRORS, TOKENS, LOGITS, made->rows, made->probability};
}

static int node_of(int row) { return row < FEATURES ? row : SOURCES + row - FEATURES; }

/* [NODES][NODES] with what is not kept left out, inputs of each row adding up to 1. */
static void normalized(const struct made *made, const bool *kept, double out[NODES][NODES]) {
  memset(out, 0, NODES * sizeof *out);
  for (int row = 0; row < ROWS; row++) {
    double sum = 0;
    int target = node_of(row);
    if (kept && !kept[target]) continue;
    for (int i = 0; i < SOURCES; i++) sum += !kept || kept[i] ? fabs((double)made->weights[row][i]) : 0;
    for (int i = 0; i < SOURCES; i++)
      if (!kept || kept[i]) out[target][i] = fabs((double)made->weights[row][i]) / fmax(sum, 1e-10);
  }
}

/* w (A + A^2 + ...) */
static void summed(const struct made *made, const bool *kept, double *out) {
  static double a[NODES][NODES];
  double now[NODES] = {0}, next[NODES];
  normalized(made, kept, a);
  memset(out, 0, NODES * sizeof *out);
  for (int i = 0; i < LOGITS; i++) now[SOURCES + i] = made->probability[i];
  for (int step = 0; step < NODES; step++) {
    memset(next, 0, sizeof next);
    for (int row = 0; row < NODES; row++)
      for (int i = 0; i < NODES; i++) next[i] += now[row] * a[row][i];
    for (int i = 0; i < NODES; i++) out[i] += next[i];
    memcpy(now, next, sizeof now);
  }
}

static void test_influence(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed < 20; seed++) {
    struct made made;
    double want[NODES], got[SOURCES];
    make(&made, seed);
    graph_influence(&made.graph, got);
    summed(&made, NULL, want);
    for (int i = 0; i < SOURCES; i++) assert_true(fabs(got[i] - want[i]) <= 1e-12); /* doubles, sums of some hundred numbers below 1 */
  }
}

/* A feature whose inputs are not known passes nothing on. */
static void test_unknown_inputs(void **state) {
  (void)state;
  struct made made;
  double got[SOURCES], want[NODES];
  make(&made, 7);
  for (int row = 20; row < 30; row++) {
    made.rows[row] = NULL;
    memset(made.weights[row], 0, sizeof made.weights[row]);
  }
  graph_influence(&made.graph, got);
  summed(&made, NULL, want);
  for (int i = 0; i < SOURCES; i++) assert_true(fabs(got[i] - want[i]) <= 1e-12);
}

/* Nodes are kept as long as those with more influence have not yet the share that is asked for. */
static void check_nodes(const struct made *made, double threshold, const struct graph_pruned *pruned) {
  double influence[NODES], all = 0;
  int kept = 0;
  summed(made, NULL, influence);
  for (int i = 0; i < NODES; i++) all += influence[i];
  for (int i = 0; i < FEATURES + ERRORS; i++) {
    if (pruned->kept[i]) assert_true(pruned->share[i] - influence[i] / all < threshold + 1e-9);
    kept += pruned->kept[i];
  }
  assert_true(kept > 0 && kept < FEATURES + ERRORS);
}

static void test_shares(void **state) {
  (void)state;
  struct made made;
  struct graph_pruned pruned;
  double influence[NODES], all = 0;
  make(&made, 3);
  assert_int_equal(graph_prune(&made.graph, 1, 1, &pruned, NULL), 0);
  summed(&made, NULL, influence);
  for (int i = 0; i < NODES; i++) all += influence[i];
  for (int i = 0; i < SOURCES; i++) {
    double more = 0;
    for (int k = 0; k < SOURCES; k++) more += influence[k] >= influence[i] ? influence[k] : 0;
    assert_true(fabs(pruned.share[i] - more / all) <= 1e-9); /* no two are equal */
  }
  graph_pruned_clear(&pruned);
}

/* With both thresholds at 1, what is cut off is what nothing goes into or comes of. */
static void test_all_of_it(void **state) {
  (void)state;
  struct made made;
  struct graph_pruned pruned;
  make(&made, 4);
  memset(made.weights[12], 0, sizeof made.weights[12]);                    /* a feature without inputs */
  for (int row = 0; row < ROWS; row++) made.weights[row][FEATURES + 2] = 0; /* an error without targets */
  size_t links = 0;
  for (int row = 0; row < ROWS; row++)
    for (int i = 0; i < SOURCES; i++) links += made.weights[row][i] != 0 && i != 12;
  assert_int_equal(graph_prune(&made.graph, 1, 1, &pruned, NULL), 0);
  for (int i = 0; i < NODES; i++) assert_int_equal(pruned.kept[i], i != 12 && i != FEATURES + 2);
  assert_int_equal(pruned.n_links, links);
  graph_pruned_clear(&pruned);
}

static void check_links(const struct made *made, const struct graph_pruned *pruned) {
  bool has_target[NODES] = {0}, has_input[NODES] = {0};
  for (size_t i = 0; i < pruned->n_links; i++) {
    struct graph_link link = pruned->links[i];
    int row = link.target < FEATURES ? link.target : link.target - SOURCES + FEATURES;
    assert_true(pruned->kept[link.source] && pruned->kept[link.target] && link.weight != 0);
    assert_true(link.weight == made->weights[row][link.source]);
    has_target[link.source] = has_input[link.target] = true;
  }
  for (int i = 0; i < FEATURES + ERRORS; i++) assert_true(!pruned->kept[i] || (has_target[i] && (i >= FEATURES || has_input[i])));
  for (int i = FEATURES + ERRORS; i < NODES; i++) assert_true(pruned->kept[i]);
}

/* The share of edges' scores that is left by the threshold alone, nodes as they are before loose ends go. */
static double link_share(const struct made *made, const bool *kept, const struct graph_pruned *pruned) {
  static double a[NODES][NODES];
  double influence[NODES], all = 0, left = 0;
  summed(made, kept, influence);
  normalized(made, kept, a);
  for (int i = 0; i < LOGITS; i++) influence[SOURCES + i] += made->probability[i];
  for (int row = 0; row < NODES; row++)
    for (int i = 0; i < NODES; i++) all += influence[row] * a[row][i];
  for (size_t i = 0; i < pruned->n_links; i++)
    left += influence[pruned->links[i].target] * a[pruned->links[i].target][pruned->links[i].source];
  return left / all;
}

static void test_thresholds(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed < 20; seed++) {
    struct made made;
    struct graph_pruned nodes, pruned;
    make(&made, seed);
    assert_int_equal(graph_prune(&made.graph, 0.8, 1, &nodes, NULL), 0);
    check_nodes(&made, 0.8, &nodes);
    check_links(&made, &nodes);
    assert_true(link_share(&made, nodes.kept, &nodes) > 1 - 1e-9);
    assert_int_equal(graph_prune(&made.graph, 0.8, 0.9, &pruned, NULL), 0);
    check_links(&made, &pruned);
    assert_true(pruned.n_links < nodes.n_links);
    double share = link_share(&made, nodes.kept, &pruned);
    assert_true(share > 0.8 && share < 0.93); /* 0.9 and one edge more, less what hangs loose then */
    graph_pruned_clear(&nodes);
    graph_pruned_clear(&pruned);
  }
}

static void test_scores(void **state) {
  (void)state;
  struct made made;
  struct graph_pruned pruned;
  make(&made, 5);
  for (int row = 0; row < ROWS; row++)
    for (int i = FEATURES; i < FEATURES + ERRORS; i++) made.weights[row][i] = 0;
  assert_int_equal(graph_prune(&made.graph, 0.8, 0.98, &pruned, NULL), 0);
  assert_true(pruned.replacement == 1 && fabs(pruned.completeness - 1) < 1e-12); /* nothing is left out */
  graph_pruned_clear(&pruned);
  for (int row = 0; row < ROWS; row++)
    for (int i = FEATURES + ERRORS; i < SOURCES; i++) made.weights[row][i] = 0;
  for (int row = 0; row < ROWS; row++) made.weights[row][FEATURES] = 1;
  assert_int_equal(graph_prune(&made.graph, 0.8, 0.98, &pruned, NULL), 0);
  assert_true(pruned.replacement == 0 && pruned.completeness < 1);
  graph_pruned_clear(&pruned);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_influence), cmocka_unit_test(test_unknown_inputs), cmocka_unit_test(test_shares),
                                     cmocka_unit_test(test_all_of_it), cmocka_unit_test(test_thresholds), cmocka_unit_test(test_scores)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
