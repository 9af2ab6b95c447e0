/* zip.h: the members of a zip archive in memory, found and checked, not unpacked.
 *
 * Read from the end record and the central directory, zip64 included; every local header must say the same
 * once its zip64 field is resolved (with flag bit 3 its sizes may be 0, and the data descriptor must agree).
 * Refused: several disks, encryption, methods other than stored and deflate, members that overlap, more than
 * 4,096 of them, names that are not unique, relative UTF-8 of at most 512 bytes without NUL, backslash and
 * "..". A reader that skips these checks can be shown another file than the one that was checked. */
#ifndef STEERD_CORE_MODEL_ZIP_H
#define STEERD_CORE_MODEL_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

enum zip_method { ZIP_STORED = 0, ZIP_DEFLATED = 8 };

struct zip_member {
  const char *name; /* owned by the zip */
  enum zip_method method;
  uint32_t crc;              /* of the unpacked bytes; 0 when the writer did not compute it */
  const unsigned char *data; /* as it lies in the archive; borrowed, may be unaligned */
  size_t packed;             /* bytes at data */
  size_t size;               /* bytes unpacked, as declared; equal to packed when stored */
};

struct zip;

/* Borrows data[0..size) until zip_close. NULL with ERROR_FORMAT / ERROR_LIMIT that names the member or byte,
 * not the file. */
struct zip *zip_open(const unsigned char *data, size_t size, struct error *error) MUST_CHECK;
void zip_close(struct zip *zip); /* NULL is fine */

size_t zip_count(const struct zip *zip);
const struct zip_member *zip_at(const struct zip *zip, size_t i);              /* sorted by name */
const struct zip_member *zip_find(const struct zip *zip, const char *name); /* NULL when absent */

/* 0 when the member is stored, so that `data` is its content; else ERROR_UNSUPPORTED. */
int zip_check_stored(const struct zip_member *member, struct error *error) MUST_CHECK;

/* Reads a whole stored member and compares its CRC-32; one without a CRC passes. For small members. */
int zip_check_crc(const struct zip_member *member, struct error *error) MUST_CHECK;

#endif
