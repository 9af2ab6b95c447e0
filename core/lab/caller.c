/* caller.c: progress of a job that nobody runs but its caller. Knows no job. */
#include "core/lab/caller.h"

#include "core/base/clock.h"

#define TELL_NS 200000000

/* No seldomer than a state is kept. */
static int64_t tell_ns(const struct lab *lab) {
  int64_t ns = (int64_t)lab->options.checkpoint_ms * 1000000;
  return ns > 0 && ns < TELL_NS ? ns : TELL_NS;
}

static bool stops(struct lab_running *running) { return ((struct lab_caller *)running->runner)->stop; }

static void report(struct lab_running *running, int64_t done, int64_t total, const char *unit, const char *message) {
  struct lab_caller *caller = running->runner;
  int64_t now = clock_ns();
  bool phase = caller->message != message; /* has its own rate */
  if (phase) {
    caller->begin_ns = now;
    caller->begin_done = done;
  }
  bool due = phase || now - caller->told_ns >= tell_ns(running->lab) || done == total;
  caller->message = message;
  if (!due) return;
  double seconds = (double)(now - caller->begin_ns) * 1e-9;
  struct lab_progress progress = {.job = {.kind = caller->kind, .state = STORE_RUNNING, .done = done, .total = total, .unit = unit,
                                          .message = message},
                                  .rate = seconds > 0 ? (double)(done - caller->begin_done) / seconds : 0, .seconds_left = -1,
                                  .trains = caller->trains, .training = caller->training};
  if (progress.rate > 0 && total > 0) progress.seconds_left = (double)(total - done) / progress.rate;
  caller->told_ns = now;
  caller->stop |= caller->tell(caller->context, &progress);
}

static void figures(struct lab_running *running, const struct lab_train_figures *now) {
  struct lab_caller *caller = running->runner;
  caller->trains = true;
  caller->training = *now;
}

struct lab_running caller_running(struct lab *lab, struct lab_caller *caller) {
  return (struct lab_running){.lab = lab, .stopping = stops, .report = report, .figures = figures, .runner = caller};
}
