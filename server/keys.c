/* Owns the digests of the accepted keys. Refuses to know which header a key came in. */
#include "server/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/base/sha256.h"

#define FILE_MOST (1 << 20) /* bytes */
#define SHORTEST 16         /* characters: less can be guessed over the network */
#define PREFIX "sha256:"

struct digest {
  unsigned char bytes[SHA256_BYTES];
};
struct keys {
  struct digest *digests;
  size_t count, capacity;
};

static int add(struct keys *keys, const struct digest *digest, struct error *error) {
  if (keys->count == keys->capacity) {
    size_t capacity = keys->capacity ? keys->capacity * 2 : 8;
    struct digest *digests = realloc(keys->digests, capacity * sizeof *digests);
    if (!digests) return error_memory(error, capacity * sizeof *digests);
    keys->digests = digests;
    keys->capacity = capacity;
  }
  keys->digests[keys->count++] = *digest;
  return 0;
}

static int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static int add_digest(struct keys *keys, const char *hex, const char *where, struct error *error) {
  struct digest digest;
  bool good = strlen(hex) == 2 * SHA256_BYTES;
  for (size_t i = 0; good && i < SHA256_BYTES; i++) {
    int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    digest.bytes[i] = (unsigned char)(high * 16 + low);
  }
  if (!good)
    return error_set(error, ERROR_ARGUMENT,
                     "keys: %s: behind 'sha256:' stand 64 hexadecimal digits (printf %%s KEY | sha256sum)",
                     where);
  return add(keys, &digest, error);
}

static int add_line(struct keys *keys, const char *line, const char *where, struct error *error) {
  if (!strncmp(line, PREFIX, strlen(PREFIX))) return add_digest(keys, line + strlen(PREFIX), where, error);
  if (strlen(line) < SHORTEST)
    return error_set(error, ERROR_ARGUMENT,
                     "keys: %s: a key has at least %d characters (openssl rand -hex 32)", where, SHORTEST);
  struct digest digest;
  sha256(line, strlen(line), digest.bytes);
  return add(keys, &digest, error);
}

static int add_file(struct keys *keys, const char *path, struct error *error) {
  char *text;
  size_t length, before = keys->count;
  if (file_read(path, FILE_MOST, &text, &length, error)) return error_prefix(error, "keys");
  int rc = 0, number = 0;
  char *state = NULL;
  /* strtok_r skips empty lines, so `number` counts lines that say something. */
  for (char *line = strtok_r(text, "\r\n", &state); line && !rc; line = strtok_r(NULL, "\r\n", &state)) {
    char where[256];
    snprintf(where, sizeof where, "'%.200s', entry %d", path, ++number);
    if (line[0] != '#') rc = add_line(keys, line, where, error);
  }
  explicit_bzero(text, length);
  free(text);
  if (!rc && keys->count == before) rc = error_set(error, ERROR_ARGUMENT, "keys: '%s' holds no key", path);
  return rc;
}

struct keys *keys_open(const char *const *items, size_t count, struct error *error) {
  struct keys *keys = calloc(1, sizeof *keys);
  if (!keys) {
    error_memory(error, sizeof *keys);
    return NULL;
  }
  for (size_t i = 0; i < count; i++) {
    int rc = !strncmp(items[i], PREFIX, strlen(PREFIX))
                 ? add_digest(keys, items[i] + strlen(PREFIX), "the setting", error)
                 : add_file(keys, items[i], error);
    if (!rc) continue;
    keys_close(keys);
    return NULL;
  }
  return keys;
}

void keys_close(struct keys *keys) {
  if (!keys) return;
  free(keys->digests);
  free(keys);
}

size_t keys_count(const struct keys *keys) { return keys->count; }

uint64_t keys_owner(const char *key) {
  unsigned char digest[SHA256_BYTES];
  uint64_t owner;
  sha256(key, strlen(key), digest);
  memcpy(&owner, digest, sizeof owner);
  return owner ? owner : 1;
}

bool keys_match(const struct keys *keys, const char *key) {
  unsigned char digest[SHA256_BYTES];
  sha256(key, strlen(key), digest);
  unsigned found = 0;
  for (size_t i = 0; i < keys->count; i++) {
    unsigned difference = 0;
    for (size_t j = 0; j < SHA256_BYTES; j++) difference |= (unsigned)(digest[j] ^ keys->digests[i].bytes[j]);
    found |= difference == 0;
  }
  return found != 0;
}
