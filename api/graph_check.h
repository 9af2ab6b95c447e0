/* graph_check.h: whether a text is an attribution graph as circuit-tracer writes it and Neuronpedia's viewer reads it, and what is said of it
 * in lists. For graphs that were made elsewhere: nothing about them is believed. */
#ifndef STEERD_API_GRAPH_CHECK_H
#define STEERD_API_GRAPH_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"

enum { GRAPH_SLUG_MOST = 128, GRAPH_TOKENS_MOST = 8192, GRAPH_LAYERS_MOST = 4096, GRAPH_JSON_DEPTH = 16 };

struct graph_facts {
  const char *model;      /* metadata.scan; model and slug have letters, digits, '_', '-' and '.', and do not begin with '.' */
  const char *slug;
  const char *prompt;
  const char *tokens;     /* a JSON array of strings */
  const char *source_set; /* or NULL */
  int64_t n_nodes, n_links;
};

/* text: [length]. Texts of *out lie in the arena. What a page may index by is in range then: positions are those of prompt_tokens,
 * layers "E" or 0 to GRAPH_LAYERS_MOST. ERROR_ARGUMENT names the member, "nodes[3].ctx_idx". The text is read value after value, so that memory is
 * needed for one node at a time, not for the tree of megabytes. */
int graph_check(const char *text, size_t length, struct arena *arena, struct graph_facts *out, struct error *error) MUST_CHECK;

#endif
