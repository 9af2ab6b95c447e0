/* watch.h: one thread that keeps an eye on every TCP connection.
 *
 * libmicrohttpd does not look at a suspended connection at all, and its only timeout starts anew with every
 * byte. So each connection has a `struct peer` beside it: the phase it is in, with a deadline for the phase;
 * whether its request sleeps (is suspended) until the engine has something; and whether the client has gone.
 * The watcher shuts the socket of an overdue peer, and wakes a sleeping one whose client hung up.
 *
 * Sleeping and waking: a request that has nothing to do calls peer_sleep, from the library's thread. A wake
 * may come at any time, also between the moment the request saw "not yet" and peer_sleep: it is then kept,
 * and peer_sleep answers PEER_WOKEN without suspending. Under the peer's lock a connection is resumed exactly
 * once for each time it was suspended.
 *
 * Locks: the list's lock, then a peer's lock, then the library's. peer_wake takes only the last two, so it
 * may be called from any thread, in any callback. */
#ifndef STEERD_SERVER_WATCH_H
#define STEERD_SERVER_WATCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct MHD_Connection;
struct watch;

enum peer_phase {
  PEER_HEAD, /* the head of a request is coming */
  PEER_IDLE, /* between two requests; any byte turns it into PEER_HEAD */
  PEER_BODY, /* the body is coming */
  PEER_WORK, /* the request is being worked on: no deadline */
  PEER_SEND, /* a reply that is ready is going out; every acknowledged byte moves the deadline */
  PEER_FLOW  /* the same of events, which go out as they are made: no rate is asked of who reads them */
};
enum { PEER_PHASES = PEER_FLOW + 1 };

struct watch_options {
  int64_t timeout_ms[PEER_PHASES]; /* 0: none */
  size_t max_peers;
  int64_t least_rate; /* bytes a second that a client must read in PEER_SEND, over the length of its timeout; 0: any */
  /* Writes a 408 for an overdue head or body onto the socket; NULL: the socket is only shut. Called with
   * the peer's lock held. */
  void (*overdue)(int fd, void *request);
};

enum peer_sleep { PEER_ASLEEP, PEER_WOKEN, PEER_LEAVE };

struct peer {
  struct watch *watch;
  struct MHD_Connection *connection;
  int fd;
  bool local;       /* the other end is on this machine */
  uint64_t address; /* of the other end, never 0: all of IPv4, the first 64 bits of IPv6, which one site has to itself */
  uint64_t id;
  struct peer *previous, *next;
  uint64_t expected; /* bytes of the request under way; 0: not known. The library's thread's own, as the next one */
  bool answering;    /* the reply to it has begun */
  pthread_mutex_t lock; /* guards what follows */
  enum peer_phase phase;
  int64_t deadline_ns;   /* 0: none */
  uint64_t received;     /* bytes of all requests that have their reply: more of them are the next request's */
  uint64_t acknowledged; /* bytes, when the watcher last looked at a reply */
  int64_t window_ns;     /* since then the rate is counted; 0: not yet */
  uint64_t window_from;  /* acknowledged at its beginning */
  void *request;         /* for `overdue`; NULL before the request line was read */
  bool asleep, woken, gone, overdue;
};

/* Starts the thread. NULL on ERROR_MEMORY or ERROR_IO. */
struct watch *watch_new(const struct watch_options *options, struct error *error) MUST_CHECK;
/* Ends the thread; every peer has been closed before. NULL is fine. */
void watch_free(struct watch *watch);

/* From here on nothing sleeps any more: wakes every sleeping peer for PEER_LEAVE. Needed before the library
 * is stopped, which aborts on a suspended connection. */
void watch_release(struct watch *watch);

size_t watch_count(struct watch *watch);

/* A new connection. NULL when out of memory or beyond max_peers: the socket has then been shut. */
struct peer *peer_open(struct watch *watch, struct MHD_Connection *connection, int fd);
/* The library is about to close the socket. NULL is fine. */
void peer_close(struct peer *peer);

/* The request line was read: `request` is what `overdue` will get. A head's deadline goes on. */
void peer_attach(struct peer *peer, void *request);

/* The request under way has that many bytes, head and body; left out where that is not known (chunks), and asked of the
 * kernel then. Empty lines in front of a request are not counted in: they look like the beginning of the next one. */
void peer_expect(struct peer *peer, uint64_t bytes);

/* Enters a phase and starts its deadline. False when the peer was overdue: the request must leave, because
 * something was already written behind its back. */
bool peer_enter(struct peer *peer, enum peer_phase phase, void *request);

/* Suspends, unless a wake has come (PEER_WOKEN: look again) or the request must leave (PEER_LEAVE: the client
 * has gone, or the server stops). Only from the library's thread. */
enum peer_sleep peer_sleep(struct peer *peer);
void peer_wake(struct peer *peer);

#endif
