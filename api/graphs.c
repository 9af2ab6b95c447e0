/* graphs.c: attribution graphs that are kept: POST /api/graph/{generate, list-owned, delete}, GET /api/graph/{model}/{slug}, and the graph itself,
 * GET /v1/graphs/{model}/{slug}. Everybody who may use the server owns all of them, as with vectors. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/graph.h"
#include "api/handlers.h"
#include "api/reply.h"
#include "core/base/json.h"

enum { SLUG_MOST = 128, SLUG_WORDS = 48 };

const struct field graph_generate_fields[] = {
    MODEL_ROW,
    {"prompt", "text", FIELD_TEXT, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "The text, whose next token is explained."},
    {"sourceSetName", "sourceSet", FIELD_TEXT, .min = 1, .max = 128, .text = "A set of transcoders. Left out: the model's only one."},
    {"slug", NULL, FIELD_TEXT, .min = 1, .max = SLUG_MOST,
     .text = "The graph's name, which the model must not have yet: lower case letters, digits, '-' and '_'. Left out: made of the prompt."},
    {"maxNLogits", "maxLogits", FIELD_INT, .fallback = "10", .min = 1, .max = GRAPH_MOST_LOGITS, .text = "Next tokens at most."},
    {"desiredLogitProb", "logitProbability", FIELD_NUMBER, .fallback = "0.95", .max = 1,
     .text = "The likeliest next tokens until they have this probability together."},
    {"maxFeatureNodes", "maxFeatures", FIELD_INT, .fallback = "5000", .min = 1, .max = GRAPH_MOST_FEATURES,
     .text = "Whose inputs are computed: the most influential ones, where more fire."},
    {"nodeThreshold", NULL, FIELD_NUMBER, .fallback = "0.8", .max = 1, .text = "Nodes are kept until they have this share of all influence."},
    {"edgeThreshold", NULL, FIELD_NUMBER, .fallback = "0.85", .max = 1, .text = "And edges between them until they have this share of theirs."},
    {.name = NULL}};

const struct field graph_delete_fields[] = {
    MODEL_ROW,
    {"slug", NULL, FIELD_TEXT, .required = true, .min = 1, .max = SLUG_MOST, .text = "The graph's name."},
    {.name = NULL}};

static const struct graph_names names = {"prompt", NULL, "sourceSetName", NULL, "maxNLogits", "desiredLogitProb", "maxFeatureNodes"};

/* ---- rows ---- */

static const char *file_url(struct api_call *call, const struct store_graph *graph, struct error *error) {
  const char *base = call_base(call, error);
  return base ? arena_printf(&call->arena, error, "%s/v1/graphs/%s/%s", base, graph->model, graph->slug) : NULL;
}

const char *graph_page_url(struct api_call *call, const struct store_graph *graph, struct error *error) {
  const char *base = call_base(call, error);
  return base ? arena_printf(&call->arena, error, "%s/graph?model=%s&slug=%s", base, graph->model, graph->slug) : NULL;
}

static int write_row(struct api_call *call, struct json_writer *w, const struct store_graph *graph, struct error *error) {
  const char *file = file_url(call, graph, error), *page = graph_page_url(call, graph, error);
  struct json_node *tokens = file && page ? json_parse(graph->tokens, strlen(graph->tokens), 2, error) : NULL;
  if (!tokens) return -1;
  jw_open(w, '{');
  reply_digits(w, "id", graph->id);
  jw_member_text(w, "modelId", graph->model);
  jw_member_text(w, "slug", graph->slug);
  jw_key(w, "promptTokens");
  jw_node(w, tokens);
  jw_member_text(w, "prompt", graph->prompt);
  jw_member_text(w, "titlePrefix", "");
  jw_member_text(w, "sourceSetName", graph->source_set);
  jw_member_text(w, "url", file);
  jw_member_text(w, "pageUrl", page);
  jw_member_int(w, "numNodes", graph->n_nodes);
  jw_member_int(w, "numLinks", graph->n_links);
  jw_member_null(w, "userId");
  jw_member_bool(w, "isFeatured", false);
  jw_member_text(w, "createdAt", graph->created_at);
  jw_member_text(w, "updatedAt", graph->created_at);
  jw_close(w, '}');
  json_free(tokens);
  return 0;
}

int graph_refuse_missing(const char *model, const char *slug, struct error *error) {
  return error_set_field(error, ERROR_NOT_FOUND, "slug", "model '%.64s' has no graph '%.128s'; POST /api/graph/list-owned has those there are",
                         model, slug);
}

/* ---- making ---- */

static bool slug_character(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; }

static int check_slug(const char *slug, struct error *error) {
  for (const char *c = slug; *c; c++)
    if (!slug_character(*c))
      return error_set_field(error, ERROR_ARGUMENT, "slug", "slug is '%.128s', allowed are lower case letters, digits, '-' and '_'", slug);
  return 0;
}

/* Words of the prompt, and the time. */
static const char *make_slug(struct api_call *call, const char *prompt, struct error *error) {
  char words[SLUG_WORDS + 1] = "";
  size_t n = 0;
  for (const char *c = prompt; *c && n < SLUG_WORDS; c++) {
    char small = (char)tolower((unsigned char)*c);
    if (slug_character(small))
      words[n++] = small;
    else if (n && words[n - 1] != '-')
      words[n++] = '-';
  }
  if (n && words[n - 1] == '-') n--;
  words[n] = 0;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return arena_printf(&call->arena, error, "%s%s%" PRId64, words, n ? "-" : "", (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

int graph_refuse_taken(const char *field, const char *slug, struct error *error) {
  return error_set_field(error, ERROR_CONFLICT, field, "Model + Slug/ID Exists: there is a graph '%.128s' already; give another slug, or delete it "
                         "(POST /api/graph/delete)", slug);
}

static const char *tokens_json(struct api_call *call, const struct lab_graph_result *result, struct error *error) {
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '[');
  for (size_t i = 0; i < result->n_tokens; i++) jw_text(&w, result->tokens[i]);
  jw_close(&w, ']');
  const char *out = text.failed ? NULL : arena_text(&call->arena, text.data, text.length, error);
  if (text.failed) (void)error_memory(error, text.length);
  buffer_clear(&text);
  return out;
}

static int keep(struct api_call *call, const struct lab_graph_result *result, const struct buffer *json, struct store_graph *out,
                struct error *error) {
  const struct graph_plan *plan = call->plan;
  *out = (struct store_graph){.model = plan->args.model->id, .slug = plan->slug, .prompt = graph_prompt(call, result, error),
                              .tokens = tokens_json(call, result, error), .source_set = plan->set, .n_nodes = (int64_t)result->n_nodes,
                              .n_links = (int64_t)result->n_links, .json = json->data, .length = json->length};
  if (!out->prompt || !out->tokens) return -1;
  int done = store_graph_new(lab_store(call->api->lab), out, NULL, error);
  return done == 1 ? 0 : done < 0 ? -1 : graph_refuse_taken("slug", plan->slug, error);
}

static int graph_generate_finish(struct api_call *call, struct error *error) {
  const struct lab_graph_result *result = lab_graph_result(call->job);
  struct store_graph graph;
  struct buffer json;
  struct json_writer w;
  buffer_init(&json, STORE_GRAPH_BYTES);
  int failed = graph_write(call, result, &json, error) != 0 || keep(call, result, &json, &graph, error) != 0;
  buffer_clear(&json);
  const char *file = failed ? NULL : file_url(call, &graph, error), *page = file ? graph_page_url(call, &graph, error) : NULL;
  if (!page) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", "Graph saved to database");
  jw_member_text(&w, "s3url", file);
  jw_member_text(&w, "url", page);
  jw_member_text(&w, "slug", graph.slug);
  jw_member_int(&w, "numNodes", (int64_t)result->n_nodes);
  jw_member_int(&w, "numLinks", (int64_t)result->n_links);
  jw_close(&w, '}');
  return 0;
}

int graph_generate_post(struct api_call *call, struct error *error) {
  const char *slug = values_text(call->values, "slug", NULL);
  struct store *store = lab_store(call->api->lab);
  struct store_graph old;
  if (call_may_add(call, error) != 0) return -1;
  const struct lab_model_info *model = call_model(call, call->values, "modelId", error);
  if (!model || (slug && check_slug(slug, error) != 0)) return -1;
  if (!slug && !(slug = make_slug(call, values_text(call->values, "prompt", NULL), error))) return -1;
  int found = store_graph_find(store, model->id, slug, false, &call->arena, &old, error);
  if (found) return found < 0 ? -1 : graph_refuse_taken("slug", slug, error);
  return graph_start(call, &names, slug, graph_generate_finish, error);
}

/* ---- reading ---- */

/* The graph that the path names. */
static int find_path(struct api_call *call, bool json, struct store_graph *out, struct error *error) {
  const char *name = call_part(call, "model", error), *slug = name ? call_part(call, "slug", error) : NULL;
  struct store *store = lab_store(call->api->lab);
  if (!slug) return -1;
  if (!store) return lab_needs_store(error);
  const struct lab_model_info *model = call_known_model(call, name, "modelId", error);
  if (!model) return -1;
  int found = store_graph_find(store, model->id, slug, json, &call->arena, out, error);
  return found == 1 ? 0 : found < 0 ? -1 : graph_refuse_missing(model->id, slug, error);
}

int graph_get(struct api_call *call, struct error *error) {
  struct store_graph graph;
  struct json_writer w;
  if (find_path(call, false, &graph, error) != 0) return -1;
  jw_init(&w, &call->body);
  return write_row(call, &w, &graph, error);
}

int graph_file_get(struct api_call *call, struct error *error) {
  struct store_graph graph;
  if (find_path(call, true, &graph, error) != 0) return -1;
  buffer_append(&call->body, graph.json, graph.length);
  return 0;
}

int graph_list_post(struct api_call *call, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  struct store_graph *all = NULL;
  struct json_writer w;
  size_t n = 0;
  if (store && store_graph_all(store, &call->arena, &all, &n, error) != 0) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++)
    if (write_row(call, &w, &all[i], error) != 0) return -1;
  jw_close(&w, ']');
  return 0;
}

int graph_delete_post(struct api_call *call, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  const char *slug = values_text(call->values, "slug", NULL);
  struct json_writer w;
  if (!store) return lab_needs_store(error);
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "modelId", NULL), "modelId", error);
  if (!model) return -1;
  int done = store_graph_delete(store, model->id, slug, error);
  if (done <= 0) return done < 0 ? -1 : graph_refuse_missing(model->id, slug, error);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", "Graph deleted successfully");
  jw_close(&w, '}');
  return 0;
}
