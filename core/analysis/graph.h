/* graph.h: the arithmetic of attribution graphs: how much of what goes into the logits comes through each node, which nodes and edges are
 * left when the rest is cut off, and two scores. Knows weights of edges and nothing of models.
 *
 * Nodes are numbered features first, then errors, then tokens, then logits. An edge goes from an earlier node (a column) to a later one
 * (a row); features stand so that every edge between two goes from a lower number to a higher. Each target's inputs are weighed by their
 * size: |weight| divided by the sum of all of that row (1e-10 at least). The INFLUENCE of a node is the sum, over all paths from it to
 * logits, of the products of these shares, times the logit's probability. */
#ifndef STEERD_CORE_ANALYSIS_GRAPH_H
#define STEERD_CORE_ANALYSIS_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

/* Borrowed arrays. */
struct graph {
  size_t n_features, n_errors, n_tokens, n_logits;
  const float *const *rows; /* [n_features + n_logits]: inputs of each feature, then of each logit, [n_features + n_errors + n_tokens];
                               NULL: nothing is known of this feature's inputs */
  const double *probability; /* [n_logits] */
};

static inline size_t graph_sources(const struct graph *graph) { return graph->n_features + graph->n_errors + graph->n_tokens; }

/* influence [graph_sources]; those of logits are 0. */
void graph_influence(const struct graph *graph, double *influence);

struct graph_link {
  int32_t source, target; /* numbers of nodes */
  float weight;
};

struct graph_pruned {
  bool *kept;        /* [nodes] */
  double *share;     /* [nodes]: of all influence, that of nodes with this one's or more: small is important */
  struct graph_link *links; /* by target, then source; between kept nodes */
  size_t n_links;
  double replacement;  /* of what tokens and errors have together, what tokens have */
  double completeness; /* of what goes into nodes, weighed by their influence, what is no error */
};

/* Nodes with the largest influence until they have node_threshold of it; all tokens and logits; then edges with the largest (share of the target's
 * inputs) x (influence of the target), both counted in what is left, until they have edge_threshold; then no feature without an input, and
 * no feature or error without a target. Edges of weight 0 are none. Thresholds in [0, 1]. ERROR_MEMORY. */
int graph_prune(const struct graph *graph, double node_threshold, double edge_threshold, struct graph_pruned *out,
                struct error *error) MUST_CHECK;
void graph_pruned_clear(struct graph_pruned *pruned);

#endif
