/* route.h: an endpoint is one row; the table of all rows is in routes.c.
 *
 * The same rows find the handler, validate the body (field.h), answer 404, 405 and 501, and become
 * /openapi.json, /docs and `steerd routes`. */
#ifndef STEERD_API_ROUTE_H
#define STEERD_API_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "api/field.h"
#include "core/base/error.h"

struct api_call;

/* Whose habits a path follows: decides the shape of error bodies and the group in the documentation. */
enum route_family {
  FAMILY_SHORT,       /* the card's four */
  FAMILY_NEURONPEDIA, /* /api/..., and the inference server's /v1/... */
  FAMILY_OPENAI,
  FAMILY_LAB,
  FAMILY_OPERATIONS,
  FAMILY_COUNT
};

enum {
  ROUTE_STRICT = 1, /* unknown fields are refused */
  ROUTE_ENGINE = 2, /* refused while the engine's queue is full or the server shuts down */
  ROUTE_OPEN = 4,   /* needs no key: the dashboard's own files */
  ROUTE_STORED = 8, /* a GET that tells what is stored and what is loaded, and nothing that changes otherwise: its finished
                     * reply is kept until something is written (kept.h) */
  ROUTE_BATCH = 32, /* takes batches of rows: its body may have max_batch_body bytes, and few are read at a time */
  ROUTE_FILE = 64,  /* a POST whose body is a file's bytes (application/octet-stream); its fields are those of the query */
  ROUTE_PACKED = 128, /* takes a body with Content-Encoding: gzip, and unpacks it itself */
  ROUTE_SECRET = 256, /* needs no key: its address has a name in it that nobody can guess */
  ROUTE_READS = 16, /* tells what is in the store: where there is none, the reply's header X-Store says so */
};

struct route {
  const char *method;   /* "GET" (answers HEAD too) or "POST", "PUT", "DELETE" */
  const char *path;     /* "/feature/{model}/{source}/{index}"; literal rows stand before rows that would hide them; a
                         * path that begins with a placeholder never stands for /api, /v1 or /static, nor for POST */
  const char *summary;  /* one line for the documentation */
  enum route_family family;
  const struct field *fields; /* of the JSON body, or of the query (route_takes_query); NULL: neither is read */

  /* Writes the whole reply, or starts a job (call.h). -1 with an error is answered by reply_error. */
  int (*handler)(struct api_call *call, struct error *error);
  int flags;
};

extern const struct route routes[];
extern const size_t n_routes;

enum { ROUTE_SEGMENTS = 16 }; /* a path with more segments matches nothing */

/* Whether `path` is `pattern` with something in each {placeholder}. A trailing slash changes nothing. */
bool route_matches(const char *pattern, const char *path);

/* Whether a row's fields are those of the query: GET has no body, and that of a file has no fields. */
bool route_takes_query(const struct route *row);

/* The part of `path` that stands for {name} in `pattern`, which it matches: *length bytes; NULL when there is none. */
const char *route_part(const char *pattern, const char *path, const char *name, size_t *length);

/* The row for a method and a path. NULL: 405 when *allowed is set (a row of that path, to be given to
 * route_allow), else 404. HEAD finds GET rows. */
const struct route *route_find(const char *method, const char *path, const struct route **allowed);

/* The methods of all rows that share row's path, as an Allow header: "GET, HEAD, POST". */
void route_allow(const struct route *row, char *out, size_t size);

/* "post_api_steer": the same letters in every build, so that generated clients keep their names and links to /docs their
 * place. `out` has room for ROUTE_ID_BYTES. */
enum { ROUTE_ID_BYTES = 160 };
void route_id(const struct route *row, char *out);

/* The family of any path, known or not. */
enum route_family route_family_of(const char *path);

/* The word of a family, for metrics and documentation: "short", "neuronpedia", ... */
const char *route_family_word(enum route_family family);

#endif
