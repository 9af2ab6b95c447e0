/* digest.h: 128-bit names of contents, which nobody who does not know the key can make collide: SipHash-2-4 (Aumasson and Bernstein,
 * "SipHash: a fast short-input PRF", INDOCRYPT 2012) with its output of 16 bytes. For tables in memory with a key
 * of the process; with one that is the same for ever it is a checksum, against damage alone. */
#ifndef STEERD_CORE_BASE_DIGEST_H
#define STEERD_CORE_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest {
  uint64_t word[2];
};

struct digester {
  uint64_t v[4], tail; /* tail: the bytes that do not make a word of 8 yet */
  uint64_t length;     /* bytes so far */
};

/* key: NULL for one that the process draws once. Any thread. */
void digest_begin(struct digester *digester, const uint64_t key[2]);
void digest_add(struct digester *digester, const void *data, size_t n);
struct digest digest_end(const struct digester *digester); /* of everything added so far */

static inline bool digest_equal(struct digest a, struct digest b) { return a.word[0] == b.word[0] && a.word[1] == b.word[1]; }

#endif
