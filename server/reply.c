/* Owns the headers of every reply and their compression. Refuses to know what a body says. */
#include "server/reply.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "server/guard.h"

enum {
  GZIP_FROM = 1024,            /* bytes: below, the headers weigh more than what is saved */
  GZIP_QUICK_FROM = 1 << 20,   /* bytes: from here on speed matters more than the last tenth */
  STREAM_BLOCK = 16384
};

#define ID_HEADER "X-Request-Id"

/* Pages may load their own files only; scripts and styles stand in files, never inside the page. */
#define PAGE_POLICY "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

static bool has(const struct api_reply *reply, const char *name) {
  return guard_header(reply->headers, reply->n_headers, name) != NULL;
}

static void put(struct MHD_Response *response, const char *name, const char *value) {
  /* It can fail for want of memory only; a reply without one header is better than none. */
  (void)!MHD_add_response_header(response, name, value);
}

/* CORS is settled here alone. */
static void put_cors(struct MHD_Response *response, const struct reply_manner *manner) {
  put(response, "Vary", "Origin");
  if (!manner->origin) return;
  put(response, "Access-Control-Allow-Origin", manner->origin);
  put(response, "Access-Control-Expose-Headers", "X-Request-Id, X-Total-Count, Link, Retry-After");
  if (!manner->preflight) return;
  put(response, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS");
  put(response, "Access-Control-Allow-Headers",
      "Content-Type, Authorization, X-Api-Key, X-Secret-Key, X-Request-Id");
  put(response, "Access-Control-Allow-Private-Network", "true");
  put(response, "Access-Control-Max-Age", "600");
}

/* All but the request's id. */
static void put_headers(struct MHD_Response *response, const struct api_reply *reply,
                        const struct reply_manner *manner) {
  if (reply->content_type) put(response, "Content-Type", reply->content_type);
  for (size_t i = 0; i < reply->n_headers; i++)
    if (strncasecmp(reply->headers[i].name, "Access-Control-", 15))
      put(response, reply->headers[i].name, reply->headers[i].value);
  if (!has(reply, "X-Content-Type-Options")) put(response, "X-Content-Type-Options", "nosniff");
  if (!has(reply, "Referrer-Policy")) put(response, "Referrer-Policy", "no-referrer");
  if (!has(reply, "Cache-Control")) put(response, "Cache-Control", "no-store");
  bool page = reply->content_type && !strncasecmp(reply->content_type, "text/html", 9);
  if (page && !has(reply, "Content-Security-Policy")) put(response, "Content-Security-Policy", PAGE_POLICY);
  if (manner->close) put(response, "Connection", "close");
  put_cors(response, manner);
}

/* ---- gzip ------------------------------------------------------------------------------------------- */

static bool pays(const struct api_reply *reply) {
  static const char *const kinds[] = {"text/", "application/json", "application/javascript", "image/svg+xml",
                                      "application/x-ndjson", "application/openmetrics-text"};
  if (reply->body_length <= GZIP_FROM || !reply->content_type || has(reply, "Content-Encoding")) return false;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
    if (!strncasecmp(reply->content_type, kinds[i], strlen(kinds[i]))) return true;
  return false;
}

/* A fresh gzip of the body, or NULL when it could not be had or is no shorter. */
static char *compress_body(const char *body, size_t length, size_t *out_length) {
  z_stream z;
  memset(&z, 0, sizeof z);
  int level = length >= GZIP_QUICK_FROM ? Z_BEST_SPEED : 6;
  if (length > UINT32_MAX || deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    return NULL;
  char *out = malloc(length);
  z.next_in = (Bytef *)(uintptr_t)body;
  z.avail_in = (uInt)length;
  z.next_out = (Bytef *)out;
  z.avail_out = (uInt)length;
  bool done = out && deflate(&z, Z_FINISH) == Z_STREAM_END;
  *out_length = z.total_out;
  deflateEnd(&z);
  if (done) return out;
  free(out);
  return NULL;
}

/* ---- replies ---------------------------------------------------------------------------------------- */

/* What is sent of a whole reply, and what the library does with it afterwards. */
struct payload {
  const char *bytes;
  size_t length;
  enum MHD_ResponseMemoryMode mode;
  bool packed;
};

/* A reply that is kept is compressed once for all who will ask. */
static bool recall_packed(struct api *api, const struct api_reply *reply, struct payload *out) {
  if (!api_packed(api, reply, &out->bytes, &out->length)) {
    size_t length = 0;
    char *made = compress_body(reply->body, reply->body_length, &length);
    api_keep_packed(api, reply, made, length);
    if (!api_packed(api, reply, &out->bytes, &out->length)) return false;
  }
  out->mode = MHD_RESPMEM_PERSISTENT;
  return out->bytes != NULL;
}

static bool pack(const struct api_reply *reply, struct payload *out) {
  size_t length;
  char *made = compress_body(reply->body, reply->body_length, &length);
  if (!made) return false;
  out->bytes = made;
  out->length = length;
  out->mode = MHD_RESPMEM_MUST_FREE;
  return true;
}

static struct payload choose(const struct api_reply *reply, bool lasting, const struct reply_manner *manner) {
  struct payload out = {0};
  if (manner->gzip && pays(reply)) out.packed = reply->kept ? recall_packed(manner->api, reply, &out) : pack(reply, &out);
  if (out.packed) return out;
  return (struct payload){reply->body, reply->body_length, lasting ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_COPY,
                          false};
}

static struct MHD_Response *make_response(const struct api_reply *reply, const struct payload *payload) {
  /* The library's parameter is not const, but it only reads. */
  void *bytes = (void *)(uintptr_t)payload->bytes;
  struct MHD_Response *response = MHD_create_response_from_buffer(payload->length, bytes, payload->mode);
  if (!response) {
    if (payload->mode == MHD_RESPMEM_MUST_FREE) free(bytes);
    return NULL;
  }
  if (payload->packed) put(response, "Content-Encoding", "gzip");
  if (pays(reply)) put(response, "Vary", "Accept-Encoding");
  return response;
}

/* ---- prepared ones ----------------------------------------------------------------------------------- */

static void drop_prepared(void *response) { MHD_destroy_response(response); }

/* With nothing in it that only this request's reply has, but for the id. */
static bool can_prepare(const struct api_reply *reply, const struct reply_manner *manner) {
  return reply->kept && !manner->origin && !manner->close && !manner->preflight;
}

/* The response of an earlier request, without that one's id. */
static struct MHD_Response *take_prepared(const struct api_reply *reply, const struct payload *payload) {
  struct MHD_Response *response = api_take_prepared(reply, payload->packed);
  const char *id = response ? MHD_get_response_header(response, ID_HEADER) : NULL;
  if (id && MHD_del_response_header(response, ID_HEADER, id) != MHD_YES) {
    MHD_destroy_response(response);
    return NULL;
  }
  return response;
}

void reply_done(const struct api_reply *reply, struct reply_prepared *prepared) {
  struct MHD_Response *response = prepared->response;
  if (response && !api_put_prepared(reply, prepared->packed, response, drop_prepared)) MHD_destroy_response(response);
  prepared->response = NULL;
}

int64_t reply_queue(struct MHD_Connection *connection, const struct api_reply *reply, bool lasting,
                    const struct reply_manner *manner, struct reply_prepared *prepared) {
  struct payload payload = choose(reply, lasting, manner);
  bool again = can_prepare(reply, manner);
  struct MHD_Response *response = again ? take_prepared(reply, &payload) : NULL;
  if (!response) {
    response = make_response(reply, &payload);
    if (!response) return -1;
    put_headers(response, reply, manner);
  }
  put(response, ID_HEADER, manner->request_id);
  enum MHD_Result queued = MHD_queue_response(connection, (unsigned)reply->status, response);
  if (again) *prepared = (struct reply_prepared){response, payload.packed};
  else MHD_destroy_response(response);
  return queued == MHD_YES ? (int64_t)payload.length : -1;
}

int reply_queue_stream(struct MHD_Connection *connection, const struct api_reply *reply,
                       ssize_t (*read)(void *, uint64_t, char *, size_t), void *context,
                       const struct reply_manner *manner) {
  struct MHD_Response *response =
      MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read, context, NULL);
  if (!response) return -1;
  put_headers(response, reply, manner);
  put(response, ID_HEADER, manner->request_id);
  enum MHD_Result queued = MHD_queue_response(connection, (unsigned)reply->status, response);
  MHD_destroy_response(response);
  return queued == MHD_YES ? 0 : -1;
}

size_t reply_print_error(const char *path, int status, const char *word, const char *text,
                         const char *request_id, char *out, size_t size) {
  char body[1024];
  size_t length = api_error_body(path, status, word, text, body, sizeof body);
  const char *reason = MHD_get_reason_phrase_for((unsigned)status);
  int n = snprintf(out, size,
                   "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                   "X-Request-Id: %s\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
                   "Connection: close\r\n\r\n%.*s",
                   status, reason, length, request_id, (int)length, body);
  return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}
