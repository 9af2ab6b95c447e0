/* api.h: all that the porch (server/) sees of the reception.
 *
 * One struct api_call per HTTP request. The porch hands over a complete request, then asks for the reply;
 * whenever the answer is "not yet", the porch may sleep (suspend the connection) until `wake` is called, and
 * asks again. No thread waits inside this room.
 *
 *   api_begin  -> api_poll -> (wake, api_poll)* -> whole reply, or a stream: (api_read, wake)* -> api_end
 *
 * Threads: begin, poll, read and end of one call never run at the same time; different calls run in parallel.
 * `wake` comes from any thread, at any time between api_begin and the return of api_end, also before api_poll
 * has answered "not yet"; it must only note and schedule. */
#ifndef STEERD_API_API_H
#define STEERD_API_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/error.h"

struct api;
struct api_call;
struct lab;

/* Limits and switches of the reception; all have their defaults in server/options.c. */
struct api_options {
  size_t max_body;        /* bytes of a request body; also used by the porch */
  int64_t max_store;      /* bytes of the store from which on clients may add nothing to it; 0: no limit */
  size_t max_batch_body;  /* the same of routes that take batches, at least max_body; 0: max_body */
  size_t max_json_depth;  /* nesting of a body */
  size_t max_result;      /* bytes of a reply */
  int64_t stuck_ms;       /* the worker stands still for longer, though it has work: /health says so; 0: never */
  int max_features;       /* features in one steer request */
  int max_texts;          /* texts in one request */
  int max_new_tokens;     /* n_tokens at most */
  size_t max_prompt_chars;
  size_t max_kept;        /* bytes of finished replies that are kept for the next asker; 0: none */
  const char *cors_origins; /* comma-separated list besides loopback origins; borrowed */
  const char *base_url;     /* "http://127.0.0.1:8080", for links in replies; NULL: as each request's Host says; borrowed */
  const char *static_folder; /* the dashboard's files, read by api_new; NULL: none are served; borrowed */
};

/* lab is borrowed and outlives the api. Errors: ERROR_MEMORY, and those of reading static_folder. */
struct api *api_new(struct lab *lab, const struct api_options *options, struct error *error) MUST_CHECK;
void api_free(struct api *api);

/* A header, query parameter or the like: both NUL-terminated, decoded, without control characters. */
struct api_pair {
  const char *name, *value;
};

struct api_request {
  const char *method;     /* "GET", ... as sent */
  const char *target;     /* as sent, still encoded, with its query; NULL: no finished reply is kept or looked for */
  const char *path;       /* decoded, begins with '/', no NUL inside */
  const struct api_pair *query;
  size_t n_query;
  const struct api_pair *headers; /* names as sent; look-ups ignore case */
  size_t n_headers;
  const char *body;       /* may be NULL when body_length is 0 */
  size_t body_length;
  const char *request_id; /* already checked: [A-Za-z0-9._-]{1,64} */
  uint64_t owner;         /* names the key, or the address where there is none: clients take turns by it; 0: nobody */
  const char *key;        /* the client's key ("" when none is configured or none was sent) */
  bool trusted;           /* sent from this machine or with a key: may start work over files of this machine */
};

struct kept;

struct api_reply {
  int status;
  const char *content_type;
  const struct api_pair *headers; /* further headers (Allow, Retry-After, Link, X-Total-Count ...) */
  size_t n_headers;
  bool stream;            /* body comes through api_read */
  bool events;            /* a stream of events, which are sent as they happen */
  int64_t held;           /* bytes that wait until the call is ended, in memory or in temporary files */
  const char *body;       /* whole body when !stream; not NUL-terminated necessarily */
  size_t body_length;
  struct kept *kept;      /* set by api_recall alone: given back with api_release */
};

/* Starts a call. The request's memory is borrowed until api_end. Never fails for the client's sake: bad input
 * becomes a reply. NULL only when out of memory. */
struct api_call *api_begin(struct api *api, const struct api_request *request, void (*wake)(void *context),
                           void *context) MUST_CHECK;

/* 1: *reply is filled, its memory is valid until api_end. 0: not yet, wait for wake. */
int api_poll(struct api_call *call, struct api_reply *reply);

/* Next bytes of a stream: > 0 how many; 0 nothing yet, wait for wake; -1 the stream is complete. A stream of events
 * that fails ends with an error event; a JSON text that fails on the way ends unclosed, and the log says why. */
ssize_t api_read(struct api_call *call, char *out, size_t size);

/* The client went away: stops the work soon. `wake` still comes when it has stopped. Any thread. */
void api_cancel(struct api_call *call);

/* Frees the call; work still running is cancelled. After it returns wake is never called again. */
void api_end(struct api_call *call);

/* For the access log, valid once api_poll has returned 1: how many tokens were read and generated. */
void api_usage(const struct api_call *call, int64_t *prompt_tokens, int64_t *new_tokens);

/* Before the body is read: what the head of a request alone can decide. Returns 0 to go on, else a complete
 * reply in *reply (404, 405 with Allow, 413, 415, 503 with Retry-After), memory static or owned by the api.
 * content_length UINT64_MAX: not known beforehand (chunked). */
int api_preview(struct api *api, const struct api_request *head, uint64_t content_length, struct api_reply *reply);

/* Whether the reply to a GET without a body is at hand, finished and still true: 1 and *reply, to be given
 * back with api_release, else 0. Asks nobody and allocates nothing. Who may ask was settled by the porch. */
int api_recall(struct api *api, const struct api_request *head, struct api_reply *reply);

/* Ends what api_recall began, `took` nanoseconds after the request did. */
void api_release(struct api *api, struct api_reply *reply, int64_t took);

/* The packed (gzip) form of a recalled body: made by the porch the first time, kept beside the body. `bytes` come from
 * malloc and are taken over; NULL: packing does not pay. api_packed: false when nobody has made it yet. */
bool api_packed(struct api *api, const struct api_reply *reply, const char **bytes, size_t *length);
void api_keep_packed(struct api *api, const struct api_reply *reply, char *bytes, size_t length);

/* A place beside a recalled reply for something that the porch has prepared (its response with the headers on), one for each
 * form of the body. Taken by one request at a time: NULL when there is none. Put: false when the place is taken by
 * now, and the thing stays with the caller. `drop` frees it when the reply goes. */
void *api_take_prepared(const struct api_reply *reply, bool packed);
bool api_put_prepared(const struct api_reply *reply, bool packed, void *prepared, void (*drop)(void *prepared));

/* Whether a request needs no key: the dashboard's own files and pages, which tell no more of the models than whether a
 * name that somebody guesses is loaded; and addresses that were given to somebody with a key, and that nobody can guess. */
bool api_is_open(const struct api *api, const struct api_request *head);

/* Whether a request asks for computing, as steering does; what is stored is read without. */
bool api_computes(const struct api_request *head);

/* An error reply in the family of the path, for the porch's own refusals (431, 400, 408, 421, 501): body into
 * out, at most size bytes with NUL; returns its length. */
size_t api_error_body(const char *path, int status, const char *word, const char *text, char *out, size_t size);

/* Stops admitting work: later calls that need the engine get 503, /ready turns 503, streams of a job's progress end. */
void api_drain(struct api *api);

/* Calls begun and not ended. */
int api_in_flight(const struct api *api);

/* The porch's own counters, shown by /metrics: set by the porch, any thread. */
struct api_porch {
  int64_t connections, requests, refused, bytes_in, bytes_out;
  int64_t held;                      /* bytes of large replies that clients have not read to their end */
  int64_t too_many, wrong_keys;      /* of the refused: for their client's rate; for their key */
};
void api_set_porch(struct api *api, void (*read_porch)(void *context, struct api_porch *out), void *context);

/* Prints the table of routes: "METHOD PATH  summary" a line (steerd routes). */
void api_print_routes(void);

#endif
