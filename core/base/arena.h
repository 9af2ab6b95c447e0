/* arena.h: memory of one lifetime (a request, a load), given back all at once.
 *
 * Not thread-safe: one owner at a time. Allocation beyond `limit` bytes fails like a failed malloc, which
 * bounds what one request can take. */
#ifndef STEERD_CORE_BASE_ARENA_H
#define STEERD_CORE_BASE_ARENA_H

#include <stddef.h>

#include "core/base/error.h"

struct arena_block;
struct arena {
  struct arena_block *head;
  size_t used;  /* bytes handed out, alignment included */
  size_t limit; /* bytes it may hand out; 0 = no limit */
};

void arena_init(struct arena *arena, size_t limit);

/* Gives everything back. A cleared arena can be used again. */
void arena_clear(struct arena *arena);

/* The same, but keeps one block for what comes next, so that a lifetime that repeats costs no malloc. */
void arena_reset(struct arena *arena);

/* `bytes` of zeroed memory aligned to 16, or NULL (error set to ERROR_MEMORY or ERROR_LIMIT). Valid until
 * arena_clear. */
void *arena_alloc(struct arena *arena, size_t bytes, struct error *error) MUST_CHECK;

/* `count` elements of `size` bytes, checked for overflow. */
void *arena_array(struct arena *arena, size_t count, size_t size, struct error *error) MUST_CHECK;

/* A NUL-terminated copy of text[0..length). */
char *arena_text(struct arena *arena, const char *text, size_t length, struct error *error) MUST_CHECK;

/* snprintf into the arena. */
char *arena_printf(struct arena *arena, struct error *error, const char *format, ...) ERROR_PRINTF(3, 4);

#endif
