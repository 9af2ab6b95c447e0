/* digest.c: SipHash-2-4, a word of 8 bytes at a time. Knows nothing of what is named. */
#include "core/base/digest.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t own_key[2];

/* Where the system gives no random bytes, names still differ; only an enemy could then make two contents share one. */
static void draw_key(void) {
  if (getrandom(own_key, sizeof own_key, 0) == (ssize_t)sizeof own_key) return;
  own_key[0] = (uint64_t)clock_ns();
  own_key[1] = (uint64_t)(uintptr_t)&own_key;
}

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static void rounds(uint64_t v[4], int n) {
  while (n-- > 0) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
  }
}

static void mix(uint64_t v[4], uint64_t word) {
  v[3] ^= word;
  rounds(v, 2);
  v[0] ^= word;
}

void digest_begin(struct digester *d, const uint64_t key[2]) {
  pthread_once(&once, draw_key);
  if (!key) key = own_key;
  *d = (struct digester){.v = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du ^ 0xee, key[0] ^ 0x6c7967656e657261u,
                               key[1] ^ 0x7465646279746573u}};
}

static void add_byte(struct digester *d, unsigned char byte) {
  d->tail |= (uint64_t)byte << d->length % 8 * 8;
  if (++d->length % 8) return;
  mix(d->v, d->tail);
  d->tail = 0;
}

void digest_add(struct digester *d, const void *data, size_t n) {
  const unsigned char *p = data;
  for (; n > 0 && d->length % 8; n--) add_byte(d, *p++);
  for (; n >= 8; n -= 8, p += 8, d->length += 8) {
    uint64_t word;
    memcpy(&word, p, 8); /* little-endian, as everything that steerd runs on */
    mix(d->v, word);
  }
  for (; n > 0; n--) add_byte(d, *p++);
}

struct digest digest_end(const struct digester *d) {
  uint64_t v[4] = {d->v[0], d->v[1], d->v[2], d->v[3]};
  struct digest out;
  mix(v, d->tail | d->length << 56);
  v[2] ^= 0xee;
  rounds(v, 4);
  out.word[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
  v[1] ^= 0xdd;
  rounds(v, 4);
  out.word[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
  return out;
}
