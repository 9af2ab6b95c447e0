/* Connections are taken at several addresses and handed on; a stop turns clients away at once, also under a storm of them and
 * beside the real library, which aborts about once in two thousand stops where it listens by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "server/acceptor.h"

/* A thread of the library that is told to end closes what it was given and has not begun; that it was told is a plain flag there. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:libmicrohttpd.so\n"; }

enum {
  PATIENCE_MS = 5000, /* far above anything that is waited for here, so that a slow machine is no failure */
  CLIENTS = 6,
  STOPS = 300
};

static struct error error = ERROR_INIT;

static int port_of(const struct listener *listener) { return atoi(strrchr(listener->url, ':') + 1); }

static struct listener open_listener(const char *address) {
  struct listener listener;
  assert_int_equal(listener_open(address, &listener, &error), 0);
  assert_int_equal(listener_listen(&listener, &error), 0);
  return listener;
}

/* A connected socket, or -1. */
static int reach(int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
  close(fd);
  return -1;
}

/* Every connection is told at which listener it came in, from which port, and whether it would block. */
static void greet(void *context, size_t i, int fd, const struct sockaddr *peer, socklen_t length) {
  assert_ptr_equal(context, &error);
  assert_true(length >= sizeof(struct sockaddr_in));
  uint16_t port = ((const struct sockaddr_in *)(const void *)peer)->sin_port;
  char word[4] = {(char)('0' + i), (char)(port >> 8), (char)port, fcntl(fd, F_GETFL) & O_NONBLOCK ? 'n' : 'b'};
  assert_int_equal(send(fd, word, sizeof word, 0), (int)sizeof word);
  close(fd);
}

static void check_greeting(int fd, char place) {
  struct sockaddr_in own;
  socklen_t length = sizeof own;
  char word[4];
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &length), 0);
  assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
  assert_int_equal(recv(fd, word, sizeof word, MSG_WAITALL), 4);
  const char want[4] = {place, (char)(own.sin_port >> 8), (char)own.sin_port, 'n'};
  assert_memory_equal(word, want, 4);
  assert_int_equal(recv(fd, word, 1, 0), 0); /* its descriptor is free again */
  close(fd);
}

static void hands_on(void **state) {
  (void)state;
  struct listener two[] = {open_listener("127.0.0.1:0"), open_listener("127.0.0.1:0")};
  struct acceptor *acceptor = acceptor_start(two, 2, greet, &error, &error);
  assert_non_null(acceptor);
  assert_int_equal(two[0].fd, -1);
  for (int k = 0; k < 100; k++) check_greeting(reach(port_of(&two[k % 2])), (char)('0' + k % 2));
  acceptor_stop(acceptor);
  assert_int_equal(reach(port_of(&two[0])), -1);
  assert_int_equal(reach(port_of(&two[1])), -1);
  struct listener again = open_listener(two[0].url + strlen("http://")); /* the port is free */
  listener_close(&again);
}

/* Without descriptors a connection waits; it is taken when there is room again, and a stop is not held up. */
static void waits_for_room(void **state) {
  (void)state;
  struct listener one[] = {open_listener("127.0.0.1:0")};
  struct acceptor *acceptor = acceptor_start(one, 1, greet, &error, &error);
  assert_non_null(acceptor);
  int a = reach(port_of(&one[0]));
  check_greeting(a, '0');
  int b = socket(AF_INET, SOCK_STREAM, 0), lowest = dup(b);
  struct rlimit before, none;
  close(lowest);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = (struct rlimit){(rlim_t)lowest, before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port_of(&one[0])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int reached = connect(b, (struct sockaddr *)&to, sizeof to);
  struct pollfd wait = {.fd = b, .events = POLLIN};
  clock_t begin = clock();
  int early = poll(&wait, 1, 200);
  clock_t worked = clock() - begin;
  setrlimit(RLIMIT_NOFILE, &before);
  assert_int_equal(reached, 0);
  assert_int_equal(early, 0);
  assert_true(worked < CLOCKS_PER_SEC / 100); /* four looks; asking over and over takes all of a processor */
  check_greeting(b, '0');
  acceptor_stop(acceptor);
}

/* ---- beside the library ------------------------------------------------------------------------------- */

static int target; /* the port that clients storm; 0: they wait */
static int over;

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **request) {
  (void)context, (void)url, (void)method, (void)version, (void)data, (void)size;
  if (!*request) return *request = &target, MHD_YES;
  struct MHD_Response *r = MHD_create_response_from_buffer(2, (void *)(uintptr_t)"ok", MHD_RESPMEM_PERSISTENT);
  enum MHD_Result result = MHD_queue_response(connection, 200, r);
  MHD_destroy_response(r);
  return result;
}

static void add(void *context, size_t i, int fd, const struct sockaddr *peer, socklen_t length) {
  (void)i;
  MHD_add_connection(*(struct MHD_Daemon **)context, fd, peer, length);
}

static void *storm(void *context) {
  static const char ask[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  (void)context;
  while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
    int port = __atomic_load_n(&target, __ATOMIC_RELAXED), fd = port ? reach(port) : -1;
    char reply[512];
    struct timeval patience = {PATIENCE_MS / 1000, 0};
    struct linger rude = {1, 0};
    if (!port) poll(NULL, 0, 1);
    if (fd < 0) continue;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int i = 0; i < 20 && __atomic_load_n(&target, __ATOMIC_RELAXED) == port; i++)
      if (send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) <= 0 || recv(fd, reply, sizeof reply, 0) <= 0) break;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &rude, sizeof rude);
    close(fd);
  }
  return NULL;
}

static void start_and_stop(int round) {
  struct MHD_Daemon *daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET,
                                               0, NULL, NULL, on_request, NULL, MHD_OPTION_THREAD_POOL_SIZE, 4u, MHD_OPTION_END);
  struct listener one[] = {open_listener("127.0.0.1:0")};
  assert_non_null(daemon);
  struct acceptor *acceptor = acceptor_start(one, 1, add, &daemon, &error);
  assert_non_null(acceptor);
  __atomic_store_n(&target, port_of(&one[0]), __ATOMIC_RELAXED);
  usleep(200 + (unsigned)round * 37 % 2000);
  acceptor_stop(acceptor);
  __atomic_store_n(&target, 0, __ATOMIC_RELAXED);
  MHD_stop_daemon(daemon);
}

static void stops_in_a_storm(void **state) {
  (void)state;
  pthread_t clients[CLIENTS];
  for (int i = 0; i < CLIENTS; i++) assert_int_equal(pthread_create(&clients[i], NULL, storm, NULL), 0);
  for (int round = 0; round < STOPS; round++) start_and_stop(round);
  __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < CLIENTS; i++) pthread_join(clients[i], NULL);
}

static void nothing_to_stop(void **state) {
  (void)state;
  acceptor_stop(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(hands_on), cmocka_unit_test(waits_for_room),
                                     cmocka_unit_test(stops_in_a_storm), cmocka_unit_test(nothing_to_stop)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
