/* Owns the table of clients and when each will have nothing to its account again. Refuses to know what is counted.
 *
 * One number a client is enough (the generic cell rate algorithm): the time at which all that it did would be paid off, were
 * one paid off each interval. What would move that further away than a minute is too much. */
#include "server/rates.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SETS = 1024, WAYS = 4 };

#define MINUTE ((int64_t)60 * 1000000000)

struct account {
  uint64_t client; /* 0: free */
  int64_t clear;   /* nothing is to its account from this time on */
};

struct rates {
  pthread_mutex_t lock; /* guards the sets */
  int64_t interval;     /* nanoseconds */
  struct account sets[SETS][WAYS];
};

struct rates *rates_new(int64_t a_minute, struct error *error) {
  struct rates *rates = calloc(1, sizeof *rates);
  if (!rates) {
    error_memory(error, sizeof *rates);
    return NULL;
  }
  rates->interval = MINUTE / a_minute;
  pthread_mutex_init(&rates->lock, NULL);
  return rates;
}

void rates_free(struct rates *rates) {
  if (!rates) return;
  pthread_mutex_destroy(&rates->lock);
  free(rates);
}

/* Addresses of one network differ in few bits: all of them are mixed in. */
static struct account *set_of(struct rates *rates, uint64_t client) {
  uint64_t mixed = (client ^ client >> 32) * UINT64_C(0x9e3779b97f4a7c15);
  return rates->sets[mixed >> 54]; /* SETS of them */
}

/* The client's account, or of its set the one that is clear first. */
static struct account *find(struct account *set, uint64_t client) {
  struct account *best = &set[0];
  for (int i = 0; i < WAYS; i++) {
    if (set[i].client == client) return &set[i];
    if (set[i].clear < best->clear) best = &set[i];
  }
  return best;
}

/* Where one more would bring the account. */
static int64_t next_clear(const struct rates *rates, const struct account *account, uint64_t client, int64_t now) {
  bool owes = account->client == client && account->clear > now;
  return (owes ? account->clear : now) + rates->interval;
}

static int64_t ask(struct rates *rates, uint64_t client, int64_t now, bool count) {
  pthread_mutex_lock(&rates->lock);
  struct account *account = find(set_of(rates, client), client);
  int64_t clear = next_clear(rates, account, client, now), wait = clear - now - MINUTE;
  if (count && wait <= 0) *account = (struct account){client, clear};
  pthread_mutex_unlock(&rates->lock);
  return wait > 0 ? wait : 0;
}

int64_t rates_take(struct rates *rates, uint64_t client, int64_t now) { return ask(rates, client, now, true); }

int64_t rates_wait(struct rates *rates, uint64_t client, int64_t now) { return ask(rates, client, now, false); }
