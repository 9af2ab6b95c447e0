/* preview.c: what the head of a request alone decides. Its replies are made once, when the api is: turning a
 * request away must cost less than serving it. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/reply.h"

const char *request_header(const struct api_request *request, const char *name) {
  for (size_t i = 0; i < request->n_headers; i++)
    if (strcasecmp(request->headers[i].name, name) == 0) return request->headers[i].value;
  return NULL;
}

const char *call_base(struct api_call *call, struct error *error) {
  const char *base = call->api->options.base_url, *host = request_header(call->request, "Host");
  if (base || !host) return base ? base : "";
  call->personal = true;
  return arena_printf(&call->arena, error, "http://%s", host);
}

/* The type, with parameters or without. */
static bool is_type(const char *value, const char *name) {
  size_t length = strlen(name);
  if (!value || strncasecmp(value, name, length) != 0) return false;
  return strchr("; \t", value[length]) != NULL; /* the end counts: strchr finds the NUL too */
}

/* A page can send a form to any address, but JSON or plain bytes only after asking (a preflight). Only browsers send these
 * two headers, so a plain `curl -d` needs no content type. */
bool preview_wrong_kind(const struct api_request *head, const struct route *row) {
  if (strcmp(row->method, "GET") == 0) return false;
  if (!request_header(head, "Origin") && !request_header(head, "Sec-Fetch-Site")) return false;
  return !is_type(request_header(head, "Content-Type"), row->flags & ROUTE_FILE ? "application/octet-stream" : "application/json");
}

bool preview_packed(const struct api_request *head, const struct route *row) {
  const char *coding = request_header(head, "Content-Encoding");
  return coding && strcasecmp(coding, "identity") != 0 && !(row->flags & ROUTE_PACKED);
}

/* ---- canned replies ----------------------------------------------------------------------------------- */

static size_t most_of_batch(const struct api_options *options) {
  return options->max_batch_body > options->max_body ? options->max_batch_body : options->max_body;
}

size_t preview_body_most(const struct api *api, const struct route *row) {
  return row && row->flags & ROUTE_BATCH ? most_of_batch(&api->options) : api->options.max_body;
}

static int can(struct api *api, struct canned *canned, enum route_family family, struct reply_error what,
               struct error *error) {
  struct buffer body;
  buffer_init(&body, 0);
  reply_error_body(&body, family, &what);
  char *text = NULL;
  if (buffer_check(&body, error) == 0) text = arena_text(&api->arena, body.data, body.length, error);
  canned->reply = (struct api_reply){.status = what.status, .content_type = "application/json",
                                     .body = text, .body_length = body.length};
  buffer_clear(&body);
  return text ? 0 : -1;
}

static int can_allow(struct api *api, size_t i, struct error *error) {
  struct canned *canned = &api->wrong_method[i];
  char allow[64];
  route_allow(&routes[i], allow, sizeof allow);
  snprintf(canned->text, sizeof canned->text, "this path answers only %s", allow);
  if (can(api, canned, routes[i].family, (struct reply_error){405, "method", "", canned->text}, error) != 0) return -1;
  canned->header = (struct api_pair){"Allow", arena_text(&api->arena, allow, strlen(allow), error)};
  canned->reply.headers = &canned->header;
  canned->reply.n_headers = 1;
  return canned->header.value ? 0 : -1;
}

static int can_shapes(struct api *api, enum route_family family, int shape, struct error *error) {
  const struct {
    struct canned *canned;
    struct reply_error what;
  } all[] = {
      {&api->missing[shape], {404, "not_found", "", shape ? TEXT_MISSING_OPENAI : TEXT_MISSING}},
      {&api->large[shape], {413, "too_large", "", api->too_large}},
      {&api->kind[shape], {415, "content_type", "", TEXT_KIND}},
      {&api->packed[shape], {415, "header", "", TEXT_PACKED}},
      {&api->busy[shape], {503, "busy", "", TEXT_BUSY}},
      {&api->closing[shape], {503, "busy", "", TEXT_CLOSING}},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    if (can(api, all[i].canned, family, all[i].what, error) != 0) return -1;
  return 0;
}

int preview_prepare(struct api *api, struct error *error) {
  api->too_large = arena_printf(&api->arena, error, "the body is larger than %zu bytes, the most this server reads here "
                                "(setting 'max_body')", api->options.max_body);
  api->too_large_batch = arena_printf(&api->arena, error, "the body is larger than %zu bytes, the most this server reads of a batch "
                                      "(setting 'max_batch_body')", most_of_batch(&api->options));
  if (!api->too_large || !api->too_large_batch) return -1;
  const struct reply_error batch = {413, "too_large", "", api->too_large_batch};
  const struct reply_error file = {415, "content_type", "", TEXT_KIND_FILE};
  if (can(api, &api->large_batch, FAMILY_SHORT, batch, error) != 0 || can(api, &api->kind_file, FAMILY_SHORT, file, error) != 0) return -1;
  if (can_shapes(api, FAMILY_SHORT, 0, error) != 0 || can_shapes(api, FAMILY_OPENAI, 1, error) != 0) return -1;
  api->wrong_method = arena_array(&api->arena, n_routes, sizeof *api->wrong_method, error);
  if (!api->wrong_method) return -1;
  for (size_t i = 0; i < n_routes; i++)
    if (can_allow(api, i, error) != 0) return -1;
  for (int seconds = 0; seconds <= API_RETRY_MOST; seconds++) {
    api->retry[seconds] = (struct api_pair){"Retry-After", arena_printf(&api->arena, error, "%d", seconds)};
    if (!api->retry[seconds].value) return -1;
  }
  return 0;
}

/* ---- the decision ------------------------------------------------------------------------------------- */

static int turn_away(struct api *api, const struct canned *canned, const struct lab_stats *stats,
                     struct api_reply *reply) {
  *reply = canned->reply;
  if (stats) {
    reply->headers = &api->retry[reply_retry_seconds(stats)];
    reply->n_headers = 1;
  }
  return 1;
}

int api_preview(struct api *api, const struct api_request *head, uint64_t content_length, struct api_reply *reply) {
  int shape = route_family_of(head->path) == FAMILY_OPENAI;
  const struct route *allowed, *row = route_find(head->method, head->path, &allowed);
  if (content_length != UINT64_MAX && content_length > preview_body_most(api, row))
    return turn_away(api, row && row->flags & ROUTE_BATCH ? &api->large_batch : &api->large[shape], NULL, reply);
  if (!row && !allowed) return turn_away(api, &api->missing[shape], NULL, reply);
  if (!row) return turn_away(api, &api->wrong_method[allowed - routes], NULL, reply);
  if (preview_wrong_kind(head, row)) return turn_away(api, row->flags & ROUTE_FILE ? &api->kind_file : &api->kind[shape], NULL, reply);
  if (preview_packed(head, row)) return turn_away(api, &api->packed[shape], NULL, reply);
  if (!row->handler || !(row->flags & ROUTE_ENGINE)) return 0;
  struct lab_stats stats;
  lab_stats(api->lab, &stats);
  if (atomic_load(&api->draining) || stats.draining) return turn_away(api, &api->closing[shape], &stats, reply);
  if (stats.max_queue > 0 && stats.queued >= stats.max_queue)
    return turn_away(api, &api->busy[shape], &stats, reply);
  return 0;
}

bool api_is_open(const struct api *api, const struct api_request *head) {
  const struct route *allowed, *row = route_find(head->method, head->path, &allowed);
  if (row && (row->flags & ROUTE_SECRET)) return true;
  return row && (row->flags & ROUTE_OPEN) && api->files.count > 0; /* the plain page at / lists what is loaded */
}

bool api_computes(const struct api_request *head) {
  const struct route *allowed, *row = route_find(head->method, head->path, &allowed);
  return row && (row->flags & ROUTE_ENGINE);
}

size_t api_error_body(const char *path, int status, const char *word, const char *text, char *out, size_t size) {
  struct buffer body;
  struct reply_error what = {status, word, "", text};
  if (size == 0) return 0;
  out[0] = '\0';
  buffer_init(&body, size - 1);
  reply_error_body(&body, route_family_of(path), &what);
  size_t length = body.failed ? 0 : body.length;
  if (length) memcpy(out, body.data, length + 1);
  buffer_clear(&body);
  return length;
}

bool call_speaks_snake(const struct api_call *call) {
  const char *agent = request_header(call->request, "User-Agent");
  if (agent && strncmp(agent, "OpenAPI-Generator/", 18) == 0 && strstr(agent, "/python")) return true;
  return call->values && values_are_snake(call->values);
}
