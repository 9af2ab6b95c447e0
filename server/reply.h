/* reply.h: from the reception's reply to the library's response: the headers that every reply carries, gzip,
 * CORS. */
#ifndef STEERD_SERVER_REPLY_H
#define STEERD_SERVER_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "api/api.h"

struct MHD_Connection;
struct MHD_Response;

/* What the reply must know of its request. */
struct reply_manner {
  struct api *api; /* for replies that it keeps */
  const char *request_id;
  const char *origin; /* an allowed Origin to be named in the reply, or NULL */
  bool preflight;     /* the reply of a CORS preflight */
  bool gzip;          /* the client can read it */
  bool close;         /* last reply on this connection */
};

/* The response of a reply that is kept (api_recall): its headers are put together once, and it serves one request after
 * the other. Zeroes: none. */
struct reply_prepared {
  struct MHD_Response *response;
  bool packed;
};

/* Queues a whole reply. A body that is `lasting` stays where it is until the request has ended; another one
 * is copied. Returns the bytes of the body as sent, or -1 when the reply could not be queued. *prepared is set for a
 * reply that is kept, and goes to reply_done when the request has ended, whatever was returned. */
int64_t reply_queue(struct MHD_Connection *connection, const struct api_reply *reply, bool lasting,
                    const struct reply_manner *manner, struct reply_prepared *prepared);
void reply_done(const struct api_reply *reply, struct reply_prepared *prepared);

/* Queues a stream: `read` is the library's content reader, called until it answers an end. 0 or -1. */
int reply_queue_stream(struct MHD_Connection *connection, const struct api_reply *reply,
                       ssize_t (*read)(void *context, uint64_t position, char *out, size_t size),
                       void *context, const struct reply_manner *manner);

/* A complete error reply as bytes, for a socket where the library has no say (an overdue head or body, a body
 * that never ends): at most size bytes. Returns its length. */
size_t reply_print_error(const char *path, int status, const char *word, const char *text,
                         const char *request_id, char *out, size_t size);

#endif
