/* graph.c: influence by one walk over the rows, last node first: whatever a node feeds has been seen before it. */
#include "core/analysis/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_SUM 1e-10 /* what a row's inputs are divided by at least */

static size_t n_rows(const struct graph *g) { return g->n_features + g->n_logits; }
static size_t n_nodes(const struct graph *g) { return graph_sources(g) + g->n_logits; }
static size_t node_of_row(const struct graph *g, size_t row) { return row < g->n_features ? row : graph_sources(g) + row - g->n_features; }

/* Which nodes take part; NULL: all. */
static double row_sum(const struct graph *g, size_t row, const bool *kept) {
  const float *weights = g->rows[row];
  double sum = 0;
  for (size_t i = 0; i < graph_sources(g); i++)
    if (!kept || kept[i]) sum += fabs((double)weights[i]);
  return fmax(sum, LEAST_SUM);
}

/* What reaches the logits through a row's node. */
static double through(const struct graph *g, size_t row, const double *influence) {
  return row < g->n_features ? influence[row] : g->probability[row - g->n_features];
}

static bool takes_part(const struct graph *g, size_t row, const bool *kept) {
  return g->rows[row] && (!kept || kept[node_of_row(g, row)]);
}

static void spread(const struct graph *g, const bool *kept, double *influence) {
  memset(influence, 0, graph_sources(g) * sizeof *influence);
  for (size_t row = n_rows(g); row-- > 0;) {
    if (!takes_part(g, row, kept)) continue;
    double each = through(g, row, influence) / row_sum(g, row, kept);
    const float *weights = g->rows[row];
    for (size_t i = 0; each > 0 && i < graph_sources(g); i++)
      if (!kept || kept[i]) influence[i] += each * fabs((double)weights[i]);
  }
}

void graph_influence(const struct graph *graph, double *influence) { spread(graph, NULL, influence); }

/* ---- thresholds ---- */

static int downwards(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x > y ? -1 : x < y;
}

/* The score down to which the largest have this share of all; sorts them. */
static double score_of_share(double *scores, size_t n, double share) {
  double sum = 0, so_far = 0;
  qsort(scores, n, sizeof *scores, downwards);
  for (size_t i = 0; i < n; i++) sum += scores[i];
  for (size_t i = 0; i < n; i++)
    if ((so_far += scores[i]) >= share * sum) return scores[i];
  return n ? scores[n - 1] : 0;
}

static int prune_nodes(const struct graph *g, const double *influence, double threshold, bool *kept, struct error *error) {
  size_t n = n_nodes(g), sources = graph_sources(g);
  double *sorted = calloc(n, sizeof *sorted);
  if (!sorted) return error_memory(error, n * sizeof *sorted);
  memcpy(sorted, influence, sources * sizeof *sorted);
  double least = score_of_share(sorted, n, threshold);
  for (size_t i = 0; i < n; i++) kept[i] = i >= sources - g->n_tokens || influence[i] >= least;
  free(sorted);
  return 0;
}

static int by_score(const void *a, const void *b) {
  const double *x = *(const double *const *)a, *y = *(const double *const *)b;
  return *x != *y ? (*x > *y ? -1 : 1) : x < y ? -1 : x > y;
}

/* The share of nodes in the order of their influence; of equals the lower number first. */
static int fill_shares(const struct graph *g, const double *influence, double *share, struct error *error) {
  size_t n = n_nodes(g), sources = graph_sources(g);
  const double **order = malloc(n * sizeof *order);
  double *all = calloc(n, sizeof *all), sum = 0, so_far = 0;
  int failed = order && all ? 0 : error_memory(error, n * sizeof *order);
  for (size_t i = 0; !failed && i < n; i++) {
    all[i] = i < sources ? influence[i] : 0;
    order[i] = &all[i];
    sum += all[i];
  }
  if (!failed) qsort(order, n, sizeof *order, by_score);
  for (size_t i = 0; !failed && i < n; i++) {
    so_far += *order[i];
    share[order[i] - all] = sum > 0 ? so_far / sum : 1;
  }
  free(order);
  free(all);
  return failed;
}

/* ---- edges ---- */

struct links {
  struct graph_link *at;
  double *score;
  size_t n;
};

static size_t count_links(const struct graph *g, const bool *kept) {
  size_t n = 0;
  for (size_t row = 0; row < n_rows(g); row++)
    for (size_t i = 0; takes_part(g, row, kept) && i < graph_sources(g); i++) n += kept[i] && g->rows[row][i] != 0;
  return n;
}

static int list_links(const struct graph *g, const bool *kept, const double *influence, struct links *links, struct error *error) {
  size_t n = count_links(g, kept);
  links->at = malloc((n ? n : 1) * sizeof *links->at);
  links->score = malloc((n ? n : 1) * sizeof *links->score);
  if (!links->at || !links->score) return error_memory(error, n * sizeof *links->at);
  for (size_t row = 0; row < n_rows(g); row++) {
    if (!takes_part(g, row, kept)) continue;
    double each = through(g, row, influence) / row_sum(g, row, kept);
    for (size_t i = 0; i < graph_sources(g); i++) {
      if (!kept[i] || g->rows[row][i] == 0) continue;
      links->at[links->n] = (struct graph_link){(int32_t)i, (int32_t)node_of_row(g, row), g->rows[row][i]};
      links->score[links->n++] = each * fabs((double)g->rows[row][i]);
    }
  }
  return 0;
}

static int prune_links(struct links *links, double threshold, struct error *error) {
  double *sorted = malloc((links->n ? links->n : 1) * sizeof *sorted);
  if (!sorted) return error_memory(error, links->n * sizeof *sorted);
  memcpy(sorted, links->score, links->n * sizeof *sorted);
  double least = score_of_share(sorted, links->n, threshold);
  size_t n = 0;
  for (size_t i = 0; i < links->n; i++)
    if (links->score[i] >= least) links->at[n++] = links->at[i];
  links->n = n;
  free(sorted);
  return 0;
}

/* Links of nodes that are gone go; then nodes without. False when nothing has changed. */
static bool prune_once(const struct graph *g, struct links *links, bool *kept, bool *has_target, bool *has_input) {
  size_t n = 0, sources = graph_sources(g);
  bool changed = false;
  memset(has_target, 0, n_nodes(g) * sizeof *has_target);
  memset(has_input, 0, n_nodes(g) * sizeof *has_input);
  for (size_t i = 0; i < links->n; i++) {
    struct graph_link link = links->at[i];
    if (!kept[link.source] || !kept[link.target]) continue;
    has_target[link.source] = has_input[link.target] = true;
    links->at[n++] = link;
  }
  links->n = n;
  for (size_t i = 0; i < sources - g->n_tokens; i++) {
    bool stays = has_target[i] && (i >= g->n_features || has_input[i]);
    changed |= kept[i] && !stays;
    kept[i] = kept[i] && stays;
  }
  return changed;
}

static int prune_loose_ends(const struct graph *g, struct links *links, bool *kept, struct error *error) {
  size_t n = n_nodes(g);
  bool *has_target = calloc(n, sizeof *has_target), *has_input = calloc(n, sizeof *has_input);
  int failed = has_target && has_input ? 0 : error_memory(error, n);
  while (!failed && prune_once(g, links, kept, has_target, has_input)) {}
  free(has_target);
  free(has_input);
  return failed;
}

/* ---- scores ---- */

static void fill_scores(const struct graph *g, const double *influence, struct graph_pruned *out) {
  double errors = 0, tokens = 0, all = 0, complete = 0;
  for (size_t i = g->n_features; i < g->n_features + g->n_errors; i++) errors += influence[i];
  for (size_t i = g->n_features + g->n_errors; i < graph_sources(g); i++) tokens += influence[i];
  for (size_t row = 0; row < n_rows(g); row++) {
    if (!g->rows[row]) continue;
    double weight = through(g, row, influence), error = 0, sum = row_sum(g, row, NULL);
    for (size_t i = g->n_features; i < g->n_features + g->n_errors; i++) error += fabs((double)g->rows[row][i]);
    complete += weight * (1 - error / sum);
    all += weight;
  }
  /* A node that nothing is known to go into has no share of errors in it. */
  all += errors + tokens;
  complete += errors + tokens;
  out->replacement = tokens + errors > 0 ? tokens / (tokens + errors) : 0;
  out->completeness = all > 0 ? complete / all : 0;
}

/* ---- all of it ---- */

static int prune(const struct graph *g, double node_threshold, double edge_threshold, double *influence, struct links *links,
                 struct graph_pruned *out, struct error *error) {
  graph_influence(g, influence);
  fill_scores(g, influence, out);
  if (fill_shares(g, influence, out->share, error) != 0 || prune_nodes(g, influence, node_threshold, out->kept, error) != 0) return -1;
  spread(g, out->kept, influence);
  if (list_links(g, out->kept, influence, links, error) != 0 || prune_links(links, edge_threshold, error) != 0) return -1;
  return prune_loose_ends(g, links, out->kept, error);
}

int graph_prune(const struct graph *graph, double node_threshold, double edge_threshold, struct graph_pruned *out, struct error *error) {
  size_t n = n_nodes(graph);
  double *influence = calloc(n, sizeof *influence);
  struct links links = {0};
  *out = (struct graph_pruned){.kept = calloc(n, sizeof *out->kept), .share = calloc(n, sizeof *out->share)};
  int failed = influence && out->kept && out->share ? 0 : error_memory(error, n * sizeof *influence);
  if (!failed) failed = prune(graph, node_threshold, edge_threshold, influence, &links, out, error);
  free(influence);
  free(links.score);
  out->links = links.at;
  out->n_links = links.n;
  if (failed) graph_pruned_clear(out);
  return failed;
}

void graph_pruned_clear(struct graph_pruned *pruned) {
  free(pruned->kept);
  free(pruned->share);
  free(pruned->links);
  *pruned = (struct graph_pruned){0};
}
