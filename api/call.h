/* call.h: one request while this room works on it: what handlers see. Private to api/.
 *
 * A handler either writes its whole reply (call->body through json_writer, call->status when not 200), or
 * starts one job and leaves it in call->job together with what to do later:
 *   finish  writes the whole reply once the job is done;
 *   frame   writes one event of a stream into `out`; `last` when the job is done (call->stream set).
 * Or it streams without a job (call->stream and call->pull set):
 *   pull    writes the next piece into `out`, or nothing when there is none yet and somebody will wake the call;
 *           sets call->ended with the last one. What the handler itself wrote into call->body goes out first.
 *   leave   if set, is called before the call ends, whatever has happened.
 * No lock is needed: the job is started before api_begin returns and given back in api_end, and the porch
 * never runs two of begin, poll, read and end at once. */
#ifndef STEERD_API_CALL_H
#define STEERD_API_CALL_H

#include <pthread.h>
#include <stdatomic.h>

#include "api/api.h"
#include "api/graph_uploads.h"
#include "api/kept.h"
#include "api/parse.h"
#include "api/route.h"
#include "api/static_files.h"
#include "core/base/arena.h"
#include "core/base/buffer.h"
#include "core/archive.h"
#include "core/base/json_writer.h"
#include "core/base/stripe.h"

/* Given by the build. */
#ifndef STEERD_VERSION
#define STEERD_VERSION "unknown"
#endif
#ifndef STEERD_COMMIT
#define STEERD_COMMIT "unknown"
#endif

enum { API_BUCKETS = 14, API_RETRY_MOST = 600 };

/* What /metrics shows of this room. Durations are from api_begin to api_end. Each thread counts in its stripe. */
struct api_counts {
  _Alignas(STRIPE_ALIGN)
  _Atomic int64_t replies[6];                          /* by hundreds of the status; [0] unused */
  _Atomic int64_t buckets[FAMILY_COUNT][API_BUCKETS];  /* the last one has no upper end */
  _Atomic int64_t nanoseconds[FAMILY_COUNT];
};
extern const double api_bucket_ends[API_BUCKETS - 1]; /* seconds */

/* Replies that can be given before a body is read: made once, so that shedding allocates nothing. */
struct canned {
  struct api_reply reply;
  struct api_pair header;
  char text[128]; /* of a 405 */
};

struct api {
  struct lab *lab; /* borrowed */
  struct api_options options;
  _Atomic bool draining;
  _Atomic int in_flight;
  struct api_counts counts[STRIPES];
  struct kept_replies kept;
  struct graph_uploads uploads;
  void (*read_porch)(void *context, struct api_porch *out);
  void *porch_context;
  int64_t started_ns;

  pthread_mutex_t lock;      /* guards the list */
  struct api_call *watching; /* calls that stream events without a job of their own: woken to end when draining */

  struct arena arena; /* what canned replies and files point to */
  struct static_files files;  /* the dashboard; empty without a folder */
  const char *embed_policy;   /* Content-Security-Policy of pages that may be framed */
  struct canned missing[2], large[2], large_batch, kind[2], kind_file, packed[2], busy[2], closing[2]; /* 404, 413, 415, 503; [1] as OpenAI's */
  const char *too_large, *too_large_batch;                          /* the sentences of 413, with the limit in it */
  struct canned *wrong_method;                                      /* 405, beside routes */
  struct api_pair retry[API_RETRY_MOST + 1];                        /* Retry-After by seconds */
};

enum { CALL_HEADERS = 8 };

struct api_call {
  struct api *api;
  const struct api_request *request;
  const struct route *route; /* NULL when none was found */
  enum route_family family;
  struct lab_waker waker;
  struct lab_lease lease; /* what handlers find in the lab stays until api_end */
  int64_t began_ns;
  uint64_t generation; /* of the store, before anything was read */
  const struct lab_source_info *source; /* that the path names, once it was found; under the lease */

  struct arena arena;   /* lives as long as the call */
  struct values *values; /* of the body; NULL for routes without fields */

  int status;
  const char *content_type;
  struct api_pair headers[CALL_HEADERS];
  size_t n_headers;
  struct buffer body; /* whole reply, or what of a stream was not read yet */

  struct lab_job *job;
  int (*finish)(struct api_call *call, struct error *error);
  int (*frame)(struct api_call *call, struct buffer *out, bool last, struct error *error);
  int (*pull)(struct api_call *call, struct buffer *out, struct error *error);
  void (*leave)(struct api_call *call);
  void *plan; /* the handler's own, in the arena */
  bool personal;     /* has the name by which this client asks in it: kept for nobody */
  bool stream;
  int64_t held;      /* bytes of a result that a stream reads, until the call is ended */
  bool events;       /* of a stream: server-sent events, else one JSON text */
  _Atomic bool gone; /* the client went away */
  struct api_call *next_watching;
  bool replied; /* the whole reply stands, or the stream has begun */
  bool ended;   /* the stream's last event was written */
  size_t sent;  /* bytes of body that api_read gave out */
};

/* Makes the reply a stream of events. */
void call_begin_events(struct api_call *call);

/* Adds a header to the reply; both texts must live as long as the call. */
void call_add_header(struct api_call *call, const char *name, const char *value);

/* The model that a field names (absent: the only one). NULL with an error that names the field. */
const struct lab_model_info *call_model(struct api_call *call, const struct values *values, const char *field,
                                        struct error *error) MUST_CHECK;

/* The part of the path that stands for {name}; NULL only when out of memory. */
const char *call_part(struct api_call *call, const char *name, struct error *error) MUST_CHECK;

/* A model and a source of it. */
struct place {
  const struct lab_model_info *model;
  const struct lab_source_info *source;
};

/* The place that {model} and {source} of the path name. */
int call_path_place(struct api_call *call, struct place *out, struct error *error) MUST_CHECK;

/* The place that two fields name; the model may be absent where one is loaded. `prefix` stands before the source's
 * field in errors: "" or "features[3].". */
int call_place(struct api_call *call, const struct values *values, const char *model_field, const char *source_field,
               const char *prefix, struct place *out, struct error *error) MUST_CHECK;

/* The same for what is only read from the store: also models and sources that are known from it alone (lab_stored_source); those lie
 * in the call's arena. Never for verbs that compute. id NULL: the only loaded model. */
const struct lab_model_info *call_known_model(struct api_call *call, const char *id, const char *field,
                                              struct error *error) MUST_CHECK;
int call_known_place(struct api_call *call, const char *model, const char *source, const char *field, struct place *out,
                     struct error *error) MUST_CHECK;
int call_known_path(struct api_call *call, struct place *out, struct error *error) MUST_CHECK;

/* The sources of a set of a model, lowest layer first, in the call's arena. ERROR_NOT_FOUND with `field` names the sets that there are. */
int call_source_set(struct api_call *call, const struct lab_model_info *model, const char *set, const char *field,
                    const struct lab_source_info ***out, size_t *n, struct error *error) MUST_CHECK;

/* An index against its source: ERROR_NOT_FOUND with `field`. */
int call_check_index(const struct lab_source_info *source, int64_t index, const char *field,
                     struct error *error) MUST_CHECK;

/* The same, and whether anything is known of it where the store alone knows its source. */
int call_check_known(struct api_call *call, const struct lab_source_info *source, int64_t index, const char *field,
                     struct error *error) MUST_CHECK;

/* Whether a client may add to the store: ERROR_UNSUPPORTED without one, ERROR_FULL where it has as much as the setting `max_store`
 * allows, with this request's body. */
int call_may_add(struct api_call *call, struct error *error) MUST_CHECK;

/* Adds X-Total-Count (total -1: not known) and Link to the reply of a GET whose query has `offset` and `limit`. */
struct page {
  int64_t offset, limit; /* limit -1: all */
  int64_t total;         /* -1: not known, then `more` tells whether there is a next page */
  bool more;
};
int call_add_page(struct api_call *call, const struct page *page, struct error *error) MUST_CHECK;

/* The sentences of refusals that are given both before and after the body was read. */
#define TEXT_MISSING "there is nothing at this path; GET /docs lists what there is"
#define TEXT_MISSING_OPENAI                                                                                            \
  "there is nothing at this path; of OpenAI's routes this server has /v1/models, /v1/completions and "                \
  "/v1/chat/completions (the base URL of a client ends in /v1); GET /docs lists what else there is"
#define TEXT_KIND "a request from a web page needs the header 'Content-Type: application/json'"
#define TEXT_KIND_FILE "a request from a web page needs the header 'Content-Type: application/octet-stream' here: the body is a file"
#define TEXT_PACKED "compressed bodies are not read here; send it without Content-Encoding"
#define TEXT_BUSY "the queue is full; try again after the seconds in Retry-After"
#define TEXT_NO_STORE "none; the setting 'store' (--store FILE) keeps statistics and explanations"
#define TEXT_CLOSING "the server is shutting down"
#define TEXT_UNTRUSTED_SOURCES \
  "dictionaries are loaded and unloaded from this machine, or with a key (setting 'keys')"
#define TEXT_UNTRUSTED_FORGET \
  "what was registered and uploaded is deleted from this machine, or with a key (setting 'keys')"
#define TEXT_UNTRUSTED "long work over files is started and changed from this machine, or with a key (setting 'keys')"

/* Makes the canned replies of a new api. */
int preview_prepare(struct api *api, struct error *error) MUST_CHECK;

/* Bytes that the body of a request may have; row NULL: no route. */
size_t preview_body_most(const struct api *api, const struct route *row);

/* Whether a head with this row needs a content type (JSON; of a file, its bytes) and has another one. */
bool preview_wrong_kind(const struct api_request *head, const struct route *row);

/* Whether the body is compressed, and this row reads none that is. */
bool preview_packed(const struct api_request *head, const struct route *row);

/* Value of a header, NULL when absent. */
const char *request_header(const struct api_request *request, const char *name);

/* What stands before the path of a link that the client is to follow: "http://127.0.0.1:8080". NULL only when out of memory. */
const char *call_base(struct api_call *call, struct error *error) MUST_CHECK;

/* Whether the names of a reply of the inference server's are to be in snake_case, as they were once: where the request's are, or where
 * it comes from the client that the OpenAPI generator made for Python when they were. */
bool call_speaks_snake(const struct api_call *call);

/* Counts an ended call, or a reply from memory, for /metrics. */
void count_call(struct api_call *call);
void count_reply(struct api *api, enum route_family family, int status, int64_t took);

#endif
