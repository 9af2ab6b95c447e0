/* safetensors.h: one .safetensors file. Private to this room; tensors.h is the way in.
 *
 *   bytes 0..7     N, u64 little endian: length of the header
 *   bytes 8..8+N   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}, padded
 *                  with spaces; offsets count from byte 8+N; "__metadata__" maps strings to strings
 *   the rest       the elements, row-major, little endian, not necessarily aligned
 *
 * Refused: N above 100,000,000 or past the end; anything that is not exactly this JSON; unknown dtypes and
 * members; more than 8 dimensions; a range that is not dtype x shape; ranges that overlap, leave a gap or do
 * not end with the file. */
#ifndef STEERD_CORE_MODEL_SAFETENSORS_H
#define STEERD_CORE_MODEL_SAFETENSORS_H

#include "core/base/mapfile.h"
#include "core/model/tensor_list.h"

/* Appends the tensors of a mapped file, in the order of its header; their data borrows the mapping. `path`
 * is for error texts. On error the list may hold a part: the caller drops it. */
int safetensors_read(const char *path, const struct mapfile *file, struct tensor_list *list,
                     struct error *error) MUST_CHECK;

#endif
