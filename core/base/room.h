/* room.h: how much memory and how many processors this process may still take, as the system tells it. */
#ifndef STEERD_CORE_BASE_ROOM_H
#define STEERD_CORE_BASE_ROOM_H

#include <stddef.h>

/* Bytes: the least of what the machine has available, what the control groups of the process leave it, what is left to
 * commit where overcommitting is off, and what its address space and data may grow by (ulimit -v, -d). SIZE_MAX when
 * nothing tells. A figure of this moment, which others may take from. `root` stands before /proc and /sys: "" but in
 * tests. */
size_t memory_room(const char *root);

/* Processors' worth of time that the control groups leave this process, rounded down, at least 1: what `docker run --cpus` and
 * systemd's CPUQuota set. SIZE_MAX when nothing tells. */
size_t processor_room(const char *root);

#endif
