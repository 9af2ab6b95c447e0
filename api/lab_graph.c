/* lab_graph.c: POST /v1/lab/graph: an attribution graph, in the JSON that circuit-tracer writes and Neuronpedia's viewer reads. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/handlers.h"
#include "api/lab_common.h"
#include "core/graphs.h"

const struct field lab_graph_fields[] = {
    MODEL_ROW,
    {"text", "prompt", FIELD_TEXT, .min = 1, .cap = CAP_PROMPT, .text = "The text, whose next token is explained; or give tokens."},
    {"tokens", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Token ids in place of a text."},
    PREPEND_BOS_ROW,
    {"sourceSet", "sourceSetName", FIELD_TEXT, .min = 1, .max = 128, .text = "A set of transcoders, one for the MLP of each layer."},
    {"sources", NULL, FIELD_TEXTS, .min = 1, .max = 256, .most = 512,
     .text = "Transcoders by name in place of a set. The MLP of a layer without one is an error node at each token."},
    {"maxLogits", "maxNLogits", FIELD_INT, .fallback = "10", .min = 1, .max = GRAPH_MOST_LOGITS, .text = "Next tokens at most."},
    {"logitProbability", "desiredLogitProb", FIELD_NUMBER, .fallback = "0.95", .max = 1,
     .text = "The likeliest next tokens until they have this probability together."},
    {"maxFeatures", "maxFeatureNodes", FIELD_INT, .fallback = "5000", .min = 1, .max = GRAPH_MOST_FEATURES,
     .text = "Whose inputs are computed: the most influential ones, where more fire."},
    {"nodeThreshold", NULL, FIELD_NUMBER, .fallback = "0.8", .max = 1, .text = "Nodes are kept until they have this share of all influence."},
    {"edgeThreshold", NULL, FIELD_NUMBER, .fallback = "0.98", .max = 1, .text = "And edges between them until they have this share of theirs."},
    {"slug", NULL, FIELD_TEXT, .fallback = "graph", .min = 1, .max = 128, .text = "A name, for the reply."},
    {.name = NULL}};

struct graph_plan {
  struct lab_graph_args args;
  const char *set;    /* or NULL */
  const char *prompt; /* or NULL, of tokens */
  size_t length;
};

/* ---- out ---------------------------------------------------------------------------------------------- */

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

/* What is said of a node where it is shown. */
static void write_clerp(struct json_writer *w, const struct lab_graph_node *node, const struct lab_token *token) {
  char text[160] = "";
  if (token) snprintf(text, sizeof text, "Output \"%.96s\" (p=%.3f)", token->text, node->probability);
  jw_member_text(w, "clerp", text);
}

/* token: of a logit, else NULL. */
static void write_node(struct json_writer *w, const struct lab_graph_node *node, const struct lab_token *token, bool first) {
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
  write_clerp(w, node, token);
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

static void write_nodes(struct json_writer *w, const struct lab_graph_result *result) {
  size_t logit = 0;
  jw_key(w, "nodes");
  jw_open(w, '[');
  for (size_t i = 0; i < result->n_nodes; i++) {
    const struct lab_graph_node *node = &result->nodes[i];
    bool is_logit = node->kind == LAB_GRAPH_LOGIT;
    write_node(w, node, is_logit ? &result->logits[logit] : NULL, is_logit && logit == 0);
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

static void write_prompt(struct json_writer *w, const struct graph_plan *plan, const struct lab_graph_result *result) {
  struct buffer text;
  jw_key(w, "prompt_tokens");
  jw_open(w, '[');
  for (size_t i = 0; i < result->n_tokens; i++) jw_text(w, result->tokens[i]);
  jw_close(w, ']');
  jw_key(w, "prompt");
  if (plan->prompt) {
    jw_string(w, plan->prompt, plan->length);
    return;
  }
  buffer_init(&text, 0);
  for (size_t i = 0; i < result->n_tokens; i++) buffer_text(&text, result->tokens[i]);
  jw_string(w, text.data ? text.data : "", text.length);
  buffer_clear(&text);
}

static void write_metadata(struct api_call *call, struct json_writer *w, const struct graph_plan *plan, const struct lab_graph_result *result) {
  jw_key(w, "metadata");
  jw_open(w, '{');
  jw_member_text(w, "slug", values_text(call->values, "slug", NULL));
  jw_member_text(w, "scan", plan->args.model->id);
  jw_key(w, "transcoder_list");
  jw_open(w, '[');
  for (size_t i = 0; i < plan->args.n_sources; i++) jw_text(w, plan->args.sources[i]->id);
  jw_close(w, ']');
  write_prompt(w, plan, result);
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

static int lab_graph_finish(struct api_call *call, struct error *error) {
  const struct lab_graph_result *result = lab_graph_result(call->job);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  write_metadata(call, &w, call->plan, result);
  write_choices(&w);
  write_nodes(&w, result);
  write_links(&w, result);
  jw_close(&w, '}');
  if (!call->body.failed) return 0;
  return error_set_field(error, ERROR_LIMIT, "nodeThreshold", "%zu nodes with %zu edges are a larger reply than this server gives; lower "
                         "'nodeThreshold' or 'edgeThreshold'", result->n_nodes, result->n_links);
}

/* ---- in ----------------------------------------------------------------------------------------------- */

static int read_named(struct api_call *call, struct graph_plan *plan, struct error *error) {
  size_t n = values_count(call->values, "sources");
  const struct lab_source_info **sources = arena_array(&call->arena, n, sizeof *sources, error);
  const char **fields = arena_array(&call->arena, n, sizeof *fields, error);
  if (!sources || !fields) return -1;
  for (size_t i = 0; i < n; i++) {
    const char *id = values_text_at(call->values, "sources", i, NULL);
    if (!(fields[i] = arena_printf(&call->arena, error, "sources[%zu]", i)) ||
        !(sources[i] = lab_find_source(call->api->lab, plan->args.model, id, fields[i], error)))
      return -1;
  }
  plan->args.sources = sources;
  plan->args.fields = fields;
  plan->args.n_sources = n;
  return 0;
}

static int read_set(struct api_call *call, struct graph_plan *plan, struct error *error) {
  const struct lab_source_info **sources;
  plan->set = values_text(call->values, "sourceSet", NULL);
  if (call_source_set(call, plan->args.model, plan->set, "sourceSet", &sources, &plan->args.n_sources, error) != 0) return -1;
  const char **fields = arena_array(&call->arena, plan->args.n_sources, sizeof *fields, error);
  for (size_t i = 0; fields && i < plan->args.n_sources; i++) fields[i] = "sourceSet";
  plan->args.sources = sources;
  plan->args.fields = fields;
  return fields ? 0 : -1;
}

static int read_sources(struct api_call *call, struct graph_plan *plan, struct error *error) {
  bool set = values_has(call->values, "sourceSet"), named = values_count(call->values, "sources") > 0;
  if (set && named)
    return error_set_field(error, ERROR_ARGUMENT, "sources", "'sources' and 'sourceSet' exclude each other: give one of them");
  if (!set && !named)
    return error_set_field(error, ERROR_ARGUMENT, "sourceSet", "the transcoders are missing: give 'sourceSet' (GET /v1/sources tells the sets) or "
                           "'sources'");
  return set ? read_set(call, plan, error) : read_named(call, plan, error);
}

int lab_graph_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct graph_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan) return -1;
  struct lab_graph_args *args = &plan->args;
  args->model = call_model(call, values, "modelId", error);
  args->bos = lab_read_bos(values);
  args->max_logits = (int)values_int(values, "maxLogits");
  args->logit_probability = values_number(values, "logitProbability");
  args->max_features = values_int(values, "maxFeatures");
  args->node_threshold = values_number(values, "nodeThreshold");
  args->edge_threshold = values_number(values, "edgeThreshold");
  plan->prompt = values_text(values, "text", &plan->length);
  if (!args->model || read_input(call, values, "text", "tokens", "", &args->input, error) != 0 || read_sources(call, plan, error) != 0)
    return -1;
  call->plan = plan;
  call->finish = lab_graph_finish;
  return lab_graph(call->api->lab, args, call->waker, &call->job, error);
}
