/* acceptor.h: takes the connections that come in, in a thread of its own.
 *
 * The HTTP library could listen by itself, but not stop doing so while it serves: its threads and the one that tells them to stop
 * (MHD_quiesce_daemon) both take the socket out of what they wait for, and the library aborts where both do. */
#ifndef STEERD_SERVER_ACCEPTOR_H
#define STEERD_SERVER_ACCEPTOR_H

#include <stddef.h>
#include <sys/socket.h>

#include "core/base/error.h"
#include "server/listener.h"

struct acceptor;

/* A connection that came in at listener `i`: it does not block, and belongs to whom it is given. */
typedef void acceptor_take(void *context, size_t i, int fd, const struct sockaddr *peer, socklen_t length);

/* Begins. The sockets of the listeners are taken over (their fd is -1 then), also where it fails. NULL on ERROR_IO or
 * ERROR_MEMORY. */
struct acceptor *acceptor_start(struct listener *listeners, size_t n, acceptor_take *take, void *context,
                                struct error *error) MUST_CHECK;

/* From here on clients are turned away at once: the thread has ended and the sockets are closed. NULL is fine. */
void acceptor_stop(struct acceptor *acceptor);

#endif
