#include "core/base/error.h"

#include <stdio.h>
#include <string.h>

/* Texts quote what files and clients say: whatever that is, an error is one line. */
static void keep_line(char *text) {
  for (; *text; text++)
    if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = ' ';
}

static void set_text(struct error *error, enum error_code code, const char *field, const char *format,
                     va_list args) {
  error->code = code;
  snprintf(error->field, sizeof error->field, "%s", field);
  vsnprintf(error->text, sizeof error->text, format, args);
  keep_line(error->text);
}

void error_put(struct error *error, enum error_code code, const char *format, ...) {
  if (!error || error->code) return;
  va_list args;
  va_start(args, format);
  set_text(error, code, "", format, args);
  va_end(args);
}

void error_put_field(struct error *error, enum error_code code, const char *field, const char *format, ...) {
  if (!error || error->code) return;
  va_list args;
  va_start(args, format);
  set_text(error, code, field, format, args);
  va_end(args);
}

void error_put_prefix(struct error *error, const char *format, ...) {
  if (!error || !error->code) return;
  char prefix[sizeof error->text], joined[2 * sizeof error->text + 4];
  va_list args;
  va_start(args, format);
  vsnprintf(prefix, sizeof prefix, format, args);
  va_end(args);
  keep_line(prefix);
  snprintf(joined, sizeof joined, "%s: %s", prefix, error->text);
  memcpy(error->text, joined, sizeof error->text - 1);
  error->text[sizeof error->text - 1] = '\0';
}

void error_put_memory(struct error *error, size_t bytes) {
  error_put(error, ERROR_MEMORY, "out of memory: %zu bytes could not be had", bytes);
}

void error_clear(struct error *error) {
  if (error) memset(error, 0, sizeof *error);
}

const char *error_word(enum error_code code) {
  static const char *const words[] = {
      [ERROR_NONE] = "none",           [ERROR_ARGUMENT] = "argument",   [ERROR_NOT_FOUND] = "not_found",
      [ERROR_CONFLICT] = "conflict",
      [ERROR_FULL] = "full",           [ERROR_STORAGE] = "storage",
      [ERROR_LIMIT] = "limit",         [ERROR_BUSY] = "busy",           [ERROR_FORMAT] = "format",
      [ERROR_IO] = "io",               [ERROR_MEMORY] = "memory",       [ERROR_DEVICE] = "device",
      [ERROR_STORE] = "store",         [ERROR_CANCELLED] = "cancelled", [ERROR_TIMEOUT] = "timeout",
      [ERROR_UNSUPPORTED] = "unsupported", [ERROR_BUG] = "bug"};
  size_t n = sizeof words / sizeof words[0];
  return (size_t)code < n && words[code] ? words[code] : "unknown";
}
