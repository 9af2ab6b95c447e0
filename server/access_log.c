/* Owns the wording of log lines. Refuses to know where the numbers come from. */
#include "server/access_log.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/base/number.h"
#include "core/base/utf8.h"

enum {
  METHOD_MOST = 16,
  PATH_MOST = 200,       /* bytes; quoting makes at most six of each */
  MESSAGE_MOST = 2048,
  LINE_MOST = 6 * MESSAGE_MOST + 256,
  GATHERED_MOST = 1 << 16,
  GATHERING_MS = 20      /* how late a request's line may be */
};

static bool as_json, with_requests = true;

/* Control characters, and marks that reorder or hide text. */
static bool disturbs(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || (c >= 0x200B && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

/* Bytes from `text` on that stand for themselves. */
static size_t plain_length(const char *text, size_t length) {
  size_t n = 0;
  while (n < length && text[n] >= 0x20 && text[n] < 0x7F && text[n] != '"' && text[n] != '\\') n++;
  return n;
}

void access_log_quote(struct buffer *out, const char *text, size_t most) {
  size_t length = strnlen(text, most);
  buffer_char(out, '"');
  for (size_t i = 0; i < length;) {
    size_t plain = plain_length(text + i, length - i);
    buffer_append(out, text + i, plain);
    i += plain;
    if (i == length) break;
    uint32_t point = 0xFFFD;
    int n = utf8_next(text + i, length - i, &point);
    if (n <= 0) {
      n = 1;
      point = 0xFFFD;
    }
    if (point == '"' || point == '\\')
      buffer_printf(out, "\\%c", (char)point);
    else if (disturbs(point) || point == 0xFFFD)
      buffer_printf(out, "\\u%04x", point);
    else
      buffer_append(out, text + i, (size_t)n);
    i += (size_t)n;
  }
  buffer_char(out, '"');
}

/* ---- lines on their way to standard error ------------------------------------------------------------ */

/* Lines of requests are gathered and written together, off the path of the requests; any other line takes what is
 * gathered with it, so that the order stays. */
static struct {
  pthread_mutex_t writing; /* held while bytes go out; taken before `lock` */
  pthread_mutex_t lock;    /* guards what follows */
  pthread_cond_t news;
  size_t length;
  char bytes[GATHERED_MOST];
  bool running, stop;
  pthread_t thread;
} gathered = {.writing = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER};

static void write_all(const char *bytes, size_t length) {
  while (length) {
    ssize_t n = write(STDERR_FILENO, bytes, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    bytes += n;
    length -= (size_t)n;
  }
}

/* Writes what is gathered, and `line` behind it. */
static void write_out(const char *line, size_t length) {
  static char bytes[GATHERED_MOST]; /* under `writing` */
  pthread_mutex_lock(&gathered.writing);
  pthread_mutex_lock(&gathered.lock);
  size_t n = gathered.length;
  memcpy(bytes, gathered.bytes, n);
  gathered.length = 0;
  pthread_mutex_unlock(&gathered.lock);
  write_all(bytes, n);
  write_all(line, length);
  pthread_mutex_unlock(&gathered.writing);
}

static void gather(const char *line, size_t length) {
  pthread_mutex_lock(&gathered.lock);
  bool takes = gathered.running && gathered.length + length <= GATHERED_MOST, first = gathered.length == 0;
  if (takes) {
    memcpy(gathered.bytes + gathered.length, line, length);
    gathered.length += length;
    if (first) pthread_cond_signal(&gathered.news);
  }
  pthread_mutex_unlock(&gathered.lock);
  if (!takes) write_out(line, length);
}

static void *run(void *context) {
  (void)context;
  pthread_mutex_lock(&gathered.lock);
  while (!gathered.stop) {
    while (!gathered.stop && gathered.length == 0) pthread_cond_wait(&gathered.news, &gathered.lock);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += GATHERING_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    int rc = 0;
    while (!gathered.stop && rc == 0) rc = pthread_cond_timedwait(&gathered.news, &gathered.lock, &until);
    pthread_mutex_unlock(&gathered.lock);
    write_out(NULL, 0);
    pthread_mutex_lock(&gathered.lock);
  }
  pthread_mutex_unlock(&gathered.lock);
  return NULL;
}

void access_log_start(void) {
  gathered.stop = false;
  /* Without the thread every line is written at once. */
  gathered.running = with_requests && pthread_create(&gathered.thread, NULL, run, NULL) == 0;
}

void access_log_stop(void) {
  pthread_mutex_lock(&gathered.lock);
  bool running = gathered.running;
  gathered.running = false;
  gathered.stop = true;
  pthread_cond_signal(&gathered.news);
  pthread_mutex_unlock(&gathered.lock);
  if (running) pthread_join(gathered.thread, NULL);
}

/* ---- one line ---------------------------------------------------------------------------------------- */

/* On the stack: a request's line has no more than this, whatever is in it. */
struct line {
  size_t length;
  char text[LINE_MOST];
};

static void add(struct line *line, const char *text, size_t length) {
  size_t room = sizeof line->text - 1 - line->length; /* the newline has its place always */
  if (length > room) length = room;
  memcpy(line->text + line->length, text, length);
  line->length += length;
}

static void add_text(struct line *line, const char *text) { add(line, text, strlen(text)); }

static void add_int(struct line *line, int64_t value) {
  char digits[24];
  add(line, digits, (size_t)number_int(value, digits));
}

/* Milliseconds with three decimals. */
static void add_ms(struct line *line, int64_t ns) {
  int64_t us = (ns + 500) / 1000;
  char decimals[4] = {'.', (char)('0' + us / 100 % 10), (char)('0' + us / 10 % 10), (char)('0' + us % 10)};
  add_int(line, us / 1000);
  add(line, decimals, sizeof decimals);
}

/* Seconds of the clock as text are the same for thousands of lines. */
static void add_time(struct line *line) {
  static _Thread_local time_t second;
  static _Thread_local char text[24];
  struct timespec now;
  struct tm day;
  clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec != second || !*text) {
    gmtime_r(&now.tv_sec, &day);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &day);
    second = now.tv_sec;
  }
  int ms = (int)(now.tv_nsec / 1000000);
  char decimals[5] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z'};
  add(line, text, strlen(text));
  add(line, decimals, sizeof decimals);
}

static const char *word_of(enum log_level level) {
  static const char *const words[] = {"error", "warn", "info", "debug"};
  return words[level];
}

/* "TIME info ", or the beginning of an object. */
static void begin_line(struct line *line, enum log_level level) {
  line->length = 0;
  if (as_json) add_text(line, "{\"time\":\"");
  add_time(line);
  add_text(line, as_json ? "\",\"level\":\"" : " ");
  add_text(line, word_of(level));
  add_text(line, as_json ? "\"" : " ");
}

static void add_quoted(struct line *line, const char *text, size_t most) {
  size_t plain = plain_length(text, strnlen(text, most));
  if (plain == most || text[plain] == '\0') { /* nearly always */
    add(line, "\"", 1);
    add(line, text, plain);
    add(line, "\"", 1);
    return;
  }
  struct buffer quoted;
  buffer_init(&quoted, 0);
  access_log_quote(&quoted, text, most);
  if (!quoted.failed) add(line, quoted.data, quoted.length);
  buffer_clear(&quoted);
}

/* ---- what is written --------------------------------------------------------------------------------- */

/* Other lines, escaped by log.c. */
static void write_message(void *context, enum log_level level, const char *text) {
  (void)context;
  struct line line;
  begin_line(&line, level);
  if (as_json) {
    add_text(&line, ",\"message\":");
    add_quoted(&line, text, MESSAGE_MOST);
    add_text(&line, "}");
  } else {
    add_text(&line, text);
  }
  line.text[line.length++] = '\n';
  write_out(line.text, line.length);
}

void access_log_install(bool json, bool requests) {
  as_json = json;
  with_requests = requests;
  log_set_sink(write_message, NULL);
}

static void add_member(struct line *line, const char *json, const char *text, int64_t value) {
  add_text(line, as_json ? json : text);
  add_int(line, value);
}

void access_log_write(const struct access_entry *e) {
  struct line line;
  if (!with_requests) return;
  begin_line(&line, LOG_LEVEL_INFO);
  add_text(&line, as_json ? ",\"request\":\"" : "request id=");
  add_text(&line, e->id);
  add_text(&line, as_json ? "\",\"method\":" : " method=");
  add_quoted(&line, e->method, METHOD_MOST);
  add_text(&line, as_json ? ",\"path\":" : " path=");
  add_quoted(&line, e->path, PATH_MOST);
  add_member(&line, ",\"status\":", " status=", e->status);
  add_text(&line, as_json ? ",\"ms\":" : " ms=");
  add_ms(&line, e->ns);
  add_member(&line, ",\"in\":", " in=", (int64_t)e->bytes_in);
  add_member(&line, ",\"out\":", " out=", (int64_t)e->bytes_out);
  add_member(&line, ",\"prompt_tokens\":", " prompt_tokens=", e->prompt_tokens);
  add_member(&line, ",\"new_tokens\":", " new_tokens=", e->new_tokens);
  add_text(&line, as_json ? ",\"cut\":" : " cut=");
  add_text(&line, as_json ? e->cut ? "true}" : "false}" : e->cut ? "yes" : "no");
  line.text[line.length++] = '\n';
  gather(line.text, line.length);
}
