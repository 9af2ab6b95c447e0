/* graph.c: the verb "graph": an attribution graph of a text's next token. The text once, its codes, then vectors back, some at a
 * time between the steps of others; what is influential and what is cut off is reckoned on the thread between tasks. */
#include "core/lab/graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"

#define EDGE_BYTES ((int64_t)1 << 30) /* of all rows of weights */
#define LEAVE_NS (4 * 1000 * 1000)    /* of a slice that no backend does: others' steps wait behind it */

/* ---- the end of a run ---- */

static void clear(struct experiment *e) {
  struct graph_run *g = graph_run_of(e);
  direct_free(g->direct);
  if (g->held) dict_skip_release(g->held);
  graph_clear_nodes(g);
  for (size_t i = 0; g->rows && i < g->n_features + g->result.n_logits; i++) free(g->rows[i]);
  free(g->rows);
  free(g->queue);
  free(g->vectors);
  free(g->gradients);
  free(g->row);
  free(g->said);
}

/* ---- logits ---- */

/* The likeliest next tokens until they have the probability that is asked for; one at least. */
static int take_logits(struct graph_run *g, struct error *error) {
  struct experiment *e = &g->e;
  double sum = 0;
  g->logits = arena_array(&e->arena, (size_t)g->args.max_logits, sizeof *g->logits, error);
  g->probability = arena_array(&e->arena, (size_t)g->args.max_logits, sizeof *g->probability, error);
  if (!g->logits || !g->probability || direct_logits(g->direct, e->logits, error) != 0) return -1;
  int n = experiment_likeliest(e, e->logits, g->args.max_logits, g->logits);
  if (n < 1 || !isfinite(g->logits[0].logprob))
    return error_set_field(error, ERROR_UNSUPPORTED, "text", "the logits that the model gives behind this text are no numbers: nothing can be said of where "
                           "they come from");
  for (int i = 0; i < n && (i == 0 || sum < g->args.logit_probability); i++) {
    sum += g->probability[i] = exp((double)g->logits[i].logprob);
    g->result.n_logits = (size_t)i + 1;
  }
  g->result.logits = g->logits;
  return experiment_name(e, g->logits, g->result.n_logits, error);
}

/* ---- room ---- */

static int refuse_size(const struct graph_run *g, struct error *error) {
  return error_set_field(error, ERROR_LIMIT, "text", "%zu features fire in these %zu tokens: their edges take more memory than is allowed "
                         "(%lld MiB); give a shorter text", g->n_features, g->result.n_tokens, (long long)(EDGE_BYTES >> 20));
}

static int make_room(struct graph_run *g, struct error *error) {
  size_t n = g->result.n_tokens, width = (size_t)graph_width(g), rows = g->n_features + g->result.n_logits;
  size_t lanes = (size_t)direct_lanes(g->direct);
  g->n_sources = g->n_features + n * ((size_t)g->e.model->arch.n_layer + 1);
  int64_t room = EDGE_BYTES / (int64_t)(g->n_sources * sizeof(float)) - (int64_t)g->result.n_logits;
  if (room < 1 || g->n_features > INT32_MAX / 2) return refuse_size(g, error);
  int64_t most = g->args.max_features < room ? g->args.max_features : room;
  g->result.max_features = most;
  g->result.n_active = g->n_features;
  g->most = (size_t)most < g->n_features ? (size_t)most : g->n_features;
  g->result.n_looked_at = g->most;
  g->rows = calloc(rows, sizeof *g->rows);
  g->queue = calloc(rows, sizeof *g->queue);
  g->vectors = malloc(lanes * width * sizeof *g->vectors);
  g->gradients = malloc(lanes * n * width * sizeof *g->gradients);
  g->row = malloc(width * sizeof *g->row);
  g->targets = arena_array(&g->e.arena, lanes, sizeof *g->targets, error);
  if (!g->targets) return -1;
  return g->rows && g->queue && g->vectors && g->gradients && g->row ? 0 : error_memory(error, lanes * n * width * sizeof *g->gradients);
}

/* ---- while it runs ---- */

static int open_text(struct graph_run *g, struct plan *plan, struct error *error) {
  struct error inner = ERROR_INIT;
  struct direct_args args = {.ids = g->result.ids, .n_tokens = (int32_t)g->result.n_tokens, .layers = g->places,
                             .most_bytes = (size_t)LABORATORY_MAX_BYTES, .events = &graph_events, .context = g};
  g->direct = direct_new(plan, &args, &inner);
  g->step = GRAPH_FORWARD;
  if (g->direct) return 1;
  return inner.code == ERROR_LIMIT ? error_set_field(error, inner.code, "text", "%s", inner.text) : error_set(error, inner.code, "%s", inner.text);
}

/* Everything else that the ways back need: then the logits' own. */
static int begin_edges(struct graph_run *g, struct error *error) {
  if (take_logits(g, error) != 0 || make_room(g, error) != 0) return -1;
  for (size_t i = 0; i < g->result.n_logits; i++) g->queue[i] = (int32_t)(g->n_features + i);
  g->n_queue = g->result.n_logits;
  g->step = GRAPH_BACK;
  return 1;
}

static int encode_next(struct graph_run *g, struct error *error) {
  if (g->encoded < g->e.model->arch.n_layer) return graph_encode(g, g->encoded++, error) != 0 ? -1 : 1;
  g->step = GRAPH_LEAVE;
  return graph_list(g, error) != 0 ? -1 : 1;
}

static int leave_next(struct graph_run *g, struct error *error) {
  int64_t until = clock_ns() + LEAVE_NS;
  int more;
  do more = graph_leave(g);
  while (more && clock_ns() < until);
  return more ? 1 : begin_edges(g, error);
}

static int back(struct graph_run *g, struct error *error) {
  if (!g->batch && graph_begin_batch(g, error) != 0) return -1;
  int more = direct_back(g->direct, error);
  if (more) return more;
  g->queued += g->batch;
  g->batch = 0;
  return g->queued < g->n_queue;
}

static int on_slice(struct experiment *e, struct plan *plan, struct error *error) {
  struct graph_run *g = graph_run_of(e);
  int more;
  switch (g->step) {
    case GRAPH_OPEN: return open_text(g, plan, error);
    case GRAPH_FORWARD:
      more = direct_forward(g->direct, error);
      if (more == 0) g->step = GRAPH_ENCODE;
      return more < 0 ? -1 : 1;
    case GRAPH_ENCODE: return encode_next(g, error);
    case GRAPH_LEAVE: return leave_next(g, error);
    case GRAPH_BACK: return back(g, error);
  }
  return 0;
}

/* ---- what is left of it ---- */

/* Only features whose inputs are known are nodes: columns of the others go, in place. */
static void pack_rows(struct graph_run *g, const size_t *column, size_t n) {
  size_t rest = g->n_sources - g->n_features;
  for (size_t row = 0; row < g->n_features + g->result.n_logits; row++) {
    float *weights = g->rows[row];
    if (!weights) continue;
    for (size_t i = 0; i < n; i++) weights[i] = weights[column[i]];
    memmove(weights + n, weights + g->n_features, rest * sizeof *weights);
  }
  for (size_t i = 0; i < n; i++) {
    g->features[i] = g->features[column[i]];
    if (column[i] == i) continue;
    g->rows[i] = g->rows[column[i]]; /* column[i] > i: NULL was there */
    g->rows[column[i]] = NULL;
  }
  for (size_t i = 0; n < g->n_features && i < g->result.n_logits; i++) {
    g->rows[n + i] = g->rows[g->n_features + i];
    g->rows[g->n_features + i] = NULL;
  }
  g->n_features = n;
}

static int pack(struct graph_run *g, struct error *error) {
  size_t *column = calloc(g->n_features ? g->n_features : 1, sizeof *column), n = 0;
  if (!column) return error_memory(error, g->n_features * sizeof *column);
  for (size_t i = 0; i < g->n_features; i++)
    if (g->rows[i]) column[n++] = i;
  if (n < g->n_features) pack_rows(g, column, n);
  free(column);
  return 0;
}

static struct lab_graph_node describe(const struct graph_run *g, size_t i) {
  size_t tokens = g->result.n_tokens, errors = tokens * (size_t)g->e.model->arch.n_layer;
  if (i < g->n_features) {
    const struct graph_feature *f = &g->features[i];
    return (struct lab_graph_node){.kind = LAB_GRAPH_FEATURE, .layer = f->layer, .position = f->position, .index = f->index,
                                   .source = g->layers[f->layer].source, .activation = f->activation};
  }
  i -= g->n_features;
  if (i < errors)
    return (struct lab_graph_node){.kind = LAB_GRAPH_ERROR, .layer = (int32_t)(i / tokens), .position = (int32_t)(i % tokens), .index = -1};
  i -= errors;
  if (i < tokens)
    return (struct lab_graph_node){.kind = LAB_GRAPH_EMBEDDING, .layer = -1, .position = (int32_t)i, .index = g->result.ids[i]};
  i -= tokens;
  return (struct lab_graph_node){.kind = LAB_GRAPH_LOGIT, .layer = g->e.model->arch.n_layer, .position = (int32_t)tokens - 1,
                                 .index = g->logits[i].id, .probability = g->probability[i]};
}

static int take_result(struct graph_run *g, const struct graph_pruned *pruned, struct error *error) {
  size_t all = g->n_features + g->n_sources + g->result.n_logits, n = 0;
  struct lab_graph_result *result = &g->result;
  struct lab_graph_node *nodes = arena_array(&g->e.arena, all, sizeof *nodes, error);
  struct lab_graph_link *links = arena_array(&g->e.arena, pruned->n_links, sizeof *links, error);
  int32_t *number = calloc(all, sizeof *number);
  if (!nodes || !links || !number) {
    free(number);
    return nodes && links ? error_memory(error, all * sizeof *number) : -1;
  }
  size_t total = g->n_features + result->n_tokens * ((size_t)g->e.model->arch.n_layer + 1) + result->n_logits;
  for (size_t i = 0; i < total; i++) {
    if (!pruned->kept[i]) continue;
    number[i] = (int32_t)n;
    nodes[n] = describe(g, i);
    nodes[n++].share = pruned->share[i];
  }
  for (size_t i = 0; i < pruned->n_links; i++)
    links[i] = (struct lab_graph_link){number[pruned->links[i].source], number[pruned->links[i].target], pruned->links[i].weight};
  free(number);
  result->nodes = nodes;
  result->n_nodes = n;
  result->links = links;
  result->n_links = pruned->n_links;
  result->replacement = pruned->replacement;
  result->completeness = pruned->completeness;
  return 0;
}

static int finish(struct graph_run *g, struct error *error) {
  struct graph_pruned pruned;
  if (pack(g, error) != 0) return -1;
  struct graph graph = {g->n_features, g->result.n_tokens * (size_t)g->e.model->arch.n_layer, g->result.n_tokens, g->result.n_logits,
                        (const float *const *)g->rows, g->probability};
  if (graph_prune(&graph, g->args.node_threshold, g->args.edge_threshold, &pruned, error) != 0) return -1;
  int failed = take_result(g, &pruned, error);
  graph_pruned_clear(&pruned);
  return failed;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct graph_run *g = graph_run_of(e);
  e->work = true;
  if (stage == 0) {
    e->rows += (int64_t)g->result.n_tokens * DIRECT_LANES;
    return 0;
  }
  if (graph_choose(g, &e->work, error) != 0) return -1;
  return e->work ? 0 : finish(g, error);
}

static const struct experiment_verb verb = {.stage = on_stage, .slice = on_slice, .clear = clear};

/* ---- the verb ---- */

static int prepare(struct graph_run *g, const struct lab_graph_args *args, struct error *error) {
  struct experiment *e = &g->e;
  g->args = *args;
  g->args.sources = NULL; /* the caller's: what is needed of them is in g->layers */
  e->aside = true;
  if (experiment_texts(e, &args->input, 1, args->bos, false, error) != 0 ||
      experiment_tokens(e, &e->texts[0], &g->result.tokens, error) != 0)
    return -1;
  g->result.ids = e->texts[0].ids;
  g->result.n_tokens = e->texts[0].n;
  return graph_take_sources(g, args, error);
}

int lab_graph(struct lab *lab, const struct lab_graph_args *args, struct lab_waker waker, struct lab_job **out, struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct graph_run), waker, error);
  if (!e) return -1;
  if (prepare(graph_run_of(e), args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_graph_result *lab_graph_result(const struct lab_job *job) { return &((const struct graph_run *)job)->result; }
