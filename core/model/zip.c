/* The directory of a zip archive (PKWARE's APPNOTE 6.3, sections 4.3 and 4.5.3). Owns the member table,
 * borrows the bytes; unpacks nothing and knows nothing of what the members mean. */
#include "core/model/zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/base/arena.h"
#include "core/base/checked.h"
#include "core/base/utf8.h"

#define MAX_MEMBERS 4096
#define MAX_NAME 512
#define END_BYTES 22
#define END64_BYTES 56
#define LOCATOR_BYTES 20
#define CENTRAL_BYTES 46
#define LOCAL_BYTES 30

enum { FLAG_ENCRYPTED = 1, FLAG_DESCRIPTOR = 8, FLAG_PATCH = 32, FLAG_STRONG = 64, FLAG_MASKED = 8192 };

struct zip {
  const unsigned char *data;
  size_t size;
  struct zip_member *members;
  size_t count;
  struct arena names;
};

/* Where the central directory lies. */
struct directory {
  uint64_t begin, bytes, count;
  size_t end; /* the first byte behind it, by the end records */
};

/* One central entry with zip64 resolved. */
struct entry {
  unsigned flags, method;
  uint32_t crc;
  uint64_t size, packed, local;
  const char *name;
  size_t name_length;
  size_t at; /* of the entry, for errors */
  size_t data_end; /* one past data, descriptor included */
};

static uint32_t u16(const unsigned char *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const unsigned char *p) { return u16(p) | u16(p + 2) << 16; }
static uint64_t u64(const unsigned char *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

/* ---- the end records ---- */

/* The end record whose comment ends exactly with the file, so that bytes behind an archive cannot hide one. */
static int find_end(const struct zip *zip, size_t *at, struct error *error) {
  size_t last = zip->size < END_BYTES ? 0 : zip->size - END_BYTES + 1;
  size_t first = last > 65536 ? last - 65536 : 0;
  for (size_t i = last; i-- > first;) {
    const unsigned char *p = zip->data + i;
    if (memcmp(p, "PK\5\6", 4) != 0 || i + END_BYTES + u16(p + 20) != zip->size) continue;
    *at = i;
    return 0;
  }
  return error_set(error, ERROR_FORMAT, "no end record of a zip archive; the file of %zu bytes may be cut short",
                   zip->size);
}

static bool agrees(uint64_t narrow, uint64_t ones, uint64_t wide) { return narrow == ones || narrow == wide; }

static int read_end64(const struct zip *zip, size_t end, struct directory *out, struct error *error) {
  const unsigned char *locator = zip->data + end - LOCATOR_BYTES, *narrow = zip->data + end;
  uint64_t at = u64(locator + 8), room = end - LOCATOR_BYTES;
  if (room < END64_BYTES || at > room - END64_BYTES || memcmp(zip->data + at, "PK\6\6", 4) != 0)
    return error_set(error, ERROR_FORMAT, "no zip64 end record at byte %llu", (unsigned long long)at);
  const unsigned char *p = zip->data + at;
  if (u64(p + 4) != room - at - 12)
    return error_set(error, ERROR_FORMAT, "the zip64 end record at byte %llu claims %llu bytes, expected %llu",
                     (unsigned long long)at, (unsigned long long)u64(p + 4), (unsigned long long)(room - at - 12));
  bool one_disk = u32(p + 16) == 0 && u32(p + 20) == 0 && u64(p + 24) == u64(p + 32) && u32(locator + 4) == 0 &&
                  u32(locator + 16) <= 1; /* the number of disks */
  if (!one_disk) return error_set(error, ERROR_FORMAT, "the archive spans several disks");
  *out = (struct directory){.begin = u64(p + 48), .bytes = u64(p + 40), .count = u64(p + 32), .end = (size_t)at};
  bool same = agrees(u16(narrow + 10), 0xFFFF, out->count) && agrees(u32(narrow + 12), 0xFFFFFFFF, out->bytes) &&
              agrees(u32(narrow + 16), 0xFFFFFFFF, out->begin);
  return same ? 0 : error_set(error, ERROR_FORMAT, "the end record and the zip64 end record disagree");
}

static int read_end(const struct zip *zip, struct directory *out, struct error *error) {
  size_t end = 0;
  if (find_end(zip, &end, error) != 0) return -1;
  const unsigned char *p = zip->data + end;
  if (u16(p + 4) != u16(p + 6) || (u16(p + 4) != 0 && u16(p + 4) != 0xFFFF) || u16(p + 8) != u16(p + 10))
    return error_set(error, ERROR_FORMAT, "the archive spans several disks");
  if (end >= LOCATOR_BYTES && memcmp(p - LOCATOR_BYTES, "PK\6\7", 4) == 0) {
    if (read_end64(zip, end, out, error) != 0) return -1;
  } else {
    *out = (struct directory){.begin = u32(p + 16), .bytes = u32(p + 12), .count = u16(p + 10), .end = end};
  }
  uint64_t stop;
  if (__builtin_add_overflow(out->begin, out->bytes, &stop) || stop != out->end)
    return error_set(error, ERROR_FORMAT, "the central directory (byte %llu, %llu bytes) does not end at byte %zu",
                     (unsigned long long)out->begin, (unsigned long long)out->bytes, out->end);
  if (out->count > MAX_MEMBERS)
    return error_set(error, ERROR_LIMIT, "the archive has %llu members, at most %d are read",
                     (unsigned long long)out->count, MAX_MEMBERS);
  return 0;
}

/* ---- entries ---- */

static int fail(const struct entry *entry, const char *what, struct error *error) {
  return error_set(error, ERROR_FORMAT, "member '%.*s' (directory byte %zu): %s",
                   (int)size_min(entry->name_length, 100), entry->name, entry->at, what);
}

/* Replaces each field that is all ones by its value from the zip64 extra field, in order. */
static bool resolve_zip64(const unsigned char *extra, size_t length, uint64_t *const fields[], size_t n) {
  const unsigned char *wide = NULL, *end = extra + length;
  for (const unsigned char *p = extra; end - p >= 4 && !wide; p += 4 + u16(p + 2)) {
    if (u16(p + 2) > (size_t)(end - p - 4)) break;
    if (u16(p) != 1) continue;
    wide = p + 4;
    end = wide + u16(p + 2);
    break;
  }
  for (size_t i = 0; i < n; i++) {
    if (*fields[i] != 0xFFFFFFFF) continue;
    if (!wide || end - wide < 8) return false;
    *fields[i] = u64(wide);
    wide += 8;
  }
  return true;
}

static bool name_is_safe(const char *name, size_t length) {
  if (length == 0 || length > MAX_NAME || name[0] == '/' || memchr(name, 0, length) || memchr(name, '\\', length))
    return false;
  for (size_t i = 0; i < length;) { /* no part may be ".." */
    const char *slash = memchr(name + i, '/', length - i);
    size_t part = slash ? (size_t)(slash - name) - i : length - i;
    if (part == 2 && name[i] == '.' && name[i + 1] == '.') return false;
    i += part + 1;
  }
  return utf8_valid(name, length, NULL);
}

/* Reads the central entry at *at and moves past it. */
static int read_central(const struct zip *zip, const struct directory *directory, size_t *at, struct entry *out,
                        struct error *error) {
  const unsigned char *p = zip->data + *at;
  size_t room = directory->end - *at;
  if (room < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
    return error_set(error, ERROR_FORMAT, "no entry of the central directory at byte %zu", *at);
  size_t name = u16(p + 28), extra = u16(p + 30), comment = u16(p + 32);
  if (name + extra + comment > room - CENTRAL_BYTES)
    return error_set(error, ERROR_FORMAT, "the directory entry at byte %zu is cut short", *at);
  *out = (struct entry){.flags = u16(p + 8), .method = u16(p + 10), .crc = u32(p + 16), .packed = u32(p + 20),
                        .size = u32(p + 24), .local = u32(p + 42), .name = (const char *)p + CENTRAL_BYTES,
                        .name_length = name, .at = *at};
  *at += CENTRAL_BYTES + name + extra + comment;
  if (!name_is_safe(out->name, name))
    return fail(out, "the name is not a relative path of at most 512 bytes without '..', backslash and NUL", error);
  uint64_t *const fields[] = {&out->size, &out->packed, &out->local};
  if (!resolve_zip64(p + CENTRAL_BYTES + name, extra, fields, 3))
    return fail(out, "its zip64 field lacks a size or offset", error);
  if (u16(p + 34) != 0 && u16(p + 34) != 0xFFFF) return fail(out, "it lies on another disk", error);
  return 0;
}

static int check_kind(const struct entry *entry, struct error *error) {
  if (entry->flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED)) return fail(entry, "it is encrypted", error);
  if (entry->flags & FLAG_PATCH) return fail(entry, "it is patch data", error);
  if (entry->method != ZIP_STORED && entry->method != ZIP_DEFLATED)
    return fail(entry, "its method is neither stored nor deflate", error);
  if (entry->method == ZIP_STORED && entry->size != entry->packed)
    return fail(entry, "it is stored, but its two sizes differ", error);
  return 0;
}

/* Sizes and CRC of a local header: as in the directory, or, with a descriptor behind the data, all 0. */
static bool local_agrees(const unsigned char *p, const unsigned char *extra, size_t length,
                         const struct entry *entry) {
  uint64_t packed = u32(p + 18), size = u32(p + 22);
  uint32_t crc = u32(p + 14);
  uint64_t *const fields[] = {&size, &packed};
  if (!resolve_zip64(extra, length, fields, 2)) return false;
  if (size == entry->size && packed == entry->packed && crc == entry->crc) return true;
  return entry->flags & FLAG_DESCRIPTOR && size == 0 && packed == 0 && crc == 0;
}

/* The descriptor behind the data, with or without signature, with 4- or 8-byte sizes; its length, 0 if none
 * of these agrees with the directory. */
static size_t descriptor_length(const unsigned char *p, size_t room, const struct entry *entry) {
  size_t sign = room >= 4 && memcmp(p, "PK\7\10", 4) == 0 ? 4 : 0;
  if (room >= sign + 20 && u32(p + sign) == entry->crc && u64(p + sign + 4) == entry->packed &&
      u64(p + sign + 12) == entry->size)
    return sign + 20;
  if (room >= sign + 12 && u32(p + sign) == entry->crc && u32(p + sign + 4) == entry->packed &&
      u32(p + sign + 8) == entry->size)
    return sign + 12;
  return 0;
}

/* Follows the entry to its local header, compares them, and finds the data. `limit` is the first byte of the
 * central directory. */
static int read_local(const struct zip *zip, size_t limit, struct entry *entry, struct zip_member *out,
                      struct error *error) {
  if (limit < LOCAL_BYTES || entry->local > limit - LOCAL_BYTES)
    return fail(entry, "its local header lies outside the file", error);
  const unsigned char *p = zip->data + entry->local;
  size_t room = limit - (size_t)entry->local - LOCAL_BYTES, name = u16(p + 26), extra = u16(p + 28);
  if (memcmp(p, "PK\3\4", 4) != 0) return fail(entry, "there is no local header where the directory says", error);
  if (name + extra > room || entry->packed > room - name - extra)
    return fail(entry, "its data does not end before the central directory", error);
  bool same = u16(p + 6) == entry->flags && u16(p + 8) == entry->method && name == entry->name_length &&
              memcmp(p + LOCAL_BYTES, entry->name, name) == 0;
  if (!same || !local_agrees(p, p + LOCAL_BYTES + name, extra, entry))
    return fail(entry, "its local header and the central directory disagree", error);
  const unsigned char *data = p + LOCAL_BYTES + name + extra;
  size_t after = 0;
  if (entry->flags & FLAG_DESCRIPTOR) {
    after = descriptor_length(data + entry->packed, room - name - extra - (size_t)entry->packed, entry);
    if (!after) return fail(entry, "its data descriptor and the central directory disagree", error);
  }
  entry->data_end = (size_t)(data - zip->data) + (size_t)entry->packed + after;
  *out = (struct zip_member){.method = (enum zip_method)entry->method, .crc = entry->crc, .data = data,
                             .packed = (size_t)entry->packed, .size = (size_t)entry->size};
  return 0;
}

/* ---- the archive ---- */

static int compare_places(const void *a, const void *b) {
  uint64_t x = ((const struct entry *)a)->local, y = ((const struct entry *)b)->local;
  return x < y ? -1 : x > y;
}

static int check_overlap(struct entry *entries, size_t n, struct error *error) {
  qsort(entries, n, sizeof *entries, compare_places);
  for (size_t i = 1; i < n; i++)
    if (entries[i].local < entries[i - 1].data_end)
      return fail(&entries[i], "it overlaps the member before it", error);
  return 0;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const struct zip_member *)a)->name, ((const struct zip_member *)b)->name);
}

static int sort_names(struct zip *zip, struct error *error) {
  qsort(zip->members, zip->count, sizeof *zip->members, compare_names);
  for (size_t i = 1; i < zip->count; i++)
    if (strcmp(zip->members[i - 1].name, zip->members[i].name) == 0)
      return error_set(error, ERROR_FORMAT, "member '%.100s' stands twice", zip->members[i].name);
  return 0;
}

static int read_entries(struct zip *zip, const struct directory *directory, struct entry *entries,
                        struct error *error) {
  size_t at = (size_t)directory->begin;
  for (size_t i = 0; i < directory->count; i++) {
    struct zip_member *member = &zip->members[i];
    if (read_central(zip, directory, &at, &entries[i], error) != 0 || check_kind(&entries[i], error) != 0) return -1;
    if (read_local(zip, (size_t)directory->begin, &entries[i], member, error) != 0) return -1;
    member->name = arena_text(&zip->names, entries[i].name, entries[i].name_length, error);
    if (!member->name) return -1;
  }
  zip->count = (size_t)directory->count;
  if (at != directory->end)
    return error_set(error, ERROR_FORMAT, "%zu bytes stand behind the last entry of the central directory",
                     directory->end - at);
  if (check_overlap(entries, zip->count, error) != 0) return -1;
  return sort_names(zip, error);
}

struct zip *zip_open(const unsigned char *data, size_t size, struct error *error) {
  struct directory directory = {0};
  struct zip *zip = calloc(1, sizeof *zip);
  if (!zip) return error_memory(error, sizeof *zip), NULL;
  zip->data = data;
  zip->size = size;
  arena_init(&zip->names, 0);
  struct entry *entries = NULL;
  if (read_end(zip, &directory, error) != 0) goto fail;
  size_t n = size_max((size_t)directory.count, 1);
  zip->members = calloc(n, sizeof *zip->members);
  entries = calloc(n, sizeof *entries);
  if (!zip->members || !entries) {
    error_memory(error, n * sizeof *entries);
    goto fail;
  }
  if (read_entries(zip, &directory, entries, error) != 0) goto fail;
  free(entries);
  return zip;
fail:
  free(entries);
  zip_close(zip);
  return NULL;
}

void zip_close(struct zip *zip) {
  if (!zip) return;
  free(zip->members);
  arena_clear(&zip->names);
  free(zip);
}

size_t zip_count(const struct zip *zip) { return zip->count; }

const struct zip_member *zip_at(const struct zip *zip, size_t i) { return i < zip->count ? &zip->members[i] : NULL; }

const struct zip_member *zip_find(const struct zip *zip, const char *name) {
  struct zip_member key = {.name = name};
  return bsearch(&key, zip->members, zip->count, sizeof key, compare_names);
}

int zip_check_stored(const struct zip_member *member, struct error *error) {
  if (member->method == ZIP_STORED) return 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "member '%.100s' is compressed and cannot be mapped; torch.save only stores: save the file with it",
                   member->name);
}

int zip_check_crc(const struct zip_member *member, struct error *error) {
  if (member->crc == 0) return 0; /* torch's set_crc32_options(False) */
  uint32_t found = (uint32_t)crc32_z(crc32_z(0, NULL, 0), member->data, member->size);
  if (found == member->crc) return 0;
  return error_set(error, ERROR_FORMAT, "member '%.100s' is damaged: its CRC-32 is %08x, expected %08x", member->name,
                   (unsigned)found, (unsigned)member->crc);
}
