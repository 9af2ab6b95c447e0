/* tensors.h: named tensors in a file somebody published: safetensors (one file or a sharded set), torch .pth/.pt
 * archives, numpy .npz and .npy, llama2.c checkpoints. One view of all, so that nothing above knows which it was.
 *
 * Files are hostile until checked: every size, offset, count and name is verified against the file before
 * anything is allocated or followed (rules: the readers' headers). Pickles are never executed: a small machine
 * builds dicts, lists, strings, numbers and tensors, and refuses everything else by name. Tensor data is
 * mapped, not copied, and may be unaligned: read it with dtype_f32_at / memcpy.
 *
 * Names are those of the file. Of a .pth they are the keys of its dict; what lies in dicts and lists below it is
 * joined with a dot ("state_dict.W_enc"), and values that are no tensors are left out. Of an .npz they are the names
 * given to numpy.savez; the one array of an .npy is called "array". */
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
  int64_t stride[TENSOR_MAX_DIMS]; /* elements; row-major unless transposed or a slice in the file; no two
                                    * indices ever share an element */
  const unsigned char *data;     /* element 0; borrowed; all strided elements lie inside the mapping, or inside what
                                  * was unpacked. NULL after tensors_open_lazy where the file has it compressed */
  size_t bytes;                  /* of the elements when contiguous: product(shape) * dtype_size */
};

struct tensors;

/* Opens by content, not by name: a safetensors file, a torch zip archive, an .npz or .npy, or a folder that holds
 * model.safetensors.index.json and its shards, model.safetensors, or pytorch_model.bin likewise. NULL with an error that
 * names file, tensor or offset, what was found and what was expected. */
struct tensors *tensors_open(const char *path, struct error *error) MUST_CHECK;

/* As tensors_open, but compressed arrays of an .npz stay as they are until tensors_load, their data NULL. */
struct tensors *tensors_open_lazy(const char *path, struct error *error) MUST_CHECK;

/* Makes the data of one tensor of `tensors` readable: unpacks it when it is compressed, else does nothing. One thread
 * at a time. ERROR_FORMAT when its bytes are damaged, ERROR_MEMORY. */
int tensors_load(struct tensors *tensors, const struct tensor *tensor, struct error *error) MUST_CHECK;

void tensors_close(struct tensors *tensors); /* NULL is fine; all tensors of it become invalid */

size_t tensors_count(const struct tensors *tensors);
const struct tensor *tensors_at(const struct tensors *tensors, size_t i); /* file order */
const struct tensor *tensors_find(const struct tensors *tensors, const char *name); /* NULL when absent */

/* "safetensors", "torch", "npz", "npy" or "llama2.c". */
const char *tensors_format(const struct tensors *tensors);

/* Bytes mapped in all files together, and those unpacked beside them. */
size_t tensors_bytes(const struct tensors *tensors);

/* Tells the kernel that mapped pages may go (their content was packed elsewhere); data stays readable. */
void tensors_forget(const struct tensors *tensors);

/* True when the elements lie in row-major order without gaps. */
int tensor_is_contiguous(const struct tensor *tensor);

/* "[768, 24576] F32" into out, for error texts. Returns out. */
const char *tensor_describe(const struct tensor *tensor, char out[128]);

#endif
