/* npz.h: one .npz file as numpy.savez and numpy.savez_compressed write it: a zip archive of arrays, one a member
 * (npy.h). Private to this room; tensors.h is the way in.
 *
 * A member NAME.npy becomes the tensor NAME; members of other names are left out. Stored arrays are mapped.
 * Compressed ones are checked for their header at once and unpacked when they are asked for.
 *
 * Refused: an array whose bytes are not exactly dtype x shape; a compressed member that claims more than deflate can
 * hold (1,032 bytes out of one); more than 100 bytes unpacked for each byte of the file, plus 64 MiB, all compressed
 * members together: weights hardly compress, and what a file can make us allocate stays in proportion to it. The
 * CRC-32 of a compressed member is compared; that of a stored one is not, which would read gigabytes before use. */
#ifndef STEERD_CORE_MODEL_NPZ_H
#define STEERD_CORE_MODEL_NPZ_H

#include "core/base/mapfile.h"
#include "core/model/tensor_list.h"

/* A compressed array: where it lies, and what was unpacked of it. */
struct npz_packed {
  size_t tensor;             /* its place in the list */
  const unsigned char *data; /* deflate stream in the mapping */
  size_t packed, header;     /* bytes of the stream; bytes of the array's header in what it unpacks to */
  uint32_t crc;              /* of header and elements */
  unsigned char *elements;   /* owned; NULL until npz_unpack */
};

struct npz_packed_list {
  struct npz_packed *items; /* by tensor, ascending */
  size_t count;
};

/* True when a mapped file begins as a zip archive whose first member is an array; numpy writes nothing else first. */
bool npz_begins(const struct mapfile *file);

/* Appends the arrays of a mapped file, by name; the data of stored ones borrows the mapping, that of compressed ones
 * is NULL and they stand in *packed (zeroed by the caller, given back by npz_clear). `path` is for error texts. On
 * error list and *packed may hold a part: the caller drops them. */
int npz_read(const char *path, const struct mapfile *file, struct tensor_list *list, struct npz_packed_list *packed,
             struct error *error) MUST_CHECK;

/* Unpacks a compressed array of `bytes` bytes into item->elements. Errors do not name the file. */
int npz_unpack(struct npz_packed *item, size_t bytes, struct error *error) MUST_CHECK;

void npz_clear(struct npz_packed_list *packed);

#endif
