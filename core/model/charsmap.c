/* charsmap.c: owns the walk through the double array, of which nothing is trusted: every index is compared with the array
 * where it is used. Does not know what a text is normalized for. */
#include "core/model/charsmap.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"

/* A unit: 8 bits of label, a bit that a value stands at offset 0 of its children, 22 bits of offset and one that shifts it by
 * 8; a value's unit has bit 31 set, and 31 bits of value. */
#define UNIT_VALUE 0x80000000u

/* A trie may lead in circles, so a walk has an end. The longest texts that published ones replace have some 20 bytes. */
#define KEY_BYTES_MAX 256

struct charsmap {
  uint32_t *units; /* [n_units] */
  char *texts;     /* [n_texts], the last of which is NUL */
  size_t n_units, n_texts;
};

static uint32_t read_u32(const char *data) {
  const unsigned char *at = (const unsigned char *)data;
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static int check(const char *data, size_t length, struct error *error) {
  size_t trie = length < 4 ? 0 : read_u32(data), bad;
  if (trie == 0 || trie % 4 != 0 || trie >= length - 4)
    return error_set(error, ERROR_FORMAT, "its charsmap of %zu bytes has a trie of %zu, which does not fit", length, trie);
  if (data[length - 1] != '\0')
    return error_set(error, ERROR_FORMAT, "the last text of its charsmap does not end");
  if (!utf8_valid(data + 4 + trie, length - 4 - trie, &bad))
    return error_set(error, ERROR_FORMAT, "the texts of its charsmap are not valid UTF-8 at byte %zu", bad);
  return 0;
}

struct charsmap *charsmap_open(const char *data, size_t length, struct error *error) {
  if (check(data, length, error) != 0)
    return NULL;
  struct charsmap *map = calloc(1, sizeof *map);
  if (!map)
    return error_memory(error, sizeof *map), NULL;
  map->n_units = read_u32(data) / 4;
  map->n_texts = length - 4 - 4 * map->n_units;
  map->units = malloc(map->n_units * sizeof *map->units);
  map->texts = malloc(map->n_texts);
  if (!map->units || !map->texts) {
    charsmap_free(map);
    return error_memory(error, length), NULL;
  }
  for (size_t i = 0; i < map->n_units; i++)
    map->units[i] = read_u32(data + 4 + 4 * i);
  memcpy(map->texts, data + 4 + 4 * map->n_units, map->n_texts);
  return map;
}

void charsmap_free(struct charsmap *map) {
  if (!map)
    return;
  free(map->units);
  free(map->texts);
  free(map);
}

static bool is_inside(char byte) { return ((unsigned char)byte & 0xC0) == 0x80; }

static uint32_t unit_offset(uint32_t unit) { return unit >> 10 << (unit >> 6 & 8); }

/* The text of the value that stands at `at`, or NULL: no value, or one that points outside or into a character. */
static const char *value_text(const struct charsmap *map, uint32_t at) {
  if (at >= map->n_units || !(map->units[at] & UNIT_VALUE))
    return NULL;
  uint32_t value = map->units[at] & ~UNIT_VALUE;
  return value < map->n_texts && !is_inside(map->texts[value]) ? map->texts + value : NULL;
}

size_t charsmap_find(const struct charsmap *map, const char *text, size_t length, const char **out, size_t *out_length) {
  uint32_t at = unit_offset(map->units[0]);
  size_t found = 0;
  for (size_t i = 0; i < length && i < KEY_BYTES_MAX; i++) {
    at ^= (unsigned char)text[i];
    if (at >= map->n_units)
      break;
    uint32_t unit = map->units[at];
    if ((unit & (UNIT_VALUE | 0xFF)) != (unsigned char)text[i])
      break;
    at ^= unit_offset(unit);
    const char *here = unit >> 8 & 1 ? value_text(map, at) : NULL;
    if (!here || (i + 1 < length && is_inside(text[i + 1])))
      continue;
    found = i + 1;
    *out = here;
  }
  *out_length = found ? strlen(*out) : 0;
  return found;
}
