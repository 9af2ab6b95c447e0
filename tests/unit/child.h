/* child.h: a process of a test's own, killed at a moment of its life. */
#ifndef STEERD_TESTS_UNIT_CHILD_H
#define STEERD_TESTS_UNIT_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"

/* Kills the child after so many microseconds; true when it had ended well before. One that ended otherwise fails the test. */
static inline bool child_ends_within(pid_t child, unsigned microseconds) {
  int64_t end = clock_ns() + (int64_t)microseconds * 1000;
  int status;
  while (clock_ns() < end) {
    if (waitpid(child, &status, WNOHANG) == child) {
      assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      return true;
    }
    usleep(200);
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#endif
