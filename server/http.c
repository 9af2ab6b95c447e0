/* Owns the library's daemons, one for each listen address, and its callbacks. Refuses to know what happens
 * inside a request (exchange.c), when a connection is overdue (watch.c) and where it comes from (acceptor.c). */
#include "server/http.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/log.h"
#include "server/acceptor.h"

/* The library's own limit on connections is spread over its threads; ours (watch_options.max_peers) must be
 * the one that is met: it is told in words. */
#define SPARE_CONNECTIONS 64

struct http {
  struct watch *watch;
  struct exchanges exchanges;
  struct MHD_Daemon **daemons;
  size_t n_daemons;
  struct acceptor *acceptor; /* NULL once it is stopped */
};

/* ---- the library's callbacks ------------------------------------------------------------------------ */

static struct peer *peer_of(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info ? info->socket_context : NULL;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
  struct http *http = context;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    /* Where the library runs out of a connection's memory, it ends a request without saying so. */
    struct peer *peer = *socket_context;
    if (peer) exchange_close(peer->request, 0, true);
    peer_close(peer);
    *socket_context = NULL;
    return;
  }
  int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd, on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  *socket_context = peer_open(http->watch, connection, fd);
  if (!*socket_context) exchanges_refuse(&http->exchanges);
}

static void *on_target(void *context, const char *target, struct MHD_Connection *connection) {
  struct http *http = context;
  struct peer *peer = peer_of(connection);
  return peer ? exchange_open(&http->exchanges, peer, target ? target : "") : NULL;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *size,
                                  void **request) {
  (void)context;
  (void)url; /* decoded by the library, and cut at an encoded NUL: never used */
  struct exchange *exchange = *request;
  if (!exchange) return MHD_NO;
  if (!exchange_has_head(exchange)) return exchange_head(exchange, connection, method, version);
  if (!*size) return exchange_answer(exchange);
  size_t taken = *size;
  *size = 0;
  return exchange_body(exchange, data, taken);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code) {
  (void)context;
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_HTTP_STATUS);
  exchange_close(*request, info ? (int)info->http_status : 0, code != MHD_REQUEST_TERMINATED_COMPLETED_OK);
  *request = NULL;
}

/* Targets are decoded by guard.c, once, with every byte looked at. */
static size_t leave_escaped(void *context, struct MHD_Connection *connection, char *text) {
  (void)context;
  (void)connection;
  return strlen(text);
}

__attribute__((format(printf, 2, 0))) static void on_message(void *context, const char *format,
                                                             va_list args) {
  (void)context;
  char text[512];
  vsnprintf(text, sizeof text, format, args);
  text[strcspn(text, "\r\n")] = '\0';
  log_debug("libmicrohttpd: %s", text);
}

static void on_panic(void *context, const char *file, unsigned line, const char *reason) {
  (void)context;
  log_error("libmicrohttpd stopped at %s:%u: %s", file, line, reason ? reason : "");
  abort();
}

static void read_porch(void *context, struct api_porch *out) {
  struct http *http = context;
  out->connections = (int64_t)watch_count(http->watch);
  exchanges_read(&http->exchanges, out);
}

/* ---- starting --------------------------------------------------------------------------------------- */

static struct MHD_Daemon *start_daemon(struct http *http, const struct http_options *o) {
  unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET;
  /* The read buffer grows until a head of max_bytes fits; the rest holds parsed fields and the reply's headers. No more:
   * the library clears all of it for every request. */
  size_t memory = o->rules.limits.max_bytes + o->rules.limits.max_fields * 96 + 2048;
  unsigned limit = (unsigned)(o->watch.max_peers + SPARE_CONNECTIONS) * o->threads;
  struct MHD_OptionItem pool[] = {{MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)o->threads, NULL},
                                  {MHD_OPTION_END, 0, NULL}};
  if (o->threads < 2) pool[0].option = MHD_OPTION_END; /* a pool of one is refused */
  return MHD_start_daemon(flags, 0, NULL, NULL, on_request, http,
                          MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
                          MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
                          MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
                          MHD_OPTION_URI_LOG_CALLBACK, on_target, http,
                          MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL,
                          MHD_OPTION_STRICT_FOR_CLIENT, 1,
                          MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory,
                          MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)4096,
                          MHD_OPTION_CONNECTION_LIMIT, limit,
                          MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)o->max_per_address,
                          MHD_OPTION_CONNECTION_TIMEOUT, 0u, /* deadlines are the watcher's */
                          MHD_OPTION_THREAD_STACK_SIZE, (size_t)512 * 1024,
                          MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
                          MHD_OPTION_ARRAY, pool, MHD_OPTION_END);
}

/* The library closes what it does not want. */
static void on_accepted(void *context, size_t i, int fd, const struct sockaddr *peer, socklen_t length) {
  struct http *http = context;
  MHD_add_connection(http->daemons[i], fd, peer, length);
}

static int start_daemons(struct http *http, const struct http_options *o, struct error *error) {
  for (size_t i = 0; i < o->n_listeners; i++) {
    struct MHD_Daemon *daemon = start_daemon(http, o);
    if (!daemon) return error_set(error, ERROR_IO, "cannot serve on %s", o->listeners[i].url);
    http->daemons[http->n_daemons++] = daemon;
  }
  http->acceptor = acceptor_start(o->listeners, o->n_listeners, on_accepted, http, error);
  return http->acceptor ? 0 : -1;
}

struct http *http_start(const struct http_options *options, struct error *error) {
  struct http *http = aligned_alloc(_Alignof(struct http), sizeof *http);
  if (!http) {
    error_memory(error, sizeof *http);
    return NULL;
  }
  memset(http, 0, sizeof *http);
  MHD_set_panic_func(on_panic, NULL);
  exchanges_init(&http->exchanges, &options->rules);
  struct watch_options watching = options->watch;
  watching.overdue = exchange_print_overdue;
  http->watch = watch_new(&watching, error);
  http->daemons = calloc(options->n_listeners + 1, sizeof *http->daemons);
  if (!http->daemons) error_memory(error, options->n_listeners * sizeof *http->daemons);
  /* Before the first thread of the library: /metrics reads it without a lock. */
  api_set_porch(options->rules.api, read_porch, http);
  if (!http->watch || !http->daemons || start_daemons(http, options, error)) {
    http_stop(http);
    return NULL;
  }
  return http;
}

/* ---- stopping --------------------------------------------------------------------------------------- */

void http_quiesce(struct http *http) {
  __atomic_store_n(&http->exchanges.draining, true, __ATOMIC_RELAXED);
  acceptor_stop(http->acceptor);
  http->acceptor = NULL;
}

size_t http_busy(struct http *http) { return exchanges_count(&http->exchanges); }

void http_cancel(struct http *http) { exchanges_cancel(&http->exchanges); }

void http_stop(struct http *http) {
  if (!http) return;
  acceptor_stop(http->acceptor);
  /* The library aborts when it is stopped while a connection is suspended. */
  if (http->watch) watch_release(http->watch);
  for (size_t i = 0; i < http->n_daemons; i++) MHD_stop_daemon(http->daemons[i]);
  watch_free(http->watch);
  exchanges_clear(&http->exchanges);
  free(http->daemons);
  free(http);
}
