/* log.h: one line for people who run the daemon, on standard error unless a sink is set.
 *
 * Lines are `key=value` pairs behind a level and a sentence. Control characters and bidirectional marks in
 * the text are escaped, so that no client can forge or hide a line. Thread-safe. */
#ifndef STEERD_CORE_BASE_LOG_H
#define STEERD_CORE_BASE_LOG_H

#include "core/base/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above `level` are dropped. Default: LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

/* Where lines go: text has no newline. NULL restores standard error. */
void log_set_sink(void (*sink)(void *context, enum log_level level, const char *text), void *context);

void log_error(const char *format, ...) ERROR_PRINTF(1, 2);
void log_warn(const char *format, ...) ERROR_PRINTF(1, 2);
void log_info(const char *format, ...) ERROR_PRINTF(1, 2);
void log_debug(const char *format, ...) ERROR_PRINTF(1, 2);

#endif
