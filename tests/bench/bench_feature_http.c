/* bench_feature_http: GET /api/feature over HTTP at 32 and at 1 kept-alive connections, beside a bare libmicrohttpd handler.
 *
 *   bench_feature_http [STEERD]     the daemon; default: ../steerd beside this program
 *
 * The daemon runs with its defaults on a store that `steerd stats` filled for the tiny GPT-2 of tests/vectors. The bare
 * server has the same flags and threads and keeps, for every feature, a finished response of the very same bytes
 * (but for the request's id). Both are processes of their own; rounds of them alternate. One thread here asks, each connection
 * for the next feature as soon as it has its reply. On a machine with few processors the asking costs both the same,
 * so the processor time of the servers is printed too: that is what a machine would need to serve as much.
 * Shares are medians over the rounds, with their quartiles. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define TARGET "/api/feature/tiny-gpt2/1-res-relu/"
#define FEATURES 96
#define THREADS 2 /* the daemon's default for http_threads */
#define CONNECTIONS 32
#define ROUNDS 31 /* short and many: neighbours come and go within seconds */
#define ROUND_NS 250000000LL
#define SAMPLES (1 << 20) /* of a round at most */
#define REPLY_MOST 65536

static void stop(const char *what) {
  fprintf(stderr, "bench_feature_http: %s: %s\n", what, errno ? strerror(errno) : "failed");
  exit(1);
}

/* ---- processes ---------------------------------------------------------------------------------------- */

struct server {
  pid_t pid;
  int port;
};

static pid_t spawn(char *const argv[], int output) {
  pid_t pid = fork();
  if (pid < 0) stop("fork");
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int null = open("/dev/null", O_RDWR);
  dup2(null, 0);
  dup2(output >= 0 ? output : null, 1);
  dup2(null, 2);
  execv(argv[0], argv);
  _exit(127);
}

static void fill_store(const char *daemon, const char *store) {
  /* Two examples make replies of about 5 KB. */
  char *argv[] = {(char *)(uintptr_t)daemon, "stats", "tiny-gpt2", "1-res-relu", "--corpus", TINY "corpus.txt",
                  "--top", "2", "--quantile", "0", "--store", (char *)(uintptr_t)store, "--model", "tiny-gpt2=" TINY "model",
                  "--source", "tiny-gpt2/1-res-relu=" TINY "sources/1-res-relu", NULL};
  int status;
  pid_t pid = spawn(argv, -1);
  errno = 0;
  if (waitpid(pid, &status, 0) != pid || status != 0) stop("steerd stats");
}

static struct server start_daemon(const char *daemon, const char *store) {
  char *argv[] = {(char *)(uintptr_t)daemon, "serve", "--listen", "127.0.0.1:0", "--store", (char *)(uintptr_t)store,
                  "--model", "tiny-gpt2=" TINY "model", "--source",
                  "tiny-gpt2/1-res-relu=" TINY "sources/1-res-relu", NULL};
  int ends[2];
  if (pipe(ends) != 0) stop("pipe");
  struct server server = {.pid = spawn(argv, ends[1])};
  close(ends[1]);
  FILE *lines = fdopen(ends[0], "r");
  char line[256];
  errno = 0;
  if (!lines || !fgets(line, sizeof line, lines) || sscanf(line, "ready http://127.0.0.1:%d", &server.port) != 1)
    stop("the daemon did not start");
  fclose(lines);
  return server;
}

static void end(struct server *server) {
  kill(server->pid, SIGTERM);
  waitpid(server->pid, NULL, 0);
}

/* User and system seconds of a process. */
static double cpu_seconds(pid_t pid) {
  char path[64], line[1024];
  unsigned long user = 0, kernel = 0;
  snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
  FILE *file = fopen(path, "r");
  if (!file || !fgets(line, sizeof line, file)) stop(path);
  fclose(file);
  char *behind = strrchr(line, ')');
  if (behind) sscanf(behind + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
  return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- the bare server ---------------------------------------------------------------------------------- */

/* A whole reply as the daemon sent it. */
struct reply {
  char *bytes;
  size_t length, head; /* head: up to the body */
};
static struct reply replies[FEATURES];

static struct MHD_Response *finished[FEATURES];

static enum MHD_Result bare(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                            const char *version, const char *data, size_t *size, void **request) {
  (void)context, (void)method, (void)version, (void)data, (void)size;
  if (!*request) { /* the head alone: the answer belongs to the second call */
    *request = replies;
    return MHD_YES;
  }
  return MHD_queue_response(connection, 200, finished[atoi(strrchr(url, '/') + 1)]);
}

/* The same header lines, without those that the library writes itself. */
static struct MHD_Response *finish(const struct reply *reply) {
  struct MHD_Response *response = MHD_create_response_from_buffer(
      reply->length - reply->head, reply->bytes + reply->head, MHD_RESPMEM_PERSISTENT);
  char head[4096];
  snprintf(head, sizeof head, "%.*s", (int)reply->head, reply->bytes);
  char *at = strchr(head, '\n') + 1;
  for (char *line_end; response && (line_end = strstr(at, "\r\n")) != NULL && line_end != at; at = line_end + 2) {
    *line_end = '\0';
    char *value = strstr(at, ": ");
    if (!value || !strncmp(at, "Date:", 5) || !strncmp(at, "Content-Length:", 15)) continue;
    *value = '\0';
    if (MHD_add_response_header(response, at, value + 2) != MHD_YES) stop("header");
  }
  return response;
}

static void run_bare(int listener) {
  for (int i = 0; i < FEATURES; i++)
    if (!(finished[i] = finish(&replies[i]))) stop("response");
  struct MHD_Daemon *daemon = MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, bare, NULL,
      MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_END);
  if (!daemon) stop("libmicrohttpd");
  for (;;) pause();
}

static struct server start_bare(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 256) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &size) != 0)
    stop("listen");
  struct server server = {.pid = fork(), .port = ntohs(address.sin_port)};
  if (server.pid < 0) stop("fork");
  if (server.pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    run_bare(listener);
  }
  close(listener);
  return server;
}

/* ---- asking ------------------------------------------------------------------------------------------- */

static int dial(const struct server *server) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) stop("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static void ask(int fd, int feature) {
  char request[256];
  int n = snprintf(request, sizeof request, "GET " TARGET "%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", feature);
  if (send(fd, request, (size_t)n, MSG_NOSIGNAL) != n) stop("send");
}

/* The daemon's own reply, once for every feature: what both must send from then on. */
static void learn(const struct server *server) {
  int fd = dial(server);
  static char bytes[REPLY_MOST + 1];
  for (int i = 0; i < FEATURES; i++) {
    size_t length = 0, whole = SIZE_MAX, head = 0;
    ask(fd, i);
    while (length < whole) {
      ssize_t n = recv(fd, bytes + length, REPLY_MOST - length, 0);
      if (n <= 0) stop("reply");
      bytes[length += (size_t)n] = '\0';
      const char *body = strstr(bytes, "\r\n\r\n"), *said = strstr(bytes, "Content-Length: ");
      if (whole != SIZE_MAX || !body || !said) continue;
      head = (size_t)(body + 4 - bytes);
      whole = head + strtoul(said + 16, NULL, 10);
    }
    if (strncmp(bytes, "HTTP/1.1 200", 12) != 0) stop("a feature is missing");
    replies[i] = (struct reply){malloc(length), length, head};
    if (!replies[i].bytes) stop("memory");
    memcpy(replies[i].bytes, bytes, length);
  }
  close(fd);
}

struct asker {
  int fd, feature;
  size_t got;
  int64_t begin;
};

struct fleet {
  const char *name;
  struct server server;
  struct asker askers[CONNECTIONS];
  int epoll, connections;
  double rate[ROUNDS], p50[ROUNDS], p99[ROUNDS], cpu[ROUNDS]; /* requests/s, ms, ms, us of the server a request */
};

static void fleet_open(struct fleet *fleet, int connections) {
  fleet->epoll = epoll_create1(EPOLL_CLOEXEC);
  fleet->connections = connections;
  for (int i = 0; i < connections; i++) {
    struct asker *a = &fleet->askers[i];
    *a = (struct asker){.fd = dial(&fleet->server), .feature = i % FEATURES};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = a};
    if (epoll_ctl(fleet->epoll, EPOLL_CTL_ADD, a->fd, &event) != 0) stop("epoll");
  }
}

/* Takes what has come; true when the reply is whole. Replies of a feature all have the same length: ids and dates do. */
static bool take(struct asker *a) {
  static char bytes[REPLY_MOST];
  ssize_t n = recv(a->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return false;
  if (n <= 0) stop("a connection was closed");
  if (a->got == 0 && n >= 12 && memcmp(bytes, "HTTP/1.1 200", 12) != 0) stop("a reply is not 200");
  a->got += (size_t)n;
  if (a->got > replies[a->feature].length) stop("a reply is longer than the first one was");
  return a->got == replies[a->feature].length;
}

static void fleet_close(struct fleet *fleet) {
  for (int i = 0; i < fleet->connections; i++) close(fleet->askers[i].fd);
  close(fleet->epoll);
}

static int ascending(const void *left, const void *right) {
  int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
  return (a > b) - (a < b);
}

static void run_round(struct fleet *fleet, int round) {
  static int64_t times[SAMPLES];
  struct epoll_event events[CONNECTIONS];
  size_t done = 0;
  int open = fleet->connections;
  int64_t begin = clock_ns(), now = begin;
  double cpu = cpu_seconds(fleet->server.pid);
  for (int i = 0; i < fleet->connections; i++) {
    fleet->askers[i].got = 0;
    fleet->askers[i].begin = begin;
    ask(fleet->askers[i].fd, fleet->askers[i].feature);
  }
  while (open > 0) {
    int n = epoll_wait(fleet->epoll, events, fleet->connections, 10000);
    if (n <= 0) stop("no reply");
    for (int i = 0; i < n; i++) {
      struct asker *a = events[i].data.ptr;
      if (!take(a)) continue;
      now = clock_ns();
      if (done < SAMPLES) times[done] = now - a->begin;
      done++;
      if (now - begin > ROUND_NS) { /* this connection rests */
        open--;
        continue;
      }
      a->feature = (a->feature + 1) % FEATURES;
      a->got = 0;
      a->begin = now;
      ask(a->fd, a->feature);
    }
  }
  size_t n = done < SAMPLES ? done : SAMPLES;
  qsort(times, n, sizeof *times, ascending);
  fleet->rate[round] = (double)done / ((double)(now - begin) * 1e-9);
  fleet->p50[round] = (double)times[n / 2] * 1e-6;
  fleet->p99[round] = (double)times[n * 99 / 100] * 1e-6;
  fleet->cpu[round] = (cpu_seconds(fleet->server.pid) - cpu) / (double)done * 1e6;
}

/* ---- the report --------------------------------------------------------------------------------------- */

static int ascending_double(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

static double median(const double *values) {
  double sorted[ROUNDS];
  memcpy(sorted, values, sizeof sorted);
  qsort(sorted, ROUNDS, sizeof *sorted, ascending_double);
  return sorted[ROUNDS / 2];
}

static void report(const struct fleet *fleet) {
  printf("%-22s %8.0f requests/s  p50 %6.3f ms  p99 %6.3f ms  %6.1f us of its processors a request\n", fleet->name,
         median(fleet->rate), median(fleet->p50), median(fleet->p99), median(fleet->cpu));
}

/* The median, and between which values half of the rounds lie. */
static void report_share(const char *what, const double *values, double scale) {
  double sorted[ROUNDS];
  memcpy(sorted, values, sizeof sorted);
  qsort(sorted, ROUNDS, sizeof *sorted, ascending_double);
  int digits = scale > 1 ? 0 : 2;
  printf("%s %.*f (quartiles %.*f and %.*f)", what, digits, scale * sorted[ROUNDS / 2], digits,
         scale * sorted[ROUNDS / 4], digits, scale * sorted[ROUNDS * 3 / 4]);
}

static void compare(struct fleet *ours, struct fleet *theirs, int connections) {
  double share[ROUNDS], work[ROUNDS];
  fleet_open(ours, connections);
  fleet_open(theirs, connections);
  for (int r = 0; r < ROUNDS; r++) {
    run_round(theirs, r);
    run_round(ours, r);
    share[r] = ours->rate[r] / theirs->rate[r];
    work[r] = ours->cpu[r] / theirs->cpu[r];
  }
  printf("%d connection%s, %d rounds each of %.2f s in turns\n", connections, connections > 1 ? "s" : "", ROUNDS,
         (double)ROUND_NS * 1e-9);
  report(theirs);
  report(ours);
  report_share("share of the bare handler in %:", share, 100);
  report_share("; processor time:", work, 1);
  printf("%s\n\n", connections > 1 ? "; goal 85 %" : "");
  fleet_close(ours);
  fleet_close(theirs);
}

int main(int argc, char **argv) {
  char folder[] = "/tmp/steerd-bench-XXXXXX", store[64], daemon[4096], command[96];
  signal(SIGPIPE, SIG_IGN);
  const char *slash = strrchr(argv[0], '/');
  snprintf(daemon, sizeof daemon, "%.*s../steerd", slash ? (int)(slash + 1 - argv[0]) : 0, argv[0]);
  if (argc > 1) snprintf(daemon, sizeof daemon, "%s", argv[1]);
  if (access(daemon, X_OK) != 0 || access(TINY "corpus.txt", R_OK) != 0) {
    printf("skip: bench_feature_http (needs '%s' and %s; run it in the repository's root)\n", daemon, TINY);
    return 0;
  }
  if (!mkdtemp(folder)) stop(folder);
  snprintf(store, sizeof store, "%s/store.db", folder);
  fill_store(daemon, store);
  static struct fleet ours = {.name = "steerd /api/feature"}, theirs = {.name = "bare libmicrohttpd"};
  ours.server = start_daemon(daemon, store);
  learn(&ours.server);
  theirs.server = start_bare();
  size_t bytes = 0;
  for (int i = 0; i < FEATURES; i++) bytes += replies[i].length - replies[i].head;
  printf("%d server threads, bodies of %zu bytes on average\n\n", THREADS, bytes / FEATURES);
  compare(&ours, &theirs, CONNECTIONS);
  compare(&ours, &theirs, 1);
  end(&ours.server);
  end(&theirs.server);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command) != 0;
}
