/* Reads the header of a safetensors file with a scanner for exactly its grammar: a JSON tree of a hostile
 * 100 MB header would take a gigabyte before the first check, this takes one struct tensor per entry, and
 * every error can name its byte. Knows nothing of models or of what the names mean. */
#include "core/model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"

#define HEADER_MAX ((uint64_t)100000000)

struct header {
  const char *path, *text;
  size_t length, at;
  const unsigned char *data; /* first byte behind the header */
  size_t data_bytes;
  bool metadata; /* "__metadata__" was seen */
  struct error *error;
};

/* One tensor's entry while it is read. */
enum { SEEN_DTYPE = 1, SEEN_SHAPE = 2, SEEN_OFFSETS = 4, SEEN_ALL = 7 };
struct entry {
  const char *type; /* as spelled */
  enum dtype dtype;
  unsigned bits; /* of one element */
  int n_dims;
  int64_t shape[TENSOR_MAX_DIMS];
  uint64_t begin, end;
  unsigned seen;
};

static const struct {
  const char *name;
  enum dtype dtype;
  unsigned bits;
} types[] = {
    {"F32", DTYPE_F32, 32},       {"F16", DTYPE_F16, 16},       {"BF16", DTYPE_BF16, 16},
    {"F64", DTYPE_F64, 64},       {"I8", DTYPE_I8, 8},          {"U8", DTYPE_U8, 8},
    {"I16", DTYPE_I16, 16},       {"U16", DTYPE_U16, 16},       {"I32", DTYPE_I32, 32},
    {"U32", DTYPE_U32, 32},       {"I64", DTYPE_I64, 64},       {"U64", DTYPE_U64, 64},
    {"BOOL", DTYPE_BOOL, 8},      {"C64", DTYPE_OTHER, 64},     {"F8_E5M2", DTYPE_OTHER, 8},
    {"F8_E4M3", DTYPE_OTHER, 8},  {"F8_E8M0", DTYPE_OTHER, 8},  {"F8_E4M3FNUZ", DTYPE_OTHER, 8},
    {"F8_E5M2FNUZ", DTYPE_OTHER, 8}, {"F6_E2M3", DTYPE_OTHER, 6}, {"F6_E3M2", DTYPE_OTHER, 6},
    {"F4", DTYPE_OTHER, 4}};

/* ---- the scanner ---- */

static int fail(struct header *h, const char *format, ...) ERROR_PRINTF(2, 3);
static int fail(struct header *h, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return error_set(h->error, ERROR_FORMAT, "'%s': byte %zu: %s", h->path, 8 + h->at, text);
}

static void skip_space(struct header *h) {
  while (h->at < h->length && strchr(" \t\r\n", h->text[h->at]) && h->text[h->at]) h->at++;
}

static char peek(struct header *h) {
  skip_space(h);
  return h->at < h->length ? h->text[h->at] : '\0';
}

static int expect(struct header *h, char c) {
  char found = peek(h);
  if (found == c) return h->at++, 0;
  if (h->at == h->length) return fail(h, "the header ends where '%c' is expected", c);
  return fail(h, "found 0x%02x where '%c' is expected", (unsigned char)found, c);
}

/* After a member: 1 when another follows, 0 at `close`, -1 on anything else. */
static int more_members(struct header *h, char close) {
  char c = peek(h);
  if (c == ',') return h->at++, 1;
  if (expect(h, close) != 0) return -1;
  return 0;
}

static int hex4(struct header *h, uint32_t *out) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++, h->at++) {
    char c = h->at < h->length ? h->text[h->at] : '\0';
    int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    if (digit < 0) return fail(h, "\\u is not followed by four hexadecimal digits");
    value = value << 4 | (uint32_t)digit;
  }
  *out = value;
  return 0;
}

static int unicode_escape(struct header *h, uint32_t *point) {
  uint32_t low;
  if (hex4(h, point) != 0) return -1;
  if (*point < 0xD800 || *point > 0xDFFF) return 0;
  bool pair = *point < 0xDC00 && h->at + 1 < h->length && h->text[h->at] == '\\' && h->text[h->at + 1] == 'u';
  if (!pair) return fail(h, "a \\u surrogate stands alone");
  h->at += 2;
  if (hex4(h, &low) != 0) return -1;
  if (low < 0xDC00 || low > 0xDFFF) return fail(h, "a \\u surrogate stands alone");
  *point = 0x10000 + ((*point - 0xD800) << 10) + (low - 0xDC00);
  return 0;
}

/* One character of a string, escapes resolved, as UTF-8 into out: its length, or -1. */
static int string_character(struct header *h, char out[4]) {
  uint32_t point;
  if (h->text[h->at] != '\\') {
    int n = utf8_next(h->text + h->at, h->length - h->at, &point);
    if (n <= 0 || point < 0x20) return fail(h, "a string holds a control character or bytes that are not UTF-8");
    memcpy(out, h->text + h->at, (size_t)n);
    h->at += (size_t)n;
    return n;
  }
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  h->at++;
  char c = h->at < h->length ? h->text[h->at++] : '\0';
  if (c == 'u') return unicode_escape(h, &point) == 0 ? utf8_put(point, out) : -1;
  const char *found = c ? strchr(from, c) : NULL;
  if (!found) return fail(h, "an unknown escape stands in a string");
  out[0] = to[found - from];
  return 1;
}

/* A string into out (at most `room` bytes and a NUL), or, with out NULL, of any length and only checked. */
static int read_string(struct header *h, char *out, size_t room, size_t *length) {
  if (expect(h, '"') != 0) return -1;
  size_t n = 0, start = h->at;
  while (h->at < h->length && h->text[h->at] != '"') {
    char character[4];
    int bytes = string_character(h, character);
    if (bytes < 0) return -1;
    if (out && n + (size_t)bytes > room) {
      h->at = start;
      return fail(h, "the name '%.*s...' is longer than %zu bytes", (int)size_min(room, 40), h->text + start, room);
    }
    if (out) memcpy(out + n, character, (size_t)bytes);
    n += (size_t)bytes;
  }
  if (h->at >= h->length) return fail(h, "the header ends inside a string");
  h->at++;
  if (out) out[n] = '\0';
  if (length) *length = n;
  return 0;
}

/* A non-negative integer below 2^63, written plainly. */
static int read_integer(struct header *h, const char *what, uint64_t *out) {
  uint64_t value = 0;
  (void)peek(h);
  size_t start = h->at;
  for (; h->at < h->length && h->text[h->at] >= '0' && h->text[h->at] <= '9'; h->at++) {
    bool over = __builtin_mul_overflow(value, (uint64_t)10, &value) ||
                __builtin_add_overflow(value, (uint64_t)(h->text[h->at] - '0'), &value) || value > INT64_MAX;
    if (over) return fail(h, "%s is not below 2^63", what);
  }
  bool plain = h->at > start && !(h->text[start] == '0' && h->at - start > 1);
  if (plain && h->at < h->length && strchr(".eE", h->text[h->at]) && h->text[h->at]) plain = false;
  if (!plain) return fail(h, "%s is not a whole number of 0 or more", what);
  *out = value;
  return 0;
}

/* ---- the entries ---- */

static int read_dtype(struct header *h, struct entry *entry) {
  char name[16];
  if (read_string(h, name, sizeof name - 1, NULL) != 0) return -1;
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    if (strcmp(types[i].name, name) != 0) continue;
    entry->type = types[i].name;
    entry->dtype = types[i].dtype;
    entry->bits = types[i].bits;
    return 0;
  }
  return fail(h, "unknown dtype '%s'", name);
}

static int read_shape(struct header *h, struct entry *entry) {
  uint64_t size;
  if (expect(h, '[') != 0) return -1;
  if (peek(h) == ']') return h->at++, 0;
  for (int more = 1; more;) {
    if (entry->n_dims == TENSOR_MAX_DIMS) return fail(h, "more than %d dimensions", TENSOR_MAX_DIMS);
    if (read_integer(h, "a dimension", &size) != 0) return -1;
    entry->shape[entry->n_dims++] = (int64_t)size;
    if ((more = more_members(h, ']')) < 0) return -1;
  }
  return 0;
}

static int read_offsets(struct header *h, struct entry *entry) {
  if (expect(h, '[') != 0 || read_integer(h, "data_offsets[0]", &entry->begin) != 0) return -1;
  if (expect(h, ',') != 0 || read_integer(h, "data_offsets[1]", &entry->end) != 0) return -1;
  return expect(h, ']');
}

static int read_member(struct header *h, struct entry *entry) {
  static const struct {
    const char *key;
    unsigned bit;
    int (*read)(struct header *, struct entry *);
  } members[] = {{"dtype", SEEN_DTYPE, read_dtype},
                 {"shape", SEEN_SHAPE, read_shape},
                 {"data_offsets", SEEN_OFFSETS, read_offsets}};
  char key[32];
  if (read_string(h, key, sizeof key - 1, NULL) != 0 || expect(h, ':') != 0) return -1;
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
    if (strcmp(members[i].key, key) != 0) continue;
    if (entry->seen & members[i].bit) return fail(h, "'%s' stands twice", key);
    entry->seen |= members[i].bit;
    return members[i].read(h, entry);
  }
  return fail(h, "unknown member '%s'; expected dtype, shape and data_offsets", key);
}

static int read_entry(struct header *h, struct entry *entry) {
  if (expect(h, '{') != 0) return -1;
  if (peek(h) == '}') return fail(h, "the entry is empty; expected dtype, shape and data_offsets");
  for (int more = 1; more;)
    if (read_member(h, entry) != 0 || (more = more_members(h, '}')) < 0) return -1;
  if (entry->seen != SEEN_ALL) return fail(h, "the entry lacks one of dtype, shape and data_offsets");
  return 0;
}

/* What dtype and shape need, in bytes, against the range that the entry claims. */
static int check_range(struct header *h, const struct entry *entry) {
  size_t count, bits;
  if (!tensor_element_count(entry->shape, entry->n_dims, &count) || !checked_mul(count, entry->bits, &bits))
    return fail(h, "the product of its dimensions overflows");
  if (bits % 8) return fail(h, "%zu elements of %s are %zu bits, not whole bytes", count, entry->type, bits);
  if (entry->begin > entry->end || entry->end > h->data_bytes)
    return fail(h, "data_offsets [%llu, %llu] do not lie in the %zu bytes behind the header",
                (unsigned long long)entry->begin, (unsigned long long)entry->end, h->data_bytes);
  if (entry->end - entry->begin != bits / 8)
    return fail(h, "data_offsets span %llu bytes, dtype %s and shape need %zu",
                (unsigned long long)(entry->end - entry->begin), entry->type, bits / 8);
  return 0;
}

static int read_tensor(struct header *h, const char *name, size_t length, struct tensor_list *list) {
  struct entry entry = {0};
  struct error inner = ERROR_INIT, *outer = h->error;
  h->error = &inner;
  int rc = read_entry(h, &entry) == 0 ? check_range(h, &entry) : -1;
  h->error = outer;
  if (rc != 0) return error_set(outer, inner.code, "%.300s (tensor '%.100s')", inner.text, name);
  struct tensor *tensor = tensor_list_add(list, name, length, &inner);
  if (!tensor) return error_set(outer, inner.code, "'%s': %s", h->path, inner.text);
  tensor->dtype = entry.dtype;
  tensor->n_dims = entry.n_dims;
  memcpy(tensor->shape, entry.shape, sizeof tensor->shape);
  tensor_set_strides(tensor);
  tensor->data = h->data + entry.begin;
  tensor->bytes = (size_t)(entry.end - entry.begin);
  return 0;
}

/* The map of strings is checked, not kept: nothing here needs it. */
static int read_metadata(struct header *h) {
  if (h->metadata) return fail(h, "'__metadata__' stands twice");
  h->metadata = true;
  if (expect(h, '{') != 0) return -1;
  if (peek(h) == '}') return h->at++, 0;
  for (int more = 1; more;) {
    if (read_string(h, NULL, 0, NULL) != 0 || expect(h, ':') != 0 || read_string(h, NULL, 0, NULL) != 0) return -1;
    if ((more = more_members(h, '}')) < 0) return -1;
  }
  return 0;
}

static int read_header(struct header *h, struct tensor_list *list) {
  char name[TENSOR_NAME_MAX + 1];
  size_t length;
  if (expect(h, '{') != 0) return -1;
  bool empty = peek(h) == '}';
  if (empty) h->at++;
  for (int more = !empty; more;) {
    if (read_string(h, name, TENSOR_NAME_MAX, &length) != 0 || expect(h, ':') != 0) return -1;
    bool is_metadata = length == 12 && memcmp(name, "__metadata__", 12) == 0;
    int rc = is_metadata ? read_metadata(h) : read_tensor(h, name, length, list);
    if (rc != 0 || (more = more_members(h, '}')) < 0) return -1;
  }
  skip_space(h);
  return h->at == h->length ? 0 : fail(h, "text stands behind the end of the header's object");
}

/* ---- the ranges together ---- */

static int compare_ranges(const void *a, const void *b) {
  const struct tensor *x = *(const struct tensor *const *)a, *y = *(const struct tensor *const *)b;
  if (x->data != y->data) return x->data < y->data ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int check_order(struct header *h, const struct tensor *const *sorted, size_t n) {
  size_t expected = 0;
  const char *before = "the header";
  for (size_t i = 0; i < n; i++) {
    size_t begin = (size_t)(sorted[i]->data - h->data);
    if (begin != expected)
      return error_set(h->error, ERROR_FORMAT,
                       "'%s': tensor '%.100s' begins at data byte %zu, expected %zu: it %s '%.100s'", h->path,
                       sorted[i]->name, begin, expected, begin < expected ? "overlaps" : "leaves a gap behind", before);
    expected += sorted[i]->bytes; /* every range was checked against data_bytes and begins where the last ended */
    before = sorted[i]->name;
  }
  if (expected != h->data_bytes)
    return error_set(h->error, ERROR_FORMAT, "'%s': %zu bytes of data, the tensors cover %zu", h->path,
                     h->data_bytes, expected);
  return 0;
}

/* Without gaps and overlaps every byte has exactly one meaning. */
static int check_cover(struct header *h, const struct tensor *tensors, size_t n) {
  size_t bytes = size_max(n, 1) * sizeof(struct tensor *);
  const struct tensor **sorted = malloc(bytes);
  if (!sorted) return error_memory(h->error, bytes);
  bool ordered = true;
  for (size_t i = 0; i < n; i++) {
    sorted[i] = &tensors[i];
    if (i && compare_ranges(&sorted[i - 1], &sorted[i]) > 0) ordered = false;
  }
  if (!ordered) qsort(sorted, n, sizeof *sorted, compare_ranges);
  int rc = check_order(h, sorted, n);
  free(sorted);
  return rc;
}

static int find_header(const char *path, const struct mapfile *file, struct header *h, struct error *error) {
  uint64_t length = 0;
  if (file->size < 8)
    return error_set(error, ERROR_FORMAT, "'%s' has %zu bytes, a safetensors file at least 8", path, file->size);
  for (int i = 7; i >= 0; i--) length = length << 8 | file->data[i];
  if (length > HEADER_MAX)
    return error_set(error, ERROR_FORMAT, "'%s': the header claims %llu bytes, at most %llu are allowed", path,
                     (unsigned long long)length, (unsigned long long)HEADER_MAX);
  if (length > file->size - 8)
    return error_set(error, ERROR_FORMAT, "'%s': the header claims %llu bytes, the file has %zu behind byte 8", path,
                     (unsigned long long)length, file->size - 8);
  if (length == 0 || file->data[8] != '{')
    return error_set(error, ERROR_FORMAT, "'%s': byte 8: the header does not begin with '{'", path);
  size_t data_at = 8 + (size_t)length;
  *h = (struct header){.path = path, .text = (const char *)file->data + 8, .length = (size_t)length,
                       .data = file->data + data_at, .data_bytes = file->size - data_at, .error = error};
  return 0;
}

/* An upper bound of the entries: every one opens a brace. Room for all at once costs no pages that are not
 * used, and a doubling list would take half as much again. */
static size_t count_braces(const struct header *h) {
  size_t n = 0;
  for (size_t i = 1; i < h->length; i++) n += h->text[i] == '{';
  return n;
}

int safetensors_read(const char *path, const struct mapfile *file, struct tensor_list *list, struct error *error) {
  struct header h;
  size_t first = list->count;
  if (find_header(path, file, &h, error) != 0) return -1;
  size_t room = size_min(count_braces(&h), TENSOR_COUNT_MAX - size_min(first, TENSOR_COUNT_MAX));
  if (tensor_list_reserve(list, room, error) != 0 || read_header(&h, list) != 0) return -1;
  return check_cover(&h, list->items + first, list->count - first);
}
