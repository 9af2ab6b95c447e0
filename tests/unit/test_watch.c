/* Sleeping and waking beside the real library: every order in which a wake, a hang-up or a stop can meet a
 * request that goes to sleep. A request's path chooses what its handler does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "server/watch.h"

enum {
  PATIENCE_MS = 5000,
  LENGTH = 400000 /* bytes of a long reply: more than small buffers take, on both sides */
}; /* far above anything that is waited for here, so that a slow machine is no failure */

static struct watch *watch;
static struct MHD_Daemon *server;
static int port;
/* What the handlers saw; written by the library's thread, read after a reply or with atomics. */
static struct peer *sleeper;
static int calls, leaves, overdue_calls;

static int count(int *counter) { return __atomic_load_n(counter, __ATOMIC_SEQ_CST); }
static void bump(int *counter) { __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST); }

static bool becomes(int *counter, int value) {
  for (int i = 0; i < PATIENCE_MS; i++, poll(NULL, 0, 1))
    if (count(counter) == value) return true;
  return false;
}

static void on_overdue(int fd, void *request) {
  (void)request;
  bump(&overdue_calls);
  assert_int_equal(send(fd, "late", 4, MSG_NOSIGNAL), 4);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
  (void)context;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    peer_close(*socket_context);
    return;
  }
  int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd, small = 4096;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small); /* what a client leaves unread stays with us */
  *socket_context = peer_open(watch, connection, fd);
}

static enum MHD_Result answer(struct MHD_Connection *connection, const char *text) {
  struct MHD_Response *r =
      MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
  enum MHD_Result rc = MHD_queue_response(connection, 200, r);
  MHD_destroy_response(r);
  return rc;
}

static enum MHD_Result answer_at_length(struct MHD_Connection *connection) {
  static char long_text[LENGTH];
  struct MHD_Response *r = MHD_create_response_from_buffer(sizeof long_text, long_text, MHD_RESPMEM_PERSISTENT);
  enum MHD_Result rc = MHD_queue_response(connection, 200, r);
  MHD_destroy_response(r);
  return rc;
}

/* "/ready", "/events": a long reply, in the phase of one that is ready, or of events. "/early": the wake comes before the sleep. "/late": somebody else wakes it. The head's call is skipped. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *size,
                                  void **state) {
  (void)context, (void)method, (void)version, (void)data, (void)size;
  struct peer *peer = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
  if (!peer) return MHD_NO;
  if (!*state) {
    *state = peer;
    peer_enter(peer, PEER_WORK, peer);
    return MHD_YES;
  }
  if (!strcmp(url, "/ready") || !strcmp(url, "/events")) {
    peer_enter(peer, *url == '/' && url[1] == 'r' ? PEER_SEND : PEER_FLOW, peer);
    return answer_at_length(connection);
  }
  bump(&calls);
  bool again = *state == &calls;
  *state = &calls;
  if (again && !strcmp(url, "/late")) {
    return answer(connection, "woken");
  } else if (!strcmp(url, "/early")) {
    peer_wake(peer);
    peer_wake(peer); /* two are kept as one */
    return answer(connection, peer_sleep(peer) == PEER_WOKEN ? "woken" : "slept");
  }
  __atomic_store_n(&sleeper, peer, __ATOMIC_SEQ_CST);
  if (peer_sleep(peer) == PEER_ASLEEP) return MHD_YES;
  bump(&leaves);
  return MHD_NO;
}

static void start(const struct watch_options *options) {
  union MHD_DaemonInfo const *info;
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  calls = leaves = overdue_calls = 0;
  sleeper = NULL;
  watch = watch_new(options, NULL);
  assert_non_null(watch);
  server = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
                            on_request, NULL, MHD_OPTION_SOCK_ADDR, &any, MHD_OPTION_NOTIFY_CONNECTION,
                            on_connection, NULL, MHD_OPTION_END);
  assert_non_null(server);
  info = MHD_get_daemon_info(server, MHD_DAEMON_INFO_BIND_PORT);
  port = info->port;
}

static void stop(void) {
  watch_release(watch);
  MHD_stop_daemon(server);
  assert_int_equal(watch_count(watch), 0);
  watch_free(watch);
}

static int ask(const char *text) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct timeval patience = {PATIENCE_MS / 1000, 0};
  int fd = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
  assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
  return fd;
}

static void get(const char *path, int *fd) {
  char request[100];
  snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
  *fd = ask(request);
}

/* What the server says next, up to its end or one packet; "" at the end, "timeout" when it says nothing. */
static const char *hear(int fd) {
  static char text[4096];
  ssize_t n = recv(fd, text, sizeof text - 1, 0);
  if (n < 0) return "timeout";
  text[n] = '\0';
  return text;
}

static const struct watch_options no_deadlines = {.max_peers = 8};

static void early_wake_is_kept(void **state) {
  (void)state;
  int fd;
  start(&no_deadlines);
  for (int i = 0; i < 100; i++) {
    get("/early", &fd);
    assert_non_null(strstr(hear(fd), "woken"));
    close(fd);
  }
  stop();
}

static void wake_resumes_once(void **state) {
  (void)state;
  int fd;
  start(&no_deadlines);
  get("/late", &fd);
  assert_true(becomes(&calls, 1));
  while (!__atomic_load_n(&sleeper, __ATOMIC_SEQ_CST)) poll(NULL, 0, 1);
  poll(NULL, 0, 20);
  for (int i = 0; i < 10; i++) peer_wake(sleeper);
  assert_non_null(strstr(hear(fd), "woken"));
  assert_int_equal(count(&calls), 2); /* not once for each wake */
  close(fd);
  stop();
}

static void hangup_wakes(void **state) {
  (void)state;
  int fd;
  start(&no_deadlines);
  get("/sleep", &fd); /* only one who knows that the client has gone does not sleep again */
  assert_true(becomes(&calls, 1));
  close(fd);
  for (int i = 0; i < PATIENCE_MS && watch_count(watch); i++) poll(NULL, 0, 1);
  assert_int_equal(watch_count(watch), 0);
  stop();
}

static void release_wakes_and_forbids_sleep(void **state) {
  (void)state;
  int fd, other;
  start(&no_deadlines);
  get("/sleep", &fd);
  assert_true(becomes(&calls, 1));
  poll(NULL, 0, 20);
  watch_release(watch);
  assert_true(becomes(&leaves, 1));
  get("/sleep", &other);
  assert_true(becomes(&leaves, 2));
  assert_string_equal(hear(fd), "");
  close(fd);
  close(other);
  stop();
}

static void stop_beside_sleepers(void **state) {
  (void)state;
  int fds[8];
  start(&no_deadlines);
  for (int i = 0; i < 8; i++) get("/sleep", &fds[i]);
  assert_true(becomes(&calls, 8));
  stop(); /* the library would abort */
  for (int i = 0; i < 8; i++) close(fds[i]);
}

static void too_many_are_shut(void **state) {
  (void)state;
  struct watch_options two = {.max_peers = 2};
  int a, b, c;
  start(&two);
  get("/early", &a);
  hear(a);
  get("/early", &b);
  hear(b);
  get("/early", &c);
  assert_null(strstr(hear(c), "woken"));
  close(a), close(b), close(c);
  stop();
}

static void deadlines(void **state) {
  (void)state;
  struct watch_options quick = {.max_peers = 8, .overdue = on_overdue};
  quick.timeout_ms[PEER_HEAD] = 100;
  quick.timeout_ms[PEER_WORK] = 200;
  start(&quick);
  int64_t begin = clock_ns();
  int silent = ask(""), working;
  assert_string_equal(hear(silent), "");
  assert_true(clock_ns() - begin >= 100 * 1000000LL);
  assert_int_equal(count(&overdue_calls), 0); /* nobody had asked for anything */
  get("/sleep", &working);
  assert_string_equal(hear(working), ""); /* an overdue sleeper is woken and cut */
  assert_true(becomes(&leaves, 1));
  close(silent), close(working);
  stop();
}

/* Each of them reads some bytes every 20 ms, 30,000 in a second, until that long has passed or `until` connections are left. */
static void read_slowly(const int *fds, int n, int for_ms, size_t until) {
  char piece[600];
  for (int64_t end = clock_ns() + (int64_t)for_ms * 1000000; clock_ns() < end && watch_count(watch) > until; poll(NULL, 0, 20))
    for (int i = 0; i < n; i++) (void)!recv(fds[i], piece, sizeof piece, MSG_DONTWAIT);
}

static size_t read_all(int fd) {
  char piece[65536];
  size_t total = 0;
  for (ssize_t n; total < LENGTH && (n = recv(fd, piece, sizeof piece, 0)) > 0;) total += (size_t)n;
  return total;
}

/* A window is a second, and 150,000 bytes the least in one. The slow ones make progress all the time: a stalled one would be cut too. */
static void slow_readers_of_what_is_ready_are_cut(void **state) {
  (void)state;
  struct watch_options least = {.max_peers = 8, .least_rate = 150000};
  least.timeout_ms[PEER_SEND] = least.timeout_ms[PEER_FLOW] = 1000;
  int slow[2], fast;
  start(&least);
  get("/ready", &slow[0]), get("/events", &slow[1]), get("/ready", &fast);
  assert_true(read_all(fast) >= LENGTH);
  close(fast);
  read_slowly(slow, 2, PATIENCE_MS, 1);
  assert_int_equal(watch_count(watch), 1);
  read_slowly(&slow[1], 1, 2000, 0);
  assert_int_equal(watch_count(watch), 1); /* that of events goes on */
  close(slow[0]), close(slow[1]);
  stop();
}

static void any_pace_will_do_where_no_rate_is_asked(void **state) {
  (void)state;
  struct watch_options any = {.max_peers = 8};
  any.timeout_ms[PEER_SEND] = 1000;
  int fd;
  start(&any);
  get("/ready", &fd);
  for (int i = 0; i < PATIENCE_MS && !watch_count(watch); i++) poll(NULL, 0, 1);
  read_slowly(&fd, 1, 2500, 0);
  assert_int_equal(watch_count(watch), 1);
  close(fd);
  stop();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(early_wake_is_kept),   cmocka_unit_test(wake_resumes_once),
      cmocka_unit_test(hangup_wakes),         cmocka_unit_test(release_wakes_and_forbids_sleep),
      cmocka_unit_test(stop_beside_sleepers), cmocka_unit_test(too_many_are_shut),
      cmocka_unit_test(deadlines),            cmocka_unit_test(slow_readers_of_what_is_ready_are_cut),
      cmocka_unit_test(any_pace_will_do_where_no_rate_is_asked)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
