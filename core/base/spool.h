/* spool.h: bytes that wait for a reader outside of memory: a temporary file without a name, gone with its last user.
 *
 * Written and read at given offsets, also by different threads at the same time. It lies in the folder that TMPDIR names,
 * else in /tmp. */
#ifndef STEERD_CORE_BASE_SPOOL_H
#define STEERD_CORE_BASE_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct spool;

struct spool *spool_open(struct error *error) MUST_CHECK;
void spool_close(struct spool *spool); /* NULL is fine */

/* ERROR_IO: the disk is full, say. */
int spool_write(struct spool *spool, int64_t offset, const void *from, size_t bytes, struct error *error) MUST_CHECK;

/* ERROR_IO; bytes that were never written are zero within the file, an error behind its end. */
int spool_read(struct spool *spool, int64_t offset, void *to, size_t bytes, struct error *error) MUST_CHECK;

#endif
