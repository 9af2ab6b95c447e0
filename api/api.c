/* api.c: the life of a call: begin, poll, read, cancel, end. Knows no endpoint: the table of routes.c does. */
#include "api/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/reply.h"
#include "core/base/clock.h"
#include "core/base/log.h"

/* Working memory of one call beyond its reply: parsed fields and the result as it is read from the lab. */
#define CALL_MEMORY ((size_t)4 << 20)

/* ---- the api ------------------------------------------------------------------------------------------ */

static int load_dashboard(struct api *api, struct error *error) {
  api->embed_policy = static_embed_policy(api->options.cors_origins, &api->arena, error);
  if (!api->embed_policy) return -1;
  const char *folder = api->options.static_folder;
  return folder ? static_files_load(&api->files, folder, &api->arena, error) : 0;
}

struct api *api_new(struct lab *lab, const struct api_options *options, struct error *error) {
  struct api *api = aligned_alloc(_Alignof(struct api), sizeof *api);
  if (!api) return error_memory(error, sizeof *api), NULL;
  memset(api, 0, sizeof *api);
  api->lab = lab;
  api->options = *options;
  api->started_ns = clock_ns();
  pthread_mutex_init(&api->lock, NULL);
  kept_init(&api->kept, options->max_kept);
  graph_uploads_init(&api->uploads);
  arena_init(&api->arena, 0);
  if (preview_prepare(api, error) == 0 && load_dashboard(api, error) == 0) return api;
  api_free(api);
  return NULL;
}

void api_free(struct api *api) {
  if (!api) return;
  arena_clear(&api->arena);
  kept_clear(&api->kept);
  graph_uploads_clear(&api->uploads);
  pthread_mutex_destroy(&api->lock);
  free(api);
}

/* ---- calls that watch --------------------------------------------------------------------------------- */

static void begin_watching(struct api_call *call) {
  struct api *api = call->api;
  pthread_mutex_lock(&api->lock);
  call->next_watching = api->watching;
  api->watching = call;
  pthread_mutex_unlock(&api->lock);
}

static void end_watching(struct api_call *call) {
  struct api *api = call->api;
  pthread_mutex_lock(&api->lock);
  struct api_call **at = &api->watching;
  while (*at && *at != call) at = &(*at)->next_watching;
  if (*at) *at = call->next_watching;
  pthread_mutex_unlock(&api->lock);
}

static void wake_call(struct api_call *call) { call->waker.wake(call->waker.context); }

void api_drain(struct api *api) {
  atomic_store(&api->draining, true);
  lab_drain(api->lab);
  pthread_mutex_lock(&api->lock);
  for (struct api_call *call = api->watching; call; call = call->next_watching) wake_call(call);
  pthread_mutex_unlock(&api->lock);
}

int api_in_flight(const struct api *api) { return atomic_load(&api->in_flight); }

void api_set_porch(struct api *api, void (*read_porch)(void *context, struct api_porch *out), void *context) {
  api->read_porch = read_porch;
  api->porch_context = context;
}

void api_print_routes(void) {
  for (size_t i = 0; i < n_routes; i++)
    printf("%-6s %-44s  %s\n", routes[i].method, routes[i].path, routes[i].summary);
}

/* ---- helpers of handlers ------------------------------------------------------------------------------ */

void call_add_header(struct api_call *call, const char *name, const char *value) {
  if (call->n_headers < CALL_HEADERS) call->headers[call->n_headers++] = (struct api_pair){name, value};
}

const struct lab_model_info *call_model(struct api_call *call, const struct values *values, const char *field,
                                        struct error *error) {
  struct error own = ERROR_INIT;
  const char *id = values_text(values, field, NULL);
  const struct lab_model_info *model = lab_find_model(call->api->lab, id, &own);
  if (model) return model;
  if (id)
    error_set_field(error, own.code, field, "%s", own.text);
  else
    error_set_field(error, own.code, field, "'%s' is required: %s", field, own.text);
  return NULL;
}

void call_begin_events(struct api_call *call) {
  call->stream = call->events = true;
  call->content_type = "text/event-stream; charset=utf-8";
  call_add_header(call, "Cache-Control", "no-cache");
}

/* ---- finished replies -------------------------------------------------------------------------------- */

static bool is_kept(const struct api_call *call) {
  return call->route && (call->route->flags & ROUTE_STORED) && call->request->target && call->api->options.max_kept &&
         strcmp(call->request->method, "GET") == 0;
}

/* What was read while somebody wrote belongs to no generation. */
static void keep(struct api_call *call) {
  if (call->stream || call->personal || call->status != 200 || !is_kept(call)) return;
  if (lab_generation(call->api->lab) != call->generation) return;
  struct api_reply reply = {.status = call->status, .content_type = call->content_type, .headers = call->headers,
                            .n_headers = call->n_headers, .body = call->body.data, .body_length = call->body.length};
  kept_add(&call->api->kept, call->request->target, call->generation, call->family, call->source, &reply);
}

/* A reply from memory is a use of its source as any other. The lease comes before the question whether the source is still
 * there: while the generation is the reply's, it is, and the lease keeps it. Once a second is as fine as the clock is. */
static void note_use(struct api *api, struct kept *kept) {
  struct lab_lease lease;
  const struct lab_source_info *source = kept_used(kept, (int64_t)time(NULL));
  if (!source) return;
  lab_lease_begin(api->lab, &lease);
  if (lab_generation(api->lab) == kept_generation(kept)) lab_source_used(api->lab, source);
  lab_lease_end(api->lab, &lease);
}

int api_recall(struct api *api, const struct api_request *head, struct api_reply *reply) {
  if (!head->target || strcmp(head->method, "GET") != 0 || atomic_load(&api->draining)) return 0;
  struct kept *kept = kept_find(&api->kept, head->target, lab_generation(api->lab));
  if (!kept) return 0;
  *reply = *kept_reply(kept);
  note_use(api, kept);
  return 1;
}

void api_release(struct api *api, struct api_reply *reply, int64_t took) {
  count_reply(api, kept_family(reply->kept), reply->status, took);
  kept_release(reply->kept);
  reply->kept = NULL;
}

bool api_packed(struct api *api, const struct api_reply *reply, const char **bytes, size_t *length) {
  return kept_packed(&api->kept, reply->kept, bytes, length);
}

void api_keep_packed(struct api *api, const struct api_reply *reply, char *bytes, size_t length) {
  kept_pack(&api->kept, reply->kept, bytes, length);
}

void *api_take_prepared(const struct api_reply *reply, bool packed) { return kept_take_prepared(reply->kept, packed); }

bool api_put_prepared(const struct api_reply *reply, bool packed, void *prepared, void (*drop)(void *prepared)) {
  return kept_put_prepared(reply->kept, packed, prepared, drop);
}

/* ---- begin -------------------------------------------------------------------------------------------- */

/* Answers what the head alone refuses; true when it did. */
static bool refuse_head(struct api_call *call, const struct route *allowed) {
  struct api *api = call->api;
  if (!call->route && !allowed)
    reply_refuse(call, 404, "not_found", call->family == FAMILY_OPENAI ? TEXT_MISSING_OPENAI : TEXT_MISSING);
  else if (!call->route) {
    const struct canned *wrong = &api->wrong_method[allowed - routes];
    call_add_header(call, "Allow", wrong->header.value);
    reply_refuse(call, 405, "method", wrong->text);
  } else if (call->request->body_length > preview_body_most(api, call->route))
    reply_refuse(call, 413, "too_large", call->route->flags & ROUTE_BATCH ? api->too_large_batch : api->too_large);
  else if (preview_wrong_kind(call->request, call->route))
    reply_refuse(call, 415, "content_type", call->route->flags & ROUTE_FILE ? TEXT_KIND_FILE : TEXT_KIND);
  else if (preview_packed(call->request, call->route))
    reply_refuse(call, 415, "header", TEXT_PACKED);
  return call->replied;
}

static int run_handler(struct api_call *call, struct error *error) {
  const struct route *row = call->route;
  const struct api_options *options = &call->api->options;
  if ((row->flags & ROUTE_ENGINE) && atomic_load(&call->api->draining))
    return error_set(error, ERROR_BUSY, TEXT_CLOSING);
  if (row->fields) {
    const struct api_request *request = call->request;
    bool strict = row->flags & ROUTE_STRICT;
    call->values = route_takes_query(row) ? parse_query(request->query, request->n_query, row->fields, strict, options,
                                                        &call->arena, error)
                                          : parse_body(request->body, request->body_length, row->fields, strict, options,
                                                       &call->arena, error);
    if (!call->values) return -1;
  }
  return row->handler(call, error);
}

/* Takes a whole reply as it was written; a reply that did not fit becomes an error. */
static void settle(struct api_call *call, int result, struct error *error) {
  if (result == 0) result = buffer_check(&call->body, error);
  if (result != 0) {
    reply_error(call, error);
    return;
  }
  call->replied = true;
  keep(call);
}

static void answer(struct api_call *call) {
  const struct route *allowed;
  call->route = route_find(call->request->method, call->request->path, &allowed);
  if (refuse_head(call, allowed)) return;
  if ((call->route->flags & ROUTE_READS) && !lab_store(call->api->lab)) call_add_header(call, "X-Store", TEXT_NO_STORE);
  if (is_kept(call)) call->generation = lab_generation(call->api->lab);
  struct error error = ERROR_INIT;
  int result = run_handler(call, &error);
  if (result != 0 || !call->job) settle(call, result, &error);
  if (call->events && call->pull) begin_watching(call);
}

struct api_call *api_begin(struct api *api, const struct api_request *request, void (*wake)(void *context),
                           void *context) {
  struct api_call *call = calloc(1, sizeof *call);
  if (!call) return NULL;
  call->api = api;
  call->request = request;
  call->family = route_family_of(request->path);
  call->waker = (struct lab_waker){wake, context, request->owner};
  call->began_ns = clock_ns();
  call->status = 200;
  call->content_type = "application/json";
  arena_init(&call->arena, api->options.max_result + CALL_MEMORY);
  buffer_init(&call->body, api->options.max_result);
  atomic_fetch_add(&api->in_flight, 1);
  lab_lease_begin(api->lab, &call->lease);
  answer(call);
  return call;
}

/* ---- poll and read ------------------------------------------------------------------------------------ */

static void fail_from_job(struct api_call *call) {
  struct error error = ERROR_INIT;
  lab_job_error(call->job, &error);
  if (!error.code) error_set(&error, ERROR_BUG, "a job failed without saying why");
  reply_error(call, &error);
}

/* Looks how far the job is. The state is read before anything else, so that whatever happens later comes
 * with a wake of its own. */
static void advance(struct api_call *call) {
  enum lab_job_state state = lab_job_state(call->job);
  struct error error = ERROR_INIT;
  if (state == LAB_JOB_FAILED)
    fail_from_job(call);
  else if (call->stream && state != LAB_JOB_WAITING) {
    call_begin_events(call);
    call->replied = true;
  } else if (!call->stream && state == LAB_JOB_DONE)
    settle(call, call->finish(call, &error), &error);
}

int api_poll(struct api_call *call, struct api_reply *reply) {
  static const char no_memory[] = "{\"error\":\"out of memory\",\"message\":\"out of memory\",\"code\":\"memory\"}";
  if (!call->replied) advance(call);
  if (!call->replied) return 0;
  if (call->body.failed) call->status = 503;
  *reply = (struct api_reply){.status = call->status, .content_type = call->content_type, .headers = call->headers,
                              .n_headers = call->n_headers, .stream = call->stream, .events = call->events, .held = call->held};
  if (call->stream) return 1;
  reply->body = call->body.failed ? no_memory : call->body.data ? call->body.data : "";
  reply->body_length = call->body.failed ? sizeof no_memory - 1 : call->body.length;
  reply->held = (int64_t)reply->body_length;
  return 1;
}

static int job_event(struct api_call *call, struct error *error) {
  enum lab_job_state state = lab_job_state(call->job);
  call->ended = state == LAB_JOB_DONE || state == LAB_JOB_FAILED;
  if (state == LAB_JOB_FAILED) {
    lab_job_error(call->job, error);
    return -1;
  }
  return call->frame(call, &call->body, state == LAB_JOB_DONE, error);
}

/* A stream that fails cannot change its status any more. */
static void break_off(struct api_call *call, const struct error *error) {
  buffer_clear(&call->body);
  call->ended = true;
  if (call->events)
    reply_error_event(call, error, &call->body);
  else
    log_error("stream broken off: request=%s path=%s code=%s why=%s", call->request->request_id, call->request->path,
              error_word(error->code), error->text);
  if (call->job) lab_job_cancel(call->job);
}

/* Writes the next piece into the body, if there is one. */
static void next_piece(struct api_call *call) {
  struct error error = ERROR_INIT;
  call->sent = call->body.length = 0;
  if (call->pull && (atomic_load(&call->gone) || (call->events && atomic_load(&call->api->draining)))) {
    call->ended = true;
    return;
  }
  int result = call->pull ? call->pull(call, &call->body, &error) : job_event(call, &error);
  if (result == 0) result = buffer_check(&call->body, &error);
  if (result != 0) break_off(call, &error);
}

ssize_t api_read(struct api_call *call, char *out, size_t size) {
  if (call->sent == call->body.length && !call->ended) next_piece(call);
  size_t left = call->body.length - call->sent;
  if (left == 0) return call->ended ? -1 : 0;
  size_t n = left < size ? left : size;
  memcpy(out, call->body.data + call->sent, n);
  call->sent += n;
  return (ssize_t)n;
}

/* ---- end ---------------------------------------------------------------------------------------------- */

void api_cancel(struct api_call *call) {
  atomic_store(&call->gone, true);
  if (call->job)
    lab_job_cancel(call->job);
  else if (call->pull)
    wake_call(call);
}

void api_end(struct api_call *call) {
  if (!call) return;
  if (call->events && call->pull) end_watching(call);
  if (call->leave) call->leave(call);
  lab_job_free(call->job); /* from here on nobody wakes the porch */
  lab_lease_end(call->api->lab, &call->lease);
  count_call(call);
  parse_free(call->values);
  buffer_clear(&call->body);
  arena_clear(&call->arena);
  atomic_fetch_sub(&call->api->in_flight, 1);
  free(call);
}

void api_usage(const struct api_call *call, int64_t *prompt_tokens, int64_t *new_tokens) {
  *prompt_tokens = *new_tokens = 0;
  if (call->job) lab_job_usage(call->job, prompt_tokens, new_tokens);
}
