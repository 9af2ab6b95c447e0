/* progress.c: the bar of long jobs, and the signals that stop them. Knows no job. */
#include "server/progress.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define BAR 30

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
}

void progress_catch_signals(void) {
  signal(SIGINT, on_interrupt);
  signal(SIGTERM, on_interrupt);
}

static void write_time(double seconds, char out[32]) {
  if (seconds < 0)
    snprintf(out, 32, "?");
  else if (seconds < 90)
    snprintf(out, 32, "%.0f s", seconds);
  else
    snprintf(out, 32, "%.0f min", seconds / 60);
}

bool progress_tell(void *context, const struct lab_progress *progress) {
  (void)context;
  const struct store_job *job = &progress->job;
  double share = job->total > 0 ? (double)job->done / (double)job->total : 0;
  char bar[BAR + 1], left[32];
  for (int i = 0; i < BAR; i++) bar[i] = i < share * BAR ? '#' : '.';
  bar[BAR] = '\0';
  write_time(progress->seconds_left, left);
  bool terminal = isatty(STDERR_FILENO);
  fprintf(stderr, "%s[%s] %5.1f %%  %s: %lld of %lld %s, %.0f/s, %s left%s", terminal ? "\r\033[K" : "", bar, 100 * share,
          job->message ? job->message : "starting", (long long)job->done, (long long)job->total,
          job->unit ? job->unit : "", progress->rate, left, terminal ? "" : "\n");
  fflush(stderr);
  return interrupted;
}

void progress_end(void) {
  if (isatty(STDERR_FILENO)) fputc('\n', stderr);
}
