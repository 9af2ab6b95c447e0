/* positions.c: Python's slices over a context, and the tokens that are left out. Knows no dictionary and no text. */
#include "core/dict/positions.h"

#include <string.h>

/* ---- slices ---- */

/* A bound of a slice over n positions, as Python's slice.indices has it: below 0 it is counted from the end, and what is outside is
 * moved to where a walk by this step begins or ends. */
static int64_t bound(int64_t at, int64_t otherwise, int64_t step, int64_t n) {
  int64_t least = step < 0 ? -1 : 0, most = step < 0 ? n - 1 : n;
  if (at == SLICE_OPEN) return otherwise;
  if (at < 0) at += n;
  return at < least ? least : at > most ? most : at;
}

/* The positions of a slice that is given: *first, *first + step, ..., so many. */
static int64_t walk(const struct slice *s, int64_t n, int64_t *first) {
  int64_t start = *first = bound(s->start, s->step < 0 ? n - 1 : 0, s->step, n);
  int64_t stop = bound(s->stop, s->step < 0 ? -1 : n, s->step, n);
  int64_t length = s->step < 0 ? start - stop : stop - start, stride = s->step < 0 ? -s->step : s->step;
  return length > 0 ? (length - 1) / stride + 1 : 0;
}

int32_t slice_count(const struct slice *slice, int32_t n) {
  int64_t first;
  return slice->given ? (int32_t)walk(slice, n, &first) : n;
}

static void mark_slice(const struct slice *slice, int32_t n, uint8_t *mask) {
  int64_t at, count = walk(slice, n, &at);
  memset(mask, 0, (size_t)n);
  for (; count > 0; count--, at += slice->step) mask[at] = 1;
}

/* ---- tokens ---- */

static bool is_excluded(const struct positions *p, int32_t id) {
  size_t low = 0, high = p->n_excluded;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (p->excluded[middle] < id) low = middle + 1;
    else high = middle;
  }
  return low < p->n_excluded && p->excluded[low] == id;
}

/* ---- masks ---- */

int32_t positions_mark(const struct positions *p, const int32_t *ids, int32_t n, uint8_t *mask) {
  int32_t counted = 0;
  if (n <= 0) return 0;
  if (p->slice.given) mark_slice(&p->slice, n, mask);
  else memset(mask, 1, (size_t)n);
  if (p->skip_first) mask[0] = 0;
  for (int32_t i = 0; i < n; i++) {
    if (mask[i] && p->n_excluded && is_excluded(p, ids[i])) mask[i] = 0;
    counted += mask[i];
  }
  return counted;
}

bool positions_next(const uint8_t *mask, int32_t n, int32_t *begin, int32_t *end) {
  int32_t at = *end;
  while (at < n && !mask[at]) at++;
  *begin = at;
  while (at < n && mask[at]) at++;
  *end = at;
  return *begin < n;
}

/* ---- a name ---- */

/* FNV-1a: meant to notice another rule, not an enemy's. */
static uint64_t mix(uint64_t hash, uint64_t word) {
  for (int i = 0; i < 8; i++) hash = (hash ^ (word >> 8 * i & 0xFF)) * 0x100000001B3u;
  return hash;
}

uint32_t positions_print(const struct positions *p) {
  uint64_t hash = mix(0xCBF29CE484222325u, p->slice.given);
  if (!p->slice.given && !p->n_excluded) return 0;
  if (p->slice.given) hash = mix(mix(mix(hash, (uint64_t)p->slice.start), (uint64_t)p->slice.stop), (uint64_t)p->slice.step);
  for (size_t i = 0; i < p->n_excluded; i++) hash = mix(hash, (uint64_t)p->excluded[i] + 1);
  uint32_t print = (uint32_t)(hash >> 34); /* of 30 bits: the upper ones, which all of it has gone into */
  return print ? print : 1;
}
