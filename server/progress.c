/* progress.c: the bar of long jobs, and the signals that stop them. Knows no job. */
#include "server/progress.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define BAR 30

static volatile sig_atomic_t interrupted;
static bool drawn;

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
}

void progress_catch_signals(void) {
  signal(SIGINT, on_interrupt);
  signal(SIGTERM, on_interrupt);
}

bool progress_stopped(void) { return interrupted; }

static void write_time(double seconds, char out[32]) {
  if (seconds < 90)
    snprintf(out, 32, "%.0f s", seconds);
  else
    snprintf(out, 32, "%.0f min", seconds / 60);
}

/* The bar, and what stands in front of a line's words. */
static void begin_line(double share) {
  char bar[BAR + 1];
  for (int i = 0; i < BAR; i++) bar[i] = i < share * BAR ? '#' : '.';
  bar[BAR] = '\0';
  drawn = true;
  fprintf(stderr, "%s[%s] %5.1f %%  ", isatty(STDERR_FILENO) ? "\r\033[K" : "", bar, 100 * share);
}

/* seconds_left < 0: nobody knows. */
static bool end_line(double seconds_left, const char *figures) {
  char left[32];
  write_time(seconds_left, left);
  if (seconds_left >= 0) fprintf(stderr, ", %s left", left);
  fprintf(stderr, "%s%s%s", *figures ? "; " : "", figures, isatty(STDERR_FILENO) ? "" : "\n");
  fflush(stderr);
  return interrupted;
}

bool progress_tell(void *context, const struct lab_progress *progress) {
  (void)context;
  return progress_tell_with("", progress);
}

bool progress_tell_with(const char *figures, const struct lab_progress *progress) {
  const struct store_job *job = &progress->job;
  begin_line(job->total > 0 ? (double)job->done / (double)job->total : 0);
  if (job->total == 0 && job->done == 0) { /* nobody knows yet of how much */
    fprintf(stderr, "%s%s", job->message ? job->message : "starting", isatty(STDERR_FILENO) ? "" : "\n");
    fflush(stderr);
    return interrupted;
  }
  fprintf(stderr, "%s: %lld of %lld %s", job->message ? job->message : "starting", (long long)job->done, (long long)job->total,
          job->unit ? job->unit : "");
  if (progress->rate > 0) fprintf(stderr, ", %.*f/s", (progress->rate < 1) + (progress->rate < 10), progress->rate);
  return end_line(progress->seconds_left, figures);
}

bool progress_pull(void *context, const struct pull_progress *progress) {
  (void)context;
  begin_line(progress->total > 0 ? (double)progress->done / (double)progress->total : 0);
  fprintf(stderr, "%s: %.0f of %.0f MB, %.1f MB/s", *progress->file ? progress->file : "another program brings it",
          (double)progress->done / 1e6, (double)progress->total / 1e6, progress->rate / 1e6);
  return end_line(progress->seconds_left, "");
}

void progress_end(void) {
  if (drawn && isatty(STDERR_FILENO)) fputc('\n', stderr);
}
