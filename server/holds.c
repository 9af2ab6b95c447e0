/* Owns the list of large replies that are being read. Refuses to know what they are. */
#include "server/holds.h"

#include <string.h>

void holds_init(struct holds *holds, int64_t most) {
  memset(holds, 0, sizeof *holds);
  holds->most = most;
  pthread_mutex_init(&holds->lock, NULL);
}

void holds_clear(struct holds *holds) { pthread_mutex_destroy(&holds->lock); }

static bool has_room(const struct holds *holds, uint64_t owner, int64_t bytes) {
  int64_t own = 0, left = holds->most - holds->total - bytes;
  for (const struct hold *one = holds->first; one; one = one->next)
    if (one->owner == owner) own += one->bytes;
  return holds->total == 0 || (left >= 0 && (own == 0 || own + bytes <= left));
}

bool holds_enter(struct holds *holds, struct hold *hold, uint64_t owner, int64_t bytes) {
  if (bytes <= HOLDS_SMALL) return true;
  pthread_mutex_lock(&holds->lock);
  bool room = has_room(holds, owner, bytes);
  if (room) {
    *hold = (struct hold){.owner = owner, .bytes = bytes, .next = holds->first};
    if (hold->next) hold->next->previous = hold;
    holds->first = hold;
    holds->total += bytes;
  }
  pthread_mutex_unlock(&holds->lock);
  return room;
}

void holds_leave(struct holds *holds, struct hold *hold) {
  if (!hold->bytes) return;
  pthread_mutex_lock(&holds->lock);
  if (hold->previous) hold->previous->next = hold->next;
  else holds->first = hold->next;
  if (hold->next) hold->next->previous = hold->previous;
  holds->total -= hold->bytes;
  pthread_mutex_unlock(&holds->lock);
  *hold = (struct hold){0};
}

int64_t holds_total(struct holds *holds) {
  pthread_mutex_lock(&holds->lock);
  int64_t total = holds->total;
  pthread_mutex_unlock(&holds->lock);
  return total;
}
