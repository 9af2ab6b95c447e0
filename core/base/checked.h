/* checked.h: size arithmetic that cannot wrap. Every size that comes from a file or a client goes through
 * these before anything is allocated or indexed. Each returns true when the result fits, and writes it. */
#ifndef STEERD_CORE_BASE_CHECKED_H
#define STEERD_CORE_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool checked_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool checked_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

static inline size_t size_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t size_max(size_t a, size_t b) { return a > b ? a : b; }

/* a rounded up to a multiple of step (a power of two); a + step must not wrap. */
static inline size_t size_round_up(size_t a, size_t step) { return (a + step - 1) & ~(step - 1); }

#endif
