#include "core/base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_tick_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void clock_iso(char out[25]) {
  struct timespec t;
  struct tm day;
  char seconds[24];
  clock_gettime(CLOCK_REALTIME, &t);
  gmtime_r(&t.tv_sec, &day);
  strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &day);
  unsigned ms = (unsigned)(t.tv_nsec / 1000000) % 1000u;
  snprintf(out, 25, "%.19s.%03uZ", seconds, ms);
}
