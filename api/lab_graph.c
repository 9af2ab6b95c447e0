/* lab_graph.c: POST /v1/lab/graph: an attribution graph as the reply; and how requests for graphs are read. */
#include <string.h>

#include "api/graph.h"
#include "api/handlers.h"
#include "api/lab_common.h"

const struct field lab_graph_fields[] = {
    MODEL_ROW,
    {"text", "prompt", FIELD_TEXT, .min = 1, .cap = CAP_PROMPT, .text = "The text, whose next token is explained; or give tokens."},
    {"tokens", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Token ids in place of a text."},
    PREPEND_BOS_ROW,
    {"sourceSet", "sourceSetName", FIELD_TEXT, .min = 1, .max = 128, .text = "A set of transcoders, one for the MLP of each layer. Left out: the model's only one."},
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

static const struct graph_names names = {"text", "tokens", "sourceSet", "sources", "maxLogits", "logitProbability", "maxFeatures"};

/* ---- transcoders ---- */

static int read_named(struct api_call *call, struct graph_plan *plan, const char *name, struct error *error) {
  size_t n = values_count(call->values, name);
  const struct lab_source_info **sources = arena_array(&call->arena, n, sizeof *sources, error);
  const char **fields = arena_array(&call->arena, n, sizeof *fields, error);
  if (!sources || !fields) return -1;
  for (size_t i = 0; i < n; i++) {
    const char *id = values_text_at(call->values, name, i, NULL);
    if (!(fields[i] = arena_printf(&call->arena, error, "%s[%zu]", name, i)) ||
        !(sources[i] = lab_find_source(call->api->lab, plan->args.model, id, fields[i], error)))
      return -1;
  }
  plan->args.sources = sources;
  plan->args.fields = fields;
  plan->args.n_sources = n;
  return 0;
}

static int read_set(struct api_call *call, struct graph_plan *plan, const char *name, struct error *error) {
  const struct lab_source_info **sources;
  if (call_source_set(call, plan->args.model, plan->set, name, &sources, &plan->args.n_sources, error) != 0) return -1;
  const char **fields = arena_array(&call->arena, plan->args.n_sources, sizeof *fields, error);
  for (size_t i = 0; fields && i < plan->args.n_sources; i++) fields[i] = name;
  plan->args.sources = sources;
  plan->args.fields = fields;
  return fields ? 0 : -1;
}

/* The model's set of transcoders where it has one; else NULL with how many there are. */
static const char *only_set(struct api_call *call, const struct lab_model_info *model, size_t *n_sets) {
  const struct lab_source_info *const *sources;
  const char *set = NULL;
  size_t n = lab_sources(call->api->lab, model, &sources);
  *n_sets = 0;
  for (size_t i = 0; i < n; i++) {
    bool transcoder = strcmp(sources[i]->point, sources[i]->point_out) != 0;
    if (!transcoder || (set && strcmp(set, sources[i]->set) == 0)) continue;
    set = sources[i]->set;
    ++*n_sets;
  }
  return *n_sets == 1 ? set : NULL;
}

/* The set that a field names, or the model's only one. sources: what else may say it; or NULL. */
static const char *pick_set(struct api_call *call, const struct lab_model_info *model, const char *field, const char *sources, struct error *error) {
  size_t n_sets = 0;
  const char *set = values_has(call->values, field) ? values_text(call->values, field, NULL) : only_set(call, model, &n_sets);
  if (set) return set;
  if (n_sets)
    (void)error_set_field(error, ERROR_ARGUMENT, field, "model '%.64s' has %zu sets with transcoders: name one as '%s'%s%s%s", model->id, n_sets, field,
                          sources ? ", or transcoders as '" : "", sources ? sources : "", sources ? "'" : "");
  else
    (void)error_set_field(error, ERROR_ARGUMENT, field, "model '%.64s' has no set of transcoders, which stand for its MLPs in a graph: load some (docs/dictionaries.md), or train "
                          "them (steerd train), and name their set as '%s'", model->id, field);
  return NULL;
}

int graph_transcoders(struct api_call *call, const struct lab_model_info *model, const char *field, const struct lab_source_info ***out, size_t *n,
                      struct error *error) {
  const char *set = pick_set(call, model, field, NULL, error);
  return set ? call_source_set(call, model, set, field, out, n, error) : -1;
}

static int read_sources(struct api_call *call, struct graph_plan *plan, const struct graph_names *fields, struct error *error) {
  bool set = values_has(call->values, fields->set), named = fields->sources && values_count(call->values, fields->sources) > 0;
  if (set && named)
    return error_set_field(error, ERROR_ARGUMENT, fields->sources, "'%s' and '%s' exclude each other: give one of them", fields->sources, fields->set);
  if (named) return read_named(call, plan, fields->sources, error);
  plan->set = pick_set(call, plan->args.model, fields->set, fields->sources, error);
  return plan->set ? read_set(call, plan, fields->set, error) : -1;
}

/* ---- requests ---- */

int graph_start(struct api_call *call, const struct graph_names *fields, const char *slug,
                int (*finish)(struct api_call *call, struct error *error), struct error *error) {
  const struct values *values = call->values;
  struct graph_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan) return -1;
  struct lab_graph_args *args = &plan->args;
  args->model = call_model(call, values, "modelId", error);
  args->max_logits = (int)values_int(values, fields->logits);
  args->logit_probability = values_number(values, fields->probability);
  args->max_features = values_int(values, fields->features);
  args->node_threshold = values_number(values, "nodeThreshold");
  args->edge_threshold = values_number(values, "edgeThreshold");
  args->bos = fields->tokens ? lab_read_bos(values) : LAB_BOS_DEFAULT;
  plan->slug = slug ? slug : values_text(values, "slug", NULL);
  plan->prompt = values_text(values, fields->text, &plan->length);
  args->input = (struct lab_input){.text = plan->prompt, .length = plan->length};
  if (!args->model || (fields->tokens && read_input(call, values, fields->text, fields->tokens, "", &args->input, error) != 0) ||
      read_sources(call, plan, fields, error) != 0)
    return -1;
  call->plan = plan;
  call->finish = finish;
  return lab_graph(call->api->lab, args, call->waker, &call->job, error);
}

static int lab_graph_finish(struct api_call *call, struct error *error) {
  return graph_write(call, lab_graph_result(call->job), &call->body, error);
}

int lab_graph_post(struct api_call *call, struct error *error) { return graph_start(call, &names, NULL, lab_graph_finish, error); }
