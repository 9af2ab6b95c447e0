#include "core/base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"

#define LINE_BYTES 2048

static enum log_level limit = LOG_LEVEL_INFO;
static void (*current_sink)(void *, enum log_level, const char *);
static void *current_context;

void log_set_level(enum log_level level) { limit = level; }

void log_set_sink(void (*sink)(void *, enum log_level, const char *), void *context) {
  current_sink = sink;
  current_context = context;
}

/* Bidirectional controls are U+200E/F, U+202A..E and U+2066..9: E2 80 8E.. and E2 81 A6.. in UTF-8. */
static int is_bidi(const unsigned char *s) {
  if (s[0] != 0xE2) return 0;
  if (s[1] == 0x80) return s[2] == 0x8E || s[2] == 0x8F || (s[2] >= 0xAA && s[2] <= 0xAE);
  return s[1] == 0x81 && s[2] >= 0xA6 && s[2] <= 0xA9;
}

static void escape(const char *text, char *out, size_t size) {
  const unsigned char *s = (const unsigned char *)text;
  size_t n = 0;
  for (; *s && n + 5 < size; s++) {
    if (*s < 0x20 || *s == 0x7F || is_bidi(s))
      n += (size_t)snprintf(out + n, size - n, "\\x%02x", *s);
    else
      out[n++] = (char)*s;
  }
  out[n] = '\0';
}

static void write_line(enum log_level level, const char *text) {
  static const char *const words[] = {"error", "warn", "info", "debug"};
  char line[LINE_BYTES + 64], now[25];
  clock_iso(now);
  int n = snprintf(line, sizeof line, "%s %s %s\n", now, words[level], text);
  /* One write, so that lines of several threads do not mix. */
  if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) return;
}

static void emit(enum log_level level, const char *format, va_list args) {
  if (level > limit) return;
  char raw[LINE_BYTES], clean[LINE_BYTES];
  vsnprintf(raw, sizeof raw, format, args);
  escape(raw, clean, sizeof clean);
  if (current_sink)
    current_sink(current_context, level, clean);
  else
    write_line(level, clean);
}

#define DEFINE_LOG(name, level)          \
  void name(const char *format, ...) {   \
    va_list args;                        \
    va_start(args, format);              \
    emit(level, format, args);           \
    va_end(args);                        \
  }
DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
DEFINE_LOG(log_warn, LOG_LEVEL_WARN)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)
