/* reply.c: error code -> status -> body, and the writers that endpoints share. */
#include "api/reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/number.h"

int reply_status(enum error_code code) {
  switch (code) {
    case ERROR_ARGUMENT:
    case ERROR_LIMIT: return 400;
    case ERROR_NOT_FOUND: return 404;
    case ERROR_CONFLICT: return 409;
    case ERROR_UNSUPPORTED: return 501;
    case ERROR_FULL:
    case ERROR_STORAGE: return 507;
    case ERROR_BUSY:
    case ERROR_MEMORY:
    case ERROR_DEVICE:
    case ERROR_CANCELLED:
    case ERROR_TIMEOUT: return 503;
    default: return 500;
  }
}

bool reply_may_show(enum error_code code) { return reply_status(code) != 500; }

static void write_plain(struct json_writer *w, const struct reply_error *what) {
  jw_member_text(w, "error", what->text);
  jw_member_text(w, "message", what->text);
  jw_member_text(w, "code", what->word);
  if (what->field && what->field[0]) jw_member_text(w, "field", what->field);
}

static void write_openai(struct json_writer *w, const struct reply_error *what) {
  jw_key(w, "error");
  jw_open(w, '{');
  jw_member_text(w, "message", what->text);
  jw_member_text(w, "type", what->status < 500 ? "invalid_request_error" : "server_error");
  jw_member_text(w, "param", what->field && what->field[0] ? what->field : NULL);
  jw_member_text(w, "code", what->word);
  jw_close(w, '}');
}

void reply_error_body(struct buffer *out, enum route_family family, const struct reply_error *what) {
  struct json_writer w;
  jw_init(&w, out);
  jw_open(&w, '{');
  if (family == FAMILY_OPENAI)
    write_openai(&w, what);
  else
    write_plain(&w, what);
  jw_close(&w, '}');
}

int reply_retry_seconds(const struct lab_stats *stats) {
  double wait = ceil(stats->mean_service_seconds * (stats->queued + 1));
  if (!(wait >= 1)) return 1;
  return wait > API_RETRY_MOST ? API_RETRY_MOST : (int)wait;
}

static void add_retry(struct api_call *call) {
  struct lab_stats stats;
  lab_stats(call->api->lab, &stats);
  const struct api_pair *retry = &call->api->retry[reply_retry_seconds(&stats)];
  call_add_header(call, retry->name, retry->value);
}

/* What of an error a client may read. `general` holds the sentence for internal errors. */
static struct reply_error shown(const struct api_call *call, const struct error *error, char *general, size_t size) {
  struct reply_error what = {reply_status(error->code), error_word(error->code), error->field, error->text};
  if (reply_may_show(error->code)) return what;
  log_error("request failed: request=%s path=%s code=%s why=%s", call->request->request_id, call->request->path,
            error_word(error->code), error->text);
  snprintf(general, size, "something went wrong inside the server; its log tells more under request id '%s'",
           call->request->request_id);
  what.word = "internal";
  what.field = "";
  what.text = general;
  return what;
}

static void write_refusal(struct api_call *call, const struct reply_error *what) {
  buffer_clear(&call->body);
  call->stream = call->events = false;
  call->status = what->status;
  call->content_type = "application/json";
  call->replied = true;
  reply_error_body(&call->body, call->family, what);
  if (what->status == 503) add_retry(call);
}

void reply_error(struct api_call *call, const struct error *error) {
  char general[160];
  struct reply_error what = shown(call, error, general, sizeof general);
  write_refusal(call, &what);
}

void reply_refuse(struct api_call *call, int status, const char *word, const char *text) {
  struct reply_error what = {status, word, "", text};
  write_refusal(call, &what);
}

void reply_error_event(struct api_call *call, const struct error *error, struct buffer *out) {
  char general[160];
  struct reply_error what = shown(call, error, general, sizeof general);
  buffer_text(out, "event: error\ndata: ");
  reply_error_body(out, call->family, &what);
  buffer_text(out, "\n\n");
}

int reply_success(struct api_call *call) {
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", "Success");
  jw_close(&w, '}');
  return 0;
}

void reply_digits(struct json_writer *w, const char *key, int64_t number) {
  char digits[24];
  number_int(number, digits);
  jw_member_text(w, key, digits);
}

/* Parsed and written anew, so that what came from elsewhere cannot break the reply around it. */
void reply_json(struct json_writer *w, const char *key, const char *text) {
  struct json_node *node = text ? json_parse(text, strlen(text), 64, NULL) : NULL;
  jw_key(w, key);
  jw_node(w, node);
  json_free(node);
}

void reply_texts(struct json_writer *w, const char *key, const char *const *texts, size_t count) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < count; i++) jw_text(w, texts[i]);
  jw_close(w, ']');
}

void reply_flags(struct json_writer *w, const char *key, const bool *flags, size_t count) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < count; i++) jw_bool(w, flags[i]);
  jw_close(w, ']');
}

void reply_ids(struct json_writer *w, const char *key, const int32_t *ids, size_t count) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < count; i++) jw_int(w, ids[i]);
  jw_close(w, ']');
}
