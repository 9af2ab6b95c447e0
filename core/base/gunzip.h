/* gunzip.h: compressed bytes in memory, unpacked into a buffer. (gzip_lines.h reads files.) */
#ifndef STEERD_CORE_BASE_GUNZIP_H
#define STEERD_CORE_BASE_GUNZIP_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/buffer.h"

/* Whether bytes begin as gzip does. */
bool gunzip_is(const void *bytes, size_t length);

/* Appends what is packed in one gzip member. ERROR_FORMAT: damaged, cut off, or followed by something; ERROR_LIMIT: more than the
 * buffer may hold, found before it is all unpacked; ERROR_MEMORY. */
int gunzip(const void *bytes, size_t length, struct buffer *out, struct error *error) MUST_CHECK;

#endif
