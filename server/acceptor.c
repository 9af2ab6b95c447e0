/* acceptor.c: owns the listening sockets and the thread that waits at them. Knows nothing of HTTP. */
#include "server/acceptor.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/base/log.h"

enum {
  AT_ONCE = 64,  /* connections taken from one listener before the others are looked at */
  PAUSE_MS = 50  /* where none can be taken (no more descriptors): the kernel would wake us for it for ever */
};

struct acceptor {
  acceptor_take *take;
  void *context;
  struct pollfd *places; /* [n + 1]: the listeners, and what wakes the thread to end it */
  size_t n;
  pthread_t thread;
  bool runs, full; /* full: none could be taken, and the log has it */
};

static bool is_stopped(const struct acceptor *a, int ms) {
  struct pollfd wake = a->places[a->n];
  return poll(&wake, 1, ms) > 0;
}

/* Nothing to take is no failure, nor is a client that has gone again. */
static bool is_failure(int reason) { return reason != EAGAIN && reason != ECONNABORTED && reason != EINTR; }

static void take_some(struct acceptor *a, size_t i) {
  for (int k = 0; k < AT_ONCE; k++) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int fd = accept4(a->places[i].fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (!is_failure(errno)) return;
      if (!a->full) log_warn("cannot take another connection: %s", strerror(errno));
      a->full = true;
      is_stopped(a, PAUSE_MS);
      return;
    }
    a->full = false;
    a->take(a->context, i, fd, (const struct sockaddr *)&peer, length);
  }
}

static void *run(void *context) {
  struct acceptor *a = context;
  pthread_setname_np(pthread_self(), "accept");
  while (!is_stopped(a, 0)) {
    int ready = poll(a->places, a->n + 1, -1);
    if (ready < 0 && errno != EINTR) is_stopped(a, PAUSE_MS);
    for (size_t i = 0; i < a->n && ready > 0; i++)
      if (a->places[i].revents) take_some(a, i);
  }
  return NULL;
}

/* Takes the sockets over, whatever comes of it. */
static struct acceptor *make(struct listener *listeners, size_t n) {
  struct acceptor *a = calloc(1, sizeof *a);
  struct pollfd *places = calloc(n + 1, sizeof *places);
  for (size_t i = 0; i < n; i++) {
    if (!a || !places) listener_close(&listeners[i]);
    else places[i] = (struct pollfd){.fd = listeners[i].fd, .events = POLLIN};
    listeners[i].fd = -1;
  }
  if (!a || !places) return free(a), free(places), NULL;
  *a = (struct acceptor){.places = places, .n = n};
  places[n] = (struct pollfd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = POLLIN};
  return a;
}

struct acceptor *acceptor_start(struct listener *listeners, size_t n, acceptor_take *take, void *context, struct error *error) {
  struct acceptor *a = make(listeners, n);
  if (!a) return error_memory(error, (n + 1) * sizeof *a->places), NULL;
  a->take = take;
  a->context = context;
  int reason = a->places[n].fd < 0 ? errno : pthread_create(&a->thread, NULL, run, a);
  a->runs = reason == 0;
  if (a->runs) return a;
  error_set(error, ERROR_IO, "cannot start the thread that takes connections: %s", strerror(reason));
  acceptor_stop(a);
  return NULL;
}

void acceptor_stop(struct acceptor *a) {
  if (!a) return;
  if (a->runs) {
    if (write(a->places[a->n].fd, &(uint64_t){1}, sizeof(uint64_t)) < 0) log_error("waking the acceptor: %s", strerror(errno));
    pthread_join(a->thread, NULL);
  }
  for (size_t i = 0; i <= a->n; i++)
    if (a->places[i].fd >= 0) close(a->places[i].fd);
  free(a->places);
  free(a);
}
