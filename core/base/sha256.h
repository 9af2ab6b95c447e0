/* sha256.h: SHA-256 (FIPS 180-4). Its time depends on the length of the data, not on its bytes. */
#ifndef STEERD_CORE_BASE_SHA256_H
#define STEERD_CORE_BASE_SHA256_H

#include <stddef.h>

enum { SHA256_BYTES = 32 };

void sha256(const void *data, size_t length, unsigned char out[SHA256_BYTES]);

#endif
