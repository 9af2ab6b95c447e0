/* guard.h: what libmicrohttpd 0.9.75 lets through and we do not.
 *
 * The library accepts requests whose end two readers would see in different places (Content-Length beside
 * Transfer-Encoding, several lengths, folded or misspelt header lines, NUL bytes) and hands paths over cut at
 * an encoded NUL. Everything here looks at one request's head as it was sent, without sockets, and says
 * either "go on" or how to refuse. After a refusal of the framing nothing behind the head can be trusted, so
 * the connection is closed. */
#ifndef STEERD_SERVER_GUARD_H
#define STEERD_SERVER_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/api.h"
#include "core/base/arena.h"

struct guard_limits {
  size_t max_bytes;   /* request line and headers together */
  size_t max_fields;  /* header fields */
};

/* One request's head. Header values as sent, without the blanks in front. */
struct guard_head {
  const char *method, *version; /* "GET", "HTTP/1.1" */
  const char *target;           /* as sent, still encoded: "/a?b=c" */
  const struct api_pair *headers;
  size_t n_headers;
  size_t bytes;                 /* of the whole head */
};

struct guard_refusal {
  int status;        /* 0: nothing to refuse */
  const char *word;  /* "framing", "header", "target", "host", "origin", "key" */
  char text[192];
  bool close;        /* what follows on this connection cannot be trusted */
  int64_t retry;     /* seconds of Retry-After; 0: none, but with 503 */
};

/* Sets the refusal unless there is one. Always returns -1. */
int guard_refuse(struct guard_refusal *refusal, int status, const char *word, bool close, const char *format,
                 ...) ERROR_PRINTF(5, 6);

/* How the body is delimited. */
struct guard_body {
  bool chunked;
  bool waits;        /* the client waits for 100 Continue before it sends the body */
  uint64_t length;   /* bytes; 0 when chunked or none */
};

/* Method, header names and values, count and size, Host once, framing. 0 and *body, or -1 and *refusal:
 * 400, 415 (a compressed body), 431, 501 (an unknown transfer coding). */
int guard_check(const struct guard_head *head, const struct guard_limits *limits, struct guard_body *body,
                struct guard_refusal *refusal) MUST_CHECK;

/* A target split and decoded into the arena: the path, and the query's pairs in order ('+' is a blank). -1
 * with 400 for anything but an absolute path, for broken escapes, control characters, text that is not
 * UTF-8 and dot segments; 503 when out of memory. */
struct guard_target {
  const char *path;
  struct api_pair *query;
  size_t n_query;
};
int guard_split(const char *target, struct arena *arena, struct guard_target *out,
                struct guard_refusal *refusal) MUST_CHECK;

/* First header of that name (ignoring case), or NULL. */
const char *guard_header(const struct api_pair *headers, size_t count, const char *name);

/* True for 1 to 64 characters of [A-Za-z0-9._-]. */
bool guard_is_request_id(const char *text);

/* Whether an Accept-Encoding header allows gzip (and not with q=0). NULL does not. */
bool guard_accepts_gzip(const char *accept_encoding);

/* Walks the bytes of a head as the library's parser left them, from the end of the version to the end of the
 * head: name NUL value NUL NUL name ... False when the fields do not lie there one behind the other, which
 * means a NUL byte, or a folded line, that the client sent. `begin` points to the NUL behind the version. */
bool guard_is_seamless(const char *begin, const char *end, const struct api_pair *headers, size_t count);

#endif
