/* api_client.h: a client of the reception without a socket: one exchange at a time through api_begin, api_poll and
 * api_read. The program sets `api`. Included behind cmocka.h. */
#ifndef STEERD_TESTS_UNIT_API_CLIENT_H
#define STEERD_TESTS_UNIT_API_CLIENT_H

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/api.h"

static struct api *api;

/* The porch's side of a call: a wake is noted, and slept for. */
struct bell {
  pthread_mutex_t mutex;
  pthread_cond_t rung;
  int count;
};

static inline void bell_ring(void *context) {
  struct bell *bell = context;
  pthread_mutex_lock(&bell->mutex);
  bell->count++;
  pthread_cond_signal(&bell->rung);
  pthread_mutex_unlock(&bell->mutex);
}

/* Waits for the next ring; fails the test after ten seconds, far beyond any generation here. */
static inline void bell_wait(struct bell *bell) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 10;
  pthread_mutex_lock(&bell->mutex);
  int late = 0;
  while (bell->count == 0 && !late) late = pthread_cond_timedwait(&bell->rung, &bell->mutex, &until);
  bell->count = 0;
  pthread_mutex_unlock(&bell->mutex);
  assert_int_equal(late, 0);
}

/* One exchange, kept whole: what came back outlives the call. */
struct exchange {
  int status;
  char type[64];
  char *body;
  size_t length;
  json_t *json;
  char allow[64], retry[16], total[24], link[1024];
  bool stream;
  int reads; /* of a stream, that gave something */
  int64_t prompt_tokens, new_tokens;
};

static inline void keep_reply(struct exchange *x, const struct api_reply *reply) {
  x->status = reply->status;
  x->stream = reply->stream;
  snprintf(x->type, sizeof x->type, "%s", reply->content_type);
  for (size_t i = 0; i < reply->n_headers; i++) {
    if (strcmp(reply->headers[i].name, "Allow") == 0)
      snprintf(x->allow, sizeof x->allow, "%s", reply->headers[i].value);
    if (strcmp(reply->headers[i].name, "Retry-After") == 0)
      snprintf(x->retry, sizeof x->retry, "%s", reply->headers[i].value);
    if (strcmp(reply->headers[i].name, "X-Total-Count") == 0)
      snprintf(x->total, sizeof x->total, "%s", reply->headers[i].value);
    if (strcmp(reply->headers[i].name, "Link") == 0)
      snprintf(x->link, sizeof x->link, "%s", reply->headers[i].value);
  }
  x->length = reply->body_length;
  x->body = strndup(reply->stream ? "" : reply->body, reply->stream ? 0 : reply->body_length);
}

/* Reads a stream to its end through a small window, so that events come in pieces. */
static inline void keep_stream(struct exchange *x, struct api_call *call, struct bell *bell) {
  char window[37];
  ssize_t n;
  free(x->body);
  x->body = calloc(1, 1 << 22);
  while ((n = api_read(call, window, sizeof window)) >= 0) {
    if (n == 0) {
      bell_wait(bell);
      continue;
    }
    assert_true(x->length + (size_t)n < 1 << 22);
    memcpy(x->body + x->length, window, (size_t)n);
    x->length += (size_t)n;
    x->reads++;
  }
}

static inline struct exchange send_request(const struct api_request *request) {
  struct bell bell = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct exchange x = {0};
  struct api_reply reply;
  struct api_call *call = api_begin(api, request, bell_ring, &bell);
  assert_non_null(call);
  while (!api_poll(call, &reply)) bell_wait(&bell);
  keep_reply(&x, &reply);
  if (x.stream) keep_stream(&x, call, &bell);
  api_usage(call, &x.prompt_tokens, &x.new_tokens);
  api_end(call);
  x.json = json_loadb(x.body, x.length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
  return x;
}

static inline struct api_request make_request(const char *method, const char *path, const char *body) {
  return (struct api_request){.method = method, .path = path, .body = body, .body_length = body ? strlen(body) : 0,
                              .request_id = "test-1", .key = "", .trusted = true};
}

/* Cuts "path?name=value&..." in place; nothing is decoded. */
static inline size_t cut_query(char *address, struct api_pair *pairs, size_t most) {
  size_t n = 0;
  char *state, *query = strchr(address, '?');
  if (!query) return 0;
  *query++ = '\0';
  for (char *at = strtok_r(query, "&", &state); at && n < most; at = strtok_r(NULL, "&", &state)) {
    char *value = strchr(at, '=');
    if (value) *value++ = '\0';
    pairs[n++] = (struct api_pair){at, value ? value : ""};
  }
  return n;
}

static inline struct exchange ask(const char *method, const char *address, const char *body) {
  char path[512];
  struct api_pair pairs[8];
  snprintf(path, sizeof path, "%s", address);
  size_t n = cut_query(path, pairs, 8);
  struct api_request request = make_request(method, path, body);
  request.query = pairs;
  request.n_query = n;
  return send_request(&request);
}

static inline void forget(struct exchange *x) {
  json_decref(x->json);
  free(x->body);
}

static inline const char *member(const struct exchange *x, const char *key) {
  return json_string_value(json_object_get(x->json, key));
}

/* The reply must be this status, this code and field, and its text must contain `words`. */
static inline void expect_error(const char *method, const char *path, const char *body, int status, const char *code,
                         const char *field, const char *words) {
  struct exchange x = ask(method, path, body);
  bool right = x.status == status && member(&x, "code") && strcmp(member(&x, "code"), code) == 0 &&
               (!field || (member(&x, "field") && strcmp(member(&x, "field"), field) == 0)) &&
               member(&x, "error") && strstr(member(&x, "error"), words);
  if (!right) fail_msg("%s %s %s: wanted %d %s '%s' '%s', got %d %s", method, path, body ? body : "", status, code,
                       field ? field : "", words, x.status, x.body);
  assert_string_equal(member(&x, "error"), member(&x, "message"));
  forget(&x);
}

static inline struct exchange expect_ok(const char *method, const char *path, const char *body) {
  struct exchange x = ask(method, path, body);
  if (x.status != 200) fail_msg("%s %s %s: got %d %s", method, path, body ? body : "", x.status, x.body);
  return x;
}

#endif
