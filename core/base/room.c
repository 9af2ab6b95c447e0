/* room.c: reads the kernel's figures about memory and processors. Every one may be missing (a container hides them):
 * then it sets no limit. */
#include "core/base/room.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/checked.h"

enum { PATH_BYTES = 4352, LINE_BYTES = 4096 };

static FILE *open_file(const char *root, const char *path) {
  char whole[PATH_BYTES];
  int n = snprintf(whole, sizeof whole, "%s%s", root, path);
  return n > 0 && (size_t)n < sizeof whole ? fopen(whole, "re") : NULL;
}

/* The number behind `key` at the beginning of a line, times unit; SIZE_MAX when there is none ("max" is none). */
static size_t number_of(const char *root, const char *path, const char *key, size_t unit) {
  char line[LINE_BYTES];
  size_t found = SIZE_MAX, bytes;
  FILE *file = open_file(root, path);
  while (file && fgets(line, sizeof line, file)) {
    if (strncmp(line, key, strlen(key)) != 0) continue;
    char *end, *begin = line + strlen(key);
    unsigned long long number = strtoull(begin, &end, 10);
    if (end > begin && checked_mul((size_t)number, unit, &bytes)) found = bytes;
    break;
  }
  if (file) fclose(file);
  return found;
}

static size_t left_of(size_t limit, size_t taken) {
  if (limit == SIZE_MAX || taken == SIZE_MAX) return limit;
  return limit > taken ? limit - taken : 0;
}

/* Only where overcommitting is off: elsewhere the limit is told and not kept. */
static size_t commit_room(const char *root) {
  if (number_of(root, "/proc/sys/vm/overcommit_memory", "", 1) != 2) return SIZE_MAX;
  return left_of(number_of(root, "/proc/meminfo", "CommitLimit:", 1024), number_of(root, "/proc/meminfo", "Committed_AS:", 1024));
}

/* Of one group. What is mapped from files can go again, so only anonymous memory counts as taken. */
static size_t group_room(const char *root, const char *group) {
  char path[LINE_BYTES + 64];
  snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
  size_t limit = number_of(root, path, "", 1);
  if (limit == SIZE_MAX) return limit;
  snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", group);
  return left_of(limit, number_of(root, path, "anon ", 1));
}

/* Of one group: microseconds that it may compute, and the period they are for ("150000 100000", "max 100000"). Half a processor more
 * than the whole ones would be a thread that the others wait for. */
static size_t group_processors(const char *root, const char *group) {
  char path[LINE_BYTES + 64];
  unsigned long long quota, period;
  snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
  FILE *file = open_file(root, path);
  bool limited = file && fscanf(file, "%llu %llu", &quota, &period) == 2 && period > 0;
  if (file) fclose(file);
  if (!limited) return SIZE_MAX;
  return quota > period ? (size_t)(quota / period) : 1;
}

/* The least that `room_of` says of the group of the process and all above it ("0::/system.slice/steerd.service"). */
static size_t groups_room(const char *root, size_t (*room_of)(const char *root, const char *group)) {
  char line[LINE_BYTES], group[LINE_BYTES] = "";
  FILE *file = open_file(root, "/proc/self/cgroup");
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, "0::/", 4) == 0) snprintf(group, sizeof group, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
  if (file) fclose(file);
  size_t room = SIZE_MAX;
  for (char *slash = group; slash; *slash = '\0') {
    room = size_min(room, room_of(root, group));
    if (!(slash = strrchr(group, '/'))) break;
  }
  return room;
}

/* `field` of /proc/self/statm: 0 all that is mapped, 5 data and stacks. */
static size_t limit_room(const char *root, int resource, int field) {
  struct rlimit limit;
  unsigned long long pages[6];
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
  FILE *file = open_file(root, "/proc/self/statm");
  bool known = file && fscanf(file, "%llu %llu %llu %llu %llu %llu", &pages[0], &pages[1], &pages[2], &pages[3], &pages[4],
                              &pages[5]) == 6;
  if (file) fclose(file);
  return left_of((size_t)limit.rlim_cur, known ? (size_t)pages[field] * (size_t)sysconf(_SC_PAGESIZE) : SIZE_MAX);
}

size_t memory_room(const char *root) {
  size_t room = number_of(root, "/proc/meminfo", "MemAvailable:", 1024);
  room = size_min(room, commit_room(root));
  room = size_min(room, groups_room(root, group_room));
  room = size_min(room, limit_room(root, RLIMIT_AS, 0));
  return size_min(room, limit_room(root, RLIMIT_DATA, 5));
}

size_t processor_room(const char *root) { return groups_room(root, group_processors); }
