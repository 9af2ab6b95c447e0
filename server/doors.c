/* Owns the memory of right keys by address, and the count of wrong ones. Refuses to know any key. */
#include "server/doors.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "server/rates.h"

enum { SETS = 1024, WAYS = 4 };

struct doors {
  struct rates *wrong;
  pthread_mutex_t lock;       /* guards the guests */
  uint64_t guests[SETS][WAYS]; /* a key and an address each, the last that came first; 0: free */
};

struct doors *doors_new(struct error *error) {
  struct doors *doors = calloc(1, sizeof *doors);
  if (!doors) {
    error_memory(error, sizeof *doors);
    return NULL;
  }
  pthread_mutex_init(&doors->lock, NULL);
  doors->wrong = rates_new(DOORS_WRONG_A_MINUTE, error);
  if (doors->wrong) return doors;
  doors_free(doors);
  return NULL;
}

void doors_free(struct doors *doors) {
  if (!doors) return;
  rates_free(doors->wrong);
  pthread_mutex_destroy(&doors->lock);
  free(doors);
}

static uint64_t guest_of(uint64_t address, uint64_t owner) {
  uint64_t mixed = (address ^ owner) * UINT64_C(0x9e3779b97f4a7c15);
  return mixed ? mixed : 1;
}

static int place_of(const uint64_t *set, uint64_t guest) {
  int i = 0;
  while (i < WAYS && set[i] != guest) i++;
  return i;
}

/* Puts the guest in front; in a full set, who came longest ago is forgotten. */
static void let_in(struct doors *doors, uint64_t guest) {
  uint64_t *set = doors->guests[guest >> 54]; /* SETS of them */
  pthread_mutex_lock(&doors->lock);
  int i = place_of(set, guest);
  memmove(set + 1, set, (size_t)(i < WAYS ? i : WAYS - 1) * sizeof *set);
  set[0] = guest;
  pthread_mutex_unlock(&doors->lock);
}

static bool is_known(struct doors *doors, uint64_t guest) {
  pthread_mutex_lock(&doors->lock);
  bool known = place_of(doors->guests[guest >> 54], guest) < WAYS;
  pthread_mutex_unlock(&doors->lock);
  return known;
}

enum door doors_knock(struct doors *doors, uint64_t address, bool right, uint64_t owner, int64_t now, int64_t *wait) {
  uint64_t guest = guest_of(address, owner);
  *wait = 0;
  if (!right) *wait = rates_take(doors->wrong, address, now);
  else if (!is_known(doors, guest)) *wait = rates_wait(doors->wrong, address, now);
  if (*wait) return DOOR_LATER;
  if (right) let_in(doors, guest);
  return right ? DOOR_OPEN : DOOR_WRONG;
}
