/* Owns the wording of log lines. Refuses to know where the numbers come from. */
#include "server/access_log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/utf8.h"

enum { METHOD_MOST = 16, PATH_MOST = 200, MESSAGE_MOST = 4096 };

static bool as_json, with_requests = true;

/* Control characters, and marks that reorder or hide text. */
static bool disturbs(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || (c >= 0x200B && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

void access_log_quote(struct buffer *out, const char *text, size_t most) {
  size_t length = strnlen(text, most);
  buffer_char(out, '"');
  for (size_t i = 0; i < length;) {
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

/* One write, so that lines of several threads do not mix. */
static void write_line(struct buffer *line) {
  buffer_char(line, '\n');
  if (!line->failed && write(STDERR_FILENO, line->data, line->length) < 0) return;
}

/* Opens one JSON object: every line has a time and a level. */
static void begin_json(struct buffer *line, const char *level) {
  char now[25];
  clock_iso(now);
  buffer_init(line, 0);
  buffer_printf(line, "{\"time\":\"%s\",\"level\":\"%s\"", now, level);
}

static void write_json(void *context, enum log_level level, const char *text) {
  (void)context;
  static const char *const words[] = {"error", "warn", "info", "debug"};
  struct buffer line;
  begin_json(&line, words[level]);
  buffer_text(&line, ",\"message\":");
  access_log_quote(&line, text, MESSAGE_MOST);
  buffer_char(&line, '}');
  write_line(&line);
  buffer_clear(&line);
}

void access_log_install(bool json, bool requests) {
  as_json = json;
  with_requests = requests;
  log_set_sink(json ? write_json : NULL, NULL);
}

static void write_entry_json(const struct access_entry *e) {
  struct buffer line;
  begin_json(&line, "info");
  buffer_printf(&line, ",\"request\":\"%s\",\"method\":", e->id);
  access_log_quote(&line, e->method, METHOD_MOST);
  buffer_text(&line, ",\"path\":");
  access_log_quote(&line, e->path, PATH_MOST);
  buffer_printf(&line, ",\"status\":%d,\"ms\":%.3f,\"in\":%llu,\"out\":%llu", e->status, e->ms,
                (unsigned long long)e->bytes_in, (unsigned long long)e->bytes_out);
  buffer_printf(&line, ",\"prompt_tokens\":%lld,\"new_tokens\":%lld,\"cut\":%s}", (long long)e->prompt_tokens,
                (long long)e->new_tokens, e->cut ? "true" : "false");
  write_line(&line);
  buffer_clear(&line);
}

static void write_entry_text(const struct access_entry *e) {
  struct buffer method, path;
  buffer_init(&method, 0);
  buffer_init(&path, 0);
  access_log_quote(&method, e->method, METHOD_MOST);
  access_log_quote(&path, e->path, PATH_MOST);
  if (!method.failed && !path.failed)
    log_info("request id=%s method=%s path=%s status=%d ms=%.3f in=%llu out=%llu prompt_tokens=%lld "
             "new_tokens=%lld cut=%s",
             e->id, method.data, path.data, e->status, e->ms, (unsigned long long)e->bytes_in,
             (unsigned long long)e->bytes_out, (long long)e->prompt_tokens, (long long)e->new_tokens,
             e->cut ? "yes" : "no");
  buffer_clear(&method);
  buffer_clear(&path);
}

void access_log_write(const struct access_entry *entry) {
  if (!with_requests) return;
  if (as_json) write_entry_json(entry);
  else write_entry_text(entry);
}
