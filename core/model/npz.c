/* Arrays in a zip archive. Owns what it unpacks; leaves the directory to zip.c and the headers to npy.c. */
#include "core/model/npz.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/base/checked.h"
#include "core/model/npy.h"
#include "core/model/zip.h"

#define SUFFIX ".npy"
#define SUFFIX_BYTES 4
#define LOCAL_BYTES 30
#define DEFLATE_RATIO 1032 /* a match of 258 bytes takes two bits at least */
#define FREE_BYTES ((size_t)64 << 20)
#define FREE_RATIO 100
#define UNPACK_STEP ((size_t)1 << 30) /* zlib counts in 32 bits */

struct archive {
  struct zip *zip;
  size_t file_bytes, unpacked; /* of compressed members so far, as declared */
  struct tensor_list *list;
  struct npz_packed_list *packed;
};

static bool is_array(const char *name, size_t length) {
  return length > SUFFIX_BYTES && memcmp(name + length - SUFFIX_BYTES, SUFFIX, SUFFIX_BYTES) == 0;
}

bool npz_begins(const struct mapfile *file) {
  if (file->size < LOCAL_BYTES || memcmp(file->data, "PK\3\4", 4) != 0) return false;
  size_t name = (size_t)file->data[26] | (size_t)file->data[27] << 8;
  return name <= file->size - LOCAL_BYTES && is_array((const char *)file->data + LOCAL_BYTES, name);
}

/* ---- unpacking ---- */

/* Runs the stream until out[0..size) is full. Returns the bytes that were written. */
static size_t inflate_into(z_stream *stream, const unsigned char *end, unsigned char *out, size_t size, int *status) {
  size_t done = 0;
  while (done < size && *status == Z_OK) {
    stream->next_out = out + done;
    stream->avail_out = (uInt)size_min(size - done, UNPACK_STEP);
    stream->avail_in = (uInt)size_min((size_t)(end - stream->next_in), UNPACK_STEP);
    *status = inflate(stream, Z_NO_FLUSH);
    done = (size_t)(stream->next_out - out);
  }
  return done;
}

static int stream_open(z_stream *stream, const unsigned char *data, struct error *error) {
  memset(stream, 0, sizeof *stream);
  stream->next_in = (unsigned char *)(uintptr_t)data; /* zlib reads it, but does not say const */
  if (inflateInit2(stream, -MAX_WBITS) == Z_OK) return 0;
  return error_memory(error, (size_t)48 << 10);
}

/* The first bytes of a compressed member, at most `size`. */
static int unpack_front(const struct zip_member *member, unsigned char *out, size_t size, size_t *got,
                        struct error *error) {
  z_stream stream;
  int status = Z_OK;
  if (stream_open(&stream, member->data, error) != 0) return -1;
  *got = inflate_into(&stream, member->data + member->packed, out, size, &status);
  inflateEnd(&stream);
  if (status == Z_OK || status == Z_STREAM_END) return 0;
  return error_set(error, ERROR_FORMAT, "its compressed bytes are damaged (at byte %zu of what they unpack to)", *got);
}

/* True when the stream ends where its member ends, with nothing left to come out. */
static bool ends_here(z_stream *stream, const unsigned char *end, int *status) {
  unsigned char spare;
  if (*status == Z_OK && inflate_into(stream, end, &spare, 1, status) != 0) return false;
  return *status == Z_STREAM_END && stream->next_in == end;
}

int npz_unpack(struct npz_packed *item, size_t bytes, struct error *error) {
  unsigned char header[NPY_HEADER_MAX], *elements = malloc(size_max(bytes, 1));
  const unsigned char *end = item->data + item->packed;
  z_stream stream;
  int status = Z_OK, rc = -1;
  if (!elements) return error_memory(error, bytes);
  if (stream_open(&stream, item->data, error) != 0) goto out;
  size_t got = inflate_into(&stream, end, header, item->header, &status);
  if (got == item->header) got += inflate_into(&stream, end, elements, bytes, &status);
  if (got != item->header + bytes || !ends_here(&stream, end, &status)) {
    error_set(error, ERROR_FORMAT, "its compressed bytes are damaged: they do not unpack to %zu bytes",
              item->header + bytes);
    goto close;
  }
  uint32_t crc = (uint32_t)crc32_z(crc32_z(0, header, item->header), elements, bytes);
  if (crc != item->crc) {
    error_set(error, ERROR_FORMAT, "it is damaged: its CRC-32 is %08x, expected %08x", (unsigned)crc,
              (unsigned)item->crc);
    goto close;
  }
  item->elements = elements;
  elements = NULL;
  rc = 0;
close:
  inflateEnd(&stream);
out:
  free(elements);
  return rc;
}

/* ---- members ---- */

/* What may be allocated for this member, before any byte of it is unpacked. */
static int check_claim(struct archive *archive, const struct zip_member *member, struct error *error) {
  size_t most;
  if (member->size / DEFLATE_RATIO > member->packed)
    return error_set(error, ERROR_FORMAT, "it claims to unpack %zu bytes to %zu, more than deflate can hold",
                     member->packed, member->size);
  if (!checked_mul(archive->file_bytes, FREE_RATIO, &most) || !checked_add(most, FREE_BYTES, &most)) most = SIZE_MAX;
  if (!checked_add(archive->unpacked, member->size, &archive->unpacked) || archive->unpacked > most)
    return error_set(error, ERROR_LIMIT,
                     "with it the compressed arrays claim %zu bytes unpacked, at most %zu are read from a file of %zu "
                     "bytes; save it uncompressed (numpy.savez)",
                     archive->unpacked, most, archive->file_bytes);
  return 0;
}

static int check_size(const struct zip_member *member, size_t header, size_t bytes, struct error *error) {
  if (member->size - header == bytes) return 0;
  return error_set(error, ERROR_FORMAT, "its type and shape need %zu bytes, %zu stand behind its header", bytes,
                   member->size - header);
}

static int read_stored(const struct zip_member *member, struct tensor *view, struct error *error) {
  size_t header;
  if (npy_read_header(member->data, member->size, view, &header, error) != 0) return -1;
  view->data = member->data + header;
  return check_size(member, header, view->bytes, error);
}

static int read_compressed(struct archive *archive, const struct zip_member *member, struct tensor *view,
                           struct error *error) {
  unsigned char front[NPY_HEADER_MAX];
  size_t got = 0, header;
  if (check_claim(archive, member, error) != 0 ||
      unpack_front(member, front, size_min(sizeof front, member->size), &got, error) != 0 ||
      npy_read_header(front, got, view, &header, error) != 0 || check_size(member, header, view->bytes, error) != 0)
    return -1;
  archive->packed->items[archive->packed->count++] =
      (struct npz_packed){.tensor = archive->list->count, .data = member->data, .packed = member->packed,
                          .header = header, .crc = member->crc};
  return 0;
}

static int read_array(struct archive *archive, const struct zip_member *member, size_t name_length,
                      struct error *error) {
  struct tensor view = {0};
  struct error inner = ERROR_INIT;
  int rc = member->method == ZIP_STORED ? read_stored(member, &view, &inner)
                                        : read_compressed(archive, member, &view, &inner);
  if (rc != 0) return error_set(error, inner.code, "array '%.100s': %s", member->name, inner.text);
  struct tensor *tensor = tensor_list_add(archive->list, member->name, name_length, error);
  if (!tensor) return -1;
  view.name = tensor->name;
  *tensor = view;
  return 0;
}

static int read_archive(struct archive *archive, const struct mapfile *file, struct error *error) {
  archive->zip = zip_open(file->data, file->size, error);
  if (!archive->zip) return -1;
  size_t n = zip_count(archive->zip), bytes = size_max(n, 1) * sizeof *archive->packed->items;
  archive->packed->items = malloc(bytes);
  if (!archive->packed->items) return error_memory(error, bytes);
  for (size_t i = 0; i < n; i++) {
    const struct zip_member *member = zip_at(archive->zip, i);
    size_t length = strlen(member->name);
    if (is_array(member->name, length) && read_array(archive, member, length - SUFFIX_BYTES, error) != 0) return -1;
  }
  return 0;
}

int npz_read(const char *path, const struct mapfile *file, struct tensor_list *list, struct npz_packed_list *packed,
             struct error *error) {
  struct archive archive = {.file_bytes = file->size, .list = list, .packed = packed};
  struct error inner = ERROR_INIT;
  int rc = read_archive(&archive, file, &inner);
  if (rc != 0) error_set(error, inner.code, "'%s': %s", path, inner.text);
  zip_close(archive.zip);
  return rc;
}

void npz_clear(struct npz_packed_list *packed) {
  for (size_t i = 0; i < packed->count; i++) free(packed->items[i].elements);
  free(packed->items);
  *packed = (struct npz_packed_list){NULL, 0};
}
