#include "core/base/error.h"

#include <stdio.h>
#include <string.h>

static void set_text(struct error *error, enum error_code code, const char *field, const char *format,
                     va_list args) {
  error->code = code;
  snprintf(error->field, sizeof error->field, "%s", field);
  vsnprintf(error->text, sizeof error->text, format, args);
}

int error_set(struct error *error, enum error_code code, const char *format, ...) {
  if (!error || error->code) return -1;
  va_list args;
  va_start(args, format);
  set_text(error, code, "", format, args);
  va_end(args);
  return -1;
}

int error_set_field(struct error *error, enum error_code code, const char *field, const char *format, ...) {
  if (!error || error->code) return -1;
  va_list args;
  va_start(args, format);
  set_text(error, code, field, format, args);
  va_end(args);
  return -1;
}

int error_prefix(struct error *error, const char *format, ...) {
  if (!error || !error->code) return -1;
  char old[sizeof error->text];
  memcpy(old, error->text, sizeof old);
  va_list args;
  va_start(args, format);
  int used = vsnprintf(error->text, sizeof error->text, format, args);
  va_end(args);
  if (used < 0) used = 0;
  size_t room = (size_t)used < sizeof error->text ? sizeof error->text - (size_t)used : 0;
  if (room && snprintf(error->text + used, room, ": %s", old) < 0) error->text[used] = '\0';
  return -1;
}

int error_memory(struct error *error, size_t bytes) {
  return error_set(error, ERROR_MEMORY, "out of memory: %zu bytes could not be had", bytes);
}

void error_clear(struct error *error) {
  if (error) memset(error, 0, sizeof *error);
}

const char *error_word(enum error_code code) {
  static const char *const words[] = {
      [ERROR_NONE] = "none",           [ERROR_ARGUMENT] = "argument",   [ERROR_NOT_FOUND] = "not_found",
      [ERROR_LIMIT] = "limit",         [ERROR_BUSY] = "busy",           [ERROR_FORMAT] = "format",
      [ERROR_IO] = "io",               [ERROR_MEMORY] = "memory",       [ERROR_DEVICE] = "device",
      [ERROR_STORE] = "store",         [ERROR_CANCELLED] = "cancelled", [ERROR_TIMEOUT] = "timeout",
      [ERROR_UNSUPPORTED] = "unsupported", [ERROR_BUG] = "bug"};
  size_t n = sizeof words / sizeof words[0];
  return (size_t)code < n && words[code] ? words[code] : "unknown";
}
