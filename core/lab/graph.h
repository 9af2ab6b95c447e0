/* graph.h: what the files of the verb "graph" share. Private to them. */
#ifndef STEERD_CORE_LAB_GRAPH_H
#define STEERD_CORE_LAB_GRAPH_H

#include "core/analysis/graph.h"
#include "core/graphs.h"
#include "core/lab/experiment.h"
#include "core/model/direct.h"

/* An active feature. */
struct graph_feature {
  int32_t layer, position, index;
  float activation;
};

/* A layer of the model, and the transcoder that stands for its MLP. */
struct graph_layer {
  const struct lab_source_info *source; /* NULL: none */
  const struct dict *dict;
  struct sparse codes;                  /* of the text */
  float *written;                       /* [n_tokens][d_model] what the MLP writes, and then what no transcoder accounts for */
  float *skipped;                       /* [n_tokens][width of in] what a skip connection reads; NULL without */
  size_t first, end;                    /* its features */
};

/* Row by row: what the transcoder in layer `from` says of what layer `layer` writes. */
struct graph_leave {
  int32_t layer, from;
  size_t row;
};

enum graph_step { GRAPH_OPEN, GRAPH_FORWARD, GRAPH_ENCODE, GRAPH_LEAVE, GRAPH_BACK };

struct graph_run {
  struct experiment e;
  struct lab_graph_args args;           /* numbers only */
  struct lab_graph_result result;
  struct graph_layer *layers;           /* [n_layer] */
  struct direct_layer *places;          /* [n_layer] */
  bool cross;                           /* layers of a cross-layer transcoder */
  enum graph_step step;
  int32_t encoded;                      /* layers */
  struct graph_leave at;                /* what is taken off next of what MLPs write */
  float *said;                          /* [d_model] for it */
  struct direct *direct;
  struct graph_feature *features;       /* active ones, by layer, position, index */
  size_t n_features;
  float *embedded;                      /* [n_tokens][d_model] */
  float **rows;                         /* [n_features + n_logits]: inputs of a target; NULL: not looked at */
  size_t n_sources;                     /* columns of a row */
  size_t n_done, most;                  /* features looked at, and how many will be */
  int32_t *queue;                       /* rows to come: features, or n_features + logit; by layer from the top */
  size_t n_queue, queued;               /* of them done */
  struct direct_target *targets;        /* of the batch under way */
  float *vectors, *gradients, *row;     /* [lanes][widest in]; [lanes][n_tokens][d_model]; [d_model] */
  size_t batch;
  int32_t last;                         /* position of a target of it */
  size_t cursor;                        /* of features, where a layer's are told in pieces */
  const struct dict *held;              /* whose skip is with the backend; NULL: none's */
  bool read;                            /* the layer's gradients are in `gradients` */
  struct lab_token *logits;
  double *probability;
};

static inline struct graph_run *graph_run_of(struct experiment *e) { return (struct graph_run *)e; }
static inline int64_t graph_width(const struct graph_run *g) { return g->e.model->arch.d_model; }

/* ---- graph_nodes.c: what there is ---- */

/* Which transcoder stands for which MLP. */
int graph_take_sources(struct graph_run *g, const struct lab_graph_args *args, struct error *error) MUST_CHECK;
/* Whether position 0 is a BOS that the dictionary was never meant for: no transcoder stands there, all that is written is error. */
bool graph_leaves_out(const struct graph_run *g, const struct dict_info *info);
/* Worker, behind the text: the features of a layer, and what it writes. */
int graph_encode(struct graph_run *g, int32_t layer, struct error *error) MUST_CHECK;
/* When all layers are: the list of features. */
int graph_list(struct graph_run *g, struct error *error) MUST_CHECK;
/* Then a row of what the transcoders leave of what MLPs write; false: that was the last. */
bool graph_leave(struct graph_run *g);
void graph_clear_nodes(struct graph_run *g);

/* ---- graph_edges.c: what goes where ---- */

extern const struct direct_events graph_events; /* of a run as the context */

/* Worker: takes some of the queue and sends it back. */
int graph_begin_batch(struct graph_run *g, struct error *error) MUST_CHECK;

/* Which features are looked at next, into the queue: all that are left, or the most influential of them. False: enough. */
int graph_choose(struct graph_run *g, bool *more, struct error *error) MUST_CHECK;

#endif
