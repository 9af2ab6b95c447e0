/* graph_upload.c: graphs that were made elsewhere, in Neuronpedia's three steps: POST /api/graph/signed-put gives an address, PUT there brings the
 * file (with no key: the address is one), POST /api/graph/save-to-db checks it and keeps it like a graph that was made here. */
#include <string.h>

#include "api/graph.h"
#include "api/graph_check.h"
#include "api/handlers.h"
#include "api/reply.h"
#include "core/base/gunzip.h"

const struct field graph_place_fields[] = {
    {"filename", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 256, .text = "Of the file: it ends in '.json'. Nothing is called so."},
    {"contentLength", NULL, FIELD_INT, .required = true, .min = 1, .max = 1 << 30, .text = "Bytes that will be put, compressed or not; at most max_batch_body."},
    {"contentType", NULL, FIELD_TEXT, .max = 128, .text = "Not looked at: it is JSON, as it is or compressed with gzip."},
    {.name = NULL}};

const struct field graph_save_fields[] = {
    {"putRequestId", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 64, .text = "As POST /api/graph/signed-put gave it."},
    {.name = NULL}};

static bool ends_in(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

int graph_place_post(struct api_call *call, struct error *error) {
  const char *file = values_text(call->values, "filename", NULL);
  int64_t bytes = values_int(call->values, "contentLength");
  size_t most = preview_body_most(call->api, &(struct route){.flags = ROUTE_BATCH});
  char name[SECRET_NAME];
  struct json_writer w;
  if (call_may_add(call, error) != 0) return -1;
  if (!ends_in(file, ".json")) return error_set_field(error, ERROR_ARGUMENT, "filename", "filename is '%.128s', and must end in '.json'", file);
  if ((uint64_t)bytes > most)
    return error_set_field(error, ERROR_LIMIT, "contentLength", "contentLength is %lld, and at most %zu bytes are read (setting 'max_batch_body'); compressed "
                           "with gzip a graph has a tenth of its bytes", (long long)bytes, most);
  const char *base = call_base(call, error);
  if (!base || graph_uploads_new(&call->api->uploads, (size_t)bytes, name, error) != 0) return -1;
  const char *url = arena_printf(&call->arena, error, "%s/v1/graph-uploads/%s", base, name);
  if (!url) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "url", url);
  jw_member_text(&w, "key", file);
  jw_member_text(&w, "putRequestId", name);
  jw_close(&w, '}');
  return 0;
}

int graph_upload_put(struct api_call *call, struct error *error) {
  const char *name = call_part(call, "upload", error);
  struct json_writer w;
  if (!name || call_may_add(call, error) != 0) return -1;
  if (graph_uploads_put(&call->api->uploads, name, call->request->body, call->request->body_length, error) != 0) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "putRequestId", name);
  jw_close(&w, '}');
  return 0;
}

/* What was put, unpacked. */
static int read_text(struct api_call *call, const char *name, struct buffer *out, struct error *error) {
  struct buffer sent;
  buffer_init(&sent, 0);
  int result = graph_uploads_read(&call->api->uploads, name, &sent, error);
  if (result == 0 && gunzip_is(sent.data, sent.length)) {
    result = gunzip(sent.data, sent.length, out, error);
    buffer_clear(&sent);
  } else if (result == 0) {
    buffer_clear(out);
    *out = sent;
    return 0;
  }
  buffer_clear(&sent);
  return result;
}

/* Uploaded twice, the same graph is kept once; another one of that name is refused. */
static int check_old(struct api_call *call, const struct store_graph *graph, struct error *error) {
  struct store_graph old;
  int found = store_graph_find(lab_store(call->api->lab), graph->model, graph->slug, true, &call->arena, &old, error);
  if (found <= 0) return found;
  bool same = old.length == graph->length && memcmp(old.json, graph->json, graph->length) == 0;
  return same ? 1 : graph_refuse_taken("putRequestId", graph->slug, error);
}

static int keep(struct api_call *call, const struct buffer *text, struct store_graph *out, struct error *error) {
  struct graph_facts facts;
  if (graph_check(text->data, text->length, &call->arena, &facts, error) != 0) return -1;
  const struct lab_model_info *model = call_known_model(call, facts.model, "metadata.scan", error);
  if (!model) return -1;
  *out = (struct store_graph){.model = model->id, .slug = facts.slug, .prompt = facts.prompt, .tokens = facts.tokens, .source_set = facts.source_set,
                              .n_nodes = facts.n_nodes, .n_links = facts.n_links, .json = text->data, .length = text->length};
  int old = check_old(call, out, error);
  if (old) return old < 0 ? -1 : 0;
  int done = store_graph_new(lab_store(call->api->lab), out, NULL, error);
  return done == 1 ? 0 : done < 0 ? -1 : graph_refuse_taken("putRequestId", out->slug, error);
}

static int save(struct api_call *call, const char *name, struct error *error) {
  struct store_graph graph;
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, STORE_GRAPH_BYTES);
  int result = read_text(call, name, &text, error);
  if (result == 0) result = keep(call, &text, &graph, error);
  buffer_clear(&text);
  if (error->code == ERROR_FORMAT) error->code = ERROR_ARGUMENT; /* the client's file, not one of ours */
  const char *url = result == 0 ? graph_page_url(call, &graph, error) : NULL;
  if (!url) return -1;
  graph_uploads_end(&call->api->uploads, name);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", "Graph saved to database");
  jw_member_text(&w, "url", url);
  jw_close(&w, '}');
  return 0;
}

int graph_save_post(struct api_call *call, struct error *error) {
  struct graph_uploads *uploads = &call->api->uploads;
  if (call_may_add(call, error) != 0) return -1;
  if (atomic_flag_test_and_set(&uploads->reading)) return error_set(error, ERROR_BUSY, "another graph is being read; try again after the seconds in Retry-After");
  int result = save(call, values_text(call->values, "putRequestId", NULL), error);
  atomic_flag_clear(&uploads->reading);
  return result;
}
