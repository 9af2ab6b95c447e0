/* graph_json.c: an attribution graph as JSON, as circuit-tracer writes it and Neuronpedia's viewer reads it. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/graph.h"
#include "core/base/json_writer.h"

enum { NODE_ID_BYTES = 48 };

/* Two numbers as one, as upstream's viewers number features. */
static int64_t pair_of(int64_t a, int64_t b) { return (a + b) * (a + b + 1) / 2 + b; }

/* The names of a node: of it, and of all that differ in position only. */
static void name_node(const struct lab_graph_node *node, char id[NODE_ID_BYTES], char js[NODE_ID_BYTES]) {
  int layer = (int)node->layer, position = (int)node->position, index = (int)node->index;
  switch (node->kind) {
    case LAB_GRAPH_FEATURE:
      snprintf(id, NODE_ID_BYTES, "%d_%d_%d", layer, index, position);
      snprintf(js, NODE_ID_BYTES, "%d_%d-0", layer, index);
      return;
    case LAB_GRAPH_ERROR: /* not upstream's "0_LAYER_POSITION", which is also the name of a feature of layer 0 */
      snprintf(id, NODE_ID_BYTES, "err_%d_%d", layer, position);
      snprintf(js, NODE_ID_BYTES, "err_%d_%d-0", layer, position);
      return;
    case LAB_GRAPH_EMBEDDING:
      snprintf(id, NODE_ID_BYTES, "E_%d_%d", index, position);
      snprintf(js, NODE_ID_BYTES, "E_%d-%d", index, position);
      return;
    case LAB_GRAPH_LOGIT:
      snprintf(id, NODE_ID_BYTES, "%d_%d_%d", layer + 1, index, position);
      snprintf(js, NODE_ID_BYTES, "L_%d-%d", index, position);
      return;
  }
}

static const char *type_of(enum lab_graph_kind kind) {
  static const char *const names[] = {"cross layer transcoder", "mlp reconstruction error", "embedding", "logit"};
  return names[kind];
}

static int64_t number_of(const struct lab_graph_node *node) {
  switch (node->kind) {
    case LAB_GRAPH_FEATURE: return pair_of(node->layer, node->index);
    case LAB_GRAPH_EMBEDDING: return node->position;
    default: return node->index; /* -1 of errors */
  }
}

static void write_layer(struct json_writer *w, const struct lab_graph_node *node) {
  char layer[16];
  snprintf(layer, sizeof layer, "%d", (int)node->layer + (node->kind == LAB_GRAPH_LOGIT));
  jw_member_text(w, "layer", node->kind == LAB_GRAPH_EMBEDDING ? "E" : layer);
}

/* What is said of a node where it is shown: of a logit its token, of a feature its explanation. */
static void write_clerp(struct json_writer *w, const struct lab_graph_node *node, const struct lab_token *token, const char *explanation) {
  char text[160] = "";
  if (token) snprintf(text, sizeof text, "Output \"%.96s\" (p=%.3f)", token->text, node->probability);
  jw_member_text(w, "clerp", explanation ? explanation : text);
}

/* token: of a logit, else NULL. */
static void write_node(struct json_writer *w, const struct lab_graph_node *node, const struct lab_token *token, const char *explanation, bool first) {
  char id[NODE_ID_BYTES], js[NODE_ID_BYTES];
  name_node(node, id, js);
  jw_open(w, '{');
  jw_member_text(w, "node_id", id);
  jw_member_int(w, "feature", number_of(node));
  write_layer(w, node);
  jw_member_int(w, "ctx_idx", node->position);
  jw_member_text(w, "feature_type", type_of(node->kind));
  jw_member_f64(w, "token_prob", node->probability);
  jw_member_bool(w, "is_target_logit", first);
  jw_member_int(w, "run_idx", 0);
  jw_member_int(w, "reverse_ctx_idx", 0);
  jw_member_text(w, "jsNodeId", js);
  write_clerp(w, node, token, explanation);
  jw_member_f64(w, "influence", node->share);
  if (node->kind == LAB_GRAPH_FEATURE) {
    jw_member_f32(w, "activation", node->activation);
    jw_member_text(w, "source", node->source->id);
    jw_member_int(w, "index", node->index);
  } else {
    jw_member_null(w, "activation");
  }
  jw_close(w, '}');
}

static void write_nodes(struct json_writer *w, const struct lab_graph_result *result, const char *const *texts) {
  size_t logit = 0;
  jw_key(w, "nodes");
  jw_open(w, '[');
  for (size_t i = 0; i < result->n_nodes; i++) {
    const struct lab_graph_node *node = &result->nodes[i];
    bool is_logit = node->kind == LAB_GRAPH_LOGIT;
    write_node(w, node, is_logit ? &result->logits[logit] : NULL, texts[i], is_logit && logit == 0);
    logit += is_logit;
  }
  jw_close(w, ']');
}

static void write_links(struct json_writer *w, const struct lab_graph_result *result) {
  char source[NODE_ID_BYTES], target[NODE_ID_BYTES], js[NODE_ID_BYTES];
  jw_key(w, "links");
  jw_open(w, '[');
  for (size_t i = 0; i < result->n_links; i++) {
    const struct lab_graph_link *link = &result->links[i];
    name_node(&result->nodes[link->source], source, js);
    name_node(&result->nodes[link->target], target, js);
    jw_open(w, '{');
    jw_member_text(w, "source", source);
    jw_member_text(w, "target", target);
    jw_member_f32(w, "weight", link->weight);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static void write_info(struct json_writer *w) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  jw_key(w, "info");
  jw_open(w, '{');
  jw_key(w, "generator");
  jw_open(w, '{');
  jw_member_text(w, "name", "steerd");
  jw_member_text(w, "version", STEERD_VERSION);
  jw_close(w, '}');
  jw_member_int(w, "create_time_ms", (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
  jw_close(w, '}');
}

/* How it was made, in upstream's words. */
static void write_settings(struct json_writer *w, const struct graph_plan *plan, const struct lab_graph_result *result) {
  jw_key(w, "generation_settings");
  jw_open(w, '{');
  jw_member_int(w, "max_n_logits", plan->args.max_logits);
  jw_member_f64(w, "desired_logit_prob", plan->args.logit_probability);
  jw_member_int(w, "max_feature_nodes", result->max_features);
  jw_close(w, '}');
  jw_key(w, "pruning_settings");
  jw_open(w, '{');
  jw_member_f64(w, "node_threshold", plan->args.node_threshold);
  jw_member_f64(w, "edge_threshold", plan->args.edge_threshold);
  jw_close(w, '}');
  jw_key(w, "feature_details");
  jw_open(w, '{');
  jw_member_text(w, "neuronpedia_source_set", plan->set);
  jw_close(w, '}');
}

/* And what came of it, in ours. */
static void write_found(struct json_writer *w, const struct lab_graph_result *result) {
  jw_key(w, "scores");
  jw_open(w, '{');
  jw_member_f64(w, "replacement", result->replacement);
  jw_member_f64(w, "completeness", result->completeness);
  jw_close(w, '}');
  jw_key(w, "counts");
  jw_open(w, '{');
  jw_member_int(w, "active", (int64_t)result->n_active);
  jw_member_int(w, "looked_at", (int64_t)result->n_looked_at);
  jw_close(w, '}');
}

const char *graph_prompt(struct api_call *call, const struct lab_graph_result *result, struct error *error) {
  const struct graph_plan *plan = call->plan;
  struct buffer text;
  if (plan->prompt) return arena_text(&call->arena, plan->prompt, plan->length, error);
  buffer_init(&text, 0);
  for (size_t i = 0; i < result->n_tokens; i++) buffer_text(&text, result->tokens[i]);
  const char *all = arena_text(&call->arena, text.data ? text.data : "", text.length, error);
  buffer_clear(&text);
  return all;
}

static void write_metadata(struct json_writer *w, const struct graph_plan *plan, const struct lab_graph_result *result, const char *prompt) {
  jw_key(w, "metadata");
  jw_open(w, '{');
  jw_member_text(w, "slug", plan->slug);
  jw_member_text(w, "scan", plan->args.model->id);
  jw_key(w, "transcoder_list");
  jw_open(w, '[');
  for (size_t i = 0; i < plan->args.n_sources; i++) jw_text(w, plan->args.sources[i]->id);
  jw_close(w, ']');
  jw_key(w, "prompt_tokens");
  jw_open(w, '[');
  for (size_t i = 0; i < result->n_tokens; i++) jw_text(w, result->tokens[i]);
  jw_close(w, ']');
  jw_member_text(w, "prompt", prompt);
  jw_member_f64(w, "node_threshold", plan->args.node_threshold);
  jw_member_int(w, "schema_version", 1);
  write_info(w);
  write_settings(w, plan, result);
  write_found(w, result);
  jw_close(w, '}');
}

/* What a viewer has chosen: nothing yet. */
static void write_choices(struct json_writer *w) {
  jw_key(w, "qParams");
  jw_open(w, '{');
  jw_member_text(w, "linkType", "both");
  jw_key(w, "pinnedIds");
  jw_open(w, '[');
  jw_close(w, ']');
  jw_member_text(w, "clickedId", "");
  jw_key(w, "supernodes");
  jw_open(w, '[');
  jw_close(w, ']');
  jw_member_text(w, "sg_pos", "");
  jw_close(w, '}');
}

/* The best explanation of each node; those that have none, and all without a store, are NULL. */
static const char **read_explanations(struct api_call *call, const struct lab_graph_result *result, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  const char **texts = arena_array(&call->arena, result->n_nodes, sizeof *texts, error);
  struct store_feature_at *at = arena_array(&call->arena, result->n_nodes, sizeof *at, error);
  if (!texts || !at) return NULL;
  for (size_t i = 0; i < result->n_nodes; i++)
    if (result->nodes[i].source)
      at[i] = (struct store_feature_at){lab_store_source(call->api->lab, result->nodes[i].source), (uint32_t)result->nodes[i].index};
  return !store || store_explanation_best(store, at, result->n_nodes, &call->arena, texts, error) == 0 ? texts : NULL;
}

int graph_write(struct api_call *call, const struct lab_graph_result *result, struct buffer *out, struct error *error) {
  struct json_writer w;
  const char *prompt = graph_prompt(call, result, error);
  const char **texts = prompt ? read_explanations(call, result, error) : NULL;
  if (!texts) return -1;
  jw_init(&w, out);
  jw_open(&w, '{');
  write_metadata(&w, call->plan, result, prompt);
  write_choices(&w);
  write_nodes(&w, result, texts);
  write_links(&w, result);
  jw_close(&w, '}');
  if (!out->failed) return 0;
  return error_set_field(error, ERROR_LIMIT, "nodeThreshold", "%zu nodes with %zu edges are a larger reply than this server gives; lower "
                         "'nodeThreshold' or 'edgeThreshold'", result->n_nodes, result->n_links);
}
