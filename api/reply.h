/* reply.h: how answers and errors leave this room. Holds the only map from error code to HTTP status. */
#ifndef STEERD_API_REPLY_H
#define STEERD_API_REPLY_H

#include "api/call.h"

/* The HTTP status of an error code. */
int reply_status(enum error_code code);

/* Whether the text of such an error may be shown; otherwise the client gets a general sentence and the log
 * the rest. */
bool reply_may_show(enum error_code code);

struct reply_error {
  int status;
  const char *word;  /* "argument", "busy", ... */
  const char *field; /* "" or NULL: none */
  const char *text;
};

/* The body of an error in the shape of a family: {error, message, code, field?}, or OpenAI's. */
void reply_error_body(struct buffer *out, enum route_family family, const struct reply_error *what);

/* Replaces whatever the call has written by an error reply. Internal errors are logged, and the client gets
 * the request's id. Adds Retry-After to 503. */
void reply_error(struct api_call *call, const struct error *error);
void reply_refuse(struct api_call *call, int status, const char *word, const char *text);

/* The data of an `event: error` frame, for a stream that fails on the way. */
void reply_error_event(struct api_call *call, const struct error *error, struct buffer *out);

/* Seconds after which the queue is likely to have room, 1 to API_RETRY_MOST. */
int reply_retry_seconds(const struct lab_stats *stats);

/* {"message": "Success"}; always 0. */
int reply_success(struct api_call *call);

/* Writers of the small shapes that several endpoints share. */
void reply_digits(struct json_writer *w, const char *key, int64_t number); /* as a string */
void reply_json(struct json_writer *w, const char *key, const char *text); /* JSON text as it is read; NULL: null */
void reply_ids(struct json_writer *w, const char *key, const int32_t *ids, size_t count);
void reply_flags(struct json_writer *w, const char *key, const bool *flags, size_t count);
void reply_texts(struct json_writer *w, const char *key, const char *const *texts, size_t count);

#endif
