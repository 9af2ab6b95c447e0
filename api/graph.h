/* graph.h: what the endpoints that make attribution graphs share: how a request is read, and the JSON of a graph. */
#ifndef STEERD_API_GRAPH_H
#define STEERD_API_GRAPH_H

#include "api/call.h"
#include "core/graphs.h"

struct graph_plan {
  struct lab_graph_args args;
  const char *slug;
  const char *set;    /* or NULL */
  const char *prompt; /* [length]; NULL: of tokens */
  size_t length;
};

/* What the fields of a route are called. tokens, sources: NULL where it has none. */
struct graph_names {
  const char *text, *tokens, *set, *sources, *logits, *probability, *features;
};

/* Reads the request into call->plan, a struct graph_plan, and starts the job, which ends in `finish`. slug: NULL: the field of that name. Without a
 * set the model's only set of transcoders. */
int graph_start(struct api_call *call, const struct graph_names *names, const char *slug,
                int (*finish)(struct api_call *call, struct error *error), struct error *error) MUST_CHECK;

/* The sources of the set that a field names (left out: the model's only set of transcoders), lowest layer first, in the call's arena. */
int graph_transcoders(struct api_call *call, const struct lab_model_info *model, const char *field, const struct lab_source_info ***out, size_t *n,
                      struct error *error) MUST_CHECK;

/* Appends the graph as circuit-tracer writes it. Explanations come from the store, where there is one. */
int graph_write(struct api_call *call, const struct lab_graph_result *result, struct buffer *out, struct error *error) MUST_CHECK;

/* The text behind a graph: the prompt, or its tokens together; in the call's arena. */
const char *graph_prompt(struct api_call *call, const struct lab_graph_result *result, struct error *error) MUST_CHECK;

/* Where the graph is seen: its page on this server; in the call's arena. */
const char *graph_page_url(struct api_call *call, const struct store_graph *graph, struct error *error) MUST_CHECK;

/* Always -1: ERROR_NOT_FOUND with the field slug. */
int graph_refuse_missing(const char *model, const char *slug, struct error *error);

/* Always -1: ERROR_CONFLICT, there is a graph of that name already. */
int graph_refuse_taken(const char *field, const char *slug, struct error *error);

#endif
