/* http.h: the HTTP server: sockets in, calls of the reception out. Only this room knows libmicrohttpd. */
#ifndef STEERD_SERVER_HTTP_H
#define STEERD_SERVER_HTTP_H

#include <stddef.h>

#include "core/base/error.h"
#include "server/exchange.h"
#include "server/listener.h"
#include "server/watch.h"

struct http;

struct http_options {
  struct listener *listeners; /* listening; taken over one by one */
  size_t n_listeners;
  struct exchange_rules rules;
  struct watch_options watch; /* `overdue` is set here */
  size_t max_per_address;     /* connections */
  unsigned threads;           /* for each listener */
};

/* Begins to answer. The reception's counters (api_set_porch) are fed from here on; the reception asks for
 * them only inside a request, so never after http_stop. NULL on ERROR_IO or ERROR_MEMORY. */
struct http *http_start(const struct http_options *options, struct error *error) MUST_CHECK;

/* Accepts no more connections; those that are open go on, and close with their next reply. */
void http_quiesce(struct http *http);

/* Requests whose reply has not gone out. */
size_t http_busy(struct http *http);

/* Asks the reception to stop all of them. */
void http_cancel(struct http *http);

/* Ends every connection and frees everything. NULL is fine. */
void http_stop(struct http *http);

#endif
