/* lock.h: one process at a time. Private to the room. */
#ifndef STEERD_CORE_STORE_LOCK_H
#define STEERD_CORE_STORE_LOCK_H

#include <stdint.h>

#include "core/base/error.h"

/* Takes the lock on the file PATH.lock (made when it does not exist, never removed: a lock file that comes and goes can be held
 * twice) and writes who holds it. Waits up to wait_ms, for ever when -1. A descriptor, or -1: ERROR_BUSY naming the
 * holder, ERROR_IO. `name` is the path as error texts show it. */
int lock_take(const char *path, const char *name, const char *holder, int64_t wait_ms, struct error *error) MUST_CHECK;
void lock_release(int descriptor); /* -1 is fine */

#endif
