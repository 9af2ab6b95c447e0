/* doors.h: what becomes of somebody who tries keys until one fits: after some wrong ones, no key from that address is looked at for a
 * while, right or wrong, so that going on guessing tells nothing.
 *
 * Many may share an address (a school, an office), and one of them with a wrong key in a loop must not lock the others out: a
 * key that has been right from there before is let in all the same. Both are remembered in tables of a fixed size. */
#ifndef STEERD_SERVER_DOORS_H
#define STEERD_SERVER_DOORS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

enum { DOORS_WRONG_A_MINUTE = 30 };

struct doors;

struct doors *doors_new(struct error *error) MUST_CHECK; /* ERROR_MEMORY */
void doors_free(struct doors *doors);                    /* NULL is fine */

enum door { DOOR_OPEN, DOOR_WRONG, DOOR_LATER };

/* `address` sent a key; `right`: it is one of ours, and `owner` stands for it (keys_owner). `now` as in rates.h. For DOOR_LATER
 * *wait is set: nanoseconds. Any thread. */
enum door doors_knock(struct doors *doors, uint64_t address, bool right, uint64_t owner, int64_t now, int64_t *wait);

#endif
