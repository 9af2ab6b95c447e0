/* keys.h: the keys that clients must send, kept as SHA-256 digests.
 *
 * A setting's item is "sha256:" and 64 hexadecimal digits, or the path of a file with one key a line: plain
 * text, or again "sha256:..."; empty lines and lines that begin with '#' are skipped. Plain keys stand only
 * in files, so that they never show in a process list. */
#ifndef STEERD_SERVER_KEYS_H
#define STEERD_SERVER_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct keys;

/* Never NULL unless an error is set; no items give an empty set. Errors: ERROR_ARGUMENT (a malformed digest,
 * a key under 16 characters, a file without keys), those of file_read, ERROR_MEMORY. No text of a key
 * appears in an error. */
struct keys *keys_open(const char *const *items, size_t count, struct error *error) MUST_CHECK;
void keys_close(struct keys *keys); /* NULL is fine */

size_t keys_count(const struct keys *keys);

/* Whether the key is one of them. The work depends on the key's length and on how many there are, never on
 * which byte differs. */
bool keys_match(const struct keys *keys, const char *key);

/* A number that stands for the key and does not tell it: never 0, another one for another key. */
uint64_t keys_owner(const char *key);

#endif
