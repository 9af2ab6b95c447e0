/* tensors.h: named tensors in a file somebody published: safetensors (one file or a sharded set) and torch
 * .pth/.pt archives. One view of both, so that nothing above knows which it was.
 *
 * Files are hostile until checked: every size, offset, count and name is verified against the file before
 * anything is allocated or followed (rules: docs/formats.md). Pickles are never executed: a small machine
 * builds dicts, lists, strings, numbers and tensors, and refuses everything else by name. Tensor data is
 * mapped, not copied, and may be unaligned: read it with dtype_f32_at / memcpy.
 *
 * Names are those of the file. Of a .pth they are the keys of its dict; what lies in dicts and lists below it is
 * joined with a dot ("state_dict.W_enc"), and values that are no tensors are left out. */
#ifndef STEERD_CORE_MODEL_TENSORS_H
#define STEERD_CORE_MODEL_TENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/math/dtype.h"

#define TENSOR_MAX_DIMS 8

struct tensor {
  const char *name;              /* as in the file; owned by the tensors object */
  enum dtype dtype;
  int n_dims;                    /* 0 = scalar */
  int64_t shape[TENSOR_MAX_DIMS];
  int64_t stride[TENSOR_MAX_DIMS]; /* elements; row-major unless a .pth view is transposed or a slice; no two
                                    * indices ever share an element */
  const unsigned char *data;     /* element 0; mapped, borrowed; all strided elements lie inside the file */
  size_t bytes;                  /* of the elements when contiguous: product(shape) * dtype_size */
};

struct tensors;

/* Opens by content, not by name: a safetensors file, a torch zip archive, or a folder that holds
 * model.safetensors.index.json + shards, or model.safetensors. NULL with an error that names file, tensor
 * or offset, what was found and what was expected. */
struct tensors *tensors_open(const char *path, struct error *error) MUST_CHECK;
void tensors_close(struct tensors *tensors); /* NULL is fine; all tensors of it become invalid */

size_t tensors_count(const struct tensors *tensors);
const struct tensor *tensors_at(const struct tensors *tensors, size_t i); /* file order */
const struct tensor *tensors_find(const struct tensors *tensors, const char *name); /* NULL when absent */

/* "safetensors" or "torch". */
const char *tensors_format(const struct tensors *tensors);

/* Bytes mapped in all files together. */
size_t tensors_bytes(const struct tensors *tensors);

/* Tells the kernel that mapped pages may go (their content was packed elsewhere); data stays readable. */
void tensors_forget(const struct tensors *tensors);

/* True when the elements lie in row-major order without gaps. */
int tensor_is_contiguous(const struct tensor *tensor);

/* "[768, 24576] F32" into out, for error texts. Returns out. */
const char *tensor_describe(const struct tensor *tensor, char out[128]);

#endif
