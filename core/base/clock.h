/* clock.h: time. */
#ifndef STEERD_CORE_BASE_CLOCK_H
#define STEERD_CORE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Nanoseconds of a clock that never goes back; its zero means nothing. */
int64_t clock_ns(void);

/* The same clock as it stood at the kernel's last tick, some milliseconds ago at most; costs a fifth. For timeouts. */
int64_t clock_tick_ns(void);

/* "2026-11-22T10:15:30.123Z" into out[25]: wall time, UTC, with NUL. */
void clock_iso(char out[25]);

#endif
