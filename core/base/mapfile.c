#include "core/base/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"

/* The mapped ranges, for the SIGBUS handler. Slots are written under no lock but published by `end`, which
 * the handler reads; a process maps a few dozen files, so a fixed table is enough and safe in a handler. */
#define MAX_RANGES 4096
static struct {
  _Atomic(uintptr_t) begin, end;
} ranges[MAX_RANGES];
static atomic_bool damaged;

static void remember(const void *data, size_t size) {
  for (int i = 0; i < MAX_RANGES; i++) {
    uintptr_t empty = 0;
    if (!atomic_compare_exchange_strong(&ranges[i].begin, &empty, (uintptr_t)data)) continue;
    atomic_store(&ranges[i].end, (uintptr_t)data + size);
    return;
  }
}

static void forget(const void *data) {
  for (int i = 0; i < MAX_RANGES; i++) {
    if (atomic_load(&ranges[i].begin) != (uintptr_t)data) continue;
    atomic_store(&ranges[i].end, 0);
    atomic_store(&ranges[i].begin, 0);
    return;
  }
}

static void on_sigbus(int signal_number, siginfo_t *info, void *context) {
  (void)context;
  uintptr_t address = (uintptr_t)info->si_addr;
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < MAX_RANGES; i++) {
    if (address < atomic_load(&ranges[i].begin) || address >= atomic_load(&ranges[i].end)) continue;
    void *at = (void *)(address & ~(page - 1));
    if (mmap(at, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    if (!atomic_exchange(&damaged, true)) {
      static const char text[] = "error: a mapped file was cut short while in use; its missing part reads as 0\n";
      if (write(STDERR_FILENO, text, sizeof text - 1) < 0) return;
    }
    return;
  }
  signal(signal_number, SIG_DFL); /* not ours: fault again and end as usual */
}

void mapfile_guard_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(SIGBUS, &action, NULL);
}

bool mapfile_damaged(void) { return atomic_load(&damaged); }

/* ---- the fence ---- */

static _Thread_local struct {
  const char *const *folders;
  size_t count;
} fence;

void mapfile_fence(const char *const *folders, size_t count) {
  fence.folders = folders;
  fence.count = count;
}

bool mapfile_is_fenced(void) { return fence.folders != NULL; }

bool path_is_inside(const char *path, const char *const *folders, size_t count) {
  for (size_t i = 0; i < count; i++) {
    size_t length = strlen(folders[i]);
    while (length > 0 && folders[i][length - 1] == '/') length--; /* "/" itself has everything below it */
    if (strncmp(path, folders[i], length) == 0 && (path[length] == '/' || path[length] == '\0')) return true;
  }
  return false;
}

/* Asks the kernel where the file is that it opened: a check of the name before would not see a link that is changed
 * in between. */
static int check_fence(int fd, const char *path, struct error *error) {
  char name[32], real[4096];
  if (!fence.folders) return 0;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(name, real, sizeof real - 1);
  if (length > 0) {
    real[length] = '\0';
    if (path_is_inside(real, fence.folders, fence.count)) return 0;
  }
  return error_set(error, ERROR_ARGUMENT, "'%s' lies outside the folders that may be read here", path);
}

/* ---- files ---- */

static enum error_code code_of_errno(int number) {
  return number == ENOENT || number == ENOTDIR ? ERROR_NOT_FOUND : ERROR_IO;
}

/* An open descriptor of a regular file and its size, or -1. O_NONBLOCK: opening a pipe must not wait. */
static int open_regular(const char *path, size_t *size, struct error *error) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return error_set(error, code_of_errno(errno), "'%s': %s", path, strerror(errno));
  struct stat st;
  if (check_fence(fd, path, error) != 0) {
    close(fd);
    return -1;
  }
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    close(fd);
    return error_set(error, ERROR_FORMAT, "'%s' is not a regular file", path);
  }
  *size = (size_t)st.st_size;
  return fd;
}

int mapfile_open(const char *path, struct mapfile *out, struct error *error) {
  size_t size;
  int fd = open_regular(path, &size, error);
  if (fd < 0) return -1;
  void *data = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
  int number = errno;
  close(fd);
  if (data == MAP_FAILED) return error_set(error, ERROR_IO, "'%s': cannot be mapped: %s", path, strerror(number));
  if (data) remember(data, size);
  out->data = data;
  out->size = size;
  return 0;
}

void mapfile_close(struct mapfile *file) {
  if (file->data) {
    forget(file->data);
    munmap((void *)(uintptr_t)file->data, file->size);
  }
  memset(file, 0, sizeof *file);
}

void mapfile_forget(const struct mapfile *file) {
  if (file->data) madvise((void *)(uintptr_t)file->data, file->size, MADV_DONTNEED);
}

int file_read(const char *path, size_t limit, char **data, size_t *length, struct error *error) {
  size_t size, got = 0;
  int fd = open_regular(path, &size, error);
  if (fd < 0) return -1;
  if (size > limit) {
    close(fd);
    return error_set(error, ERROR_LIMIT, "'%s' has %zu bytes, at most %zu are read", path, size, limit);
  }
  char *text = malloc(size + 1);
  if (!text) {
    close(fd);
    return error_memory(error, size + 1);
  }
  while (got < size) {
    ssize_t n = read(fd, text + got, size - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += (size_t)n;
  }
  close(fd);
  if (got != size) {
    free(text);
    return error_set(error, ERROR_IO, "'%s' could be read only to byte %zu of %zu", path, got, size);
  }
  text[size] = '\0';
  *data = text;
  *length = size;
  return 0;
}

bool path_is_directory(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}
