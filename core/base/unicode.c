/* unicode.c: owns the arithmetic of Unicode's normalization (UAX 15); the tables are unicode_tables.h. A text is
 * handled in segments: a character of class 0 and the marks behind it, in which order and composition happen. */
#include "core/base/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"

struct decomposition {
  uint32_t point;
  uint16_t offset, length; /* in decomposed_points */
};

struct composition {
  uint32_t first, second, point;
};

struct point_run {
  uint32_t first, last;
  int32_t value;
};

#include "core/base/unicode_tables.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Hangul syllables are composed of a leading consonant, a vowel and perhaps a trailing consonant. */
enum { S_BASE = 0xAC00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28,
       S_COUNT = L_COUNT * V_COUNT * T_COUNT };

/* ---- properties ---- */

static int32_t run_value(const struct point_run *runs, size_t count, uint32_t point) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (runs[middle].last < point)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && runs[low].first <= point ? runs[low].value : 0;
}

static const struct decomposition *decomposition_find(const struct decomposition *table, size_t count,
                                                      uint32_t point) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (table[middle].point < point)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && table[low].point == point ? &table[low] : NULL;
}

static unsigned char combining_class(uint32_t point) {
  if (point < 0x300) return 0;
  return (unsigned char)run_value(combining, COUNT(combining), point);
}

/* The character that two become, or 0. */
static uint32_t composed(uint32_t first, uint32_t second) {
  if (first - L_BASE < L_COUNT && second - V_BASE < V_COUNT)
    return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
  if (first - S_BASE < S_COUNT && (first - S_BASE) % T_COUNT == 0 && second > T_BASE && second < T_BASE + T_COUNT)
    return first + (second - T_BASE);
  size_t low = 0, high = COUNT(compositions);
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct composition *at = &compositions[middle];
    if (at->first < first || (at->first == first && at->second < second))
      low = middle + 1;
    else
      high = middle;
  }
  const struct composition *at = &compositions[low];
  return low < COUNT(compositions) && at->first == first && at->second == second ? at->point : 0;
}

bool unicode_is_space(uint32_t p) {
  return (p >= 0x09 && p <= 0x0D) || p == 0x20 || p == 0x85 || p == 0xA0 || p == 0x1680 ||
         (p >= 0x2000 && p <= 0x200A) || p == 0x2028 || p == 0x2029 || p == 0x202F || p == 0x205F || p == 0x3000;
}

size_t unicode_space_prefix(const char *text, size_t length) {
  uint32_t point;
  size_t at = 0;
  while (at < length) {
    int n = utf8_next(text + at, length - at, &point);
    if (n <= 0 || !unicode_is_space(point)) break;
    at += (size_t)n;
  }
  return at;
}

size_t unicode_space_suffix(const char *text, size_t length) {
  uint32_t point;
  size_t to = length;
  while (to > 0) {
    size_t at = to - 1;
    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80) at--;
    if (utf8_next(text + at, to - at, &point) != (int)(to - at) || !unicode_is_space(point)) break;
    to = at;
  }
  return length - to;
}

/* ---- one segment ---- */

struct mark {
  uint32_t point;
  unsigned char class; /* 0: begins a segment */
};

struct segment {
  struct mark *marks, *sorted; /* owned, both of `capacity` */
  size_t count, capacity;
  bool compose;
  bool failed;
  struct buffer *out;
};

static bool segment_grow(struct segment *s) {
  size_t capacity = size_max(32, s->capacity * 2);
  struct mark *marks = realloc(s->marks, capacity * sizeof *marks);
  if (marks) s->marks = marks;
  struct mark *sorted = realloc(s->sorted, capacity * sizeof *sorted);
  if (sorted) s->sorted = sorted;
  if (!marks || !sorted) return false;
  s->capacity = capacity;
  return true;
}

/* Orders the marks by class, those of one class as they came: a counting sort, since a hostile text may put a
 * hundred thousand of them on one letter. */
static void segment_order(struct segment *s) {
  size_t starts[257] = {0};
  bool ordered = true;
  for (size_t i = 0; i < s->count; i++) {
    starts[s->marks[i].class + 1u]++;
    ordered = ordered && (i == 0 || s->marks[i - 1].class <= s->marks[i].class);
  }
  if (ordered) return;
  for (int c = 1; c < 257; c++) starts[c] += starts[c - 1];
  for (size_t i = 0; i < s->count; i++) s->sorted[starts[s->marks[i].class]++] = s->marks[i];
  memcpy(s->marks, s->sorted, s->count * sizeof *s->marks);
}

/* Joins each mark with the starter in front unless a mark of its class, or a higher one, stands between. */
static void segment_compose(struct segment *s) {
  size_t kept = 1;
  unsigned char last = 0;
  if (s->count == 0 || s->marks[0].class != 0) return;
  for (size_t i = 1; i < s->count; i++) {
    struct mark mark = s->marks[i];
    uint32_t joined = kept > 1 && last >= mark.class ? 0 : composed(s->marks[0].point, mark.point);
    if (joined) {
      s->marks[0].point = joined;
      continue;
    }
    last = mark.class;
    s->marks[kept++] = mark;
  }
  s->count = kept;
}

static void segment_write(struct segment *s, size_t count) {
  char bytes[4];
  for (size_t i = 0; i < count; i++) buffer_append(s->out, bytes, (size_t)utf8_put(s->marks[i].point, bytes));
}

static void segment_end(struct segment *s) {
  segment_order(s);
  if (s->compose) segment_compose(s);
}

static void segment_flush(struct segment *s) {
  segment_end(s);
  segment_write(s, s->count);
  s->count = 0;
}

/* Adds a fully decomposed character. A starter ends the segment before it, unless both compose. */
static void segment_add(struct segment *s, uint32_t point) {
  unsigned char class = combining_class(point);
  if (s->count == s->capacity && !segment_grow(s)) {
    s->failed = true;
    return;
  }
  if (class == 0 && s->count > 0) {
    segment_end(s);
    uint32_t joined = s->compose && s->count == 1 && s->marks[0].class == 0 ? composed(s->marks[0].point, point) : 0;
    if (joined) {
      s->marks[0].point = joined;
      return;
    }
    segment_write(s, s->count);
    s->count = 0;
  }
  s->marks[s->count++] = (struct mark){point, class};
}

static void decompose_hangul(struct segment *s, uint32_t index) {
  segment_add(s, L_BASE + index / (V_COUNT * T_COUNT));
  segment_add(s, V_BASE + index % (V_COUNT * T_COUNT) / T_COUNT);
  if (index % T_COUNT) segment_add(s, T_BASE + index % T_COUNT);
}

static void decompose(struct segment *s, uint32_t point, bool compatibly) {
  const struct decomposition *found = NULL;
  if (point < 0xA0) return segment_add(s, point); /* nothing below decomposes */
  if (point - S_BASE < S_COUNT) return decompose_hangul(s, point - S_BASE);
  if (compatibly) found = decomposition_find(compatible, COUNT(compatible), point);
  if (!found) found = decomposition_find(canonical, COUNT(canonical), point);
  if (!found) return segment_add(s, point);
  for (int i = 0; i < found->length; i++) segment_add(s, decomposed_points[found->offset + i]);
}

/* ---- texts ---- */

/* How much of the front the form surely leaves as it is: ASCII, and not what the next character may change. */
static size_t unchanged_prefix(const char *text, size_t length) {
  size_t at = 0;
  while (at < length && (unsigned char)text[at] < 0x80) at++;
  return at == length || at == 0 ? at : at - 1;
}

void unicode_normalize(const char *text, size_t length, enum unicode_form form, struct buffer *out) {
  struct segment segment = {.out = out, .compose = form == UNICODE_NFC || form == UNICODE_NFKC};
  bool compatibly = form == UNICODE_NFKC || form == UNICODE_NFKD;
  uint32_t point = 0;
  for (size_t at = 0; at < length;) {
    size_t plain = unchanged_prefix(text + at, length - at);
    if (plain > 0) segment_flush(&segment); /* ASCII composes with nothing in front of it */
    buffer_append(out, text + at, plain);
    at += plain;
    if (at == length) break;
    int n = utf8_next(text + at, length - at, &point);
    if (n <= 0) break;
    decompose(&segment, point, compatibly);
    at += (size_t)n;
  }
  segment_flush(&segment);
  if (segment.failed) out->failed = true;
  free(segment.marks);
  free(segment.sorted);
}

void unicode_lower(const char *text, size_t length, struct buffer *out) {
  static const char dotted_i[] = "i\xCC\x87"; /* U+0130 is the only one whose lower case is two characters */
  uint32_t point = 0;
  char bytes[4];
  for (size_t at = 0; at < length;) {
    int n = utf8_next(text + at, length - at, &point);
    if (n <= 0) break;
    at += (size_t)n;
    if (point == 0x130) {
      buffer_text(out, dotted_i);
      continue;
    }
    point = (uint32_t)((int32_t)point + run_value(lower_case, COUNT(lower_case), point));
    buffer_append(out, bytes, (size_t)utf8_put(point, bytes));
  }
}
