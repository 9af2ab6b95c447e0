/* graphs.h: attribution graphs: which features of transcoders made which others, from the tokens of a text to its next token. A page of the
 * front door, beside laboratory.h.
 *
 * THE LOCAL REPLACEMENT MODEL of a text: what attention looks at and what norms divide by are constants; each MLP writes what its transcoder
 * makes of what it reads, and an error that is a constant. (An MLP without a transcoder writes a constant.) In it a feature's activation is
 * a sum over what stands in the residual stream, and an EDGE is one summand: the vector of the target (a feature's encoder column; a
 * token's column of the unembedding less the mean of all) brought back to where the source writes, times what it writes there.
 *
 * NODES: active features; errors, one for each layer and position; embeddings, one for each position (what stands where layer 0
 * begins); logits, the likeliest next tokens. Weights of edges are in units of the activation that is told. core/analysis/graph.h says
 * what influence is and what is cut off. */
#ifndef STEERD_CORE_GRAPHS_H
#define STEERD_CORE_GRAPHS_H

#include "core/laboratory.h"

#define GRAPH_MOST_LOGITS 50
#define GRAPH_MOST_FEATURES 20000

struct lab_graph_args {
  const struct lab_model_info *model;
  struct lab_input input;
  enum lab_bos bos;
  const struct lab_source_info *const *sources; /* one a layer at most, in the arena of the caller; field names of errors: */
  const char *const *fields;     /* [n_sources] */
  size_t n_sources;
  int max_logits;                /* 1 to GRAPH_MOST_LOGITS */
  double logit_probability;      /* tokens until they have that together */
  int64_t max_features;          /* whose inputs are looked at, 1 to GRAPH_MOST_FEATURES: the most influential ones; fewer where edges would
                                    take more memory than is allowed */
  double node_threshold, edge_threshold; /* 0 to 1 */
};

/* ERROR_ARGUMENT with `fields[i]` where a dictionary is no transcoder of a layer's MLP, or of a layer that has one already; "text",
 * "tokens". */
int lab_graph(struct lab *lab, const struct lab_graph_args *args, struct lab_waker waker, struct lab_job **out,
              struct error *error) MUST_CHECK;

enum lab_graph_kind { LAB_GRAPH_FEATURE, LAB_GRAPH_ERROR, LAB_GRAPH_EMBEDDING, LAB_GRAPH_LOGIT };

struct lab_graph_node {
  enum lab_graph_kind kind;
  int32_t layer;                 /* of features and errors; of embeddings -1, of logits n_layer */
  int32_t position;
  int32_t index;                 /* of a feature; of embeddings and logits the token's id; -1 of errors */
  const struct lab_source_info *source; /* of a feature */
  float activation;              /* of a feature */
  double share;                  /* of all influence, what nodes with this one's or more have: small is important */
  double probability;            /* of a logit */
};

struct lab_graph_link {
  int32_t source, target;        /* indices of nodes */
  float weight;
};

struct lab_graph_result {
  const int32_t *ids;
  const char *const *tokens;
  size_t n_tokens;
  const struct lab_graph_node *nodes; /* those kept: features by layer, position, index; errors, embeddings, logits */
  size_t n_nodes;
  const struct lab_graph_link *links;
  size_t n_links;
  double replacement, completeness;
  size_t n_active, n_looked_at;  /* features that fire; of these, whose inputs were looked at */
  int64_t max_features;          /* in effect */
  const struct lab_token *logits; /* of logit nodes, in their order */
  size_t n_logits;
};
const struct lab_graph_result *lab_graph_result(const struct lab_job *job);

#endif
