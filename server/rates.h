/* rates.h: how often each of many clients may do something: so many a minute, all of them at once if it likes, and then one
 * whenever one is due again.
 *
 * The table has a fixed size. Where more clients come than it has places, one that has waited long is forgotten, and begins
 * anew: nobody is refused for what another one did. */
#ifndef STEERD_SERVER_RATES_H
#define STEERD_SERVER_RATES_H

#include <stdint.h>

#include "core/base/error.h"

struct rates;

/* a_minute >= 1. Errors: ERROR_MEMORY. */
struct rates *rates_new(int64_t a_minute, struct error *error) MUST_CHECK;
void rates_free(struct rates *rates); /* NULL is fine */

/* `client`: any number but 0; `now`: nanoseconds of a clock that never goes back. 0: admitted, and counted; else
 * nanoseconds until the next one will be. Any thread. */
int64_t rates_take(struct rates *rates, uint64_t client, int64_t now);

/* The same without counting. */
int64_t rates_wait(struct rates *rates, uint64_t client, int64_t now);

#endif
