/* zip_builder.h: writes zip archives byte by byte, for tests that need them wrong in one place. */
#ifndef STEERD_TESTS_UNIT_ZIP_BUILDER_H
#define STEERD_TESTS_UNIT_ZIP_BUILDER_H

#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "core/base/buffer.h"

/* One member; what is left 0 is filled in truthfully. `lie` values replace a field of one header. */
struct zip_part {
  const char *name;
  const void *data;
  size_t size;
  unsigned flags, method;
  size_t name_length;         /* 0: strlen(name) */
  const char *local_name;     /* NULL: name */
  uint32_t local_size;        /* 0: the truth */
  uint32_t central_size;      /* 0: the truth, of both size fields */
  uint32_t central_offset;    /* 0: the truth */
  uint32_t unpacked_size;     /* of both headers; 0: the truth */
  uint32_t crc;               /* of both headers; 0: that of data, which is of the wrong bytes when it is compressed */
  uint32_t descriptor_size;   /* with flag bit 3; 0: the truth */
  int local_zip64;            /* sizes in an extra field, as numpy.savez writes them */
  int central_zip64;          /* 1: sizes and offset in an extra field; 2: the field is cut short */
};

static void zip_put(struct buffer *out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) buffer_char(out, (char)(value >> 8 * i));
}

static size_t part_name_length(const struct zip_part *part) {
  return part->name_length ? part->name_length : strlen(part->name);
}

static uint32_t part_crc(const struct zip_part *part) {
  return part->crc ? part->crc : (uint32_t)crc32(0, part->data, (uInt)part->size);
}

static void put_local(struct buffer *out, const struct zip_part *part) {
  uint32_t size = part->local_size ? part->local_size : (uint32_t)part->size;
  int later = part->flags & 8 ? 1 : 0;
  const char *name = part->local_name ? part->local_name : part->name;
  buffer_append(out, "PK\3\4", 4);
  zip_put(out, 20, 2);
  zip_put(out, part->flags, 2);
  zip_put(out, part->method, 2);
  zip_put(out, 0, 4);
  zip_put(out, later ? 0 : part_crc(part), 4);
  zip_put(out, part->local_zip64 ? 0xFFFFFFFF : later ? 0 : size, 4);
  zip_put(out, part->local_zip64 ? 0xFFFFFFFF : later ? 0 : part->unpacked_size ? part->unpacked_size : size, 4);
  zip_put(out, part_name_length(part), 2);
  zip_put(out, part->local_zip64 ? 20 : 0, 2);
  buffer_append(out, name, part_name_length(part));
  if (part->local_zip64) {
    zip_put(out, 1, 2);
    zip_put(out, 16, 2);
    zip_put(out, size, 8);
    zip_put(out, size, 8);
  }
  buffer_append(out, part->data, part->size);
  if (!later) return;
  buffer_append(out, "PK\7\10", 4);
  zip_put(out, part_crc(part), 4);
  zip_put(out, part->descriptor_size ? part->descriptor_size : part->size, 4);
  zip_put(out, part->size, 4);
}

static void put_central(struct buffer *out, const struct zip_part *part, size_t local) {
  uint32_t size = part->central_size ? part->central_size : (uint32_t)part->size;
  int wide = part->central_zip64, extra = wide == 1 ? 24 : wide == 2 ? 16 : 0;
  buffer_append(out, "PK\1\2", 4);
  zip_put(out, 20, 2);
  zip_put(out, 20, 2);
  zip_put(out, part->flags, 2);
  zip_put(out, part->method, 2);
  zip_put(out, 0, 4);
  zip_put(out, part_crc(part), 4);
  zip_put(out, wide ? 0xFFFFFFFF : size, 4);
  zip_put(out, wide ? 0xFFFFFFFF : part->unpacked_size ? part->unpacked_size : size, 4);
  zip_put(out, part_name_length(part), 2);
  zip_put(out, wide ? (uint64_t)extra + 4 : 0, 2);
  zip_put(out, 0, 6); /* comment, disk, internal attributes */
  zip_put(out, 0, 4); /* external attributes */
  zip_put(out, wide ? 0xFFFFFFFF : part->central_offset ? part->central_offset : local, 4);
  buffer_append(out, part->name, part_name_length(part));
  if (!wide) return;
  zip_put(out, 1, 2);
  zip_put(out, (uint64_t)extra, 2);
  zip_put(out, size, 8);
  zip_put(out, size, 8);
  if (wide == 1) zip_put(out, local, 8);
}

static void put_end(struct buffer *out, size_t count, size_t begin, size_t bytes) {
  buffer_append(out, "PK\5\6", 4);
  zip_put(out, 0, 4);
  zip_put(out, count, 2);
  zip_put(out, count, 2);
  zip_put(out, bytes, 4);
  zip_put(out, begin, 4);
  zip_put(out, 0, 2);
}

/* A whole archive of up to 64 parts. */
static void zip_build(struct buffer *out, const struct zip_part *parts, size_t count) {
  size_t places[64];
  for (size_t i = 0; i < count; i++) {
    places[i] = out->length;
    put_local(out, &parts[i]);
  }
  size_t begin = out->length;
  for (size_t i = 0; i < count; i++) put_central(out, &parts[i], places[i]);
  put_end(out, count, begin, out->length - begin);
}

#endif
