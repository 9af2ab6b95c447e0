/* graph_subgraphs.c: what is pinned and grouped in a kept graph: POST /api/graph/subgraph/{save, list, delete}, as Neuronpedia's viewer asks for
 * it. Everybody who may use the server owns all of them. */
#include <inttypes.h>
#include <string.h>

#include "api/graph.h"
#include "api/graph_check.h"
#include "api/handlers.h"
#include "api/reply.h"
#include "core/base/json.h"

enum { IDS_MOST = 10000, GROUPS_MOST = 2000, GROUP_MOST = 5000, ID_CHARACTERS = 256, CHOICES_DEPTH = 4 };

#define GRAPH_ROWS \
  MODEL_ROW, {"slug", NULL, FIELD_TEXT, .required = true, .min = 1, .max = GRAPH_SLUG_MOST, .text = "The graph's name."}

const struct field subgraph_save_fields[] = {
    GRAPH_ROWS,
    {"displayName", NULL, FIELD_TEXT, .max = 256, .text = "What it is called."},
    {"pinnedIds", NULL, FIELD_TEXTS, .required = true, .none = true, .most = IDS_MOST, .max = ID_CHARACTERS, .text = "Nodes that are pinned, by node_id."},
    {"supernodes", NULL, FIELD_GROUPS, .required = true, .max = GROUPS_MOST, .most = GROUP_MOST, .text = "Groups of nodes: a label and the node_ids."},
    {"clerps", NULL, FIELD_GROUPS, .required = true, .max = IDS_MOST, .most = 16, .text = "Nodes that are called otherwise: a name of the node and a label."},
    {"pruningThreshold", NULL, FIELD_NUMBER, .max = 1, .text = "The share of influence at which the viewer stood."},
    {"densityThreshold", NULL, FIELD_NUMBER, .max = 1, .text = "The density at which it stood."},
    {"overwriteId", NULL, FIELD_INDEX, .min = 1, .max = 9007199254740991.0, .text = "A subgraph of this graph whose place this one takes; its name stays."},
    {.name = NULL}};

const struct field subgraph_list_fields[] = {GRAPH_ROWS, {.name = NULL}};

const struct field subgraph_delete_fields[] = {
    {"subgraphId", NULL, FIELD_INDEX, .required = true, .min = 1, .max = 9007199254740991.0, .text = "The subgraph's number."}, {.name = NULL}};

/* ---- in ---- */

static void write_texts(struct json_writer *w, const struct values *values, const char *name) {
  jw_key(w, name);
  jw_open(w, '[');
  for (size_t i = 0; i < values_count(values, name); i++) jw_text(w, values_text_at(values, name, i, NULL));
  jw_close(w, ']');
}

static void write_groups(struct json_writer *w, const struct values *values, const char *name) {
  jw_key(w, name);
  jw_open(w, '[');
  for (size_t i = 0; i < values_count(values, name); i++) {
    jw_open(w, '[');
    for (size_t j = 0; j < values_row_count(values, name, i); j++) jw_text(w, values_group_at(values, name, i, j));
    jw_close(w, ']');
  }
  jw_close(w, ']');
}

static void write_threshold(struct json_writer *w, const struct values *values, const char *name) {
  if (values_has(values, name))
    jw_member_f64(w, name, values_number(values, name));
  else
    jw_member_null(w, name);
}

/* What is kept: the members that a reply has, and nothing that the client sent besides. */
static const char *choices_of(struct api_call *call, struct error *error) {
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '{');
  write_texts(&w, call->values, "pinnedIds");
  write_groups(&w, call->values, "supernodes");
  write_groups(&w, call->values, "clerps");
  write_threshold(&w, call->values, "pruningThreshold");
  write_threshold(&w, call->values, "densityThreshold");
  jw_close(&w, '}');
  const char *out = buffer_check(&text, error) == 0 ? arena_text(&call->arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  return out;
}

/* The graph that modelId and slug name. */
static int find_graph(struct api_call *call, struct store_graph *out, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  const char *slug = values_text(call->values, "slug", NULL);
  if (!store) return lab_needs_store(error);
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "modelId", NULL), "modelId", error);
  if (!model) return -1;
  int found = store_graph_find(store, model->id, slug, false, &call->arena, out, error);
  return found == 1 ? 0 : found < 0 ? -1 : graph_refuse_missing(model->id, slug, error);
}

static int refuse_missing(const char *field, int64_t id, struct error *error) {
  return error_set_field(error, ERROR_NOT_FOUND, field, "there is no subgraph %" PRId64 " (of this graph); POST /api/graph/subgraph/list has those there are", id);
}

static int keep(struct api_call *call, const struct store_subgraph *subgraph, int64_t *id, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  if (!subgraph->id) return store_subgraph_new(store, subgraph, id, error);
  *id = subgraph->id;
  int done = store_subgraph_update(store, subgraph, error);
  return done == 1 ? 0 : done < 0 ? -1 : refuse_missing("overwriteId", subgraph->id, error);
}

int subgraph_save_post(struct api_call *call, struct error *error) {
  struct store_graph graph;
  struct json_writer w;
  int64_t id = 0;
  if (call_may_add(call, error) != 0 || find_graph(call, &graph, error) != 0) return -1;
  struct store_subgraph subgraph = {.id = values_int(call->values, "overwriteId"), .graph = graph.id, .name = values_text(call->values, "displayName", NULL),
                                    .choices = choices_of(call, error)};
  if (!subgraph.choices || keep(call, &subgraph, &id, error) != 0) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_bool(&w, "success", true);
  reply_digits(&w, "subgraphId", id);
  jw_close(&w, '}');
  return 0;
}

/* ---- out ---- */

static int write_subgraph(struct json_writer *w, const struct store_subgraph *subgraph, struct error *error) {
  struct json_node *choices = json_parse(subgraph->choices, strlen(subgraph->choices), CHOICES_DEPTH, error);
  void *iterator = NULL;
  const char *key;
  const struct json_node *value;
  if (!choices) return -1;
  jw_open(w, '{');
  reply_digits(w, "id", subgraph->id);
  jw_member_text(w, "displayName", subgraph->name);
  reply_digits(w, "graphMetadataId", subgraph->graph);
  while (json_next(choices, &iterator, &key, &value)) {
    jw_key(w, key);
    jw_node(w, value);
  }
  jw_member_null(w, "userId");
  jw_member_bool(w, "isFeaturedSolution", false);
  jw_member_text(w, "createdAt", subgraph->created_at);
  jw_member_text(w, "updatedAt", subgraph->updated_at);
  jw_close(w, '}');
  json_free(choices);
  return 0;
}

int subgraph_list_post(struct api_call *call, struct error *error) {
  struct store_graph graph;
  struct store_subgraph *all;
  struct json_writer w;
  size_t n;
  if (find_graph(call, &graph, error) != 0 || store_subgraphs_of(lab_store(call->api->lab), graph.id, &call->arena, &all, &n, error) != 0) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_bool(&w, "success", true);
  jw_key(&w, "subgraphs");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++)
    if (write_subgraph(&w, &all[i], error) != 0) return -1;
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int subgraph_delete_post(struct api_call *call, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  int64_t id = values_int(call->values, "subgraphId");
  struct json_writer w;
  if (!store) return lab_needs_store(error);
  int done = store_subgraph_delete(store, id, error);
  if (done <= 0) return done < 0 ? -1 : refuse_missing("subgraphId", id, error);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_bool(&w, "success", true);
  jw_member_text(&w, "message", "Subgraph deleted successfully");
  jw_close(&w, '}');
  return 0;
}
