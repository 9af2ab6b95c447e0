/* stripe.h: which copy of something a thread uses, where all threads would otherwise write to the same cache line at every
 * request: counters, lists. Who reads such a thing adds the copies up. */
#ifndef STEERD_CORE_BASE_STRIPE_H
#define STEERD_CORE_BASE_STRIPE_H

#include <stddef.h>

enum { STRIPES = 8, STRIPE_ALIGN = 128 /* two lines: they are fetched in pairs */ };

/* The calling thread's, 0..STRIPES-1, the same as long as it lives. Threads beyond STRIPES share. */
size_t stripe_own(void);

#endif
