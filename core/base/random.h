/* random.h: counter-based random numbers: a pure function of (seed, stream, position), so that a request's
 * draws never depend on what else runs. Philox-4x32 with 10 rounds (Salmon, Moraes, Dror and Shaw,
 * "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Not for secrets. */
#ifndef STEERD_CORE_BASE_RANDOM_H
#define STEERD_CORE_BASE_RANDOM_H

#include <stdint.h>

/* Four independent 32-bit words for one counter value. */
void random_words(uint64_t seed, uint64_t stream, uint64_t position, uint32_t out[4]);

/* A double in [0, 1) with 53 random bits. */
double random_unit(uint64_t seed, uint64_t stream, uint64_t position);

#endif
