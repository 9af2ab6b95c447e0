/* Runs curl and waits for it. Knows HTTP's statuses only as numbers, and nothing of what is fetched. */
#include "core/base/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buffer.h"

#define GLANCE_MS 20
#define CURL_HTTP_REFUSED 22   /* --fail, and a status of 400 or more */
#define CURL_RANGE_REFUSED 33  /* the server sent all where a part was asked for */
#define STATUS_RANGE_REFUSED 416

extern char **environ;

/* ---- what curl is told ---- */

/* A value of curl's configuration: in quotes, where backslashes protect. */
static void add_quoted(struct buffer *out, const char *name, const char *before, const char *value) {
  buffer_printf(out, "%s = \"%s", name, before);
  for (; *value; value++) {
    if (*value == '"' || *value == '\\') buffer_char(out, '\\');
    buffer_char(out, *value);
  }
  buffer_text(out, "\"\n");
}

/* On its standard input, so that the token stands in no list of processes. Without a buffer, what came is in the file when it is ended. A server that sends less than 1 KiB/s for a
 * minute has stalled; what passes (429, 5xx, a timeout) is tried three times more, with growing pauses. */
static void write_configuration(const struct fetch *fetch, bool resume, struct buffer *out) {
  bool secure = strncmp(fetch->url, "https://", 8) == 0;
  buffer_text(out, "silent\nshow-error\nfail\nno-buffer\nlocation\nmax-redirs = 8\nconnect-timeout = 30\nspeed-limit = 1024\nspeed-time = 60\n"
                   "retry = 3\nuser-agent = \"steerd\"\nwrite-out = \"%{http_code}\"\n");
  buffer_printf(out, "proto = \"=%s\"\nproto-redir = \"=%s\"\n", secure ? "https" : "http,https", secure ? "https" : "http,https");
  if (fetch->most) buffer_printf(out, "max-filesize = %lld\n", (long long)fetch->most);
  if (resume) buffer_text(out, "continue-at = -\n");
  if (fetch->token) add_quoted(out, "header", "Authorization: Bearer ", fetch->token);
  add_quoted(out, "output", "", fetch->path);
  add_quoted(out, "url", "", fetch->url);
}

/* ---- the process ---- */

struct curl {
  pid_t pid;
  int in, out, err; /* our ends of its pipes */
};

static void close_pipes(const int *descriptors, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (descriptors[i] >= 0) close(descriptors[i]);
}

static int spawn(struct curl *curl, int pipes[6], struct error *error) {
  static char *const arguments[] = {"curl", "--config", "-", NULL};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipes[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipes[3], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipes[5], STDERR_FILENO);
  int failed = posix_spawnp(&curl->pid, "curl", &actions, NULL, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed == ENOENT)
    return error_set(error, ERROR_NOT_FOUND, "the program 'curl', which fetches files, is not there: apt-get install curl");
  return failed ? error_set(error, ERROR_IO, "cannot run curl: %s", strerror(failed)) : 0;
}

static int start(struct curl *curl, struct error *error) {
  int pipes[6] = {-1, -1, -1, -1, -1, -1}; /* it reads 0, we write 1; we read 2, it writes 3; we read 4, it writes 5 */
  if (pipe2(pipes, O_CLOEXEC) || pipe2(pipes + 2, O_CLOEXEC) || pipe2(pipes + 4, O_CLOEXEC)) {
    close_pipes(pipes, 6);
    return error_set(error, ERROR_IO, "cannot make a pipe: %s", strerror(errno));
  }
  int failed = spawn(curl, pipes, error);
  const int its[] = {pipes[0], pipes[3], pipes[5]}, ours[] = {pipes[1], pipes[2], pipes[4]};
  close_pipes(its, 3);
  if (failed) close_pipes(ours, 3);
  curl->in = pipes[1], curl->out = pipes[2], curl->err = pipes[4];
  return failed;
}

/* A pipe holds 64 KiB, many times what is written here. A curl that has ended without reading is told of by its status. */
static void hand_over(struct curl *curl, const struct buffer *configuration) {
  struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
  sigaction(SIGPIPE, &ignore, &before);
  ssize_t written = write(curl->in, configuration->data, configuration->length);
  (void)written;
  close(curl->in);
  sigaction(SIGPIPE, &before, NULL);
}

static int64_t size_of(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 ? (int64_t)info.st_size : 0;
}

/* Its exit status; true in *stopped when somebody wished it to end. */
static int wait_for(const struct curl *curl, const struct fetch *fetch, bool *stopped) {
  int ended = 0;
  pid_t got;
  while ((got = waitpid(curl->pid, &ended, WNOHANG)) == 0) {
    poll(NULL, 0, GLANCE_MS);
    if (*stopped || !fetch->tell || !fetch->tell(fetch->context, size_of(fetch->path))) continue;
    *stopped = true;
    kill(curl->pid, SIGTERM);
  }
  return got == curl->pid && WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
}

/* What stands in a pipe whose writer has ended, cut to fit. */
static void read_rest(int from, char *out, size_t size) {
  ssize_t n = read(from, out, size - 1);
  out[n > 0 ? n : 0] = '\0';
  out[strcspn(out, "\n")] = '\0';
  close(from);
}

/* ---- one try ---- */

struct outcome {
  int exit, status;
  bool stopped;
  char words[256]; /* curl's, without its "curl: (N) " */
};

static int run(const struct fetch *fetch, bool resume, struct outcome *out, struct error *error) {
  struct buffer configuration;
  struct curl curl;
  char status[16], words[256];
  memset(out, 0, sizeof *out);
  buffer_init(&configuration, 0);
  write_configuration(fetch, resume, &configuration);
  int failed = buffer_check(&configuration, error) || start(&curl, error);
  if (!failed) {
    hand_over(&curl, &configuration);
    out->exit = wait_for(&curl, fetch, &out->stopped);
    read_rest(curl.out, status, sizeof status);
    read_rest(curl.err, words, sizeof words);
    out->status = atoi(status);
    const char *behind = strncmp(words, "curl: (", 7) == 0 ? strstr(words, ") ") : NULL;
    snprintf(out->words, sizeof out->words, "%s", behind ? behind + 2 : words);
  }
  buffer_clear(&configuration);
  return failed ? -1 : 0;
}

static bool wants_whole(const struct outcome *outcome) {
  return outcome->exit == CURL_RANGE_REFUSED || outcome->status == STATUS_RANGE_REFUSED;
}

/* The connection ended in the middle: too few bytes, a timeout, an error of receiving, or one of an HTTP/2 stream. */
static bool broke_off(const struct outcome *outcome) {
  static const int exits[] = {18, 28, 56, 92};
  for (size_t i = 0; i < sizeof exits / sizeof *exits; i++)
    if (outcome->exit == exits[i]) return true;
  return false;
}

/* As long as each try brings more bytes it goes on where the one before it ended. */
static int run_on(const struct fetch *fetch, struct outcome *out, struct error *error) {
  for (;;) {
    int64_t before = size_of(fetch->path);
    if (run(fetch, before > 0, out, error) != 0) return -1;
    if (out->stopped) return 0;
    if (before > 0 && wants_whole(out))
      unlink(fetch->path);
    else if (!broke_off(out) || size_of(fetch->path) <= before)
      return 0;
  }
}

int fetch_file(const struct fetch *fetch, int *status, struct error *error) {
  struct outcome outcome;
  if (run_on(fetch, &outcome, error) != 0) return -1;
  *status = outcome.status;
  if (outcome.stopped) return error_set(error, ERROR_CANCELLED, "stopped while '%.200s' came", fetch->url);
  if (outcome.exit == 0 || (outcome.exit == CURL_HTTP_REFUSED && outcome.status >= 400)) return 0;
  return error_set(error, ERROR_IO, "cannot fetch '%.200s': %s", fetch->url,
                   *outcome.words ? outcome.words : "curl ended without saying why");
}
