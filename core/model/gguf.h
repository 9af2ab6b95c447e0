/* gguf.h: one GGUF file, as far as control vectors need it: which tensors lie where. Private to this room.
 *
 *   "GGUF", u32 version (2 or 3), u64 tensors, u64 pairs      all numbers little endian
 *   pairs      key (u64 length, bytes), u32 kind, value       kinds: 0..7, 10..12 numbers and bool, 8 text, 9 array of one kind
 *   tensors    name (u64 length, bytes), u32 dimensions, u64 sizes (the innermost first), u32 type, u64 offset
 *   data       from the next multiple of "general.alignment" (32 where it is not said); offsets count from here
 *
 * Refused: other versions; more than 4,096 tensors or pairs, keys above 256 bytes, texts above 1 MiB, arrays in arrays; an alignment
 * that is no power of two from 8 to 4,096; more than 4 dimensions; types other than F32, F16, BF16, F64; data that is not aligned
 * or ends behind the file. Models are not read from GGUF files: what they hold is rounded and renamed. */
#ifndef STEERD_CORE_MODEL_GGUF_H
#define STEERD_CORE_MODEL_GGUF_H

#include "core/base/mapfile.h"
#include "core/model/tensor_list.h"

struct gguf_facts {
  char architecture[64]; /* "general.architecture", cut to the room; "" where it is not said */
  char hint[64];         /* "controlvector.model_hint", likewise: the kind of model that the vector was made for */
};

bool gguf_begins(const unsigned char *data, size_t size);

/* Appends the tensors of a file in its order, their shapes outermost first; data borrows the file's bytes. Errors quote what was
 * found and do not name the file: ERROR_FORMAT, ERROR_UNSUPPORTED (a version, a type), ERROR_LIMIT, ERROR_MEMORY. */
int gguf_read(const unsigned char *data, size_t size, struct tensor_list *list, struct gguf_facts *facts, struct error *error) MUST_CHECK;

#endif
