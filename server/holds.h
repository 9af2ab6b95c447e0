/* holds.h: how much all large replies together may hold until their clients have read them.
 *
 * A reply lives as long as its request: a client that asks for many large ones and reads slowly would fill the memory (or, of
 * arrays, the disk) that all share. None may hold more than stays free for the others: alone, half. */
#ifndef STEERD_SERVER_HOLDS_H
#define STEERD_SERVER_HOLDS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { HOLDS_SMALL = 64 << 10 }; /* bytes: a reply up to there is not counted, for connections bound how many there are */

/* One reply, inside whatever owns it. Zeroes: it holds nothing. */
struct hold {
  uint64_t owner;
  int64_t bytes;
  struct hold *previous, *next;
};

struct holds {
  pthread_mutex_t lock; /* guards what follows */
  struct hold *first;
  int64_t most, total; /* bytes */
};

void holds_init(struct holds *holds, int64_t most);
void holds_clear(struct holds *holds); /* nothing is held any more */

/* `hold` is zeroes. False, and nothing held: all have too much already, or this owner has. An owner's only reply is let in
 * wherever there is room for it, and the only one of all whatever its size. */
bool holds_enter(struct holds *holds, struct hold *hold, uint64_t owner, int64_t bytes);
void holds_leave(struct holds *holds, struct hold *hold); /* also of one that holds nothing */
int64_t holds_total(struct holds *holds);

#endif
