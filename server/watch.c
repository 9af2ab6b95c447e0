/* Owns the watcher thread, the deadlines and the suspend/resume handshake. Refuses to know what a request
 * is. */
#include "server/watch.h"

#include <errno.h>
#include <linux/tcp.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log.h"

#define TICK_MS 50 /* how late a deadline may be noticed */
#define MS 1000000LL
#define BELL 0 /* the id of the eventfd; peers begin at 1 */

struct watch {
  struct watch_options options;
  pthread_t thread;
  int epoll, bell;
  pthread_mutex_t lock; /* guards the list */
  struct peer *first;
  size_t count;
  uint64_t last_id;
  bool stop;              /* under lock */
  bool released; /* atomic, set once */
};

/* ---- a peer's state; its lock is held --------------------------------------------------------------- */

static bool tcp_state(int fd, struct tcp_info *info) {
  socklen_t size = sizeof *info;
  memset(info, 0, sizeof *info);
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0;
}

static void resume(struct peer *peer) {
  if (!peer->asleep) return;
  peer->asleep = false;
  MHD_resume_connection(peer->connection);
}

static void set_phase(struct peer *peer, enum peer_phase phase) {
  int64_t timeout = peer->watch->options.timeout_ms[phase];
  if (phase != peer->phase) peer->window_ns = 0;
  peer->phase = phase;
  peer->deadline_ns = timeout ? clock_tick_ns() + timeout * MS : 0;
}

static bool sends(enum peer_phase phase) { return phase == PEER_SEND || phase == PEER_FLOW; }

/* A window ends when the client has read all that there was: then it waits for us, and its rate says nothing of it. */
static bool crawls(struct peer *peer, const struct tcp_info *info, int64_t now) {
  int64_t rate = peer->watch->options.least_rate, window_ms = peer->watch->options.timeout_ms[PEER_SEND];
  bool behind = info->tcpi_unacked || info->tcpi_notsent_bytes, begun = peer->window_ns && behind;
  if (peer->phase != PEER_SEND || !rate || !window_ms) return false;
  if (begun && now - peer->window_ns < window_ms * MS) return false;
  uint64_t least = (uint64_t)rate * (uint64_t)window_ms / 1000;
  bool slow = begun && info->tcpi_bytes_acked - peer->window_from < least;
  peer->window_ns = now;
  peer->window_from = info->tcpi_bytes_acked;
  return slow;
}

/* What the kernel saw since the last look: a first byte ends idleness, an acknowledged byte is progress. True: its client
 * reads too slowly. */
static bool look(struct peer *peer, int64_t now) {
  struct tcp_info info;
  if ((peer->phase != PEER_IDLE && !sends(peer->phase)) || !tcp_state(peer->fd, &info)) return false;
  if (peer->phase == PEER_IDLE && info.tcpi_bytes_received > peer->received) {
    set_phase(peer, PEER_HEAD);
  } else if (sends(peer->phase) && info.tcpi_bytes_acked != peer->acknowledged) {
    peer->acknowledged = info.tcpi_bytes_acked;
    set_phase(peer, peer->phase);
  }
  return crawls(peer, &info, now);
}

/* The library may have missed the end of its input when that came together with the last bytes, and would
 * wait for more. Shutting the reading side, as often as needed, shows it the end again; what was received
 * before can still be read. */
static void show_end(struct peer *peer) {
  bool reading = peer->phase == PEER_HEAD || peer->phase == PEER_IDLE || peer->phase == PEER_BODY;
  if (peer->gone && reading) shutdown(peer->fd, SHUT_RD);
}

static void expire(struct peer *peer) {
  peer->overdue = true;
  peer->deadline_ns = 0;
  bool early = peer->phase == PEER_HEAD || peer->phase == PEER_BODY;
  if (early && peer->request && peer->watch->options.overdue)
    peer->watch->options.overdue(peer->fd, peer->request);
  shutdown(peer->fd, SHUT_RDWR);
  resume(peer);
}

/* ---- the thread ------------------------------------------------------------------------------------- */

static void check_deadlines(struct watch *watch) {
  int64_t now = clock_tick_ns();
  for (struct peer *peer = watch->first; peer; peer = peer->next) {
    pthread_mutex_lock(&peer->lock);
    bool slow = look(peer, now);
    show_end(peer);
    if (slow || (peer->deadline_ns && peer->deadline_ns <= now)) expire(peer);
    pthread_mutex_unlock(&peer->lock);
  }
}

static void note_hangup(struct watch *watch, uint64_t id) {
  for (struct peer *peer = watch->first; peer; peer = peer->next) {
    if (peer->id != id) continue;
    pthread_mutex_lock(&peer->lock);
    peer->gone = true;
    show_end(peer);
    resume(peer);
    pthread_mutex_unlock(&peer->lock);
    return;
  }
}

static void drain_bell(struct watch *watch) {
  uint64_t value;
  if (read(watch->bell, &value, sizeof value) < 0 && errno != EAGAIN) log_error("watch: %s", strerror(errno));
}

static void *run(void *context) {
  struct watch *watch = context;
  struct epoll_event events[64];
  for (;;) {
    pthread_mutex_lock(&watch->lock);
    bool stop = watch->stop, idle = watch->count == 0;
    pthread_mutex_unlock(&watch->lock);
    if (stop) return NULL;
    int n = epoll_wait(watch->epoll, events, 64, idle ? -1 : TICK_MS);
    pthread_mutex_lock(&watch->lock);
    for (int i = 0; i < n; i++)
      if (events[i].data.u64 == BELL)
        drain_bell(watch);
      else
        note_hangup(watch, events[i].data.u64);
    check_deadlines(watch);
    pthread_mutex_unlock(&watch->lock);
  }
}

static void ring(struct watch *watch) {
  uint64_t one = 1;
  if (write(watch->bell, &one, sizeof one) < 0) log_error("watch: %s", strerror(errno));
}

static int open_fds(struct watch *watch, struct error *error) {
  watch->epoll = epoll_create1(EPOLL_CLOEXEC);
  watch->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = BELL};
  if (watch->epoll < 0 || watch->bell < 0 || epoll_ctl(watch->epoll, EPOLL_CTL_ADD, watch->bell, &event))
    return error_set(error, ERROR_IO, "cannot watch connections: %s", strerror(errno));
  return 0;
}

static void close_fds(struct watch *watch) {
  if (watch->epoll >= 0) close(watch->epoll);
  if (watch->bell >= 0) close(watch->bell);
}

struct watch *watch_new(const struct watch_options *options, struct error *error) {
  struct watch *watch = calloc(1, sizeof *watch);
  if (!watch) {
    error_memory(error, sizeof *watch);
    return NULL;
  }
  watch->options = *options;
  watch->epoll = watch->bell = -1;
  pthread_mutex_init(&watch->lock, NULL);
  if (open_fds(watch, error)) goto fail;
  int rc = pthread_create(&watch->thread, NULL, run, watch);
  if (!rc) return watch;
  error_set(error, ERROR_IO, "cannot start the watcher thread: %s", strerror(rc));
fail:
  close_fds(watch);
  pthread_mutex_destroy(&watch->lock);
  free(watch);
  return NULL;
}

void watch_free(struct watch *watch) {
  if (!watch) return;
  pthread_mutex_lock(&watch->lock);
  watch->stop = true;
  pthread_mutex_unlock(&watch->lock);
  ring(watch);
  pthread_join(watch->thread, NULL);
  close_fds(watch);
  pthread_mutex_destroy(&watch->lock);
  free(watch);
}

void watch_release(struct watch *watch) {
  pthread_mutex_lock(&watch->lock);
  __atomic_store_n(&watch->released, true, __ATOMIC_SEQ_CST);
  for (struct peer *peer = watch->first; peer; peer = peer->next) {
    pthread_mutex_lock(&peer->lock);
    resume(peer);
    pthread_mutex_unlock(&peer->lock);
  }
  pthread_mutex_unlock(&watch->lock);
}

size_t watch_count(struct watch *watch) {
  pthread_mutex_lock(&watch->lock);
  size_t count = watch->count;
  pthread_mutex_unlock(&watch->lock);
  return count;
}

/* ---- peers ------------------------------------------------------------------------------------------ */

/* False when there is no room; the first peer wakes the thread from its endless wait. */
static bool list_add(struct watch *watch, struct peer *peer) {
  pthread_mutex_lock(&watch->lock);
  bool room = watch->count < watch->options.max_peers, first = watch->count == 0;
  if (room) {
    peer->id = ++watch->last_id;
    peer->next = watch->first;
    if (peer->next) peer->next->previous = peer;
    watch->first = peer;
    watch->count++;
  }
  pthread_mutex_unlock(&watch->lock);
  if (room && first) ring(watch);
  return room;
}

static void list_remove(struct watch *watch, struct peer *peer) {
  pthread_mutex_lock(&watch->lock);
  if (peer->previous) peer->previous->next = peer->next;
  else watch->first = peer->next;
  if (peer->next) peer->next->previous = peer->previous;
  watch->count--;
  pthread_mutex_unlock(&watch->lock);
}

/* An IPv4 address as the same 64 bits whether it came mapped into IPv6 or not; no network of IPv6 begins so. */
#define IPV4_PREFIX (UINT64_C(0xffff) << 32)

static uint64_t big_endian(const uint8_t *bytes, size_t n) {
  uint64_t value = 0;
  for (size_t i = 0; i < n; i++) value = value << 8 | bytes[i];
  return value;
}

static void read_other_end(struct peer *peer) {
  struct sockaddr_storage from;
  socklen_t size = sizeof from;
  peer->address = 1;
  if (getpeername(peer->fd, (struct sockaddr *)&from, &size)) return;
  const struct in6_addr *v6 = &((struct sockaddr_in6 *)&from)->sin6_addr;
  const uint8_t *v4 = NULL;
  if (from.ss_family == AF_INET) v4 = (const uint8_t *)&((struct sockaddr_in *)&from)->sin_addr;
  else if (from.ss_family != AF_INET6) return;
  else if (IN6_IS_ADDR_V4MAPPED(v6)) v4 = v6->s6_addr + 12;
  uint64_t network = v4 ? IPV4_PREFIX | big_endian(v4, 4) : big_endian(v6->s6_addr, 8);
  peer->local = v4 ? v4[0] == 127 : IN6_IS_ADDR_LOOPBACK(v6);
  if (network) peer->address = network;
}

struct peer *peer_open(struct watch *watch, struct MHD_Connection *connection, int fd) {
  struct peer *peer = calloc(1, sizeof *peer);
  if (!peer) goto refuse;
  peer->watch = watch;
  peer->connection = connection;
  peer->fd = fd;
  read_other_end(peer);
  pthread_mutex_init(&peer->lock, NULL);
  set_phase(peer, PEER_HEAD);
  if (!list_add(watch, peer)) goto refuse;
  /* Edge-triggered and for hang-ups only: data that arrives wakes nobody here. */
  struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.u64 = peer->id};
  if (epoll_ctl(watch->epoll, EPOLL_CTL_ADD, fd, &event)) log_warn("watch: %s", strerror(errno));
  return peer;
refuse:
  free(peer);
  shutdown(fd, SHUT_RDWR);
  return NULL;
}

void peer_close(struct peer *peer) {
  if (!peer) return;
  epoll_ctl(peer->watch->epoll, EPOLL_CTL_DEL, peer->fd, NULL);
  list_remove(peer->watch, peer);
  pthread_mutex_destroy(&peer->lock);
  free(peer);
}

void peer_expect(struct peer *peer, uint64_t bytes) { peer->expected = bytes; }

/* A reply begins: what was received belongs to its request. Asking the kernel costs a system call, so it is done only where
 * the length was not told. A stream comes here again and again; only the first time counts. */
static void count_received(struct peer *peer) {
  struct tcp_info info;
  if (peer->answering) return;
  peer->answering = true;
  if (peer->expected) peer->received += peer->expected;
  else if (tcp_state(peer->fd, &info)) peer->received = info.tcpi_bytes_received;
  peer->expected = 0;
}

void peer_attach(struct peer *peer, void *request) {
  pthread_mutex_lock(&peer->lock);
  peer->request = request;
  peer->answering = false;
  if (peer->phase == PEER_IDLE) set_phase(peer, PEER_HEAD);
  pthread_mutex_unlock(&peer->lock);
}

bool peer_enter(struct peer *peer, enum peer_phase phase, void *request) {
  pthread_mutex_lock(&peer->lock);
  peer->request = request;
  bool good = !peer->overdue;
  if (good) set_phase(peer, phase);
  if (sends(phase)) count_received(peer);
  show_end(peer);
  pthread_mutex_unlock(&peer->lock);
  return good;
}

enum peer_sleep peer_sleep(struct peer *peer) {
  enum peer_sleep answer = PEER_ASLEEP;
  pthread_mutex_lock(&peer->lock);
  if (peer->gone || peer->overdue || __atomic_load_n(&peer->watch->released, __ATOMIC_SEQ_CST)) {
    answer = PEER_LEAVE;
  } else if (peer->woken) {
    peer->woken = false;
    answer = PEER_WOKEN;
  } else {
    peer->asleep = true;
    MHD_suspend_connection(peer->connection);
  }
  pthread_mutex_unlock(&peer->lock);
  return answer;
}

void peer_wake(struct peer *peer) {
  pthread_mutex_lock(&peer->lock);
  /* A peer that is awake will look again before it sleeps; one that sleeps is about to. */
  if (peer->asleep) resume(peer);
  else peer->woken = true;
  pthread_mutex_unlock(&peer->lock);
}
