/* lock.c: an advisory lock that the kernel drops with its process, whatever becomes of it. Knows nothing of SQLite. */
#include "core/store/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"

#define LOCK_STEP_NS 20000000 /* between two tries */

/* Printable ASCII only: the text goes into an error that a terminal shows. */
static void holder_read(int descriptor, char *out, size_t size) {
  ssize_t length = pread(descriptor, out, size - 1, 0);
  out[length > 0 ? length : 0] = '\0';
  for (char *c = out; *c; c++) {
    if (*c == '\n') {
      *c = '\0';
      break;
    }
    if (*c < 32 || *c > 126) *c = '?';
  }
}

/* Only a courtesy to the next one, so a full disk does not fail the opening. */
static void holder_write(int descriptor, const char *holder) {
  char text[128];
  int length = snprintf(text, sizeof text, "process %ld (%.80s)\n", (long)getpid(), holder);
  if (ftruncate(descriptor, 0) != 0) return;
  if (pwrite(descriptor, text, (size_t)length, 0) != length && ftruncate(descriptor, 0) != 0) return;
}

/* 0: taken; 1: somebody else has it; -1. */
static int lock_try(int descriptor, const char *name, struct error *error) {
  while (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return 1;
    if (errno != EINTR) return error_set(error, ERROR_IO, "cannot lock '%s.lock': %s", name, strerror(errno));
  }
  return 0;
}

static int lock_wait(int descriptor, const char *name, int64_t wait_ms, struct error *error) {
  int64_t end = clock_ns() + (wait_ms > INT64_MAX / 2000000 ? INT64_MAX / 2 : wait_ms * 1000000);
  for (;;) {
    int got = lock_try(descriptor, name, error);
    if (got <= 0) return got;
    if (wait_ms >= 0 && clock_ns() >= end) break;
    struct timespec step = {0, LOCK_STEP_NS};
    nanosleep(&step, NULL);
  }
  char holder[128];
  holder_read(descriptor, holder, sizeof holder);
  return error_set(error, ERROR_BUSY, "store '%s' is in use by %s: wait for it to end, or use another file", name,
                   *holder ? holder : "another process");
}

int lock_take(const char *path, const char *name, const char *holder, int64_t wait_ms, struct error *error) {
  char file[PATH_MAX];
  if (snprintf(file, sizeof file, "%s.lock", path) >= (int)sizeof file)
    return error_set(error, ERROR_ARGUMENT, "the path of the store is longer than %d bytes", PATH_MAX - 6);
  int descriptor = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0) return error_set(error, ERROR_IO, "cannot open '%s.lock': %s", name, strerror(errno));
  if (lock_wait(descriptor, name, wait_ms, error) != 0) {
    close(descriptor);
    return -1;
  }
  holder_write(descriptor, holder);
  return descriptor;
}

void lock_release(int descriptor) {
  if (descriptor < 0) return;
  if (ftruncate(descriptor, 0) != 0) { /* then an old name stays in a file that nobody holds */
  }
  close(descriptor);
}
