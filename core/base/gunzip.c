#include "core/base/gunzip.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#define CHUNK ((size_t)16 << 10)
#define WINDOW_GZIP (15 + 16) /* zlib's way to say: the largest window, in a gzip wrapper */

bool gunzip_is(const void *bytes, size_t length) {
  const unsigned char *first = bytes;
  return length >= 2 && first[0] == 0x1f && first[1] == 0x8b;
}

/* One chunk into the buffer: zlib's word for how it went. */
static int step(z_stream *stream, unsigned char *chunk, struct buffer *out) {
  stream->next_out = chunk;
  stream->avail_out = (uInt)CHUNK;
  int rc = inflate(stream, Z_NO_FLUSH);
  buffer_append(out, chunk, CHUNK - stream->avail_out);
  return rc;
}

int gunzip(const void *bytes, size_t length, struct buffer *out, struct error *error) {
  unsigned char chunk[CHUNK];
  z_stream stream;
  memset(&stream, 0, sizeof stream);
  if (length > UINT_MAX) return error_set(error, ERROR_LIMIT, "the compressed data has more than %u bytes", UINT_MAX);
  if (inflateInit2(&stream, WINDOW_GZIP) != Z_OK) return error_memory(error, sizeof stream);
  stream.next_in = (Bytef *)(uintptr_t)bytes;
  stream.avail_in = (uInt)length;
  int rc;
  do rc = step(&stream, chunk, out);
  while (rc == Z_OK && !out->failed);
  bool more = stream.avail_in > 0;
  inflateEnd(&stream);
  if (out->failed && out->limit && out->length + CHUNK > out->limit)
    return error_set(error, ERROR_LIMIT, "unpacked, it has more than %zu MiB, the most that is kept", out->limit >> 20);
  if (rc == Z_MEM_ERROR || out->failed) return error_memory(error, CHUNK);
  if (rc == Z_BUF_ERROR) return error_set(error, ERROR_FORMAT, "the compressed data is cut off");
  if (rc != Z_STREAM_END) return error_set(error, ERROR_FORMAT, "the compressed data is damaged");
  return more ? error_set(error, ERROR_FORMAT, "something stands behind the end of the compressed data") : 0;
}
